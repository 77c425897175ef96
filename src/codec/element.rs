//! The three float types a cache comes in.

use super::convert;
use half::{bf16, f16};
use rayon::prelude::*;

/// Which of the three types: kernels are written for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    F16,
    Bf16,
    F32,
}

/// Out of reach for other crates: vector kernels read memory as what `KIND` says.
pub trait Sealed {
    const KIND: Kind;
}

impl Sealed for f16 {
    const KIND: Kind = Kind::F16;
}

impl Sealed for bf16 {
    const KIND: Kind = Kind::Bf16;
}

impl Sealed for f32 {
    const KIND: Kind = Kind::F32;
}

/// A float that widens to f32 exactly. Conversions take slices: the half types have
/// instructions for whole vectors and none for one value.
pub trait Element: Sealed + bytemuck::Pod + Default + Send + Sync {
    /// Whether it is neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// The same value in f32.
    fn to_f32(self) -> f32;

    /// Largest magnitude; 0 without values, infinite or NaN when one of the values is.
    fn absmax(values: &[Self]) -> f32;

    /// `out` is as long as `values`.
    fn widen(values: &[Self], out: &mut [f32]);

    /// Rounds to nearest even; what is too large becomes the largest finite value. `out` is as long
    /// as `values`.
    fn narrow_saturating(values: &[f32], out: &mut [Self]);

    /// In the 16-bit type that holds this one best: itself, or f16 for f32. Whether all of them
    /// are finite there. `out` is as long as `values`.
    fn to_16_bits(values: &[f32], out: &mut [u16]) -> bool;

    /// `out` is as long as `bits`.
    fn from_16_bits(bits: &[u16], out: &mut [f32]);
}

/// [`Element::absmax`] on all threads of the pool; `None` where a value is not finite.
pub fn finite_absmax<T: Element>(values: &[T]) -> Option<f32> {
    let absmax = values.par_chunks(1 << 15).map(T::absmax);
    let absmax = absmax.reduce(|| 0.0, |a, b| f32::absmax(&[a, b]));
    absmax.is_finite().then_some(absmax)
}

/// Magnitudes are ordered as their bits are, with infinity and NaN on top.
macro_rules! absmax_by_bits {
    ($float:ty, $bits:ty) => {
        #[inline(always)]
        fn absmax(values: &[Self]) -> f32 {
            const MAGNITUDE: $bits = <$bits>::MAX >> 1;
            let bits = values.iter().fold(0, |max: $bits, x| max.max(x.to_bits() & MAGNITUDE));
            Element::to_f32(<$float>::from_bits(bits))
        }
    };
}

/// The conversions to 16 bits and back.
macro_rules! stored_as {
    ($half:ty) => {
        fn to_16_bits(values: &[f32], out: &mut [u16]) -> bool {
            let halves = out.iter_mut().zip(values);
            halves.fold(true, |finite, (out, value)| {
                let half = <$half>::from_f32(*value);
                *out = half.to_bits();
                finite & half.is_finite()
            })
        }

        fn from_16_bits(bits: &[u16], out: &mut [f32]) {
            for (out, bits) in out.iter_mut().zip(bits) {
                *out = <$half>::from_bits(*bits).to_f32();
            }
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
    fn narrow_saturating(values: &[f32], out: &mut [Self]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = value.clamp(-f32::MAX, f32::MAX);
        }
    }

    stored_as!(f16);
}

impl Element for f16 {
    #[inline(always)]
    fn is_finite(self) -> bool {
        f16::is_finite(self)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    absmax_by_bits!(f16, u16);

    #[inline(always)]
    fn widen(values: &[Self], out: &mut [f32]) {
        convert::widen_halves(values, out);
    }

    #[inline(always)]
    fn narrow_saturating(values: &[f32], out: &mut [Self]) {
        convert::narrow_halves(values, out);
    }

    stored_as!(f16);
}

/// By hand, since the crate's loops do not vectorise.
impl Element for bf16 {
    #[inline(always)]
    fn is_finite(self) -> bool {
        bf16::is_finite(self)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    absmax_by_bits!(bf16, u16);

    #[inline(always)]
    fn widen(values: &[Self], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = Element::to_f32(*value);
        }
    }

    #[inline(always)]
    fn narrow_saturating(values: &[f32], out: &mut [Self]) {
        const LARGEST: f32 = bf16::MAX.to_f32_const();
        for (out, value) in out.iter_mut().zip(values) {
            let bits = value.clamp(-LARGEST, LARGEST).to_bits();
            let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            *out = bf16::from_bits(if value.is_nan() { 0x7fc0 } else { nearest as u16 });
        }
    }

    stored_as!(bf16);
}
