//! One group of values that share a scale: to codes and back.
//!
//! Every step is one rounding to f32. The scale is rounded to what is stored before it quantises,
//! so that encoder and decoder use the same number; ggml's formats quantise with the unrounded one,
//! as ggml does.

mod vectors;

use super::levels::{IQ4_NL, Levels, nearest_float8};
use super::scheme::Scheme;
use crate::lanes::whole;
use half::f16;
use pulp::Simd;
use vectors::{Splat, absmax, bounded, extreme, floor, range, squared_distance, to_codes};

/// What is stored of a group beside its codes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Side {
    /// As it is decoded.
    pub scale: f32,
    /// As it is stored: of an f16, or of a byte.
    pub scale_bits: u16,
    pub minimum: f16,
    /// What is stored is finite, and the scale of a group that needs one is not below the smallest
    /// that is stored in full precision.
    pub in_range: bool,
    /// The larger of scale and minimum as they should be, over the largest that can be stored.
    pub excess: f32,
}

impl Side {
    /// `exact`: the scale wanted, which is 0 for groups that need none.
    #[inline(always)]
    fn new(exact: f32, small: bool) -> Self {
        let (scale_bits, scale, fits, largest) = if small {
            let code = nearest_small(exact);
            // Half a step more or less than what there is rounds to it.
            let fits = (0.97 * SMALLEST_SMALL..1.016 * LARGEST_SMALL).contains(&exact);
            (u16::from(code), small_scale(code), fits, LARGEST_SMALL)
        } else {
            let rounded = f16::from_f32(exact);
            let size = rounded.to_f32().abs();
            let fits = size >= f16::MIN_POSITIVE.to_f32_const() && size < f32::INFINITY;
            (rounded.to_bits(), rounded.to_f32(), fits, f16::MAX.to_f32_const())
        };
        let (in_range, excess) = (exact == 0.0 || fits, exact.abs() / largest);
        Self { scale, scale_bits, minimum: f16::ZERO, in_range, excess }
    }

    fn with_minimum(mut self, exact: f32) -> Self {
        self.minimum = f16::from_f32(exact);
        self.in_range &= self.minimum.is_finite();
        self.excess = self.excess.max(exact.abs() / f16::MAX.to_f32_const());
        self
    }
}

/// 1 / scale; 0 where there is no usable scale, and values become the level nearest to 0.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let usable = scale != 0.0 && scale.is_finite();
    if usable { 1.0 / scale } else { 0.0 }
}

/// Scales in 8 bits: four of exponent, four of mantissa, no sign; (1 + m/16) · 2^(e − 12). Code 0
/// is 0.
pub(super) const SMALL_BIAS: u32 = 12;
const SMALLEST_SMALL: f32 = 17.0 / 16.0 / 4096.0;
const LARGEST_SMALL: f32 = 31.0 / 16.0 * 8.0;

