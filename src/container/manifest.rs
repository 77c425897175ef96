//! What a compressed file says of itself: the JSON under the metadata key `kvgauge`, and where
//! the parts of each tensor lie. `FORMAT.md` beside this file is the specification.

use super::safetensors::{Header, LENGTH_BYTES, METADATA, TextMap};
use crate::codec::{Codec, Distortion, Geometry, Packing, PartType, TensorCodec};
use crate::error::{Error, Result};
use safetensors::Dtype;
use serde::{Deserialize, Deserializer, Serialize};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

const KEY: &str = "kvgauge";
const FORMAT: &str = "kvgauge-kv";
/// Of files of symmetric INT4 and f16 alone, and of all others.
const VERSIONS: [u32; 2] = [1, 2];
/// Every compressed file begins so, after the header's length; the checksum follows.
const OPENING: &str = r#"{"__metadata__":{"kvgauge":"{\"header_crc32\":\""#;
/// Stands in the checksum's place while the header's checksum is taken.
const BLANK: &str = "00000000";
/// How a tensor that is stored as it was names its codec.
const UNCHANGED: &str = "none";
/// Radians a position, at most: no angle of them is infinite.
const MOST_FREQUENT: f32 = 65536.0;
/// What an f32 tensor can need at most, with room.
pub const EXPONENTS: std::ops::RangeInclusive<i32> = -200..=200;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    header_crc32: String,
    format: String,
    version: u32,
    /// As asked for.
    pub codec: String,
    /// The source file's size, bytes.
    pub source_bytes: u64,
    /// Over all compressed tensors, measured when the file was made.
    pub quality: Quality,
    /// The source's own.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub metadata: Option<TextMap>,
    /// What keys taken before RoPE were rotated by: radians a position, one a pair of channels.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub rope: Option<Vec<f32>>,
    /// In the source's order.
    pub tensors: Vec<Record>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    #[serde(deserialize_with = "or_null")]
    pub rmse: Option<f64>,
    #[serde(deserialize_with = "or_null")]
    pub snr_db: Option<f64>,
    #[serde(deserialize_with = "or_null")]
    pub cosine_similarity: Option<f64>,
}

/// A field that has to be there and may be null.
fn or_null<'de, D: Deserializer<'de>>(json: D) -> std::result::Result<Option<f64>, D::Error> {
    Option::deserialize(json)
}

/// A field that may be left out and must not be null.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    json: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// One tensor of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Of its stored parts, one after the other; eight hexadecimal digits.
    pub crc32: String,
    /// Left out where it is the file's and that is one for keys and values.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    codec: Option<String>,
    /// Of a tensor with codes: what is stored of it is divided by two to this power.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub exponent: Option<i32>,
}

/// How one tensor is stored, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// `None`: unchanged.
    pub codec: Option<TensorCodec>,
    /// Bytes in the data, in the order the checksum takes them: those of [`part_names`].
    pub parts: Vec<Range<u64>>,
}

/// The two tensors that the INT4 codec makes of one are [`Stored::parts`] in this order.
pub const SCALES: usize = 0;
pub const CODES: usize = 1;

const VALUES_PART: &str = "values";
/// In the order of [`crate::codec::Part::ALL`].
const PAYLOAD_PARTS: [&str; 5] = ["sinks", "means", "scales", "minima", "codes"];

/// The version of the format that files of this codec have: the first one that knows it.
fn version_of(codec: &Codec) -> u32 {
    let known_first = |codec: &TensorCodec| codec.packing().is_none_or(|p| p.as_int4().is_some());
    VERSIONS[usize::from(![codec.key, codec.value].iter().all(known_first))]
}

/// The parts of a payload, each with its name, type and elements.
fn payload_parts(
    packing: &Packing,
    dtype: Dtype,
    shape: &[usize],
) -> impl Iterator<Item = (&'static str, Dtype, usize)> {
    let values = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
    let parts = packing.parts(values, &Geometry::of_shape(shape)).into_iter();
    parts.map(move |(part, stored, count)| {
        let dtype = match stored {
            PartType::Byte => Dtype::U8,
            PartType::SourceHalf if dtype == Dtype::BF16 => Dtype::BF16,
            PartType::Half | PartType::SourceHalf => Dtype::F16,
        };
        (PAYLOAD_PARTS[part as usize], dtype, count)
    })
}

/// What the parts of a compressed tensor are called, in their order.
fn part_names(codec: &TensorCodec) -> Vec<&'static str> {
    match codec {
        TensorCodec::F16 => vec![VALUES_PART],
        TensorCodec::Packed(scheme) | TensorCodec::Noise(scheme) => {
            payload_parts(scheme, Dtype::F16, &[0]).map(|(name, _, _)| name).collect()
        }
    }
}

