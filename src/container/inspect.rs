//! The contents of a file, without its values.

use super::decompress::Packed;
use super::manifest::{Manifest, Quality, Stored, StoredPart};
use super::safetensors::{Header, TextMap};
use super::source::Source;
use super::{AxisOrder, Layout, Report, Summary};
use crate::codec::RotaryEmbedding;
use crate::error::Result;
use safetensors::Dtype;
use serde::Serialize;
use std::path::Path;

/// A file's header, as `kv-compress inspect` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Contents {
    /// `kvgauge-kv 1`, or `safetensors` for a file that is not compressed.
    pub format: String,
    /// Of the file, header included.
    pub file_size_bytes: u64,
    /// Whether the checksums of all tensors were verified; the header's always is.
    pub verified: bool,
    /// `None`: it is not compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// The source's own.
    pub metadata: Option<TextMap>,
    /// In the file's order.
    pub tensors: Vec<Item>,
}

/// The facts that only a compressed file has.
#[derive(Debug, Clone, Serialize)]
pub struct Compression {
    /// As asked for.
    pub codec: String,
    /// Of the file that was compressed.
    pub original_size_bytes: u64,
    /// Size of that file over size of this one.
    pub compression_ratio: f64,
    /// Stored bits a value of the compressed tensors; `None` without values.
    pub bits_per_value: Option<f64>,
    /// Bytes of the parts of packed tensors, before they were packed over after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packing_ratio: Option<f64>,
    /// Over all compressed tensors.
    #[serde(flatten)]
    pub quality: Quality,
    /// The order of a compressed tensor's last axes.
    pub layout: AxisOrder,
    /// The axis of keys and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_axis: Option<usize>,
    /// The length of the heads that share the last axis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Those of the keys that are stored as they were before RoPE.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rotary: Vec<RotaryEmbedding>,
}

/// One tensor: dtype and shape as in the uncompressed file.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its axes.
    pub shape: Vec<usize>,
    /// `none`: stored unchanged.
    pub codec: String,
    /// Bytes of all its parts.
    pub stored_bytes: u64,
    /// Its parts, where some are packed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ItemPart>,
    /// The power of two that its numbers are divided by, where it is not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponent: Option<i32>,
    /// Of keys and of values, where a tensor holds both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponents: Option<[i32; 2]>,
    /// Index in [`Compression::rotary`] of that of its keys, where they are stored as they were
    /// before RoPE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary: Option<usize>,
}

/// One part of a tensor with packed parts.
#[derive(Debug, Clone, Serialize)]
pub struct ItemPart {
    /// Its name, without the tensor's.
    pub name: String,
    /// Bytes in the file.
    pub stored_bytes: u64,
    /// The same without packing.
    pub unpacked_bytes: u64,
}

impl Item {
    /// Bytes of all its parts without packing; `None`: none is packed.
    pub fn unpacked_bytes(&self) -> Option<u64> {
        let bytes = self.parts.iter().map(|part| part.unpacked_bytes).sum();
        (!self.parts.is_empty()).then_some(bytes)
    }
}

impl Compression {
    /// How the compressed tensors are read.
    pub fn layout(&self) -> Layout {
        Layout { order: self.layout, kv_axis: self.kv_axis, head_dim: self.head_dim }
    }
}

/// Reads the header of a safetensors file, plain or compressed; with `verify`, every byte of a
/// compressed one.
pub fn inspect(path: &Path, verify: bool, report: &dyn Report) -> Result<Contents> {
    let source = Source::open(path)?;
    let file_size_bytes = source.len();
    let (header, bytes) = Header::read(&source)?;
    if !Manifest::announced(&header, &bytes).map_err(|e| e.within(path.display()))? {
        let tensors = header.tensors.into_iter().map(|tensor| Item {
            codec: "none".into(),
            stored_bytes: tensor.bytes() as u64,
            parts: Vec::new(),
            name: tensor.name,
            dtype: tensor.info.dtype,
            shape: tensor.info.shape,
            exponent: None,
            exponents: None,
            rotary: None,
        });
        return Ok(Contents {
            format: "safetensors".into(),
            file_size_bytes,
            verified: false,
            compression: None,
            tensors: tensors.collect(),
            metadata: header.metadata,
        });
    }
    let packed = Packed::new(source, &header, bytes)?;
    if verify {
        packed.decode_all(report, |_, _, _| Ok(()))?;
    }
    Ok(Contents::new(packed, verify))
}

impl Contents {
    fn new(packed: Packed, verified: bool) -> Self {
        let summary: Summary = packed.summary();
        let parts = packed.stored.iter().map(parts_of).collect::<Vec<_>>();
        let (manifest, rotations) = (packed.manifest, packed.rotations);
        // Of a file without any, none is said of no tensor.
        let rotary = rotations.of_tensor.into_iter().chain(std::iter::repeat(None));
        let layout = manifest.layout();
        // 0 takes no room in a table.
        let said = |exponents: &[i32]| exponents.iter().any(|exponent| *exponent != 0);
        let items = summary.tensors.iter().zip(&manifest.tensors).zip(rotary).zip(parts);
        let items = items.map(|(((tensor, record), rotary), parts)| Item {
            rotary,
            parts,
            name: record.name.clone(),
            dtype: record.dtype,
            shape: record.shape.clone(),
            codec: record.codec_name(&manifest.codec).into(),
            stored_bytes: tensor.stored_bytes,
            exponent: match *record.exponents() {
                [exponent] if exponent != 0 => Some(exponent),
                _ => None,
            },
            exponents: <[i32; 2]>::try_from(record.exponents()).ok().filter(|both| said(both)),
        });
        Self {
            format: manifest.format_name(),
            file_size_bytes: summary.compressed_bytes,
            verified,
            tensors: items.collect(),
            compression: Some(Compression {
                codec: summary.codec.clone(),
                original_size_bytes: summary.original_bytes,
                compression_ratio: summary.compression_ratio(),
                bits_per_value: summary.bits_per_value(),
                packing_ratio: summary.packing_ratio(),
                quality: summary.quality,
                layout: layout.order,
                kv_axis: layout.kv_axis,
                head_dim: layout.head_dim,
                rotary: rotations.embeddings,
            }),
            metadata: manifest.metadata,
        }
    }
}

/// The parts of a tensor; none where none is packed.
fn parts_of(stored: &Stored) -> Vec<ItemPart> {
    if !stored.parts.iter().any(|part| part.packed) {
        return Vec::new();
    }
    let item = |part: &StoredPart| ItemPart {
        name: stored.part_name(part),
        stored_bytes: part.len(),
        unpacked_bytes: part.unpacked,
    };
    stored.parts.iter().map(item).collect()
}
