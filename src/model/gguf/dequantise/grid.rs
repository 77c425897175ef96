//! IQ1 to IQ3: runs of eight or four values that are rows of a grid, with signs apart, or (IQ1)
//! plus a small shift.

use super::grids::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use super::{Block, SUPER, half, run, split};

pub struct Iq1S;
pub struct Iq1M;
pub struct Iq2Xxs;
pub struct Iq2Xs;
pub struct Iq2S;
pub struct Iq3Xxs;
pub struct Iq3S;

/// A run of values with their signs, one bit each.
#[inline(always)]
fn signed(row: &[i8; 8], signs: u8, scale: f32, out: &mut [f32; 8]) {
    let row = *row;
    let mut whole = [0; 8];
    for (at, (whole, value)) in whole.iter_mut().zip(row).enumerate() {
        let negative = -(i32::from(signs) >> at & 1);
        *whole = (i32::from(value) ^ negative) - negative;
    }
    for (out, whole) in out.iter_mut().zip(whole) {
        *out = scale * whole as f32;
    }
}

/// Eight signs from seven bits: an even number of them is negative.
#[inline(always)]
fn eighth_sign(signs: u32) -> u8 {
    let signs = (signs & 127) as u8;
    signs | (signs.count_ones() as u8 & 1) << 7
}

#[inline(always)]
fn two_rows(rows: [&[i8; 4]; 2], signs: u8, scale: f32, out: &mut [f32; 8]) {
    let [first, second] = rows;
    signed(&concat(first, second), signs, scale, out);
}

#[inline(always)]
fn concat(first: &[i8; 4], second: &[i8; 4]) -> [i8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (*first, *second);
    [a, b, c, d, e, f, g, h]
}

/// f16 scale; for each 32 values four rows, then four times seven bits of signs and four of scale.
impl Block<66, SUPER> for Iq2Xxs {
    #[inline(always)]
    fn decode(block: &[u8; 66], out: &mut [f32; SUPER]) {
        let (scale, parts) = split::<2, 64, 66>(block);
        let all = half(scale);
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (rows, rest) = split::<4, 4, 8>(run::<_, 8>(parts, at));
            let rest = u32::from_le_bytes(*rest);
            let scale = all * (0.5 + (rest >> 28) as f32) * 0.25;
            for (l, (out, row)) in out.as_chunks_mut().0.iter_mut().zip(rows).enumerate() {
                let signs = eighth_sign(rest >> (7 * l));
                signed(&IQ2_XXS[usize::from(*row)], signs, scale, out);
            }
        }
    }
}

/// f16 scale; nine bits of row and seven of signs for each 8 values; four bits of scale for
/// each 16.
impl Block<74, SUPER> for Iq2Xs {
    #[inline(always)]
    fn decode(block: &[u8; 74], out: &mut [f32; SUPER]) {
        let (scale, rest) = split::<2, 72, 74>(block);
        let (rows, scales) = split::<64, 8, 72>(rest);
        let all = half(scale);
        for (at, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = all * (0.5 + (scales[at / 2] >> (at % 2 * 4) & 15) as f32) * 0.25;
            for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                let packed = u16::from_le_bytes(*run(rows, at * 2 + l));
                let signs = eighth_sign(u32::from(packed >> 9));
                signed(&IQ2_XS[usize::from(packed & 511)], signs, scale, out);
            }
        }
    }
}

/// f16 scale; rows' low bytes, signs, two further bits of each row, four bits of scale for each 16.
impl Block<82, SUPER> for Iq2S {
    #[inline(always)]
    fn decode(block: &[u8; 82], out: &mut [f32; SUPER]) {
        let (scale, rest) = split::<2, 80, 82>(block);
        let (low, rest) = split::<32, 48, 80>(rest);
        let (signs, rest) = split::<32, 16, 48>(rest);
        let (high, scales) = split::<8, 8, 16>(rest);
        let all = half(scale);
        for (at, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = all * (0.5 + (scales[at / 2] >> (at % 2 * 4) & 15) as f32) * 0.25;
            for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                let l = at * 2 + l;
                let high = usize::from(high[l / 4] >> (l % 4 * 2) & 3);
                signed(&IQ2_S[usize::from(low[l]) | high << 8], signs[l], scale, out);
            }
        }
    }
}

