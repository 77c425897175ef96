//! The verdict, one rule for every output: figures of a codec, with their 95 % intervals, against
//! the limits that the user set.
//!
//! A figure passes when its whole interval is within its limit, fails when the whole interval is
//! outside, and is inconclusive else. The perplexity's limit has two sides: a perplexity that
//! *falls* by more than the limit is a changed model, not a better one. The verdict is the worst
//! over all limits, and there is none where nothing was measured: `invalid`.

use super::stats::{Estimate, positive_log, student_t_quantile};
use serde::{Deserialize, Serialize};

/// The limits that a codec must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest change of the perplexity, up or down, percent. 0 or more.
    #[serde(rename = "max_ppl_increase")]
    pub max_ppl_change: f64,
    /// Largest mean KL divergence, nats a token.
    #[serde(default)]
    pub max_kld: Option<f64>,
    /// Smallest share of targets that keep their likeliest token, 0…1.
    #[serde(default)]
    pub min_top1: Option<f64>,
    /// Largest cache, bytes a token of a full context.
    #[serde(default)]
    pub max_bytes_per_token: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_ppl_change: 1.0, max_kld: None, min_top1: None, max_bytes_per_token: None }
    }
}

/// From good to bad: of several, the largest is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The whole interval is within the limit.
    Pass,
    /// The interval holds the limit, or there is no interval.
    Inconclusive,
    /// The whole interval is outside the limit.
    Fail,
    /// Nothing was measured that a limit could be held against.
    Invalid,
}

impl Verdict {
    /// The word of the JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
            Self::Invalid => "invalid",
        }
    }
}

/// A codec held against all limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The worst of `verdicts`; `invalid` where there is nothing to judge.
    pub verdict: Verdict,
    /// Why it is `invalid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid_because: Option<String>,
    /// Verdicts by limit.
    pub verdicts: Verdicts,
    /// For `inconclusive`: windows that would settle it if mean and spread are what they look
    /// like. `None` below eight windows, which say too little of the spread, and where no number
    /// of windows would.
    pub windows_needed: Option<usize>,
    /// Where that number lies with 80 % confidence or more; no upper end where the interval cannot
    /// tell the figure from its limit.
    pub windows_needed_ci80: Option<(usize, Option<usize>)>,
}

/// Against each limit by itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verdicts {
    /// Against the limit on the change of perplexity.
    pub perplexity_change: Verdict,
    /// Against `max_kld`, where it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld: Option<Verdict>,
    /// Against `min_top1`, where it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1: Option<Verdict>,
    /// Against `max_bytes_per_token`, where it is set: bytes are counted, so that there is no interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_token: Option<Verdict>,
}

impl Verdicts {
    /// Those beside the perplexity's, of the limits that are set.
    pub fn others(&self) -> impl Iterator<Item = Verdict> {
        [self.kld, self.top1, self.bytes_per_token].into_iter().flatten()
    }
}

/// The logarithms of the ratios of perplexities that a change of `percent` up or down gives.
pub fn change_bounds(percent: f64) -> [f64; 2] {
    let ratio = percent / 100.0;
    // Perplexities do not fall by 100 % or more.
    [if ratio < 1.0 { (-ratio).ln_1p() } else { f64::NEG_INFINITY }, ratio.ln_1p()]
}

/// A figure on the scale on which its interval is symmetric, and the values it may have.
#[derive(Debug, Clone, Copy)]
pub struct Criterion {
    /// The figure, with its standard error.
    pub estimate: Estimate,
    /// The smallest accepted value.
    pub least: f64,
    /// The largest accepted value.
    pub most: f64,
}

/// Fewer windows say too little of their spread to tell how many it takes.
pub const LEAST_WINDOWS_TO_PLAN: usize = 8;
/// More windows than this are not worth asking for: the figure *is* the limit.
const MOST_WINDOWS: usize = 1_000_000;
/// Between the ends of an 80 % interval lie the middle four fifths.
const UPPER_OF_80: f64 = 0.9;

impl Criterion {
    /// `change`: ln of the ratio of perplexities; `percent`: the largest accepted change.
    pub fn perplexity_change(change: Estimate, percent: f64) -> Self {
        let [least, most] = change_bounds(percent);
        Self { estimate: change, least, most }
    }

    /// `values`: mean KL divergence of each window, nats.
    pub fn kld(values: &[f64], most: f64) -> Self {
        Self { estimate: positive_log(values), least: f64::NEG_INFINITY, most: most.ln() }
    }

    /// `share`: top-1 agreement; `least`: the smallest accepted one, 0…1.
    pub fn top1(share: Estimate, least: f64) -> Self {
        Self { estimate: share, least, most: f64::INFINITY }
    }

