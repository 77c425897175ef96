//! Pseudo-random numbers for tests of the library and for integration tests, the same on every
//! machine.
#![allow(dead_code)]

/// xorshift64 (Marsaglia 2003).
pub fn bits(seed: u64) -> impl FnMut() -> u64 {
    let mut state = 88_172_645_463_325_252_u64 ^ seed << 32;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// 24 bits of [`bits`], in −1…1.
pub fn uniform(seed: u64) -> impl FnMut() -> f32 {
    let mut next = bits(seed);
    move || (next() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Roughly normal: mean 0 and deviation 1.
pub fn roughly_normal(count: usize, seed: u64) -> Vec<f32> {
    let mut uniform = uniform(seed);
    (0..count).map(|_| uniform() + uniform() + uniform()).collect()
}

/// The upper 53 bits of xorshift64* (Vigna 2016), for a state that is not 0.
pub fn wide_bits(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
}
