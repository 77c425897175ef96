//! Statistics over windows: Student's t intervals and quantiles.
//!
//! The unit of sampling is a whole window. Tokens of one window share its topic and its cache,
//! so an i.i.d. error bar over tokens is too narrow. All windows score the same number of
//! tokens, so a mean over windows is the mean over tokens.

/// A mean over windows with its 95 % interval; no interval from fewer than two windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    /// Standard error of the mean; `None` with fewer than two windows.
    pub standard_error: Option<f64>,
    pub windows: usize,
}

impl Estimate {
    /// `values`: one figure a window.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let standard_error = (values.len() >= 2).then(|| (squares / (n - 1.0) / n).sqrt());
        Self { mean, standard_error, windows: values.len() }
    }

    /// Student's t interval, 95 %, two-sided.
    pub fn ci95(&self) -> Option<[f64; 2]> {
        let half = self.standard_error? * student_t_quantile(0.975, self.windows as f64 - 1.0);
        Some([self.mean - half, self.mean + half])
    }
}

/// The t interval of a share, kept within 0…1.
pub fn share_ci95(share: &Estimate) -> Option<[f64; 2]> {
    share.ci95().map(|ends| ends.map(|end| end.clamp(0.0, 1.0)))
}

/// The 95 % interval of a mean of figures that are 0 or more (KL divergences), one a window.
///
/// Such figures are skewed: a text has a few windows where a codec does far more damage, and a
/// t interval then covers too little (90 % at a coefficient of variation of 0.7, from 5 windows)
/// and reaches below 0. So this one is symmetric on the log scale, mean · exp(±t · d) with the
/// deviation d of [`positive_log`], and never negative.
pub fn positive_ci95(values: &[f64]) -> Option<[f64; 2]> {
    let mean = Estimate::of(values).mean;
    let deviation = positive_log(values).standard_error?;
    let factor = (student_t_quantile(0.975, values.len() as f64 - 1.0) * deviation).exp();
    // Two windows of very different size say nothing about the mean.
    factor.is_finite().then(|| [mean / factor, mean * factor])
}

/// The mean of figures that are 0 or more, on the log scale: its logarithm, and the deviation of
/// that.
///
/// The deviation is the larger of two estimates of the mean's relative one: Cox's for a
/// log-normal mean, √(s²/n + s⁴/2(n−1)) with the variance s² of the logarithms (Zhou & Gao 1997),
/// and standard error over mean, which sees an outlier that logarithms make small. Where a window
/// has exactly 0, which has no logarithm, it is the second alone; all 0 are 0 for certain.
pub fn positive_log(values: &[f64]) -> Estimate {
    let plain = Estimate::of(values);
    let n = values.len() as f64;
    let deviation = |standard_error: f64| -> f64 {
        if plain.mean <= 0.0 {
            return 0.0;
        }
        let relative = standard_error / plain.mean;
        if values.iter().any(|v| *v <= 0.0) {
            return relative;
        }
        let logs: Vec<f64> = values.iter().map(|v| v.ln()).collect();
        let of_logs = Estimate::of(&logs).standard_error.unwrap_or(0.0);
        let variance = of_logs.powi(2) * n;
        (variance / n + variance.powi(2) / (2.0 * (n - 1.0))).sqrt().max(relative)
    };
    let standard_error = plain.standard_error.map(deviation);
    Estimate { mean: plain.mean.ln(), standard_error, windows: values.len() }
}

/// Quantile of sorted values with linear interpolation between order statistics (numpy's and
/// R's default, type 7).
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (low, share) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + share * (sorted[high] - sorted[low])
}

