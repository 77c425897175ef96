//! Files of tensors: plain safetensors, and compressed ones.
//!
//! [`compress`] and [`decompress`] turn one into the other in bounded memory; [`read_file`] opens
//! either and gives tensors as f32; [`write_file`] writes plain ones. The compressed format:
#![doc = include_str!("FORMAT.md")]

mod compress;
mod decompress;
mod file;
mod gather;
mod inspect;
mod layers;
mod layout;
mod manifest;
pub mod origin;
mod outcome;
mod packed;
mod pipeline;
mod rotary;
pub(crate) mod safetensors;
mod select;
pub(crate) mod source;

pub use compress::compress;
pub use decompress::decompress;
pub use file::{TensorData, TensorFile, read_file, write_file, write_tensors};
pub use inspect::{Contents, inspect};
pub use layout::{AxisOrder, Layout};
pub use manifest::{Coding, Quality};
pub use rotary::RopeParameters;
pub use safetensors::TextMap;
pub use select::{ExclusionReason, Plan};

use crate::codec::{Distortion, DistortionSum, Geometry, RotaryTable, TensorCodec, int4};
use crate::error::{Error, Result};
use crate::whole_file::{self, Existing, NewFile};
use ::safetensors::Dtype;
use crc32fast::Hasher;
use manifest::{Coded, Stored, StoredPart};
use pipeline::{BLOCK, PIECE};
use rotary::RotaryTables;
use safetensors::Tensor;
use std::path::Path;

/// Where a result goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The file to write.
    pub path: &'a Path,
    /// The fate of a file that is there.
    pub existing: Existing,
    /// Whether it has to survive a power cut.
    pub sync: bool,
}

struct Output {
    file: NewFile,
    sync: bool,
}

impl Target<'_> {
    fn create(self, input: &Path) -> Result<Output> {
        if whole_file::same_target(input, self.path) {
            return Err(Error::input(format!(
                "{}: expected another file than the input {}",
                self.path.display(),
                input.display()
            ))
            .hint("files are not rewritten in place"));
        }
        Ok(Output { file: NewFile::create(self.path, self.existing)?, sync: self.sync })
    }
}

impl Output {
    /// Does `work`, which writes to it.
    fn written_by<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        if self.sync { self.file.syncing(work) } else { work() }
    }

    fn commit(self) -> Result<()> {
        self.file.commit(self.sync)
    }
}

/// Hears how far it is. Called from any thread, except for [`Report::begin`] and
/// [`Report::finishing`].
pub trait Report: Sync {
    /// `bytes` of tensors will be worked on.
    fn begin(&self, _bytes: u64) {}
    /// `bytes` more are done.
    fn advance(&self, _bytes: u64) {}
    /// All is written and waits for the disk.
    fn finishing(&self) {}
}

impl Report for () {}

/// The sizes, the quality and the tensors of a compressed file.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The codec asked for.
    pub codec: String,
    /// Size of the file that was or will be restored.
    pub original_bytes: u64,
    /// Size of the compressed file.
    pub compressed_bytes: u64,
    /// Over all compressed tensors.
    pub quality: Quality,
    /// In the file's order.
    pub tensors: Vec<TensorSummary>,
}

/// One tensor of a compressed file.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSummary {
    /// As in the source.
    pub name: String,
    /// Type of its elements in the source.
    pub dtype: Dtype,
    /// Shape in the source.
    pub shape: Vec<usize>,
    /// `None`: stored unchanged.
    pub codec: Option<Coding>,
    /// Why it is stored unchanged, where that is known: a file does not say it.
    pub excluded: Option<ExclusionReason>,
    /// Bytes of all its parts.
    pub stored_bytes: u64,
    /// The same without packing.
    pub unpacked_bytes: u64,
    /// Nothing but `None` for a tensor stored unchanged, and where it was not measured.
    pub distortion: Distortion,
}

impl TensorSummary {
    fn new(tensor: &Tensor, stored: &Stored, distortion: DistortionSum) -> Self {
        Self {
            name: tensor.name.clone(),
            dtype: tensor.info.dtype,
            shape: tensor.info.shape.clone(),
            codec: stored.coded.as_ref().map(|coded| coded.coding),
            excluded: None,
            stored_bytes: stored.parts.iter().map(StoredPart::len).sum(),
            unpacked_bytes: stored.parts.iter().map(|part| part.unpacked).sum(),
            distortion: distortion.finish(),
        }
    }

    /// Number of its values.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Summary {
    /// Stored bits a value of the compressed tensors, without the header; `None` without values.
    pub fn bits_per_value(&self) -> Option<f64> {
        let compressed = || self.tensors.iter().filter(|tensor| tensor.codec.is_some());
        let values: usize = compressed().map(TensorSummary::values).sum();
        let bytes: u64 = compressed().map(|tensor| tensor.stored_bytes).sum();
        (values > 0).then(|| 8.0 * bytes as f64 / values as f64)
    }

    /// Bytes of the parts of packed tensors, before they were packed over after; `None`: none is.
    pub fn packing_ratio(&self) -> Option<f64> {
        let packed = || self.tensors.iter().filter(|one| one.stored_bytes < one.unpacked_bytes);
        let before: u64 = packed().map(|tensor| tensor.unpacked_bytes).sum();
        let after: u64 = packed().map(|tensor| tensor.stored_bytes).sum();
        (after > 0).then(|| before as f64 / after as f64)
    }

