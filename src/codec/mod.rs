//! Codecs: numbers in, packed bytes out, and back. No I/O, no tensors, no model.
//!
//! A [`Codec`] says how the keys and how the values of one layer are stored. Its name is the
//! one string users meet everywhere; it round-trips through [`FromStr`] and [`Display`].
//!
//! [`FromStr`]: std::str::FromStr
//! [`Display`]: std::fmt::Display

mod distortion;
mod element;
mod halves;
pub mod int4;
mod name;
mod scalar;
mod simd;

pub use distortion::{Distortion, DistortionRun, DistortionSum};
pub use element::Element;
pub use halves::{compress_halves, decompress_halves};
pub use int4::Int4Payload;
pub(crate) use name::{FIELDS, FieldKind, GROUP, Parts, compose, nearest};

use crate::error::{Error, Result};
use half::f16;

/// The smallest group that may share a scale.
pub const MIN_GROUP: usize = 8;

/// How one tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorCodec {
    /// Control: every value rounded to f16, as a cache served in f16 holds it. 16 bits/value.
    F16,
    /// Symmetric INT4: codes −7…7 and one f16 scale for `group` consecutive values.
    /// 4 + 16/group bits/value. See [`Int4Payload`].
    Int4 { group: usize },
}

/// How one layer's cache is stored: its keys and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    pub key: TensorCodec,
    pub value: TensorCodec,
}

/// A compressed tensor, owned: the bytes that would be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    F16(Vec<f16>),
    Int4(Int4Payload),
}

impl TensorCodec {
    /// Compresses a flattened row-major tensor of head vectors of `head_dim` values, and measures
    /// the distortion of what [`Payload::decompress`] will give in the same type. NaN and
    /// infinities are errors that name the index.
    pub fn compress_measured<T: Element>(
        &self,
        values: &[T],
        head_dim: usize,
    ) -> Result<(Payload, DistortionSum)> {
        match *self {
            TensorCodec::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                let run = compress_halves(values, head_dim, 0, &mut halves);
                let run = run.ok_or_else(|| not_finite(values))?;
                Ok((Payload::F16(halves), run.finish()))
            }
            TensorCodec::Int4 { group } => Int4Payload::compress_measured(values, group, head_dim)
                .map(|(payload, sum)| (Payload::Int4(payload), sum))
                .ok_or_else(|| not_finite(values)),
        }
    }

    /// The group size, for the codecs that have one.
    pub fn group(&self) -> Option<usize> {
        match *self {
            TensorCodec::F16 => None,
            TensorCodec::Int4 { group } => Some(group),
        }
    }
}

impl Payload {
    /// Number of values stored.
    pub fn len(&self) -> usize {
        match self {
            Payload::F16(values) => values.len(),
            Payload::Int4(payload) => payload.len(),
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
        }
    }

    /// Writes the decoded values. `out` holds exactly [`Payload::len`] values.
    pub fn decompress<T: Element>(&self, out: &mut [T]) {
        assert_eq!(out.len(), self.len(), "output of another length than the payload");
        match self {
            Payload::F16(halves) => decompress_halves(halves, out),
            Payload::Int4(payload) => payload.decompress(out),
        }
    }
}

/// The error for values that are not all finite.
fn not_finite<T: Element>(values: &[T]) -> Error {
    let index = values.iter().position(|value| !value.is_finite()).unwrap_or(values.len());
    let found = values.get(index).map_or(f32::NAN, |value| value.to_f32());
    Error::input(format!("index {index}: expected a finite number, found {found}"))
}
