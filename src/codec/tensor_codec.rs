//! The codec of one tensor, and that of a layer's keys and values.

use super::distortion::DistortionSum;
use super::element::Element;
use super::geometry::Geometry;
use super::halves::compress_halves;
use super::int4::Int4Payload;
use super::packing::Packing;
use super::parts::{Part, PartElement, PartLayout, PartName};
use super::payload::Payload;
use super::rotary::RotaryTable;
use super::scheme::{FixedScale, Levels, ScaleFormat, Scheme};
use super::two_centre::{BlockRule, TwoCentre};
use crate::error::{Error, Result};
use half::f16;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How one tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorCodec {
    /// Control: every value rounded to f16, as a cache served in f16 holds it. 16 bits/value.
    F16,
    /// Codes of fewer bits, scales and what else the packing stores.
    Packed(Packing),
}

/// How one layer's cache is stored: its keys and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Codec {
    /// That of the keys.
    pub key: TensorCodec,
    /// That of the values.
    pub value: TensorCodec,
}

/// Keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The keys.
    Key,
    /// The values.
    Value,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

impl Codec {
    /// Whether it is the control `f16`.
    pub fn is_f16(&self) -> bool {
        [self.key, self.value] == [TensorCodec::F16; 2]
    }

    /// That of the keys or that of the values.
    pub fn side(&self, side: Side) -> TensorCodec {
        match side {
            Side::Key => self.key,
            Side::Value => self.value,
        }
    }

    /// With these scales for the sides that can have one given and have none of their own; `None` where
    /// neither does. vLLM takes none for TurboQuant's keys.
    pub fn with_scales(&self, key: FixedScale, value: FixedScale) -> Option<Self> {
        let is_turboquant = |scheme: &Scheme| scheme.levels == Levels::TurboQuantValues;
        if matches!(self.value.packing(), Some(Packing::Scheme(scheme)) if is_turboquant(scheme)) {
            return None;
        }
        let given = |side: TensorCodec, scale| match side.packing() {
            Some(Packing::Scheme(scheme)) if scheme.own_scale().is_none() => side.with_scale(scale),
            _ => None,
        };
        match (given(self.key, key), given(self.value, value)) {
            (None, None) => None,
            (key, value) => {
                Some(Self { key: key.unwrap_or(self.key), value: value.unwrap_or(self.value) })
            }
        }
    }

    /// See [`Packing::has_memory`].
    pub fn has_memory(&self) -> bool {
        self.key.has_memory() || self.value.has_memory()
    }
}

impl TensorCodec {
    /// Symmetric INT4: codes −7…7 and one f16 scale for `group` consecutive values.
    pub const fn int4(group: usize) -> Self {
        Self::Packed(Packing::Scheme(Scheme::int4(group)))
    }

    /// Whether it stores floats of E4M3 divided by 1: `fp8-e4m3`.
    pub fn is_plain_e4m3(&self) -> bool {
        let is_plain = |scheme: &Scheme| {
            scheme.levels == Levels::E4m3 && scheme.scales == ScaleFormat::Fixed(FixedScale::ONE)
        };
        matches!(self.packing(), Some(Packing::Scheme(scheme)) if is_plain(scheme))
    }

