//! Tensors of a file, one by one, and files from tensors in memory.

use super::decompress::Packed;
use super::manifest::Manifest;
use super::safetensors::{Header, METADATA, TextMap};
use super::source::Source;
use super::{Target, per_dtype};
use crate::codec::Element;
use crate::error::{Error, Result};
use crate::whole_file::{Existing, NewFile};
use safetensors::Dtype;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Mutex;

/// An open safetensors file, plain or compressed; of a compressed one, what was compressed.
pub struct TensorFile {
    content: Content,
    /// As in the uncompressed file.
    header: Header,
}

enum Content {
    Plain { source: Source, data: u64 },
    Packed(Box<Packed>),
}

/// Opens a safetensors file, plain or compressed, and checks its header.
pub fn read_file(path: &Path) -> Result<TensorFile> {
    let source = Source::open(path)?;
    let (header, bytes) = Header::read(&source)?;
    if !Manifest::announced(&header, &bytes).map_err(|e| e.within(path.display()))? {
        let data = bytes.len() as u64;
        return Ok(TensorFile { content: Content::Plain { source, data }, header });
    }
    let packed = Packed::new(source, &header, bytes)?;
    let header = packed.restored.clone();
    Ok(TensorFile { content: Content::Packed(Box::new(packed)), header })
}

impl TensorFile {
    /// In the order of their data.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// dtype and shape as in the uncompressed file.
    pub fn info(&self, name: &str) -> Option<(Dtype, &[usize])> {
        let tensor = self.header.tensors.iter().find(|tensor| tensor.name == name)?;
        Some((tensor.info.dtype, &tensor.info.shape))
    }

    /// The source's own text metadata.
    pub fn metadata(&self) -> Option<&TextMap> {
        self.header.metadata.as_ref()
    }

    /// The values of a float tensor, flattened row-major, decompressed if need be, its checksum
    /// verified.
    pub fn get_tensor_f32(&self, name: &str) -> Result<Vec<f32>> {
        let path = self.source().path().display();
        let index = self.header.tensors.iter().position(|tensor| tensor.name == name);
        let index = index.ok_or_else(|| {
            Error::input(format!("{path}: tensor {name}: missing"))
                .hint("`kv-compress inspect FILE` lists the names")
        })?;
        let tensor = &self.header.tensors[index];
        if !super::manifest::is_float(tensor.info.dtype) {
            return Err(Error::input(format!(
                "{path}: tensor {name}: expected F16, BF16 or F32, found {:?}",
                tensor.info.dtype
            ))
            .hint("other types are not read as numbers"));
        }
        let mut bytes = vec![0; tensor.bytes()];
        let start = tensor.info.data_offsets.0 as u64;
        match &self.content {
            Content::Plain { source, data } => {
                source.read_at(&mut bytes, data + start)?;
                source.check_unchanged()?;
            }
            Content::Packed(packed) => {
                let all = Mutex::new(&mut bytes);
                packed.decode(index..index + 1, &(), |_, offset, piece| {
                    let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    all[offset as usize..][..piece.len()].copy_from_slice(piece);
                    Ok(())
                })?;
            }
        }
        per_dtype!(tensor.info.dtype, T => {
            let mut values = vec![T::default(); tensor.values()];
            // The bytes may lie at any address.
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(&bytes);
            let mut wide = vec![0f32; values.len()];
            T::widen(&values, &mut wide);
            Ok(wide)
        })
    }

    fn source(&self) -> &Source {
        match &self.content {
            Content::Plain { source, .. } => source,
            Content::Packed(packed) => &packed.source,
        }
    }
}

/// A tensor to be written: little-endian bytes, row-major.
#[derive(Debug, Clone)]
pub struct TensorData<'a> {
    /// Unlike every other's of the file.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its axes, the outermost first.
    pub shape: Vec<usize>,
    /// Little-endian, row-major.
    pub data: Cow<'a, [u8]>,
}

/// Writes a safetensors file, its tensors in the order given; whole or not at all, synced.
/// Replaces a file of that name.
///
/// Errors: two tensors of one name, data of another size than shape and dtype say, a path that
/// cannot be written.
pub fn write_file(path: &Path, tensors: &[TensorData], metadata: Option<TextMap>) -> Result<()> {
    write_tensors(Target { path, existing: Existing::Replace, sync: true }, tensors, metadata)
}

/// [`write_file`], with a say in what happens to a file that is there and to a power cut.
pub fn write_tensors(
    target: Target,
    tensors: &[TensorData],
    metadata: Option<TextMap>,
) -> Result<()> {
    let header = header_of(tensors, metadata).map_err(|e| e.within(target.path.display()))?;
    let file = NewFile::create(target.path, target.existing)?;
    let bytes = header.to_bytes(0)?;
    file.write_at(&bytes, 0)?;
    for (tensor, place) in tensors.iter().zip(&header.tensors) {
        file.write_at(&tensor.data, (bytes.len() + place.info.data_offsets.0) as u64)?;
    }
    file.commit(target.sync)
}

/// The header of a file of these tensors.
fn header_of(tensors: &[TensorData], metadata: Option<TextMap>) -> Result<Header> {
    let mut header = Header { metadata, tensors: Vec::with_capacity(tensors.len()) };
    let mut names = std::collections::HashSet::new();
    for TensorData { name, dtype, shape, data } in tensors {
        let refuse = |what: String, hint: &str| {
            Err(Error::input(format!("tensor {name}: {what}")).hint(hint))
        };
        if name == METADATA || !names.insert(name) {
            return refuse("the name is taken".into(), "each tensor needs a name of its own");
        }
        let place = header.push(name.clone(), *dtype, shape.clone());
        if !place.is_ok_and(|tensor| tensor.bytes() == data.len()) {
            let found = data.len();
            let what = format!("expected {dtype:?} of shape {shape:?}, found {found} bytes");
            return refuse(what, "its bytes are those of all values, row-major");
        }
    }
    Ok(header)
}
