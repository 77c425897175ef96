//! The stored parts of tensors: what they are called, and where they lie.

use super::super::layout::TensorView;
use super::super::safetensors::Header;
use super::Record;
use crate::codec::{Codec, Geometry, Packing, PartElement, PartName, TensorCodec};
use crate::error::{Error, Result};
use safetensors::Dtype;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

/// The codec of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coding {
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
}

impl Stored {
    /// The place of the part of that name of one of [`Coding::codecs`].
    pub fn part(&self, codec: usize, name: PartName) -> Result<&StoredPart> {
        let mut parts = self.parts.iter();
        let found = parts.find(|part| (part.codec, part.name) == (codec, name));
        found.ok_or_else(|| Error::system(format!("no part {}", name.as_str())))
    }
}

/// Before the parts of keys, and of values, of a tensor that holds both.
const PREFIXES: [&str; 2] = ["key.", "value."];

/// A part of a tensor as a file has it.
struct FilePart {
    codec: usize,
    part: PartName,
    /// Behind that of the tensor.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Coding {
    /// One codec, or that of keys and that of values.
    pub fn codecs(&self) -> Vec<TensorCodec> {
        match self {
            Self::One(codec) => vec![*codec],
            Self::Both(codec) => vec![codec.key, codec.value],
        }
    }

    pub fn needs_rope(&self) -> bool {
        self.codecs().iter().any(|codec| codec.packing().is_some_and(Packing::prerope))
    }

    /// The parts of a tensor of this type, in order; `shape`: that of keys and of values where it
    /// holds both.
    fn parts(&self, dtype: Dtype, shape: &[usize]) -> Vec<FilePart> {
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
                        PartElement::U8 => Dtype::U8,
                    },
                    shape: match part.name {
                        PartName::Values => shape.to_vec(),
                        _ => vec![part.content],
                    },
                })
            })
            .collect()
    }

    /// The names of its parts, in their order.
    fn part_names(&self) -> Vec<String> {
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
    /// Bytes of all parts of a tensor of this type: no more than a number can hold.
    pub fn stored_bytes(&self, dtype: Dtype) -> u128 {
        let bytes = |part: &FilePart| {
            let values = part.shape.iter().fold(1u128, |n, d| n.saturating_mul(*d as u128));
            values.saturating_mul(part.dtype.bitsize() as u128) / 8
        };
        let parts = self.coding.parts(dtype, &self.view.shape);
        parts.iter().map(bytes).fold(0, u128::saturating_add)
    }
}

/// Where the parts of all tensors lie, and the header of the file that holds them, as yet without
/// metadata.
pub fn place(records: &[Record], coded: Vec<Option<Coded>>) -> Result<(Vec<Stored>, Header)> {
    let dots = ".".repeat(dots(records, &coded));
    // With the tensor that each is of.
    let mut parts: Vec<(usize, FilePart)> = Vec::new();
    for (owner, (record, coded)) in records.iter().zip(&coded).enumerate() {
        match coded {
            None => {
                let (name, shape) = (record.name.clone(), record.shape.clone());
                let (codec, part) = (0, PartName::Values);
                parts.push((owner, FilePart { codec, part, name, dtype: record.dtype, shape }));
            }
            Some(Coded { coding, view }) => {
                let own = coding.parts(record.dtype, &view.shape).into_iter();
                parts.extend(own.map(|part| {
                    let name = format!("{}{dots}{}", record.name, part.name);
                    (owner, FilePart { name, ..part })
                }));
            }
        }
    }
    let mut stored: Vec<Stored> =
        coded.into_iter().map(|coded| Stored { coded, parts: Vec::new() }).collect();
    for (owner, FilePart { codec, part, .. }) in &parts {
        stored[*owner].parts.push(StoredPart { codec: *codec, name: *part, bytes: 0..0 });
    }
    // Wide types first: every tensor is aligned, as the safetensors library does it.
    parts.sort_by_key(|(_, part)| Reverse(part.dtype.bitsize()));
    let mut header = Header::default();
    for (owner, FilePart { codec, part, name, dtype, shape }) in parts {
        let (start, end) = header.push(name, dtype, shape)?.info.data_offsets;
        let mut own = stored[owner].parts.iter_mut();
        if let Some(place) = own.find(|own| (own.codec, own.name) == (codec, part)) {
            place.bytes = start as u64..end as u64;
        }
    }
    Ok((stored, header))
}

/// How many dots stand before the names of parts: the fewest with which no part has the name of a
/// tensor that is stored unchanged, as a source with `x` and `x.codes` would have it.
fn dots(records: &[Record], coded: &[Option<Coded>]) -> usize {
    let all = || records.iter().zip(coded);
    let compressed: HashMap<&str, Coding> = all()
        .filter_map(|(record, coded)| Some((record.name.as_str(), coded.as_ref()?.coding)))
        .collect();
    let lengths: HashSet<usize> = compressed.keys().map(|name| name.len()).collect();
    let endings: Vec<String> = (["", PREFIXES[0], PREFIXES[1]].iter())
        .flat_map(|prefix| PartName::ALL.map(|part| format!("{prefix}{}", part.as_str())))
        .collect();
    let mut taken = HashSet::new();
    for (record, _) in all().filter(|(_, coded)| coded.is_none()) {
        for part in &endings {
            let Some(mut base) = record.name.strip_suffix(part.as_str()) else { continue };
            let mut dots = 0;
            while let Some(shorter) = base.strip_suffix('.') {
                (base, dots) = (shorter, dots + 1);
                // Most are ruled out by their length, without a look at the whole name.
                let owner = lengths.get(&base.len()).and_then(|_| compressed.get(base));
                if owner.is_some_and(|coding| coding.part_names().contains(part)) {
                    taken.insert(dots);
                }
            }
        }
    }
    (1..).find(|dots| !taken.contains(dots)).unwrap_or(1)
}
