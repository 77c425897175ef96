//! Codes of four bits that stand for one of sixteen numbers, times a scale.

use super::{Block, SUPER, half, nibbles, run, split};

pub struct Iq4Nl;
pub struct Iq4Xs;
pub struct MxFp4;
pub struct NvFp4;

/// llama.cpp's `kvalues_iq4nl`: denser around zero.
const NON_LINEAR: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// Twice the values of E2M1 (OCP Microscaling Formats 1.0, table 5): scales are halved in return.
/// The zero of code 8 has no sign, as in llama.cpp.
const E2M1_TWICE: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

#[inline(always)]
fn look_up(table: &[f32; 16], scale: f32, codes: &[u8; 16], out: &mut [f32; 32]) {
    nibbles(codes, out, |code| scale * table[usize::from(code & 15)]);
}

/// f16 scale.
impl Block<18, 32> for Iq4Nl {
    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
        let (scale, codes) = split::<2, 16, 18>(block);
        look_up(&NON_LINEAR, half(scale), codes, out);
    }
}

/// Eight sub-blocks with scales of six bits, −32 to 31, times an f16 scale.
impl Block<136, SUPER> for Iq4Xs {
    #[inline(always)]
    fn decode(block: &[u8; 136], out: &mut [f32; SUPER]) {
        let (head, rest) = split::<4, 132, 136>(block);
        let (low, codes) = split::<4, 128, 132>(rest);
        let (scale, high) = (half(run(head, 0)), u16::from_le_bytes(*run(head, 1)));
        for (at, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let (low, high) = (low[at / 2] >> (at % 2 * 4) & 15, (high >> (at * 2) & 3) as u8);
            let scale = scale * ((low | high << 4) as i8 - 32) as f32;
            look_up(&NON_LINEAR, scale, run(codes, at), out);
        }
    }
}

/// Scale of eight bits, E8M0: 2^(e − 127). Its NaN, 255, counts as 2^128, as in llama.cpp.
impl Block<17, 32> for MxFp4 {
    #[inline(always)]
    fn decode(block: &[u8; 17], out: &mut [f32; 32]) {
        let ([exponent], codes) = split::<1, 16, 17>(block);
        // Half of it: 2^(e − 128) is subnormal for 0 and 1.
        let bits = match u32::from(*exponent) {
            exponent @ 0..2 => 0x0020_0000 << exponent,
            exponent => (exponent - 1) << 23,
        };
        look_up(&E2M1_TWICE, f32::from_bits(bits), codes, out);
    }
}

/// Half of an E4M3 without sign. Its NaN, 127, counts as zero and the highest bit does not count,
/// both as in llama.cpp.
#[inline(always)]
fn ue4m3_half(byte: u8) -> f32 {
    if byte == 127 {
        return 0.0;
    }
    let (exponent, mantissa) = (u32::from(byte >> 3 & 15), byte & 7);
    if exponent == 0 {
        return f32::from(mantissa) / 1024.0;
    }
    // 1.mantissa · 2^(exponent − 8)
    f32::from_bits((exponent + 119) << 23 | u32::from(mantissa) << 20)
}

/// Four sub-blocks of sixteen, each with a scale of eight bits.
impl Block<36, 64> for NvFp4 {
    #[inline(always)]
    fn decode(block: &[u8; 36], out: &mut [f32; 64]) {
        let (scales, codes) = split::<4, 32, 36>(block);
        for (at, (out, scale)) in out.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
            let scale = ue4m3_half(*scale);
            nibbles(run::<_, 8>(codes, at), out, |code| scale * E2M1_TWICE[usize::from(code & 15)]);
        }
    }
}
