//! ggml's blocks of weights → f32: one unit struct a type, a file a family.
//!
//! The layouts are those of llama.cpp (`ggml-common.h`, `ggml-quants.c`). Products and sums are
//! taken in f32 and in the order in which `gguf-py` takes them, so that the values are its values
//! bit for bit (`tests/gguf_types.rs`). Nothing is allocated, and any bytes decode: what is no
//! finite number is for the caller to refuse.

mod codebook;
mod floats;
mod grid;
mod grids;
mod k_quants;
mod scaled;
mod ternary;

pub use codebook::{Iq4Nl, Iq4Xs, MxFp4, NvFp4};
pub use floats::{Bf16, F16, F32, F64};
pub use grid::{Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs};
pub use k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub use scaled::{Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q8K};
pub use ternary::{Tq1_0, Tq2_0};

use pulp::{Arch, NullaryFnOnce};
use std::marker::PhantomData;

/// Values of the larger blocks.
const SUPER: usize = 256;

/// A type of weights whose blocks of `VALUES` values take `BYTES` bytes.
pub trait Block<const BYTES: usize, const VALUES: usize> {
    fn decode(block: &[u8; BYTES], out: &mut [f32; VALUES]);
}

/// Whole blocks → f32.
pub type Decode = fn(&[u8], &mut [f32]);

/// [`Decode`] of a type, compiled for each instruction set. Bytes and values beyond the last block
/// that both have are left alone.
pub fn decode<T: Block<BYTES, VALUES>, const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
) {
    let (blocks, outs) = (bytes.as_chunks().0, out.as_chunks_mut().0);
    Arch::new().dispatch(Blocks::<T, BYTES, VALUES> { blocks, outs, kind: PhantomData });
}

struct Blocks<'a, T, const BYTES: usize, const VALUES: usize> {
    blocks: &'a [[u8; BYTES]],
    outs: &'a mut [[f32; VALUES]],
    kind: PhantomData<T>,
}

impl<T: Block<BYTES, VALUES>, const BYTES: usize, const VALUES: usize> NullaryFnOnce
    for Blocks<'_, T, BYTES, VALUES>
{
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (block, out) in self.blocks.iter().zip(self.outs) {
            T::decode(block, out);
        }
    }
}

/// f16 → f32. Without a branch and without the question which instructions there are, so that a
/// loop over it is compiled for the widest registers, which `half`'s own conversion is not.
#[inline(always)]
fn half(bytes: &[u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(*bytes));
    let magnitude = (bits & 0x7fff) << 13;
    // 2^-14, the smallest normal number: below it, f16 counts in steps of 2^-24.
    let least = 113 << 23;
    let subnormal = f32::from_bits(least + magnitude) - f32::from_bits(least);
    let magnitude = match magnitude >> 23 {
        0 => subnormal.to_bits(),
        // Infinity and NaN: from one largest exponent to the other.
        31 => magnitude + (224 << 23),
        _ => magnitude + (112 << 23),
    };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// The fields of a block: its first `A` bytes and its last `B`, which are all there are.
#[inline(always)]
fn split<const A: usize, const B: usize, const N: usize>(bytes: &[u8; N]) -> (&[u8; A], &[u8; B]) {
    const { assert!(A + B == N) };
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (first, last),
        // Ruled out by the assertion.
        _ => (&[0; A], &[0; B]),
    }
}

/// The `index`th run of `N` bytes or codes.
#[inline(always)]
fn run<T, const N: usize>(bytes: &[T], index: usize) -> &[T; N] {
    &bytes.as_chunks().0[index]
}

/// Codes of four bits, two a byte: first the low ones of all bytes, then the high ones.
#[inline(always)]
fn nibbles<const BYTES: usize>(codes: &[u8; BYTES], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(BYTES);
    for ((code, low), high) in codes.iter().zip(low).zip(high) {
        *low = value(code & 15);
        *high = value(code >> 4);
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn every_f16_has_its_value() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits);
            let found = super::half(&bits.to_le_bytes());
            match expected.is_nan() {
                true => assert!(found.is_nan(), "{bits:#x}"),
                false => assert_eq!(found.to_bits(), expected.to_f32().to_bits(), "{bits:#x}"),
            }
        }
    }
}
