//! Compressed file → safetensors file, and parts of it.

use super::manifest::{self, Coded, Manifest, Stored, StoredPart};
use super::packed::BlockIndex;
use super::pipeline::{Buffers, in_order};
use super::rotary::{RotaryTables, Rotations};
use super::safetensors::Header;
use super::source::Source;
use super::{
    Checksums, Job, Piecewise, Report, Summary, Target, TensorSummary, geometry, hash, jobs,
    per_dtype, unfit,
};
use crate::codec::int4::decompress_block;
use crate::codec::{DistortionSum, Element, PartName, decompress_halves};
use crate::error::{Error, Result};
use crc32fast::Hasher;
use half::f16;
use std::path::Path;

/// Restores the tensors of the compressed file `input`: dtypes, shapes, order and metadata of
/// the file it was made from. The summary has the figures measured then.
///
/// Memory: a few MB a thread and the header, whatever the file's size; with a codec other than
/// symmetric INT4 and f16, or another layout, several times a tensor for each thread; with keys
/// before RoPE, the cosines and sines of each rotary embedding too.
///
/// Errors: not a compressed file, damage anywhere in it, input and output the same file, output
/// that cannot be written. After any of them there is no new file, and an old one is as it was.
pub fn decompress(input: &Path, target: Target, report: &dyn Report) -> Result<Summary> {
    let packed = Packed::open(input)?;
    let header = packed.restored.to_bytes(0)?;
    let output = target.create(input)?;

    let data = header.len() as u64;
    let take = |tensor: usize, offset: u64, bytes: &[u8]| {
        let at = packed.restored.tensors[tensor].info.data_offsets.0 as u64;
        output.file.write_at(bytes, data + at + offset)
    };
    output.written_by(|| packed.decode_all(report, take))?;
    packed.source.check_unchanged()?;
    output.file.write_at(&header, 0)?;
    report.finishing();
    output.commit()?;
    Ok(packed.summary())
}

/// An open compressed file, its header checked.
pub(super) struct Packed {
    pub source: Source,
    pub manifest: Manifest,
    /// Of the file that was compressed.
    pub restored: Header,
    pub stored: Vec<Stored>,
    /// Of the keys.
    pub rotations: Rotations,
    rotary: RotaryTables,
    /// Of each part of each tensor, where it is packed.
    indices: Vec<Vec<Option<BlockIndex>>>,
    /// Where the parts begin.
    data: u64,
}

/// The checksums of a tensor's parts.
#[derive(Default)]
struct Found {
    /// As they are stored.
    stored: Checksums,
    /// As they are without packing.
    unpacked: Checksums,
}

impl Found {
    fn push(&mut self, part: PartHashes) {
        self.stored.push(part.stored);
        self.unpacked.push(part.unpacked);
    }

    fn then(&mut self, next: Self) {
        self.stored.then(next.stored);
        self.unpacked.then(next.unpacked);
    }
}

impl From<Vec<PartHashes>> for Found {
    fn from(parts: Vec<PartHashes>) -> Self {
        let mut all = Self::default();
        parts.into_iter().for_each(|part| all.push(part));
        all
    }
}

/// The same of a part.
struct PartHashes {
    stored: Hasher,
    unpacked: Hasher,
}