impl From<Distortion> for Quality {
    fn from(distortion: Distortion) -> Self {
        Self {
            rmse: distortion.rmse,
            snr_db: distortion.snr_db,
            cosine_similarity: distortion.cosine,
        }
    }
}

impl Manifest {
    /// For a source of `source_bytes` whose tensors are stored by `codecs` (`None`: unchanged).
    /// `rope`: see [`Manifest::rope`]. Checksums, exponents and quality are filled in later.
    pub fn new(
        source: &Header,
        source_bytes: u64,
        codec: Codec,
        codecs: &[Option<TensorCodec>],
        rope: Option<Vec<f32>>,
    ) -> Self {
        let name = codec.to_string();
        let tensors = source.tensors.iter().zip(codecs).map(|(tensor, own)| Record {
            name: tensor.name.clone(),
            dtype: tensor.info.dtype,
            shape: tensor.info.shape.clone(),
            crc32: BLANK.into(),
            codec: match own {
                None => Some(UNCHANGED.into()),
                Some(own) => (codec.key != codec.value).then(|| own.to_string()),
            },
            exponent: matches!(own, Some(TensorCodec::Packed(_))).then_some(0),
        });
        let tensors = tensors.collect();
        Self {
            header_crc32: BLANK.into(),
            format: FORMAT.into(),
            version: version_of(&codec),
            codec: name,
            source_bytes,
            quality: Quality::default(),
            metadata: source.metadata.clone(),
            rope,
            tensors,
        }
    }

    /// How each tensor is stored, and the header of the file that holds them, as yet without
    /// metadata.
    pub fn layout(&self) -> Result<(Vec<Stored>, Header)> {
        let of_file: Codec = self.codec.parse()?;
        if of_file.to_string() != self.codec {
            return Err(Error::input(format!("codec {of_file} by another name: {:?}", self.codec)));
        }
        if self.version != version_of(&of_file) {
            let version = self.version;
            return Err(Error::input(format!("codec {of_file} in a file of version {version}")));
        }
        let stores_nothing = |codec| matches!(codec, TensorCodec::Noise(_));
        if stores_nothing(of_file.key) || stores_nothing(of_file.value) {
            return Err(Error::input(format!("codec {of_file}: stores nothing")));
        }
        let mut codecs = Vec::with_capacity(self.tensors.len());
        for record in &self.tensors {
            if record.name == METADATA {
                return Err(Error::input(format!("a tensor of the name {METADATA}")));
            }
            let codec = record.codec(&of_file);
            codecs.push(codec.map_err(|e| e.within(format!("tensor {:?}", record.name)))?);
        }
        let needs = |codec: &TensorCodec| codec.packing().is_some_and(Packing::prerope);
        let needed = codecs.iter().flatten().any(needs);
        if self.rope.is_some() != needed {
            let found = if needed { "none" } else { "one that no tensor needs" };
            return Err(Error::input(format!(
                "rope: expected where a tensor has prerope and nowhere else, found {found}"
            )));
        }
        // One that is no number is not within the limit.
        let angular = |frequency: &f32| frequency.abs() <= MOST_FREQUENT;
        if !self.rope.iter().flatten().all(angular) {
            let most = MOST_FREQUENT;
            return Err(Error::input(format!("rope: expected at most {most} radians a position")));
        }
        let dots = ".".repeat(self.dots(&codecs));
        let mut parts: Vec<Part> = (self.tensors.iter().zip(&codecs).enumerate())
            .flat_map(|(owner, (record, codec))| record.parts(owner, *codec, &dots))
            .collect();
        // Wide types first: every tensor is aligned, as the safetensors library does it.
        parts.sort_by_key(|part| Reverse(part.dtype.bitsize()));
        let parts_of = |codec: &TensorCodec| part_names(codec).len();
        let mut stored: Vec<Stored> = (codecs.iter())
            .map(|codec| Stored {
                codec: *codec,
                parts: vec![0..0; codec.as_ref().map_or(1, parts_of)],
            })
            .collect();
        let mut header = Header::default();
        for part in parts {
            let (start, end) = header.push(part.name, part.dtype, part.shape)?.info.data_offsets;
            stored[part.owner].parts[part.index] = start as u64..end as u64;
        }
        Ok((stored, header))
    }

