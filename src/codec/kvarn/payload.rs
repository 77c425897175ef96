//! A tensor packed by KVarN: the way there and back.

use super::definition::{Kvarn, Sizes, TILE};
use super::tile::{Buffers, DecodeTile, EncodeTile, TileContext, TileParts};
use crate::codec::element::{Element, finite_absmax};
use crate::codec::exponent::{PowerOfTwo, exponent_placing};
use crate::codec::geometry::Geometry;
use crate::codec::parts::{Part, PartElement, PartName};
use half::f16;
use pulp::Arch;
use rayon::prelude::*;

/// A tensor stored by KVarN.
#[derive(Debug, Clone, PartialEq)]
pub struct KvarnPayload {
    codec: Kvarn,
    values: usize,
    sizes: Sizes,
    /// All numbers are stored divided by two to this power.
    pub exponent: i32,
    /// The type of the tail's elements.
    source: PartElement,
    /// [heads, tail, dim]
    tail: Vec<u16>,
    /// [heads, tiles, columns]
    column_scales: Vec<f16>,
    /// [heads, tiles, rows]
    scales: Vec<f16>,
    /// [heads, tiles, rows]
    minima: Vec<f16>,
    /// [heads, tiles, rows, columns]
    codes: Vec<u8>,
}

impl KvarnPayload {
    /// With room for its parts, which are zero.
    pub fn empty<T: Element>(codec: Kvarn, values: usize, geometry: &Geometry) -> Self {
        let sizes = Sizes::new(&codec, values, geometry);
        let tiles = sizes.all_tiles();
        Self {
            codec,
            values,
            sizes,
            exponent: 0,
            source: PartElement::half_of::<T>(),
            tail: vec![0; sizes.heads * sizes.tail * sizes.dim],
            column_scales: vec![f16::ZERO; tiles * sizes.columns],
            scales: vec![f16::ZERO; tiles * sizes.rows],
            minima: vec![f16::ZERO; tiles * sizes.rows],
            codes: vec![0; tiles * sizes.code_bytes],
        }
    }

    /// `None` where a value is not finite.
    pub fn compress<T: Element>(values: &[T], codec: Kvarn, geometry: &Geometry) -> Option<Self> {
        Self::compress_on(Arch::new(), values, codec, geometry)
    }

    /// The same with the instructions of `arch`, which do not change a bit.
    pub(in crate::codec) fn compress_on<T: Element>(
        arch: Arch,
        values: &[T],
        codec: Kvarn,
        geometry: &Geometry,
    ) -> Option<Self> {
        let absmax = finite_absmax(values)?;
        let mut packed = Self::empty::<T>(codec, values.len(), geometry);
        let is_tiny = absmax > 0.0 && absmax < f16::MIN_POSITIVE.to_f32();
        // One optimistic pass; the rare tensor out of range is done again.
        if is_tiny || !packed.fill(arch, values) {
            packed.exponent = exponent_placing(absmax.into(), TOP);
            packed.fill(arch, values);
        }
        Some(packed)
    }

    /// Stores everything with the exponent that is set; whether it fits.
    fn fill<T: Element>(&mut self, arch: Arch, values: &[T]) -> bool {
        let (context, sizes) = (self.context(), self.sizes);
        let tail_fits = self.fill_tail(values);
        let rows = sizes.rows.max(1);
        let tiles = (self.column_scales.chunks_exact_mut(sizes.columns.max(1)))
            .zip(self.scales.chunks_exact_mut(rows))
            .zip(self.minima.chunks_exact_mut(rows))
            .zip(self.codes.chunks_exact_mut(sizes.code_bytes.max(1)));
        let tiles = tiles.enumerate().map(|(index, (((column_scales, scales), minima), codes))| {
            (index, TileParts { column_scales, scales, minima, codes })
        });
        let tiles: Vec<_> = tiles.collect();
        let fits = tiles.into_par_iter().map_init(Buffers::default, |buffers, (index, parts)| {
            let tile = &values[sizes.start(index)..][..sizes.values()];
            T::widen(tile, buffers.rows(&sizes));
            // The rest knows f32 only: it is compiled once, not for each type.
            arch.dispatch(EncodeTile { context, buffers, parts })
        });
        fits.reduce(|| true, |a, b| a & b) & tail_fits
    }

