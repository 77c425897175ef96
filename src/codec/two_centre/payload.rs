//! A tensor packed with two centres: the way there and back.

use super::definition::{HeadContext, Sizes, TwoCentre};
use super::head::{DecodeHead, EncodeHead, StoredRange};
use super::levels::Fit;
use crate::codec::element::Element;
use crate::codec::exponent::exponent_placing;
use crate::codec::geometry::Geometry;
use crate::codec::parts::{Part, PartElement, PartName};
use half::f16;
use pulp::Arch;
use rayon::prelude::*;

/// A tensor stored with two centres.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoCentrePayload {
    codec: TwoCentre,
    values: usize,
    sizes: Sizes,
    /// All numbers are stored divided by two to this power.
    pub exponent: i32,
    /// The first token, before RoPE if keys are. [heads, head_dim]
    first: Vec<f16>,
    /// Scale codes and choices of centre. [heads, tokens − 1, blocks]
    scales: Vec<u8>,
    /// [heads, tokens − 1, blocks, bytes]
    codes: Vec<u8>,
}

impl TwoCentrePayload {
    pub fn empty(codec: TwoCentre, values: usize, geometry: &Geometry) -> Self {
        let sizes = Sizes::new(&codec, values, geometry);
        Self {
            codec,
            values,
            sizes,
            exponent: 0,
            first: vec![f16::ZERO; sizes.heads * sizes.dim],
            scales: vec![0; sizes.all_blocks()],
            codes: vec![0; sizes.all_blocks() * sizes.bytes],
        }
    }

    /// `None` where a value is not finite.
    pub fn compress<T: Element>(
        values: &[T],
        codec: TwoCentre,
        geometry: &Geometry,
    ) -> Option<Self> {
        Self::compress_on(Arch::new(), values, codec, geometry)
    }

    /// The same with the instructions of `arch`, which do not change a bit.
    pub(in crate::codec) fn compress_on<T: Element>(
        arch: Arch,
        values: &[T],
        codec: TwoCentre,
        geometry: &Geometry,
    ) -> Option<Self> {
        let mut payload = Self::empty(codec, values.len(), geometry);
        // One optimistic pass; the rare tensor out of range is done again.
        let filled = payload.fill(arch, values, geometry);
        if !filled.absmax.is_finite() {
            return None;
        }
        if filled.fit != Fit::Within {
            let exponent = exponent_placing(filled.absmax.into(), TOP);
            // With a positive one even more is too small.
            if filled.fit == Fit::Beyond || exponent < 0 {
                payload.exponent = exponent;
                payload.fill(arch, values, geometry);
            }
        }
        Some(payload)
    }

    fn fill<T: Element>(&mut self, arch: Arch, values: &[T], geometry: &Geometry) -> StoredRange {
        if self.values == 0 {
            return StoredRange::NOTHING;
        }
        let (context, sizes) = (self.context(geometry), self.sizes);
        let per_head = sizes.rows * sizes.blocks.count;
        let (mut scales, mut codes) = (&mut self.scales[..], &mut self.codes[..]);
        let heads = values.chunks_exact(geometry.tokens * sizes.dim);
        let heads = heads.zip(self.first.chunks_exact_mut(sizes.dim)).map(|(values, first)| {
            // Of no bytes where there is but one token.
            let scales = scales.split_off_mut(..per_head).unwrap_or_default();
            let codes = codes.split_off_mut(..per_head * sizes.bytes).unwrap_or_default();
            EncodeHead { context: &context, values, first, scales, codes }
        });
        let heads: Vec<_> = heads.collect();
        let filled = heads.into_par_iter().map(|head| head.run(arch));
        filled.reduce(|| StoredRange::NOTHING, StoredRange::and)
    }

    fn context<'a>(&self, geometry: &'a Geometry) -> HeadContext<'a> {
        let Self { codec, sizes, exponent, .. } = *self;
        HeadContext { codec, sizes, exponent, geometry }
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
        if self.values == 0 {
            return;
        }
        let (context, sizes) = (self.context(geometry), self.sizes);
        let per_head = sizes.rows * sizes.blocks.count;
        out.par_chunks_exact_mut(geometry.tokens * sizes.dim).enumerate().for_each(
            |(index, out)| {
                let blocks = index * per_head..(index + 1) * per_head;
                let head = DecodeHead {
                    context: &context,
                    first: &self.first[index * sizes.dim..][..sizes.dim],
                    scales: &self.scales[blocks.clone()],
                    codes: &self.codes[blocks.start * sizes.bytes..blocks.end * sizes.bytes],
                    out,
                };
                head.run(arch);
            },
        );
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values
    }

    /// The parts in the order of a file.
    pub fn parts(&self) -> Vec<Part<&[u8]>> {
        vec![
            Part::new(PartName::Sinks, PartElement::F16, bytemuck::cast_slice(&self.first)),
            Part::new(PartName::Scales, PartElement::U8, &self.scales),
            Part::new(PartName::Codes, PartElement::U8, &self.codes),
        ]
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<Part<&mut [u8]>> {
        let first = bytemuck::cast_slice_mut(&mut self.first);
        vec![
            Part::new(PartName::Sinks, PartElement::F16, first),
            Part::new(PartName::Scales, PartElement::U8, &mut self.scales),
            Part::new(PartName::Codes, PartElement::U8, &mut self.codes),
        ]
    }
}

/// The largest magnitude of a tensor with an exponent lies from 2² up to 2³: less its centre and
/// rotated, a block stays below the largest scale.
const TOP: i32 = 2;
