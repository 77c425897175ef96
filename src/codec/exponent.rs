//! The power-of-two exponent of a tensor: everything stored of it is divided by 2^exponent, so that
//! f16 scales reach any magnitude. It is 0 unless something would leave its type's range.

/// The exponent under which `magnitude` (> 0, finite) lies from 2^`top` up to 2^(`top` + 1).
pub(super) fn exponent_placing(magnitude: f64, top: i32) -> i32 {
    magnitude.log2().floor() as i32 - top
}

/// Multiplication by 2^n, exact while the result is normal, for any n an f32 tensor can need:
/// 2^n itself may lie outside f32's range, so it is applied in two halves.
#[derive(Clone, Copy)]
pub(super) struct PowerOfTwo(pub f32, pub f32);

impl PowerOfTwo {
    #[inline(always)]
    pub fn new(n: i32) -> Self {
        let half = n / 2;
        Self(exp2(half), exp2(n - half))
    }

    #[inline(always)]
    pub fn times(self, value: f32) -> f32 {
        value * self.0 * self.1
    }

    /// Multiplies all of `values`; nothing where n is 0.
    #[inline(always)]
    pub fn scale(n: i32, values: &mut [f32]) {
        if n != 0 {
            let factor = Self::new(n);
            for x in values {
                *x = factor.times(*x);
            }
        }
    }
}

/// 2^n; 0 or infinite where f32 has no such normal number.
fn exp2(n: i32) -> f32 {
    match n {
        ..-126 => 0.0,
        -126..128 => f32::from_bits(((n + 127) as u32) << 23),
        _ => f32::INFINITY,
    }
}

/// 2^n in f64, for the n that an exponent, or twice one, can be.
pub(super) fn wide_exp2(n: i32) -> f64 {
    f64::from_bits(((n.clamp(-1022, 1023) + 1023) as u64) << 52)
}
