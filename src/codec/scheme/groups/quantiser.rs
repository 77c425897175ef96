//! The scale of a group from its dynamic range, and its values to codes.

use super::stored::StoredParams;
use super::vectors::{absmax, bounded, extreme, floor, range, to_codes};
use crate::codec::convert::rounded_to_half;
use crate::codec::scheme::definition::Scheme;
use crate::codec::scheme::levels::{LevelSet, Rounding, ScaleFrom};
use crate::codec::scheme::scales::ScaleFormat;
use crate::lanes::whole;
use pulp::Simd;

/// Added to the largest magnitude of a group.
const MARGIN: f32 = 1e-10;

/// 1 / scale; 0 where there is no usable scale, and values become the level nearest to 0.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The dynamic range of a group, of which its scale is made.
#[derive(Clone, Copy)]
pub(super) enum DynamicRange {
    /// A magnitude, which may have a sign, over the level at which the scale puts it.
    Magnitude { size: f32, level: f32 },
    /// The smallest value and the largest, and the number of scales between them.
    Interval { low: f32, high: f32, steps: f32 },
}

impl DynamicRange {
    #[inline(always)]
    pub fn of<S: Simd>(simd: S, x: &[f32], levels: &LevelSet) -> Self {
        match levels.scale {
            ScaleFrom::AbsMax(level) => Self::Magnitude { size: absmax(simd, x), level },
            ScaleFrom::SignedExtreme(level) => Self::Magnitude { size: extreme(simd, x), level },
            ScaleFrom::RootMeanSquare(level) => {
                Self::Magnitude { size: (sum_of_squares(x) / x.len() as f32).sqrt(), level }
            }
            ScaleFrom::Norm => Self::Magnitude { size: sum_of_squares(x).sqrt(), level: 1.0 },
            ScaleFrom::Range(steps) => {
                let (low, high) = range(simd, x);
                Self::Interval { low, high, steps }
            }
        }
    }
}

/// The scale of a group, and how values become codes with it.
#[derive(Clone, Copy)]
pub(super) struct GroupQuantiser {
    pub params: StoredParams,
    /// The factor from values, less `low`, to codes.
    inverse: f32,
    low: f32,
}

/// Scale and minimum as they should be, where levels start at the minimum. A scale of zero has no
/// sign.
#[inline(always)]
pub(super) fn asymmetric(low: f32, high: f32, steps: f32) -> (f32, f32) {
    ((high - rounded_to_half(low)).max(0.0) / steps + 0.0, low)
}

/// The middle part of a range.
#[inline(always)]
pub(super) fn narrowed(low: f32, high: f32, fraction: f32) -> (f32, f32) {
    let (middle, reach) = ((low + high) / 2.0, (high - low) / 2.0 * fraction);
    (middle - reach, middle + reach)
}

impl GroupQuantiser {
    /// `fraction`: of the scale that leaves no value out; 1 without a search.
    #[inline(always)]
    pub fn new(range: DynamicRange, scheme: &Scheme, levels: &LevelSet, fraction: f32) -> Self {
        let has_margin = matches!(levels.rounding, Rounding::DownFromLowest);
        let (exact, low) = match range {
            // exllamav3's, so that nothing is divided by zero.
            DynamicRange::Magnitude { size, level } if has_margin && size > 0.0 => {
                ((size + MARGIN) / level, 0.0)
            }
            DynamicRange::Magnitude { size, level } => (size / level * fraction, 0.0),
            DynamicRange::Interval { low, high, steps } if scheme.searched => {
                let (low, high) = narrowed(low, high, fraction);
                asymmetric(low, high, steps)
            }
            DynamicRange::Interval { low, high, steps } if !levels.quantises_unrounded => {
                asymmetric(low, high, steps)
            }
            DynamicRange::Interval { low, high, steps } => ((high - low) / steps + 0.0, low),
        };
        let params = StoredParams::new(exact, scheme.scales).with_minimum(low);
        match levels.quantises_unrounded {
            // Single precision holds it as it is, but for the least.
            true if scheme.scales != ScaleFormat::F32 => {
                Self { params, inverse: inverse(exact), low }
            }
            _ => Self { params, inverse: inverse(params.scale), low: params.minimum },
        }
    }