#[inline(always)]
pub(super) fn small_scale(code: u8) -> f32 {
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

/// Candidates of a search, as fractions of the scale that leaves no value out.
const CANDIDATES: usize = 24;
const LEAST_CANDIDATE: f32 = 0.55;

fn candidate(index: usize) -> f32 {
    let step = f64::from(1.0 - LEAST_CANDIDATE) / (CANDIDATES - 1) as f64;
    (f64::from(LEAST_CANDIDATE) + step * index as f64) as f32
}

/// Codes of one group. `codes` is as long as `x`.
#[inline(always)]
pub(super) fn encode<S: Simd>(simd: S, x: &[f32], scheme: &Scheme, codes: &mut [u8]) -> Side {
    let mut side = encode_any(simd, x, scheme, codes);
    // What is worked out of very small numbers, a square above all, may come to zero.
    if side.scale == 0.0 && side.minimum == f16::ZERO {
        side.in_range = absmax(simd, x) == 0.0;
    }
    side
}

#[inline(always)]
fn encode_any<S: Simd>(simd: S, x: &[f32], scheme: &Scheme, codes: &mut [u8]) -> Side {
    match scheme.levels {
        Levels::Iq4Nl => return encode_iq4_nl(simd, x, codes),
        Levels::E4m3 => return encode_float8::<S, 3>(simd, x, Levels::E4M3_MAX, codes),
        Levels::E5m2 => return encode_float8::<S, 2>(simd, x, Levels::E5M2_MAX, codes),
        _ => {}
    }
    let extent = Extent::of(simd, x, scheme.levels);
    let mut fit = Fit::new(extent, scheme, 1.0);
    if scheme.searched {
        // From the full range down: of equals the first is kept.
        let (mut least, mut excess) = (f32::INFINITY, 0f32);
        for index in (0..CANDIDATES).rev() {
            let tried = Fit::new(extent, scheme, candidate(index));
            let error = tried.squared_error(simd, x, scheme);
            excess = excess.max(tried.side.excess);
            if error < least && tried.side.in_range {
                (fit, least) = (tried, error);
            }
        }
        fit.side.excess = excess;
    }
    fit.codes(simd, x, scheme, codes);
    fit.side
}

/// What the scale of a group is made of.
#[derive(Clone, Copy)]
enum Extent {
    /// The largest magnitude, the value that has it, or the root mean square.
    Size(f32),
    Range(f32, f32),
}

impl Extent {
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: &[f32], levels: Levels) -> Self {
        match levels {
            Levels::Asymmetric | Levels::GgmlAsymmetric => {
                let (low, high) = range(simd, x);
                Self::Range(low, high)
            }
            Levels::SignedExtreme => Self::Size(extreme(simd, x)),
            Levels::Gaussian => Self::Size((sum_of_squares(x) / x.len() as f32).sqrt()),
            _ => Self::Size(absmax(simd, x)),
        }
    }
}

/// A scale, and how values become codes with it.
#[derive(Clone, Copy)]
struct Fit {
    side: Side,
    inverse: f32,
    low: f32,
}

impl Fit {
    /// `fraction`: of the scale that leaves no value out; 1 without a search.
    #[inline(always)]
    fn new(extent: Extent, scheme: &Scheme, fraction: f32) -> Self {
        let half = f32::from(1u8 << (scheme.bits - 1));
        let (most, small) = (2.0 * half - 1.0, scheme.small_scales);
        match extent {
            Extent::Range(low, high) if scheme.levels == Levels::Asymmetric => {
                let (low, high) = if scheme.searched {
                    let (middle, reach) = ((low + high) / 2.0, (high - low) / 2.0 * fraction);
                    (middle - reach, middle + reach)
                } else {
                    (low, high)
                };
                let exact = low;
                let low = f16::from_f32(exact).to_f32();
                let side = Side::new((high - low).max(0.0) / most, small).with_minimum(exact);
                Self { side, inverse: inverse(side.scale), low }
            }
            // ggml quantises with what it does not store.
            Extent::Range(low, high) => {
                let exact = (high - low) / most;
                let side = Side::new(exact, false).with_minimum(low);
                Self { side, inverse: inverse(exact), low }
            }
            Extent::Size(size) => {
                let (exact, rounded) = match scheme.levels {
                    Levels::MidRise => (size / half * fraction, true),
                    Levels::SignedExtreme => (size / -half * fraction, false),
                    Levels::GgmlSymmetric => (size / (half - 1.0), false),
                    Levels::Gaussian => (size * fraction, true),
                    _ => (size / (half - 1.0) * fraction, true),
                };
                let side = Side::new(exact, small && rounded);
                let used = if rounded { side.scale } else { exact };
                Self { side, inverse: inverse(used), low: 0.0 }
            }
        }
    }

