//! The result of `tune` as one value: what `--json` prints, and the table and the picture show.
//!
//! Field names are the contract of schema `kvgauge.tune/1`; docs/json.md explains them.

use super::attribution::Sum;
use super::figures::{Baseline, CodecResult};
use super::subject::SubjectInfo;
use super::validation::RefusedCodec;
use crate::codec::shown_name;
use crate::eval::Protocol;
use crate::eval::attribution::LayerParts;
use crate::eval::stats::{Estimate, student_t_quantile};
use crate::settings::Settings;
use serde::Serialize;

/// Version of `tune`'s JSON.
pub const SCHEMA: &str = "kvgauge.tune/1";

/// The bound that an assignment keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Stored bits a value at most, for the least damage.
    Bits(f64),
    /// Mean KL divergence at most, nats, for the fewest bytes.
    MaxKld(f64),
}

/// The result of `tune`.
#[derive(Debug, Clone, Serialize)]
pub struct Tuning {
    /// [`SCHEMA`]
    pub schema: &'static str,
    /// Version of the binary.
    pub kvgauge_version: &'static str,
    /// Model, text and the windows that parts were measured on.
    #[serde(flatten)]
    pub subject: SubjectInfo,
    /// The untouched cache on these windows.
    pub baseline: Baseline,
    /// What was asked for.
    pub budget: Budget,
    /// Codecs that parts could get.
    pub candidates: Vec<String>,
    /// The name of the assignment that was found.
    pub codec: String,
    /// Its bytes over those of f16, times 16: a layer with a sliding window counts with the tokens
    /// that a server keeps.
    pub bits: f64,
    /// Cache bytes a token of a full context, all layers, as stored by it.
    pub cache_bytes_per_token: f64,
    /// The same served in f16.
    pub cache_bytes_per_token_f16: f64,
    /// One a layer.
    pub layers: Vec<LayerParts<TunedPart>>,
    /// Damages of the parts added up, against all of them together.
    pub sum: SumAndWhole,
    /// On windows that nothing was chosen on, one a protocol.
    pub unseen: Vec<Unseen>,
    /// Protocols asked for that can take neither the assignment nor a candidate.
    pub unchecked: Vec<Unchecked>,
    /// Parts measured alone, each with each codec.
    pub measurements: usize,
    /// The settings as resolved, the candidates among them.
    pub config: Settings,
    /// Seconds of this run.
    pub timings_s: TuneTimings,
    /// The most memory at any time, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

/// Keys or values of a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TunedPart {
    /// What it got.
    #[serde(flatten)]
    pub chosen: PartChoice,
    /// Everything that it could get, in the order of the candidates.
    pub choices: Vec<PartChoice>,
}

/// A part of the cache stored by one codec, the rest in f16.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartChoice {
    /// The candidate that stores this side so, the first of several.
    pub codec: String,
    /// Stored bits over values, measured from payloads.
    pub bits_per_value: f64,
    /// Mean KL divergence, nats a token.
    pub kld_mean: f64,
    /// Its 95 % interval; `None` from one window.
    pub kld_mean_ci95: Option<[f64; 2]>,
    /// Cache bytes a token less than f16's, as served.
    #[serde(skip)]
    pub saved_bytes_per_token: f64,
    /// Mean over a window's targets, nats.
    #[serde(skip)]
    pub kld_per_window: Vec<f64>,
}

/// KLDs of the parts added up, against the whole cache compressed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SumAndWhole {
    /// On the windows that parts were measured on; paired by window.
    #[serde(flatten)]
    pub measured: Sum,
    /// The whole on these windows, nats.
    pub whole_kld_mean: f64,
    /// The whole on the unseen windows, under the protocol that parts were measured under.
    pub unseen_kld_mean: f64,
    /// The sum over that; `None` where that is zero.
    pub kld_over_unseen: Option<f64>,
    /// The sum less that: other windows, and so not paired.
    pub kld_minus_unseen: f64,
    /// Its 95 % interval (Welch); `None` where either has one window.
    pub kld_minus_unseen_ci95: Option<[f64; 2]>,
}

