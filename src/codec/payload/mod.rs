//! A tensor packed by any [`Scheme`]: the way there and back.
//!
//! Work goes in *units* of whole rows (head vectors), whose groups and bytes belong to no other
//! unit: a few rows of one head where groups do not leave a row, a whole head where groups run
//! along channels, and everything at once where groups cross rows. Rows are widened to f32 and
//! mapped, groups are quantised, codes are packed, while all of it is in a core's cache. Which
//! units does not change a bit.

mod rows;
mod units;

use super::bits::packed_len;
use super::element::{Element, Kind};
use super::scalar::PowerOfTwo;
use super::scheme::{Geometry, Part, PartSizes, Scheme, steps};
use half::{bf16, f16};
use pulp::Arch;
use rayon::prelude::*;
use rows::{AddRows, Buffers, Decode, Encode, Fit, at_least};
use units::{UNIT, Unit, Units};

/// The parts of a packed tensor, as they are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemePayload {
    scheme: Scheme,
    values: usize,
    sizes: PartSizes,
    /// All numbers are stored divided by two to this power.
    pub exponent: i32,
    /// In the 16-bit type of the source, f16 for one of f32; [heads, sinks, head_dim].
    sinks: Vec<u16>,
    /// Whether that type is bf16.
    brain: bool,
    /// [heads, head_dim]
    means: Vec<f16>,
    /// Of f16 or of a byte each, little-endian; [groups].
    scales: Vec<u8>,
    /// [groups]
    minima: Vec<f16>,
    codes: Vec<u8>,
}

impl SchemePayload {
    /// With room for its parts, which are zero.
    pub fn empty<T: Element>(scheme: Scheme, values: usize, geometry: &Geometry) -> Self {
        let sizes = PartSizes::new(&scheme, values, geometry);
        let held = sizes.heads * (sizes.sinks + sizes.body) * geometry.head_dim;
        assert_eq!(held, values, "a geometry of another number of values");
        let count = |part| sizes.count(part).unwrap_or(0);
        Self {
            scheme,
            values,
            sizes,
            exponent: 0,
            sinks: vec![0; count(Part::Sinks)],
            brain: T::KIND == Kind::Bf16,
            means: vec![f16::ZERO; count(Part::Means)],
            scales: vec![0; scheme.scale_bytes() * count(Part::Scales)],
            minima: vec![f16::ZERO; count(Part::Minima)],
            codes: vec![0; count(Part::Codes)],
        }
    }

    /// `None` where a value is not finite.
    pub fn compress<T: Element>(values: &[T], scheme: Scheme, geometry: &Geometry) -> Option<Self> {
        Self::compress_on(Arch::new(), values, scheme, geometry)
    }

    /// The same with the instructions of `arch`, which do not change a bit.
    pub(super) fn compress_on<T: Element>(
        arch: Arch,
        values: &[T],
        scheme: Scheme,
        geometry: &Geometry,
    ) -> Option<Self> {
        let absmax = values.par_chunks(1 << 15).map(T::absmax);
        let absmax = absmax.reduce(|| 0.0, |a, b| f32::absmax(&[a, b]));
        if !absmax.is_finite() {
            return None;
        }
        let mut packed = Self::empty::<T>(scheme, values.len(), geometry);
        // One optimistic pass; the rare tensor out of range is done again.
        if packed.fill(arch, values, geometry).in_range {
            return Some(packed);
        }
        packed.exponent = exponent_for(absmax);
        let excess = packed.fill(arch, values, geometry).excess;
        // Scales of 8 bits reach less far: the largest is put at the top of them. Those of f16 can
        // be too large still where a rotation adds up some 2^15 values.
        if excess > 1.0 || scheme.small_scales && excess > 0.0 {
            packed.exponent += (f64::from(excess).log2().ceil() as i32).max(MOST_UP);
            packed.fill(arch, values, geometry);
        }
        Some(packed)
    }