    fn fill_tail<T: Element>(&mut self, values: &[T]) -> bool {
        let Sizes { tiles, tail, dim, .. } = self.sizes;
        let (row, before) = (tail * dim, tiles * TILE * dim);
        if row == 0 {
            return true;
        }
        let mut wide = vec![0f32; row];
        let mut fits = true;
        let heads = values.chunks_exact(before + row);
        for (kept, head) in self.tail.chunks_exact_mut(row).zip(heads) {
            T::widen(&head[before..], &mut wide);
            PowerOfTwo::scale(-self.exponent, &mut wide);
            fits &= T::to_16_bits(&wide, kept);
            // A sign is no value.
            let is_zero = kept.iter().all(|half| half << 1 == 0);
            fits &= !is_zero || wide.iter().all(|x| *x == 0.0);
        }
        fits
    }

    fn context(&self) -> TileContext {
        TileContext { codec: self.codec, sizes: self.sizes, exponent: self.exponent }
    }

    /// Writes the decoded values.
    pub fn decompress<T: Element>(&self, out: &mut [T]) {
        self.decompress_on(Arch::new(), out);
    }

    pub(in crate::codec) fn decompress_on<T: Element>(&self, arch: Arch, out: &mut [T]) {
        assert_eq!(out.len(), self.values, "output of another length than the payload");
        let (context, sizes) = (self.context(), self.sizes);
        let Sizes { tiles, tail, dim, rows, columns, code_bytes, .. } = sizes;
        let (row, before) = (tail * dim, tiles * TILE * dim);
        if self.values == 0 {
            return;
        }
        let mut jobs = Vec::new();
        for (head, out) in out.chunks_exact_mut(before + row).enumerate() {
            let (whole, rest) = out.split_at_mut(before);
            let own = whole.chunks_exact_mut(sizes.values()).enumerate();
            jobs.extend(own.map(|(tile, out)| (head * tiles + tile, out)));
            let mut wide = vec![0f32; row];
            T::from_16_bits(&self.tail[head * row..][..row], &mut wide);
            PowerOfTwo::scale(self.exponent, &mut wide);
            T::narrow_saturating(&wide, rest);
        }
        jobs.into_par_iter().for_each_init(Buffers::default, |buffers, (index, out)| {
            let parts = TileParts {
                column_scales: &self.column_scales[index * columns..][..columns],
                scales: &self.scales[index * rows..][..rows],
                minima: &self.minima[index * rows..][..rows],
                codes: &self.codes[index * code_bytes..][..code_bytes],
            };
            arch.dispatch(DecodeTile { context, buffers, parts });
            T::narrow_saturating(buffers.rows(&sizes), out);
        });
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values
    }

    /// The parts in the order of a file.
    pub fn parts(&self) -> Vec<Part<&[u8]>> {
        let half = PartElement::F16;
        vec![
            Part::new(PartName::Tail, self.source, bytemuck::cast_slice(&self.tail)),
            Part::new(PartName::ColumnScales, half, bytemuck::cast_slice(&self.column_scales)),
            Part::new(PartName::Scales, half, bytemuck::cast_slice(&self.scales)),
            Part::new(PartName::Minima, half, bytemuck::cast_slice(&self.minima)),
            Part::new(PartName::Codes, PartElement::U8, &self.codes),
        ]
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<Part<&mut [u8]>> {
        let half = PartElement::F16;
        let column_scales = bytemuck::cast_slice_mut(&mut self.column_scales);
        vec![
            Part::new(PartName::Tail, self.source, bytemuck::cast_slice_mut(&mut self.tail)),
            Part::new(PartName::ColumnScales, half, column_scales),
            Part::new(PartName::Scales, half, bytemuck::cast_slice_mut(&mut self.scales)),
            Part::new(PartName::Minima, half, bytemuck::cast_slice_mut(&mut self.minima)),
            Part::new(PartName::Codes, PartElement::U8, &mut self.codes),
        ]
    }
}

/// The largest magnitude of a tensor with an exponent lies from 2² up to 2³: rotated, a head vector of any
/// length stays below what f16 holds.
const TOP: i32 = 2;
