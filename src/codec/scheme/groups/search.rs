//! The scale of least squared error.

use super::quantiser::{DynamicRange, GroupQuantiser, asymmetric, inverse, narrowed};
use super::vectors::bounded;
use crate::codec::convert::rounded_to_half;
use crate::codec::scheme::definition::Scheme;
use crate::codec::scheme::level_tables::MOST_SEARCHED;
use crate::codec::scheme::levels::{LevelSet, Points};
use crate::codec::scheme::scales::{ScaleFormat, stored_half, stored_small};
use crate::lanes::{LANES, whole};
use pulp::Simd;

/// Scales that a search tries.
const CANDIDATES: usize = 24;
/// The least of them, of the scale that leaves no value out.
const LEAST_CANDIDATE: f32 = 0.55;
/// Their number in whole lanes.
const PADDED: usize = CANDIDATES.next_multiple_of(LANES);
/// Each candidate over the scale that leaves no value out, which is the last one; those beyond it
/// are not tried.
const FRACTIONS: [f32; PADDED] = {
    let step = (1.0 - LEAST_CANDIDATE) as f64 / (CANDIDATES - 1) as f64;
    let (mut fractions, mut index) = ([1.0; PADDED], 0);
    while index < CANDIDATES {
        fractions[index] = (LEAST_CANDIDATE as f64 + step * index as f64) as f32;
        index += 1;
    }
    fractions
};

/// That of least squared error; of equals the largest. `full` leaves no value out.
#[inline(always)]
pub(super) fn search<S: Simd>(
    simd: S,
    x: &[f32],
    range: DynamicRange,
    scheme: &Scheme,
    levels: &LevelSet,
    full: GroupQuantiser,
) -> GroupQuantiser {
    let tried = Candidates::new(range, scheme, levels);
    let mut errors = [0f32; PADDED];
    for column in 0..CANDIDATES.div_ceil(S::F32_LANES) {
        let error = tried.error(simd, x, levels, column);
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
    let at = |index| GroupQuantiser::new(range, scheme, levels, FRACTIONS[index]);
    let mut best = match least < f32::INFINITY.to_bits() {
        true => at(chosen.ilog2() as usize),
        false => full,
    };
    // Scales rise with the fraction, and minima are linear in it: the ends exceed all between.
    best.params.overflow = full.params.overflow.max(at(0).params.overflow);
    best
}

/// The candidates of a search, one a lane, as [`GroupQuantiser::new`] makes them of each fraction.
struct Candidates {
    scales: [f32; PADDED],
    inverses: [f32; PADDED],
    lows: [f32; PADDED],
    in_range: [bool; PADDED],
}

impl Candidates {
    #[inline(always)]
    fn new(range: DynamicRange, scheme: &Scheme, levels: &LevelSet) -> Self {
        // A loop for each step, without a jump inside: these become vectors.
        let (mut wanted, mut lows) = ([0f32; PADDED], [0f32; PADDED]);
        let own = wanted.iter_mut().zip(&mut lows).zip(FRACTIONS);
        match range {
            DynamicRange::Magnitude { size, level } => {
                let unit = size / level;
                for ((wanted, _), fraction) in own {
                    *wanted = unit * fraction;
                }
            }
            DynamicRange::Interval { low, high, steps } => {
                for ((wanted, minimum), fraction) in own {
                    let (low, high) = narrowed(low, high, fraction);
                    (*wanted, *minimum) = asymmetric(low, high, steps);
                }
            }
        }
        let mut tried = Self { scales: wanted, inverses: wanted, lows, in_range: [false; PADDED] };
        let scales = tried.scales.iter_mut().zip(&mut tried.in_range);
        match scheme.scales {
            ScaleFormat::Small => {
                for (scale, in_range) in scales {
                    (*scale, *in_range) = stored_small(*scale);
                }
            }
            // Names with a search have no other.
            _ => {
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
        if !levels.quantises_unrounded {
            tried.inverses = tried.scales;
        }
        for scale in &mut tried.inverses {
            *scale = inverse(*scale);
        }
        tried
    }

    /// The squared error of a group coded with each candidate of a column, in squares of its scale:
    /// of the one that quantises, from which ggml's stored one differs by its rounding.
    #[inline(always)]
    fn error<S: Simd>(&self, simd: S, x: &[f32], levels: &LevelSet, column: usize) -> S::f32s {
        let inverse = S::as_simd_f32s(&self.inverses).0[column];
        let low = S::as_simd_f32s(&self.lows).0[column];
        match levels.points {
            Points::Even { first, last, .. } => even_error(simd, x, inverse, low, first, last),
            Points::Table(table) => table_error::<S, false>(simd, x, table, inverse),
            // The error of a magnitude is that of the value.
            Points::MirroredTable(table) => {
                table_error::<S, true>(simd, x, &table[table.len() / 2..], inverse)
            }
        }
    }
}

/// With levels that are one apart.
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

/// With a table of rising levels. `MAGNITUDES`: of the values without their sign.
#[inline(always)]
fn table_error<S: Simd, const MAGNITUDES: bool>(
    simd: S,
    x: &[f32],
    levels: &[f32],
    inverse: S::f32s,
) -> S::f32s {
    let mut middles = [0f32; MOST_SEARCHED];
    for (middle, pair) in middles.iter_mut().zip(levels.windows(2)) {
        *middle = (pair[0] + pair[1]) / 2.0;
    }
    let mut sum = simd.splat_f32s(0.0);
    for x in x {
        let x = simd.mul_f32s(simd.splat_f32s(*x), inverse);
        let x = if MAGNITUDES { simd.abs_f32s(x) } else { x };
        let mut level = simd.splat_f32s(levels[0]);
        for (next, middle) in levels[1..].iter().zip(&middles) {
            let above = simd.less_than_f32s(simd.splat_f32s(*middle), x);
            level = simd.select_f32s(above, simd.splat_f32s(*next), level);
        }
        let left = simd.sub_f32s(x, level);
        sum = simd.mul_add_f32s(left, left, sum);
    }
    sum
}
