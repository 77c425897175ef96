//! A tile: one block of channels of up to 16 tokens.
//!
//! Each channel is a row of lanes with a token in each, so that tokens have scales, centres and
//! sums of their own without a step from lane to lane. Where vectors are narrower than a row, its
//! *columns* are worked on one after the other.

use super::blocks::{Blocks, MOST, rotate_block};
use super::definition::{Block, HeadContext, Sizes};
use super::feedback::Feedback;
use super::levels::{FittedLevels, Quantiser, Scales, scale};
use super::noise_shaping::Shaping;
use crate::lanes::{LANES, Lanes, TWO_23, get, set, transpose, whole};
use pulp::Simd;
use std::ops::Range;

/// Tokens of a tile at most: one a lane.
pub(super) const TOKENS: usize = LANES;
/// In a scale's byte: the centre is the first token.
const FIRST: u8 = 0x80;

/// Buffers kept from tile to tile.
///
/// Blocks are two pages each: `words` between them keeps a processor from taking a load from one
/// for a load of what was just stored to another.
#[repr(C, align(64))]
pub(super) struct TileBuffers {
    y: Block,
    words: Words,
    codes: Block,
    apart: [Lanes; 5],
    errors: Block,
    /// All channels of the head vectors, in rows, and as many more as fill a square.
    channels: Vec<Lanes>,
}

/// Four codes a word, of L levels: word w holds those of channels w, w + N/4, w + N/2 and w + 3N/4
/// of a block of N, c₀ + L·(c₁ + L·(c₂ + L·c₃)).
#[repr(align(64))]
struct Words {
    /// Bits of words of N/4 channels, tokens in lanes or the other way round.
    low: [[Lanes; LANES]; MOST / 4 / LANES],
    /// The highest bits of each token's words, those of the first lowest.
    high: Lanes,
}

