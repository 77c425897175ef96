//! `kvgauge4`: two centres, a Hadamard rotation, levels fitted to what that leaves, and noise
//! shaping.
//!
//! What it is made of, each step for its reason:
//!
//! - **Keys before RoPE** (`prerope`): what repeats from token to token is there in full.
//! - **Two centres.** Keys (and less so values) of a head lie around their mean; but the first
//!   token, and a few later ones that models use in the same way, lie around the first token
//!   (attention sinks, Xiao et al. 2024). A token is stored as its difference to the nearer of the
//!   two, which one bit says. The first token is exact.
//! - **The mean is that of the tokens decoded so far**, taken anew at tokens 2, 3, 4, 6, 8, 12, 16,
//!   24 …: it takes no room, and a stream knows it.
//! - **Hadamard** (QuaRot, Ashkboos et al. 2024) in blocks of 64 channels makes what is left
//!   nearly Gaussian.
//! - **Levels** that code such a block with the least squared error (Lloyd 1982), with a scale of
//!   2^(k/8): 19 for keys, four codes in 17 bits, and 16 for values.
//! - **Noise shaping** (`shape`), known to the encoder only: queries weigh the channels that RoPE
//!   turns slowly most, so the error is moved to the others, each code taking up what earlier ones
//!   left (LDLQ, Chee et al. 2023). Data-free: the weights are constants.
//!
//! Numbers of one block, every step one rounding to f32: scale s = 2^(k/8), level
//! l(n) = n·(a + n²·(b + n²·c)), value = rotated (l(n)·s) + centre.

mod head;
mod levels;
mod shape;
mod tile;

pub use levels::FittedLevels;

use super::element::Element;
use super::packing::PartType;
use super::scheme::{Geometry, Part};
use crate::error::{Error, Result};
use half::f16;
use head::{Common, DecodeHead, EncodeHead, Filled};
use pulp::Arch;
use rayon::prelude::*;

/// Channels of a block at most: what shares a scale and a choice of centre.
const BLOCK: usize = 64;

/// How one tensor is stored with two centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TwoCentre {
    pub levels: FittedLevels,
    pub prerope: bool,
    pub shaped: bool,
}

impl TwoCentre {
    /// Channels of a block: 64, or the largest power of two below it that divides the head vector.
    pub(super) fn block(head_dim: usize) -> usize {
        BLOCK.min(1 << head_dim.trailing_zeros())
    }

    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let dim = geometry.head_dim;
        if dim > 0 && Self::block(dim) < 8 {
            return Err(Error::input(format!(
                "two centres: expected head vectors of a multiple of 8 values, found {dim}"
            ))
            .hint("its blocks are powers of two, 8 at least; q4_0 takes any length"));
        }
        if self.prerope { geometry.check_rope() } else { Ok(()) }
    }

    /// See [`super::Packing::parts`].
    pub(super) fn parts(&self, values: usize, geometry: &Geometry) -> Vec<(Part, PartType, usize)> {
        let shape = Shape::new(self, values, geometry);
        let blocks = shape.heads * shape.rows * shape.blocks();
        vec![
            (Part::Sinks, PartType::Half, shape.heads * shape.dim),
            (Part::Scales, PartType::Byte, blocks),
            (Part::Codes, PartType::Byte, blocks * shape.bytes),
        ]
    }

    /// In the rotated block of a head vector of `head_dim`: how far apart the channels are that
    /// make up the eighths, `None` where they do not fit the block.
    fn eighths(&self, head_dim: usize) -> Option<usize> {
        match head_dim {
            // RoPE pairs channels i and i + 32: each half has all frequencies.
            64 if self.shaped => Some(4),
            128 if self.shaped => Some(8),
            _ => None,
        }
    }
}

/// Sizes of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    heads: usize,
    /// Tokens but the first.
    rows: usize,
    dim: usize,
    block: usize,
    /// Bytes of the codes of a block.
    bytes: usize,
}

impl Shape {
    fn new(codec: &TwoCentre, values: usize, geometry: &Geometry) -> Self {
        let heads = geometry.heads(values);
        let block = TwoCentre::block(geometry.head_dim.max(1));
        Self {
            heads,
            rows: geometry.tokens.saturating_sub(1),
            dim: geometry.head_dim,
            block,
            bytes: codec.levels.code_bytes(block),
        }
    }

    /// Blocks of a head vector.
    fn blocks(&self) -> usize {
        self.dim / self.block
    }
}