/// What was found and the uniform candidates that take no more, on windows that nothing was chosen on.
#[derive(Debug, Clone, Serialize)]
pub struct Unseen {
    /// The protocol.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Index of the first window in the text.
    pub first_window: usize,
    /// Number of windows.
    pub windows: usize,
    /// Over all windows.
    pub scored_tokens: usize,
    /// The untouched cache.
    pub baseline: Baseline,
    /// The assignment; `None`: this protocol cannot take it.
    pub tuned: Option<CodecResult>,
    /// In the order of the candidates.
    pub uniform: Vec<CodecResult>,
    /// Codecs that this protocol cannot take.
    pub refused: Vec<RefusedCodec>,
    /// Against the uniform candidate of the least KLD; `None` without one.
    pub against_best: Option<AgainstUniform>,
    /// For tables.
    #[serde(skip)]
    pub subject: SubjectInfo,
}

/// A protocol under which nothing could be checked.
#[derive(Debug, Clone, Serialize)]
pub struct Unchecked {
    /// The protocol.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Every codec, and why it is not taken.
    pub refused: Vec<RefusedCodec>,
}

/// The assignment against a uniform codec, paired by window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgainstUniform {
    /// The uniform codec.
    pub codec: String,
    /// The assignment's KLD over its; `None` where that is zero.
    pub kld_ratio: Option<f64>,
    /// The assignment's KLD less its, nats.
    pub kld_difference: f64,
    /// Its 95 % interval; `None` from one window.
    pub kld_difference_ci95: Option<[f64; 2]>,
    /// What that says.
    pub tuned_is: Comparison,
}

/// A difference with its interval, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// The whole interval is below 0.
    Better,
    /// 0 is in the interval, or there is none.
    Alike,
    /// The whole interval is above 0.
    Worse,
}

/// Seconds of a run of `tune`, without what an earlier one had measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct TuneTimings {
    /// Parts.
    pub measuring: f64,
    /// The assignment.
    pub assigning: f64,
    /// The whole, and uniform codecs.
    pub validating: f64,
    /// The whole run.
    pub total: f64,
}

impl SumAndWhole {
    /// `parts`: KLD by window of each part; `whole`: of all of them on the same windows; `unseen`: on
    /// others.
    pub fn new<'a>(
        parts: impl IntoIterator<Item = &'a [f64]>,
        whole: &[f64],
        unseen: &[f64],
    ) -> Self {
        let parts: Vec<&[f64]> = parts.into_iter().collect();
        let sum = |window: usize| parts.iter().map(|part| part[window]).sum::<f64>();
        let sums: Vec<f64> = (0..whole.len()).map(sum).collect();
        let (ours, theirs) = (Estimate::of(&sums), Estimate::of(unseen));
        Self {
            measured: Sum::of(parts, whole),
            whole_kld_mean: Estimate::of(whole).mean,
            unseen_kld_mean: theirs.mean,
            kld_over_unseen: (theirs.mean > 0.0).then(|| ours.mean / theirs.mean),
            kld_minus_unseen: ours.mean - theirs.mean,
            kld_minus_unseen_ci95: welch_ci95(&ours, &theirs),
        }
    }
}

/// The 95 % interval of the difference of two means from windows of their own, whose variances may
/// differ (Welch 1947).
fn welch_ci95(a: &Estimate, b: &Estimate) -> Option<[f64; 2]> {
    let [a_squared, b_squared] = [a.standard_error?.powi(2), b.standard_error?.powi(2)];
    let variance = a_squared + b_squared;
    let difference = a.mean - b.mean;
    if variance == 0.0 {
        return Some([difference; 2]);
    }
    let each = |squared: f64, windows: usize| squared.powi(2) / (windows as f64 - 1.0);
    let freedom = variance.powi(2) / (each(a_squared, a.windows) + each(b_squared, b.windows));
    let half = variance.sqrt() * student_t_quantile(0.975, freedom);
    Some([difference - half, difference + half])
}

