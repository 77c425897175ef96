//! Half-Quadratic Quantization (Badri and Shaji 2023) as hqq 0.2.8 does it: a zero point for each group,
//! moved so that large errors count for less than their size.
//!
//! All groups of a tensor are gone through together, as often as the mean magnitude of their errors
//! falls: how often is found first, then each group is done on its own.

use super::stored::StoredParams;
use super::vectors::{bounded, map_lanes, padded, range, to_codes};
use crate::codec::element::Element;
use crate::codec::exponent::PowerOfTwo;
use crate::codec::scheme::definition::Scheme;
use crate::lanes::{LANES, whole};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Passes at most.
const MOST: usize = 20;
/// What a range of no more than this has for a scale is 1.
const LEAST_RANGE: f32 = 1e-4;
/// Codes that a unit of value has at most.
const LARGEST_FACTOR: f32 = 2e4;
/// Magnitude of a zero point at most, so that f16 holds it after all passes, which move it by a code at most
/// each: of a small range far from 0 codes are fewer.
const LARGEST_ZERO: f32 = 6.5e4;
/// 1 / β of the method.
const SHRINKAGE: f32 = 0.1;
/// Errors up to here shrink to nothing: it is less than 0.1^(1 / 1.3).
const NOTHING_LEFT: f32 = 0.17;

/// Passes over the groups of a tensor: until the mean error is not below that of the pass before.
pub(in crate::codec::scheme) fn passes<T: Element>(
    arch: Arch,
    values: &[T],
    scheme: &Scheme,
    exponent: i32,
) -> usize {
    /// Groups that a thread takes at once.
    const GROUPS: usize = 64;
    let (mut least, mut known) = (f32::INFINITY, 0);
    // Few do as a rule: more are worked out only where those do not end it.
    for most in [4, 8, MOST] {
        let chunks = values.par_chunks(scheme.group.saturating_mul(GROUPS));
        let errors = chunks.map_init(Vec::new, |wide, values| {
            wide.resize(values.len(), 0.0);
            T::widen(values, wide);
            PowerOfTwo::scale(-exponent, wide);
            arch.dispatch(Errors { groups: wide, scheme, passes: most })
        });
        // In order, whoever worked them out.
        let errors: Vec<[f64; MOST]> = errors.collect();
        for pass in known..most {
            let sum: f64 = errors.iter().map(|errors| errors[pass]).sum();
            let mean = (sum / values.len() as f64) as f32;
            if mean >= least || mean.is_nan() {
                return pass + 1;
            }
            least = mean;
        }
        known = most;
    }
    MOST
}

/// The sums of magnitudes of errors before each pass.
struct Errors<'a> {
    groups: &'a [f32],
    scheme: &'a Scheme,
    passes: usize,
}

impl WithSimd for Errors<'_> {
    type Output = [f64; MOST];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; MOST] {
        let mut all = [0f64; MOST];
        for group in self.groups.chunks(self.scheme.group) {
            let mut own = ZeroPoint::of(simd, group, self.scheme.bits);
            for error in &mut all[..self.passes] {
                *error += own.refine(simd, group);
            }
        }
        all
    }
}

/// Codes of one group after so many passes.
#[inline(always)]
pub(super) fn encode_hqq<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    passes: usize,
    codes: &mut [u8],
) -> StoredParams {
    let mut own = ZeroPoint::of(simd, x, scheme.bits);
    for _ in 0..passes {
        own.refine(simd, x);
    }
    let quantiser = Quantiser::<S>::of(simd, own);
    to_codes(
        simd,
        x,
        codes,
        #[inline(always)]
        |x| quantiser.code(simd, x),
    );
    let mut params = StoredParams::new(1.0 / own.factor, scheme.scales).with_minimum(own.zero);
    // A small range has a scale of its own, of as few digits as there are.
    params.in_range = params.scale.is_finite() && params.minimum.is_finite();
    params
}

/// The scale and the zero point of a group.
#[derive(Clone, Copy)]
struct ZeroPoint {
    /// 1 / scale.
    factor: f32,
    zero: f32,
    most: f32,
}

impl ZeroPoint {
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: &[f32], bits: u8) -> Self {
        let most = f32::from(u8::MAX >> (8 - bits));
        let (low, high) = range(simd, x);
        let width = high - low;
        let largest = low.abs().max(high.abs());
        let factor = match width <= LEAST_RANGE {
            true => 1.0,
            false => (most / width).min(LARGEST_FACTOR).min(LARGEST_ZERO / largest),
        };
        Self { factor, zero: -low * factor, most }
    }

    /// Moves the zero point to the mean of what the values would have; gives the sum of magnitudes of
    /// errors before.
    #[inline(always)]
    fn refine<S: Simd>(&mut self, simd: S, x: &[f32]) -> f64 {
        let own = Quantiser::<S>::of(simd, *self);
        let (errors, largest) = sum_and_largest(
            simd,
            x,
            #[inline(always)]
            |x| simd.abs_f32s(own.error(simd, x)),
        );
        let zero = simd.splat_f32s(0.0);
        let (sum, _) = match largest <= NOTHING_LEFT {
            true => sum_and_largest(
                simd,
                x,
                #[inline(always)]
                |x| own.own_zero(simd, x, zero),
            ),
            false => sum_and_largest(
                simd,
                x,
                #[inline(always)]
                |x| own.own_zero(simd, x, shrunk(simd, own.error(simd, x))),
            ),
        };
        self.zero = (sum / x.len() as f64) as f32;
        errors
    }
}

