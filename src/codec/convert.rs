//! Conversions between f16 and f32, below every float type: of slices, with vector instructions
//! where there are any, and of single values without a call.
#![allow(unsafe_code)]

use half::f16;
use half::slice::HalfFloatSliceExt;

const LARGEST_HALF: f32 = f16::MAX.to_f32_const();

/// Widens exactly. `out` is as long as `values`. [`half`] converts eight values a call, which takes
/// six times as long.
pub(super) fn widen_halves(values: &[f16], out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "as many values as there is room for");
    #[cfg(target_arch = "x86_64")]
    if x86::is_available() {
        // SAFETY: the instruction set is available.
        return unsafe { x86::widen_halves(values, out) };
    }
    values.convert_to_f32_slice(out);
}

/// Rounds to nearest even, what is too large to the largest finite value. `out` is as long as
/// `values`.
pub(super) fn narrow_halves(values: &[f32], out: &mut [f16]) {
    assert_eq!(values.len(), out.len(), "as many values as there is room for");
    #[cfg(target_arch = "x86_64")]
    if x86::is_available() {
        // SAFETY: the instruction set is available.
        return unsafe { x86::narrow_halves(values, out) };
    }
    for (out, value) in out.iter_mut().zip(values) {
        *out = f16::from_f32(value.clamp(-LARGEST_HALF, LARGEST_HALF));
    }
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
    // Too large a magnitude becomes infinite; NaN stays.
    let rounded = if normal <= LARGEST_HALF { normal } else { size * f32::INFINITY };
    let rounded = if size < f16::MIN_POSITIVE.to_f32_const() { subnormal } else { rounded };
    rounded.copysign(x)
}

/// The value of an f16's bits, infinity and NaN included. No call either.
#[inline(always)]
pub(super) fn half_value(bits: u16) -> f32 {
    // Its exponent, moved to where that of an f32 is, counts from 15 and not from 127.
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let wide = f32::from_bits(size.to_bits() | u32::from(bits & 0x8000) << 16);
    if size < 65536.0 { wide } else { f16::from_bits(bits).to_f32() }
}

/// Twins of the slice conversions, for F16C.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::LARGEST_HALF;
    use core::arch::x86_64::*;
    use half::f16;

    /// Whether the functions here run on this machine.
    pub fn is_available() -> bool {
        is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c")
    }

    /// See [`super::widen_halves`].
    #[target_feature(enable = "avx,f16c")]
    pub fn widen_halves(values: &[f16], out: &mut [f32]) {
        let (eights, rest) = values.as_chunks::<8>();
        let (out, out_rest) = out.as_chunks_mut::<8>();
        for (out, eight) in out.iter_mut().zip(eights) {
            *out = bytemuck::cast(_mm256_cvtph_ps(bytemuck::cast(*eight)));
        }
        for (out, value) in out_rest.iter_mut().zip(rest) {
            *out = value.to_f32();
        }
    }

    /// See [`super::narrow_halves`].
    #[target_feature(enable = "avx,f16c")]
    pub fn narrow_halves(values: &[f32], out: &mut [f16]) {
        let (eights, rest) = values.as_chunks::<8>();
        let (out, out_rest) = out.as_chunks_mut::<8>();
        let (low, high) = (_mm256_set1_ps(-LARGEST_HALF), _mm256_set1_ps(LARGEST_HALF));
        for (out, eight) in out.iter_mut().zip(eights) {
            // Of a NaN and a number these give the second one: NaN stays.
            let x = _mm256_max_ps(low, _mm256_min_ps(high, bytemuck::cast(*eight)));
            *out = bytemuck::cast(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
        }
        for (out, value) in out_rest.iter_mut().zip(rest) {
            *out = f16::from_f32(value.clamp(-LARGEST_HALF, LARGEST_HALF));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_converted_as_the_library_does() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut wide = vec![0f32; halves.len()];
        widen_halves(&halves, &mut wide);
        for (half, x) in halves.iter().zip(&wide) {
            assert_eq!(x.to_bits(), half.to_f32().to_bits(), "{half:?}");
        }
        let beyond = [65519.9, 65520.0, 1e30, f32::INFINITY, f32::NEG_INFINITY, -7e4, 1e-8, -0.0];
        wide.extend(beyond);
        for (x, y) in [(1.0, 2.0), (0.1, 0.3), (6e-8, 9e-8)] {
            wide.extend([(x + y) / 2.0, f32::midpoint(x, y).next_up()]);
        }
        for len in (0..18).chain([wide.len()]) {
            let (wide, mut narrow) = (&wide[wide.len() - len..], vec![f16::ZERO; len]);
            narrow_halves(wide, &mut narrow);
            for (x, half) in wide.iter().zip(narrow) {
                let expected = f16::from_f32(x.clamp(-LARGEST_HALF, LARGEST_HALF));
                assert!(half.to_bits() == expected.to_bits() || x.is_nan(), "{x:e}: {half:?}");
                assert_eq!(half.is_nan(), x.is_nan());
            }
        }
    }

    /// Every f16 and what lies just beside it and just beside the middle to the next one, and what
    /// is beyond them all.
    #[test]
    fn single_halves_are_those_of_the_library() {
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