/// Quantile of Student's t distribution, by bisection of its distribution function.
/// `p` in (0.5, 1), `df` ≥ 1; relative error below 1e-9.
pub fn student_t_quantile(p: f64, df: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_t_cdf(high, df) < p {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if student_t_cdf(middle, df) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

fn student_t_cdf(t: f64, df: f64) -> f64 {
    1.0 - 0.5 * incomplete_beta(df / (df + t * t), 0.5 * df, 0.5)
}

/// Regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22,
/// evaluated by Lentz's method).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast below the mean; the symmetry covers the rest.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    let tiny = 1e-300;
    let nonzero = |v: f64| if v.abs() < tiny { tiny } else { v };
    let (mut c, mut d) = (1.0, 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            step = c * d;
            fraction *= step;
        }
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction / a
}

/// ln Γ(x) for x > 0: Stirling's series after shifting x up.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 15.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Published table of Student's t, two-sided 95 %.
    #[test]
    fn t_quantiles_equal_the_published_table() {
        for (df, expected) in [
            (1.0, 12.706_204_736),
            (2.0, 4.302_652_730),
            (4.0, 2.776_445_105),
            (9.0, 2.262_157_163),
            (19.0, 2.093_024_054),
            (30.0, 2.042_272_456),
            (1000.0, 1.962_339_080),
        ] {
            let found = student_t_quantile(0.975, df);
            assert!((found - expected).abs() < 1e-8, "df {df}: {found}");
        }
    }

    /// Standard normal numbers: xorshift64* and Box–Muller.
    pub fn normals(seed: u64) -> impl FnMut() -> f64 {
        let mut bits = crate::random::wide_bits(seed);
        let mut uniform = move || (bits() as f64 + 0.5) / (1u64 << 53) as f64;
        move || (-2.0 * uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos()
    }

    /// Share of 5,000 seeded samples of `n` windows whose interval holds the true mean.
    fn coverage(
        n: usize,
        mut draw: impl FnMut() -> f64,
        mean: f64,
        interval: impl Fn(&[f64]) -> [f64; 2],
    ) -> f64 {
        const SAMPLES: usize = 5_000;
        let mut values = vec![0.0; n];
        let mut held = 0;
        for _ in 0..SAMPLES {
            values.fill_with(&mut draw);
            let [low, high] = interval(&values);
            held += usize::from(low <= mean && mean <= high);
        }
        held as f64 / SAMPLES as f64
    }

    #[test]
    fn intervals_cover_what_they_claim() {
        for n in [5, 10, 20] {
            let mut normal = normals(1);
            let t = |values: &[f64]| Estimate::of(values).ci95().unwrap();
            let found = coverage(n, || 0.01 + 0.02 * normal(), 0.01, t);
            println!("log-ratio, normal, {n} windows: {found:.4}");
            assert!((0.93..=0.97).contains(&found), "normal, {n} windows: {found}");
            // Coefficients of variation of window KLDs seen on real models: 0.2 to 0.7.
            for cv in [0.2f64, 0.4, 0.7] {
                let sigma = (1.0 + cv * cv).ln().sqrt();
                let mut normal = normals(2);
                let draw = || (sigma * normal() - sigma * sigma / 2.0).exp();
                let found = coverage(n, draw, 1.0, |values| positive_ci95(values).unwrap());
                println!("KLD, log-normal of variation {cv}, {n} windows: {found:.4}");
                assert!((0.93..=0.97).contains(&found), "variation {cv}, {n} windows: {found}");
            }
        }
    }

    /// Windows of exactly 0 beside others: small parts of a cache, arithmetic in 16 bits.
    #[test]
    fn intervals_with_zeros_cover_about_what_they_claim() {
        for n in [5, 10, 20] {
            for zeros in [0.1, 0.2, 0.5] {
                for cv in [0.4f64, 0.7] {
                    let sigma = (1.0 + cv * cv).ln().sqrt();
                    let (mut normal, mut other) = (normals(3), normals(4));
                    // P(|normal| < 0.12566) = 0.1 and so on.
                    let edge = match zeros {
                        0.1 => 0.125_66,
                        0.2 => 0.253_35,
                        _ => 0.674_49,
                    };
                    let draw = || match other().abs() < edge {
                        true => 0.0,
                        false => (sigma * normal() - sigma * sigma / 2.0).exp(),
                    };
                    let interval = |values: &[f64]| positive_ci95(values).unwrap();
                    let found = coverage(n, draw, 1.0 - zeros, interval);
                    println!("KLD, variation {cv}, {zeros} of windows 0, {n} windows: {found:.4}");
                    assert!((0.92..=0.985).contains(&found), "{cv}, {zeros}, {n}: {found}");
                }
            }
        }
    }

    #[test]
    fn a_positive_mean_never_reaches_below_zero() {
        for values in [[1e-6, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1e-9], [0.0, 3.0, 3.0]] {
            let [low, high] = positive_ci95(&values).unwrap();
            let mean = values.iter().sum::<f64>() / 3.0;
            assert!(low > 0.0 && low < mean && high > mean, "{values:?}: {low} {high}");
        }
        // mean 1, standard error 1/√3, t(2) = 4.3027: exp(±2.4841)
        let [low, high] = positive_ci95(&[0.0, 1.0, 2.0]).unwrap();
        assert!((low - 0.083_40).abs() < 1e-5 && (high - 11.9906).abs() < 1e-3, "{low} {high}");
        assert_eq!(positive_ci95(&[0.0, 0.0]), Some([0.0, 0.0]));
        assert_eq!(positive_ci95(&[0.5]), None);
    }

    #[test]
    fn estimate_of_known_values() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(estimate.mean, 3.0);
        let [low, high] = estimate.ci95().unwrap();
        // 3 ± 2.776445 · √2.5 / √5
        assert!((low - 1.036_757_3).abs() < 1e-6, "{low}");
        assert!((high - 4.963_242_7).abs() < 1e-6, "{high}");
        assert_eq!(Estimate::of(&[1.0]).ci95(), None);
    }

    #[test]
    fn quantiles_interpolate_as_numpy_does() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&values, 0.5), 3.0);
        assert!((quantile(&values, 0.9) - 6.8).abs() < 1e-12);
        assert_eq!(quantile(&values, 1.0), 8.0);
        assert_eq!(quantile(&[5.0], 0.99), 5.0);
    }
}