    /// Sizes of the two files, original over compressed.
    pub fn compression_ratio(&self) -> f64 {
        self.original_bytes as f64 / self.compressed_bytes as f64
    }
}

/// Checksums of the parts of a tensor, in order.
#[derive(Default)]
struct Checksums(Vec<Hasher>);

impl Checksums {
    /// The next part.
    fn push(&mut self, part: Hasher) {
        self.0.push(part);
    }

    /// Those of the piece that follows, part by part.
    fn then(&mut self, next: Self) {
        for (index, own) in next.0.into_iter().enumerate() {
            match self.0.get_mut(index) {
                Some(all) => all.combine(&own),
                None => self.0.push(own),
            }
        }
    }

    /// Of the parts one after the other.
    fn finish(self) -> u32 {
        let mut all = Hasher::new();
        self.0.iter().for_each(|part| all.combine(part));
        all.finalize()
    }
}

/// A piece of one tensor: whole groups, except for the last.
#[derive(Clone, Copy)]
struct Job {
    tensor: usize,
    /// Index of the first value.
    first: usize,
    values: usize,
    /// The same in the uncompressed tensor's bytes.
    offset: u64,
    bytes: u64,
}

impl Job {
    /// Cut into parts of whole groups, about `values` each.
    fn cut(self, group: usize, values: usize) -> impl Iterator<Item = Self> {
        let part = int4::block_len(group.min(self.values.max(1)), values);
        let width = self.bytes / self.values.max(1) as u64;
        (0..self.values).step_by(part).map(move |start| {
            let values = part.min(self.values - start);
            Self {
                first: self.first + start,
                values,
                offset: self.offset + width * start as u64,
                bytes: width * values as u64,
                ..self
            }
        })
    }

    /// Cut into the blocks that are quantised at a time.
    fn blocks(self, group: usize) -> impl Iterator<Item = Self> {
        self.cut(group, BLOCK)
    }
}

/// The geometry of a tensor, or of its keys or values.
fn geometry<'a>(coded: &Coded, rope: Option<&'a RotaryTable>) -> Geometry<'a> {
    Geometry { rope, ..Geometry::of_shape(&coded.view.shape) }
}

/// The first tensor whose codec cannot store it, and why.
fn unfit<'a>(
    tensors: &'a [Tensor],
    coded: impl Iterator<Item = Option<&'a Coded>>,
    rotary: &RotaryTables,
) -> Option<(&'a str, Error)> {
    tensors.iter().zip(coded).enumerate().find_map(|(index, (tensor, coded))| {
        let coded = coded?;
        let codecs = coded.coding.codecs();
        let mut packings = codecs.iter().filter_map(TensorCodec::packing);
        let geometry = geometry(coded, rotary.of(index));
        let unfit = packings.find_map(|packing| packing.check(&geometry).err());
        Some((tensor.name.as_str(), unfit?))
    })
}

/// The checksum of some bytes, to be combined with those that follow.
fn hash(bytes: &[u8]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher
}

/// A codec whose tensors are worked on in pieces, as they lie in the file.
#[derive(Clone, Copy)]
enum Piecewise {
    F16,
    /// With groups of so many values.
    Int4(usize),
}

impl Piecewise {
    fn of(coded: &Coded) -> Option<Self> {
        let manifest::Coding::One(codec) = coded.coding else { return None };
        match codec {
            _ if !coded.view.is_plain() => None,
            TensorCodec::F16 => Some(Self::F16),
            TensorCodec::Packed(packing) => packing.as_int4().map(Self::Int4),
        }
    }

    /// Values of a piece of a tensor of so many: a power of two of whole groups, so that a part's bytes of
    /// a piece are blocks of one size.
    fn piece(self, values: usize) -> usize {
        match self {
            Self::F16 => PIECE,
            Self::Int4(group) => {
                let pair = 2 * group.min(values.max(1));
                pair << (PIECE / pair).max(1).ilog2()
            }
        }
    }
}

/// The pieces of a tensor, which depend on its size and codec only: only symmetric INT4, f16 and
/// what stays as it is are worked on in several.
fn jobs(index: usize, tensor: &Tensor, coded: Option<&Coded>) -> impl Iterator<Item = Job> {
    // Unchanged tensors are copied in bytes: some types have less than one.
    let values = if coded.is_some() { tensor.values() } else { tensor.bytes() };
    let all = Job { tensor: index, first: 0, values, offset: 0, bytes: tensor.bytes() as u64 };
    let (group, piece) = match coded.map(Piecewise::of) {
        None => (1, PIECE),
        Some(Some(Piecewise::F16)) => (1, Piecewise::F16.piece(values)),
        Some(Some(Piecewise::Int4(group))) => (group, Piecewise::Int4(group).piece(values)),
        Some(None) => (1, usize::MAX / 4),
    };
    all.cut(group, piece)
}

/// Runs a block with `T` as the Rust type of a float dtype.
macro_rules! per_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            ::safetensors::Dtype::F16 => {
                type $T = ::half::f16;
                $body
            }
            ::safetensors::Dtype::BF16 => {
                type $T = ::half::bf16;
                $body
            }
            ::safetensors::Dtype::F32 => {
                type $T = f32;
                $body
            }
            other => Err($crate::error::Error::system(format!("{other:?} is no float type"))),
        }
    };
}
use per_dtype;
