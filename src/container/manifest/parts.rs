//! The stored parts of tensors: their names, types and shapes.

use super::super::layout::TensorView;
use super::super::packed;
use crate::codec::{BlockRule, Codec, Geometry, Packing, PartElement, PartName, TensorCodec};
use crate::error::{Error, Result};
use safetensors::Dtype;
use std::fmt;
use std::ops::Range;

/// The codec of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coding {
    /// It holds keys or values.
    One(TensorCodec),
    /// It holds keys and values.
    Both(Codec),
}

/// How a compressed tensor is read and stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Coded {
    pub coding: Coding,
    pub view: TensorView,
}

/// How one tensor is stored, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// `None`: unchanged, in one part of the name [`PartName::Values`].
    pub coded: Option<Coded>,
    /// In the order the checksum takes them: that of [`Coding::parts`].
    pub parts: Vec<StoredPart>,
}

/// The place of one part.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPart {
    /// Of [`Coding::codecs`] the one that stores it.
    pub codec: usize,
    pub name: PartName,
    /// Its bytes in the data.
    pub bytes: Range<u64>,
    /// How many it has where it is not packed.
    pub unpacked: u64,
    /// Bytes of one of its numbers.
    pub width: u64,
    pub packed: bool,
}

impl StoredPart {
    /// Bytes in the data.
    pub fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }
}

impl Stored {
    /// The index and the place of the part of that name of one of [`Coding::codecs`].
    pub fn part(&self, codec: usize, name: PartName) -> Result<(usize, &StoredPart)> {
        let mut parts = self.parts.iter().enumerate();
        let found = parts.find(|(_, part)| (part.codec, part.name) == (codec, name));
        found.ok_or_else(|| Error::system(format!("no part {}", name.as_str())))
    }
}

impl Stored {
    /// The name of one of its parts, without the tensor's.
    pub fn part_name(&self, part: &StoredPart) -> String {
        let is_pair = matches!(self.coded, Some(Coded { coding: Coding::Both(_), .. }));
        let prefix = if is_pair { PREFIXES[part.codec] } else { "" };
        format!("{prefix}{}", part.name.as_str())
    }
}

/// Before the parts of keys, and of values, of a tensor that holds both.
pub const PREFIXES: [&str; 2] = ["key.", "value."];

/// A part of a tensor as a file has it.
pub struct FilePart {
    pub codec: usize,
    pub part: PartName,
    /// Behind that of the tensor.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes where it is packed.
    pub packed: Option<u64>,
}

impl FilePart {
    /// Bytes where it is not packed: no more than a number can hold.
    fn bytes(&self) -> u128 {
        let values = self.shape.iter().fold(1u128, |n, d| n.saturating_mul(*d as u128));
        values.saturating_mul(self.dtype.bitsize() as u128) / 8
    }

    /// Bytes of one of its numbers.
    fn width(&self) -> u64 {
        self.dtype.bitsize() as u64 / 8
    }

    /// Packed to so many bytes; an error where that cannot be.
    pub fn packed(self, bytes: u64) -> Result<Self> {
        let unpacked = self.bytes();
        let fits = u64::try_from(unpacked)
            .is_ok_and(|unpacked| packed::is_possible(bytes, unpacked, self.width()));
        match fits {
            true => Ok(Self { packed: Some(bytes), ..self }),
            false => {
                Err(Error::input(format!("{}: {unpacked} bytes packed to {bytes}", self.name)))
            }
        }
    }

    /// Type and shape in a file.
    pub fn in_file(&self) -> (Dtype, Vec<usize>) {
        match self.packed {
            None => (self.dtype, self.shape.clone()),
            Some(bytes) => (Dtype::U8, vec![usize::try_from(bytes).unwrap_or(usize::MAX)]),
        }
    }

    /// The part in `bytes` of the data.
    pub fn stored_in(&self, bytes: Range<u64>) -> StoredPart {
        StoredPart {
            codec: self.codec,
            name: self.part,
            unpacked: match self.packed {
                None => bytes.end - bytes.start,
                Some(_) => u64::try_from(self.bytes()).unwrap_or(u64::MAX),
            },
            bytes,
            width: self.width(),
            packed: self.packed.is_some(),
        }
    }
}

impl Coding {
    /// One codec, or that of keys and that of values.
    pub fn codecs(&self) -> Vec<TensorCodec> {
        match self {
            Self::One(codec) => vec![*codec],
            Self::Both(codec) => vec![codec.key, codec.value],
        }
    }

    /// Whether a codec takes keys before RoPE.
    pub fn needs_rope(&self) -> bool {
        self.codecs().iter().any(|codec| codec.packing().is_some_and(Packing::prerope))
    }

    /// The parts of a tensor of this type, in order; `shape`: that of keys and of values where it
    /// holds both.
    pub fn parts(&self, dtype: Dtype, shape: &[usize]) -> Vec<FilePart> {
        let prefixes: &[&str] = match self {
            Self::One(_) => &[""],
            Self::Both(_) => &PREFIXES,
        };
        // Sizes that overflow are found when the source's header is laid out.
        let values = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
        let geometry = Geometry::of_shape(shape);
        let source = if dtype == Dtype::BF16 { PartElement::Bf16 } else { PartElement::F16 };
        let codecs = self.codecs().into_iter().zip(prefixes).enumerate();
        codecs
            .flat_map(|(codec, (coding, prefix))| {
                let parts = coding.parts(values, &geometry, source).into_iter();
                parts.map(move |part| FilePart {
                    codec,
                    part: part.name,
                    name: format!("{prefix}{}", part.name.as_str()),
                    dtype: match part.element {
                        PartElement::F16 => Dtype::F16,
                        PartElement::Bf16 => Dtype::BF16,
                        PartElement::F32 => Dtype::F32,
                        PartElement::U8 | PartElement::E8m0 | PartElement::E4m3 => Dtype::U8,
                    },
                    shape: match part.name {
                        PartName::Values => shape.to_vec(),
                        _ => vec![part.content],
                    },
                    packed: None,
                })
            })
            .collect()
    }

    /// The names of its parts, in their order.
    pub fn part_names(&self) -> Vec<String> {
        self.parts(Dtype::F16, &[0]).into_iter().map(|part| part.name).collect()
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(codec) => write!(f, "{codec}"),
            Self::Both(codec) => write!(f, "{codec}"),
        }
    }
}

impl Coded {
    /// Channels of a block of two centres, where these are not what [`BlockRule::PowersOfTwo`] says.
    pub fn block(&self) -> Option<usize> {
        let is_cut = |codec: &TensorCodec| matches!(codec.packing(), Some(Packing::TwoCentre(_)));
        let dim = Geometry::of_shape(&self.view.shape).head_dim;
        let differs = BlockRule::differs(dim) && self.coding.codecs().iter().any(is_cut);
        BlockRule::Largest.blocks(dim).filter(|_| differs).map(|blocks| blocks.size)
    }

    /// With blocks of two centres cut by `rule`.
    pub fn cut_by(self, rule: BlockRule) -> Self {
        let coding = match self.coding {
            Coding::One(codec) => Coding::One(codec.cut_by(rule)),
            Coding::Both(Codec { key, value }) => {
                Coding::Both(Codec { key: key.cut_by(rule), value: value.cut_by(rule) })
            }
        };
        Self { coding, ..self }
    }

    /// Bytes of all parts of a tensor of this type: no more than a number can hold.
    pub fn stored_bytes(&self, dtype: Dtype) -> u128 {
        let parts = self.coding.parts(dtype, &self.view.shape);
        parts.iter().map(FilePart::bytes).fold(0, u128::saturating_add)
    }
}