/// A tensor stored with two centres.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoCentrePayload {
    codec: TwoCentre,
    values: usize,
    shape: Shape,
    /// All numbers are stored divided by two to this power.
    pub exponent: i32,
    /// The first token, before RoPE if keys are. [heads, head_dim]
    first: Vec<f16>,
    /// Scale codes and choices of centre. [heads, tokens − 1, blocks]
    scales: Vec<u8>,
    /// [heads, tokens − 1, blocks, bytes]
    codes: Vec<u8>,
}

impl TwoCentrePayload {
    pub fn empty(codec: TwoCentre, values: usize, geometry: &Geometry) -> Self {
        let shape = Shape::new(&codec, values, geometry);
        let blocks = shape.heads * shape.rows * shape.blocks();
        Self {
            codec,
            values,
            shape,
            exponent: 0,
            first: vec![f16::ZERO; shape.heads * shape.dim],
            scales: vec![0; blocks],
            codes: vec![0; blocks * shape.bytes],
        }
    }

    /// `None` where a value is not finite.
    pub fn compress<T: Element>(
        values: &[T],
        codec: TwoCentre,
        geometry: &Geometry,
    ) -> Option<Self> {
        Self::compress_on(Arch::new(), values, codec, geometry)
    }

    /// The same with the instructions of `arch`, which do not change a bit.
    pub(super) fn compress_on<T: Element>(
        arch: Arch,
        values: &[T],
        codec: TwoCentre,
        geometry: &Geometry,
    ) -> Option<Self> {
        let mut payload = Self::empty(codec, values.len(), geometry);
        // One optimistic pass; the rare tensor out of range is done again.
        let filled = payload.fill(arch, values, geometry);
        if !filled.absmax.is_finite() {
            return None;
        }
        if !filled.in_range {
            payload.exponent = exponent_for(filled.absmax);
            payload.fill(arch, values, geometry);
        }
        Some(payload)
    }

    fn fill<T: Element>(&mut self, arch: Arch, values: &[T], geometry: &Geometry) -> Filled {
        if self.values == 0 {
            return Filled::NOTHING;
        }
        let (common, shape) = (self.common(geometry), self.shape);
        let per_head = shape.rows * shape.blocks();
        let (mut scales, mut codes) = (&mut self.scales[..], &mut self.codes[..]);
        let heads = values.chunks_exact(geometry.tokens * shape.dim);
        let heads = heads.zip(self.first.chunks_exact_mut(shape.dim)).map(|(values, first)| {
            // Of no bytes where there is but one token.
            let scales = scales.split_off_mut(..per_head).unwrap_or_default();
            let codes = codes.split_off_mut(..per_head * shape.bytes).unwrap_or_default();
            EncodeHead { common: &common, values, first, scales, codes }
        });
        let heads: Vec<_> = heads.collect();
        let filled = heads.into_par_iter().map(|head| head.run(arch));
        filled.reduce(|| Filled::NOTHING, Filled::and)
    }

    fn common<'a>(&self, geometry: &'a Geometry) -> Common<'a> {
        Common { codec: self.codec, shape: self.shape, exponent: self.exponent, geometry }
    }

    /// Writes the decoded values. `geometry` is that of compression.
    pub fn decompress<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        self.decompress_on(Arch::new(), geometry, out);
    }

    pub(super) fn decompress_on<T: Element>(&self, arch: Arch, geometry: &Geometry, out: &mut [T]) {
        assert_eq!(out.len(), self.values, "output of another length than the payload");
        if self.values == 0 {
            return;
        }
        let (common, shape) = (self.common(geometry), self.shape);
        let per_head = shape.rows * shape.blocks();
        out.par_chunks_exact_mut(geometry.tokens * shape.dim).enumerate().for_each(
            |(index, out)| {
                let blocks = index * per_head..(index + 1) * per_head;
                let head = DecodeHead {
                    common: &common,
                    first: &self.first[index * shape.dim..][..shape.dim],
                    scales: &self.scales[blocks.clone()],
                    codes: &self.codes[blocks.start * shape.bytes..blocks.end * shape.bytes],
                    out,
                };
                head.run(arch);
            },
        );
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values
    }

    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// The bytes of each part, in order.
    pub fn parts(&self) -> Vec<&[u8]> {
        vec![bytemuck::cast_slice(&self.first), &self.scales, &self.codes]
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<&mut [u8]> {
        vec![bytemuck::cast_slice_mut(&mut self.first), &mut self.scales, &mut self.codes]
    }

    /// Whether all numbers but codes are finite, as every writer's are.
    pub fn is_finite(&self) -> bool {
        self.first.iter().all(|half| half.is_finite())
    }
}

/// Puts the largest magnitude between 2² and 2³: less its centre and rotated, a block of 64 stays
/// below the largest scale.
fn exponent_for(absmax: f32) -> i32 {
    f64::from(absmax).log2().floor() as i32 - 2
}
