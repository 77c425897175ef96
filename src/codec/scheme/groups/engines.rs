//! Encoders of formats that other engines round in ways of their own.

use super::quantiser::{inverse, sum_of_squares};
use super::stored::StoredParams;
use super::vectors::{absmax, bounded, extreme, floor, range, to_codes};
use crate::codec::scheme::definition::Scheme;
use crate::codec::scheme::level_tables::IQ4_NL;
use crate::codec::scheme::scales::{
    FixedScale, LEAST_F32, ScaleAndZero, ScaleFormat, shared_scale,
};
use crate::codec::scheme::small_float::SmallFloat;
use pulp::Simd;

/// As ggml's quantize_row_iq4_nl_ref: codes by the extreme's scale, then the scale anew by least
/// squares weighted with x², its sums in order.
#[inline(always)]
pub(super) fn encode_iq4_nl<S: Simd>(simd: S, x: &[f32], codes: &mut [u8]) -> StoredParams {
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
pub(super) fn encode_floats<S: Simd>(
    simd: S,
    x: &[f32],
    scales: ScaleFormat,
    format: SmallFloat,
    tensor_scale: f32,
    codes: &mut [u8],
) -> StoredParams {
    let exact = match scales {
        ScaleFormat::Fixed(scale) => scale.get(),
        ScaleFormat::E8m0 => shared_scale(absmax(simd, x), format.largest_power()),
        // A tensor of zeros has a scale of zero.
        ScaleFormat::E4m3OfTensor if tensor_scale == 0.0 => 0.0,
        _ => absmax(simd, x) / format.largest / tensor_scale,
    };
    let params = StoredParams::new(exact, scales).times(tensor_scale);
    match scales {
        // vLLM divides by it.
        ScaleFormat::Fixed(scale) if scale != FixedScale::ONE => {
            for (code, x) in codes.iter_mut().zip(x) {
                *code = format.nearest(x / scale.get());
            }
        }
        _ => {
            let inverse = inverse(params.scale);
            for (code, x) in codes.iter_mut().zip(x) {
                *code = format.nearest(x * inverse);
            }
        }
    }
    params
}

/// As MLX's affine_quantize on Metal: the end of the range that is farther from 0 lies on a level, whose
/// index `q` is a whole number of scales from it. Halves are rounded away from zero.
#[inline(always)]
pub(super) fn encode_mlx<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    codes: &mut [u8],
) -> StoredParams {
    /// MLX's: the least scale.
    const LEAST: f32 = 1e-7;
    let most = f32::from(u8::MAX >> (8 - scheme.bits));
    let (low, high) = range(simd, x);
    // Its largest value starts at 0, its smallest does not.
    let high = high.max(0.0);
    let step = ((high - low) / most).max(LEAST);
    let (step, edge) = if low.abs() > high.abs() { (step, low) } else { (-step, high) };
    let q = (edge / step).round();
    if q == 0.0 {
        // All is less than half of the least scale, and becomes 0.
        codes.fill(0);
        return StoredParams::new(0.0, scheme.scales);
    }
    let scale = edge / q;
    let (bias, divisor) = (simd.splat_f32s(edge), simd.splat_f32s(scale));
    let (zero, half, most) = (simd.splat_f32s(0.0), simd.splat_f32s(0.5), simd.splat_f32s(most));
    to_codes(
        simd,
        x,
        codes,
        #[inline(always)]
        |x| {
            let t = simd.div_f32s(simd.sub_f32s(x, bias), divisor);
            // The nearest, halves up: nothing is below 0 but by a rounding error.
            let down = floor(simd, bounded(simd, t, zero, most));
            let up = simd.add_f32s(down, simd.splat_f32s(1.0));
            let nearer = simd.less_than_f32s(simd.sub_f32s(t, down), half);
            bounded(simd, simd.select_f32s(nearer, down, up), zero, most)
        },
    );
    StoredParams::new(scale, scheme.scales).with_minimum(edge)
}

/// As vLLM's kernel of int4_per_token_head: halves up, and what is out of reach of the zero point is
/// cut off.
#[inline(always)]
pub(super) fn encode_zero_point<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    codes: &mut [u8],
) -> StoredParams {
    let most = f32::from(u8::MAX >> (8 - scheme.bits));
    let (low, high) = range(simd, x);
    let scale = ((high - low) / most).max(LEAST_F32);
    let zero = (-low / scale + 0.5).floor().clamp(0.0, most);
    let (factor, shift) = (simd.splat_f32s(1.0 / scale), simd.splat_f32s(zero));
    let (least, half, most) = (simd.splat_f32s(0.0), simd.splat_f32s(0.5), simd.splat_f32s(most));
    to_codes(
        simd,
        x,
        codes,
        #[inline(always)]
        |x| {
            let t = simd.add_f32s(simd.mul_f32s(x, factor), shift);
            floor(simd, bounded(simd, simd.add_f32s(t, half), least, most))
        },
    );
    StoredParams::new(ScaleAndZero { scale, zero }.packed(), scheme.scales)
}

/// As vLLM's kernel of TurboQuant's keys: the head vector over its norm, in units of the standard
/// deviation that a channel has on average, to the nearest centroid, halves up.
#[inline(always)]
pub(super) fn encode_unit_vector<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    levels: &[f32],
    codes: &mut [u8],
) -> StoredParams {
    /// vLLM's, so that nothing is divided by zero.
    const MARGIN: f32 = 1e-8;
    let norm = sum_of_squares(x).sqrt();
    let factor = simd.splat_f32s((x.len() as f32).sqrt() / (norm + MARGIN));
    let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    to_codes(
        simd,
        x,
        codes,
        #[inline(always)]
        |x| {
            // How many midpoints between neighbours do not lie above.
            let (t, mut count) = (simd.mul_f32s(x, factor), zero);
            for pair in levels.windows(2) {
                let middle = simd.splat_f32s((pair[0] + pair[1]) / 2.0);
                let more = simd.add_f32s(count, one);
                count = simd.select_f32s(simd.less_than_f32s(t, middle), count, more);
            }
            count
        },
    );
    StoredParams::new(norm, scheme.scales)
}

/// As vLLM's kernel of TurboQuant's values: halves up, with the scale before it is rounded.
#[inline(always)]
pub(super) fn encode_values_divided<S: Simd>(
    simd: S,
    x: &[f32],
    scheme: &Scheme,
    codes: &mut [u8],
) -> StoredParams {
    /// vLLM's: the least scale.
    const LEAST: f32 = 1e-8;
    let most = f32::from(u8::MAX >> (8 - scheme.bits));
    let (low, high) = range(simd, x);
    let exact = (high - low) / most + 0.0;
    let (least, divisor) = (simd.splat_f32s(low), simd.splat_f32s(exact.max(LEAST)));
    let (zero, half, most) = (simd.splat_f32s(0.0), simd.splat_f32s(0.5), simd.splat_f32s(most));
    to_codes(
        simd,
        x,
        codes,
        #[inline(always)]
        |x| {
            let t = simd.div_f32s(simd.sub_f32s(x, least), divisor);
            floor(simd, bounded(simd, simd.add_f32s(t, half), zero, most))
        },
    );
    // That of a constant group, which has the one code 0, is of no use.
    StoredParams::new(exact, scheme.scales).with_minimum(low)
}
