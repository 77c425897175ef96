//! The block functions for the instruction set at hand: twins of [`super::scalar`], equal to it
//! bit for bit. And conversions of f16, whole slices at a time.
//!
//! Here is what the twins share: the way through a block, in whole registers. What has no whole
//! registers (groups or head vectors that are no multiple of 16 values) takes the scalar path,
//! compiled for AVX2.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod drive;

use super::element::Element;
use super::int4::{BlockLayout, BlockOutcome};
use super::scalar;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// An instruction set that the block functions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain loops, anywhere.
    Scalar,
    /// AVX2, F16C and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Scalar];

    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Those of this machine, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest of this machine.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::Scalar)
    }
}

pub(super) fn compress_block<T: Element>(
    isa: Isa,
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &mut [u8],
    scales: &mut [f16],
) -> BlockOutcome {
    assert!(isa.is_available(), "{isa:?} is not available here");
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        let suits = drive::suits(layout.group, layout.head_dim, exponent);
        // SAFETY: the instruction set is available, and AVX2 is with AVX-512.
        return unsafe {
            match isa {
                Isa::Avx512 if suits => {
                    drive::compress::<avx512::Avx512, T>(values, layout, exponent, codes, scales)
                }
                Isa::Avx2 if suits => {
                    drive::compress::<avx2::Avx2, T>(values, layout, exponent, codes, scales)
                }
                _ => avx2::compress_scalar(values, layout, exponent, codes, scales),
            }
        };
    }
    scalar::compress_block(values, layout, exponent, codes, scales)
}

pub(super) fn decompress_block<T: Element>(
    isa: Isa,
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    out: &mut [T],
) {
    assert!(isa.is_available(), "{isa:?} is not available here");
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        let suits = drive::suits(group, group, exponent);
        // SAFETY: the instruction set is available, and AVX2 is with AVX-512.
        return unsafe {
            match isa {
                Isa::Avx512 if suits => {
                    drive::decompress::<avx512::Avx512, T>(codes, scales, group, exponent, out);
                }
                Isa::Avx2 if suits => {
                    drive::decompress::<avx2::Avx2, T>(codes, scales, group, exponent, out);
                }
                _ => avx2::decompress_scalar(codes, scales, group, exponent, out),
            }
        };
    }
    scalar::decompress_block(codes, scales, group, exponent, out);
}

const LARGEST_HALF: f32 = f16::MAX.to_f32_const();

/// `out` is as long as `values`. [`half`] converts eight values a call, which takes six times as long.
pub(super) fn widen_halves(values: &[f16], out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "as many values as there is room for");
    #[cfg(target_arch = "x86_64")]
    if avx2::has_halves() {
        // SAFETY: the instruction set is available.
        return unsafe { avx2::widen_halves(values, out) };
    }
    values.convert_to_f32_slice(out);
}

/// Rounds to nearest even, what is too large to the largest finite value. `out` is as long as
/// `values`.
pub(super) fn narrow_halves(values: &[f32], out: &mut [f16]) {
    assert_eq!(values.len(), out.len(), "as many values as there is room for");
    #[cfg(target_arch = "x86_64")]
    if avx2::has_halves() {
        // SAFETY: the instruction set is available.
        return unsafe { avx2::narrow_halves(values, out) };
    }
    for (out, value) in out.iter_mut().zip(values) {
        *out = f16::from_f32(value.clamp(-LARGEST_HALF, LARGEST_HALF));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_converted_as_the_library_does() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut wide = vec![0f32; halves.len()];
        widen_halves(&halves, &mut wide);
        for (half, x) in halves.iter().zip(&wide) {
            assert_eq!(x.to_bits(), half.to_f32().to_bits(), "{half:?}");
        }
        let beyond = [65519.9, 65520.0, 1e30, f32::INFINITY, f32::NEG_INFINITY, -7e4, 1e-8, -0.0];
        wide.extend(beyond);
        for (x, y) in [(1.0, 2.0), (0.1, 0.3), (6e-8, 9e-8)] {
            wide.extend([(x + y) / 2.0, f32::midpoint(x, y).next_up()]);
        }
        for len in (0..18).chain([wide.len()]) {
            let (wide, mut narrow) = (&wide[wide.len() - len..], vec![f16::ZERO; len]);
            narrow_halves(wide, &mut narrow);
            for (x, half) in wide.iter().zip(narrow) {
                let expected = f16::from_f32(x.clamp(-LARGEST_HALF, LARGEST_HALF));
                assert!(half.to_bits() == expected.to_bits() || x.is_nan(), "{x:e}: {half:?}");
                assert_eq!(half.is_nan(), x.is_nan());
            }
        }
    }
}
