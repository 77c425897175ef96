//! The INT4 block functions in plain loops: the definition that every other path equals bit for
//! bit. [`super`] says what the numbers mean.

use super::block::{BlockLayout, BlockOutcome};
use crate::codec::distortion::{
    CELL, DistortionRun, RunBuilder, cell_sums, exact_cell_sums, is_trusted,
};
use crate::codec::element::Element;
use crate::codec::exponent::PowerOfTwo;
use half::f16;

pub(super) const MAX_CODE: f32 = 7.0;
/// How code 0 is stored.
pub(super) const ZERO_LEVEL: u8 = 8;

#[inline(always)]
pub(super) fn compress_block<T: Element>(
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &mut [u8],
    scales: &mut [f16],
) -> BlockOutcome {
    let mut buffer = Buffer::new();
    let (mut finite, mut in_range) = (true, true);
    let groups = values.chunks(layout.group).zip(scales.iter_mut());
    for (index, (values, scale)) in groups.enumerate() {
        let absmax = PowerOfTwo::new(-exponent).times(T::absmax(values));
        let group = GroupScale::of(absmax);
        *scale = group.rounded;
        finite &= absmax.is_finite();
        in_range &= group.in_range;
        quantise(values, index * layout.group, group, exponent, codes, &mut buffer);
    }
    let distortion = measure(values, layout, exponent, codes, scales, &mut buffer);
    BlockOutcome { finite, in_range, distortion }
}

/// How one group is quantised.
#[derive(Clone, Copy)]
pub(super) struct GroupScale {
    pub rounded: f16,
    /// The factor from values to codes: 0 where the group has no usable scale, and its codes are
    /// all 0.
    pub inverse: f32,
    /// The group is zero, or its scale is finite and at least 2⁻¹⁴.
    pub in_range: bool,
}

impl GroupScale {
    /// `absmax`: the largest magnitude of the group, over 2^exponent.
    #[inline(always)]
    pub fn of(absmax: f32) -> Self {
        let rounded = f16::from_f32(absmax / MAX_CODE);
        let scale = rounded.to_f32();
        let usable = scale > 0.0 && scale < f32::INFINITY;
        Self {
            rounded,
            inverse: if usable { 1.0 / scale } else { 0.0 },
            in_range: absmax == 0.0 || (usable && rounded >= f16::MIN_POSITIVE),
        }
    }
}

/// Codes of values of one group, which start at `start` in the block.
#[inline(always)]
fn quantise<T: Element>(
    values: &[T],
    start: usize,
    group: GroupScale,
    exponent: i32,
    codes: &mut [u8],
    buffer: &mut Buffer<T>,
) {
    let down = PowerOfTwo::new(-exponent);
    for (index, values) in values.chunks(CELL).enumerate() {
        let (x, levels) = (&mut buffer.x[..values.len()], &mut buffer.levels[..values.len()]);
        T::widen(values, x);
        for (level, x) in levels.iter_mut().zip(x) {
            // 1.5·2^23 + 8: the sum rounds half to even at the unit and leaves code + 8 in its
            // low mantissa bits. Saturating first is the same, since the bounds are whole
            // numbers.
            let code = (down.times(*x) * group.inverse).clamp(-MAX_CODE, MAX_CODE);
            *level = (code + (12_582_912.0 + f32::from(ZERO_LEVEL))).to_bits() as u8;
        }
        pack(levels, start + index * CELL, codes);
    }
}

#[inline(always)]
fn measure<T: Element>(
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &[u8],
    scales: &[f16],
    buffer: &mut Buffer<T>,
) -> DistortionRun {
    let mut run = RunBuilder::new(layout.head_dim, layout.start, exponent);
    let down = PowerOfTwo::new(-exponent);
    let mut start = 0;
    while start < values.len() {
        // As many cells as the buffer takes.
        let first = run.next_cell();
        let more = (CELL - first) / layout.head_dim.max(1) * layout.head_dim;
        let len = (first + more).min(values.len() - start);
        decode_values(start, len, layout.group, exponent, codes, scales, buffer);
        let (x, y) = (&mut buffer.x[..len], &mut buffer.y[..len]);
        T::widen(&values[start..start + len], x);
        T::widen(&buffer.decoded[..len], y);
        x.iter_mut().for_each(|x| *x = down.times(*x));
        y.iter_mut().for_each(|y| *y = down.times(*y));
        let end = start + len;
        let mut done = 0;
        while start < end {
            let len = run.next_cell().min(end - start);
            let cell = done..done + len;
            let mut sums = cell_sums(&x[cell.clone()], &y[cell.clone()]).map(f64::from);
            if !is_trusted(sums[0], sums[1], sums[2]) {
                let values = &values[start..start + len];
                sums = exact_cell_sums(values, &buffer.decoded[cell], exponent);
            }
            run.add(sums, len);
            (start, done) = (start + len, done + len);
        }
    }
    run.finish()
}