    /// The verdict on the figure's 95 % interval.
    pub fn verdict(&self) -> Verdict {
        match self.estimate.ci95() {
            None => Verdict::Inconclusive,
            Some([low, high]) if low >= self.least && high <= self.most => Verdict::Pass,
            Some([low, high]) if low > self.most || high < self.least => Verdict::Fail,
            Some(_) => Verdict::Inconclusive,
        }
    }

    /// How many windows would settle it, and the 80 % interval of that number.
    ///
    /// Settled is what has a distance to the nearer limit of t(n−1) standard errors: a number of
    /// windows that depends on distance over deviation alone. That ratio has an interval of its
    /// own, z ± t · √(1 + z²/2(n−1)) with z = distance over standard error (the normal
    /// approximation of the noncentral t distribution's), whose ends give the number's.
    pub fn windows_needed(&self) -> Option<(usize, (usize, Option<usize>))> {
        let Estimate { mean, standard_error, windows } = self.estimate;
        if windows < LEAST_WINDOWS_TO_PLAN {
            return None;
        }
        let distance = (mean - self.least).abs().min((mean - self.most).abs());
        let z = distance / standard_error?;
        let df = windows as f64 - 1.0;
        let half = student_t_quantile(UPPER_OF_80, df) * (1.0 + z * z / (2.0 * df)).sqrt();
        let needed = settled_at(z, windows)?;
        Some((needed, (settled_at(z + half, windows)?, settled_at(z - half, windows))))
    }
}