    /// Stores everything with the exponent that is set.
    fn fill<T: Element>(&mut self, arch: Arch, values: &[T], geometry: &Geometry) -> Fit {
        let apart = self.fill_sinks(values, geometry) & self.fill_means(arch, values, geometry);
        let units = Units::new(&self.scheme, &self.sizes, geometry);
        let (scheme, exponent, means) = (&self.scheme, self.exponent, &self.means);
        let has_minimum = scheme.levels.has_minimum();
        let mut jobs = Vec::new();
        {
            let (mut scales, mut codes) = (&mut self.scales[..], &mut self.codes[..]);
            let mut minima = &mut self.minima[..];
            for unit in units.iter() {
                let groups = unit.groups(scheme, geometry);
                let own = scales.split_off_mut(..scheme.scale_bytes() * groups).unwrap_or_default();
                let low = minima.split_off_mut(..if has_minimum { groups } else { 0 });
                let bytes = packed_len(unit.values(geometry), scheme.bits);
                let code = codes.split_off_mut(..bytes).unwrap_or_default();
                jobs.push((unit, own, low.unwrap_or_default(), code));
            }
        }
        let sizes = &self.sizes;
        let run = |buffers: &mut Buffers, (unit, scales, minima, codes): UnitParts| {
            let rows = at_least(&mut buffers.rows, unit.values(geometry));
            for (index, rows) in unit.heads_mut(rows, geometry).enumerate() {
                let first = sizes.sinks + unit.first;
                let start = ((unit.head + index) * geometry.tokens + first) * geometry.head_dim;
                T::widen(&values[start..start + rows.len()], rows);
            }
            // What follows knows f32 only: it is compiled once, not for each type.
            arch.dispatch(Encode {
                geometry,
                scheme,
                exponent,
                means,
                unit,
                sinks: sizes.sinks,
                buffers,
                scales,
                minima,
                codes,
            })
        };
        let all = jobs.into_par_iter().map_init(Buffers::default, run);
        all.reduce(|| Fit::NOTHING, Fit::and).and(Fit { in_range: apart, excess: 0.0 })
    }

    fn fill_sinks<T: Element>(&mut self, values: &[T], geometry: &Geometry) -> bool {
        let dim = geometry.head_dim;
        let row = self.sizes.sinks * dim;
        if row == 0 {
            return true;
        }
        let down = PowerOfTwo::new(-self.exponent);
        let mut wide = vec![0f32; row];
        let mut finite = true;
        let heads = values.chunks_exact(geometry.tokens * dim);
        for (sinks, head) in self.sinks.chunks_exact_mut(row).zip(heads) {
            T::widen(&head[..row], &mut wide);
            wide.iter_mut().for_each(|x| *x = down.times(*x));
            finite &= T::to_16_bits(&wide, sinks);
        }
        finite
    }