impl AgainstUniform {
    /// Against the one of `uniform` that has the least KLD, but for the assignment itself.
    pub fn best_of(tuned: &CodecResult, uniform: &[CodecResult]) -> Option<Self> {
        let tuned = &tuned.figures;
        let others = uniform.iter().map(|result| &result.figures);
        let others = others.filter(|figures| figures.codec != tuned.codec);
        let best = others.min_by(|a, b| a.kld_mean.total_cmp(&b.kld_mean))?;
        let pairs = tuned.kld_per_window.iter().zip(&best.kld_per_window);
        let difference =
            Estimate::of(&pairs.map(|(tuned, best)| tuned - best).collect::<Vec<f64>>());
        let ci95 = difference.ci95();
        Some(Self {
            codec: best.codec.clone(),
            kld_ratio: (best.kld_mean > 0.0).then(|| tuned.kld_mean / best.kld_mean),
            kld_difference: difference.mean,
            kld_difference_ci95: ci95,
            tuned_is: match ci95 {
                Some([_, high]) if high < 0.0 => Comparison::Better,
                Some([low, _]) if low > 0.0 => Comparison::Worse,
                _ => Comparison::Alike,
            },
        })
    }
}

impl Tuning {
    /// With codecs by the names that people are shown: for everything but JSON.
    pub fn for_people(&self) -> Self {
        let mut shown = self.clone();
        let mut names = vec![&mut shown.codec];
        names.extend(&mut shown.candidates);
        for layer in &mut shown.layers {
            for part in [&mut layer.key, &mut layer.value] {
                let choices = part.choices.iter_mut().chain([&mut part.chosen]);
                names.extend(choices.map(|choice| &mut choice.codec));
            }
        }
        for unseen in &mut shown.unseen {
            let results = unseen.tuned.iter_mut().chain(&mut unseen.uniform);
            names.extend(results.map(|result| &mut result.figures.codec));
            names.extend(unseen.refused.iter_mut().map(|refused| &mut refused.codec));
            names.extend(unseen.against_best.iter_mut().map(|against| &mut against.codec));
        }
        let refused = shown.unchecked.iter_mut().flat_map(|unchecked| &mut unchecked.refused);
        names.extend(refused.map(|refused| &mut refused.codec));
        for name in names {
            *name = shown_name(name);
        }
        shown
    }

    /// Whether all parts got one and the same candidate.
    pub fn is_uniform(&self) -> bool {
        self.candidates.contains(&self.codec)
    }

    /// True when the assignment does not pass under a protocol asked for, which `--strict` turns into exit status 1.
    pub fn misses_limit(&self) -> bool {
        use crate::eval::verdict::Verdict;
        !self.unchecked.is_empty()
            || self.unseen.iter().any(|unseen| {
                unseen.tuned.as_ref().is_none_or(|tuned| tuned.judgement.verdict != Verdict::Pass)
            })
    }
}

