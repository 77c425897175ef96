//! One group of values that share a scale: to codes and back.
//!
//! Every step is one rounding to f32. The scale is rounded to what is stored before it quantises,
//! so that encoder and decoder use the same number; ggml's formats quantise with the unrounded one,
//! as ggml does.

mod quantiser;
mod search;
mod stored;
mod vectors;

pub use stored::StoredParams;

use super::definition::Scheme;
use super::levels::{IQ4_NL, LevelSet, Points, Rounding, ScaleFrom, SmallFloat};
use super::scales::{ScaleFormat, shared_scale};
use pulp::Simd;
use quantiser::{DynamicRange, GroupQuantiser, inverse};
use search::search;
use vectors::{absmax, extreme};

/// Codes of one group, and what is stored beside them. `codes` is as long as `x`; `tensor_scale` is
/// what stored scales are in units of.
#[inline(always)]
pub(super) fn encode<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    tensor_scale: f32,
    codes: &mut [u8],
) -> StoredParams {
    let mut params = encode_any(simd, x, scheme, tensor_scale, codes);
    // A scale made of very small numbers, a square above all, may come to zero.
    if scheme.scales.has_exponent() && params.scale == 0.0 && params.minimum == 0.0 {
        params.in_range = absmax(simd, x) == 0.0;
    }
    params
}

#[inline(always)]
fn encode_any<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    tensor_scale: f32,
    codes: &mut [u8],
) -> StoredParams {
    let levels = scheme.levels.set(scheme.bits);
    match levels.rounding {
        Rounding::Iq4Nl => return encode_iq4_nl(simd, x, codes),
        Rounding::Float(format) => {
            return encode_floats(simd, x, scheme.scales, format, tensor_scale, codes);
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
        return StoredParams::new(0.0, ScaleFormat::F16);
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
    StoredParams::new(product / square, ScaleFormat::F16)
}

#[inline(always)]
fn encode_floats<S: Simd>(
    simd: S,
    x: &[f32],
    scales: ScaleFormat,
    format: SmallFloat,
    tensor_scale: f32,
    codes: &mut [u8],
) -> StoredParams {
    let exact = match scales {
        ScaleFormat::One => 1.0,
        ScaleFormat::E8m0 => shared_scale(absmax(simd, x), format.largest_power()),
        // A tensor of zeros has a scale of zero.
        ScaleFormat::E4m3OfTensor if tensor_scale == 0.0 => 0.0,
        _ => absmax(simd, x) / format.largest / tensor_scale,
    };
    let params = StoredParams::new(exact, scales).times(tensor_scale);
    let inverse = inverse(params.scale);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = format.nearest(x * inverse);
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