    fn fill_means<T: Element>(&mut self, arch: Arch, values: &[T], geometry: &Geometry) -> bool {
        let dim = geometry.head_dim;
        if self.means.is_empty() || self.sizes.body == 0 {
            return true;
        }
        let (scheme, exponent, sizes) = (&self.scheme, self.exponent, &self.sizes);
        let mean = |rows: &mut Vec<f32>, (head, means): (usize, &mut [f16])| {
            let mut sums = vec![0f64; dim];
            for range in steps(sizes.body, UNIT.div_ceil(dim)) {
                let rows = at_least(rows, range.len() * dim);
                let first = sizes.sinks + range.start;
                let start = (head * geometry.tokens + first) * dim;
                T::widen(&values[start..start + rows.len()], rows);
                let (first, sums) = (geometry.first + first, &mut sums);
                arch.dispatch(AddRows { geometry, scheme, exponent, rows, first, sums });
            }
            let mut finite = true;
            for (mean, sum) in means.iter_mut().zip(sums) {
                *mean = f16::from_f32((sum / sizes.body as f64) as f32);
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

    pub(super) fn decompress_on<T: Element>(&self, arch: Arch, geometry: &Geometry, out: &mut [T]) {
        assert_eq!(out.len(), self.values, "output of another length than the payload");
        self.decode_sinks(geometry, out);
        let (scheme, dim) = (&self.scheme, geometry.head_dim);
        let units = Units::new(scheme, &self.sizes, geometry);
        let has_minimum = scheme.levels.has_minimum();
        let mut jobs = Vec::new();
        {
            let (mut scales, mut codes) = (&self.scales[..], &self.codes[..]);
            let (mut minima, mut rest) = (&self.minima[..], &mut out[..]);
            let sinks = self.sizes.sinks * dim;
            for unit in units.iter() {
                let groups = unit.groups(scheme, geometry);
                let own = scales.split_off(..scheme.scale_bytes() * groups).unwrap_or_default();
                let low = minima.split_off(..if has_minimum { groups } else { 0 });
                let bytes = packed_len(unit.values(geometry), scheme.bits);
                let code = codes.split_off(..bytes).unwrap_or_default();
                // Rows of several heads in a unit come with their sinks.
                let skip = if unit.first == 0 { sinks } else { 0 };
                let len = unit.values(geometry) + (unit.heads - 1) * sinks;
                let _ = rest.split_off_mut(..skip);
                let rows = rest.split_off_mut(..len).unwrap_or_default();
                jobs.push((unit, own, low.unwrap_or_default(), code, rows));
            }
        }
        jobs.into_par_iter().for_each_init(
            Buffers::default,
            |buffers, (unit, scales, minima, codes, out)| {
                arch.dispatch(Decode {
                    geometry,
                    scheme,
                    exponent: self.exponent,
                    means: &self.means,
                    sinks: self.sizes.sinks,
                    unit,
                    buffers,
                    scales,
                    minima,
                    codes,
                });
                // From the first row of the unit to its last, sinks of heads between them included.
                let apart = (self.sizes.sinks + unit.rows) * dim;
                let rows = at_least(&mut buffers.rows, unit.values(geometry));
                let heads = unit.heads_mut(rows, geometry).zip(out.chunks_mut(apart.max(1)));
                for (rows, out) in heads {
                    T::narrow_saturating(rows, &mut out[..rows.len()]);
                }
            },
        );
    }

    fn decode_sinks<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        let row = self.sizes.sinks * geometry.head_dim;
        if row == 0 {
            return;
        }
        let up = PowerOfTwo::new(self.exponent);
        let mut wide = vec![0f32; row];
        let heads = out.chunks_exact_mut(geometry.tokens * geometry.head_dim);
        for (sinks, head) in self.sinks.chunks_exact(row).zip(heads) {
            T::from_16_bits(sinks, &mut wide);
            wide.iter_mut().for_each(|x| *x = up.times(*x));
            T::narrow_saturating(&wide, &mut head[..row]);
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values
    }

    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// The bytes of each part that the scheme has, in order.
    pub fn parts(&self) -> Vec<&[u8]> {
        let bytes: [&[u8]; 5] = [
            bytemuck::cast_slice(&self.sinks),
            bytemuck::cast_slice(&self.means),
            &self.scales,
            bytemuck::cast_slice(&self.minima),
            &self.codes,
        ];
        let there = Part::ALL.into_iter().zip(bytes);
        there.filter(|(part, _)| self.sizes.count(*part).is_some()).map(|(_, b)| b).collect()
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<&mut [u8]> {
        let sizes = self.sizes;
        let bytes: [&mut [u8]; 5] = [
            bytemuck::cast_slice_mut(&mut self.sinks),
            bytemuck::cast_slice_mut(&mut self.means),
            &mut self.scales,
            bytemuck::cast_slice_mut(&mut self.minima),
            &mut self.codes,
        ];
        let there = Part::ALL.into_iter().zip(bytes);
        there.filter(|(part, _)| sizes.count(*part).is_some()).map(|(_, b)| b).collect()
    }

    /// Whether all numbers but codes are finite, as every writer's are.
    pub fn is_finite(&self) -> bool {
        let finite = |bits: &[u16]| bits.iter().all(|bits| f16::from_bits(*bits).is_finite());
        let scales = self.scales.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let sinks = if self.brain {
            self.sinks.iter().all(|bits| bf16::from_bits(*bits).is_finite())
        } else {
            finite(&self.sinks)
        };
        sinks
            && self.means.iter().chain(&self.minima).all(|half| half.is_finite())
            && (self.scheme.small_scales || finite(&scales.collect::<Vec<_>>()))
    }
}

/// Puts the largest magnitude between 2⁶ and 2⁷: rotations and means make numbers larger, which f16
/// has room for, and scales are smaller.
fn exponent_for(absmax: f32) -> i32 {
    f64::from(absmax).log2().floor() as i32 - 6
}

/// Of the exponent after that: what is stored of sinks and means, below 2⁸, stays finite.
const MOST_UP: i32 = -8;

type UnitParts<'a> = (Unit, &'a mut [u8], &'a mut [f16], &'a mut [u8]);