/// A [`ZeroPoint`] in vectors.
struct Quantiser<S: Simd> {
    factor: S::f32s,
    zero: S::f32s,
    most: S::f32s,
}

impl<S: Simd> Clone for Quantiser<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd> Copy for Quantiser<S> {}

impl<S: Simd> Quantiser<S> {
    #[inline(always)]
    fn of(simd: S, point: ZeroPoint) -> Self {
        let ZeroPoint { factor, zero, most } = point;
        Self {
            factor: simd.splat_f32s(factor),
            zero: simd.splat_f32s(zero),
            most: simd.splat_f32s(most),
        }
    }

    /// The code, a whole number.
    #[inline(always)]
    fn code(self, simd: S, x: S::f32s) -> S::f32s {
        let place = simd.add_f32s(simd.mul_f32s(x, self.factor), self.zero);
        whole(simd, bounded(simd, place, simd.splat_f32s(0.0), self.most))
    }

    /// A value less what its code stands for.
    #[inline(always)]
    fn error(self, simd: S, x: S::f32s) -> S::f32s {
        let levels = simd.sub_f32s(self.code(simd, x), self.zero);
        simd.sub_f32s(x, simd.div_f32s(levels, self.factor))
    }

    /// The zero point that this value would have, once it is less by `left`.
    #[inline(always)]
    fn own_zero(self, simd: S, x: S::f32s, left: S::f32s) -> S::f32s {
        let scaled = simd.mul_f32s(simd.sub_f32s(x, left), self.factor);
        simd.sub_f32s(self.code(simd, x), scaled)
    }
}

/// Of what `f` makes of the values: the sum, in f64, lane by lane, then lane after lane; and the largest, 0 at
/// least.
#[inline(always)]
fn sum_and_largest<S: Simd>(
    simd: S,
    x: &[f32],
    f: impl Fn(S::f32s) -> S::f32s + Copy,
) -> (f64, f32) {
    let mut sums = [0f64; LANES];
    let mut largest = 0f32;
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        let terms = map_lanes::<S>(chunk, f);
        for (sum, term) in sums.iter_mut().zip(&terms) {
            *sum += f64::from(*term);
        }
        let mut most = simd.splat_f32s(0.0);
        for terms in S::as_simd_f32s(&terms).0 {
            most = simd.max_f32s(most, *terms);
        }
        largest = largest.max(simd.reduce_max_f32s(most));
    }
    if !rest.is_empty() {
        let last = map_lanes::<S>(&padded(rest), f);
        for (sum, term) in sums.iter_mut().zip(&last[..rest.len()]) {
            *sum += f64::from(*term);
            largest = largest.max(*term);
        }
    }
    (sums.into_iter().sum(), largest)
}

/// The proximal operator of the norm of p = 0.7: an error less |error|^(p − 1) / β, or nothing.
#[inline(always)]
fn shrunk<S: Simd>(simd: S, error: S::f32s) -> S::f32s {
    let (zero, size) = (simd.splat_f32s(0.0), simd.abs_f32s(error));
    let less = simd.mul_f32s(simd.splat_f32s(SHRINKAGE), inverse_power(simd, size));
    let left = simd.max_f32s(simd.sub_f32s(size, less), zero);
    simd.select_f32s(simd.less_than_f32s(error, zero), simd.sub_f32s(zero, left), left)
}

/// x^−0.3 for an x from 10⁻¹² to 10¹², of what is beyond the end of that: there it is much more or much less
/// than x. By Newton's method for y¹⁰ · x³ = 1, so that it is the same on any machine.
#[inline(always)]
fn inverse_power<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = bounded(simd, x, simd.splat_f32s(1e-12), simd.splat_f32s(1e12));
    let cube = simd.mul_f32s(simd.mul_f32s(x, x), x);
    // Bits of a float are nearly its logarithm, of which 0.3 are taken from what leaves the least error.
    const FROM: u32 = 1_384_220_000;
    let bits = simd.transmute_u32s_f32s(x);
    let mut guess = simd.splat_u32s(FROM);
    for shift in [2, 5, 6, 9, 10] {
        let part = simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(shift));
        guess = simd.sub_u32s(guess, part);
    }
    let mut y = simd.transmute_f32s_u32s(guess);
    for _ in 0..4 {
        let square = simd.mul_f32s(y, y);
        let fourth = simd.mul_f32s(square, square);
        let tenth = simd.mul_f32s(simd.mul_f32s(fourth, fourth), square);
        let step = simd.mul_f32s(simd.splat_f32s(0.1), simd.mul_f32s(cube, tenth));
        y = simd.mul_f32s(y, simd.sub_f32s(simd.splat_f32s(1.1), step));
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Scalar;

    #[test]
    fn the_power_is_what_f64_has() {
        for exponent in -120..120 {
            for step in 0..64 {
                let x = 10f64.powf(f64::from(exponent) / 10.0) * (1.0 + f64::from(step) / 250.0);
                let found = f64::from(inverse_power(Scalar, x as f32));
                let expected = x.powf(-0.3);
                assert!((found / expected - 1.0).abs() < 4e-7, "{x:e}: {found:e}, {expected:e}");
            }
        }
        let shrunk = |error| shrunk(Scalar, error);
        assert!(shrunk(0.171) > 0.0);
        let found = [NOTHING_LEFT, 0.0, -1e30].map(shrunk);
        assert_eq!(found, [0.0, 0.0, -1e30]);
    }
}
