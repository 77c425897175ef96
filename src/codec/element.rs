//! The three float types a cache comes in.

use half::{bf16, f16};

/// A float that widens to f32 exactly.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The largest finite value.
    const MAX: f32;

    fn to_f32(self) -> f32;

    /// Rounds to nearest even; what is too large becomes the largest finite value.
    fn from_f32_saturating(value: f32) -> Self;
}

impl Element for f32 {
    const MAX: f32 = f32::MAX;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32_saturating(value: f32) -> Self {
        value.clamp(-<Self as Element>::MAX, <Self as Element>::MAX)
    }
}

impl Element for f16 {
    const MAX: f32 = 65504.0;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    #[inline(always)]
    fn from_f32_saturating(value: f32) -> Self {
        f16::from_f32(value.clamp(-<Self as Element>::MAX, <Self as Element>::MAX))
    }
}

impl Element for bf16 {
    // 0x7f7f, the largest finite bfloat16.
    const MAX: f32 = f32::from_bits(0x7f7f_0000);

    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }

    #[inline(always)]
    fn from_f32_saturating(value: f32) -> Self {
        bf16::from_f32(value.clamp(-<Self as Element>::MAX, <Self as Element>::MAX))
    }
}
