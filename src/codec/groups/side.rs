//! What is stored of a group beside its codes: numbers of 16 bits and of 8.

use half::f16;

/// What is stored of a group beside its codes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Side {
    /// As they are decoded: of an f16 or, of `small` scales, a byte.
    pub scale: f32,
    small: bool,
    pub(super) minimum: f32,
    /// What is stored is finite, and the scale of a group that needs one is not below the smallest
    /// that is stored in full precision.
    pub in_range: bool,
    /// The larger of scale and minimum as they should be, over the largest that can be stored.
    pub excess: f32,
}

impl Side {
    /// `exact`: the scale wanted, which is 0 for groups that need none.
    #[inline(always)]
    pub(super) fn new(exact: f32, small: bool) -> Self {
        let (scale, in_range) = if small { stored_small(exact) } else { stored_half(exact) };
        let largest = if small { LARGEST_SMALL } else { f16::MAX.to_f32_const() };
        let excess = exact.abs() / largest;
        Self { scale, small, minimum: 0.0, in_range, excess }
    }

    #[inline(always)]
    pub(super) fn with_minimum(mut self, exact: f32) -> Self {
        self.minimum = rounded_to_half(exact);
        self.in_range &= self.minimum.is_finite();
        self.excess = self.excess.max(exact.abs() / f16::MAX.to_f32_const());
        self
    }

    /// The scale as it is stored: of an f16, or of a byte.
    #[inline(always)]
    pub fn scale_bits(&self) -> u16 {
        match self.small {
            true => u16::from(nearest_small(self.scale)),
            false => f16::from_f32(self.scale).to_bits(),
        }
    }

    #[inline(always)]
    pub fn minimum(&self) -> f16 {
        f16::from_f32(self.minimum)
    }
}

/// The scale as it is stored in an f16, and whether that is in range.
#[inline(always)]
pub(super) fn stored_half(exact: f32) -> (f32, bool) {
    let scale = rounded_to_half(exact);
    let size = scale.abs();
    let fits = (size >= f16::MIN_POSITIVE.to_f32_const()) & (size < f32::INFINITY);
    (scale, (exact == 0.0) | fits)
}

/// The same in a byte.
#[inline(always)]
pub(super) fn stored_small(exact: f32) -> (f32, bool) {
    // Half a step more or less than what there is rounds to it.
    let fits = (0.97 * SMALLEST_SMALL..1.016 * LARGEST_SMALL).contains(&exact);
    (small_scale(nearest_small(exact)), (exact == 0.0) | fits)
}

/// The nearest value of an f16. The conversions of [`half`] are calls, which a search for scales
/// spends most of its time with.
#[inline(always)]
pub(super) fn rounded_to_half(x: f32) -> f32 {
    let size = x.abs();
    // Below 2^−14 an f16 is a multiple of 2^−24, as f32 around ¾ are.
    let subnormal = (size + 0.75) - 0.75;
    let bits = size.to_bits();
    let normal = f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff);
    // What is too large becomes infinite; NaN stays.
    let rounded = if normal <= f16::MAX.to_f32_const() { normal } else { size * f32::INFINITY };
    let rounded = if size < f16::MIN_POSITIVE.to_f32_const() { subnormal } else { rounded };
    rounded.copysign(x)
}

/// What an f16 of these bits is, infinity and NaN included. No call either.
#[inline(always)]
pub fn half_value(bits: u16) -> f32 {
    // Its exponent, moved to where that of an f32 is, counts from 15 and not from 127.
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let wide = f32::from_bits(size.to_bits() | u32::from(bits & 0x8000) << 16);
    if size < 65536.0 { wide } else { f16::from_bits(bits).to_f32() }
}

/// Scales in 8 bits: four of exponent, four of mantissa, no sign; (1 + m/16) · 2^(e − 12). Code 0
/// is 0.
const SMALL_BIAS: u32 = 12;
const SMALLEST_SMALL: f32 = 17.0 / 16.0 / 4096.0;
const LARGEST_SMALL: f32 = 31.0 / 16.0 * 8.0;

#[inline(always)]
pub fn small_scale(code: u8) -> f32 {
    let bits = (u32::from(code) << 19) + ((127 - SMALL_BIAS) << 23);
    if code == 0 { 0.0 } else { f32::from_bits(bits) }
}

/// The nearest in size, halves up; at least 1 for what is more than 0.
#[inline(always)]
fn nearest_small(scale: f32) -> u8 {
    let rounded = (scale.to_bits() + (1 << 18)) >> 19;
    let code = rounded.saturating_sub((127 - SMALL_BIAS) << 4).clamp(1, 255);
    if scale > 0.0 { code as u8 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every f16 and what lies just beside it and just beside the middle to the next one, and what
    /// is beyond them all.
    #[test]
    fn halves_are_those_of_the_library() {
        let beside = |x: f32| [x.next_down(), x, x.next_up()];
        let halves = (0..=f16::INFINITY.to_bits()).map(|bits| f16::from_bits(bits).to_f32());
        let next = (1..=f16::INFINITY.to_bits()).map(|bits| f16::from_bits(bits).to_f32());
        let middles = halves.clone().zip(next).map(|(a, b)| a + (b - a) / 2.0);
        let beyond = [65519.0, 65520.0, 65536.0, 1e30, f32::MAX, 1e-30, f32::MIN_POSITIVE, 1e-45];
        for x in halves.chain(middles).chain(beyond).flat_map(beside).flat_map(|x| [x, -x]) {
            let (found, expected) = (rounded_to_half(x), f16::from_f32(x).to_f32());
            assert!(found.to_bits() == expected.to_bits() || x.is_nan(), "{x:e}: {found:e}");
        }
        assert!(rounded_to_half(f32::NAN).is_nan());
        for bits in 0..=u16::MAX {
            let (found, expected) = (half_value(bits), f16::from_bits(bits).to_f32());
            assert_eq!(found.to_bits(), expected.to_bits(), "{bits:x}");
        }
    }
}
