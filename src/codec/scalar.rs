//! The INT4 block functions in plain loops: the definition that every other path equals bit for
//! bit. [`super::int4`] says what the numbers mean.

use super::distortion::{CELL, CellSums, RunBuilder, TRUSTED_ENERGY};
use super::element::Element;
use super::int4::{BlockLayout, BlockOutcome};
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
    let mut run = RunBuilder::new(layout, exponent);
    let (mut finite, mut in_range) = (true, true);
    for (index, scale) in scales.iter_mut().enumerate() {
        let group = Group::of(values, index, layout.group);
        let range = compress_group(values, group, exponent, codes, scale, &mut run);
        finite &= range.finite;
        in_range &= range.in_range;
    }
    BlockOutcome { finite, in_range, distortion: run.finish() }
}

#[inline(always)]
pub(super) fn decompress_block<T: Element>(
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    out: &mut [T],
) {
    for (index, scale) in scales.iter().enumerate() {
        decompress_group(codes, *scale, Group::of(out, index, group), exponent, out);
    }
}

/// Where a group lies among the values of its block.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub start: usize,
    pub end: usize,
}

impl Group {
    /// The last group of a tensor may be partial.
    #[inline(always)]
    pub fn of<T>(values: &[T], index: usize, group: usize) -> Self {
        let start = index * group;
        Self { start, end: values.len().min(start + group) }
    }
}

pub(super) struct GroupRange {
    pub finite: bool,
    /// The group is zero, or its scale is finite and at least 2⁻¹⁴.
    pub in_range: bool,
}

#[inline(always)]
pub(super) fn compress_group<T: Element>(
    values: &[T],
    group: Group,
    exponent: i32,
    codes: &mut [u8],
    scale: &mut f16,
    run: &mut RunBuilder,
) -> GroupRange {
    let down = PowerOfTwo::new(-exponent);
    let absmax = down.times(T::absmax(&values[group.start..group.end]));
    *scale = f16::from_f32(absmax / MAX_CODE);
    let rounded = scale.to_f32();
    // A group without a usable scale is all zeros.
    let zero = rounded == 0.0 || !rounded.is_finite();
    let inverse = 1.0 / rounded;

    let (mut start, mut buffer) = (group.start, Cell::<T>::new());
    while start < group.end {
        let len = run.next_cell(group.end - start);
        let cell = &values[start..start + len];
        let x = &mut buffer.x[..len];
        T::widen(cell, x);
        x.iter_mut().for_each(|x| *x = down.times(*x));
        let levels = &mut buffer.levels[..len];
        if zero {
            levels.fill(ZERO_LEVEL);
        } else {
            for (level, x) in levels.iter_mut().zip(&*x) {
                // 1.5·2^23 + 8: the sum rounds half to even at the unit and leaves code + 8 in
                // its low mantissa bits. Saturating first is the same, since the bounds are
                // whole numbers.
                let code = (x * inverse).clamp(-MAX_CODE, MAX_CODE);
                *level = (code + (12_582_912.0 + 8.0)).to_bits() as u8;
            }
        }
        pack(levels, start, codes);

        let scale = if zero { f16::ZERO } else { *scale };
        let (y, decoded) = (&mut buffer.y[..len], &mut buffer.decoded[..len]);
        decode(levels, scale, exponent, y, decoded);
        T::widen(decoded, y);
        y.iter_mut().for_each(|y| *y = down.times(*y));
        let sums = CellSums::of(x, y);
        if sums.energy() < TRUSTED_ENERGY {
            run.add_exact(cell, decoded);
        } else {
            run.add(sums, len);
        }
        start += len;
    }
    GroupRange {
        finite: absmax.is_finite(),
        in_range: absmax == 0.0 || (rounded.is_finite() && *scale >= f16::MIN_POSITIVE),
    }
}

/// Working memory for one cell, so that groups of any size take a fixed amount.
struct Cell<T> {
    x: [f32; CELL],
    y: [f32; CELL],
    levels: [u8; CELL],
    decoded: [T; CELL],
}

impl<T: Element> Cell<T> {
    #[inline(always)]
    fn new() -> Self {
        let decoded = [T::default(); CELL];
        Self { x: [0.0; CELL], y: [0.0; CELL], levels: [0; CELL], decoded }
    }
}

#[inline(always)]
pub(super) fn decompress_group<T: Element>(
    codes: &[u8],
    scale: f16,
    group: Group,
    exponent: i32,
    out: &mut [T],
) {
    let mut buffer = Cell::<T>::new();
    let mut start = group.start;
    for out in out[group.start..group.end].chunks_mut(CELL) {
        let (levels, wide) = (&mut buffer.levels[..out.len()], &mut buffer.y[..out.len()]);
        unpack(codes, start, levels);
        decode(levels, scale, exponent, wide, out);
        start += out.len();
    }
}

/// What levels stand for in `T`. Overwrites `wide` on the way.
#[inline(always)]
pub(super) fn decode<T: Element>(
    levels: &[u8],
    scale: f16,
    exponent: i32,
    wide: &mut [f32],
    out: &mut [T],
) {
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

/// Multiplication by 2^n, exact while the result is normal, for any n an f32 tensor can need:
/// 2^n itself may lie outside f32's range, so it is applied in two halves.
#[derive(Clone, Copy)]
pub(super) struct PowerOfTwo(pub f32, pub f32);

impl PowerOfTwo {
    #[inline(always)]
    pub fn new(n: i32) -> Self {
        let half = n / 2;
        Self(exp2(half), exp2(n - half))
    }

    #[inline(always)]
    pub fn times(self, value: f32) -> f32 {
        value * self.0 * self.1
    }
}

/// 2^n; 0 or infinite where f32 has no such normal number.
fn exp2(n: i32) -> f32 {
    match n {
        ..-126 => 0.0,
        -126..128 => f32::from_bits(((n + 127) as u32) << 23),
        _ => f32::INFINITY,
    }
}