impl Packed {
    pub fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let (header, bytes) = Header::read(&source)?;
        Self::new(source, &header, bytes)
    }

    pub fn new(source: Source, header: &Header, bytes: Vec<u8>) -> Result<Self> {
        let data = bytes.len() as u64;
        let (manifest, stored) =
            Manifest::from_header(header, bytes).map_err(|e| e.within(source.path().display()))?;
        let restored = manifest.source_header().map_err(|e| e.within(source.path().display()))?;
        let coded = || stored.iter().map(|stored| stored.coded.as_ref());
        let rotations = manifest.rotations(coded());
        let rotary = rotations.tables(coded());
        if let Some((name, error)) = unfit(&restored.tensors, coded(), &rotary) {
            let place = format!("{}: tensor {name}", source.path().display());
            return Err(manifest::damaged(error).within(place));
        }
        let newer = manifest.has_newer_blocks();
        let mut indices = Vec::with_capacity(stored.len());
        for (stored, tensor) in stored.iter().zip(&restored.tensors) {
            let index = |part: &StoredPart| -> Result<Option<BlockIndex>> {
                let at = data + part.bytes.start..data + part.bytes.end;
                let index = part
                    .packed
                    .then(|| BlockIndex::read(&source, at, part.unpacked, part.width, newer));
                index.transpose().map_err(|e| {
                    let name = part.name.as_str();
                    e.within(format!("{}: tensor {}: {name}", source.path().display(), tensor.name))
                })
            };
            indices.push(stored.parts.iter().map(index).collect::<Result<_>>()?);
        }
        Ok(Self { source, manifest, restored, stored, rotations, rotary, indices, data })
    }

    /// [`Packed::decode`] of all tensors.
    pub fn decode_all(
        &self,
        report: &dyn Report,
        take: impl Fn(usize, u64, &[u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        report.begin(self.restored.data_len());
        self.decode(0..self.restored.tensors.len(), report, take)
    }

    /// Decodes the tensors of `range`, in pieces: `take` gets the index of the tensor, the
    /// offset in its bytes, and the bytes, from several threads and in any order. After an error,
    /// that of a wrong checksum above all, what it got is worth nothing.
    pub fn decode(
        &self,
        range: std::ops::Range<usize>,
        report: &dyn Report,
        take: impl Fn(usize, u64, &[u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        let (first, restored) = (range.start, &self.restored);
        let mut found: Vec<Found> = range.clone().map(|_| Found::default()).collect();
        in_order(
            range.clone().flat_map(|index| {
                jobs(index, &restored.tensors[index], self.stored[index].coded.as_ref())
            }),
            |buffers: &mut Buffers, job: &Job| {
                let dtype = restored.tensors[job.tensor].info.dtype;
                let take = |bytes: &[u8]| take(job.tensor, job.offset, bytes);
                let result = match &self.stored[job.tensor].coded {
                    None => self.copy(buffers, job, take),
                    Some(coded) => match Piecewise::of(coded) {
                        Some(Piecewise::F16) => {
                            per_dtype!(dtype, T => self.widen::<T>(buffers, job, take))
                        }
                        Some(Piecewise::Int4(group)) => per_dtype!(dtype, T => {
                            self.dequantise::<T>(buffers, job, group, take)
                        }),
                        None => per_dtype!(dtype, T => {
                            self.unpack::<T>(buffers, job, coded, take)
                        }),
                    },
                };
                report.advance(job.bytes);
                result
            },
            |job, own: Found| {
                found[job.tensor - first].then(own);
                Ok(())
            },
        )?;
        for (record, Found { stored, unpacked }) in self.manifest.tensors[range].iter().zip(found) {
            let unpacked = record.packed.as_ref().map(|packed| (unpacked, &packed.crc32));
            for (parts, expected) in [(stored, &record.crc32)].into_iter().chain(unpacked) {
                let found = manifest::hex(parts.finish());
                if found != *expected {
                    let what = format!("expected the checksum {expected}, found {found}");
                    return Err(self.damaged(&record.name, what));
                }
            }
        }
        Ok(())
    }

    fn copy(
        &self,
        buffers: &mut Buffers,
        job: &Job,
        take: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Found> {
        let bytes = buffers.values.values::<u8>(job.values);
        let hashes = self.read(job, (0, PartName::Values), bytes, job.offset)?;
        take(bytes)?;
        Ok(vec![hashes].into())
    }

    fn widen<T: Element>(
        &self,
        buffers: &mut Buffers,
        job: &Job,
        take: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Found> {
        let halves = buffers.codes.values::<f16>(job.values);
        let bytes = bytemuck::cast_slice_mut(halves);
        let hashes = self.read(job, (0, PartName::Values), bytes, 2 * job.first as u64)?;
        self.check_finite(job, halves)?;
        let values = buffers.values.values::<T>(job.values);
        decompress_halves(halves, values);
        take(bytemuck::cast_slice(values))?;
        Ok(vec![hashes].into())
    }

    fn dequantise<T: Element>(
        &self,
        buffers: &mut Buffers,
        job: &Job,
        group: usize,
        take: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Found> {
        let codes = buffers.codes.values::<u8>(job.values.div_ceil(2));
        let scales = buffers.scales.values::<f16>(job.values.div_ceil(group));
        let bytes = bytemuck::cast_slice_mut(scales);
        let of_scales =
            self.read(job, (0, PartName::Scales), bytes, 2 * (job.first / group) as u64)?;
        let of_codes = self.read(job, (0, PartName::Codes), codes, job.first as u64 / 2)?;
        self.check_finite(job, scales)?;
        let exponent = self.exponent(job, 0);
        let values = buffers.values.values::<T>(job.values);
        decompress_block(codes, scales, group, exponent, values);
        take(bytemuck::cast_slice(values))?;
        Ok(vec![of_scales, of_codes].into())
    }

    /// A whole tensor, its keys before its values.
    fn unpack<T: Element>(
        &self,
        buffers: &mut Buffers,
        job: &Job,
        coded: &Coded,
        take: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Found> {
        let geometry = geometry(coded, self.rotary.of(job.tensor));
        let (view, values) = (&coded.view, buffers.values.values::<T>(job.values));
        let mut ordered = vec![T::default(); if view.is_plain() { 0 } else { view.values() }];
        let mut found = Found::default();
        for (index, codec) in coded.coding.codecs().into_iter().enumerate() {
            let mut payload = codec.empty::<T>(view.values(), &geometry);
            payload.set_exponent(self.exponent(job, index));
            for part in payload.parts_mut() {
                found.push(self.read(job, (index, part.name), part.content, 0)?);
            }
            if !payload.is_finite() {
                let name = &self.manifest.tensors[job.tensor].name;
                return Err(self.damaged(name, "expected finite scales and values".into()));
            }
            if view.is_plain() {
                payload.decompress(&geometry, values);
            } else {
                payload.decompress(&geometry, &mut ordered);
                view.scatter(index, &ordered, values);
            }
        }
        take(bytemuck::cast_slice(values))?;
        Ok(found)
    }

    /// That of one of the tensor's codecs; 0 where nothing is said.
    fn exponent(&self, job: &Job, codec: usize) -> i32 {
        self.manifest.tensors[job.tensor].exponents().get(codec).copied().unwrap_or(0)
    }

    /// Reads from a part of one of the tensor's codecs, `offset` bytes behind the begin of what it is
    /// without packing.
    fn read(
        &self,
        job: &Job,
        (codec, name): (usize, PartName),
        bytes: &mut [u8],
        offset: u64,
    ) -> Result<PartHashes> {
        let (place, part) = self.stored[job.tensor].part(codec, name)?;
        let stored = match &self.indices[job.tensor][place] {
            Some(index) => {
                let hash = index.decode(&self.source, offset, bytes);
                Some(hash.map_err(|e| {
                    let tensor = &self.manifest.tensors[job.tensor].name;
                    let place = format!("{}: tensor {tensor}", self.source.path().display());
                    e.within(format!("{place}: {}", name.as_str()))
                })?)
            }
            None => {
                self.source.read_at(bytes, self.data + part.bytes.start + offset)?;
                None
            }
        };
        let unpacked = hash(bytes);
        Ok(PartHashes { stored: stored.unwrap_or_else(|| unpacked.clone()), unpacked })
    }

    /// No file that kv-compress made holds others.
    fn check_finite(&self, job: &Job, halves: &[f16]) -> Result<()> {
        // All of them: a search that may stop early does not vectorise.
        if halves.iter().fold(true, |all, half| all & half.is_finite()) {
            return Ok(());
        }
        let name = &self.manifest.tensors[job.tensor].name;
        Err(self.damaged(name, "expected finite scales and values".into()))
    }

    fn damaged(&self, tensor: &str, what: String) -> Error {
        manifest::damaged(format!("tensor {tensor}: {what}")).within(self.source.path().display())
    }

    pub fn summary(&self) -> Summary {
        let tensors = self.restored.tensors.iter().zip(&self.stored);
        Summary {
            codec: self.manifest.codec.clone(),
            original_bytes: self.manifest.source_bytes,
            compressed_bytes: self.source.len(),
            quality: self.manifest.quality,
            tensors: tensors
                .map(|(tensor, stored)| {
                    TensorSummary::new(tensor, stored, DistortionSum::default())
                })
                .collect(),
        }
    }
}