    #[inline(always)]
    fn codes<S: Simd>(&self, simd: S, x: &[f32], scheme: &Scheme, codes: &mut [u8]) {
        let splat = Splat(simd);
        let half = f32::from(1u8 << (scheme.bits - 1));
        let (zero, half, most) = (splat.of(0.0), splat.of(half), splat.of(2.0 * half - 1.0));
        let (inverse, low) = (splat.of(self.inverse), splat.of(self.low));
        let (one, halfway) = (splat.of(1.0), splat.of(0.5));
        match scheme.levels {
            Levels::MidRise => to_codes(
                simd,
                x,
                codes,
                #[inline(always)]
                |x| {
                    let t = simd.add_f32s(floor(simd, simd.mul_f32s(x, inverse)), half);
                    bounded(simd, t, zero, most)
                },
            ),
            Levels::Asymmetric => to_codes(
                simd,
                x,
                codes,
                #[inline(always)]
                |x| {
                    let t = simd.mul_f32s(simd.sub_f32s(x, low), inverse);
                    whole(simd, bounded(simd, t, zero, most))
                },
            ),
            Levels::SignedExtreme => to_codes(
                simd,
                x,
                codes,
                #[inline(always)]
                |x| {
                    let up = simd.add_f32s(half, halfway);
                    let t = simd.add_f32s(simd.mul_f32s(x, inverse), up);
                    floor(simd, bounded(simd, t, zero, most))
                },
            ),
            Levels::GgmlAsymmetric => to_codes(
                simd,
                x,
                codes,
                #[inline(always)]
                |x| {
                    let t = simd.mul_f32s(simd.sub_f32s(x, low), inverse);
                    floor(simd, bounded(simd, simd.add_f32s(t, halfway), zero, most))
                },
            ),
            // Halves away from zero.
            Levels::GgmlSymmetric => to_codes(
                simd,
                x,
                codes,
                #[inline(always)]
                |x| {
                    let t = simd.mul_f32s(x, inverse);
                    let size = simd.abs_f32s(t);
                    let near = whole(simd, size);
                    let below = simd.less_than_f32s(simd.sub_f32s(size, near), halfway);
                    let near = simd.select_f32s(below, near, simd.add_f32s(near, one));
                    let negative = simd.less_than_f32s(t, zero);
                    let (down, up) = (simd.sub_f32s(half, near), simd.add_f32s(half, near));
                    simd.select_f32s(negative, down, up)
                },
            ),
            Levels::Gaussian => {
                let levels = scheme.levels.table(scheme.bits);
                to_codes(
                    simd,
                    x,
                    codes,
                    #[inline(always)]
                    |x| {
                        // How many midpoints between neighbours lie below.
                        let (t, mut count) = (simd.mul_f32s(x, inverse), zero);
                        for pair in levels.windows(2) {
                            let middle = splat.of((pair[0] + pair[1]) / 2.0);
                            let more = simd.add_f32s(count, one);
                            count = simd.select_f32s(simd.less_than_f32s(middle, t), more, count);
                        }
                        count
                    },
                )
            }
            _ => to_codes(
                simd,
                x,
                codes,
                #[inline(always)]
                |x| {
                    let (low, high) = (simd.sub_f32s(one, half), simd.sub_f32s(half, one));
                    let t = bounded(simd, simd.mul_f32s(x, inverse), low, high);
                    simd.add_f32s(whole(simd, t), half)
                },
            ),
        }
    }

    /// The same where levels are one apart, the first and last of them these.
    #[inline(always)]
    fn even_error<S: Simd>(&self, simd: S, x: &[f32], first: f32, last: f32) -> f32 {
        let splat = Splat(simd);
        let (first, last) = (splat.of(first), splat.of(last));
        let (inverse, scale) = (splat.of(self.inverse), splat.of(self.side.scale));
        let (low, shift) = (splat.of(self.low), splat.of(-self.low * self.inverse));
        squared_distance(
            simd,
            x,
            #[inline(always)]
            |x| {
                let t = bounded(simd, simd.mul_add_f32s(x, inverse, shift), first, last);
                let n = simd.add_f32s(whole(simd, simd.sub_f32s(t, first)), first);
                simd.mul_add_f32s(n, scale, low)
            },
        )
    }

