//! One head: its tokens in order, which the running mean asks for.

use super::tile::{Centres, TOKENS, Tile, TileBuffers};
use super::{Shape, TwoCentre};
use crate::codec::element::Element;
use crate::codec::scalar::PowerOfTwo;
use crate::codec::scheme::Geometry;
use half::f16;
use pulp::{Arch, Simd, WithSimd};

/// What the heads of a tensor have in common.
#[derive(Clone, Copy)]
pub(super) struct Common<'a> {
    pub codec: TwoCentre,
    pub shape: Shape,
    pub exponent: i32,
    pub geometry: &'a Geometry<'a>,
}

impl Common<'_> {
    /// Rows of one head, the first at token `token`: scaled, and as they are before RoPE.
    #[inline(always)]
    fn turn_back<S: Simd>(&self, simd: S, token: usize, rows: &mut [f32]) {
        self.times_power(-self.exponent, rows);
        self.turn(simd, token, true, rows);
    }

    /// The way back.
    #[inline(always)]
    fn turn_on<S: Simd>(&self, simd: S, token: usize, rows: &mut [f32]) {
        self.turn(simd, token, false, rows);
        self.times_power(self.exponent, rows);
    }

    #[inline(always)]
    fn turn<S: Simd>(&self, simd: S, token: usize, back: bool, rows: &mut [f32]) {
        if let Some(rope) = self.geometry.rope.filter(|_| self.codec.prerope) {
            for (index, row) in rows.chunks_exact_mut(self.shape.dim).enumerate() {
                rope.turn(simd, self.geometry.first + token + index, back, row);
            }
        }
    }

    #[inline(always)]
    fn times_power(&self, exponent: i32, rows: &mut [f32]) {
        if exponent != 0 {
            let factor = PowerOfTwo::new(exponent);
            for x in rows {
                *x = factor.times(*x);
            }
        }
    }

    /// Tokens from 1 on, a few at a time that have one mean.
    fn steps(&self) -> impl Iterator<Item = Step> {
        let end = self.shape.rows + 1;
        let starts = [1].into_iter().chain((1..).flat_map(|n| [1 << n, 3 << (n - 1)]));
        let ends = (1..).flat_map(|n| [1 << n, 3 << (n - 1)]);
        let segments = starts.zip(ends).take_while(move |(start, _)| *start < end);
        segments.flat_map(move |(start, next)| {
            (start..next.min(end)).step_by(TOKENS).map(move |token| Step {
                token,
                tokens: TOKENS.min(next.min(end) - token),
                takes_mean: token == start,
                adds_to_mean: next < end,
            })
        })
    }
}

/// Tokens that are worked on together.
struct Step {
    token: usize,
    tokens: usize,
    /// Whether the mean is taken anew before it.
    takes_mean: bool,
    /// Whether a later mean needs them.
    adds_to_mean: bool,
}

/// What came of storing values.
#[derive(Clone, Copy)]
pub(super) struct Filled {
    /// Their largest magnitude; infinite or NaN when one of them is.
    pub absmax: f32,
    /// Whether everything stored is in its type's range.
    pub in_range: bool,
}

impl Filled {
    pub const NOTHING: Self = Self { absmax: 0.0, in_range: true };

    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        let absmax = f32::absmax(&[self.absmax, other.absmax]);
        Self { absmax, in_range: self.in_range & other.in_range }
    }
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

/// What is known of one head on the way through its tokens.
struct Way {
    first: Vec<f32>,
    running: RunningMean,
    centres: Centres,
}

impl Way {
    fn new(first: &[f16]) -> Self {
        let first: Vec<f32> = first.iter().map(|half| half.to_f32()).collect();
        let running = RunningMean::new(first.len());
        let centres = Centres::new(running.mean(), &first);
        Self { first, running, centres }
    }

    fn at(&mut self, step: &Step) -> (&Centres, Option<&mut RunningMean>) {
        if step.takes_mean {
            self.centres = Centres::new(self.running.mean(), &self.first);
        }
        (&self.centres, step.adds_to_mean.then_some(&mut self.running))
    }
}

/// One head, from values to stored parts.
pub(super) struct EncodeHead<'a, T> {
    pub common: &'a Common<'a>,
    /// [tokens, head_dim]
    pub values: &'a [T],
    pub first: &'a mut [f16],
    pub scales: &'a mut [u8],
    pub codes: &'a mut [u8],
}

