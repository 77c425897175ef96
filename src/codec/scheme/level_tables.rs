//! Tables of levels that are not one apart, in the order of their codes.

use super::small_float::SmallFloat;
use std::sync::LazyLock;

/// Most levels of a table that a scale is searched for.
pub(super) const MOST_SEARCHED: usize = 32;

/// ggml's kvalues_iq4nl.
pub(super) const IQ4_NL: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// The levels of [`Levels::Gaussian`](super::levels::Levels::Gaussian) by bits; the positive half is a
/// fixed point of Lloyd's iteration in f64.
pub(super) static GAUSSIAN: LazyLock<[Vec<f32>; 6]> = LazyLock::new(|| {
    let both = |half: &[f32]| half.iter().rev().map(|x| -x).chain(half.iter().copied()).collect();
    [
        Vec::new(),
        Vec::new(),
        both(&[0.452_780_03, 1.510_417_6]),
        both(&[0.245_094_18, 0.756_005_3, 1.343_909_3, 2.151_945_7]),
        both(&[
            0.128_395_03,
            0.388_048_3,
            0.656_759_14,
            0.942_340_46,
            1.256_231_2,
            1.618_046_4,
            2.069_017_2,
            2.732_589_6,
        ]),
        both(&[
            0.065_889_66,
            0.198_051_83,
            0.331_378_3,
            0.466_699_5,
            0.604_933_6,
            0.747_135_7,
            0.894_565_1,
            1.048_783_3,
            1.211_804_4,
            1.386_340_4,
            1.576_228,
            1.787_233_2,
            2.028_728_4,
            2.317_739_4,
            2.691_119_6,
            3.260_732_5,
        ]),
    ]
});

/// vLLM's centroids of a Gaussian in units of its standard deviation: Lloyd's iteration with the
/// trapezoidal rule over 200 steps a cell, at most 200 times, from even levels on.
pub(super) const TURBOQUANT_3: [f32; 8] =
    mirrored([0.244_983_6, 0.755_645_5, 1.343_180_1, 2.150_349_6]);
/// The same of 4 bits.
pub(super) const TURBOQUANT_4: [f32; 16] = mirrored([
    0.128_427_65,
    0.388_137_8,
    0.656_879_9,
    0.942_448_26,
    1.256_257_5,
    1.617_881_8,
    2.068_447,
    2.730_922_2,
]);

/// Rising levels, from the positive half of them.
const fn mirrored<const HALF: usize, const ALL: usize>(half: [f32; HALF]) -> [f32; ALL] {
    assert!(2 * HALF == ALL);
    let (mut all, mut index) = ([0.0; ALL], 0);
    while index < HALF {
        all[HALF + index] = half[index];
        all[HALF - 1 - index] = -half[index];
        index += 1;
    }
    all
}

pub(super) static E4M3: LazyLock<Vec<f32>> = LazyLock::new(|| SmallFloat::E4M3.levels());
pub(super) static E5M2: LazyLock<Vec<f32>> = LazyLock::new(|| SmallFloat::E5M2.levels());
pub(super) static E2M1: LazyLock<Vec<f32>> = LazyLock::new(|| SmallFloat::E2M1.levels());

#[cfg(test)]
mod tests {
    use crate::codec::scheme::levels::Levels;

    fn table(levels: Levels, bits: u8) -> &'static [f32] {
        levels.set(bits).points.table()
    }

    /// Each level is the mean of the Gaussian between the midpoints around it, and no one else's
    /// numbers are needed to say so.
    #[test]
    fn gaussian_levels_are_centroids_of_their_cells() {
        // Simpson's rule in f64 over fine steps.
        let density = |x: f64| (-x * x / 2.0).exp();
        let integral = |from: f64, to: f64, f: &dyn Fn(f64) -> f64| {
            let steps = 4000;
            let h = (to - from) / f64::from(steps);
            let inner: f64 = (1..steps)
                .map(|i| f(from + f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 })
                .sum();
            (f(from) + f(to) + inner) * h / 3.0
        };
        for bits in 2..=5 {
            let levels: Vec<f64> =
                table(Levels::Gaussian, bits).iter().map(|x| f64::from(*x)).collect();
            assert_eq!(levels.len(), 1 << bits);
            let edge = |i: usize| (levels[i - 1] + levels[i]) / 2.0;
            for (index, level) in levels.iter().enumerate() {
                let from = if index == 0 { -12.0 } else { edge(index) };
                let to = if index + 1 == levels.len() { 12.0 } else { edge(index + 1) };
                let mean = integral(from, to, &|x| x * density(x)) / integral(from, to, &density);
                assert!((mean - level).abs() < 1e-6, "{bits} bits: {level} in place of {mean}");
            }
        }
    }

    /// As vLLM makes them, in f64; for heads of every size they are these times 1/√size.
    #[test]
    fn turboquant_levels_are_those_of_vllms_iteration() {
        const STEPS: i32 = 200;
        let density = |x: f64| (-x * x / 2.0).exp();
        let integral = |from: f64, to: f64, f: &dyn Fn(f64) -> f64| {
            let h = (to - from) / f64::from(STEPS);
            let inner: f64 = (1..STEPS).map(|i| f(from + f64::from(i) * h)).sum();
            ((f(from) + f(to)) / 2.0 + inner) * h
        };
        for bits in [3, 4] {
            let count = 1 << bits;
            let first = |i: usize| 7.0 * (i as f64 + 0.5) / count as f64 - 3.5;
            let mut levels: Vec<f64> = (0..count).map(first).collect();
            for _ in 0..200 {
                let mut edges = vec![-10.5];
                edges.extend(levels.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0));
                edges.push(10.5);
                let mean = |cell: &[f64]| {
                    let mass = integral(cell[0], cell[1], &density);
                    integral(cell[0], cell[1], &|x| x * density(x)) / mass
                };
                let next: Vec<f64> = edges.windows(2).map(mean).collect();
                let moved = next.iter().zip(&levels).map(|(a, b)| (a - b).abs());
                if moved.fold(0.0, f64::max) < 1e-9 {
                    break;
                }
                levels = next;
            }
            for (found, expected) in table(Levels::TurboQuantKeys, bits).iter().zip(levels) {
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{bits} bits: {expected}");
            }
        }
    }
}
