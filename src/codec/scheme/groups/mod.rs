//! One group of values that share a scale: to codes and back.
//!
//! Every step is one rounding to f32. The scale is rounded to what is stored before it quantises,
//! so that encoder and decoder use the same number; ggml's formats quantise with the unrounded one,
//! as ggml does.

mod quantiser;
mod search;
mod stored;
mod vectors;

pub use stored::{StoredParams, small_scale};

use super::definition::Scheme;
use super::levels::{IQ4_NL, LevelSet, Points, Rounding, ScaleFrom, nearest_float8};
use pulp::Simd;
use quantiser::{DynamicRange, GroupQuantiser, inverse};
use search::search;
use vectors::{absmax, extreme};

/// Codes of one group, and what is stored beside them. `codes` is as long as `x`.
#[inline(always)]
pub(super) fn encode<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    codes: &mut [u8],
) -> StoredParams {
    let mut params = encode_any(simd, x, scheme, codes);
    // A scale made of very small numbers, a square above all, may come to zero.
    if params.scale == 0.0 && params.minimum == 0.0 {
        params.in_range = absmax(simd, x) == 0.0;
    }
    params
}

#[inline(always)]
fn encode_any<S: Simd>(simd: S, x: &[f32], scheme: &Scheme, codes: &mut [u8]) -> StoredParams {
    let levels = scheme.levels.set(scheme.bits);
    match (levels.rounding, levels.scale) {
        (Rounding::Iq4Nl, _) => return encode_iq4_nl(simd, x, codes),
        (Rounding::E4m3, ScaleFrom::AbsMax(largest)) => {
            return encode_float8::<S, 3>(simd, x, largest, codes);
        }
        (Rounding::E5m2, ScaleFrom::AbsMax(largest)) => {
            return encode_float8::<S, 2>(simd, x, largest, codes);
        }
        _ => {}
    }
    let range = DynamicRange::of(simd, x, &levels);
    let mut quantiser = GroupQuantiser::new(range, scheme, &levels, 1.0);
    if scheme.searched {
        quantiser = search(simd, x, range, scheme, &levels, quantiser);
    }
    quantiser.codes(simd, x, scheme.bits, &levels, codes);
    quantiser.params
}

/// As ggml's quantize_row_iq4_nl_ref: codes by the extreme's scale, then the scale anew by least
/// squares weighted with x², its sums in order.
#[inline(always)]
fn encode_iq4_nl<S: Simd>(simd: S, x: &[f32], codes: &mut [u8]) -> StoredParams {
    /// ggml's: what is smaller counts as zero.
    const NOTHING: f32 = 1e-15;
    let extreme = extreme(simd, x);
    if extreme.abs() < NOTHING {
        // The code for 1, times 0.
        codes.fill(0);
        return StoredParams::new(0.0, false);
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
    StoredParams::new(product / square, false)
}

#[inline(always)]
fn encode_float8<S: Simd, const MANTISSA: u32>(
    simd: S,
    x: &[f32],
    largest: f32,
    codes: &mut [u8],
) -> StoredParams {
    let params = StoredParams::new(absmax(simd, x) / largest, false);
    let inverse = inverse(params.scale);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = nearest_float8(x * inverse, MANTISSA);
    }
    params
}

/// The values that the codes of one group stand for.
#[inline(always)]
pub(super) fn decode(codes: &[u8], scheme: &Scheme, scale: f32, minimum: f32, out: &mut [f32]) {
    let LevelSet { points, scale: from, .. } = scheme.levels.set(scheme.bits);
    match points {
        Points::Even { zero, .. } if matches!(from, ScaleFrom::Range(_)) => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) + zero) * scale + minimum;
            }
        }
        Points::Even { zero, .. } => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) + zero) * scale;
            }
        }
        Points::Table(table) | Points::MirroredTable(table) => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = table[usize::from(*code)] * scale;
            }
        }
    }
}
