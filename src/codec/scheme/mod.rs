//! The general codec: every combination of fields that a name can have, as a [`Scheme`].
//!
//! Sinks and means are set apart, rows are mapped, groups are quantised, codes are packed; each
//! step is a file here. Symmetric INT4 alone has kernels of its own, in [`super::int4`].

pub(super) mod bits;
mod definition;
mod groups;
mod level_tables;
mod levels;
mod payload;
mod rotation;
mod rows;
mod scales;
mod small_float;
mod units;

pub use definition::{MIN_GROUP, Scheme};
pub use levels::Levels;
#[cfg(test)]
pub(super) use levels::NamedLevels;
pub(super) use payload::SchemePayload;
pub use rotation::Rotation;
pub use scales::{FixedScale, ScaleFormat};
