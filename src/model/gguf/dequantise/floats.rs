//! Floats that are no blocks.

use super::Block;
use half::bf16;

pub struct F32;
pub struct F16;
pub struct Bf16;
pub struct F64;

impl Block<4, 1> for F32 {
    #[inline(always)]
    fn decode(block: &[u8; 4], out: &mut [f32; 1]) {
        *out = [f32::from_le_bytes(*block)];
    }
}

impl Block<2, 1> for F16 {
    #[inline(always)]
    fn decode(block: &[u8; 2], out: &mut [f32; 1]) {
        *out = [super::half(block)];
    }
}

impl Block<2, 1> for Bf16 {
    #[inline(always)]
    fn decode(block: &[u8; 2], out: &mut [f32; 1]) {
        *out = [bf16::from_le_bytes(*block).to_f32()];
    }
}

/// Rounded to f32.
impl Block<8, 1> for F64 {
    #[inline(always)]
    fn decode(block: &[u8; 8], out: &mut [f32; 1]) {
        *out = [f64::from_le_bytes(*block) as f32];
    }
}
