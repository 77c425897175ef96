//! Vector operations on groups.

use crate::lanes::{LANES, Lanes, TWO_23, absmax_of, whole};
use pulp::Simd;

#[inline(always)]
pub(super) fn bounded<S: Simd>(simd: S, x: S::f32s, low: S::f32s, high: S::f32s) -> S::f32s {
    simd.min_f32s(simd.max_f32s(x, low), high)
}

#[inline(always)]
pub(super) fn floor<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let near = whole(simd, x);
    let less = simd.sub_f32s(near, simd.splat_f32s(1.0));
    simd.select_f32s(simd.less_than_f32s(x, near), less, near)
}

/// Calls `f` with vectors of what lies in 16 lanes, and gives what comes of it.
#[inline(always)]
pub(super) fn map_lanes<S: Simd>(x: &Lanes, f: impl Fn(S::f32s) -> S::f32s) -> Lanes {
    let mut out = [0f32; LANES];
    let (to, _) = S::as_mut_simd_f32s(&mut out);
    for (to, x) in to.iter_mut().zip(S::as_simd_f32s(x).0) {
        *to = f(*x);
    }
    out
}

/// The last values of a group, and zeros.
#[inline(always)]
pub(super) fn padded(x: &[f32]) -> Lanes {
    let mut lanes = [0f32; LANES];
    lanes[..x.len()].copy_from_slice(x);
    lanes
}

/// `code` gives whole numbers between 0 and 255, which are the low bits of their sums with 2^23.
///
/// The closure goes by value: called through a reference it would not be inlined.
#[inline(always)]
pub(super) fn to_codes<S: Simd>(
    simd: S,
    x: &[f32],
    codes: &mut [u8],
    code: impl Fn(S::f32s) -> S::f32s + Copy,
) {
    const CHUNK: usize = 8 * LANES;
    let magic = simd.splat_f32s(TWO_23);
    let mut sums = [0f32; CHUNK];
    for (codes, x) in codes.chunks_mut(CHUNK).zip(x.chunks(CHUNK)) {
        let (chunks, rest) = x.as_chunks::<LANES>();
        let whole = S::as_simd_f32s(chunks.as_flattened()).0;
        for (sum, x) in S::as_mut_simd_f32s(&mut sums).0.iter_mut().zip(whole) {
            *sum = simd.add_f32s(code(*x), magic);
        }
        if !rest.is_empty() {
            let last = map_lanes::<S>(&padded(rest), code);
            for (sum, code) in sums[x.len() - rest.len()..].iter_mut().zip(last) {
                *sum = code + TWO_23;
            }
        }
        for (code, sum) in codes.iter_mut().zip(&sums) {
            *code = sum.to_bits() as u8;
        }
    }
}

#[inline(always)]
pub(super) fn absmax<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(x);
    rest.iter().fold(absmax_of(simd, vectors), |max, x| max.max(x.abs()))
}

#[inline(always)]
pub(super) fn range<S: Simd>(simd: S, x: &[f32]) -> (f32, f32) {
    let (vectors, rest) = S::as_simd_f32s(x);
    let (mut low, mut high) = (simd.splat_f32s(f32::INFINITY), simd.splat_f32s(f32::NEG_INFINITY));
    for x in vectors {
        (low, high) = (simd.min_f32s(low, *x), simd.max_f32s(high, *x));
    }
    let ends = (simd.reduce_min_f32s(low), simd.reduce_max_f32s(high));
    let (low, high) = rest.iter().fold(ends, |(low, high), x| (low.min(*x), high.max(*x)));
    // Which zero is the smaller depends on the instructions: here the negative one is, for a
    // minimum. A maximum of zero has no sign.
    let negative = || x.iter().any(|x| *x == 0.0 && x.is_sign_negative());
    let low = if low == 0.0 { 0f32.copysign(if negative() { -1.0 } else { 1.0 }) } else { low };
    (low, high + 0.0)
}

/// The value of largest magnitude, the first of several.
#[inline(always)]
pub(super) fn extreme<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (low, high) = range(simd, x);
    if -low == high {
        return x.iter().copied().find(|x| x.abs() == high).unwrap_or(0.0);
    }
    if -low > high { low } else { high }
}
