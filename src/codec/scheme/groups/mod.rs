//! One group of values that share a scale: to codes and back.
//!
//! Every step is one rounding to f32. The scale is rounded to what is stored before it quantises,
//! so that encoder and decoder use the same number; ggml's formats quantise with the unrounded one,
//! as ggml does.

mod engines;
mod hqq;
mod quantiser;
mod search;
mod stored;
mod vectors;

pub(super) use hqq::passes;
pub use stored::StoredParams;

use super::definition::Scheme;
use super::levels::{LevelSet, Levels, Points, Rounding, ScaleFrom};
use super::scales::{ScaleAndZero, ScaleFormat};
use engines::{
    encode_floats, encode_iq4_nl, encode_mlx, encode_unit_vector, encode_values_divided,
    encode_zero_point,
};
use hqq::encode_hqq;
use pulp::Simd;
use quantiser::{DynamicRange, GroupQuantiser, sum_of_squares};
use search::search;
use vectors::absmax;

/// Codes of one group, and what is stored beside them. `codes` is as long as `x`; `tensor_scale` is
/// what stored scales are in units of, `passes` those that zero points take.
#[inline(always)]
pub(super) fn encode<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    tensor_scale: f32,
    passes: usize,
    codes: &mut [u8],
) -> StoredParams {
    let mut params = encode_any(simd, x, scheme, tensor_scale, passes, codes);
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
    passes: usize,
    codes: &mut [u8],
) -> StoredParams {
    let levels = scheme.levels.set(scheme.bits);
    match levels.rounding {
        Rounding::Iq4Nl => return encode_iq4_nl(simd, x, codes),
        Rounding::Mlx => return encode_mlx(simd, x, scheme, codes),
        Rounding::ZeroPoint => return encode_zero_point(simd, x, scheme, codes),
        Rounding::Hqq => return encode_hqq(simd, x, scheme, passes, codes),
        Rounding::NearestOfUnitVector => {
            return encode_unit_vector(simd, x, scheme, levels.points.table(), codes);
        }
        Rounding::HalfUpFromMinimumDivided => {
            return encode_values_divided(simd, x, scheme, codes);
        }
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

/// The values that the codes of one group stand for. `offset`: its minimum, or its zero point.
#[inline(always)]
pub(super) fn decode(codes: &[u8], scheme: &Scheme, scale: f32, offset: f32, out: &mut [f32]) {
    let LevelSet { points, scale: from, .. } = scheme.levels.set(scheme.bits);
    match points {
        _ if scheme.scales == ScaleFormat::F32WithZero => {
            let ScaleAndZero { scale, zero } = ScaleAndZero::of(scale);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) - zero) * scale;
            }
        }
        _ if scheme.levels == Levels::Hqq => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) - offset) * scale;
            }
        }
        Points::Even { zero, .. } if matches!(from, ScaleFrom::Range(_)) => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) + zero) * scale + offset;
            }
        }
        Points::Even { zero, .. } => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = (f32::from(*code) + zero) * scale;
            }
        }
        Points::Table(table) | Points::MirroredTable(table) if matches!(from, ScaleFrom::Norm) => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = table[usize::from(*code)];
            }
            let inverse = 1.0 / sum_of_squares(out).sqrt();
            for out in out {
                *out = *out * inverse * scale;
            }
        }
        Points::Table(table) | Points::MirroredTable(table) => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = table[usize::from(*code)] * scale;
            }
        }
    }
}
