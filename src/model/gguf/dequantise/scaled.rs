//! Whole numbers times one scale a block, in some types plus a minimum.

use super::{Block, SUPER, half, nibbles, run, split};

pub struct Q1_0;
pub struct Q2_0;
pub struct Q4_0;
pub struct Q4_1;
pub struct Q5_0;
pub struct Q5_1;
pub struct Q8_0;
pub struct Q8_1;
pub struct Q8K;

/// f16 scale, codes of one bit: −scale and scale.
impl Block<18, 128> for Q1_0 {
    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 128]) {
        let (scale, codes) = split::<2, 16, 18>(block);
        let scale = half(scale);
        for (out, code) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes) {
            for (bit, out) in out.iter_mut().enumerate() {
                *out = if code >> bit & 1 == 1 { scale } else { -scale };
            }
        }
    }
}

/// f16 scale, codes of two bits: −1 to 2.
impl Block<18, 64> for Q2_0 {
    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 64]) {
        let (scale, codes) = split::<2, 16, 18>(block);
        let scale = half(scale);
        for (out, code) in out.as_chunks_mut::<4>().0.iter_mut().zip(codes) {
            for (at, out) in out.iter_mut().enumerate() {
                *out = ((code >> (2 * at) & 3) as i8 - 1) as f32 * scale;
            }
        }
    }
}

/// f16 scale, codes of four bits: −8 to 7.
impl Block<18, 32> for Q4_0 {
    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
        let (scale, codes) = split::<2, 16, 18>(block);
        let scale = half(scale);
        nibbles(codes, out, |code| scale * (code as i8 - 8) as f32);
    }
}

/// f16 scale and minimum, codes of four bits: 0 to 15.
impl Block<20, 32> for Q4_1 {
    #[inline(always)]
    fn decode(block: &[u8; 20], out: &mut [f32; 32]) {
        let (head, codes) = split::<4, 16, 20>(block);
        let (scale, min) = (half(run(head, 0)), half(run(head, 1)));
        nibbles(codes, out, |code| scale * code as f32 + min);
    }
}

/// The fifth bits of 32 codes stand before their four lower ones, in the order of the values.
#[inline(always)]
fn five_bits(fifths: &[u8; 4], codes: &[u8; 16], out: &mut [f32; 32], value: impl Fn(u8) -> f32) {
    let fifths = u32::from_le_bytes(*fifths);
    let (low, high) = out.split_at_mut(16);
    for (at, ((code, low), high)) in codes.iter().zip(low).zip(high).enumerate() {
        *low = value(code & 15 | ((fifths >> at & 1) as u8) << 4);
        *high = value(code >> 4 | ((fifths >> (at + 16) & 1) as u8) << 4);
    }
}

/// f16 scale, codes of five bits: −16 to 15.
impl Block<22, 32> for Q5_0 {
    #[inline(always)]
    fn decode(block: &[u8; 22], out: &mut [f32; 32]) {
        let (head, codes) = split::<6, 16, 22>(block);
        let (scale, fifths) = split::<2, 4, 6>(head);
        let scale = half(scale);
        five_bits(fifths, codes, out, |code| scale * (code as i8 - 16) as f32);
    }
}

/// f16 scale and minimum, codes of five bits: 0 to 31.
impl Block<24, 32> for Q5_1 {
    #[inline(always)]
    fn decode(block: &[u8; 24], out: &mut [f32; 32]) {
        let (head, codes) = split::<8, 16, 24>(block);
        let (head, fifths) = split::<4, 4, 8>(head);
        let (scale, min) = (half(run(head, 0)), half(run(head, 1)));
        five_bits(fifths, codes, out, |code| scale * code as f32 + min);
    }
}

#[inline(always)]
fn eight_bits<const N: usize>(scale: f32, codes: &[u8; N], out: &mut [f32; N]) {
    for (code, out) in codes.iter().zip(out) {
        *out = scale * (*code as i8) as f32;
    }
}

/// f16 scale, codes of eight bits.
impl Block<34, 32> for Q8_0 {
    #[inline(always)]
    fn decode(block: &[u8; 34], out: &mut [f32; 32]) {
        let (scale, codes) = split::<2, 32, 34>(block);
        eight_bits(half(scale), codes, out);
    }
}

/// f16 scale, f16 sum of the values (which products use), codes of eight bits.
impl Block<36, 32> for Q8_1 {
    #[inline(always)]
    fn decode(block: &[u8; 36], out: &mut [f32; 32]) {
        let (head, codes) = split::<4, 32, 36>(block);
        eight_bits(half(run(head, 0)), codes, out);
    }
}

/// f32 scale, codes of eight bits, sums of sixteen codes each (which products use).
impl Block<292, SUPER> for Q8K {
    #[inline(always)]
    fn decode(block: &[u8; 292], out: &mut [f32; SUPER]) {
        let (scale, rest) = split::<4, 288, 292>(block);
        let (codes, _) = split::<SUPER, 32, 288>(rest);
        eight_bits(f32::from_le_bytes(*scale), codes, out);
    }
}