/// A made-up result for tests.
#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use crate::eval::verdict::Limits;
    use crate::results::fixture::{codec_figures, subject_info};
    use crate::settings::{Given, RawSettings};

    /// `model` is also the name of a codec, for names from outside.
    pub fn tuning(model: &str, layers: usize, windows: usize) -> Tuning {
        let subject = subject_info(model, windows, layers);
        let nll = vec![vec![2.0; 255]; windows];
        let baseline = Baseline::of(&nll);
        let codecs = ["int3-g64", model, "q8_0"];
        let choice = |index: usize, layer: usize| PartChoice {
            codec: codecs[index].into(),
            bits_per_value: [3.25, 4.27, 8.5][index],
            kld_mean: 0.01 / (1.0 + layer as f64 + 9.0 * index as f64),
            kld_mean_ci95: Some([0.0001, 0.02]),
            saved_bytes_per_token: 10.0,
            kld_per_window: vec![0.001; windows],
        };
        let part = |layer: usize| TunedPart {
            chosen: choice(layer % 3, layer),
            choices: (0..3).map(|index| choice(index, layer)).collect(),
        };
        let layers: Vec<LayerParts<TunedPart>> = (0..layers)
            .map(|layer| LayerParts { layer, key: part(layer), value: part(layer + 1) })
            .collect();
        let codec = "int3-g64+q8_0@0-1,-1";
        let judged = |codec: &str, kld: f64| {
            codec_figures(codec, kld, windows).judge(&subject, &baseline, &Limits::default(), 1)
        };
        let (tuned, uniform) = (judged(codec, 0.01), vec![judged("int3-g64", 0.03)]);
        let klds = || layers.iter().map(|layer| layer.key.chosen.kld_per_window.as_slice());
        let figures = &tuned.figures;
        let raw = RawSettings {
            model: vec![Given::flag("--model", "builtin".into())],
            ..RawSettings::default()
        };
        Tuning {
            schema: SCHEMA,
            kvgauge_version: "0.1.0",
            budget: Budget::Bits(4.0),
            candidates: codecs.map(String::from).into(),
            codec: codec.into(),
            bits: 3.98,
            cache_bytes_per_token: 1911.25,
            cache_bytes_per_token_f16: 7680.0,
            sum: SumAndWhole::new(klds(), &figures.kld_per_window, &figures.kld_per_window),
            unchecked: Vec::new(),
            unseen: vec![Unseen {
                protocol: subject.protocol,
                first_window: 8,
                windows,
                scored_tokens: subject.scored_tokens,
                baseline: baseline.clone(),
                against_best: AgainstUniform::best_of(&tuned, &uniform),
                tuned: Some(tuned),
                uniform,
                refused: Vec::new(),
                subject: subject.clone(),
            }],
            layers,
            subject,
            baseline,
            measurements: 180,
            config: Settings::resolve(raw).unwrap(),
            timings_s: TuneTimings {
                measuring: 100.0,
                assigning: 0.01,
                validating: 9.0,
                total: 111.0,
            },
            peak_rss_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends from numpy: the quantile of Student's t by Simpson's rule over its density.
    #[test]
    fn means_of_other_windows_are_compared_as_welch_does() {
        let a = Estimate::of(&[0.031, 0.044, 0.027, 0.052, 0.038]);
        let b = Estimate::of(&[0.021, 0.035, 0.018, 0.030, 0.026, 0.024, 0.033, 0.019]);
        let [low, high] = welch_ci95(&a, &b).unwrap();
        let expected = [0.000_408_009_754, 0.024_891_990_246];
        assert!((low - expected[0]).abs() < 1e-9 && (high - expected[1]).abs() < 1e-9);
        assert_eq!(welch_ci95(&a, &Estimate::of(&[0.1])), None);
        let same = Estimate::of(&[0.5, 0.5]);
        assert_eq!(welch_ci95(&same, &same), Some([0.0, 0.0]));
    }

    #[test]
    fn sums_are_held_against_the_whole_on_both_kinds_of_windows() {
        let parts: [&[f64]; 2] = [&[0.1, 0.2, 0.3], &[0.2, 0.2, 0.2]];
        let all = SumAndWhole::new(parts, &[0.2, 0.3, 0.4], &[0.4, 0.6]);
        assert!((all.measured.kld_mean - 0.4).abs() < 1e-12);
        assert!((all.measured.kld_minus_joint - 0.1).abs() < 1e-12);
        assert!((all.whole_kld_mean - 0.3).abs() < 1e-12);
        assert!((all.unseen_kld_mean - 0.5).abs() < 1e-12);
        assert!((all.kld_over_unseen.unwrap() - 0.8).abs() < 1e-12);
        assert!((all.kld_minus_unseen + 0.1).abs() < 1e-12);
        let [low, high] = all.kld_minus_unseen_ci95.unwrap();
        assert!(low < -0.1 && high > -0.1);
    }
}
