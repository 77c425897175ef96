//! −1, 0 and 1 times one f16 scale.

use super::{Block, SUPER, half, run, split};

pub struct Tq1_0;
pub struct Tq2_0;

/// A byte is the fraction 0.abcde in base 3: times a power of 3, in eight bits, it begins with a
/// later digit.
#[inline(always)]
fn digits<const N: usize>(bytes: &[u8; N], digit: u32, scale: f32, out: &mut [f32; N]) {
    let power = 3u8.pow(digit);
    for (byte, out) in bytes.iter().zip(out) {
        let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
        *out = scale * (digit as i8 - 1) as f32;
    }
}

/// Five values a byte in 32 and then in 16 bytes, four a byte in the last four.
impl Block<54, SUPER> for Tq1_0 {
    #[inline(always)]
    fn decode(block: &[u8; 54], out: &mut [f32; SUPER]) {
        let (first, rest) = split::<32, 22, 54>(block);
        let (second, rest) = split::<16, 6, 22>(rest);
        let (last, scale) = split::<4, 2, 6>(rest);
        let scale = half(scale);
        let (first_out, rest) = out.split_at_mut(160);
        let (second_out, last_out) = rest.split_at_mut(80);
        for (out, digit) in first_out.as_chunks_mut().0.iter_mut().zip(0..) {
            digits(first, digit, scale, out);
        }
        for (out, digit) in second_out.as_chunks_mut().0.iter_mut().zip(0..) {
            digits(second, digit, scale, out);
        }
        for (out, digit) in last_out.as_chunks_mut().0.iter_mut().zip(0..) {
            digits(last, digit, scale, out);
        }
    }
}

/// Two bits a value; the fourth code stands for 2.
impl Block<66, SUPER> for Tq2_0 {
    #[inline(always)]
    fn decode(block: &[u8; 66], out: &mut [f32; SUPER]) {
        let (codes, scale) = split::<64, 2, 66>(block);
        let scale = half(scale);
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (codes, shift) = (run::<_, 32>(codes, at / 4), at % 4 * 2);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * ((code >> shift & 3) as i8 - 1) as f32;
            }
        }
    }
}
