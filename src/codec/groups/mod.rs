//! One group of values that share a scale: to codes and back.
//!
//! Every step is one rounding to f32. The scale is rounded to what is stored before it quantises,
//! so that encoder and decoder use the same number; ggml's formats quantise with the unrounded one,
//! as ggml does.

mod search;
mod side;
mod vectors;

use super::levels::{IQ4_NL, Levels, nearest_float8};
use super::scheme::Scheme;
use crate::lanes::whole;
use pulp::Simd;
use search::search;
use side::rounded_to_half;
pub use side::{Side, half_value, small_scale};
use vectors::{absmax, bounded, extreme, floor, range, to_codes};

/// 1 / scale; 0 where there is no usable scale, and values become the level nearest to 0.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let usable = scale != 0.0 && scale.is_finite();
    if usable { 1.0 / scale } else { 0.0 }
}

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
        fit = search(simd, x, extent, scheme, fit);
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
        let side = Side::new(exact, scheme.small_scales).with_minimum(low);
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