    /// The code of each value.
    #[inline(always)]
    pub fn codes<S: Simd>(
        &self,
        simd: S,
        x: &[f32],
        bits: u8,
        levels: &LevelSet,
        codes: &mut [u8],
    ) {
        let half = f32::from(1u8 << (bits - 1));
        let (zero, half, most) =
            (simd.splat_f32s(0.0), simd.splat_f32s(half), simd.splat_f32s(2.0 * half - 1.0));
        let (inverse, low) = (simd.splat_f32s(self.inverse), simd.splat_f32s(self.low));
        let (one, halfway) = (simd.splat_f32s(1.0), simd.splat_f32s(0.5));
        // The code of each value by an expression, inlined as a closure is not by itself.
        macro_rules! each {
            (|$x:ident| $code:expr) => {
                to_codes(
                    simd,
                    x,
                    codes,
                    #[inline(always)]
                    |$x| $code,
                )
            };
        }
        match levels.rounding {
            Rounding::Down => each!(|x| {
                let t = simd.add_f32s(floor(simd, simd.mul_f32s(x, inverse)), half);
                bounded(simd, t, zero, most)
            }),
            Rounding::NearestFromMinimum => each!(|x| {
                let t = simd.mul_f32s(simd.sub_f32s(x, low), inverse);
                whole(simd, bounded(simd, t, zero, most))
            }),
            Rounding::HalfUp => each!(|x| {
                let up = simd.add_f32s(half, halfway);
                let t = simd.add_f32s(simd.mul_f32s(x, inverse), up);
                floor(simd, bounded(simd, t, zero, most))
            }),
            Rounding::HalfUpFromMinimum => each!(|x| {
                let t = simd.mul_f32s(simd.sub_f32s(x, low), inverse);
                floor(simd, bounded(simd, simd.add_f32s(t, halfway), zero, most))
            }),
            Rounding::HalfAway => each!(|x| {
                let t = simd.mul_f32s(x, inverse);
                let size = simd.abs_f32s(t);
                let near = whole(simd, size);
                let below = simd.less_than_f32s(simd.sub_f32s(size, near), halfway);
                let near = simd.select_f32s(below, near, simd.add_f32s(near, one));
                let negative = simd.less_than_f32s(t, zero);
                let (down, up) = (simd.sub_f32s(half, near), simd.add_f32s(half, near));
                simd.select_f32s(negative, down, up)
            }),
            Rounding::NearestOfTable => {
                let levels = levels.points.table();
                each!(|x| {
                    // How many midpoints between neighbours lie below.
                    let (t, mut count) = (simd.mul_f32s(x, inverse), zero);
                    for pair in levels.windows(2) {
                        let middle = simd.splat_f32s((pair[0] + pair[1]) / 2.0);
                        let more = simd.add_f32s(count, one);
                        count = simd.select_f32s(simd.less_than_f32s(middle, t), more, count);
                    }
                    count
                })
            }
            Rounding::DownFromLowest => each!(|x| {
                let t = simd.add_f32s(simd.mul_f32s(x, inverse), half);
                floor(simd, bounded(simd, t, zero, most))
            }),
            // The others have encoders of their own.
            Rounding::Nearest
            | Rounding::Iq4Nl
            | Rounding::Mlx
            | Rounding::ZeroPoint
            | Rounding::Hqq
            | Rounding::NearestOfUnitVector
            | Rounding::HalfUpFromMinimumDivided
            | Rounding::Float(_) => each!(|x| {
                let (low, high) = (simd.sub_f32s(one, half), simd.sub_f32s(half, one));
                let t = bounded(simd, simd.mul_f32s(x, inverse), low, high);
                simd.add_f32s(whole(simd, t), half)
            }),
        }
    }
}

/// In 16 partial sums, each of every sixteenth value, which are then added up in their order.
#[inline(always)]
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
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