    /// Compresses a flattened row-major tensor, and measures the distortion of what
    /// [`Payload::decompress`] will give in the same type. NaN and infinities are errors that name
    /// the index.
    pub fn compress_measured<T: Element>(
        &self,
        values: &[T],
        geometry: &Geometry,
    ) -> Result<(Payload, DistortionSum)> {
        let head_dim = geometry.head_dim;
        match *self {
            Self::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                let run = compress_halves(values, head_dim, 0, &mut halves);
                let run = run.ok_or_else(|| not_finite(values))?;
                Ok((Payload::of_halves(halves), run.finish()))
            }
            Self::Packed(packing) => {
                if let Some(group) = packing.as_int4() {
                    let packed = Int4Payload::compress_measured(values, group, head_dim);
                    let (payload, sum) = packed.ok_or_else(|| not_finite(values))?;
                    return Ok((Payload::of_int4(payload), sum));
                }
                packing.check(geometry)?;
                let payload = Payload::pack(values, packing, geometry);
                Ok(measured(payload.ok_or_else(|| not_finite(values))?, values, geometry))
            }
        }
    }

    /// A payload with room for the parts of a tensor of type `T`, which are zero.
    pub fn empty<T: Element>(&self, values: usize, geometry: &Geometry) -> Payload {
        match *self {
            Self::F16 => Payload::of_halves(vec![f16::ZERO; values]),
            Self::Packed(packing) => Payload::empty::<T>(packing, values, geometry),
        }
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
            Self::F16 => vec![Part::new(PartName::Values, PartElement::F16, values)],
            Self::Packed(packing) => packing.parts(values, geometry, source),
        }
    }

    /// With another scale; `None` of a codec that has none given to it.
    pub fn with_scale(self, scale: FixedScale) -> Option<Self> {
        match self {
            Self::Packed(Packing::Scheme(scheme)) => match scheme.scales {
                ScaleFormat::Fixed(_) => {
                    let scales = ScaleFormat::Fixed(scale);
                    Some(Self::Packed(Packing::Scheme(Scheme { scales, ..scheme })))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// For keys and values alike, as far as it means anything for values.
    pub(super) fn for_both(self) -> Codec {
        Codec { key: self, value: self.for_values() }
    }

    /// The same for values, which have no position.
    pub fn for_values(self) -> Self {
        match self {
            Self::F16 => self,
            Self::Packed(packing) => Self::Packed(packing.for_values()),
        }
    }

    /// The packing, if values are packed.
    pub fn packing(&self) -> Option<&Packing> {
        match self {
            Self::F16 => None,
            Self::Packed(packing) => Some(packing),
        }
    }

    /// The group size, for the codecs that have one.
    pub fn group(&self) -> Option<usize> {
        self.packing().and_then(Packing::group)
    }

    /// Whether head vectors of this length can be stored; `rope` is that of the model.
    pub fn check_head(&self, head_dim: usize, rope: &RotaryTable) -> Result<()> {
        let geometry = Geometry { rope: Some(rope), ..Geometry::rows(0, head_dim) };
        self.packing().map_or(Ok(()), |packing| packing.check(&geometry))
    }

    /// With blocks of two centres cut by `rule`: what a file was written with.
    pub(crate) fn cut_by(self, rule: BlockRule) -> Self {
        match self {
            Self::Packed(Packing::TwoCentre(codec)) => {
                Self::Packed(Packing::TwoCentre(TwoCentre { blocks: rule, ..codec }))
            }
            other => other,
        }
    }

    /// See [`Packing::has_memory`].
    pub fn has_memory(&self) -> bool {
        self.packing().is_some_and(Packing::has_memory)
    }

    /// See [`Packing::block_tokens`].
    pub fn block_tokens(&self, head_dim: usize) -> Result<usize> {
        self.packing().map_or(Ok(1), |packing| packing.block_tokens(head_dim))
    }
}

/// With the distortion of what it decodes to.
fn measured<T: Element>(
    payload: Payload,
    values: &[T],
    geometry: &Geometry,
) -> (Payload, DistortionSum) {
    let mut decoded = vec![T::default(); values.len()];
    payload.decompress(geometry, &mut decoded);
    let sum = DistortionSum::measure(values, &decoded, geometry.head_dim);
    (payload, sum)
}

/// The error for values that are not all finite.
fn not_finite<T: Element>(values: &[T]) -> Error {
    let index = values.iter().position(|value| !value.is_finite()).unwrap_or(values.len());
    let found = values.get(index).map_or(f32::NAN, |value| value.to_f32());
    Error::not_finite(format!("index {index}: expected a finite number, found {found}"))
}
