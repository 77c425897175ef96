//! The block functions for the instruction set at hand: twins of [`super::scalar`], equal to it
//! bit for bit.
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

use super::block::{BlockLayout, BlockOutcome};
use super::scalar;
use crate::codec::element::Element;
use half::f16;

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

    /// Whether this machine has it.
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

/// [`super::compress_block`] with one instruction set; panics where it is not available.
pub fn compress_block_with<T: Element>(
    isa: Isa,
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &mut [u8],
    scales: &mut [f16],
) -> BlockOutcome {
    assert!(isa.is_available(), "{isa:?} is not available here");
    assert!(layout.group > 0, "a group holds at least one value");
    assert!(layout.start.is_multiple_of(2), "a block that starts inside a byte");
    assert_sizes(values.len(), layout.group, codes, scales);
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

/// [`super::decompress_block`] with one instruction set; panics where it is not available.
pub fn decompress_block_with<T: Element>(
    isa: Isa,
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    out: &mut [T],
) {
    assert!(isa.is_available(), "{isa:?} is not available here");
    assert!(group > 0, "a group holds at least one value");
    assert_sizes(out.len(), group, codes, scales);
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

fn assert_sizes(len: usize, group: usize, codes: &[u8], scales: &[f16]) {
    assert_eq!(codes.len(), len.div_ceil(2), "two codes a byte");
    assert_eq!(scales.len(), len.div_ceil(group), "one scale a group");
}
