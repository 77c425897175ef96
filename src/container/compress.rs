//! Safetensors file → compressed file.

use super::gather::{Made, pack};
use super::manifest::{self, Coded, Manifest, Stored};
use super::outcome::Outcome;
use super::packed::{CodedPart, Cut};
use super::pipeline::{Buffer, Buffers, in_order};
use super::rotary::RotaryTables;
use super::safetensors::{Header, Tensor};
use super::select::{ExclusionReason, Plan};
use super::source::Source;
use super::{
    Checksums, Job, Piecewise, Report, Summary, Target, TensorSummary, geometry, hash, jobs,
    per_dtype,
};
use crate::codec::int4::{BlockLayout, compress_block, exponent_for};
use crate::codec::{DistortionSum, Element, Part, PartElement, PartName, compress_halves};
use crate::error::{Error, Result};
use half::f16;
use std::path::Path;

/// Compresses the float tensors of the safetensors file `input` as `plan` says; all others are
/// stored unchanged. Without `target` nothing is written, and the summary is the same.
///
/// Packed parts are written to the file as long as they would be unpacked, then moved together: it takes
/// no memory, but as much room on the disk as without packing.
///
/// Memory: a few MB a thread and the header, whatever the file's size; with a codec other than
/// symmetric INT4 and f16, or another layout, several times a tensor for each thread; with keys
/// before RoPE, the cosines and sines of each rotary embedding too.
///
/// Errors: not a safetensors file, compressed already, NaN or infinity (tensor and index named),
/// a codec that does not fit, input and output the same file, output that cannot be written.
/// After any of them there is no new file, and an old one is as it was.
pub fn compress(
    input: &Path,
    target: Option<Target>,
    plan: &Plan,
    report: &dyn Report,
) -> Result<Summary> {
    let source = Source::open(input)?;
    let at_input = |e: Error| e.within(input.display());
    let (header, bytes) = Header::read(&source)?;
    if Manifest::announced(&header, &bytes).map_err(at_input)? {
        return Err(at_input(Error::input("compressed already"))
            .hint("-decompress restores the tensors; compress those"));
    }
    let assigned = plan.assign(&header).map_err(at_input)?;
    let excluded: Vec<Option<ExclusionReason>> =
        assigned.iter().map(|own| own.as_ref().err().copied()).collect();
    let coded: Vec<Option<Coded>> = assigned.into_iter().map(|own| own.ok()).collect();
    let rotations = plan.rotations(&header, &coded).map_err(at_input)?;
    let rotary = rotations.tables(coded.iter().map(Option::as_ref));
    plan.check(&header, &coded, &rotary).map_err(at_input)?;
    let (codec, layout) = (&plan.codec, plan.layout);
    let mut manifest = Manifest::new(&header, source.len(), codec, layout, &coded, &rotations);
    let (stored, parts) = manifest.stored().map_err(at_input)?;
    let room = if plan.pack { manifest.most_room(&stored, &parts) } else { manifest.room(&parts) }?;
    let output = target.map(|target| target.create(input)).transpose()?;

    report.begin(header.data_len());
    let compressor = Compressor {
        source: &source,
        data_in: bytes.len() as u64,
        output: output.as_ref(),
        data_out: room as u64,
        tensors: &header.tensors,
        stored: &stored,
        rotary: &rotary,
        pack: plan.pack,
        report,
    };
    let all = || compressor.run(0..header.tensors.len(), 0);
    let mut results: Vec<Outcome> = match &output {
        // What will be moved has no business on the disk.
        Some(output) if !plan.pack => output.written_by(all)?,
        Some(_) | None => all()?,
    };
    // One optimistic pass; the rare tensor out of f16's range is done again.
    for (index, result) in results.iter_mut().enumerate().filter(|(_, result)| !result.in_range) {
        let exponent = compressor.exponent(index)?;
        manifest.tensors[index].set_exponents(&[exponent]);
        *result = compressor.run(index..index + 1, exponent)?.swap_remove(0);
    }
    source.check_unchanged()?;

    let (mut all, mut distortions, mut coded) = (DistortionSum::default(), Vec::new(), Vec::new());
    for (mut result, record) in results.into_iter().zip(&mut manifest.tensors) {
        record.set_exponents(&result.exponents);
        coded.push(std::mem::take(&mut result.coded));
        let (crc32, distortion) = result.finish();
        record.crc32 = manifest::hex(crc32);
        all = all.plus(distortion);
        distortions.push(distortion);
    }
    manifest.quality = all.finish().into();
    let made = match plan.pack {
        false => Made { stored, parts, room },
        true => pack(&mut manifest, &stored, &coded, output.as_ref(), room)?,
    };
    if let Some(output) = output {
        output.file.write_at(&manifest.to_bytes(&made.parts, made.room)?, 0)?;
        report.finishing();
        output.commit()?;
    }
    let tensors = header.tensors.iter().zip(&made.stored).zip(distortions).zip(excluded);
    let tensors = tensors.map(|(((tensor, stored), distortion), excluded)| TensorSummary {
        excluded,
        ..TensorSummary::new(tensor, stored, distortion)
    });
    Ok(Summary {
        codec: manifest.codec,
        original_bytes: source.len(),
        compressed_bytes: made.room as u64 + made.parts.data_len(),
        quality: manifest.quality,
        tensors: tensors.collect(),
    })
}

