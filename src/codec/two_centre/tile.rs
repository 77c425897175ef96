//! A tile: one block of channels of up to 16 tokens.
//!
//! Each channel is a row of lanes with a token in each, so that tokens have scales, centres and
//! sums of their own without a step from lane to lane. Where vectors are narrower than a row, its
//! *columns* are worked on one after the other.

use super::blocks::{Blocks, MOST, rotate_block};
use super::coder::BlockCoder;
use super::definition::{Block, HeadContext, Sizes};
use super::feedback::Feedback;
use super::levels::{Fit, Scales, scale};
use crate::lanes::{LANES, Lanes, get, set, transpose};
use pulp::Simd;
use std::ops::Range;

/// Tokens of a tile at most: one a lane.
pub(super) const TOKENS: usize = LANES;
/// In a scale's byte: the centre is the first token.
const FIRST: u8 = 0x80;

/// Buffers kept from tile to tile.
#[repr(C, align(64))]
pub(super) struct TileBuffers {
    y: Block,
    coder: BlockCoder,
    /// All channels of the head vectors, in rows, and as many more as fill a square.
    channels: Vec<Lanes>,
}

impl TileBuffers {
    pub fn new(context: &HeadContext) -> Self {
        let Sizes { dim, blocks, .. } = context.sizes;
        Self {
            y: [[0.0; LANES]; MOST],
            coder: BlockCoder::new(context.codec.levels, blocks),
            channels: vec![[0.0; LANES]; dim.next_multiple_of(LANES)],
        }
    }
}

/// The centres that tokens of one head may lie around, as decoders know them: channels block by
/// block. [head_dim] each
pub(super) struct Centres {
    /// The channel of each place.
    channels: Vec<usize>,
    mean: Vec<f32>,
    first: Vec<f32>,
    /// From the mean to the first token, and the middle of both.
    line: Vec<f32>,
    middle: Vec<f32>,
}

impl Centres {
    pub fn new(mean: &[f32], first: &[f32], blocks: Blocks) -> Self {
        let channels: Vec<usize> = blocks.channels().collect();
        let placed = |x: &[f32]| -> Vec<f32> { channels.iter().map(|at| x[*at]).collect() };
        let (mean, first) = (placed(mean), placed(first));
        let both = || mean.iter().zip(&first);
        let line = both().map(|(mean, first)| first - mean).collect();
        let middle = both().map(|(mean, first)| 0.5 * first + 0.5 * mean).collect();
        Self { channels, line, middle, mean, first }
    }
}

/// Tokens that share a mean.
pub(super) struct Tile<'a> {
    pub context: &'a HeadContext<'a>,
    pub centres: &'a Centres,
    pub tokens: usize,
}

