//! One head: its tokens in order, which the running mean asks for.

use super::blocks::Blocks;
use super::definition::{HeadContext, Sizes};
use super::feedback::Feedback;
use super::levels::Fit;
use super::tile::{Centres, TOKENS, Tile, TileBuffers};
use crate::codec::element::Element;
use half::f16;
use pulp::{Arch, Simd, WithSimd};

/// Tokens from 1 on, a few at a time that have one mean.
fn steps(sizes: Sizes) -> impl Iterator<Item = Step> {
    let end = sizes.rows + 1;
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

/// Tokens that are worked on together.
struct Step {
    token: usize,
    tokens: usize,
    /// Whether the mean is taken anew before it.
    takes_mean: bool,
    /// Whether a later mean needs them.
    adds_to_mean: bool,
}

/// The range of values, and whether their stored form fits its types.
#[derive(Clone, Copy)]
pub(super) struct StoredRange {
    /// Their largest magnitude; infinite or NaN when one of them is.
    pub absmax: f32,
    /// Whether everything stored is in its type's range.
    pub fit: Fit,
}

impl StoredRange {
    pub const NOTHING: Self = Self { absmax: 0.0, fit: Fit::Within };

    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        let absmax = f32::absmax(&[self.absmax, other.absmax]);
        Self { absmax, fit: self.fit.max(other.fit) }
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

/// The centres of one head, as known on the way through its tokens.
struct RunningCentres {
    first: Vec<f32>,
    running: RunningMean,
    blocks: Blocks,
    centres: Centres,
}

impl RunningCentres {
    fn new(first: &[f16], blocks: Blocks) -> Self {
        let first: Vec<f32> = first.iter().map(|half| half.to_f32()).collect();
        let running = RunningMean::new(first.len());
        let centres = Centres::new(&running.mean(), &first, blocks);
        Self { first, running, blocks, centres }
    }

    fn at(&mut self, step: &Step) -> (&Centres, Option<&mut RunningMean>) {
        if step.takes_mean {
            self.centres = Centres::new(&self.running.mean(), &self.first, self.blocks);
        }
        (&self.centres, step.adds_to_mean.then_some(&mut self.running))
    }
}

/// One head, from values to stored parts.
pub(super) struct EncodeHead<'a, T> {
    pub context: &'a HeadContext<'a>,
    /// [tokens, head_dim]
    pub values: &'a [T],
    pub first: &'a mut [f16],
    pub scales: &'a mut [u8],
    pub codes: &'a mut [u8],
}

impl<T: Element> EncodeHead<'_, T> {
    pub fn run(self, arch: Arch) -> StoredRange {
        let Self { context, values, first, scales, codes } = self;
        let Sizes { dim, bytes, .. } = context.sizes;
        let mut buffers = Buffers::new(context);
        let (rows, tiles) = buffers.both();
        let row = &mut rows[..dim];
        T::widen(&values[..dim], row);
        let absmax = f32::absmax(row);
        arch.dispatch(RotateFirst { context, back: true, row });
        for (half, x) in first.iter_mut().zip(row) {
            *half = f16::from_f32(*x);
        }
        let is_finite = first.iter().all(|half| half.is_finite());
        let fit = if is_finite { Fit::Within } else { Fit::Beyond };
        let mut range = StoredRange { absmax, fit };
        let mut known = RunningCentres::new(first, context.sizes.blocks);
        let feedback = match context.codec.shaped {
            true => context.feedback(),
            false => Vec::new(),
        };
        for step in steps(context.sizes) {
            let own = step.token * dim..(step.token + step.tokens) * dim;
            T::widen(&values[own.clone()], &mut rows[..own.len()]);
            let at = (step.token - 1) * context.sizes.blocks.count;
            let (centres, running) = known.at(&step);
            range = range.and(arch.dispatch(EncodeTile {
                tile: Tile { context, centres, tokens: step.tokens },
                token: step.token,
                feedback: &feedback,
                rows,
                scales: &mut scales[at..],
                codes: &mut codes[at * bytes..],
                running,
                buffers: tiles,
            }));
        }
        range
    }
}

/// One head, from stored parts to values.
pub(super) struct DecodeHead<'a, T> {
    pub context: &'a HeadContext<'a>,
    pub first: &'a [f16],
    pub scales: &'a [u8],
    pub codes: &'a [u8],
    /// [tokens, head_dim]
    pub out: &'a mut [T],
}

impl<T: Element> DecodeHead<'_, T> {
    pub fn run(self, arch: Arch) {
        let Self { context, first, scales, codes, out } = self;
        let Sizes { dim, bytes, .. } = context.sizes;
        let mut buffers = Buffers::new(context);
        let (rows, tiles) = buffers.both();
        let mut known = RunningCentres::new(first, context.sizes.blocks);
        let row = &mut rows[..dim];
        row.copy_from_slice(&known.first);
        arch.dispatch(RotateFirst { context, back: false, row });
        T::narrow_saturating(row, &mut out[..dim]);
        for step in steps(context.sizes) {
            let at = (step.token - 1) * context.sizes.blocks.count;
            let (centres, running) = known.at(&step);
            arch.dispatch(DecodeTile {
                tile: Tile { context, centres, tokens: step.tokens },
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

// The rest knows f32 only: it is compiled once, not for each type.

/// The first token's head vector.
struct RotateFirst<'a> {
    context: &'a HeadContext<'a>,
    back: bool,
    row: &'a mut [f32],
}

impl WithSimd for RotateFirst<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.back {
            true => self.context.before_rope(simd, 0, self.row),
            false => self.context.after_rope(simd, 0, self.row),
        }
    }
}

struct EncodeTile<'a> {
    tile: Tile<'a>,
    /// The first of them.
    token: usize,
    /// Of each block; none where errors are not shaped.
    feedback: &'a [Option<Feedback>],
    rows: &'a mut [f32],
    scales: &'a mut [u8],
    codes: &'a mut [u8],
    running: Option<&'a mut RunningMean>,
    buffers: &'a mut TileBuffers,
}

impl WithSimd for EncodeTile<'_> {
    type Output = StoredRange;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> StoredRange {
        let Self { tile, token, feedback, rows, scales, codes, running, buffers } = self;
        let own = tile.tokens * tile.context.sizes.dim;
        let absmax = f32::absmax(&rows[..own]);
        tile.context.before_rope(simd, token, &mut rows[..own]);
        let fit = tile.encode(simd, feedback, rows, scales, codes, buffers);
        if let Some(running) = running {
            running.add(&rows[..own]);
        }
        StoredRange { absmax, fit }
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
        let own = tile.tokens * tile.context.sizes.dim;
        tile.decode(simd, scales, codes, rows, buffers);
        if let Some(running) = running {
            running.add(&rows[..own]);
        }
        tile.context.after_rope(simd, token, &mut rows[..own]);
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

    fn new(context: &HeadContext) -> Self {
        let rows = vec![0.0; TOKENS * context.sizes.dim + Self::LINE / size_of::<f32>()];
        Self { rows, tiles: Box::new(TileBuffers::new(context)) }
    }

    fn both(&mut self) -> (&mut [f32], &mut TileBuffers) {
        let skip = self.rows.as_ptr().align_offset(Self::LINE);
        let len = self.rows.len() - Self::LINE / size_of::<f32>();
        (&mut self.rows[skip..][..len], &mut self.tiles)
    }
}