    /// Of what is decoded; where a value lies between two levels, of either.
    #[inline(always)]
    fn squared_error<S: Simd>(&self, simd: S, x: &[f32], scheme: &Scheme) -> f32 {
        let splat = Splat(simd);
        let half = f32::from(1u8 << (scheme.bits - 1));
        let (inverse, scale) = (splat.of(self.inverse), splat.of(self.side.scale));
        match scheme.levels {
            Levels::MidRise => self.even_error(simd, x, 0.5 - half, half - 0.5),
            Levels::Asymmetric | Levels::GgmlAsymmetric => {
                self.even_error(simd, x, 0.0, 2.0 * half - 1.0)
            }
            Levels::SignedExtreme => self.even_error(simd, x, -half, half - 1.0),
            // As many below zero as above.
            Levels::Gaussian => {
                let levels = scheme.levels.table(scheme.bits);
                let upper = &levels[levels.len() / 2..];
                squared_distance(
                    simd,
                    x,
                    #[inline(always)]
                    |x| {
                        let t = simd.mul_f32s(x, inverse);
                        let (size, mut level) = (simd.abs_f32s(t), splat.of(upper[0]));
                        for pair in upper.windows(2) {
                            let middle = splat.of((pair[0] + pair[1]) / 2.0);
                            let above = simd.less_than_f32s(middle, size);
                            level = simd.select_f32s(above, splat.of(pair[1]), level);
                        }
                        let negative = simd.less_than_f32s(t, splat.of(0.0));
                        let level = simd.select_f32s(negative, simd.neg_f32s(level), level);
                        simd.mul_f32s(level, scale)
                    },
                )
            }
            _ => self.even_error(simd, x, 1.0 - half, half - 1.0),
        }
    }
}

/// As ggml's quantize_row_iq4_nl_ref: codes by the extreme's scale, then the scale anew by least
/// squares weighted with x², its sums in order.
#[inline(always)]
fn encode_iq4_nl<S: Simd>(simd: S, x: &[f32], codes: &mut [u8]) -> Side {
    /// ggml's: what is smaller counts as zero.
    const NOTHING: f32 = 1e-15;
    let extreme = extreme(simd, x);
    if extreme.abs() < NOTHING {
        // The code for 1, times 0.
        codes.fill(0);
        return Side::new(0.0, false);
    }
    let inverse = 1.0 / (extreme / IQ4_NL[0]);
    for (code, x) in codes.iter_mut().zip(x) {
        let x = inverse * x;
        *code = IQ4_NL.windows(2).map(|pair| u8::from(x - pair[0] >= pair[1] - x)).sum();
    }
    let (mut product, mut square) = (0f32, 0f32);
    for (code, x) in codes.iter().zip(x) {
        let (level, weight) = (IQ4_NL[usize::from(*code & 15)], x * x);
        product += weight * level * x;
        square += weight * level * level;
    }
    Side::new(product / square, false)
}

#[inline(always)]
fn encode_float8<S: Simd, const MANTISSA: u32>(
    simd: S,
    x: &[f32],
    largest: f32,
    codes: &mut [u8],
) -> Side {
    let side = Side::new(absmax(simd, x) / largest, false);
    let inverse = inverse(side.scale);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = nearest_float8(x * inverse, MANTISSA);
    }
    side
}

/// What the codes of one group stand for.
#[inline(always)]
pub(super) fn decode(codes: &[u8], scheme: &Scheme, scale: f32, minimum: f32, out: &mut [f32]) {
    match scheme.levels.lowest(scheme.bits) {
        Some(lowest) if scheme.levels.has_minimum() => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) + lowest) * scale + minimum;
            }
        }
        Some(lowest) => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) + lowest) * scale;
            }
        }
        None => {
            let table = scheme.levels.table(scheme.bits);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = table[usize::from(*code)] * scale;
            }
        }
    }
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x * x;
    }
    sums.iter().sum()
}