struct Compressor<'a> {
    source: &'a Source,
    /// Where the source's tensors begin.
    data_in: u64,
    output: Option<&'a super::Output>,
    /// Where the parts begin.
    data_out: u64,
    tensors: &'a [Tensor],
    stored: &'a [Stored],
    rotary: &'a RotaryTables,
    pack: bool,
    report: &'a dyn Report,
}

impl Compressor<'_> {
    /// Stores the tensors of `range`, in pieces.
    fn run(&self, range: std::ops::Range<usize>, exponent: i32) -> Result<Vec<Outcome>> {
        let first = range.start;
        let mut results: Vec<Outcome> = range.clone().map(|_| Outcome::nothing()).collect();
        in_order(
            range.flat_map(|index| self.jobs(index)),
            |buffers: &mut Buffers, job: &Job| {
                let dtype = self.tensors[job.tensor].info.dtype;
                let result = match &self.stored[job.tensor].coded {
                    None => self.copy(buffers, job),
                    Some(coded) => match Piecewise::of(coded) {
                        Some(Piecewise::F16) => {
                            per_dtype!(dtype, T => self.halve::<T>(buffers, job))
                        }
                        Some(Piecewise::Int4(group)) => per_dtype!(dtype, T => {
                            self.quantise::<T>(buffers, job, group, exponent)
                        }),
                        None => per_dtype!(dtype, T => self.pack::<T>(buffers, job, coded)),
                    },
                };
                self.report.advance(job.bytes);
                result
            },
            |job, piece| {
                results[job.tensor - first].then(piece);
                Ok(())
            },
        )?;
        Ok(results)
    }

    fn jobs(&self, index: usize) -> impl Iterator<Item = Job> {
        jobs(index, &self.tensors[index], self.stored[index].coded.as_ref())
    }

    fn copy(&self, buffers: &mut Buffers, job: &Job) -> Result<Outcome> {
        let bytes = buffers.values.values::<u8>(job.bytes as usize);
        self.read(bytes, job)?;
        self.write(job, (0, PartName::Values), bytes, job.offset)?;
        Ok(Outcome::of_part(bytes, None))
    }

    fn halve<T: Element>(&self, buffers: &mut Buffers, job: &Job) -> Result<Outcome> {
        let values = buffers.values.values::<T>(job.values);
        self.read(bytemuck::cast_slice_mut(values), job)?;
        let halves = buffers.scales.values::<f16>(job.values);
        let head_dim = self.tensors[job.tensor].head_dim();
        let run = compress_halves(values, head_dim, job.first, halves);
        let run = run.ok_or_else(|| self.not_finite(job, values))?;
        let bytes = bytemuck::cast_slice(halves);
        let part = Part { name: PartName::Values, element: PartElement::F16, content: bytes };
        let piece = 2 * Piecewise::F16.piece(self.tensors[job.tensor].values());
        let coded = self.store(job, 0, part, 2 * job.first as u64, Some(piece))?;
        Ok(Outcome { coded: coded.into_iter().collect(), ..Outcome::of_part(bytes, Some(run)) })
    }

    fn quantise<T: Element>(
        &self,
        buffers: &mut Buffers,
        job: &Job,
        group: usize,
        exponent: i32,
    ) -> Result<Outcome> {
        let head_dim = self.tensors[job.tensor].head_dim();
        let codes = buffers.codes.values::<u8>(job.values.div_ceil(2));
        let scales = buffers.scales.values::<f16>(job.values.div_ceil(group));
        let mut outcome = Outcome::nothing();
        for block in job.blocks(group) {
            let values = buffers.values.values::<T>(block.values);
            self.read(bytemuck::cast_slice_mut(values), &block)?;
            let start = block.first - job.first;
            let codes = &mut codes[start / 2..(start + block.values).div_ceil(2)];
            let scales = &mut scales[start / group..(start + block.values).div_ceil(group)];
            let layout = BlockLayout { group, head_dim, start: block.first };
            let found = compress_block(values, layout, exponent, codes, scales);
            if !found.finite {
                return Err(self.not_finite(&block, values));
            }
            outcome.then(Outcome {
                crc32: Checksums(vec![hash(bytemuck::cast_slice(scales)), hash(codes)]),
                run: Some(found.distortion),
                in_range: found.in_range,
                ..Outcome::nothing()
            });
        }
        let piece = Piecewise::Int4(group).piece(self.tensors[job.tensor].values());
        let content = bytemuck::cast_slice(scales);
        let scales = Part { name: PartName::Scales, element: PartElement::F16, content };
        let at = 2 * (job.first / group) as u64;
        let pieces = [2 * piece.div_ceil(group), piece / 2].map(Some);
        outcome.coded.extend(self.store(job, 0, scales, at, pieces[0])?);
        let codes = Part { name: PartName::Codes, element: PartElement::U8, content: &*codes };
        outcome.coded.extend(self.store(job, 0, codes, job.first as u64 / 2, pieces[1])?);
        Ok(outcome)
    }

    /// A whole tensor, its keys before its values.
    fn pack<T: Element>(&self, buffers: &mut Buffers, job: &Job, coded: &Coded) -> Result<Outcome> {
        let tensor = &self.tensors[job.tensor];
        let values = buffers.values.values::<T>(job.values);
        self.read(bytemuck::cast_slice_mut(values), job)?;
        let mut ordered = Vec::new();
        if !coded.view.is_plain() {
            // Looked for here: the codec would count in its own order.
            if !T::absmax(values).is_finite() {
                return Err(self.not_finite(job, values));
            }
            ordered.resize(coded.view.values(), T::default());
        }
        let geometry = geometry(coded, self.rotary.of(job.tensor));
        let place = || format!("{}: tensor {}", self.source.path().display(), tensor.name);
        let mut outcome = Outcome::nothing();
        for (index, codec) in coded.coding.codecs().into_iter().enumerate() {
            let values: &[T] = if coded.view.is_plain() {
                values
            } else {
                coded.view.gather(index, values, &mut ordered);
                &ordered
            };
            let packed = codec.compress_measured(values, &geometry);
            let (payload, sum) =
                packed.map_err(|e| e.within(place()).hint("--exclude stores a tensor as it is"))?;
            outcome.sum = outcome.sum.plus(sum);
            outcome.exponents.push(payload.exponent());
            for part in payload.parts() {
                outcome.coded.extend(self.store(job, index, part, 0, None)?);
                outcome.crc32.push(hash(part.content));
            }
        }
        Ok(outcome)
    }

    /// The exponent of a tensor whose scales leave f16's range.
    fn exponent(&self, index: usize) -> Result<i32> {
        let tensor = &self.tensors[index];
        let mut largest = 0f32;
        in_order(
            self.jobs(index),
            |buffer: &mut Buffer, job: &Job| {
                per_dtype!(tensor.info.dtype, T => {
                    let values = buffer.values::<T>(job.values);
                    self.read(bytemuck::cast_slice_mut(values), job)?;
                    Ok(T::absmax(values))
                })
            },
            |_, found| {
                largest = largest.max(found);
                Ok(())
            },
        )?;
        Ok(exponent_for(largest))
    }

    fn read(&self, bytes: &mut [u8], job: &Job) -> Result<()> {
        let tensor = self.tensors[job.tensor].info.data_offsets.0 as u64;
        self.source.read_at(bytes, self.data_in + tensor + job.offset)
    }

    /// Writes bytes of a part of one of the tensor's codecs, from `offset` on; where parts are packed, as
    /// blocks, each where it would lie unpacked. `piece`: how many bytes it is given at a time.
    fn store(
        &self,
        job: &Job,
        codec: usize,
        part: Part<&[u8]>,
        offset: u64,
        piece: Option<usize>,
    ) -> Result<Option<CodedPart>> {
        let Some(coded) = self.stored[job.tensor].coded.as_ref().filter(|_| self.pack) else {
            self.write(job, (codec, part.name), part.content, offset)?;
            return Ok(None);
        };
        let codecs = coded.coding.codecs();
        let symbols = codecs[codec].symbols(part.name, part.element, &geometry(coded, None));
        let cut = Cut::new(piece, symbols);
        let mut lengths = Vec::new();
        let (blocks, is_newer) = cut.encode(part.content);
        for (index, block) in blocks.iter().enumerate() {
            let at = offset + (index * cut.block) as u64;
            self.write(job, (codec, part.name), block, at)?;
            lengths.push(block.len() as u32);
        }
        Ok(Some(CodedPart { block: cut.block, lengths, is_newer }))
    }

    /// Writes to a part of one of the tensor's codecs.
    fn write(
        &self,
        job: &Job,
        (codec, name): (usize, PartName),
        bytes: &[u8],
        offset: u64,
    ) -> Result<()> {
        match self.output {
            None => Ok(()),
            Some(output) => {
                let part = self.stored[job.tensor].part(codec, name)?.1.bytes.start;
                output.file.write_at(bytes, self.data_out + part + offset)
            }
        }
    }

    fn not_finite<T: Element>(&self, job: &Job, values: &[T]) -> Error {
        let index = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
        let found = values.get(index).map_or(f32::NAN, |value| value.to_f32());
        Error::not_finite(format!(
            "{}: tensor {}: index {}: expected a finite number, found {found}",
            self.source.path().display(),
            self.tensors[job.tensor].name,
            job.first + index
        ))
        .hint("--exclude stores a tensor as it is")
    }
}
