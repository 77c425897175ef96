//! The two ways to pack a tensor, and what they store.

use super::element::Element;
use super::payload::SchemePayload;
use super::scheme::{Geometry, Part, PartSizes, Rotation, Scheme};
use super::transform::Rope;
use super::two_centre::{TwoCentre, TwoCentrePayload};
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    Scheme(Scheme),
    TwoCentre(TwoCentre),
}

/// What the elements of a part are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartType {
    Half,
    /// bf16 where the tensor is bf16, else f16.
    SourceHalf,
    Byte,
}

impl Packing {
    /// The group size, where this is symmetric INT4 and nothing else.
    pub fn as_int4(&self) -> Option<usize> {
        match self {
            Self::Scheme(scheme) => scheme.as_int4(),
            Self::TwoCentre(_) => None,
        }
    }

    /// Keys are taken as they are before RoPE.
    pub fn prerope(&self) -> bool {
        match self {
            Self::Scheme(scheme) => scheme.prerope,
            Self::TwoCentre(codec) => codec.prerope,
        }
    }

    /// The first tokens, which stay exact.
    pub fn sink(&self) -> usize {
        match self {
            Self::Scheme(scheme) => scheme.sink,
            Self::TwoCentre(_) => 1,
        }
    }

    /// Values that share a scale, where a name says how many.
    pub fn group(&self) -> Option<usize> {
        match self {
            Self::Scheme(scheme) => Some(scheme.group).filter(|group| *group != Scheme::WHOLE),
            Self::TwoCentre(_) => None,
        }
    }

    /// The same for values, which have no position.
    pub(super) fn for_values(self) -> Self {
        match self {
            Self::Scheme(scheme) => Self::Scheme(Scheme { prerope: false, ..scheme }),
            Self::TwoCentre(codec) => {
                Self::TwoCentre(TwoCentre { prerope: false, shaped: false, ..codec })
            }
        }
    }

    /// What is stored depends on which head vectors are tokens of one head, in which order.
    pub fn reads_tokens(&self) -> bool {
        match self {
            Self::Scheme(scheme) => {
                scheme.channel || scheme.prerope || scheme.centred || scheme.sink > 0
            }
            Self::TwoCentre(_) => true,
        }
    }

    /// What is stored depends on where head vectors begin.
    pub fn reads_vectors(&self) -> bool {
        let turned = matches!(self, Self::Scheme(scheme) if scheme.rotation != Rotation::None);
        turned || self.reads_tokens()
    }

    /// Whether a tensor of this geometry can be stored.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        match self {
            Self::Scheme(scheme) => scheme.check(geometry),
            Self::TwoCentre(codec) => codec.check(geometry),
        }
    }

    /// Tokens that have to be stored together, so that nothing stored changes when more follow:
    /// 1 where that is so token by token. An error for what needs the whole prefix.
    pub fn block_tokens(&self, head_dim: usize) -> Result<usize> {
        match self {
            Self::Scheme(scheme) => scheme.block_tokens(head_dim),
            Self::TwoCentre(_) => Ok(1),
        }
    }

    /// What is stored of a token depends on those before it.
    pub fn has_memory(&self) -> bool {
        matches!(self, Self::TwoCentre(_))
    }

    /// The parts of a payload in the order of a file, and their elements.
    pub fn parts(&self, values: usize, geometry: &Geometry) -> Vec<(Part, PartType, usize)> {
        match self {
            Self::Scheme(scheme) => {
                let sizes = PartSizes::new(scheme, values, geometry);
                let of = |part| match part {
                    Part::Sinks => PartType::SourceHalf,
                    Part::Codes => PartType::Byte,
                    Part::Scales if scheme.small_scales => PartType::Byte,
                    Part::Means | Part::Scales | Part::Minima => PartType::Half,
                };
                let counted = |part| Some((part, of(part), sizes.count(part)?));
                Part::ALL.into_iter().filter_map(counted).collect()
            }
            Self::TwoCentre(codec) => codec.parts(values, geometry),
        }
    }
}

/// A tensor packed either way.
#[derive(Debug, Clone, PartialEq)]
pub enum PackedTensor {
    Scheme(SchemePayload),
    TwoCentre(TwoCentrePayload),
}

/// Calls a method of whichever payload it is.
macro_rules! either {
    ($packed:expr, $payload:ident => $call:expr) => {
        match $packed {
            PackedTensor::Scheme($payload) => $call,
            PackedTensor::TwoCentre($payload) => $call,
        }
    };
}

impl PackedTensor {
    /// With room for its parts, which are zero.
    pub fn empty<T: Element>(packing: Packing, values: usize, geometry: &Geometry) -> Self {
        match packing {
            Packing::Scheme(scheme) => {
                Self::Scheme(SchemePayload::empty::<T>(scheme, values, geometry))
            }
            Packing::TwoCentre(codec) => {
                Self::TwoCentre(TwoCentrePayload::empty(codec, values, geometry))
            }
        }
    }

    /// `None` where a value is not finite.
    pub fn compress<T: Element>(
        values: &[T],
        packing: Packing,
        geometry: &Geometry,
    ) -> Option<Self> {
        match packing {
            Packing::Scheme(scheme) => {
                SchemePayload::compress(values, scheme, geometry).map(Self::Scheme)
            }
            Packing::TwoCentre(codec) => {
                TwoCentrePayload::compress(values, codec, geometry).map(Self::TwoCentre)
            }
        }
    }

    /// Writes the decoded values. `geometry` is that of compression.
    pub fn decompress<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        either!(self, payload => payload.decompress(geometry, out));
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        either!(self, payload => payload.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All parts; an exponent of 0 is the default and takes no room.
    pub fn stored_bytes(&self) -> usize {
        let exponent = if self.exponent() == 0 { 0 } else { 2 };
        self.parts().iter().map(|part| part.len()).sum::<usize>() + exponent
    }

    /// All numbers are stored divided by two to this power.
    pub fn exponent(&self) -> i32 {
        either!(self, payload => payload.exponent)
    }

    pub fn set_exponent(&mut self, exponent: i32) {
        either!(self, payload => payload.exponent = exponent);
    }

    /// The bytes of each part that there is, in order.
    pub fn parts(&self) -> Vec<&[u8]> {
        either!(self, payload => payload.parts())
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<&mut [u8]> {
        either!(self, payload => payload.parts_mut())
    }

    /// Whether all numbers but codes are finite, as every writer's are.
    pub fn is_finite(&self) -> bool {
        either!(self, payload => payload.is_finite())
    }
}

impl Geometry<'_> {
    /// Whether what the keys were rotated by is known, and fits.
    pub(super) fn check_rope(&self) -> Result<()> {
        match self.rope.map(|rope: &Rope| (rope.head_dim(), rope.positions())) {
            None => Err(Error::input(
                "prerope: expected what the keys were rotated by, found none",
            )
            .hint("say --rope-theta, as the model's config has it; `kvgauge extract` writes it to its files")),
            Some((turned, _)) if turned != self.head_dim => Err(Error::input(format!(
                "prerope: expected a rotation of {turned} values, found head vectors of {}",
                self.head_dim
            ))
            .hint("the file's keys have another head size than the model whose rotation it names")),
            Some((_, positions)) if positions < self.first + self.tokens => {
                Err(Error::system("prerope: positions beyond those worked out"))
            }
            Some(_) => Ok(()),
        }
    }
}