impl<T: Element> EncodeHead<'_, T> {
    pub fn run(self, arch: Arch) -> Filled {
        let Self { common, values, first, scales, codes } = self;
        let Shape { dim, bytes, .. } = common.shape;
        let mut buffers = Buffers::new(dim);
        let (rows, tiles) = buffers.both();
        let row = &mut rows[..dim];
        T::widen(&values[..dim], row);
        let absmax = f32::absmax(row);
        arch.dispatch(TurnFirst { common, back: true, row });
        for (half, x) in first.iter_mut().zip(row) {
            *half = f16::from_f32(*x);
        }
        let in_range = first.iter().all(|half| half.is_finite());
        let mut filled = Filled { absmax, in_range };
        let mut way = Way::new(first);
        for step in common.steps() {
            let own = step.token * dim..(step.token + step.tokens) * dim;
            T::widen(&values[own.clone()], &mut rows[..own.len()]);
            let at = (step.token - 1) * common.shape.blocks();
            let (centres, running) = way.at(&step);
            filled = filled.and(arch.dispatch(EncodeTile {
                tile: Tile { common, centres, tokens: step.tokens },
                token: step.token,
                rows,
                scales: &mut scales[at..],
                codes: &mut codes[at * bytes..],
                running,
                buffers: tiles,
            }));
        }
        filled
    }
}

/// One head, from stored parts to values.
pub(super) struct DecodeHead<'a, T> {
    pub common: &'a Common<'a>,
    pub first: &'a [f16],
    pub scales: &'a [u8],
    pub codes: &'a [u8],
    /// [tokens, head_dim]
    pub out: &'a mut [T],
}

impl<T: Element> DecodeHead<'_, T> {
    pub fn run(self, arch: Arch) {
        let Self { common, first, scales, codes, out } = self;
        let Shape { dim, bytes, .. } = common.shape;
        let mut buffers = Buffers::new(dim);
        let (rows, tiles) = buffers.both();
        let mut way = Way::new(first);
        let row = &mut rows[..dim];
        row.copy_from_slice(&way.first);
        arch.dispatch(TurnFirst { common, back: false, row });
        T::narrow_saturating(row, &mut out[..dim]);
        for step in common.steps() {
            let at = (step.token - 1) * common.shape.blocks();
            let (centres, running) = way.at(&step);
            arch.dispatch(DecodeTile {
                tile: Tile { common, centres, tokens: step.tokens },
                token: step.token,
                rows,
                scales: &scales[at..],
                codes: &codes[at * bytes..],
                running,
                buffers: tiles,
            });
            let own = step.token * dim..(step.token + step.tokens) * dim;
            T::narrow_saturating(&rows[..own.len()], &mut out[own]);
        }
    }
}

// What follows knows f32 only: it is compiled once, not for each type.

/// The first token's head vector.
struct TurnFirst<'a> {
    common: &'a Common<'a>,
    back: bool,
    row: &'a mut [f32],
}

impl WithSimd for TurnFirst<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.back {
            true => self.common.turn_back(simd, 0, self.row),
            false => self.common.turn_on(simd, 0, self.row),
        }
    }
}

struct EncodeTile<'a> {
    tile: Tile<'a>,
    /// The first of them.
    token: usize,
    rows: &'a mut [f32],
    scales: &'a mut [u8],
    codes: &'a mut [u8],
    running: Option<&'a mut RunningMean>,
    buffers: &'a mut TileBuffers,
}

impl WithSimd for EncodeTile<'_> {
    type Output = Filled;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Filled {
        let Self { tile, token, rows, scales, codes, running, buffers } = self;
        let own = tile.tokens * tile.common.shape.dim;
        let absmax = f32::absmax(&rows[..own]);
        tile.common.turn_back(simd, token, &mut rows[..own]);
        let in_range = tile.encode(simd, rows, scales, codes, buffers);
        if let Some(running) = running {
            running.add(&rows[..own]);
        }
        Filled { absmax, in_range }
    }
}

struct DecodeTile<'a> {
    tile: Tile<'a>,
    token: usize,
    rows: &'a mut [f32],
    scales: &'a [u8],
    codes: &'a [u8],
    running: Option<&'a mut RunningMean>,
    buffers: &'a mut TileBuffers,
}

impl WithSimd for DecodeTile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, token, rows, scales, codes, running, buffers } = self;
        let own = tile.tokens * tile.common.shape.dim;
        tile.decode(simd, scales, codes, rows, buffers);
        if let Some(running) = running {
            running.add(&rows[..own]);
        }
        tile.common.turn_on(simd, token, &mut rows[..own]);
    }
}

/// For the tiles of one head.
struct Buffers {
    /// [16, head_dim], from the start of a cache line on.
    rows: Vec<f32>,
    tiles: Box<TileBuffers>,
}

impl Buffers {
    const LINE: usize = 64;

    fn new(dim: usize) -> Self {
        let rows = vec![0.0; TOKENS * dim + Self::LINE / size_of::<f32>()];
        Self { rows, tiles: Box::new(TileBuffers::new()) }
    }

    fn both(&mut self) -> (&mut [f32], &mut TileBuffers) {
        let skip = self.rows.as_ptr().align_offset(Self::LINE);
        let len = self.rows.len() - Self::LINE / size_of::<f32>();
        (&mut self.rows[skip..][..len], &mut self.tiles)
    }
}
