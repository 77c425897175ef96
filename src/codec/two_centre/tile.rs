//! A tile: one block of channels of a few tokens.
//!
//! A block is rows of 16 lanes, one channel in each. Work goes in stages over all tokens, since
//! those do not wait for each other.

use super::head::Head;
use super::levels::{FittedLevels, LevelCurve, inverse, scale};
use super::shape::Shaping;
use crate::codec::transform::hadamard;
use crate::lanes::{LANES, Lanes, sum_of, whole};
use pulp::Simd;
use std::ops::Range;

/// Tokens of a tile at most.
pub(super) const TOKENS: usize = 16;
/// In a scale's byte: the centre is the first token.
const FIRST: u8 = 0x80;
/// Whole numbers below this are the low bits of their sum with it.
const TWO_23: f32 = 8_388_608.0;

/// A block of one token; one of 8 channels is there twice.
type Block<const ROWS: usize> = [Lanes; ROWS];

/// Up to [`TOKENS`] tokens of one block of N channels.
///
/// Stored parts begin at the block of the first token; the same block of the next is `blocks`
/// further.
pub(super) struct Tile<const N: usize, const ROWS: usize> {
    levels: FittedLevels,
    eighths: Option<usize>,
    dim: usize,
    blocks: usize,
    /// Of the codes of a block.
    bytes: usize,
    tokens: usize,
    channels: Range<usize>,
    /// The mean and the first token.
    centres: Aligned<[Block<ROWS>; 2]>,
}

#[repr(align(64))]
struct Aligned<T>(T);

/// What is kept from tile to tile to have it once.
#[repr(align(64))]
pub(super) struct TileBuffers<const ROWS: usize> {
    y: [Block<ROWS>; TOKENS],
    codes: [Block<ROWS>; TOKENS],
    shaping: Shaping,
}

impl<const ROWS: usize> TileBuffers<ROWS> {
    pub fn new() -> Self {
        let blocks = [[[0.0; LANES]; ROWS]; TOKENS];
        Self { y: blocks, codes: blocks, shaping: Shaping::new() }
    }
}

/// Where a tile is written to: stored parts, and [tokens, head_dim] as it is decoded, before RoPE.
pub(super) struct Writing<'a> {
    pub scales: &'a mut [u8],
    pub codes: &'a mut [u8],
    pub decoded: &'a mut [f32],
}

impl<const N: usize, const ROWS: usize> Tile<N, ROWS> {
    #[inline(always)]
    pub fn new(head: &Head, index: usize, tokens: usize, mean: &[f32], first: &[f32]) -> Self {
        let channels = index * N..(index + 1) * N;
        let mut centres = [[[0f32; LANES]; ROWS]; 2];
        for (centre, from) in centres.iter_mut().zip([mean, first]) {
            for lanes in centre.as_flattened_mut().chunks_exact_mut(N) {
                lanes.copy_from_slice(&from[channels.clone()]);
            }
        }
        Self {
            levels: head.codec.levels,
            eighths: head.codec.eighths(head.shape.dim),
            dim: head.shape.dim,
            blocks: head.shape.blocks(),
            bytes: head.shape.bytes,
            tokens,
            channels,
            centres: Aligned(centres),
        }
    }

    /// `rows`: [tokens, head_dim], before RoPE. Gives whether all scales are there.
    #[inline(always)]
    pub fn encode<S: Simd>(
        &self,
        simd: S,
        rows: &[f32],
        to: Writing,
        buffers: &mut TileBuffers<ROWS>,
    ) -> bool {
        let Writing { scales, codes, decoded } = to;
        let TileBuffers { y: ys, codes: digits, shaping } = buffers;
        let curve = self.levels.curve();
        let (mut chosen, mut is_first) = ([0i32; TOKENS], [0u8; TOKENS]);
        for ((y, row), is_first) in
            ys.iter_mut().zip(rows.chunks_exact(self.dim)).zip(&mut is_first)
        {
            for lanes in y.as_flattened_mut().chunks_exact_mut(N) {
                lanes.copy_from_slice(&row[self.channels.clone()]);
            }
            *is_first = self.subtract_nearer(simd, y);
            hadamard(simd, y.as_flattened_mut(), N);
        }
        let mut in_range = true;
        for (y, chosen) in ys[..self.tokens].iter().zip(&mut chosen) {
            let (code, fits) = curve.choose_scale(simd, y);
            *chosen = code;
            in_range &= fits;
        }
        // y becomes what it is decoded to.
        match self.eighths {
            Some(4) => self.shape::<S, 4>(simd, ys, digits, &chosen, shaping),
            Some(_) => self.shape::<S, 8>(simd, ys, digits, &chosen, shaping),
            None => {
                for ((y, digits), chosen) in ys.iter_mut().zip(digits.iter_mut()).zip(&chosen) {
                    nearest(simd, curve, scale(*chosen), y, digits);
                }
            }
        }
        for token in 0..self.tokens {
            let at = token * self.blocks;
            scales[at] = chosen[token] as u8 | (is_first[token] * FIRST);
            let codes = &mut codes[at * self.bytes..][..self.bytes];
            self.pack(simd, &digits[token], codes);
            let row = &mut decoded[token * self.dim..][self.channels.clone()];
            self.back(simd, &mut ys[token], is_first[token], row);
        }
        in_range
    }

