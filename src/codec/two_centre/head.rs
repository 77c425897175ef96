//! One head: its tokens in order, which the running mean asks for.

use super::tile::{TOKENS, Tile, TileBuffers, Writing};
use super::{Shape, TwoCentre};
use crate::codec::element::Element;
use crate::codec::scalar::PowerOfTwo;
use crate::codec::scheme::Geometry;
use crate::codec::transform::Rope;
use half::f16;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// What the heads of a tensor have in common.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub codec: TwoCentre,
    pub shape: Shape,
    pub exponent: i32,
    pub geometry: &'a Geometry<'a>,
}

impl Head<'_> {
    fn rope(&self) -> Option<&Rope> {
        self.geometry.rope.filter(|_| self.codec.prerope)
    }

    /// Rows of one head, the first at token `token`: widened, scaled, before RoPE.
    #[inline(always)]
    fn widen<S: Simd, T: Element>(&self, simd: S, values: &[T], token: usize, rows: &mut [f32]) {
        T::widen(values, rows);
        if self.exponent != 0 {
            let down = PowerOfTwo::new(-self.exponent);
            for x in rows.iter_mut() {
                *x = down.times(*x);
            }
        }
        if let Some(rope) = self.rope() {
            for (index, row) in rows.chunks_exact_mut(self.shape.dim).enumerate() {
                rope.turn(simd, self.geometry.first + token + index, true, row);
            }
        }
    }

    /// The way back.
    #[inline(always)]
    fn narrow<S: Simd, T: Element>(&self, simd: S, rows: &mut [f32], token: usize, out: &mut [T]) {
        if let Some(rope) = self.rope() {
            for (index, row) in rows.chunks_exact_mut(self.shape.dim).enumerate() {
                rope.turn(simd, self.geometry.first + token + index, false, row);
            }
        }
        if self.exponent != 0 {
            let up = PowerOfTwo::new(self.exponent);
            for x in rows.iter_mut() {
                *x = up.times(*x);
            }
        }
        T::narrow_saturating(rows, out);
    }

    /// Tokens from 1 on in runs that have one mean.
    fn segments(&self) -> Vec<Range<usize>> {
        let end = self.shape.rows + 1;
        let starts = (1..usize::BITS - 1).flat_map(|n| [1 << n, 3 << (n - 1)]);
        let starts: Vec<usize> =
            [1].into_iter().chain(starts.take_while(|start| *start < end)).collect();
        let ends = starts.iter().skip(1).copied().chain([end]);
        starts.iter().zip(ends).map(|(start, end)| *start..end).filter(|s| !s.is_empty()).collect()
    }
}

/// What came of storing values.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Filled {
    /// Their largest magnitude; infinite or NaN when one of them is.
    pub absmax: f32,
    /// Whether everything stored is in its type's range.
    pub in_range: bool,
}

impl Filled {
    pub const NOTHING: Self = Self { absmax: 0.0, in_range: true };

    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        let (a, b) = (self.absmax, other.absmax);
        let absmax = if b > a || b.is_nan() { b } else { a };
        Self { absmax, in_range: self.in_range & other.in_range }
    }
}

fn widened(halves: &[f16]) -> Vec<f32> {
    halves.iter().map(|half| half.to_f32()).collect()
}

/// The mean of what was decoded so far, channel by channel, as f16; 0 without any.
struct RunningMean {
    sums: Vec<f64>,
    tokens: usize,
}

impl RunningMean {
    fn new(dim: usize) -> Self {
        Self { sums: vec![0.0; dim], tokens: 0 }
    }

    /// One row after the other.
    #[inline(always)]
    fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.sums.len()) {
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
            self.tokens += 1;
        }
    }

    fn mean(&self) -> Vec<f32> {
        let tokens = self.tokens.max(1) as f64;
        self.sums.iter().map(|sum| f16::from_f32((sum / tokens) as f32).to_f32()).collect()
    }
}

pub(super) struct EncodeHead<'a, T> {
    pub head: Head<'a>,
    /// [tokens, head_dim]
    pub values: &'a [T],
    pub first: &'a mut [f16],
    pub scales: &'a mut [u8],
    pub codes: &'a mut [u8],
}

