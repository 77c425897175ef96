//! Schemes: every dimension of the codec family.

use super::levels::Levels;
use super::rotation::Rotation;
use super::scales::{FixedScale, ScaleFormat};
use crate::codec::geometry::Geometry;
use crate::codec::parts::{Part, PartElement, PartLayout, PartName};
use crate::error::{Error, Result};

/// The smallest group that may share a scale.
pub const MIN_GROUP: usize = 8;

/// How one tensor of head vectors is packed. The steps, in this order: the first `sink` tokens are
/// set apart, exact; the others are rotated back to position 0 (`prerope`), have their mean over
/// tokens subtracted channel by channel (`ctr`), are rotated (`rotation`), and are quantised to
/// `bits` in groups of `group` values that share a scale. Decoding is the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Bits a code: 2 … 8.
    pub bits: u8,
    /// Consecutive values that share a scale; [`Scheme::WHOLE`]: all of the tensor's;
    /// [`Scheme::HEAD_VECTOR`]: those of a head vector.
    pub group: usize,
    /// The levels of codes.
    pub levels: Levels,
    /// Groups run over the tokens of one channel (KIVI, Liu et al. 2024), not along the flattened
    /// tensor.
    pub channel: bool,
    /// Keys are taken as they are before RoPE.
    pub prerope: bool,
    /// The mean over tokens of each channel of each head is stored apart, in f16.
    pub centred: bool,
    /// The rotation of head vectors before they are quantised.
    pub rotation: Rotation,
    /// The scale is searched for the least squared error.
    pub searched: bool,
    /// How scales are stored.
    pub scales: ScaleFormat,
    /// The first tokens, stored in 16 bits.
    pub sink: usize,
}

impl Scheme {
    /// One group for all of a tensor.
    pub const WHOLE: usize = usize::MAX;

    /// One group for each head vector: for each token and head. Without scales no group shows, and
    /// this one is worked on fastest.
    pub const HEAD_VECTOR: usize = 0;

    /// The scheme of a name that says nothing else: the seed's codec.
    pub const DEFAULT: Self = Self::int4(64);

    /// Symmetric INT4.
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
            scales: ScaleFormat::F16,
            sink: 0,
        }
    }

    /// The group size, where this is symmetric INT4 and nothing else.
    pub fn as_int4(&self) -> Option<usize> {
        (*self == Self::int4(self.group)).then_some(self.group)
    }

    /// The scale that it has without looking at values, where it is not 1.
    pub fn own_scale(&self) -> Option<FixedScale> {
        match self.scales {
            ScaleFormat::Fixed(scale) if scale != FixedScale::ONE => Some(scale),
            _ => None,
        }
    }

    /// With the number of values that a group of a head vector has.
    pub(in crate::codec) fn of_heads(self, head_dim: usize) -> Self {
        let group = if self.group == Self::HEAD_VECTOR { head_dim.max(1) } else { self.group };
        Self { group, ..self }
    }

    /// Whether this scheme can store a tensor of this geometry.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        self.rotation.check(geometry.head_dim)?;
        if self.prerope { geometry.check_rope() } else { Ok(()) }
    }

    /// Tokens that have to be stored together, so that nothing stored changes when more follow:
    /// 1 where each token stands for itself. An error for a scheme that needs the whole prefix.
    pub fn block_tokens(&self, head_dim: usize) -> Result<usize> {
        let refuse = |what: &str| {
            Err(Error::input(format!("{what}: expected what can be known token by token"))
                .hint("such a codec needs the whole prefix: use the prefix protocol"))
        };
        if self.group == Self::WHOLE || self.scales == ScaleFormat::E4m3OfTensor {
            return refuse("one scale a tensor");
        }
        if self.centred {
            return refuse("ctr, the mean over all tokens");
        }
        if self.levels == Levels::Hqq {
            return refuse("zero points that take as many passes as all tokens need");
        }
        match self.of_heads(head_dim).group {
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

    /// Heads and tokens of a tensor of so many values.
    pub(super) fn token_counts(&self, values: usize, geometry: &Geometry) -> TokenCounts {
        let sinks = self.sink.saturating_sub(geometry.first).min(geometry.tokens);
        TokenCounts { heads: geometry.heads(values), sinks, quantised: geometry.tokens - sinks }
    }

    /// Values of a line, from which groups are cut, each line anew; and the number of lines.
    /// `tokens`: of each head.
    pub(super) fn lines(&self, heads: usize, tokens: usize, head_dim: usize) -> (usize, usize) {
        if self.channel { (tokens, heads * head_dim) } else { (heads * tokens * head_dim, 1) }
    }

    /// Groups of so many quantised tokens a head.
    pub(super) fn groups(&self, heads: usize, tokens: usize, head_dim: usize) -> usize {
        let (line, lines) = self.lines(heads, tokens, head_dim);
        line.div_ceil(self.group) * lines
    }

    /// The parts of a tensor's payload in the order of a file. `source`: the 16-bit type that holds
    /// its values best.
    pub fn parts(
        &self,
        values: usize,
        geometry: &Geometry,
        source: PartElement,
    ) -> Vec<PartLayout> {
        use PartElement::{F16, F32, U8};
        let TokenCounts { heads, sinks, quantised } = self.token_counts(values, geometry);
        let dim = geometry.head_dim;
        let groups = self.of_heads(dim).groups(heads, quantised, dim);
        let of_tensor = self.scales == ScaleFormat::E4m3OfTensor;
        // A product of what fits memory and at most 8.
        let bits = (heads * quantised * dim) as u128 * u128::from(self.bits);
        let parts = [
            (self.sink > 0).then(|| Part::new(PartName::Sinks, source, heads * sinks * dim)),
            self.centred.then(|| Part::new(PartName::Means, F16, heads * dim)),
            of_tensor.then(|| Part::new(PartName::TensorScale, F32, groups.min(1))),
            self.scales.element().map(|element| Part::new(PartName::Scales, element, groups)),
            self.levels.offsets().map(|name| Part::new(name, F16, groups)),
            Some(Part::new(PartName::Codes, U8, bits.div_ceil(8) as usize)),
        ];
        parts.into_iter().flatten().collect()
    }
}

/// Heads of a tensor, and the tokens of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenCounts {
    pub heads: usize,
    /// Tokens a head that are set apart.
    pub sinks: usize,
    /// The others.
    pub quantised: usize,
}