    /// `rows`: [tokens, head_dim], before RoPE.
    #[inline(always)]
    pub fn decode<S: Simd>(&self, simd: S, scales: &[u8], codes: &[u8], rows: &mut [f32]) {
        let curve = self.levels.curve();
        for (token, row) in rows.chunks_exact_mut(self.dim).enumerate() {
            let at = token * self.blocks;
            let byte = scales[at];
            let unit = simd.splat_f32s(scale(i32::from(byte & !FIRST)));
            let mut y = Aligned([[0f32; LANES]; ROWS]);
            self.unpack(simd, &codes[at * self.bytes..][..self.bytes], &mut y.0);
            for y in S::as_mut_simd_f32s(y.0.as_flattened_mut()).0 {
                *y = curve.value(simd, *y, unit);
            }
            self.back(simd, &mut y.0, byte / FIRST, &mut row[self.channels.clone()]);
        }
    }

    /// Rotates back, adds the centre, and writes a row.
    #[inline(always)]
    fn back<S: Simd>(&self, simd: S, y: &mut Block<ROWS>, is_first: u8, row: &mut [f32]) {
        hadamard(simd, y.as_flattened_mut(), N);
        let (ys, _) = S::as_mut_simd_f32s(y.as_flattened_mut());
        let (centre, _) = S::as_simd_f32s(self.centres.0[usize::from(is_first)].as_flattened());
        for (y, centre) in ys.iter_mut().zip(centre) {
            *y = simd.add_f32s(*y, *centre);
        }
        row.copy_from_slice(&y.as_flattened()[..N]);
    }

    /// Leaves what is left without the nearer centre; 1 where that is the first token.
    #[inline(always)]
    fn subtract_nearer<S: Simd>(&self, simd: S, y: &mut Block<ROWS>) -> u8 {
        let mut left = Aligned([*y; 2]);
        let mut distances = [0f32; 2];
        for ((left, centre), distance) in left.0.iter_mut().zip(&self.centres.0).zip(&mut distances)
        {
            let (left, _) = S::as_mut_simd_f32s(left.as_flattened_mut());
            let (centre, _) = S::as_simd_f32s(centre.as_flattened());
            for (left, centre) in left.iter_mut().zip(centre) {
                *left = simd.sub_f32s(*left, *centre);
            }
            *distance = sum_of(
                simd,
                left,
                #[inline(always)]
                |sum, x| simd.mul_add_f32s(x, x, sum),
            );
        }
        let is_first = distances[1] < distances[0];
        *y = left.0[usize::from(is_first)];
        u8::from(is_first)
    }

    #[inline(always)]
    fn shape<S: Simd, const APART: usize>(
        &self,
        simd: S,
        ys: &mut [Block<ROWS>; TOKENS],
        digits: &mut [Block<ROWS>; TOKENS],
        chosen: &[i32; TOKENS],
        shaping: &mut Shaping,
    ) {
        for (token, y) in ys.iter().enumerate() {
            shaping.put::<APART>(token, y.as_flattened(), scale(chosen[token]));
        }
        shaping.run(simd, self.levels.curve());
        for (token, (y, digits)) in ys.iter_mut().zip(digits).enumerate() {
            shaping.take::<APART>(token, digits.as_flattened_mut(), y.as_flattened_mut());
        }
    }

