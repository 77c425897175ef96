//! A tensor packed by any [`Scheme`]: the way there and back.
//!
//! Work goes in *units* of whole rows (head vectors), whose groups and bytes belong to no other
//! unit: a few rows of one head where groups do not leave a row, a whole head where groups run
//! along channels, and everything at once where groups cross rows. Rows are widened to f32 and
//! mapped, groups are quantised, codes are packed, while all of it is in a core's cache. Which
//! units does not change a bit.

use super::definition::{Scheme, TokenCounts};
use super::groups::passes;
use super::levels::Levels;
use super::rows::{AddRows, Buffers, Decode, Encode, RowContext, StoredRange, at_least};
use super::scales::ScaleFormat;
use super::units::{UNIT, steps, units};
use crate::codec::element::{Element, finite_absmax};
use crate::codec::exponent::{PowerOfTwo, exponent_placing};
use crate::codec::geometry::Geometry;
use crate::codec::parts::{Part, PartElement, PartLayout, PartName};
use half::f16;
use pulp::Arch;
use rayon::prelude::*;

/// The parts of a packed tensor, as they are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemePayload {
    scheme: Scheme,
    values: usize,
    counts: TokenCounts,
    layout: Vec<PartLayout>,
    /// All numbers are stored divided by two to this power.
    pub exponent: i32,
    /// In the 16-bit type of the source, f16 for one of f32; [heads, sinks, head_dim].
    sinks: Vec<u16>,
    /// [heads, head_dim]
    means: Vec<f16>,
    /// What the scales are in units of; one where the scheme has it, none else.
    tensor_scale: Vec<f32>,
    /// In their format, little-endian; [groups].
    scales: Vec<u8>,
    /// Minima or zero points. [groups]
    offsets: Vec<f16>,
    codes: Vec<u8>,
}

impl SchemePayload {
    /// With room for its parts, which are zero.
    pub fn empty<T: Element>(scheme: Scheme, values: usize, geometry: &Geometry) -> Self {
        let scheme = scheme.of_heads(geometry.head_dim);
        let counts = scheme.token_counts(values, geometry);
        let held = counts.heads * (counts.sinks + counts.quantised) * geometry.head_dim;
        assert_eq!(held, values, "a geometry of another number of values");
        let layout = scheme.parts(values, geometry, PartElement::half_of::<T>());
        let count =
            |name| layout.iter().find(|part| part.name == name).map_or(0, |part| part.content);
        Self {
            scheme,
            values,
            counts,
            exponent: 0,
            sinks: vec![0; count(PartName::Sinks)],
            means: vec![f16::ZERO; count(PartName::Means)],
            tensor_scale: vec![0.0; count(PartName::TensorScale)],
            scales: vec![0; scheme.scales.bytes() * count(PartName::Scales)],
            offsets: vec![f16::ZERO; scheme.levels.offsets().map_or(0, count)],
            codes: vec![0; count(PartName::Codes)],
            layout,
        }
    }

    /// `None` where a value is not finite.
    pub fn compress<T: Element>(values: &[T], scheme: Scheme, geometry: &Geometry) -> Option<Self> {
        Self::compress_on(Arch::new(), values, scheme, geometry)
    }

    /// The same with the instructions of `arch`, which do not change a bit.
    pub(in crate::codec) fn compress_on<T: Element>(
        arch: Arch,
        values: &[T],
        scheme: Scheme,
        geometry: &Geometry,
    ) -> Option<Self> {
        let absmax = finite_absmax(values)?;
        let mut packed = Self::empty::<T>(scheme, values.len(), geometry);
        packed.tensor_scale.fill(absmax / LARGEST_OF_TENSOR);
        // One optimistic pass; the rare tensor out of range is done again.
        if packed.fill(arch, values, geometry).in_range {
            return Some(packed);
        }
        packed.exponent = exponent_placing(absmax.into(), TOP);
        let overflow = packed.fill(arch, values, geometry).overflow;
        // Scales of 8 bits reach less far: the largest is put at the top of them. Those of f16 can
        // be too large still where a rotation adds up some 2^15 values.
        if overflow > 1.0 || scheme.scales == ScaleFormat::Small && overflow > 0.0 {
            packed.exponent += (f64::from(overflow).log2().ceil() as i32).max(MOST_UP);
            packed.fill(arch, values, geometry);
        }
        Some(packed)
    }

