//! The manifest of a compressed file: the JSON under the metadata key `kvgauge`, and where
//! the parts of each tensor lie. `FORMAT.md` beside this file is the specification.

mod announced;
mod parts;
mod place;
mod record;
mod renamed;
mod rotary;

pub use parts::{Coded, Coding, Stored, StoredPart};
pub use record::{PackedParts, Record, is_float};

use super::layout::{AxisOrder, Layout};
use super::rotary::Rotations;
use super::safetensors::{Header, LENGTH_BYTES, METADATA, Tensor, TextMap};
use crate::codec::{CacheCodec, Codec, Distortion, RotaryEmbedding, TensorCodec};
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};

const KEY: &str = "kvgauge";
const FORMAT: &str = "kvgauge-kv";
/// Of files of symmetric INT4 and f16 alone, of all other codecs, of tensors that are not read as
/// they lie, of keys of other rotary embeddings than one over the whole head in halves, of two
/// centres whose blocks are not runs of a power of two, of scales in other engines' formats, of
/// codecs by layer, of codes that go by a trellis, of packed parts, and of codecs and of blocks of packed
/// parts that are newer than these.
const VERSIONS: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
/// The same for people.
const READ: &str = "1 to 10";
const NEWEST: u32 = VERSIONS[VERSIONS.len() - 1];
/// Every compressed file begins so, after the header's length; the checksum follows.
const OPENING: &str = r#"{"__metadata__":{"kvgauge":"{\"header_crc32\":\""#;
/// Stands in the checksum's place while the header's checksum is taken.
const BLANK: &str = "00000000";

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
    /// The rotary frequencies of keys taken before RoPE: radians a position, one a pair of channels.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    rope: Option<Vec<f32>>,
    /// The rotary embeddings of such keys, where that does not say them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    rotary: Option<Vec<RotaryEmbedding>>,
    /// How the compressed tensors are read, where it is not as they lie.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    layout: Option<AxisOrder>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    kv_axis: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    head_dim: Option<usize>,
    /// In the source's order.
    pub tensors: Vec<Record>,
}

/// The distortion of the decoded values; `None` where undefined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Root mean square error, in the unit of the values.
    #[serde(deserialize_with = "or_null")]
    pub rmse: Option<f64>,
    /// Signal-to-noise ratio, dB.
    #[serde(deserialize_with = "or_null")]
    pub snr_db: Option<f64>,
    /// Mean cosine similarity of head vectors.
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

/// The version of the format that files have: the first one that knows what they hold. `renamed`:
/// codecs go by the names of before the sixth. `newer`: blocks of packed parts are of forms that the ninth
/// does not have.
fn version_of(
    codec: &CacheCodec,
    layout: &Layout,
    has_rotary: bool,
    tensors: &[Record],
    renamed: bool,
    newer: bool,
) -> u32 {
    let sides = [codec.base().key, codec.base().value];
    let known_first = |codec: &TensorCodec| codec.packing().is_none_or(|p| p.as_int4().is_some());
    let [first, second, third, fourth, fifth, sixth, seventh, eighth, ninth, tenth] = VERSIONS;
    let has_one_of = |version| {
        let mut of_layers = codec.each().flat_map(|codec| [codec.key, codec.value]);
        of_layers.any(|side| side.format_version() == version)
    };
    match layout.is_default() {
        _ if newer || has_one_of(tenth) => tenth,
        _ if tensors.iter().any(|record| record.packed.is_some()) => ninth,
        _ if has_one_of(eighth) => eighth,
        _ if !codec.is_uniform() => seventh,
        _ if sides.iter().any(|side| renamed::is_of_sixth(side, renamed)) => sixth,
        _ if tensors.iter().any(|record| record.block.is_some()) => fifth,
        _ if has_rotary => fourth,
        false => third,
        true if sides.iter().all(known_first) => first,
        true => second,
    }
}

