//! The safetensors container: length of the header (u64, little-endian), header (JSON), data.
//!
//! Types and checks of the header are those of the `safetensors` crate. Read here so that the
//! order of tensors is kept and a name given twice is an error; written here so that equal input
//! gives equal bytes, which a hash map's order does not.

use super::source::Source;
use crate::error::{Error, Result};
use crate::sniff::{self, Kind};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashSet};

/// Bytes of the header's length.
pub const LENGTH_BYTES: usize = 8;
/// The one entry of a header that is no tensor.
pub const METADATA: &str = "__metadata__";
/// As the safetensors library limits it.
const MAX_HEADER: u64 = 100_000_000;

/// The free text a file carries, sorted by key.
pub type TextMap = BTreeMap<String, String>;

/// A header: what a file holds and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    pub metadata: Option<TextMap>,
    /// In the order of their data.
    pub tensors: Vec<Tensor>,
}

/// One tensor of a header.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    /// dtype, shape, and first and last byte + 1 in the data.
    pub info: TensorInfo,
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        fn parts(tensor: &Tensor) -> (&str, Dtype, &[usize], (usize, usize)) {
            let TensorInfo { dtype, shape, data_offsets } = &tensor.info;
            (&tensor.name, *dtype, shape, *data_offsets)
        }
        parts(self) == parts(other)
    }
}

impl Header {
    /// Reads and checks the header of `source`: every byte of the data belongs to one tensor.
    /// Returns its bytes too, the length included.
    pub fn read(source: &Source) -> Result<(Self, Vec<u8>)> {
        let broken = |what: String| {
            let path = source.path().display();
            match foreign(source) {
                // A healthy file of another kind must not be called damaged.
                Some(kind) => {
                    Error::input(format!("{path}: not a safetensors file, but {}", kind.name()))
                        .hint(kind.hint())
                }
                None => Error::input(format!("{path}: not a safetensors file: {what}")).hint(
                    "is it safetensors, and was it cut short? compare its size with the original's",
                ),
            }
        };
        if source.len() < LENGTH_BYTES as u64 {
            return Err(broken(format!("expected at least 8 bytes, found {}", source.len())));
        }
        let mut length = [0; LENGTH_BYTES];
        source.read_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        let room = source.len() - LENGTH_BYTES as u64;
        if length > room.min(MAX_HEADER) {
            let most = room.min(MAX_HEADER);
            return Err(broken(format!(
                "expected a header of at most {most} bytes, found {length}"
            )));
        }
        // Fits: at most MAX_HEADER.
        let mut bytes = vec![0; LENGTH_BYTES + length as usize];
        source.read_at(&mut bytes, 0)?;
        let header = Self::parse(&bytes[LENGTH_BYTES..]).map_err(broken)?;
        let found = room - length;
        if header.data_len() != found {
            let expected = header.data_len();
            return Err(broken(format!("expected {expected} bytes of tensors, found {found}")));
        }
        Ok((header, bytes))
    }

    /// The same of a whole file in memory; returns how many bytes the header has.
    pub fn of_bytes(name: &str, file: &[u8]) -> Result<(Self, usize)> {
        let broken = |what: String| Error::input(format!("{name}: not a safetensors file: {what}"));
        let (length, rest) = file
            .split_first_chunk::<LENGTH_BYTES>()
            .ok_or_else(|| broken("expected at least 8 bytes".into()))?;
        let length = u64::from_le_bytes(*length);
        let json = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let json = json.ok_or_else(|| broken(format!("expected a header of {length} bytes")))?;
        let header = Self::parse(json).map_err(broken)?;
        let (expected, found) = (header.data_len(), (rest.len() - json.len()) as u64);
        if expected != found {
            return Err(broken(format!("expected {expected} bytes of tensors, found {found}")));
        }
        Ok((header, LENGTH_BYTES + json.len()))
    }

    fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        let text = std::str::from_utf8(json).map_err(|e| format!("header: {e}"))?;
        let mut header: Self = serde_json::from_str(text).map_err(|e| format!("header: {e}"))?;
        // Stable: tensors without data keep the header's order.
        header.tensors.sort_by_key(|tensor| tensor.info.data_offsets);
        let pairs = header.tensors.iter().map(|t| (t.name.clone(), t.info.clone())).collect();
        Metadata::new(None, pairs).map_err(|e| format!("header: {e}"))?;
        Ok(header)
    }

    /// Adds a tensor whose data follow those of the others. An error where its values are more
    /// than a file can hold, or fill no whole bytes.
    pub fn push(&mut self, name: String, dtype: Dtype, shape: Vec<usize>) -> Result<&Tensor> {
        let start = self.tensors.last().map_or(0, |tensor| tensor.info.data_offsets.1);
        let values = shape.iter().try_fold(1usize, |values, d| values.checked_mul(*d));
        let bits = values.and_then(|values| values.checked_mul(dtype.bitsize()));
        let bytes = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
        let Some(end) = bytes.and_then(|bytes| start.checked_add(bytes)) else {
            return Err(Error::input(format!(
                "tensor {name}: {dtype:?} of shape {shape:?} fits no file"
            ))
            .hint("a file holds whole bytes, and no more than it can count"));
        };
        let info = TensorInfo { dtype, shape, data_offsets: (start, end) };
        self.tensors.push(Tensor { name, info });
        Ok(&self.tensors[self.tensors.len() - 1])
    }

    /// Bytes of all tensors.
    pub fn data_len(&self) -> u64 {
        self.tensors.last().map_or(0, |tensor| tensor.info.data_offsets.1 as u64)
    }

    /// The file up to its first tensor: length, JSON, spaces up to a multiple of eight bytes
    /// and up to `least` bytes.
    pub fn to_bytes(&self, least: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; LENGTH_BYTES];
        serde_json::to_writer(&mut bytes, self)
            .map_err(|e| Error::system(format!("header: {e}")))?;
        bytes.resize(bytes.len().next_multiple_of(8).max(least), b' ');
        let length = (bytes.len() - LENGTH_BYTES) as u64;
        if length > MAX_HEADER {
            return Err(Error::input(format!(
                "expected a header of at most {MAX_HEADER} bytes, found {length}"
            ))
            .hint("spread the tensors over several files"));
        }
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }
}

/// The kind of a file that is no safetensors file, where its first bytes tell.
fn foreign(source: &Source) -> Option<Kind> {
    let mut start = vec![0; (source.len() as usize).min(sniff::ENOUGH)];
    source.read_at(&mut start, 0).ok()?;
    sniff::sniff(&start).filter(|kind| *kind != Kind::Safetensors)
}

impl Tensor {
    /// Number of values.
    pub fn values(&self) -> usize {
        self.info.shape.iter().product()
    }

    /// Length of the last dimension; 1 for a tensor of no dimensions.
    pub fn head_dim(&self) -> usize {
        self.info.shape.last().copied().unwrap_or(1)
    }

    pub fn bytes(&self) -> usize {
        self.info.data_offsets.1 - self.info.data_offsets.0
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(metadata) = &self.metadata {
            map.serialize_entry(METADATA, metadata)?;
        }
        for tensor in &self.tensors {
            map.serialize_entry(&tensor.name, &tensor.info)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(json: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut header = Header::default();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        let what = format!("{name:?} is there twice");
                        return Err(serde::de::Error::custom(what));
                    }
                    if name == METADATA {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push(Tensor { name, info: map.next_value()? });
                    }
                }
                Ok(header)
            }
        }
        json.deserialize_map(Entries)
    }
}