    /// Stores everything with the exponent that is set.
    fn fill<T: Element>(&mut self, arch: Arch, values: &[T], geometry: &Geometry) -> StoredRange {
        let apart = self.fill_sinks(values, geometry) & self.fill_means(arch, values, geometry);
        let (sinks, exponent, tensor_scale) =
            (self.counts.sinks, self.exponent, self.tensor_scale());
        let passes = match self.scheme.levels {
            Levels::Hqq => passes(arch, values, &self.scheme, exponent),
            _ => 0,
        };
        let Self { scheme, means, scales, offsets, codes, .. } = self;
        let context = RowContext { geometry, scheme, exponent, tensor_scale, passes, means, sinks };
        let (mut scales, mut offsets, mut codes) =
            (&mut scales[..], &mut offsets[..], &mut codes[..]);
        let mut jobs = Vec::new();
        for unit in units(scheme, self.counts, geometry) {
            let scales = scales.split_off_mut(..unit.scales.len()).unwrap_or_default();
            let offsets = offsets.split_off_mut(..unit.offsets.len()).unwrap_or_default();
            let codes = codes.split_off_mut(..unit.codes.len()).unwrap_or_default();
            jobs.push((unit, scales, offsets, codes));
        }
        let all = jobs.into_par_iter().map_init(
            Buffers::default,
            |buffers, (unit, scales, offsets, codes)| {
                let rows = at_least(&mut buffers.rows, unit.values(geometry));
                for (index, rows) in unit.heads_mut(rows, geometry).enumerate() {
                    let first = sinks + unit.first;
                    let start = ((unit.head + index) * geometry.tokens + first) * geometry.head_dim;
                    T::widen(&values[start..start + rows.len()], rows);
                }
                // The rest knows f32 only: it is compiled once, not for each type.
                arch.dispatch(Encode { context, unit: &unit, buffers, scales, offsets, codes })
            },
        );
        let apart = StoredRange { in_range: apart, overflow: 0.0 };
        all.reduce(|| StoredRange::NOTHING, StoredRange::and).and(apart)
    }

    fn fill_sinks<T: Element>(&mut self, values: &[T], geometry: &Geometry) -> bool {
        let dim = geometry.head_dim;
        let row = self.counts.sinks * dim;
        if row == 0 {
            return true;
        }
        let mut wide = vec![0f32; row];
        let mut finite = true;
        let heads = values.chunks_exact(geometry.tokens * dim);
        for (sinks, head) in self.sinks.chunks_exact_mut(row).zip(heads) {
            T::widen(&head[..row], &mut wide);
            PowerOfTwo::scale(-self.exponent, &mut wide);
            finite &= T::to_16_bits(&wide, sinks);
        }
        finite
    }

    fn fill_means<T: Element>(&mut self, arch: Arch, values: &[T], geometry: &Geometry) -> bool {
        let dim = geometry.head_dim;
        if self.means.is_empty() || self.counts.quantised == 0 {
            return true;
        }
        let (scheme, exponent, counts) = (&self.scheme, self.exponent, self.counts);
        let (tensor_scale, sinks) = (self.tensor_scale(), counts.sinks);
        let (passes, means) = (0, &[][..]);
        let context = RowContext { geometry, scheme, exponent, tensor_scale, passes, means, sinks };
        let mean = |rows: &mut Vec<f32>, (head, means): (usize, &mut [f16])| {
            let mut sums = vec![0f64; dim];
            for range in steps(counts.quantised, UNIT.div_ceil(dim)) {
                let rows = at_least(rows, range.len() * dim);
                let start = (head * geometry.tokens + counts.sinks + range.start) * dim;
                T::widen(&values[start..start + rows.len()], rows);
                arch.dispatch(AddRows { context, rows, first: range.start, sums: &mut sums });
            }
            let mut finite = true;
            for (mean, sum) in means.iter_mut().zip(sums) {
                *mean = f16::from_f32((sum / counts.quantised as f64) as f32);
                finite &= mean.is_finite();
            }
            finite
        };
        let heads = self.means.par_chunks_exact_mut(dim).enumerate();
        heads.map_init(Vec::new, mean).reduce(|| true, |a, b| a & b)
    }

