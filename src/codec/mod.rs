//! Codecs: numbers in, packed bytes out, and back. No I/O, no tensors, no model.
//!
//! A [`Codec`] says how the keys and how the values of one layer are stored, a [`CacheCodec`] how
//! those of all layers are. Its name is the one string users meet everywhere; it round-trips through
//! [`FromStr`] and [`Display`].
//!
//! [`FromStr`]: std::str::FromStr
//! [`Display`]: std::fmt::Display
#![doc = include_str!("README.md")]

mod by_layer;
mod convert;
mod distortion;
mod element;
pub mod entropy;
mod exponent;
mod geometry;
mod hadamard;
mod halves;
#[cfg(test)]
mod instruction_sets;
pub mod int4;
mod kvarn;
mod name;
mod packing;
mod parts;
mod payload;
mod rotary;
mod scheme;
mod symbols;
mod tensor_codec;
mod transpose;
mod two_centre;

pub(crate) use by_layer::Layers;
pub use by_layer::{ByLayer, CacheCodec};
pub use distortion::{Distortion, DistortionRun, DistortionSum};
pub use element::Element;
pub use geometry::Geometry;
pub use halves::{compress_halves, decompress_halves};
pub use kvarn::{Kvarn, TileRows};
pub(crate) use name::{
    ENGINES, Engine, FIELDS, Field, FieldKind, FieldTexts, GROUP, NOISE, NOISE_PRESET, Named,
    PRESETS, Preset, RENAMED, compose, lasting_name, no_codec, parse_codec_name, parse_sides,
    shown_name, split_names, todays_names,
};
pub use packing::Packing;
pub use parts::{Part, PartElement, PartLayout, PartName};
pub use payload::Payload;
pub use rotary::{RotaryEmbedding, RotaryPairs, RotaryTable};
pub use scheme::{FixedScale, Levels, MIN_GROUP, Rotation, ScaleFormat, Scheme};
pub use tensor_codec::{Codec, Side, TensorCodec};
pub use two_centre::{BlockRule, FittedLevels, TwoCentre};