/// A cell that starts at `start` in its block once more, from the stored codes and in f64.
#[cold]
pub(super) fn measure_exactly<T: Element>(
    cell: &[T],
    start: usize,
    group: usize,
    exponent: i32,
    codes: &[u8],
    scales: &[f16],
) -> [f64; 3] {
    // Usual, and fast: zeros, which are decoded to zeros.
    if T::absmax(cell) == 0.0 {
        return [0.0; 3];
    }
    let mut buffer = Buffer::new();
    decode_values(start, cell.len(), group, exponent, codes, scales, &mut buffer);
    exact_cell_sums(cell, &buffer.decoded[..cell.len()], exponent)
}

/// To `buffer.decoded`. The `len` values may belong to several groups.
#[inline(always)]
fn decode_values<T: Element>(
    start: usize,
    len: usize,
    group: usize,
    exponent: i32,
    codes: &[u8],
    scales: &[f16],
    buffer: &mut Buffer<T>,
) {
    let mut done = 0;
    while done < len {
        let at = start + done;
        let part = (len - done).min(group - at % group);
        let levels = &mut buffer.levels[..part];
        unpack(codes, at, levels);
        let (wide, out) = (&mut buffer.y[..part], &mut buffer.decoded[done..done + part]);
        decode(levels, scales[at / group], exponent, wide, out);
        done += part;
    }
}

/// Working memory for [`CELL`] values.
struct Buffer<T> {
    x: [f32; CELL],
    y: [f32; CELL],
    levels: [u8; CELL],
    decoded: [T; CELL],
}

impl<T: Element> Buffer<T> {
    fn new() -> Self {
        let decoded = [T::default(); CELL];
        Self { x: [0.0; CELL], y: [0.0; CELL], levels: [0; CELL], decoded }
    }
}

#[inline(always)]
pub(super) fn decompress_block<T: Element>(
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    out: &mut [T],
) {
    let mut buffer = Buffer::<T>::new();
    for (index, (out, scale)) in out.chunks_mut(group).zip(scales).enumerate() {
        for (part, out) in out.chunks_mut(CELL).enumerate() {
            let (levels, wide) = (&mut buffer.levels[..out.len()], &mut buffer.y[..out.len()]);
            unpack(codes, index * group + part * CELL, levels);
            decode(levels, *scale, exponent, wide, out);
        }
    }
}

/// The values of one group's levels. Overwrites `wide` on the way.
#[inline(always)]
fn decode<T: Element>(levels: &[u8], scale: f16, exponent: i32, wide: &mut [f32], out: &mut [T]) {
    let (up, scale) = (PowerOfTwo::new(exponent), scale.to_f32());
    for (value, level) in wide.iter_mut().zip(levels) {
        let code = f32::from(*level) - f32::from(ZERO_LEVEL);
        *value = up.times(code * scale);
    }
    T::narrow_saturating(wide, out);
}

/// Stores the levels of values `start…`; an odd end leaves the last high nibble at code 0.
#[inline(always)]
fn pack(levels: &[u8], start: usize, codes: &mut [u8]) {
    let codes = &mut codes[start / 2..(start + levels.len()).div_ceil(2)];
    let (levels, codes) = match levels.split_first() {
        Some((first, rest)) if start % 2 == 1 => {
            codes[0] = codes[0] & 0xf | first << 4;
            (rest, &mut codes[1..])
        }
        _ => (levels, codes),
    };
    let (pairs, last) = levels.as_chunks::<2>();
    for (code, [low, high]) in codes.iter_mut().zip(pairs) {
        *code = low | high << 4;
    }
    if let ([low], Some(code)) = (last, codes.last_mut()) {
        *code = low | ZERO_LEVEL << 4;
    }
}

#[inline(always)]
fn unpack(codes: &[u8], start: usize, levels: &mut [u8]) {
    let codes = &codes[start / 2..(start + levels.len()).div_ceil(2)];
    let (levels, codes) = match levels.split_first_mut() {
        Some((first, rest)) if start % 2 == 1 => {
            *first = codes[0] >> 4;
            (rest, &codes[1..])
        }
        _ => (levels, codes),
    };
    let (pairs, last) = levels.as_chunks_mut::<2>();
    for ([low, high], code) in pairs.iter_mut().zip(codes) {
        (*low, *high) = (code & 0xf, code >> 4);
    }
    if let ([low], Some(code)) = (last, codes.last()) {
        *low = code & 0xf;
    }
}