    /// How many dots stand before the names of parts: the fewest with which no part has the name
    /// of a tensor that is stored unchanged, as a source with `x` and `x.codes` would have it.
    fn dots(&self, codecs: &[Option<TensorCodec>]) -> usize {
        let all = || self.tensors.iter().zip(codecs);
        let compressed: HashMap<&str, TensorCodec> =
            all().filter_map(|(record, codec)| Some((record.name.as_str(), (*codec)?))).collect();
        let lengths: HashSet<usize> = compressed.keys().map(|name| name.len()).collect();
        let mut taken = HashSet::new();
        for (record, _) in all().filter(|(_, codec)| codec.is_none()) {
            for part in PAYLOAD_PARTS.into_iter().chain([VALUES_PART]) {
                let Some(mut base) = record.name.strip_suffix(part) else { continue };
                let mut dots = 0;
                while let Some(shorter) = base.strip_suffix('.') {
                    (base, dots) = (shorter, dots + 1);
                    // Most are ruled out by their length, without a look at the whole name.
                    let owner = lengths.get(&base.len()).and_then(|_| compressed.get(base));
                    if owner.is_some_and(|codec| part_names(codec).contains(&part)) {
                        taken.insert(dots);
                    }
                }
            }
        }
        (1..).find(|dots| !taken.contains(dots)).unwrap_or(1)
    }

    /// Bytes of the file up to its first tensor. They depend on names, shapes and codecs only:
    /// there is room for the longest numbers.
    pub fn room(&self, parts: &Header) -> Result<usize> {
        let widest = Some(-f64::from_bits(0x0010_0000_0000_0001));
        let mut longest = self.clone();
        longest.quality = Quality { rmse: widest, snr_db: widest, cosine_similarity: widest };
        for exponent in longest.tensors.iter_mut().filter_map(|record| record.exponent.as_mut()) {
            *exponent = *EXPONENTS.start();
        }
        Ok(longest.embed(parts)?.to_bytes(0)?.len())
    }

    /// The file up to its first tensor, which begins after `room` bytes.
    pub fn to_bytes(&self, parts: &Header, room: usize) -> Result<Vec<u8>> {
        let mut bytes = self.embed(parts)?.to_bytes(room)?;
        let crc32 = hex(crc32fast::hash(&bytes));
        bytes[LENGTH_BYTES + OPENING.len()..][..BLANK.len()].copy_from_slice(crc32.as_bytes());
        Ok(bytes)
    }

    fn embed(&self, parts: &Header) -> Result<Header> {
        let json =
            serde_json::to_string(self).map_err(|e| Error::system(format!("manifest: {e}")))?;
        Ok(Header {
            metadata: Some([(KEY.to_string(), json)].into()),
            tensors: parts.tensors.clone(),
        })
    }

    /// Format and version, for people.
    pub fn format_name(&self) -> String {
        format!("{} {}", self.format, self.version)
    }