/// Whether a codec goes by this name. How its layers are listed may change: each of its parts has one
/// name for ever.
fn is_named_so(codec: &CacheCodec, name: &str) -> bool {
    let is_own = |part: &str| part.parse::<Codec>().is_ok_and(|codec| codec.to_string() == part);
    let names = name.split('+').map(|part| part.split_once('@').map_or(part, |(name, _)| name));
    codec.to_string() == name || !codec.is_uniform() && names.into_iter().all(is_own)
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
    /// For a source of `source_bytes` whose tensors are stored as `coded` says (`None`: unchanged).
    /// `rotations`: of the keys. Checksums, exponents and quality are filled in later.
    pub fn new(
        source: &Header,
        source_bytes: u64,
        codec: &CacheCodec,
        layout: Layout,
        coded: &[Option<Coded>],
        rotations: &Rotations,
    ) -> Self {
        // Nothing is said of axes that nobody looks at.
        let layout = if coded.iter().any(Option::is_some) { layout } else { Layout::default() };
        let record = |(tensor, coded): (&Tensor, &Option<Coded>)| {
            Record::new(&tensor.name, tensor.info.dtype, &tensor.info.shape, codec, coded.as_ref())
        };
        let mut manifest = Self {
            header_crc32: BLANK.into(),
            format: FORMAT.into(),
            version: 0,
            codec: codec.to_string(),
            source_bytes,
            quality: Quality::default(),
            metadata: source.metadata.clone(),
            rope: None,
            rotary: None,
            layout: (!layout.is_default()).then_some(layout.order),
            kv_axis: layout.kv_axis,
            head_dim: layout.head_dim,
            tensors: source.tensors.iter().zip(coded).map(record).collect(),
        };
        manifest.set_rotations(rotations);
        let has_rotary = manifest.rotary.is_some();
        manifest.version = version_of(codec, &layout, has_rotary, &manifest.tensors, false, false);
        manifest
    }

    /// How compressed tensors are read.
    pub fn layout(&self) -> Layout {
        let order = self.layout.unwrap_or_default();
        Layout { order, kv_axis: self.kv_axis, head_dim: self.head_dim }
    }

    /// How each tensor is stored, and the header of the file that holds them, as yet without
    /// metadata.
    pub fn stored(&self) -> Result<(Vec<Stored>, Header)> {
        let of_file: CacheCodec = self.codec.parse()?;
        if !is_named_so(&of_file, &self.codec) {
            return Err(Error::input(format!("codec {of_file} by another name: {:?}", self.codec)));
        }
        let layout = self.layout();
        layout.check()?;
        if self.layout.is_some() == layout.is_default() {
            return Err(Error::input(
                "layout: expected where it is not the usual one, and nowhere else",
            ));
        }
        let (has_rotary, renamed) = (self.rotary.is_some(), self.has_former_names());
        // What form its blocks are of shows when they are read.
        let newer = self.has_newer_blocks() && self.tensors.iter().any(|own| own.packed.is_some());
        let first = version_of(&of_file, &layout, has_rotary, &self.tensors, renamed, newer);
        if self.version != first {
            let version = self.version;
            let rotary = if has_rotary { ", rotary" } else { "" };
            return Err(Error::input(format!(
                "codec {of_file}, layout {layout}{rotary} in a file of version {version}"
            )));
        }
        let mut coded = Vec::with_capacity(self.tensors.len());
        for record in &self.tensors {
            if record.name == METADATA {
                return Err(Error::input(format!("a tensor of the name {METADATA}")));
            }
            let own = record.coded(&of_file, &layout);
            coded.push(own.map_err(|e| e.within(format!("tensor {:?}", record.name)))?);
        }
        if !layout.is_default() && coded.iter().all(Option::is_none) {
            return Err(Error::input(format!("layout {layout}: no tensor is read by it")));
        }
        self.check_rotations(&coded)?;
        place::place(&self.tensors, coded)
    }

    /// Bytes of the file up to its first tensor. They depend on names, shapes and codecs only:
    /// there is room for the longest numbers.
    pub fn room(&self, parts: &Header) -> Result<usize> {
        let widest = Some(-f64::from_bits(0x0010_0000_0000_0001));
        let mut longest = self.clone();
        longest.quality = Quality { rmse: widest, snr_db: widest, cosine_similarity: widest };
        longest.tensors.iter_mut().for_each(Record::longest);
        Ok(longest.embed(parts)?.to_bytes(0)?.len())
    }

    /// No less than [`Manifest::room`] will be once any parts of these tensors are packed. `parts`: where none
    /// is.
    pub fn most_room(&self, stored: &[Stored], parts: &Header) -> Result<usize> {
        /// Of a part's shape and offsets.
        const NUMBERS: usize = 3 * 20;
        let mut longest = self.clone();
        longest.version = NEWEST;
        for (record, stored) in longest.tensors.iter_mut().zip(stored) {
            let bytes = stored.parts.iter().map(|part| part.unpacked).collect();
            record.packed = Some(PackedParts { bytes, crc32: BLANK.into() });
        }
        Ok((longest.room(parts)? + NUMBERS * parts.tensors.len()).next_multiple_of(8))
    }

    /// Whether blocks of packed parts may be of forms that version 9 does not have.
    pub fn has_newer_blocks(&self) -> bool {
        self.version >= 10
    }

    /// Says which parts of each tensor are packed (`None`: none), and whether blocks of them are of forms
    /// that version 9 does not have.
    pub fn set_packed(&mut self, packed: Vec<Option<PackedParts>>, newer: bool) -> Result<()> {
        for (record, packed) in self.tensors.iter_mut().zip(packed) {
            record.packed = packed;
        }
        let (codec, has_rotary) = (self.codec.parse()?, self.rotary.is_some());
        self.version = version_of(&codec, &self.layout(), has_rotary, &self.tensors, false, newer);
        Ok(())
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
                "expected format {FORMAT} version {READ}, found {:?} version {}",
                stamp.format, stamp.version
            ))
            .hint(format!(
                "this is kvgauge {}, which reads versions {READ}; a newer one made the file",
                env!("CARGO_PKG_VERSION")
            )));
        }
        let mut manifest: Self = serde_json::from_str(json).map_err(parse)?;
        manifest.rename().map_err(|e| damaged(format!("header: {e}")))?;
        let (stored, parts) = manifest.stored().map_err(|e| damaged(format!("header: {e}")))?;
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

/// The error for what no writer writes.
pub fn damaged(what: impl std::fmt::Display) -> Error {
    Error::input(format!("damaged: {what}"))
        .hint("the file was changed or cut since it was made: make it again")
}

/// A CRC-32 as the manifest writes it.
pub fn hex(crc32: u32) -> String {
    format!("{crc32:08x}")
}