impl<T: Element> WithSimd for EncodeHead<'_, T> {
    type Output = Filled;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Filled {
        match self.head.shape.block {
            64 => self.run::<S, 64, 4>(simd),
            32 => self.run::<S, 32, 2>(simd),
            16 => self.run::<S, 16, 1>(simd),
            _ => self.run::<S, 8, 1>(simd),
        }
    }
}

impl<T: Element> EncodeHead<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const N: usize, const ROWS: usize>(self, simd: S) -> Filled {
        let Self { head, values, first, scales, codes } = self;
        let Shape { dim, bytes, .. } = head.shape;
        let blocks = head.shape.blocks();
        let (mut rows, mut decoded) = (Rows::new(dim), Rows::new(dim));
        let row = rows.first(dim);
        head.widen(simd, &values[..dim], 0, row);
        for (half, x) in first.iter_mut().zip(row) {
            *half = f16::from_f32(*x);
        }
        let mut filled = Filled {
            absmax: T::absmax(&values[..dim]),
            in_range: first.iter().all(|half| half.is_finite()),
        };
        let first = widened(first);
        let mut running = RunningMean::new(dim);
        let mut buffers = TileBuffers::new();
        for segment in head.segments() {
            let mean = running.mean();
            for start in segment.clone().step_by(TOKENS) {
                let tokens = TOKENS.min(segment.end - start);
                let values = &values[start * dim..][..tokens * dim];
                let rows = rows.first(tokens * dim);
                head.widen(simd, values, start, rows);
                let decoded = decoded.first(tokens * dim);
                let mut in_range = true;
                for index in 0..blocks {
                    let at = (start - 1) * blocks + index;
                    let tile = Tile::<N, ROWS>::new(&head, index, tokens, &mean, &first);
                    let writing = Writing {
                        scales: &mut scales[at..],
                        codes: &mut codes[at * bytes..],
                        decoded,
                    };
                    in_range &= tile.encode(simd, rows, writing, &mut buffers);
                }
                filled = filled.and(Filled { absmax: T::absmax(values), in_range });
                running.add(decoded);
            }
        }
        filled
    }
}

pub(super) struct DecodeHead<'a, T> {
    pub head: Head<'a>,
    pub first: &'a [f16],
    pub scales: &'a [u8],
    pub codes: &'a [u8],
    /// [tokens, head_dim]
    pub out: &'a mut [T],
}

impl<T: Element> WithSimd for DecodeHead<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.head.shape.block {
            64 => self.run::<S, 64, 4>(simd),
            32 => self.run::<S, 32, 2>(simd),
            16 => self.run::<S, 16, 1>(simd),
            _ => self.run::<S, 8, 1>(simd),
        }
    }
}

impl<T: Element> DecodeHead<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const N: usize, const ROWS: usize>(self, simd: S) {
        let Self { head, first, scales, codes, out } = self;
        let Shape { dim, bytes, .. } = head.shape;
        let blocks = head.shape.blocks();
        let first = widened(first);
        head.narrow(simd, &mut first.clone(), 0, &mut out[..dim]);
        let mut running = RunningMean::new(dim);
        let mut rows = Rows::new(dim);
        for segment in head.segments() {
            let mean = running.mean();
            for start in segment.clone().step_by(TOKENS) {
                let tokens = TOKENS.min(segment.end - start);
                let rows = rows.first(tokens * dim);
                for index in 0..blocks {
                    let at = (start - 1) * blocks + index;
                    let tile = Tile::<N, ROWS>::new(&head, index, tokens, &mean, &first);
                    tile.decode(simd, &scales[at..], &codes[at * bytes..], rows);
                }
                running.add(rows);
                head.narrow(simd, rows, start, &mut out[start * dim..][..tokens * dim]);
            }
        }
    }
}

/// Room for the rows of a tile, at the start of a cache line.
struct Rows(Vec<f32>);

impl Rows {
    const LINE: usize = 64;

    fn new(dim: usize) -> Self {
        Self(vec![0.0; TOKENS * dim + Self::LINE / size_of::<f32>()])
    }

    fn first(&mut self, len: usize) -> &mut [f32] {
        let skip = self.0.as_ptr().align_offset(Self::LINE);
        &mut self.0[skip..][..len]
    }
}
