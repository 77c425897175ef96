//! The codec with two centres as a name says it, and the sizes that follow for a tensor.

use super::blocks::{BlockRule, Blocks, MOST};
use super::feedback::Feedback;
use super::levels::FittedLevels;
use crate::codec::exponent::PowerOfTwo;
use crate::codec::geometry::Geometry;
use crate::codec::parts::{Part, PartElement, PartLayout, PartName};
use crate::error::{Error, Result};
use crate::lanes::Lanes;
use pulp::Simd;

/// Channels of up to 16 tokens, the first of them as many as a block has.
pub(super) type Block = [Lanes; MOST];

/// How one tensor is stored with two centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TwoCentre {
    /// The levels of codes.
    pub levels: FittedLevels,
    /// Keys are taken as they are before RoPE.
    pub prerope: bool,
    /// Errors are moved to channels that queries weigh least.
    pub shaped: bool,
    /// How head vectors are cut into blocks. No part of its name.
    pub blocks: BlockRule,
}

impl TwoCentre {
    /// Whether a tensor of this geometry can be stored.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let dim = geometry.head_dim;
        if dim > 0 && self.blocks.blocks(dim).is_none() {
            return Err(Error::input(format!(
                "two centres: expected head vectors of a multiple of 4 values, 8 or more, found {dim}"
            ))
            .hint(
                "its blocks are equal parts of a head vector, of 8 to 124 values and a multiple of \
                 4; q4_0 takes any length",
            ));
        }
        if self.prerope { geometry.check_rope() } else { Ok(()) }
    }

    /// The parts of a tensor's payload in the order of a file.
    pub fn parts(&self, values: usize, geometry: &Geometry) -> Vec<PartLayout> {
        let sizes = Sizes::new(self, values, geometry);
        let blocks = sizes.all_blocks();
        vec![
            Part::new(PartName::Sinks, PartElement::F16, sizes.heads * sizes.dim),
            Part::new(PartName::Scales, PartElement::U8, blocks),
            Part::new(PartName::Codes, PartElement::U8, blocks * sizes.bytes),
        ]
    }
}

/// The sizes of a tensor's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub heads: usize,
    /// Tokens but the first.
    pub rows: usize,
    pub dim: usize,
    pub blocks: Blocks,
    /// Bytes of the codes of a block.
    pub bytes: usize,
}

impl Sizes {
    pub fn new(codec: &TwoCentre, values: usize, geometry: &Geometry) -> Self {
        let heads = geometry.heads(values);
        // Where they cannot be cut nothing is stored: see [`TwoCentre::check`].
        let blocks = codec.blocks.blocks(geometry.head_dim).unwrap_or(Blocks::NONE);
        Self {
            heads,
            rows: geometry.tokens.saturating_sub(1),
            dim: geometry.head_dim,
            blocks,
            bytes: codec.levels.code_bytes(blocks.size),
        }
    }

    /// Blocks of the tensor.
    pub fn all_blocks(&self) -> usize {
        self.heads * self.rows * self.blocks.count
    }
}

/// The common knowledge of all heads of a tensor.
#[derive(Clone, Copy)]
pub(super) struct HeadContext<'a> {
    pub codec: TwoCentre,
    pub sizes: Sizes,
    pub exponent: i32,
    pub geometry: &'a Geometry<'a>,
}

impl HeadContext<'_> {
    /// What shapes the errors of each block.
    pub fn feedback(&self) -> Vec<Option<Feedback>> {
        let blocks = self.sizes.blocks;
        let chains = self.codec.levels.is_trellis().then(|| blocks.chains());
        Feedback::of_blocks(blocks, self.geometry.rope, chains)
    }

    /// Scales rows of one head, the first at token `token`, and takes them to before RoPE.
    #[inline(always)]
    pub fn before_rope<S: Simd>(&self, simd: S, token: usize, rows: &mut [f32]) {
        PowerOfTwo::scale(-self.exponent, rows);
        self.rope(simd, token, true, rows);
    }

    /// The way back.
    #[inline(always)]
    pub fn after_rope<S: Simd>(&self, simd: S, token: usize, rows: &mut [f32]) {
        self.rope(simd, token, false, rows);
        PowerOfTwo::scale(self.exponent, rows);
    }

    #[inline(always)]
    fn rope<S: Simd>(&self, simd: S, token: usize, back: bool, rows: &mut [f32]) {
        if let Some(table) = self.geometry.rope.filter(|_| self.codec.prerope) {
            table.rotate_rows(simd, self.geometry.first + token, back, rows);
        }
    }
}
