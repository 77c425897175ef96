//! K-quants: 256 values in sub-blocks of 16 or 32, whose scales are whole numbers times the
//! block's own f16 scale.

use super::{Block, SUPER, half, run, split};

pub struct Q2K;
pub struct Q3K;
pub struct Q4K;
pub struct Q5K;
pub struct Q6K;

/// Sixteen sub-blocks, each with four bits of scale and four of minimum.
impl Block<84, SUPER> for Q2K {
    #[inline(always)]
    fn decode(block: &[u8; 84], out: &mut [f32; SUPER]) {
        let (scales, rest) = split::<16, 68, 84>(block);
        let (codes, rest) = split::<64, 4, 68>(rest);
        let (scale, min) = (half(run(rest, 0)), half(run(rest, 1)));
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (codes, shift) = (run::<_, 32>(codes, at / 4), at % 4 * 2);
            let mut whole = [0; 32];
            for (whole, code) in whole.iter_mut().zip(codes) {
                *whole = (code >> shift & 3) as i8;
            }
            for (half, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let packed = scales[2 * at + half];
                let (scale, min) = (scale * (packed & 15) as f32, min * (packed >> 4) as f32);
                for (out, code) in out.iter_mut().zip(run::<_, 16>(&whole, half)) {
                    *out = scale * *code as f32 - min;
                }
            }
        }
    }
}

/// Sixteen sub-blocks with scales of six bits, −32 to 31; codes of three bits, −4 to 3.
impl Block<110, SUPER> for Q3K {
    #[inline(always)]
    fn decode(block: &[u8; 110], out: &mut [f32; SUPER]) {
        let (thirds, rest) = split::<32, 78, 110>(block);
        let (codes, rest) = split::<64, 14, 78>(rest);
        let (scales, scale) = split::<12, 2, 14>(rest);
        let scale = half(scale);
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (codes, shift) = (run::<_, 32>(codes, at / 4), at % 4 * 2);
            let mut whole = [0; 32];
            for ((whole, code), thirds) in whole.iter_mut().zip(codes).zip(thirds) {
                *whole = ((code >> shift & 3) | (thirds >> at & 1) << 2) as i8 - 4;
            }
            for (half, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let at = 2 * at + half;
                // Four lower bits in the first eight bytes, two higher ones in the last four.
                let low = scales[at % 8] >> (at / 8 * 4) & 15;
                let high = scales[8 + at % 4] >> (at / 4 * 2) & 3;
                let scale = scale * ((low | high << 4) as i8 - 32) as f32;
                scaled(scale, run(&whole, half), out);
            }
        }
    }
}

#[inline(always)]
fn scaled(scale: f32, codes: &[i8; 16], out: &mut [f32; 16]) {
    for (out, code) in out.iter_mut().zip(codes) {
        *out = scale * *code as f32;
    }
}

/// Scale and minimum of the `at`th of eight sub-blocks, six bits each. The first four have theirs
/// in the low bits of bytes 0 to 7; the others four bits in bytes 8 to 11 and two above those.
#[inline(always)]
fn scale_and_min(packed: &[u8; 12], at: usize) -> (f32, f32) {
    let (scale, min) = match at.checked_sub(4) {
        None => (packed[at] & 63, packed[at + 4] & 63),
        Some(at) => (
            packed[at + 8] & 15 | packed[at] >> 2 & 48,
            packed[at + 8] >> 4 | packed[at + 4] >> 2 & 48,
        ),
    };
    (scale as f32, min as f32)
}

/// Eight sub-blocks with scale and minimum; codes of four bits.
impl Block<144, SUPER> for Q4K {
    #[inline(always)]
    fn decode(block: &[u8; 144], out: &mut [f32; SUPER]) {
        let (head, rest) = split::<4, 140, 144>(block);
        let (packed, codes) = split::<12, 128, 140>(rest);
        let (all_scale, all_min) = (half(run(head, 0)), half(run(head, 1)));
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(packed, at);
            let (scale, min) = (all_scale * scale, all_min * min);
            let (codes, shift) = (run::<_, 32>(codes, at / 2), at % 2 * 4);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * (code >> shift & 15) as f32 - min;
            }
        }
    }
}

/// As [`Q4K`], with the fifth bits of the codes before the lower four.
impl Block<176, SUPER> for Q5K {
    #[inline(always)]
    fn decode(block: &[u8; 176], out: &mut [f32; SUPER]) {
        let (head, rest) = split::<4, 172, 176>(block);
        let (packed, rest) = split::<12, 160, 172>(rest);
        let (fifths, codes) = split::<32, 128, 160>(rest);
        let (all_scale, all_min) = (half(run(head, 0)), half(run(head, 1)));
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(packed, at);
            let (scale, min) = (all_scale * scale, all_min * min);
            let (codes, shift) = (run::<_, 32>(codes, at / 2), at % 2 * 4);
            for ((out, code), fifths) in out.iter_mut().zip(codes).zip(fifths) {
                let code = (code >> shift & 15) | (fifths >> at & 1) << 4;
                *out = scale * code as f32 - min;
            }
        }
    }
}

/// Sixteen sub-blocks with scales of eight bits; codes of six bits, −32 to 31.
impl Block<210, SUPER> for Q6K {
    #[inline(always)]
    fn decode(block: &[u8; 210], out: &mut [f32; SUPER]) {
        let (low, rest) = split::<128, 82, 210>(block);
        let (high, rest) = split::<64, 18, 82>(rest);
        let (scales, scale) = split::<16, 2, 18>(rest);
        let scale = half(scale);
        for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = run::<_, 32>(low, at / 4 * 2 + at % 2);
            let high = run::<_, 32>(high, at / 4);
            let (low_shift, high_shift) = (at % 4 / 2 * 4, at % 4 * 2);
            let mut whole = [0; 32];
            for ((whole, low), high) in whole.iter_mut().zip(low).zip(high) {
                *whole = ((low >> low_shift & 15) | (high >> high_shift & 3) << 4) as i8 - 32;
            }
            for (half, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let scale = scale * (scales[2 * at + half] as i8) as f32;
                scaled(scale, run(&whole, half), out);
            }
        }
    }
}