    /// Four codes a word, of L levels: word w holds those of channels w, w + N/4, w + N/2 and
    /// w + 3N/4, c₀ + L·(c₁ + L·(c₂ + L·c₃)). The low 16 bits of all words come first, two bytes
    /// each; then, of 19 levels, the highest bits, eight a byte, the first lowest.
    #[inline(always)]
    fn pack<S: Simd>(&self, simd: S, digits: &Block<ROWS>, out: &mut [u8]) {
        let mut quarters = Aligned([[0f32; LANES]; 4]);
        let digits = digits.as_flattened();
        for (lanes, digits) in quarters.0.iter_mut().zip(digits[..N].chunks_exact(N / 4)) {
            lanes[..N / 4].copy_from_slice(digits);
        }
        let [c0, c1, c2, c3] = quarters.0.each_ref().map(|lanes| S::as_simd_f32s(lanes).0);
        let (count, magic) = (simd.splat_f32s(self.levels.count()), simd.splat_f32s(TWO_23));
        let mask = simd.splat_u32s(0x7f_ffff);
        let mut words = Aligned([0u32; LANES]);
        for (index, word) in S::as_mut_simd_u32s(&mut words.0).0.iter_mut().enumerate() {
            let sum = simd.mul_add_f32s(count, c3[index], c2[index]);
            let sum = simd.mul_add_f32s(count, sum, c1[index]);
            let sum = simd.mul_add_f32s(count, sum, c0[index]);
            let sum = simd.add_f32s(sum, magic);
            *word = simd.and_u32s(simd.transmute_u32s_f32s(sum), mask);
        }
        let (low, top) = out.split_at_mut(N / 2);
        for (low, word) in low.as_chunks_mut::<2>().0.iter_mut().zip(&words.0) {
            *low = (*word as u16).to_le_bytes();
        }
        let mut high = 0;
        for (index, word) in words.0.iter().enumerate() {
            high |= (word >> 16) << index;
        }
        top.copy_from_slice(&high.to_le_bytes()[..top.len()]);
    }

    /// What codes are the levels of: code + lowest. A word beyond the largest, which no writer
    /// writes, has a last code that is too large: it counts as the largest.
    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, from: &[u8], n: &mut Block<ROWS>) {
        let (low, top) = from.split_at(N / 2);
        let mut high = [0u8; 4];
        high[..top.len()].copy_from_slice(top);
        let high = u32::from_le_bytes(high);
        let mut words = Aligned([0u32; LANES]);
        for (word, low) in words.0.iter_mut().zip(low.as_chunks::<2>().0) {
            *word = u32::from(u16::from_le_bytes(*low));
        }
        for (index, word) in words.0.iter_mut().enumerate() {
            *word |= (high >> index & 1) << 16;
        }

        let count = self.levels.count();
        let lowest = self.levels.curve().lowest;
        let (last, share) = (simd.splat_f32s(count - 1.0), simd.splat_f32s(1.0 / count));
        let (count, lowest) = (simd.splat_f32s(count), simd.splat_f32s(lowest));
        let (magic, bits) = (simd.splat_f32s(TWO_23), simd.splat_u32s(TWO_23.to_bits()));
        let mut quarters = Aligned([[0f32; LANES]; 4]);
        let [c0, c1, c2, c3] =
            quarters.0.each_mut().map(|lanes| S::as_mut_simd_f32s(&mut lanes[..]).0);
        for (index, word) in S::as_simd_u32s(&words.0).0.iter().enumerate() {
            let left = simd.transmute_f32s_u32s(simd.or_u32s(*word, bits));
            let mut left = simd.sub_f32s(left, magic);
            for c in [&mut *c0, &mut *c1, &mut *c2] {
                // Levels lie around 0: the nearest multiple of L is what the others make up, and
                // nothing lies near the border.
                let centred = simd.add_f32s(left, lowest);
                left = whole(simd, simd.mul_f32s(centred, share));
                c[index] = simd.negate_mul_add_f32s(count, left, centred);
            }
            c3[index] = simd.add_f32s(simd.min_f32s(left, last), lowest);
        }
        for (n, lanes) in n.as_flattened_mut()[..N].chunks_exact_mut(N / 4).zip(&quarters.0) {
            n.copy_from_slice(&lanes[..N / 4]);
        }
    }
}

/// Codes of y, and what they stand for in its place.
#[inline(always)]
fn nearest<S: Simd, const ROWS: usize>(
    simd: S,
    curve: &LevelCurve,
    unit: f32,
    y: &mut Block<ROWS>,
    codes: &mut Block<ROWS>,
) {
    let (scale, inverse) = (simd.splat_f32s(unit), simd.splat_f32s(inverse(unit)));
    let lowest = simd.splat_f32s(curve.lowest);
    let (ys, _) = S::as_mut_simd_f32s(y.as_flattened_mut());
    let (codes, _) = S::as_mut_simd_f32s(codes.as_flattened_mut());
    for (y, code) in ys.iter_mut().zip(codes) {
        *code = curve.code(simd, simd.mul_f32s(*y, inverse));
        *y = curve.value(simd, simd.add_f32s(*code, lowest), scale);
    }
}
