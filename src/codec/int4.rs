//! Symmetric INT4: codes −7…7, one f16 scale a group.
//!
//! For a group of values x: `scale = f16(max|x| / 7)`, `code = round_half_even(x · (1/scale))`
//! saturated at ±7, `value = code · scale`. The scale is rounded to f16 *before* it quantises,
//! so that encoder and decoder use the same number. All-zero groups are exact; the sign of
//! zero is not kept.
//!
//! Magnitudes outside f16's range: a tensor has one power-of-two exponent e, and scales hold
//! `scale / 2^e`. It is 0 unless a scale would overflow f16 or the scale of a non-zero group
//! would fall below 2⁻¹⁴ (f16's smallest normal number); then it puts the largest scale just
//! under the top of f16's range, which leaves the most room below. Groups that underflow even
//! then become zero.
//!
//! Layout: codes are stored as `code + 8`, two a byte, the even index in the low nibble,
//! without padding between groups; an odd count leaves the last high nibble at 8 (code 0).

use super::Element;
use half::f16;
use rayon::prelude::*;

const MAX_CODE: f32 = 7.0;
/// The byte of two zero codes.
const ZERO_PAIR: u8 = 0x88;
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
        // One optimistic pass; the rare tensor out of f16's range is done again.
        Self::compress_scaled(values, group, 0).unwrap_or_else(|| {
            let largest = values.iter().fold(0f32, |m, v| m.max(v.to_f32().abs()));
            // scale < 2^(exponent + 15) after rounding, hence finite in f16.
            let exponent = (f64::from(largest) / f64::from(MAX_CODE)).log2().floor() as i32 - 14;
            let mut payload = Self::empty(values.len(), group, exponent);
            payload.fill(values);
            payload
        })
    }

    /// `None` when a scale leaves f16's normal range.
    fn compress_scaled<T: Element>(values: &[T], group: usize, exponent: i32) -> Option<Self> {
        let mut payload = Self::empty(values.len(), group, exponent);
        payload.fill(values).then_some(payload)
    }

    fn empty(len: usize, group: usize, exponent: i32) -> Self {
        Self {
            len,
            group,
            codes: vec![ZERO_PAIR; len.div_ceil(2)],
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
                let mut in_range = true;
                for (index, (group_values, scale)) in
                    values.chunks(group).zip(scales.iter_mut()).enumerate()
                {
                    in_range &= quantise_group(group_values, index * group, codes, scale, unit);
                }
                in_range
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
                for (index, (out, scale)) in out.chunks_mut(group).zip(scales).enumerate() {
                    let scale = scale.to_f32();
                    for (offset, out) in out.iter_mut().enumerate() {
                        let at = index * group + offset;
                        let nibble = (codes[at / 2] >> (4 * (at & 1))) & 0xf;
                        let value = (f32::from(nibble) - 8.0) * scale;
                        *out = T::from_f32_saturating(unit.times(value));
                    }
                }
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

/// Quantises one group, which starts at index `at` of the task's `codes`.
fn quantise_group<T: Element>(
    values: &[T],
    at: usize,
    codes: &mut [u8],
    scale: &mut f16,
    unit: PowerOfTwo,
) -> bool {
    let absmax = values.iter().fold(0f32, |m, v| m.max(v.to_f32().abs()));
    if absmax == 0.0 {
        return true;
    }
    *scale = f16::from_f32(unit.times(absmax) / MAX_CODE);
    let rounded = scale.to_f32();
    if rounded == 0.0 || !rounded.is_finite() {
        return false;
    }
    let inverse = 1.0 / rounded;
    for (offset, value) in values.iter().enumerate() {
        let code =
            (unit.times(value.to_f32()) * inverse).round_ties_even().clamp(-MAX_CODE, MAX_CODE);
        let nibble = (code + 8.0) as u8;
        let index = at + offset;
        // Every nibble starts as 8: XOR with 8 clears it, whatever its neighbour holds.
        codes[index / 2] ^= (nibble ^ 8) << (4 * (index & 1));
    }
    *scale >= f16::MIN_POSITIVE
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

    fn times(self, value: f32) -> f32 {
        value * self.0 * self.1
    }
}