/// The smallest number of windows above `windows` whose interval no longer reaches a limit that
/// is `z` standard errors away now: t(n−1)/√n falls with n.
fn settled_at(z: f64, windows: usize) -> Option<usize> {
    let now = windows as f64;
    let settles = |n: usize| {
        let n = n as f64;
        student_t_quantile(0.975, n - 1.0) * (now / n).sqrt() <= z
    };
    let (mut low, mut high) = (windows, windows + 1);
    while !settles(high) {
        low = high;
        high *= 2;
        if high > MOST_WINDOWS {
            return None;
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if settles(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

impl Judgement {
    /// The worst verdict of the limits that are set, and how many windows would settle it.
    /// `fits`: whether the cache is within its limit.
    pub fn new(
        perplexity: Criterion,
        kld: Option<Criterion>,
        top1: Option<Criterion>,
        fits: Option<bool>,
    ) -> Self {
        let of = |criterion: &Option<Criterion>| criterion.as_ref().map(Criterion::verdict);
        let verdicts = Verdicts {
            perplexity_change: perplexity.verdict(),
            kld: of(&kld),
            top1: of(&top1),
            bytes_per_token: fits.map(|fits| if fits { Verdict::Pass } else { Verdict::Fail }),
        };
        let others = verdicts.others();
        let verdict = others.fold(verdicts.perplexity_change, Verdict::max);
        // All that are open must be settled; what cannot be told of one cannot be told of all.
        let open = || {
            let criteria = [Some(&perplexity), kld.as_ref(), top1.as_ref()].into_iter().flatten();
            criteria.filter(|criterion| criterion.verdict() == Verdict::Inconclusive)
        };
        let needed: Option<Vec<_>> = match verdict {
            Verdict::Inconclusive => open().map(Criterion::windows_needed).collect(),
            _ => None,
        };
        let worst = needed.and_then(|needed| needed.into_iter().max_by_key(|(needed, _)| *needed));
        Self {
            verdict,
            invalid_because: None,
            verdicts,
            windows_needed: worst.map(|(needed, _)| needed),
            windows_needed_ci80: worst.map(|(_, range)| range),
        }
    }

    /// Whatever the figures say: there is nothing behind them.
    pub fn invalid(self, because: String) -> Self {
        Self {
            verdict: Verdict::Invalid,
            invalid_because: Some(because),
            windows_needed: None,
            windows_needed_ci80: None,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stats::tests::normals;
    use super::*;

    const CHANGE: [f64; 5] = [0.010, 0.012, 0.014, 0.011, 0.013];

    fn change(values: &[f64], percent: f64) -> Criterion {
        Criterion::perplexity_change(Estimate::of(values), percent)
    }

    #[test]
    fn the_limit_has_two_sides() {
        // +1.2 % ± 0.2
        assert_eq!(change(&CHANGE, 2.0).verdict(), Verdict::Pass);
        assert_eq!(change(&CHANGE, 0.5).verdict(), Verdict::Fail);
        assert_eq!(change(&CHANGE, 1.25).verdict(), Verdict::Inconclusive);
        let falls = CHANGE.map(|change| -change);
        assert_eq!(change(&falls, 2.0).verdict(), Verdict::Pass);
        assert_eq!(change(&falls, 0.5).verdict(), Verdict::Fail);
        assert_eq!(change(&falls, 1.25).verdict(), Verdict::Inconclusive);
        // Both ends are inside the interval.
        assert_eq!(change(&[-0.03, 0.03, 0.0], 0.5).verdict(), Verdict::Inconclusive);
        assert_eq!(change(&[0.1], 1.0).verdict(), Verdict::Inconclusive);
        // No perplexity falls by 150 %.
        assert_eq!(change(&[-5.0, -5.1, -5.2], 150.0).verdict(), Verdict::Pass);
    }

    #[test]
    fn an_interval_that_ends_at_the_limit_passes() {
        assert_eq!(change(&[0.0, 0.0, 0.0], 0.0).verdict(), Verdict::Pass);
        assert_eq!(Criterion::kld(&[0.0, 0.0], 0.0).verdict(), Verdict::Pass);
        let exact = Criterion::top1(Estimate::of(&[1.0, 1.0]), 1.0);
        assert_eq!(exact.verdict(), Verdict::Pass);
    }

    #[test]
    fn the_worst_verdict_counts() {
        let kld = |most| Some(Criterion::kld(&[0.010, 0.011, 0.012], most));
        let top1 = |least| Some(Criterion::top1(Estimate::of(&[0.95, 0.94, 0.96]), least));
        let verdict = |kld, top1| Judgement::new(change(&CHANGE, 2.0), kld, top1, None).verdict;
        assert_eq!(verdict(kld(0.02), top1(0.9)), Verdict::Pass);
        assert_eq!(verdict(kld(0.011), top1(0.9)), Verdict::Inconclusive);
        assert_eq!(verdict(kld(0.011), top1(0.99)), Verdict::Fail);
        assert_eq!(verdict(kld(0.005), None), Verdict::Fail);
        let size = |fits| Judgement::new(change(&CHANGE, 2.0), None, None, Some(fits)).verdict;
        assert_eq!([size(true), size(false)], [Verdict::Pass, Verdict::Fail]);
        let judgement = Judgement::new(change(&CHANGE, 2.0), kld(0.005), top1(0.9), Some(true));
        assert_eq!(judgement.verdicts.perplexity_change, Verdict::Pass);
        assert_eq!(judgement.verdicts.top1, Some(Verdict::Pass));
        assert_eq!(judgement.invalid("no text".into()).verdict, Verdict::Invalid);
    }

    #[test]
    fn few_windows_do_not_tell_how_many_it_takes() {
        assert_eq!(change(&CHANGE, 1.25).windows_needed(), None);
        let twice: Vec<f64> = CHANGE.iter().chain(&CHANGE).copied().collect();
        let s = Estimate::of(&twice).standard_error.unwrap() * 10f64.sqrt();
        let percent = 100.0 * (0.012 + 0.3157 * s).exp_m1();
        let (needed, (low, high)) = change(&twice, percent).windows_needed().unwrap();
        // t(40)/√41 = 0.31565, t(39)/√40 = 0.31982
        assert_eq!(needed, 41);
        assert!(low > 10 && low < 20, "{low}");
        assert_eq!(high, None);
        // A limit that is the mean is never settled.
        let at_the_mean = 100.0 * 0.012f64.exp_m1();
        assert_eq!(change(&twice, at_the_mean).windows_needed(), None);
    }

    /// Share of inconclusive samples of `n` windows whose 80 % interval holds the number of
    /// windows that the true mean and deviation need.
    fn coverage(n: usize, true_needed: usize, seed: u64) -> f64 {
        const SAMPLES: usize = 500;
        let mut normal = normals(seed);
        let t = student_t_quantile(0.975, true_needed as f64 - 1.0);
        let distance = t / (true_needed as f64).sqrt();
        let (mut held, mut open) = (0, 0);
        for _ in 0..SAMPLES {
            let values: Vec<f64> = (0..n).map(|_| normal() - distance).collect();
            let criterion =
                Criterion { estimate: Estimate::of(&values), least: f64::NEG_INFINITY, most: 0.0 };
            if criterion.verdict() != Verdict::Inconclusive {
                continue;
            }
            open += 1;
            let Some((_, (low, high))) = criterion.windows_needed() else { continue };
            held += usize::from(low <= true_needed && high.is_none_or(|high| true_needed <= high));
        }
        held as f64 / open as f64
    }

    #[test]
    fn the_range_of_windows_covers_what_it_claims() {
        for n in [8, 12, 20, 40] {
            for times in [2, 10, 200] {
                let found = coverage(n, times * n, (n + times) as u64);
                println!("{n} windows, {} needed: {found:.3}", times * n);
                // Often more than it claims: samples that leave a verdict open look alike.
                assert!(found >= 0.76, "{n} windows, {} needed: {found}", times * n);
            }
        }
    }
}
