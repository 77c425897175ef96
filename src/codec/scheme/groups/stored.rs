//! The numbers stored of a group beside its codes, of 16 bits and of 8.

use crate::codec::convert::rounded_to_half;
use half::f16;

/// The scale and the minimum of a group as they are stored: its quantisation parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoredParams {
    /// As it is decoded: of an f16 or, of `small` scales, a byte.
    pub scale: f32,
    small: bool,
    /// As it is decoded, of an f16; 0 where levels have no minimum.
    pub(super) minimum: f32,
    /// Both are finite, and the scale of a group that needs one is not below the smallest
    /// that is stored in full precision.
    pub in_range: bool,
    /// The larger of scale and minimum as they should be, over the largest that can be stored.
    pub overflow: f32,
}

impl StoredParams {
    /// `exact`: the scale wanted, which is 0 for groups that need none.
    #[inline(always)]
    pub(super) fn new(exact: f32, small: bool) -> Self {
        let (scale, in_range) = if small { stored_small(exact) } else { stored_half(exact) };
        let largest = if small { LARGEST_SMALL } else { f16::MAX.to_f32_const() };
        let overflow = exact.abs() / largest;
        Self { scale, small, minimum: 0.0, in_range, overflow }
    }

    #[inline(always)]
    pub(super) fn with_minimum(mut self, exact: f32) -> Self {
        self.minimum = rounded_to_half(exact);
        self.in_range &= self.minimum.is_finite();
        self.overflow = self.overflow.max(exact.abs() / f16::MAX.to_f32_const());
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

    /// The minimum as it is stored.
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

/// Scales in 8 bits: four of exponent, four of mantissa, no sign; (1 + m/16) · 2^(e − 12). Code 0
/// is 0.
const SMALL_BIAS: u32 = 12;
const SMALLEST_SMALL: f32 = 17.0 / 16.0 / 4096.0;
const LARGEST_SMALL: f32 = 31.0 / 16.0 * 8.0;

/// The scale of an 8-bit code.
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
