//! The ways to pack a tensor, and what there is to know of each.

use super::geometry::Geometry;
use super::kvarn::Kvarn;
use super::parts::{PartElement, PartLayout};
use super::scheme::{Rotation, ScaleFormat, Scheme};
use super::two_centre::TwoCentre;
use crate::error::Result;

/// A way to pack a tensor to less than 16 bits a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Any combination of fields.
    Scheme(Scheme),
    /// Two centres, levels fitted to rotated blocks.
    TwoCentre(TwoCentre),
    /// Tiles of tokens with scales of their rows and columns.
    Kvarn(Kvarn),
}

impl Packing {
    /// The group size, where this is symmetric INT4 and nothing else.
    pub fn as_int4(&self) -> Option<usize> {
        match self {
            Self::Scheme(scheme) => scheme.as_int4(),
            Self::TwoCentre(_) | Self::Kvarn(_) => None,
        }
    }

    /// Whether keys are taken as they are before RoPE.
    pub fn prerope(&self) -> bool {
        match self {
            Self::Scheme(scheme) => scheme.prerope,
            Self::TwoCentre(codec) => codec.prerope,
            Self::Kvarn(_) => false,
        }
    }

    /// The number of first tokens that stay exact.
    pub fn sink(&self) -> usize {
        match self {
            Self::Scheme(scheme) => scheme.sink,
            Self::TwoCentre(_) => 1,
            Self::Kvarn(_) => 0,
        }
    }

    /// Of so many tokens, the first at position `first`, those that are stored in 16 bits.
    pub fn exact_tokens(&self, first: usize, tokens: usize) -> usize {
        match self {
            Self::Kvarn(_) => tokens % Kvarn::TILE,
            Self::Scheme(_) | Self::TwoCentre(_) => self.sink().saturating_sub(first).min(tokens),
        }
    }

    /// Values that share a scale, where a name says how many.
    pub fn group(&self) -> Option<usize> {
        match self {
            Self::Scheme(scheme) => {
                Some(scheme.group).filter(|g| ![Scheme::WHOLE, Scheme::HEAD_VECTOR].contains(g))
            }
            Self::TwoCentre(_) | Self::Kvarn(_) => None,
        }
    }

    /// The same for values, which have no position.
    pub(super) fn for_values(self) -> Self {
        match self {
            Self::Scheme(scheme) => {
                let rotation = scheme.rotation.for_values();
                Self::Scheme(Scheme { prerope: false, rotation, ..scheme })
            }
            Self::TwoCentre(codec) => {
                Self::TwoCentre(TwoCentre { prerope: false, shaped: false, ..codec })
            }
            Self::Kvarn(codec) => Self::Kvarn(codec.for_values()),
        }
    }

    /// Whether what is stored depends on which head vectors are tokens of one head, in which order.
    pub fn reads_tokens(&self) -> bool {
        match self {
            Self::Scheme(scheme) => {
                scheme.channel || scheme.prerope || scheme.centred || scheme.sink > 0
            }
            Self::TwoCentre(_) | Self::Kvarn(_) => true,
        }
    }

    /// What a scheme's rotation demands of head vectors, in a few words.
    pub(crate) fn rotation_needs(&self) -> Option<&'static str> {
        match self {
            Self::Scheme(scheme) => scheme.rotation.needs(),
            Self::TwoCentre(_) => Some("head vectors of a multiple of 4"),
            Self::Kvarn(_) => Some("even head vectors"),
        }
    }

    /// Whether a scheme rotates head vectors.
    pub(crate) fn is_rotated(&self) -> bool {
        matches!(self, Self::Scheme(scheme) if scheme.rotation != Rotation::None)
    }

    /// Whether what is stored depends on where head vectors begin.
    pub fn reads_vectors(&self) -> bool {
        let by_vector = match self {
            Self::Scheme(scheme) => {
                scheme.group == Scheme::HEAD_VECTOR
                    && !matches!(scheme.scales, ScaleFormat::Fixed(_))
            }
            Self::TwoCentre(_) | Self::Kvarn(_) => false,
        };
        by_vector || self.is_rotated() || self.reads_tokens()
    }

    /// Whether a tensor of this geometry can be stored.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        match self {
            Self::Scheme(scheme) => scheme.check(geometry),
            Self::TwoCentre(codec) => codec.check(geometry),
            Self::Kvarn(codec) => codec.check(geometry),
        }
    }

    /// Tokens that have to be stored together, so that nothing stored changes when more follow:
    /// 1 where that is so token by token. An error for what needs the whole prefix.
    pub fn block_tokens(&self, head_dim: usize) -> Result<usize> {
        match self {
            Self::Scheme(scheme) => scheme.block_tokens(head_dim),
            Self::TwoCentre(_) => Ok(1),
            Self::Kvarn(_) => Ok(Kvarn::TILE),
        }
    }

    /// Whether what is stored of a token depends on those before it.
    pub fn has_memory(&self) -> bool {
        matches!(self, Self::TwoCentre(_))
    }

    /// The parts of a tensor's payload in the order of a file. `source`: the 16-bit type that holds
    /// its values best.
    pub fn parts(
        &self,
        values: usize,
        geometry: &Geometry,
        source: PartElement,
    ) -> Vec<PartLayout> {
        match self {
            Self::Scheme(scheme) => scheme.parts(values, geometry, source),
            Self::TwoCentre(codec) => codec.parts(values, geometry),
            Self::Kvarn(codec) => codec.parts(values, geometry, source),
        }
    }
}
