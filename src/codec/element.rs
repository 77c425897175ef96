//! The three float types a cache comes in.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A float that widens to f32 exactly. Conversions take slices: the half types have
/// instructions for whole vectors and none for one value.
pub trait Element: bytemuck::Pod + Default + Send + Sync {
    fn is_finite(self) -> bool;

    fn to_f32(self) -> f32;

    /// Largest magnitude; 0 without values, infinite or NaN when one of the values is.
    fn absmax(values: &[Self]) -> f32;

    /// `out` is as long as `values`.
    fn widen(values: &[Self], out: &mut [f32]);

    /// Rounds to nearest even; what is too large becomes the largest finite value. Overwrites
    /// `values` on the way. `out` is as long as `values`.
    fn narrow_saturating(values: &mut [f32], out: &mut [Self]);
}

#[inline(always)]
fn saturate(values: &mut [f32], max: f32) {
    for value in values {
        *value = value.clamp(-max, max);
    }
}

/// Magnitudes are ordered as their bits are, with infinity and NaN on top.
macro_rules! absmax_by_bits {
    ($float:ty, $bits:ty) => {
        #[inline(always)]
        fn absmax(values: &[Self]) -> f32 {
            const MAGNITUDE: $bits = <$bits>::MAX >> 1;
            let bits = values.iter().fold(0, |max: $bits, x| max.max(x.to_bits() & MAGNITUDE));
            <$float>::from_bits(bits).to_f32()
        }
    };
}

impl Element for f32 {
    #[inline(always)]
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    absmax_by_bits!(f32, u32);

    #[inline(always)]
    fn widen(values: &[Self], out: &mut [f32]) {
        out.copy_from_slice(values);
    }

    #[inline(always)]
    fn narrow_saturating(values: &mut [f32], out: &mut [Self]) {
        saturate(values, f32::MAX);
        out.copy_from_slice(values);
    }
}

macro_rules! half_element {
    ($half:ty) => {
        impl Element for $half {
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$half>::is_finite(self)
            }

            #[inline(always)]
            fn to_f32(self) -> f32 {
                <$half>::to_f32(self)
            }

            absmax_by_bits!($half, u16);

            #[inline(always)]
            fn widen(values: &[Self], out: &mut [f32]) {
                values.convert_to_f32_slice(out);
            }

            #[inline(always)]
            fn narrow_saturating(values: &mut [f32], out: &mut [Self]) {
                saturate(values, <$half>::MAX.to_f32());
                out.convert_from_f32_slice(values);
            }
        }
    };
}

half_element!(f16);
half_element!(bf16);
