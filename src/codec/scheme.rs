//! Schemes: every dimension of the codec family.

use super::levels::Levels;
use super::transform::{Rope, hadamard_block};
use crate::error::{Error, Result};
use std::ops::Range;

/// How one tensor of head vectors is packed. The steps, in this order: the first `sink` tokens are
/// set apart, exact; the others are turned back to position 0 (`prerope`), have their mean over
/// tokens subtracted channel by channel (`ctr`), are rotated (`rotation`), and are quantised to
/// `bits` in groups of `group` values that share a scale. Decoding is the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Bits a code: 2 … 8.
    pub bits: u8,
    /// Consecutive values that share a scale; [`Scheme::WHOLE`]: all of the tensor's.
    pub group: usize,
    pub levels: Levels,
    /// Groups run over the tokens of one channel (KIVI, Liu et al. 2024), not along the flattened
    /// tensor.
    pub channel: bool,
    /// Keys are taken as they are before RoPE.
    pub prerope: bool,
    /// The mean over tokens of each channel of each head is stored apart, in f16.
    pub centred: bool,
    pub rotation: Rotation,
    /// The scale is searched for the least squared error.
    pub searched: bool,
    /// Scales are stored in 8 bits, not in f16.
    pub small_scales: bool,
    /// The first tokens, stored in 16 bits.
    pub sink: usize,
}

/// An orthonormal map of each head vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rotation {
    None,
    /// Walsh–Hadamard (QuaRot, Ashkboos et al. 2024), in blocks of the largest power of two that
    /// divides the head vector.
    Hadamard,
    /// The same after flips of sign that look random.
    SignedHadamard,
}

/// What a codec is told of a tensor beside its values: they are flattened row-major from
/// [heads, tokens, head_dim].
#[derive(Debug, Clone, Copy)]
pub struct Geometry<'a> {
    pub tokens: usize,
    pub head_dim: usize,
    /// Position of the first token in its sequence.
    pub first: usize,
    /// What the keys were rotated by; needed for `prerope` only.
    pub rope: Option<&'a Rope>,
    /// Of what is drawn at random: the noise control.
    pub seed: u64,
}

impl Geometry<'_> {
    /// Vectors of `head_dim` values that follow each other from position 0.
    pub fn rows(tokens: usize, head_dim: usize) -> Self {
        Self { tokens, head_dim, first: 0, rope: None, seed: 0 }
    }

    /// Of a tensor of any shape: the last dimension is a head vector, the one before it the
    /// tokens. A tensor without values has no tokens, whatever its shape says.
    pub fn of_shape(shape: &[usize]) -> Self {
        let back = |n: usize| shape.len().checked_sub(n).map_or(1, |index| shape[index]);
        Self::rows(if shape.contains(&0) { 0 } else { back(2) }, back(1))
    }

    /// Heads of a tensor of so many values; 0 without values.
    pub fn heads(&self, values: usize) -> usize {
        match values {
            0 => 0,
            _ => values.checked_div(self.tokens * self.head_dim).unwrap_or(0),
        }
    }
}

impl Scheme {
    /// One group for all of a tensor.
    pub const WHOLE: usize = usize::MAX;

    /// Symmetric INT4: with groups of 64 the seed's codec.
    pub const fn int4(group: usize) -> Self {
        Self {
            bits: 4,
            group,
            levels: Levels::Symmetric,
            channel: false,
            prerope: false,
            centred: false,
            rotation: Rotation::None,
            searched: false,
            small_scales: false,
            sink: 0,
        }
    }

    /// The group size, where this is symmetric INT4 and nothing else.
    pub fn as_int4(&self) -> Option<usize> {
        (*self == Self::int4(self.group)).then_some(self.group)
    }

    /// Bytes of a stored scale.
    pub(super) fn scale_bytes(&self) -> usize {
        if self.small_scales { 1 } else { 2 }
    }

