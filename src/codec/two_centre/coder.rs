//! Codes and scales of one block of channels of up to 16 tokens.

use super::alone::AloneCoder;
use super::blocks::Blocks;
use super::definition::Block;
use super::feedback::Feedback;
use super::levels::{FittedLevels, LevelSet, Scales};
use super::trellis_coder::TrellisCoder;
use crate::lanes::Lanes;
use pulp::Simd;

/// The way from a rotated block to codes and back, with what it works in.
#[expect(clippy::large_enum_variant, reason = "one for each head, on the heap")]
pub(super) enum BlockCoder {
    /// Each code stands for a level.
    Alone(AloneCoder),
    /// The level that a code stands for depends on the codes before it.
    Trellis(TrellisCoder),
}

impl BlockCoder {
    pub fn new(levels: FittedLevels, blocks: Blocks) -> Self {
        match levels.set() {
            LevelSet::Curve(curve) => Self::Alone(AloneCoder::new(curve, blocks.size)),
            LevelSet::Trellis(trellis) => Self::Trellis(TrellisCoder::new(trellis, blocks)),
        }
    }

    /// Chooses scales and codes; `y` becomes what they stand for.
    #[inline(always)]
    pub fn encode<S: Simd>(
        &mut self,
        simd: S,
        feedback: Option<&Feedback>,
        y: &mut Block,
    ) -> Scales {
        match self {
            Self::Alone(coder) => coder.encode(simd, feedback, y),
            Self::Trellis(coder) => coder.encode(simd, feedback, y),
        }
    }

    /// The bytes of a token's codes, after [`BlockCoder::encode`].
    #[inline(always)]
    pub fn write(&self, token: usize, out: &mut [u8]) {
        match self {
            Self::Alone(coder) => coder.write(token, out),
            Self::Trellis(coder) => coder.write(token, out),
        }
    }

    /// Takes them in, for [`BlockCoder::decode`].
    #[inline(always)]
    pub fn read(&mut self, token: usize, from: &[u8]) {
        match self {
            Self::Alone(coder) => coder.read(token, from),
            Self::Trellis(coder) => coder.read(token, from),
        }
    }

    /// `y` becomes what was read stands for.
    #[inline(always)]
    pub fn decode<S: Simd>(&mut self, simd: S, scales: &Lanes, y: &mut Block) {
        match self {
            Self::Alone(coder) => coder.decode(simd, scales, y),
            Self::Trellis(coder) => coder.decode(simd, scales, y),
        }
    }
}