impl TileBuffers {
    pub fn new(dim: usize) -> Self {
        let block = [[0.0; LANES]; MOST];
        let low = [[[0.0; LANES]; LANES]; MOST / 4 / LANES];
        Self {
            y: block,
            words: Words { low, high: [0.0; LANES] },
            codes: block,
            apart: [[0.0; LANES]; 5],
            errors: block,
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
    ) -> bool {
        let Sizes { blocks: Blocks { size, count, .. }, dim, bytes, .. } = self.context.sizes;
        let levels = self.context.codec.levels;
        let TileBuffers { y, codes: digits, words, errors, channels, .. } = buffers;
        gather(simd, rows, dim, channels);
        let mut in_range = true;
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
            let Scales { codes: chosen, fits } = levels.curve().choose_scales(simd, &y[..size]);
            in_range &= fits[..self.tokens].iter().all(|fits| *fits);
            let mut units = [0f32; LANES];
            for (unit, code) in units.iter_mut().zip(chosen) {
                *unit = scale(code);
            }
            for column in 0..LANES / S::F32_LANES {
                // y becomes what it is decoded to.
                let quantiser = Quantiser::new(levels.curve(), &units, column);
                if let Some(Some(feedback)) = feedback.get(index) {
                    let (quantiser, codes) = (&quantiser, &mut *digits);
                    let (y, errors) = (&mut *y, &mut *errors);
                    Shaping { simd, quantiser, feedback, column, size, y, codes, errors }.run();
                } else {
                    for (y, digit) in y[..size].iter_mut().zip(digits.iter_mut()) {
                        let (code, decoded) = quantiser.nearest(simd, get::<S>(y, column));
                        set::<S>(digit, column, code);
                        set::<S>(y, column, decoded);
                    }
                }
                words.join(simd, levels.count(), &digits[..size], column);
            }
            self.back(simd, places.clone(), &nearness, y);
            for (row, channel) in y.iter().zip(&self.centres.channels[places]) {
                channels[*channel] = *row;
            }
            words.turn(simd, size);
            for token in 0..self.tokens {
                let at = token * count + index;
                let is_first = if nearness[token] > 0.0 { FIRST } else { 0 };
                scales[at] = chosen[token] as u8 | is_first;
                words.write(token, size, &mut codes[at * bytes..][..bytes]);
            }
        }
        scatter(simd, channels, dim, rows);
        in_range
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
        let levels = self.context.codec.levels;
        let TileBuffers { y, words, channels, .. } = buffers;
        for index in 0..count {
            let places = index * size..(index + 1) * size;
            let (mut units, mut nearness) = ([0f32; LANES], [0f32; LANES]);
            for token in 0..self.tokens {
                let at = token * count + index;
                let byte = scales[at];
                units[token] = scale(i32::from(byte & !FIRST));
                nearness[token] = f32::from(byte / FIRST);
                words.read(token, size, &codes[at * bytes..][..bytes]);
            }
            words.turn(simd, size);
            for column in 0..LANES / S::F32_LANES {
                words.split(simd, levels, &mut y[..size], column);
                let unit = get::<S>(&units, column);
                for y in &mut y[..size] {
                    let value = levels.curve().value(simd, get::<S>(y, column), unit);
                    set::<S>(y, column, value);
                }
            }
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

impl Words {
    /// Swaps channels and tokens, of a block of so many channels.
    #[inline(always)]
    fn turn<S: Simd>(&mut self, simd: S, size: usize) {
        for square in &mut self.low[..(size / 4).div_ceil(LANES)] {
            transpose(simd, square);
        }
    }

    /// Of codes, channels in rows.
    #[inline(always)]
    fn join<S: Simd>(&mut self, simd: S, count: f32, codes: &[Lanes], column: usize) {
        let (count, magic) = (simd.splat_f32s(count), simd.splat_f32s(TWO_23));
        let (bits, highest) = (simd.splat_u32s(0x7f_ffff), simd.splat_u32s(16));
        let quarter = codes.len() / 4;
        let mut high = simd.splat_u32s(0);
        for (index, word) in self.low.as_flattened_mut()[..quarter].iter_mut().enumerate() {
            let mut sum = simd.splat_f32s(0.0);
            for place in (0..4).rev() {
                let code = get::<S>(&codes[index + place * quarter], column);
                sum = simd.mul_add_f32s(count, sum, code);
            }
            let sum = simd.transmute_u32s_f32s(simd.add_f32s(sum, magic));
            let sum = simd.and_u32s(sum, bits);
            let top = simd.wrapping_dyn_shr_u32s(sum, highest);
            let top = simd.wrapping_dyn_shl_u32s(top, simd.splat_u32s(index as u32));
            high = simd.or_u32s(high, top);
            set::<S>(word, column, simd.transmute_f32s_u32s(sum));
        }
        set::<S>(&mut self.high, column, simd.transmute_f32s_u32s(high));
    }

    /// The low 16 bits of a token's words, two bytes each, and then, of 19 levels, the highest
    /// bits, eight a byte.
    #[inline(always)]
    fn write(&self, token: usize, block: usize, out: &mut [u8]) {
        let (low, top) = out.split_at_mut(block / 2);
        let (low, _) = low.as_chunks_mut::<2>();
        for (low, square) in low.chunks_mut(LANES).zip(&self.low) {
            let mut words = [[0u8; 2]; LANES];
            for (bytes, word) in words.iter_mut().zip(&square[token]) {
                *bytes = (word.to_bits() as u16).to_le_bytes();
            }
            match low.first_chunk_mut() {
                Some(low) => *low = words,
                None => low.copy_from_slice(&words[..low.len()]),
            }
        }
        for (byte, high) in top.iter_mut().zip(self.high[token].to_bits().to_le_bytes()) {
            *byte = high;
        }
    }

    #[inline(always)]
    fn read(&mut self, token: usize, block: usize, from: &[u8]) {
        let (low, top) = from.split_at(block / 2);
        let mut high = [0u8; 4];
        for (high, byte) in high.iter_mut().zip(top) {
            *high = *byte;
        }
        self.high[token] = f32::from_bits(u32::from_le_bytes(high));
        let (low, _) = low.as_chunks::<2>();
        for (low, square) in low.chunks(LANES).zip(&mut self.low) {
            let mut words = [[0u8; 2]; LANES];
            match low.first_chunk() {
                Some(low) => words = *low,
                None => words[..low.len()].copy_from_slice(low),
            }
            for (word, bytes) in square[token].iter_mut().zip(words) {
                *word = f32::from_bits(u32::from(u16::from_le_bytes(bytes)));
            }
        }
    }

    /// The numbers of the levels that codes stand for: code + lowest, channels in rows. A word beyond the largest,
    /// which no writer writes, has a last code that is too large: it counts as the largest.
    #[inline(always)]
    fn split<S: Simd>(&self, simd: S, levels: FittedLevels, n: &mut [Lanes], column: usize) {
        let (count, lowest) = (levels.count(), levels.curve().lowest);
        let (last, share) = (simd.splat_f32s(count - 1.0), simd.splat_f32s(1.0 / count));
        let (count, lowest) = (simd.splat_f32s(count), simd.splat_f32s(lowest));
        let (magic, bits) = (simd.splat_f32s(TWO_23), simd.splat_u32s(TWO_23.to_bits()));
        let (one, highest) = (simd.splat_u32s(1), simd.splat_u32s(16));
        let high = simd.transmute_u32s_f32s(get::<S>(&self.high, column));
        let quarter = n.len() / 4;
        for (index, word) in self.low.as_flattened()[..quarter].iter().enumerate() {
            let top = simd.wrapping_dyn_shr_u32s(high, simd.splat_u32s(index as u32));
            let top = simd.wrapping_dyn_shl_u32s(simd.and_u32s(top, one), highest);
            let word = simd.transmute_u32s_f32s(get::<S>(word, column));
            let word = simd.or_u32s(simd.or_u32s(word, top), bits);
            let mut left = simd.sub_f32s(simd.transmute_f32s_u32s(word), magic);
            for place in 0..3 {
                // Levels lie around 0: the nearest multiple of L is what the others make up, and
                // nothing lies near the border.
                let centred = simd.add_f32s(left, lowest);
                left = whole(simd, simd.mul_f32s(centred, share));
                let n = &mut n[index + place * quarter];
                set::<S>(n, column, simd.negate_mul_add_f32s(count, left, centred));
            }
            let last = simd.add_f32s(simd.min_f32s(left, last), lowest);
            set::<S>(&mut n[index + 3 * quarter], column, last);
        }
    }
}