    /// Whether this scheme can store a tensor of this geometry.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let dim = geometry.head_dim;
        if self.rotation != Rotation::None && dim > 0 && hadamard_block(dim) < 2 {
            return Err(Error::input(format!("had: expected an even head vector, found {dim}"))
                .hint("a Hadamard rotation works on blocks of a power of two"));
        }
        if self.prerope { geometry.check_rope() } else { Ok(()) }
    }

    /// Tokens that have to be stored together, so that nothing stored changes when more follow:
    /// 1 where each token stands for itself. An error for a scheme that needs the whole prefix.
    pub fn block_tokens(&self, head_dim: usize) -> Result<usize> {
        let refuse = |what: &str| {
            Err(Error::input(format!("{what}: expected what can be known token by token"))
                .hint("such a codec needs the whole prefix: use the prefix protocol"))
        };
        if self.group == Self::WHOLE {
            return refuse("one scale a tensor");
        }
        if self.centred {
            return refuse("ctr, the mean over all tokens");
        }
        match self.group {
            group if self.channel => Ok(group),
            group if head_dim.is_multiple_of(group) => Ok(1),
            group if group.is_multiple_of(head_dim) => Ok(group / head_dim),
            group => Err(Error::input(format!(
                "group of {group} values: expected a divisor or multiple of the head vector of \
                 {head_dim}, of which tokens are made"
            ))
            .hint("choose another group, or use the prefix protocol")),
        }
    }

    /// How many rows of a head are set apart.
    pub(super) fn sinks(&self, geometry: &Geometry) -> usize {
        self.sink.saturating_sub(geometry.first).min(geometry.tokens)
    }

    /// Values a line has, which is what groups are cut from, each line anew; and lines.
    pub(super) fn lines(&self, heads: usize, body: usize, head_dim: usize) -> (usize, usize) {
        if self.channel { (body, heads * head_dim) } else { (heads * body * head_dim, 1) }
    }

    /// Groups of a tensor with `body` tokens a head that are not set apart.
    pub(super) fn groups(&self, heads: usize, body: usize, head_dim: usize) -> usize {
        let (line, lines) = self.lines(heads, body, head_dim);
        line.div_ceil(self.group) * lines
    }
}

/// What the payload of a tensor consists of, in the order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The tokens set apart, in 16 bits. [heads, sink, head_dim]
    Sinks,
    /// f16, [heads, head_dim]
    Means,
    /// f16, or bytes where scales are small. [groups]
    Scales,
    /// f16, [groups]
    Minima,
    /// Bytes.
    Codes,
}

impl Part {
    pub const ALL: [Self; 5] = [Self::Sinks, Self::Means, Self::Scales, Self::Minima, Self::Codes];
}

/// Elements of each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSizes {
    pub heads: usize,
    /// Tokens a head that are set apart, and the others.
    pub sinks: usize,
    pub body: usize,
    pub groups: usize,
    counts: [Option<usize>; 5],
}

impl PartSizes {
    /// `values`: of the whole tensor.
    pub fn new(scheme: &Scheme, values: usize, geometry: &Geometry) -> Self {
        let (heads, dim) = (geometry.heads(values), geometry.head_dim);
        let sinks = scheme.sinks(geometry);
        let body = geometry.tokens - sinks;
        let groups = scheme.groups(heads, body, dim);
        // A product of what fits memory and at most 8.
        let bits = (heads * body * dim) as u128 * u128::from(scheme.bits);
        let counts = [
            (scheme.sink > 0).then_some(heads * sinks * dim),
            scheme.centred.then_some(heads * dim),
            Some(groups),
            scheme.levels.has_minimum().then_some(groups),
            Some(bits.div_ceil(8) as usize),
        ];
        Self { heads, sinks, body, groups, counts }
    }

    /// Elements of a part; `None` where the scheme has no such part.
    pub fn count(&self, part: Part) -> Option<usize> {
        self.counts[part as usize]
    }
}

/// Ranges of `total` in steps of `step`.
pub(super) fn steps(total: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total).step_by(step.max(1)).map(move |start| start..(start + step).min(total))
}
