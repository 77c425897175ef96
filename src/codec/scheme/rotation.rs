//! Rotations of head vectors before they are quantised: which blocks, which signs.

use crate::codec::hadamard::{flip_signs, hadamard, hadamard_block, orthonormal};
use crate::error::{Error, Result};
use pulp::Simd;
use std::sync::LazyLock;

/// A map of each head vector, orthonormal but for [`Rotation::VllmRandomised`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rotation {
    /// Head vectors as they are.
    None,
    /// Walsh–Hadamard (QuaRot, Ashkboos et al. 2024), in blocks of the largest power of two that
    /// divides the head vector.
    Hadamard,
    /// The same after flips of sign that look random.
    SignedHadamard,
    /// The same as [`Rotation::Hadamard`], of head vectors of a multiple of 64: llama.cpp's of keys,
    /// and so of values where keys have it.
    HadamardFrom64,
    /// In blocks of 64: llama.cpp's of values.
    Hadamard64,
    /// In blocks of 32: exllamav3's.
    Hadamard32,
    /// The same as [`Rotation::Hadamard`], of head vectors of a power of two: vLLM's of TurboQuant's keys.
    HadamardOfPower,
    /// vLLM's: flips of sign from a generator of random numbers, then Walsh–Hadamard of the whole head
    /// vector without a factor, so that it is √head_dim times as long.
    VllmRandomised,
}

impl Rotation {
    /// The rotation of values where keys have this one.
    pub(in crate::codec) fn for_values(self) -> Self {
        if self == Self::HadamardFrom64 { Self::Hadamard64 } else { self }
    }

    /// The values of a block of a head vector of this size.
    fn block(self, head_dim: usize) -> usize {
        match self {
            Self::Hadamard64 => 64,
            Self::Hadamard32 => 32,
            _ => hadamard_block(head_dim.max(1)),
        }
    }

    /// Whether head vectors of this size can be rotated so.
    pub(super) fn check(self, head_dim: usize) -> Result<()> {
        let refuse = |expected: &str, hint: &str| {
            Err(Error::input(format!("had: expected {expected}, found {head_dim}")).hint(hint))
        };
        let multiple_of = |size: usize| head_dim.is_multiple_of(size);
        match self {
            // Of no values nothing is rotated.
            _ if head_dim == 0 => Ok(()),
            Self::Hadamard | Self::SignedHadamard if !multiple_of(2) => refuse(
                "an even head vector",
                "a Hadamard rotation works on blocks of a power of two",
            ),
            Self::HadamardFrom64 | Self::Hadamard64 if !multiple_of(64) => refuse(
                "a head vector of a multiple of 64",
                "llama.cpp rotates no others: the name without -had is what it does",
            ),
            Self::Hadamard32 if !multiple_of(32) => {
                refuse("a head vector of a multiple of 32", "exllamav3 rotates blocks of 32")
            }
            Self::HadamardOfPower if !head_dim.is_power_of_two() => refuse(
                "a head vector of a power of two",
                "vLLM's TurboQuant rotates powers of two only",
            ),
            Self::VllmRandomised if !head_dim.is_power_of_two() || head_dim > MOST_SIGNS => refuse(
                &format!("a head vector of a power of two up to {MOST_SIGNS}"),
                "vLLM's rotation is of powers of two only",
            ),
            _ => Ok(()),
        }
    }

