//! One group of values that share a scale: to codes and back.
//!
//! Every step is one rounding to f32. The scale is rounded to what is stored before it quantises,
//! so that encoder and decoder use the same number; ggml's formats quantise with the unrounded one,
//! as ggml does.

mod vectors;

use super::levels::{IQ4_NL, Levels, MOST_GAUSSIAN, nearest_float8};
use super::scheme::Scheme;
use crate::lanes::{LANES, whole};
use half::f16;
use pulp::Simd;
use vectors::{absmax, bounded, extreme, floor, range, to_codes};

/// What is stored of a group beside its codes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Side {
    /// As they are decoded: of an f16 or, of `small` scales, a byte.
    pub scale: f32,
    small: bool,
    minimum: f32,
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
        let (scale, in_range) = if small { stored_small(exact) } else { stored_half(exact) };
        let largest = if small { LARGEST_SMALL } else { f16::MAX.to_f32_const() };
        let excess = exact.abs() / largest;
        Self { scale, small, minimum: 0.0, in_range, excess }
    }

    #[inline(always)]
    fn with_minimum(mut self, exact: f32) -> Self {
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
fn stored_half(exact: f32) -> (f32, bool) {
    let scale = rounded_to_half(exact);
    let size = scale.abs();
    let fits = (size >= f16::MIN_POSITIVE.to_f32_const()) & (size < f32::INFINITY);
    (scale, (exact == 0.0) | fits)
}

/// The same in a byte.
#[inline(always)]
fn stored_small(exact: f32) -> (f32, bool) {
    // Half a step more or less than what there is rounds to it.
    let fits = (0.97 * SMALLEST_SMALL..1.016 * LARGEST_SMALL).contains(&exact);
    (small_scale(nearest_small(exact)), (exact == 0.0) | fits)
}

/// The nearest value of an f16. The conversions of [`half`] are calls, which a search for scales
/// spends most of its time with.
#[inline(always)]
fn rounded_to_half(x: f32) -> f32 {
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
pub(super) fn half_value(bits: u16) -> f32 {
    // Its exponent, moved to where that of an f32 is, counts from 15 and not from 127.
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let wide = f32::from_bits(size.to_bits() | u32::from(bits & 0x8000) << 16);
    if size < 65536.0 { wide } else { f16::from_bits(bits).to_f32() }
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

/// Candidates of a search.
const CANDIDATES: usize = 24;
const LEAST_CANDIDATE: f32 = 0.55;
/// The same in whole lanes.
const TRIED: usize = CANDIDATES.next_multiple_of(LANES);
/// Of the scale that leaves no value out, the last one; those beyond it are not tried.
const FRACTIONS: [f32; TRIED] = {
    let step = (1.0 - LEAST_CANDIDATE) as f64 / (CANDIDATES - 1) as f64;
    let (mut fractions, mut index) = ([1.0; TRIED], 0);
    while index < CANDIDATES {
        fractions[index] = (LEAST_CANDIDATE as f64 + step * index as f64) as f32;
        index += 1;
    }
    fractions
};

/// Codes of one group. `codes` is as long as `x`.
#[inline(always)]
pub(super) fn encode<S: Simd>(simd: S, x: &[f32], scheme: &Scheme, codes: &mut [u8]) -> Side {
    let mut side = encode_any(simd, x, scheme, codes);
    // What is worked out of very small numbers, a square above all, may come to zero.
    if side.scale == 0.0 && side.minimum == 0.0 {
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
        fit = Fit::searched(simd, x, extent, scheme, fit);
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

/// Scale and minimum as they should be, where levels start at the minimum. A scale of zero has no
/// sign.
#[inline(always)]
fn asymmetric(low: f32, high: f32, bits: u8) -> (f32, f32) {
    let most = f32::from(u8::MAX >> (8 - bits));
    ((high - rounded_to_half(low)).max(0.0) / most + 0.0, low)
}

/// The middle part of a range.
#[inline(always)]
fn narrowed(low: f32, high: f32, fraction: f32) -> (f32, f32) {
    let (middle, reach) = ((low + high) / 2.0, (high - low) / 2.0 * fraction);
    (middle - reach, middle + reach)
}

/// What a size is divided by for the scale that leaves no value out.
#[inline(always)]
fn divisor(scheme: &Scheme) -> f32 {
    let half = f32::from(1u8 << (scheme.bits - 1));
    match scheme.levels {
        Levels::MidRise => half,
        Levels::SignedExtreme => -half,
        Levels::Gaussian => 1.0,
        _ => half - 1.0,
    }
}

impl Fit {
    /// `fraction`: of the scale that leaves no value out; 1 without a search.
    #[inline(always)]
    fn new(extent: Extent, scheme: &Scheme, fraction: f32) -> Self {
        let (exact, low) = match extent {
            Extent::Size(size) => (size / divisor(scheme) * fraction, 0.0),
            Extent::Range(low, high) if scheme.searched => {
                let (low, high) = narrowed(low, high, fraction);
                asymmetric(low, high, scheme.bits)
            }
            Extent::Range(low, high) if scheme.levels == Levels::Asymmetric => {
                asymmetric(low, high, scheme.bits)
            }
            Extent::Range(low, high) => {
                ((high - low) / f32::from(u8::MAX >> (8 - scheme.bits)) + 0.0, low)
            }
        };
        let rounded = !scheme.levels.quantises_unrounded();
        let side = Side::new(exact, scheme.small_scales && rounded).with_minimum(low);
        match rounded {
            true => Self { side, inverse: inverse(side.scale), low: side.minimum },
            false => Self { side, inverse: inverse(exact), low },
        }
    }

    #[inline(always)]
    fn codes<S: Simd>(&self, simd: S, x: &[f32], scheme: &Scheme, codes: &mut [u8]) {
        let half = f32::from(1u8 << (scheme.bits - 1));
        let (zero, half, most) =
            (simd.splat_f32s(0.0), simd.splat_f32s(half), simd.splat_f32s(2.0 * half - 1.0));
        let (inverse, low) = (simd.splat_f32s(self.inverse), simd.splat_f32s(self.low));
        let (one, halfway) = (simd.splat_f32s(1.0), simd.splat_f32s(0.5));
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
                            let middle = simd.splat_f32s((pair[0] + pair[1]) / 2.0);
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

    /// That of least squared error; of equals the largest. `full` leaves no value out.
    #[inline(always)]
    fn searched<S: Simd>(simd: S, x: &[f32], extent: Extent, scheme: &Scheme, full: Self) -> Self {
        let tried = Tried::new(extent, scheme);
        let mut errors = [0f32; TRIED];
        for column in 0..CANDIDATES.div_ceil(S::F32_LANES) {
            let error = tried.error(simd, x, scheme, column);
            S::as_mut_simd_f32s(&mut errors).0[column] = error;
        }
        // Bits of errors, which are not negative, are ordered as they are.
        let mut bits = [f32::INFINITY.to_bits(); CANDIDATES];
        for (index, bits) in bits.iter_mut().enumerate() {
            let scale = tried.scales[index];
            let error = errors[index] * (scale * scale);
            let error = if tried.in_range[index] { error } else { f32::INFINITY };
            *bits = error.to_bits();
        }
        let least = bits.iter().fold(f32::INFINITY.to_bits(), |least, bits| least.min(*bits));
        let mut chosen = 0;
        for (index, bits) in (0..).zip(bits) {
            chosen |= u32::from(bits == least) << index;
        }
        let at = |index| Self::new(extent, scheme, FRACTIONS[index]);
        let mut fit = match least < f32::INFINITY.to_bits() {
            true => at(chosen.ilog2() as usize),
            false => full,
        };
        // Scales rise with the fraction, and minima are linear in it: the ends exceed all between.
        fit.side.excess = full.side.excess.max(at(0).side.excess);
        fit
    }
}

/// The candidates of a search, one a lane: what [`Fit::new`] makes of each fraction.
struct Tried {
    scales: [f32; TRIED],
    inverses: [f32; TRIED],
    lows: [f32; TRIED],
    in_range: [bool; TRIED],
}

impl Tried {
    #[inline(always)]
    fn new(extent: Extent, scheme: &Scheme) -> Self {
        // A loop for each step, without a jump inside: these become vectors.
        let (mut wanted, mut lows) = ([0f32; TRIED], [0f32; TRIED]);
        let own = wanted.iter_mut().zip(&mut lows).zip(FRACTIONS);
        match extent {
            Extent::Size(size) => {
                let unit = size / divisor(scheme);
                for ((wanted, _), fraction) in own {
                    *wanted = unit * fraction;
                }
            }
            Extent::Range(low, high) => {
                for ((wanted, minimum), fraction) in own {
                    let (low, high) = narrowed(low, high, fraction);
                    (*wanted, *minimum) = asymmetric(low, high, scheme.bits);
                }
            }
        }
        let mut tried = Self { scales: wanted, inverses: wanted, lows, in_range: [false; TRIED] };
        let scales = tried.scales.iter_mut().zip(&mut tried.in_range);
        match scheme.small_scales && !scheme.levels.quantises_unrounded() {
            true => {
                for (scale, in_range) in scales {
                    (*scale, *in_range) = stored_small(*scale);
                }
            }
            false => {
                for (scale, in_range) in scales {
                    (*scale, *in_range) = stored_half(*scale);
                }
            }
        }
        for (low, in_range) in tried.lows.iter_mut().zip(&mut tried.in_range) {
            *low = rounded_to_half(*low);
            *in_range &= low.is_finite();
        }
        // Without a scale there is no error in squares of it: such a group has the full range.
        for (scale, in_range) in tried.scales.iter().zip(&mut tried.in_range) {
            *in_range &= *scale != 0.0;
        }
        if !scheme.levels.quantises_unrounded() {
            tried.inverses = tried.scales;
        }
        for scale in &mut tried.inverses {
            *scale = inverse(*scale);
        }
        tried
    }

    /// Of a group coded with each candidate of a column, in squares of its scale: of the one that
    /// quantises, from which ggml's stored one differs by its rounding.
    #[inline(always)]
    fn error<S: Simd>(&self, simd: S, x: &[f32], scheme: &Scheme, column: usize) -> S::f32s {
        let inverse = S::as_simd_f32s(&self.inverses).0[column];
        let half = f32::from(1u8 << (scheme.bits - 1));
        let (first, last) = match scheme.levels {
            Levels::Gaussian => return gaussian_error(simd, x, scheme, inverse),
            Levels::MidRise => (0.5 - half, half - 0.5),
            Levels::SignedExtreme => (-half, half - 1.0),
            Levels::Symmetric => (1.0 - half, half - 1.0),
            _ => (0.0, 2.0 * half - 1.0),
        };
        let low = S::as_simd_f32s(&self.lows).0[column];
        even_error(simd, x, inverse, low, first, last)
    }
}

/// Levels are one apart.
#[inline(always)]
fn even_error<S: Simd>(
    simd: S,
    x: &[f32],
    inverse: S::f32s,
    low: S::f32s,
    first: f32,
    last: f32,
) -> S::f32s {
    let (zero, most) = (simd.splat_f32s(0.0), simd.splat_f32s(last - first));
    let minus_first = simd.splat_f32s(-first);
    // Two sums, which do not wait for each other.
    let (mut even, mut odd) = (zero, zero);
    let (pairs, rest) = x.as_chunks::<2>();
    for [a, b] in pairs {
        let (a, b) = (simd.splat_f32s(*a), simd.splat_f32s(*b));
        let (a, b) = (simd.sub_f32s(a, low), simd.sub_f32s(b, low));
        let a = simd.mul_add_f32s(a, inverse, minus_first);
        let b = simd.mul_add_f32s(b, inverse, minus_first);
        let a = simd.sub_f32s(a, bounded(simd, whole(simd, a), zero, most));
        let b = simd.sub_f32s(b, bounded(simd, whole(simd, b), zero, most));
        (even, odd) = (simd.mul_add_f32s(a, a, even), simd.mul_add_f32s(b, b, odd));
    }
    for x in rest {
        let x = simd.sub_f32s(simd.splat_f32s(*x), low);
        let x = simd.mul_add_f32s(x, inverse, minus_first);
        let x = simd.sub_f32s(x, bounded(simd, whole(simd, x), zero, most));
        even = simd.mul_add_f32s(x, x, even);
    }
    simd.add_f32s(even, odd)
}

#[inline(always)]
fn gaussian_error<S: Simd>(simd: S, x: &[f32], scheme: &Scheme, inverse: S::f32s) -> S::f32s {
    let levels = scheme.levels.table(scheme.bits);
    // As many below zero as above.
    let upper = &levels[levels.len() / 2..];
    let mut middles = [0f32; MOST_GAUSSIAN / 2];
    for (middle, pair) in middles.iter_mut().zip(upper.windows(2)) {
        *middle = (pair[0] + pair[1]) / 2.0;
    }
    let mut sum = simd.splat_f32s(0.0);
    for x in x {
        let size = simd.abs_f32s(simd.mul_f32s(simd.splat_f32s(*x), inverse));
        let mut level = simd.splat_f32s(upper[0]);
        for (next, middle) in upper[1..].iter().zip(&middles) {
            let above = simd.less_than_f32s(simd.splat_f32s(*middle), size);
            level = simd.select_f32s(above, simd.splat_f32s(*next), level);
        }
        let left = simd.sub_f32s(size, level);
        sum = simd.mul_add_f32s(left, left, sum);
    }
    sum
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
