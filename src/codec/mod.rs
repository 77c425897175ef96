//! Codecs: numbers in, packed bytes out, and back. No I/O, no tensors, no model.
//!
//! A [`Codec`] says how the keys and how the values of one layer are stored. Its name is the
//! one string users meet everywhere; it round-trips through [`FromStr`] and [`Display`].
//!
//! Symmetric INT4, the default, has kernels and a payload of its own ([`int4`]); every other
//! [`Packing`] goes through [`PackedTensor`].
//!
//! [`FromStr`]: std::str::FromStr
//! [`Display`]: std::fmt::Display

#[cfg(test)]
mod archs;
mod bits;
mod distortion;
mod element;
mod groups;
mod halves;
pub mod int4;
mod levels;
pub mod listing;
mod name;
mod noise;
mod packing;
mod payload;
mod scalar;
mod scheme;
mod simd;
mod transform;
mod two_centre;

pub use distortion::{Distortion, DistortionRun, DistortionSum};
pub use element::Element;
pub use halves::{compress_halves, decompress_halves};
pub use int4::Int4Payload;
pub use levels::Levels;
pub(crate) use name::{FIELDS, FieldKind, GROUP, Parts, compose, nearest, split_names};
pub use packing::{PackedTensor, Packing, PartType};
pub use scheme::{Geometry, Part, Rotation, Scheme};
pub use transform::Rope;
pub use two_centre::{FittedLevels, TwoCentre};

use crate::error::{Error, Result};
use half::f16;

/// The smallest group that may share a scale.
pub const MIN_GROUP: usize = 8;

/// How one tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorCodec {
    /// Control: every value rounded to f16, as a cache served in f16 holds it. 16 bits/value.
    F16,
    Packed(Packing),
    /// Control: Gaussian noise of the same root mean square as the error of this packing, tensor by
    /// tensor. Stores nothing smaller: 16 bits/value.
    Noise(Packing),
}

/// How one layer's cache is stored: its keys and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Codec {
    pub key: TensorCodec,
    pub value: TensorCodec,
}

impl Codec {
    /// Keys and values, but a side that is only a control: a plain f16 round trip beside a codec
    /// stands for a side that is left as it is.
    pub fn lossy_sides(&self) -> Vec<TensorCodec> {
        let both = [self.key, self.value];
        let lossy = both.into_iter().filter(|side| *side != TensorCodec::F16);
        match (self.key, self.value) {
            (TensorCodec::F16, TensorCodec::F16) => both.into(),
            _ => lossy.collect(),
        }
    }
}

/// A compressed tensor, owned: the bytes that would be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    F16(Vec<f16>),
    Int4(Int4Payload),
    Packed(PackedTensor),
}

