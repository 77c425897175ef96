//! Symmetric INT4: codes −7…7, one f16 scale a group.
//!
//! For a group of values x: `scale = f16(max|x| / 7)`, `code = round_half_even(x · (1/scale))`
//! saturated at ±7, `value = code · scale`. The scale is rounded to f16 *before* it quantises,
//! so that encoder and decoder use the same number. All-zero groups are exact; the sign of
//! zero is not kept.
//!
//! Magnitudes outside f16's range: a tensor has one power-of-two exponent e, and scales hold
//! `scale / 2^e`. It is 0 unless a scale would overflow f16 or the scale of a non-zero group
//! would fall below 2⁻¹⁴ (f16's smallest normal number); then it puts the largest scale between
//! 2¹⁴ and 2¹⁵, the top of f16's range, which leaves room below. Groups that underflow even
//! then become zero.
//!
//! Layout: codes are stored as `code + 8`, two a byte, the even index in the low nibble,
//! without padding between groups; an odd count leaves the last high nibble at 8 (code 0).

use super::Element;
use crate::lanes::reduce;
use half::f16;
use pulp::Arch;
use rayon::prelude::*;

const MAX_CODE: f32 = 7.0;
/// How code 0 is stored.
const ZERO_LEVEL: u8 = 8;
/// Values a rayon task takes at least: small tensors stay on one thread.
const TASK: usize = 1 << 14;

/// A tensor packed to symmetric INT4.
#[derive(Debug, Clone, PartialEq)]
pub struct Int4Payload {
    len: usize,
    group: usize,
    /// ⌈len / 2⌉ bytes.
    codes: Vec<u8>,
    /// ⌈len / group⌉ scales, divided by 2^exponent.
    scales: Vec<f16>,
    exponent: i32,
}

impl Int4Payload {
    /// `values`: finite, flattened row-major. The last group may be partial.
    pub fn compress<T: Element>(values: &[T], group: usize) -> Self {
        assert!(group > 0, "a group holds at least one value");
        let mut payload = Self::empty(values.len(), group, 0);
        // One optimistic pass; the rare tensor out of f16's range is done again.
        if !payload.fill(values) {
            let largest = values.iter().fold(0f32, |m, value| m.max(value.to_f32().abs()));
            // scale < 2^(exponent + 15) after rounding, hence finite in f16.
            let exponent = (f64::from(largest) / f64::from(MAX_CODE)).log2().floor() as i32 - 14;
            payload = Self::empty(values.len(), group, exponent);
            payload.fill(values);
        }
        payload
    }

    fn empty(len: usize, group: usize, exponent: i32) -> Self {
        Self {
            len,
            group,
            codes: vec![0; len.div_ceil(2)],
            scales: vec![f16::ZERO; len.div_ceil(group)],
            exponent,
        }
    }

    /// True when all scales of non-zero groups are finite and at least 2⁻¹⁴.
    fn fill<T: Element>(&mut self, values: &[T]) -> bool {
        let group = self.group;
        let task = task_len(group);
        let unit = PowerOfTwo::new(-self.exponent);
        values
            .par_chunks(task)
            .zip(self.codes.par_chunks_mut(task / 2))
            .zip(self.scales.par_chunks_mut(task / group))
            .map(|((values, codes), scales)| {
                let mut scaled = vec![0f32; values.len()];
                let mut levels = vec![0u8; values.len()];
                T::widen(values, &mut scaled);
                Arch::new().dispatch(|| {
                    scaled.iter_mut().for_each(|value| *value = unit.times(*value));
                    let mut in_range = true;
                    let groups = scaled.chunks(group).zip(levels.chunks_mut(group));
                    for ((values, levels), scale) in groups.zip(scales.iter_mut()) {
                        in_range &= quantise_group(values, levels, scale);
                    }
                    pack(&levels, codes);
                    in_range
                })
            })
            .reduce(|| true, |a, b| a & b)
    }

    pub fn decompress<T: Element>(&self, out: &mut [T]) {
        assert_eq!(out.len(), self.len, "output of another length than the payload");
        let (group, task) = (self.group, task_len(self.group));
        let unit = PowerOfTwo::new(self.exponent);
        out.par_chunks_mut(task)
            .zip(self.codes.par_chunks(task / 2))
            .zip(self.scales.par_chunks(task / group))
            .for_each(|((out, codes), scales)| {
                let mut levels = vec![0u8; out.len()];
                let mut wide = vec![0f32; out.len()];
                Arch::new().dispatch(|| {
                    unpack(codes, &mut levels);
                    let groups = wide.chunks_mut(group).zip(levels.chunks(group));
                    for ((wide, levels), scale) in groups.zip(scales) {
                        let scale = scale.to_f32();
                        for (value, level) in wide.iter_mut().zip(levels) {
                            let code = f32::from(*level) - f32::from(ZERO_LEVEL);
                            *value = unit.times(code * scale);
                        }
                    }
                });
                T::narrow_saturating(&mut wide, out);
            });
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Codes and scales; an exponent of 0 is the default and takes no room.
    pub fn stored_bytes(&self) -> usize {
        let exponent = if self.exponent == 0 { 0 } else { 2 };
        self.codes.len() + 2 * self.scales.len() + exponent
    }
}

/// Values a task takes: whole groups and whole bytes.
fn task_len(group: usize) -> usize {
    2 * group * (TASK / (2 * group)).max(1)
}

/// Levels are codes + 8. False when the group is not zero and its scale is out of range; a
/// scale of zero leaves the group zero.
#[inline(always)]
fn quantise_group(values: &[f32], levels: &mut [u8], scale: &mut f16) -> bool {
    let absmax = reduce(values, 0.0, |m, x| m.max(x.abs()));
    *scale = f16::from_f32(absmax / MAX_CODE);
    let rounded = scale.to_f32();
    if rounded == 0.0 || !rounded.is_finite() {
        levels.fill(ZERO_LEVEL);
        return absmax == 0.0;
    }
    let inverse = 1.0 / rounded;
    for (level, value) in levels.iter_mut().zip(values) {
        // 1.5·2^23 + 8: the sum rounds half to even at the unit and leaves code + 8 in its low
        // mantissa bits. Saturating first is the same, since the bounds are whole numbers.
        let code = (value * inverse).clamp(-MAX_CODE, MAX_CODE);
        *level = (code + (12_582_912.0 + 8.0)).to_bits() as u8;
    }
    *scale >= f16::MIN_POSITIVE
}

#[inline(always)]
fn pack(levels: &[u8], codes: &mut [u8]) {
    let (pairs, last) = levels.as_chunks::<2>();
    for (code, [low, high]) in codes.iter_mut().zip(pairs) {
        *code = low | high << 4;
    }
    if let ([low], Some(code)) = (last, codes.last_mut()) {
        *code = low | ZERO_LEVEL << 4;
    }
}

#[inline(always)]
fn unpack(codes: &[u8], levels: &mut [u8]) {
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
struct PowerOfTwo(f32, f32);

impl PowerOfTwo {
    fn new(n: i32) -> Self {
        let half = n / 2;
        Self((half as f32).exp2(), ((n - half) as f32).exp2())
    }

    #[inline(always)]
    fn times(self, value: f32) -> f32 {
        value * self.0 * self.1
    }
}