    /// What it demands of head vectors, in a few words.
    pub(in crate::codec) fn needs(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Hadamard | Self::SignedHadamard => Some("even head vectors"),
            Self::HadamardFrom64 | Self::Hadamard64 => Some("head vectors of a multiple of 64"),
            Self::Hadamard32 => Some("head vectors of a multiple of 32"),
            Self::HadamardOfPower | Self::VllmRandomised => Some("head vectors of a power of two"),
        }
    }

    /// Rotates rows of head vectors.
    #[inline(always)]
    pub(super) fn forward<S: Simd>(self, simd: S, rows: &mut [f32], head_dim: usize) {
        if self == Self::None {
            return;
        }
        self.flip(rows, head_dim);
        let block = self.block(head_dim);
        let scale = if self == Self::VllmRandomised { 1.0 } else { orthonormal(block) };
        hadamard(simd, rows, block, scale);
    }

    /// The way back.
    #[inline(always)]
    pub(super) fn back<S: Simd>(self, simd: S, rows: &mut [f32], head_dim: usize) {
        if self == Self::None {
            return;
        }
        let block = self.block(head_dim);
        let scale = match self {
            Self::VllmRandomised => 1.0 / block as f32,
            _ => orthonormal(block),
        };
        hadamard(simd, rows, block, scale);
        self.flip(rows, head_dim);
    }

    #[inline(always)]
    fn flip(self, rows: &mut [f32], head_dim: usize) {
        let signs: &[u64] = match self {
            Self::SignedHadamard => &[SIGNS],
            Self::VllmRandomised => &VLLM_SIGNS,
            _ => return,
        };
        for row in rows.chunks_exact_mut(head_dim.max(1)) {
            flip_signs(row, signs);
        }
    }
}

/// Drawn once, by torch's generator with seed 0.
const SIGNS: u64 = 0xa685_0592_a197_d809;

/// The longest head vector that vLLM's signs are worked out for.
const MOST_SIGNS: usize = 1024;

/// vLLM's: torch draws a uniform number of 24 bits a channel, and below a half the sign stays.
static VLLM_SIGNS: LazyLock<Vec<u64>> = LazyLock::new(|| {
    const SEED: u32 = 0x9e37_79b9;
    let drawn = mersenne_twister(SEED, MOST_SIGNS);
    let word = |drawn: &[u32]| {
        let flips = drawn.iter().enumerate();
        flips.fold(0, |word, (channel, drawn)| word | u64::from(drawn >> 23 & 1) << channel)
    };
    drawn.chunks(64).map(word).collect()
});

/// The first numbers of MT19937 (Matsumoto & Nishimura 1998), seeded with one number.
fn mersenne_twister(seed: u32, count: usize) -> Vec<u32> {
    const SIZE: usize = 624;
    const MIDDLE: usize = 397;
    let mut state: Vec<u32> = Vec::with_capacity(SIZE + count);
    state.push(seed);
    for index in 1..SIZE as u32 {
        let before = state[index as usize - 1];
        state.push((before ^ before >> 30).wrapping_mul(1_812_433_253).wrapping_add(index));
    }
    // Every number of the state once, in place of a ring of them.
    for index in 0..count {
        let both = state[index] & 0x8000_0000 | state[index + 1] & 0x7fff_ffff;
        let twist = if both & 1 == 1 { 0x9908_b0df } else { 0 };
        state.push(state[index + MIDDLE] ^ both >> 1 ^ twist);
    }
    let tempered = |mut x: u32| {
        x ^= x >> 11;
        x ^= x << 7 & 0x9d2c_5680;
        x ^= x << 15 & 0xefc6_0000;
        x ^ x >> 18
    };
    state[SIZE..].iter().copied().map(tempered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C++'s standard names the 10000th number of the default seed: [rand.predef].
    #[test]
    fn the_twister_is_the_standard_one() {
        let drawn = mersenne_twister(5489, 10_000);
        assert_eq!((drawn[0], drawn[9_999]), (3_499_211_612, 4_123_659_995));
    }

    /// The first 64 of torch 2.15: `bernoulli(full((512,), 0.5))` of a generator of that seed; 1 keeps
    /// the sign.
    #[test]
    fn signs_are_torchs() {
        let kept = "1011000010011010110011101010011010001101101011000000000100000001";
        for (channel, kept) in kept.bytes().enumerate() {
            assert_eq!(VLLM_SIGNS[0] >> channel & 1 == 0, kept == b'1', "{channel}");
        }
        assert_eq!(VLLM_SIGNS.len(), MOST_SIGNS / 64);
    }
}
