//! One group of values that share a scale: to codes and back.
//!
//! Every step is one rounding to f32. The scale is rounded to what is stored before it quantises,
//! so that encoder and decoder use the same number; ggml's formats quantise with the unrounded one,
//! as ggml does.

use super::levels::{IQ4_NL, Levels, nearest_float8};
use super::scheme::Scheme;
use half::f16;

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
pub(super) fn encode(x: &[f32], scheme: &Scheme, codes: &mut [u8]) -> Side {
    let mut side = if scheme.searched {
        encode_searched(x, scheme, codes)
    } else {
        encode_with(x, scheme, 1.0, codes)
    };
    // What is worked out of very small numbers, a square above all, may come to zero.
    if side.scale == 0.0 && side.minimum == f16::ZERO {
        side.in_range = absmax(x) == 0.0;
    }
    side
}

#[inline(always)]
fn encode_searched(x: &[f32], scheme: &Scheme, codes: &mut [u8]) -> Side {
    // From the full range down: of equals the first is kept.
    let (mut best, mut least, mut excess) = (CANDIDATES - 1, f32::INFINITY, 0f32);
    for index in (0..CANDIDATES).rev() {
        let side = encode_with(x, scheme, candidate(index), codes);
        let error = squared_error(x, codes, scheme, side);
        excess = excess.max(side.excess);
        if error < least && side.in_range {
            (best, least) = (index, error);
        }
    }
    Side { excess, ..encode_with(x, scheme, candidate(best), codes) }
}

#[inline(always)]
fn squared_error(x: &[f32], codes: &[u8], scheme: &Scheme, side: Side) -> f32 {
    const CHUNK: usize = 64;
    let mut sums = [0f32; 16];
    let mut decoded = [0f32; CHUNK];
    for (x, codes) in x.chunks(CHUNK).zip(codes.chunks(CHUNK)) {
        let decoded = &mut decoded[..x.len()];
        decode(codes, scheme, side.scale, side.minimum.to_f32(), decoded);
        for (index, (x, y)) in x.iter().zip(decoded).enumerate() {
            sums[index % 16] += (x - *y) * (x - *y);
        }
    }
    sums.iter().sum()
}

/// `fraction`: of the scale that leaves no value out; 1 without a search.
#[inline(always)]
fn encode_with(x: &[f32], scheme: &Scheme, fraction: f32, codes: &mut [u8]) -> Side {
    let bits = scheme.bits;
    let half = f32::from(1u8 << (bits - 1));
    let small = scheme.small_scales;
    let most = 2.0 * half - 1.0;
    match scheme.levels {
        Levels::Symmetric => {
            let side = Side::new(absmax(x) / (half - 1.0) * fraction, small);
            let inverse = inverse(side.scale);
            to_codes(x, codes, |x| {
                (x * inverse).round_ties_even().clamp(1.0 - half, half - 1.0) + half
            });
            side
        }
        Levels::MidRise => {
            let side = Side::new(absmax(x) / half * fraction, small);
            let inverse = inverse(side.scale);
            to_codes(x, codes, |x| ((x * inverse).floor() + half).clamp(0.0, most));
            side
        }
        Levels::Asymmetric => {
            let (low, high) = range(x);
            let (low, high) = if scheme.searched {
                let (middle, reach) = ((low + high) / 2.0, (high - low) / 2.0 * fraction);
                (middle - reach, middle + reach)
            } else {
                (low, high)
            };
            let exact = low;
            let low = f16::from_f32(exact).to_f32();
            let side = Side::new((high - low).max(0.0) / most, small).with_minimum(exact);
            let inverse = inverse(side.scale);
            to_codes(x, codes, |x| ((x - low) * inverse).round_ties_even().clamp(0.0, most));
            side
        }
        Levels::SignedExtreme => {
            let exact = extreme(x) / -half * fraction;
            let inverse = inverse(exact);
            to_codes(x, codes, |x| (x * inverse + (half + 0.5)).clamp(0.0, most));
            Side::new(exact, false)
        }
        Levels::GgmlSymmetric => {
            let exact = absmax(x) / (half - 1.0);
            let inverse = inverse(exact);
            to_codes(x, codes, |x| (x * inverse).round() + half);
            Side::new(exact, false)
        }
        Levels::GgmlAsymmetric => {
            let (low, high) = range(x);
            let exact = (high - low) / most;
            let inverse = inverse(exact);
            to_codes(x, codes, |x| ((x - low) * inverse + 0.5).min(most));
            Side::new(exact, false).with_minimum(low)
        }
        Levels::Gaussian => {
            let rms = (sum_of_squares(x) / x.len() as f32).sqrt();
            let side = Side::new(rms * fraction, small);
            nearest_levels(x, inverse(side.scale), Levels::Gaussian.table(bits), codes);
            side
        }
        Levels::Iq4Nl => encode_iq4_nl(x, codes),
        Levels::E4m3 => encode_float8::<3>(x, Levels::E4M3_MAX, codes),
        Levels::E5m2 => encode_float8::<2>(x, Levels::E5M2_MAX, codes),
    }
}

/// `code` gives a number between 0 and 255, which is cut to a whole one.
#[inline(always)]
fn to_codes(x: &[f32], codes: &mut [u8], code: impl Fn(f32) -> f32) {
    for (out, x) in codes.iter_mut().zip(x) {
        *out = code(*x) as i32 as u8;
    }
}

/// How many midpoints between neighbours lie below x · inverse.
#[inline(always)]
fn nearest_levels(x: &[f32], inverse: f32, levels: &[f32], codes: &mut [u8]) {
    const CHUNK: usize = 64;
    for (x, codes) in x.chunks(CHUNK).zip(codes.chunks_mut(CHUNK)) {
        let mut counts = [0i32; CHUNK];
        let mut scaled = [0f32; CHUNK];
        for (scaled, x) in scaled.iter_mut().zip(x) {
            *scaled = x * inverse;
        }
        for pair in levels.windows(2) {
            let middle = (pair[0] + pair[1]) / 2.0;
            for (count, x) in counts.iter_mut().zip(&scaled) {
                *count += i32::from(*x > middle);
            }
        }
        for (code, count) in codes.iter_mut().zip(counts) {
            *code = count as u8;
        }
    }
}

/// As ggml's quantize_row_iq4_nl_ref: codes by the extreme's scale, then the scale anew by least
/// squares weighted with x², its sums in order.
#[inline(always)]
fn encode_iq4_nl(x: &[f32], codes: &mut [u8]) -> Side {
    /// ggml's: what is smaller counts as zero.
    const NOTHING: f32 = 1e-15;
    let extreme = extreme(x);
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
fn encode_float8<const MANTISSA: u32>(x: &[f32], largest: f32, codes: &mut [u8]) -> Side {
    let side = Side::new(absmax(x) / largest, false);
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
fn absmax(x: &[f32]) -> f32 {
    crate::lanes::reduce(x, 0.0, |max, x| max.max(x.abs()))
}

#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    (
        crate::lanes::reduce(x, f32::INFINITY, f32::min),
        crate::lanes::reduce(x, f32::NEG_INFINITY, f32::max),
    )
}

/// The value of largest magnitude, the first of several.
#[inline(always)]
fn extreme(x: &[f32]) -> f32 {
    let largest = absmax(x);
    x.iter().copied().find(|x| x.abs() == largest).unwrap_or(0.0)
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