impl Tile<'_> {
    /// `rows`: [16, head_dim], before RoPE; becomes what is decoded. `scales` and `codes` are those
    /// of `tokens`, `feedback` that of each block, or none. Gives whether all scales are there.
    #[inline(always)]
    pub fn encode<S: Simd>(
        &self,
        simd: S,
        feedback: &[Option<Feedback>],
        rows: &mut [f32],
        scales: &mut [u8],
        codes: &mut [u8],
        buffers: &mut TileBuffers,
    ) -> Fit {
        let Sizes { blocks: Blocks { size, count, .. }, dim, bytes, .. } = self.context.sizes;
        let TileBuffers { y, coder, channels } = buffers;
        gather(simd, rows, dim, channels);
        let mut fit = Fit::Within;
        for index in 0..count {
            let places = index * size..(index + 1) * size;
            for (row, channel) in y.iter_mut().zip(&self.centres.channels[places.clone()]) {
                *row = channels[*channel];
            }
            let nearness = self.nearness(simd, places.clone(), y);
            for column in 0..LANES / S::F32_LANES {
                self.move_by(simd, -1.0, places.clone(), &nearness, y, column);
                rotate_block(simd, &mut y[..size], column);
            }
            let feedback = feedback.get(index).and_then(Option::as_ref);
            let Scales { codes: chosen, fits } = coder.encode(simd, feedback, y);
            fit = fits[..self.tokens].iter().copied().fold(fit, Fit::max);
            self.back(simd, places.clone(), &nearness, y);
            for (row, channel) in y.iter().zip(&self.centres.channels[places]) {
                channels[*channel] = *row;
            }
            for token in 0..self.tokens {
                let at = token * count + index;
                let is_first = if nearness[token] > 0.0 { FIRST } else { 0 };
                scales[at] = chosen[token] as u8 | is_first;
                coder.write(token, &mut codes[at * bytes..][..bytes]);
            }
        }
        scatter(simd, channels, dim, rows);
        fit
    }

    /// `rows`: [16, head_dim], before RoPE.
    #[inline(always)]
    pub fn decode<S: Simd>(
        &self,
        simd: S,
        scales: &[u8],
        codes: &[u8],
        rows: &mut [f32],
        buffers: &mut TileBuffers,
    ) {
        let Sizes { blocks: Blocks { size, count, .. }, dim, bytes, .. } = self.context.sizes;
        let TileBuffers { y, coder, channels } = buffers;
        for index in 0..count {
            let places = index * size..(index + 1) * size;
            let (mut units, mut nearness) = ([0f32; LANES], [0f32; LANES]);
            for token in 0..self.tokens {
                let at = token * count + index;
                let byte = scales[at];
                units[token] = scale(i32::from(byte & !FIRST));
                nearness[token] = f32::from(byte / FIRST);
                coder.read(token, &codes[at * bytes..][..bytes]);
            }
            coder.decode(simd, &units, y);
            self.back(simd, places.clone(), &nearness, y);
            for (row, channel) in y.iter().zip(&self.centres.channels[places]) {
                channels[*channel] = *row;
            }
        }
        scatter(simd, channels, dim, rows);
    }

    /// Rotates back, and adds the centre.
    #[inline(always)]
    fn back<S: Simd>(&self, simd: S, places: Range<usize>, nearness: &Lanes, y: &mut Block) {
        for column in 0..LANES / S::F32_LANES {
            rotate_block(simd, &mut y[..places.len()], column);
            self.move_by(simd, 1.0, places.clone(), nearness, y, column);
        }
    }

    /// The choice of centre of each token: above 0 for those that are nearer to the first one than to the mean: how far they are
    /// beyond the middle of both.
    #[inline(always)]
    fn nearness<S: Simd>(&self, simd: S, places: Range<usize>, y: &Block) -> Lanes {
        let mut nearness = [0f32; LANES];
        let (lines, _) = self.centres.line[places.clone()].as_chunks::<4>();
        let (middles, _) = self.centres.middle[places].as_chunks::<4>();
        for column in 0..LANES / S::F32_LANES {
            // Four sums, which do not wait for each other.
            let mut sums = [simd.splat_f32s(0.0); 4];
            for ((rows, lines), middles) in y.as_chunks::<4>().0.iter().zip(lines).zip(middles) {
                for (((sum, row), line), middle) in
                    sums.iter_mut().zip(rows).zip(lines).zip(middles)
                {
                    let beyond = simd.sub_f32s(get::<S>(row, column), simd.splat_f32s(*middle));
                    *sum = simd.mul_add_f32s(simd.splat_f32s(*line), beyond, *sum);
                }
            }
            let [a, b, c, d] = sums;
            let sum = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
            set::<S>(&mut nearness, column, sum);
        }
        nearness
    }

    /// Adds `sign` times each token's centre.
    #[inline(always)]
    fn move_by<S: Simd>(
        &self,
        simd: S,
        sign: f32,
        places: Range<usize>,
        nearness: &Lanes,
        y: &mut Block,
        column: usize,
    ) {
        let is_first = simd.less_than_f32s(simd.splat_f32s(0.0), get::<S>(nearness, column));
        let (means, firsts) = (&self.centres.mean[places.clone()], &self.centres.first[places]);
        for ((row, mean), first) in y.iter_mut().zip(means).zip(firsts) {
            let (mean, first) = (simd.splat_f32s(sign * mean), simd.splat_f32s(sign * first));
            let centre = simd.select_f32s(is_first, first, mean);
            set::<S>(row, column, simd.add_f32s(get::<S>(row, column), centre));
        }
    }
}

/// Rows of `dim` channels, transposed.
#[inline(always)]
fn gather<S: Simd>(simd: S, rows: &[f32], dim: usize, channels: &mut [Lanes]) {
    for (start, square) in (0..dim).step_by(LANES).zip(channels.as_chunks_mut().0) {
        let width = LANES.min(dim - start);
        for (lanes, row) in square.iter_mut().zip(rows.chunks_exact(dim)) {
            match row[start..].first_chunk() {
                Some(row) => *lanes = *row,
                None => lanes[..width].copy_from_slice(&row[start..]),
            }
        }
        transpose(simd, square);
    }
}

/// The way back. Turns `channels` too.
#[inline(always)]
fn scatter<S: Simd>(simd: S, channels: &mut [Lanes], dim: usize, rows: &mut [f32]) {
    for (start, square) in (0..dim).step_by(LANES).zip(channels.as_chunks_mut().0) {
        let width = LANES.min(dim - start);
        transpose(simd, square);
        for (lanes, row) in square.iter().zip(rows.chunks_exact_mut(dim)) {
            match row[start..].first_chunk_mut() {
                Some(row) => *row = *lanes,
                None => row[start..].copy_from_slice(&lanes[..width]),
            }
        }
    }
}
