//! The numbers stored of a group beside its codes.

use crate::codec::convert::rounded_to_half;
use crate::codec::scheme::scales::ScaleFormat;
use half::f16;

/// The scale and the minimum of a group as they are stored: its quantisation parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredParams {
    /// As it is decoded.
    pub scale: f32,
    format: ScaleFormat,
    /// As it is stored, which the tensor's scale may be a factor to.
    stored: f32,
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
    pub(super) fn new(exact: f32, format: ScaleFormat) -> Self {
        let (scale, in_range) = format.stored(exact);
        let overflow = exact.abs() / format.largest();
        Self { scale, format, stored: scale, minimum: 0.0, in_range, overflow }
    }

    /// Of `exact` in units of the tensor's scale.
    #[inline(always)]
    pub(super) fn times(self, tensor_scale: f32) -> Self {
        Self { scale: self.stored * tensor_scale, ..self }
    }

    #[inline(always)]
    pub(super) fn with_minimum(mut self, exact: f32) -> Self {
        self.minimum = rounded_to_half(exact);
        self.in_range &= self.minimum.is_finite();
        self.overflow = self.overflow.max(exact.abs() / f16::MAX.to_f32_const());
        self
    }

    /// The scale as it is stored.
    #[inline(always)]
    pub fn scale_bits(&self) -> u32 {
        self.format.to_bits(self.stored)
    }

    /// The minimum as it is stored.
    #[inline(always)]
    pub fn minimum(&self) -> f16 {
        f16::from_f32(self.minimum)
    }
}
