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
//!
//! A tensor is worked on in blocks of whole groups ([`compress_block`], [`decompress_block`]);
//! which blocks does not change codes or scales.

mod block;
mod scalar;
mod simd;

pub use block::{BlockLayout, BlockOutcome};
#[doc(hidden)]
pub use simd::{Isa, compress_block_with, decompress_block_with};

use super::distortion::{DistortionRun, DistortionSum};
use super::element::Element;
use super::exponent::exponent_placing;
use super::parts::{Part, PartElement, PartName};
use half::f16;
use rayon::prelude::*;
use scalar::MAX_CODE;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Values a rayon task takes: small tensors stay on one thread.
const TASK: usize = 1 << 15;

/// Compresses whole groups, of which only the tensor's last may be partial, on this thread.
/// `codes` holds ⌈len / 2⌉ bytes and `scales` ⌈len / group⌉; both are overwritten.
///
/// # Panics
///
/// When a slice has another length, the group is 0 or `layout.start` is odd.
pub fn compress_block<T: Element>(
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &mut [u8],
    scales: &mut [f16],
) -> BlockOutcome {
    compress_block_with(Isa::best(), values, layout, exponent, codes, scales)
}

/// Writes `out.len()` values, from whole groups, of which only the last may be partial, on this
/// thread. Code −8, which no compression writes, is worth −8 scales.
///
/// # Panics
///
/// When a slice has another length or the group is 0.
pub fn decompress_block<T: Element>(
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    out: &mut [T],
) {
    decompress_block_with(Isa::best(), codes, scales, group, exponent, out);
}

/// The exponent of a tensor whose largest magnitude is `absmax` (> 0, finite) and which 0 does
/// not suit.
pub fn exponent_for(absmax: f32) -> i32 {
    // scale < 2^(exponent + 15) after rounding, hence finite in f16.
    exponent_placing(f64::from(absmax) / f64::from(MAX_CODE), 14)
}

/// A number of values near `target`: an even number of whole groups, at least two.
pub fn block_len(group: usize, target: usize) -> usize {
    2 * group * (target / (2 * group)).max(1)
}

/// A tensor packed to symmetric INT4.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Int4Payload {
    len: usize,
    group: usize,
    /// ⌈len / 2⌉ bytes.
    codes: Vec<u8>,
    /// ⌈len / group⌉ scales, divided by 2^exponent.
    scales: Vec<f16>,
    /// All scales are stored divided by two to this power.
    pub(super) exponent: i32,
}

impl Int4Payload {
    /// With room for its parts, which are zero.
    pub fn empty(group: usize, len: usize) -> Self {
        assert!(group > 0, "a group holds at least one value");
        Self {
            len,
            group,
            codes: vec![0; len.div_ceil(2)],
            scales: vec![f16::ZERO; len.div_ceil(group)],
            exponent: 0,
        }
    }

    /// `values`: flattened row-major, in head vectors of `head_dim`. The last group may be
    /// partial. `None` where a value is not finite.
    pub fn compress_measured<T: Element>(
        values: &[T],
        group: usize,
        head_dim: usize,
    ) -> Option<(Self, DistortionSum)> {
        let mut payload = Self::empty(group, values.len());
        // One optimistic pass; the rare tensor out of f16's range is done again.
        let mut outcome = payload.fill(values, head_dim);
        if outcome.finite && !outcome.in_range {
            let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
            let largest = values.par_chunks(TASK).map(T::absmax).reduce(|| 0.0, larger);
            if !largest.is_finite() {
                return None;
            }
            payload.exponent = exponent_for(largest);
            outcome = payload.fill(values, head_dim);
        }
        outcome.finite.then(|| (payload, outcome.distortion.finish()))
    }

    /// Stops early where the exponent is 0 and does not suit.
    fn fill<T: Element>(&mut self, values: &[T], head_dim: usize) -> BlockOutcome {
        let (group, exponent) = (self.group, self.exponent);
        let none =
            BlockOutcome { finite: true, in_range: true, distortion: DistortionRun::default() };
        let in_vain = AtomicBool::new(false);
        let block = block_len(group, TASK);
        let outcomes: Vec<BlockOutcome> = values
            .par_chunks(block)
            .zip(self.codes.par_chunks_mut(block / 2))
            .zip(self.scales.par_chunks_mut(block / group))
            .enumerate()
            .map(|(index, ((values, codes), scales))| {
                if in_vain.load(Relaxed) {
                    return BlockOutcome { in_range: false, ..none };
                }
                let layout = BlockLayout { group, head_dim, start: index * block };
                let outcome = compress_block(values, layout, exponent, codes, scales);
                if exponent == 0 && !outcome.in_range {
                    in_vain.store(true, Relaxed);
                }
                outcome
            })
            .collect();
        outcomes.into_iter().fold(none, |all, block| BlockOutcome {
            finite: all.finite & block.finite,
            in_range: all.in_range & block.in_range,
            distortion: all.distortion.then(block.distortion),
        })
    }

    /// Writes the decoded values. `out` holds exactly [`Int4Payload::len`] values.
    pub fn decompress<T: Element>(&self, out: &mut [T]) {
        assert_eq!(out.len(), self.len, "output of another length than the payload");
        let (group, block) = (self.group, block_len(self.group, TASK));
        out.par_chunks_mut(block)
            .zip(self.codes.par_chunks(block / 2))
            .zip(self.scales.par_chunks(block / group))
            .for_each(|((out, codes), scales)| {
                decompress_block(codes, scales, group, self.exponent, out);
            });
    }

    /// The parts in the order of a file.
    pub(super) fn parts(&self) -> Vec<Part<&[u8]>> {
        vec![
            Part::new(PartName::Scales, PartElement::F16, bytemuck::cast_slice(&self.scales)),
            Part::new(PartName::Codes, PartElement::U8, &self.codes),
        ]
    }

    /// The same, to be read into.
    pub(super) fn parts_mut(&mut self) -> Vec<Part<&mut [u8]>> {
        let scales = bytemuck::cast_slice_mut(&mut self.scales);
        vec![
            Part::new(PartName::Scales, PartElement::F16, scales),
            Part::new(PartName::Codes, PartElement::U8, &mut self.codes),
        ]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }
}