    /// Writes the decoded values. `geometry` is that of compression.
    pub fn decompress<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        self.decompress_on(Arch::new(), geometry, out);
    }

    pub(in crate::codec) fn decompress_on<T: Element>(
        &self,
        arch: Arch,
        geometry: &Geometry,
        out: &mut [T],
    ) {
        assert_eq!(out.len(), self.values, "output of another length than the payload");
        self.decode_sinks(geometry, out);
        let Self { scheme, exponent, means, counts, .. } = self;
        let (dim, exponent, tensor_scale) = (geometry.head_dim, *exponent, self.tensor_scale());
        let sinks = counts.sinks;
        let passes = 0;
        let context = RowContext { geometry, scheme, exponent, tensor_scale, passes, means, sinks };
        let sinks = sinks * dim;
        let mut jobs = Vec::new();
        let mut rest = &mut out[..];
        for unit in units(&self.scheme, self.counts, geometry) {
            // Rows of several heads in a unit come with their sinks.
            let skip = if unit.first == 0 { sinks } else { 0 };
            let len = unit.values(geometry) + (unit.heads - 1) * sinks;
            let _ = rest.split_off_mut(..skip);
            jobs.push((unit, rest.split_off_mut(..len).unwrap_or_default()));
        }
        jobs.into_par_iter().for_each_init(Buffers::default, |buffers, (unit, out)| {
            arch.dispatch(Decode {
                context,
                scales: &self.scales[unit.scales.clone()],
                offsets: &self.offsets[unit.offsets.clone()],
                codes: &self.codes[unit.codes.clone()],
                unit: &unit,
                buffers,
            });
            // From the first row of the unit to its last, sinks of heads between them included.
            let apart = sinks + unit.rows * dim;
            let rows = at_least(&mut buffers.rows, unit.values(geometry));
            let heads = unit.heads_mut(rows, geometry).zip(out.chunks_mut(apart.max(1)));
            for (rows, out) in heads {
                T::narrow_saturating(rows, &mut out[..rows.len()]);
            }
        });
    }

    fn decode_sinks<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        let row = self.counts.sinks * geometry.head_dim;
        if row == 0 {
            return;
        }
        let mut wide = vec![0f32; row];
        let heads = out.chunks_exact_mut(geometry.tokens * geometry.head_dim);
        for (sinks, head) in self.sinks.chunks_exact(row).zip(heads) {
            T::from_16_bits(sinks, &mut wide);
            PowerOfTwo::scale(self.exponent, &mut wide);
            T::narrow_saturating(&wide, &mut head[..row]);
        }
    }

    fn tensor_scale(&self) -> f32 {
        self.tensor_scale.first().copied().unwrap_or(1.0)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values
    }

    /// The parts that the scheme has, in the order of a file.
    pub fn parts(&self) -> Vec<Part<&[u8]>> {
        let bytes = |name| match name {
            PartName::Values | PartName::Tail | PartName::ColumnScales => &[],
            PartName::Sinks => bytemuck::cast_slice(&self.sinks),
            PartName::Means => bytemuck::cast_slice(&self.means),
            PartName::TensorScale => bytemuck::cast_slice(&self.tensor_scale),
            PartName::Scales => &self.scales,
            PartName::Minima | PartName::Zeros => bytemuck::cast_slice(&self.offsets),
            PartName::Codes => &self.codes[..],
        };
        self.layout.iter().map(|part| part.with(bytes(part.name))).collect()
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<Part<&mut [u8]>> {
        let Self { scheme, layout, sinks, means, tensor_scale, scales, offsets, codes, .. } = self;
        let offset = scheme.levels.offsets().unwrap_or(PartName::Minima);
        let bytes: [(PartName, &mut [u8]); 6] = [
            (PartName::Sinks, bytemuck::cast_slice_mut(sinks)),
            (PartName::Means, bytemuck::cast_slice_mut(means)),
            (PartName::TensorScale, bytemuck::cast_slice_mut(tensor_scale)),
            (PartName::Scales, scales),
            (offset, bytemuck::cast_slice_mut(offsets)),
            (PartName::Codes, codes),
        ];
        let own = |name| layout.iter().find(|part| part.name == name);
        bytes.into_iter().filter_map(|(name, bytes)| Some(own(name)?.with(bytes))).collect()
    }
}

/// What the largest magnitude of a tensor is in units of its scale: the largest level of E2M1 times
/// the largest scale in E4M3.
const LARGEST_OF_TENSOR: f32 = 6.0 * 448.0;

/// The largest magnitude of a tensor with an exponent lies from 2⁶ up to 2⁷: rotations and means
/// make numbers larger, which f16 has room for, and scales are smaller.
const TOP: i32 = 6;

/// Of the exponent after that: what is stored of sinks and means, below 2⁸, stays finite.
const MOST_UP: i32 = -8;
