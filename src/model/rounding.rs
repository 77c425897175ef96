//! Arithmetic of 16 bits on the CPU: what is multiplied is rounded to bf16 or f16, and summed in f32.
//!
//! A product of two such values is exact in f32, so a sum has no other errors than one of f32. Norms,
//! softmax, the residual stream and logits stay in f32.

use super::gguf::WeightType;
use candle_core::{DType, Device};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// What the operands of products are rounded to, to the nearest, ties to even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// 8 bits of precision, f32's range.
    Bf16,
    /// IEEE half precision: 11 bits, up to 65504.
    F16,
}

/// Values that a thread rounds before it takes others.
const PIECE: usize = 1 << 14;

impl Rounding {
    /// Of the arithmetic of a type on the CPU; `None`: nothing is rounded.
    pub(super) fn of(dtype: DType, device: &Device) -> Option<Self> {
        match dtype {
            _ if !device.is_cpu() => None,
            DType::BF16 => Some(Self::Bf16),
            DType::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// The type of what is kept: weights, keys and values.
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// The type of kept weights.
    pub(super) fn weight_type(self) -> WeightType {
        match self {
            Self::Bf16 => WeightType::bf16(),
            Self::F16 => WeightType::f16(),
        }
    }

    /// Rounds on this thread.
    pub(super) fn round(self, values: &mut [f32]) {
        match self {
            Self::Bf16 => to_bf16(values),
            Self::F16 => {
                let mut halves = [f16::ZERO; 256];
                for values in values.chunks_mut(halves.len()) {
                    let halves = &mut halves[..values.len()];
                    halves.convert_from_f32_slice(values);
                    halves.convert_to_f32_slice(values);
                }
            }
        }
    }

    /// Rounds on all threads of the pool.
    pub(super) fn rounded(self, values: &[f32]) -> Vec<f32> {
        let mut rounded = values.to_vec();
        rounded.par_chunks_mut(PIECE).for_each(|piece| self.round(piece));
        rounded
    }

    /// Rounded values as they are kept, little-endian.
    pub(super) fn bytes(self, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; 2 * values.len()];
        let pieces = bytes.par_chunks_mut(2 * PIECE).zip(values.par_chunks(PIECE));
        pieces.for_each(|(bytes, values)| {
            for (bytes, value) in bytes.chunks_exact_mut(2).zip(values) {
                bytes.copy_from_slice(&match self {
                    Self::Bf16 => bf16::from_f32(*value).to_le_bytes(),
                    Self::F16 => f16::from_f32(*value).to_le_bytes(),
                });
            }
        });
        bytes
    }
}

/// Rounds values to bf16.
pub(super) fn to_bf16(values: &mut [f32]) {
    Arch::new().dispatch(ToBf16(values));
}

/// Not a closure: see [`crate::lanes`].
struct ToBf16<'a>(&'a mut [f32]);

impl WithSimd for ToBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for value in self.0.iter_mut() {
            *value = f32::from_bits(bf16_bits(*value) << 16);
        }
    }
}

/// The bits of a value rounded to bf16, in the lower half. Branch-free, so that loops over it vectorise.
#[inline(always)]
pub(super) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // A NaN could round to infinity, or beyond.
    let quiet = bits >> 16 | 0x40;
    if value.is_nan() { quiet } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `half` crate's rounding is the witness, over all exponents, ties and what is not finite.
    #[test]
    fn values_are_rounded_to_the_nearest() {
        let mut values = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x0fff, 0x1000, 0x7fff, 0x8000, 0x8001, 0xffff] {
                values.push(f32::from_bits(u32::from(high) << 16 | low));
            }
        }
        for rounding in [Rounding::Bf16, Rounding::F16] {
            let found = rounding.rounded(&values);
            let bytes = rounding.bytes(&values);
            for ((value, found), bytes) in values.iter().zip(found).zip(bytes.chunks_exact(2)) {
                let bytes = [bytes[0], bytes[1]];
                let (expected, kept) = match rounding {
                    Rounding::Bf16 => {
                        (bf16::from_f32(*value).to_f32(), bf16::from_le_bytes(bytes).to_f32())
                    }
                    Rounding::F16 => {
                        (f16::from_f32(*value).to_f32(), f16::from_le_bytes(bytes).to_f32())
                    }
                };
                for found in [found, kept] {
                    let same = found.to_bits() == expected.to_bits();
                    assert!(same || found.is_nan() && expected.is_nan(), "{value}: {found}");
                }
            }
        }
    }
}