/// f16 scale; rows of four; for each 32 values four times seven bits of signs and four of scale.
impl Block<98, SUPER> for Iq3Xxs {
    #[inline(always)]
    fn decode(block: &[u8; 98], out: &mut [f32; SUPER]) {
        let (scale, rest) = split::<2, 96, 98>(block);
        let (rows, parts) = split::<64, 32, 96>(rest);
        let all = half(scale);
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let part = u32::from_le_bytes(*run(parts, at));
            let scale = all * (0.5 + (part >> 28) as f32) * 0.5;
            for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                let rows = run::<_, 2>(rows, at * 4 + l).map(|row| &IQ3_XXS[usize::from(row)]);
                two_rows(rows, eighth_sign(part >> (7 * l)), scale, out);
            }
        }
    }
}

/// f16 scale; rows' low bytes, their ninth bits, signs, four bits of scale for each 32.
impl Block<110, SUPER> for Iq3S {
    #[inline(always)]
    fn decode(block: &[u8; 110], out: &mut [f32; SUPER]) {
        let (scale, rest) = split::<2, 108, 110>(block);
        let (low, rest) = split::<64, 44, 108>(rest);
        let (ninths, rest) = split::<8, 36, 44>(rest);
        let (signs, scales) = split::<32, 4, 36>(rest);
        let all = half(scale);
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let scale = all * (1 + 2 * (scales[at / 2] >> (at % 2 * 4) & 15)) as f32;
            let ninths = usize::from(ninths[at]);
            for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                let [first, second] = *run::<_, 2>(low, at * 4 + l);
                let first = usize::from(first) | (ninths >> (2 * l) & 1) << 8;
                let second = usize::from(second) | (ninths >> (2 * l + 1) & 1) << 8;
                two_rows([&IQ3_S[first], &IQ3_S[second]], signs[at * 4 + l], scale, out);
            }
        }
    }
}

/// A run of −1, 0 and 1 that a bit shifts up or down by an eighth.
#[inline(always)]
fn shifted(row: usize, down: bool, scale: f32, out: &mut [f32; 8]) {
    let shift = if down { -0.125 } else { 0.125 };
    for (out, value) in out.iter_mut().zip(&IQ1[row & 2047]) {
        *out = scale * (*value as f32 + shift);
    }
}

/// f16 scale; rows' low bytes; for each 32 values four times three bits of row, three bits of scale
/// and the shift's.
impl Block<50, SUPER> for Iq1S {
    #[inline(always)]
    fn decode(block: &[u8; 50], out: &mut [f32; SUPER]) {
        let (scale, rest) = split::<2, 48, 50>(block);
        let (low, high) = split::<32, 16, 48>(rest);
        let all = half(scale);
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let high = usize::from(u16::from_le_bytes(*run(high, at)));
            let scale = all * (2 * (high >> 12 & 7) + 1) as f32;
            for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                let row = usize::from(low[at * 4 + l]) | (high >> (3 * l) & 7) << 8;
                shifted(row, high >> 15 == 1, scale, out);
            }
        }
    }
}

/// Rows' low bytes; three bits of row and the shift's for each 8 values; three bits of scale for
/// each 16, four of which fill up 16 bits with four of the block's f16 scale.
impl Block<56, SUPER> for Iq1M {
    #[inline(always)]
    fn decode(block: &[u8; 56], out: &mut [f32; SUPER]) {
        let (low, rest) = split::<32, 24, 56>(block);
        let (high, scales) = split::<16, 8, 24>(rest);
        let scales: [u16; 4] = std::array::from_fn(|at| u16::from_le_bytes(*run(scales, at)));
        let all = (scales[0] >> 12 & 0x000f)
            | (scales[1] >> 8 & 0x00f0)
            | (scales[2] >> 4 & 0x0f00)
            | (scales[3] & 0xf000);
        let all = half(&all.to_le_bytes());
        for (at, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = all * (2 * (scales[at / 4] >> (at % 4 * 3) & 7) + 1) as f32;
            for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                let high = usize::from(high[at] >> (4 * l) & 15);
                let row = usize::from(low[at * 2 + l]) | (high & 7) << 8;
                shifted(row, high >> 3 == 1, scale, out);
            }
        }
    }
}