    /// Whether a file is compressed, by its header, as parsed and as `bytes`. One that was, and
    /// begins otherwise now, is damaged and not plain.
    pub fn announced(header: &Header, bytes: &[u8]) -> Result<bool> {
        if bytes.get(LENGTH_BYTES..).is_some_and(|json| json.starts_with(OPENING.as_bytes())) {
            return Ok(true);
        }
        let format = format!(r#""format":"{FORMAT}""#);
        if header.metadata.iter().flatten().any(|(_, text)| text.contains(&format)) {
            return Err(damaged("the header does not begin as that of a compressed file"));
        }
        Ok(false)
    }

    /// Reads and checks a compressed file's header, given as parsed and as `bytes`.
    pub fn from_header(header: &Header, mut bytes: Vec<u8>) -> Result<(Self, Vec<Stored>)> {
        let at = LENGTH_BYTES + OPENING.len();
        if !Self::announced(header, &bytes)? {
            return Err(Error::input("not a file made by kv-compress")
                .hint("it holds plain tensors already; only compressed files are decompressed"));
        }
        let found = bytes.get(at..at + BLANK.len()).map(<[u8]>::to_vec).unwrap_or_default();
        if let Some(place) = bytes.get_mut(at..at + BLANK.len()) {
            place.copy_from_slice(BLANK.as_bytes());
        }
        let expected = hex(crc32fast::hash(&bytes));
        if found != expected.as_bytes() {
            let found = String::from_utf8_lossy(&found).into_owned();
            return Err(damaged(format!(
                "header: expected the checksum {expected}, found {found:?}"
            )));
        }
        let only = header.metadata.as_ref().filter(|metadata| metadata.len() == 1);
        let json = only.and_then(|metadata| metadata.get(KEY));
        let json = json.ok_or_else(|| damaged("header: expected one entry, kvgauge"))?;
        // The version first: a later one may have fields that this one does not know.
        #[derive(Deserialize)]
        struct Stamp {
            format: String,
            version: u32,
        }
        let parse = |e: serde_json::Error| damaged(format!("header: {e}"));
        let stamp: Stamp = serde_json::from_str(json).map_err(parse)?;
        if stamp.format != FORMAT || !VERSIONS.contains(&stamp.version) {
            return Err(Error::input(format!(
                "expected format {FORMAT} version 1 or 2, found {:?} version {}",
                stamp.format, stamp.version
            ))
            .hint(format!("kvgauge {} reads versions 1 and 2", env!("CARGO_PKG_VERSION"))));
        }
        let manifest: Self = serde_json::from_str(json).map_err(parse)?;
        let (stored, parts) = manifest.layout().map_err(|e| damaged(format!("header: {e}")))?;
        if parts.tensors != header.tensors {
            return Err(damaged("header: tensors and kvgauge entry do not agree"));
        }
        Ok((manifest, stored))
    }

    /// The header of the file that was compressed.
    pub fn source_header(&self) -> Result<Header> {
        let mut header = Header { metadata: self.metadata.clone(), tensors: Vec::new() };
        for record in &self.tensors {
            header.push(record.name.clone(), record.dtype, record.shape.clone())?;
        }
        Ok(header)
    }
}

/// What no writer writes.
pub fn damaged(what: impl std::fmt::Display) -> Error {
    Error::input(format!("damaged: {what}"))
        .hint("the file was changed or cut since it was made: make it again")
}

/// A tensor of the compressed file.
struct Part {
    /// Index of the tensor it belongs to, and which of its parts it is.
    owner: usize,
    index: usize,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Record {
    /// `of_file`: what holds where the record names none.
    fn codec(&self, of_file: &Codec) -> Result<Option<TensorCodec>> {
        let one_for_all = of_file.key == of_file.value;
        let codec = match self.codec.as_deref() {
            Some(UNCHANGED) if self.exponent.is_none() => return Ok(None),
            None if one_for_all => of_file.key,
            Some(own) if !one_for_all && of_file.key.to_string() == own => of_file.key,
            Some(own) if !one_for_all && of_file.value.to_string() == own => of_file.value,
            own => return Err(Error::input(format!("codec {own:?} in a file of {of_file}"))),
        };
        if !is_float(self.dtype) {
            return Err(Error::input(format!("codec {codec} for a tensor of {:?}", self.dtype)));
        }
        // What follows multiplies them, and by 8 bits.
        let size = self.shape.iter().try_fold(1usize, |size, d| size.checked_mul(*d));
        if !self.shape.contains(&0) && size.is_none_or(|size| size >= usize::MAX / 64) {
            return Err(Error::input(format!("shape {:?}: too large", self.shape)));
        }
        match (codec, self.exponent) {
            (TensorCodec::Packed(_), Some(e)) if EXPONENTS.contains(&e) => Ok(Some(codec)),
            (TensorCodec::F16, None) => Ok(Some(codec)),
            (_, exponent) => Err(Error::input(format!("codec {codec} with exponent {exponent:?}"))),
        }
    }

    fn parts(&self, owner: usize, codec: Option<TensorCodec>, dots: &str) -> Vec<Part> {
        let part = |index: usize, name: &str, dtype, shape| Part {
            owner,
            index,
            name: format!("{}{dots}{name}", self.name),
            dtype,
            shape,
        };
        match codec {
            None => vec![Part {
                owner,
                index: 0,
                name: self.name.clone(),
                dtype: self.dtype,
                shape: self.shape.clone(),
            }],
            Some(TensorCodec::F16) => vec![part(0, VALUES_PART, Dtype::F16, self.shape.clone())],
            // Sizes that overflow are found when the source's header is laid out.
            Some(TensorCodec::Packed(scheme) | TensorCodec::Noise(scheme)) => {
                payload_parts(&scheme, self.dtype, &self.shape)
                    .enumerate()
                    .map(|(index, (name, dtype, count))| part(index, name, dtype, vec![count]))
                    .collect()
            }
        }
    }

    /// Its codec, for people.
    pub fn codec_name<'a>(&'a self, of_file: &'a str) -> &'a str {
        self.codec.as_deref().unwrap_or(of_file)
    }
}

/// The types that are compressed; all others are stored as they are.
pub fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32)
}

/// A CRC-32 as the manifest writes it.
pub fn hex(crc32: u32) -> String {
    format!("{crc32:08x}")
}
