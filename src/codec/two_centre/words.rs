//! Codes of levels that are coded one by one: four a word.

use super::blocks::MOST;
use super::levels::LevelCurve;
use crate::lanes::{LANES, Lanes, TWO_23, get, set, transpose, whole};
use pulp::Simd;

/// Four codes a word, of L levels: word w holds those of channels w, w + N/4, w + N/2 and w + 3N/4
/// of a block of N, c₀ + L·(c₁ + L·(c₂ + L·c₃)).
#[repr(align(64))]
pub(super) struct Words {
    /// Bits of words of N/4 channels, tokens in lanes or the other way round.
    low: [[Lanes; LANES]; MOST / 4 / LANES],
    /// The highest bits of each token's words, those of the first lowest.
    high: Lanes,
}

impl Words {
    pub fn new() -> Self {
        let low = [[[0.0; LANES]; LANES]; MOST / 4 / LANES];
        Self { low, high: [0.0; LANES] }
    }

    /// Swaps channels and tokens, of a block of so many channels.
    #[inline(always)]
    pub fn turn<S: Simd>(&mut self, simd: S, size: usize) {
        for square in &mut self.low[..(size / 4).div_ceil(LANES)] {
            transpose(simd, square);
        }
    }

    /// Of codes, channels in rows.
    #[inline(always)]
    pub fn join<S: Simd>(&mut self, simd: S, count: f32, codes: &[Lanes], column: usize) {
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
    pub fn write(&self, token: usize, block: usize, out: &mut [u8]) {
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
    pub fn read(&mut self, token: usize, block: usize, from: &[u8]) {
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
    pub fn split<S: Simd>(&self, simd: S, curve: &LevelCurve, n: &mut [Lanes], column: usize) {
        let (count, lowest) = (curve.count(), curve.lowest);
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