impl TensorCodec {
    /// Symmetric INT4: codes −7…7 and one f16 scale for `group` consecutive values.
    pub const fn int4(group: usize) -> Self {
        Self::Packed(Packing::Scheme(Scheme::int4(group)))
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
                Ok((Payload::F16(halves), run.finish()))
            }
            Self::Packed(packing) => {
                if let Some(group) = packing.as_int4() {
                    let packed = Int4Payload::compress_measured(values, group, head_dim);
                    let (payload, sum) = packed.ok_or_else(|| not_finite(values))?;
                    return Ok((Payload::Int4(payload), sum));
                }
                packing.check(geometry)?;
                let packed = PackedTensor::compress(values, packing, geometry);
                let payload = Payload::Packed(packed.ok_or_else(|| not_finite(values))?);
                Ok(measured(payload, values, geometry))
            }
            Self::Noise(packing) => {
                let (_, sum) = Self::Packed(packing).compress_measured(values, geometry)?;
                let noisy = noise::with_noise(values, noise::size(sum), geometry.seed);
                Ok(measured(Payload::F16(noisy), values, geometry))
            }
        }
    }

    /// The same for values, which have no position.
    pub fn for_values(self) -> Self {
        match self {
            Self::F16 => self,
            Self::Packed(packing) => Self::Packed(packing.for_values()),
            Self::Noise(packing) => Self::Noise(packing.for_values()),
        }
    }

    /// What packs, or says how large noise is.
    pub fn packing(&self) -> Option<&Packing> {
        match self {
            Self::F16 => None,
            Self::Packed(packing) | Self::Noise(packing) => Some(packing),
        }
    }

    /// The group size, for the codecs that have one.
    pub fn group(&self) -> Option<usize> {
        self.packing().and_then(Packing::group)
    }

    /// Whether head vectors of this length can be stored; `rope` is that of the model.
    pub fn check_head(&self, head_dim: usize, rope: &Rope) -> Result<()> {
        let geometry = Geometry { rope: Some(rope), ..Geometry::rows(0, head_dim) };
        self.packing().map_or(Ok(()), |packing| packing.check(&geometry))
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

/// The values with noise as large as the error of `decoded`, what that differs by from them, and
/// the bytes it takes: what [`TensorCodec::Noise`] makes of a part of a tensor.
pub fn add_noise<T: Element>(
    values: &[T],
    decoded: &[T],
    head_dim: usize,
    seed: u64,
) -> (Vec<T>, DistortionSum, usize) {
    let error = DistortionSum::measure(values, decoded, head_dim);
    let halves = noise::with_noise(values, noise::size(error), seed);
    let mut noisy = vec![T::default(); values.len()];
    decompress_halves(&halves, &mut noisy);
    let distortion = DistortionSum::measure(values, &noisy, head_dim);
    (noisy, distortion, 2 * halves.len())
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

impl Payload {
    /// Of `codec`, with room for its parts, which are zero. `None` for what stores nothing.
    pub fn empty<T: Element>(
        codec: TensorCodec,
        values: usize,
        geometry: &Geometry,
    ) -> Option<Self> {
        match codec {
            TensorCodec::F16 => Some(Payload::F16(vec![f16::ZERO; values])),
            TensorCodec::Packed(packing) => Some(match packing.as_int4() {
                Some(group) => Payload::Int4(Int4Payload::empty(group, values)),
                None => Payload::Packed(PackedTensor::empty::<T>(packing, values, geometry)),
            }),
            TensorCodec::Noise(_) => None,
        }
    }

    /// The bytes of each part, in the order of a file.
    pub fn parts(&self) -> Vec<&[u8]> {
        match self {
            Payload::F16(values) => vec![bytemuck::cast_slice(values)],
            Payload::Int4(payload) => payload.parts(),
            Payload::Packed(payload) => payload.parts(),
        }
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<&mut [u8]> {
        match self {
            Payload::F16(values) => vec![bytemuck::cast_slice_mut(values)],
            Payload::Int4(payload) => payload.parts_mut(),
            Payload::Packed(payload) => payload.parts_mut(),
        }
    }

    /// All numbers are stored divided by two to this power; 0 for f16.
    pub fn exponent(&self) -> i32 {
        match self {
            Payload::F16(_) => 0,
            Payload::Int4(payload) => payload.exponent(),
            Payload::Packed(payload) => payload.exponent(),
        }
    }

    /// What [`Payload::exponent`] was of the tensor whose parts these are.
    pub fn set_exponent(&mut self, exponent: i32) {
        match self {
            Payload::F16(_) => {}
            Payload::Int4(payload) => payload.set_exponent(exponent),
            Payload::Packed(payload) => payload.set_exponent(exponent),
        }
    }

    /// Whether all numbers but codes are finite, as every writer's are.
    pub fn is_finite(&self) -> bool {
        match self {
            Payload::F16(values) => values.iter().all(|value| value.is_finite()),
            Payload::Int4(payload) => payload.is_finite(),
            Payload::Packed(payload) => payload.is_finite(),
        }
    }

    /// Number of values stored.
    pub fn len(&self) -> usize {
        match self {
            Payload::F16(values) => values.len(),
            Payload::Int4(payload) => payload.len(),
            Payload::Packed(payload) => payload.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the payload as it stands in memory: codes, scales and everything else needed
    /// to decode it but the codec's name and the shape.
    pub fn stored_bytes(&self) -> usize {
        match self {
            Payload::F16(values) => 2 * values.len(),
            Payload::Int4(payload) => payload.stored_bytes(),
            Payload::Packed(payload) => payload.stored_bytes(),
        }
    }

    /// Writes the decoded values. `out` holds exactly [`Payload::len`] values; `geometry` is that
    /// of compression.
    pub fn decompress<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        assert_eq!(out.len(), self.len(), "output of another length than the payload");
        match self {
            Payload::F16(halves) => decompress_halves(halves, out),
            Payload::Int4(payload) => payload.decompress(out),
            Payload::Packed(payload) => payload.decompress(geometry, out),
        }
    }
}

/// The error for values that are not all finite.
fn not_finite<T: Element>(values: &[T]) -> Error {
    let index = values.iter().position(|value| !value.is_finite()).unwrap_or(values.len());
    let found = values.get(index).map_or(f32::NAN, |value| value.to_f32());
    Error::input(format!("index {index}: expected a finite number, found {found}"))
}
