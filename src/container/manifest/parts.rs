//! The stored parts of tensors: what they are called, and where they lie.

use super::super::layout::Form;
use super::super::safetensors::Header;
use super::Record;
use crate::codec::{Codec, Geometry, Packing, PartType, TensorCodec};
use crate::error::Result;
use safetensors::Dtype;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

/// What codes a tensor.
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
    pub form: Form,
}

/// How one tensor is stored, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// `None`: unchanged.
    pub coded: Option<Coded>,
    /// Bytes in the data, in the order the checksum takes them: those of [`Coding::parts`].
    pub parts: Vec<Range<u64>>,
}

/// The two tensors that the INT4 codec makes of one are [`Stored::parts`] in this order.
pub const SCALES: usize = 0;
pub const CODES: usize = 1;

const VALUES_PART: &str = "values";
/// In the order of [`crate::codec::Part::ALL`].
const PAYLOAD_PARTS: [&str; 5] = ["sinks", "means", "scales", "minima", "codes"];
/// Before the parts of keys, and of values, of a tensor that holds both.
const SIDES: [&str; 2] = ["key.", "value."];

/// A part of a compressed tensor.
struct PartOf {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Coding {
    /// Of each side: one codec, or that of keys and that of values.
    pub fn sides(&self) -> Vec<TensorCodec> {
        match self {
            Self::One(codec) => vec![*codec],
            Self::Both(codec) => vec![codec.key, codec.value],
        }
    }

    pub fn needs_rope(&self) -> bool {
        self.sides().iter().any(|codec| codec.packing().is_some_and(Packing::prerope))
    }

    /// Those of a tensor of this type, each side of this shape, in order.
    fn parts(&self, dtype: Dtype, shape: &[usize]) -> Vec<PartOf> {
        let of_side = |prefix: &str, codec: TensorCodec| match codec {
            TensorCodec::F16 => vec![PartOf {
                name: format!("{prefix}{VALUES_PART}"),
                dtype: Dtype::F16,
                shape: shape.to_vec(),
            }],
            TensorCodec::Packed(packing) | TensorCodec::Noise(packing) => {
                payload_parts(prefix, &packing, dtype, shape)
            }
        };
        match self {
            Self::One(codec) => of_side("", *codec),
            Self::Both(codec) => {
                let [key, value] = SIDES;
                [of_side(key, codec.key), of_side(value, codec.value)]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        }
    }

    /// What its parts are called, in their order.
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
        let bytes = |part: &PartOf| {
            let values = part.shape.iter().fold(1u128, |n, d| n.saturating_mul(*d as u128));
            values.saturating_mul(part.dtype.bitsize() as u128) / 8
        };
        let parts = self.coding.parts(dtype, &self.form.shape);
        parts.iter().map(bytes).fold(0, u128::saturating_add)
    }
}

/// The parts of a payload, each with its name, type and elements.
fn payload_parts(prefix: &str, packing: &Packing, dtype: Dtype, shape: &[usize]) -> Vec<PartOf> {
    // Sizes that overflow are found when the source's header is laid out.
    let values = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
    let parts = packing.parts(values, &Geometry::of_shape(shape)).into_iter();
    let part = |(part, stored, count)| PartOf {
        name: format!("{prefix}{}", PAYLOAD_PARTS[part as usize]),
        dtype: match stored {
            PartType::Byte => Dtype::U8,
            PartType::SourceHalf if dtype == Dtype::BF16 => Dtype::BF16,
            PartType::Half | PartType::SourceHalf => Dtype::F16,
        },
        shape: vec![count],
    };
    parts.map(part).collect()
}

/// Where the parts of all tensors lie, and the header of the file that holds them, as yet without
/// metadata.
pub fn place(records: &[Record], coded: Vec<Option<Coded>>) -> Result<(Vec<Stored>, Header)> {
    let dots = ".".repeat(dots(records, &coded));
    // Of which tensor each is, and which of its parts.
    let mut parts: Vec<(usize, usize, PartOf)> = Vec::new();
    for (owner, (record, coded)) in records.iter().zip(&coded).enumerate() {
        match coded {
            None => {
                let (name, shape) = (record.name.clone(), record.shape.clone());
                parts.push((owner, 0, PartOf { name, dtype: record.dtype, shape }));
            }
            Some(Coded { coding, form }) => {
                let own = coding.parts(record.dtype, &form.shape).into_iter().enumerate();
                parts.extend(own.map(|(index, part)| {
                    let name = format!("{}{dots}{}", record.name, part.name);
                    (owner, index, PartOf { name, ..part })
                }));
            }
        }
    }
    let mut stored: Vec<Stored> =
        coded.into_iter().map(|coded| Stored { coded, parts: Vec::new() }).collect();
    for (owner, index, _) in &parts {
        stored[*owner].parts.resize(index + 1, 0..0);
    }
    // Wide types first: every tensor is aligned, as the safetensors library does it.
    parts.sort_by_key(|(_, _, part)| Reverse(part.dtype.bitsize()));
    let mut header = Header::default();
    for (owner, index, part) in parts {
        let (start, end) = header.push(part.name, part.dtype, part.shape)?.info.data_offsets;
        stored[owner].parts[index] = start as u64..end as u64;
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
    let endings: Vec<String> = (["", SIDES[0], SIDES[1]].iter())
        .flat_map(|side| {
            let parts = PAYLOAD_PARTS.into_iter().chain([VALUES_PART]);
            parts.map(move |part| format!("{side}{part}"))
        })
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
