//! Figures of one codec on one subject: those of `validate`'s JSON, of a sweep's log
//! and of its results.
//!
//! [`CodecFigures`] are free of limits, times and places: equal runs give equal bytes, and a
//! verdict can be given later, against any limit. NaN and infinities cannot occur in the JSON:
//! serde_json writes them as `null`.

use super::cache_size::CacheSize;
use super::subject::SubjectInfo;
use crate::codec::{Distortion, DistortionSum};
use crate::eval::scores::TokenScore;
use crate::eval::stats::{Estimate, positive_ci95, quantile, share_ci95, student_t_quantile};
use crate::eval::verdict::{Criterion, Judgement, Limits, Verdict, change_bounds};
use crate::eval::{CodecWindow, LayerDistortion, StoredSize, layer_sums};
use serde::{Deserialize, Deserializer, Serialize};

/// A cache is served in f16 or bf16: what ratios compare with.
const SERVED_BITS: f64 = 16.0;
/// Parts of a window's scored targets that the change of NLL is given for.
const POSITION_BINS: usize = 16;
/// The histogram of KL divergences: 10⁻¹⁰ … 10² nats, this many bins a decade.
const BINS_PER_DECADE: i32 = 4;
const DECADES: std::ops::Range<i32> = -10..2;

/// The untouched cache on a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Over all scored targets.
    #[serde(deserialize_with = "or_infinity")]
    pub perplexity: f64,
    /// Summed over a window's targets, nats.
    pub nll_per_window: Vec<f64>,
    /// Of a run in 16 bits, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
}

/// What another rounding of the cache to the run's 16 bits does (control `f16`): no difference below
/// it is a codec's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Mean KL divergence, nats.
    pub kld_mean: f64,
    /// Its 95 % interval.
    pub kld_mean_ci95: Option<[f64; 2]>,
}

impl Floor {
    /// From the control's figures.
    pub fn of(control: &CodecFigures) -> Self {
        Self { kld_mean: control.kld_mean, kld_mean_ci95: control.kld_mean_ci95 }
    }
}

/// One codec against the untouched cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodecFigures {
    /// Its name.
    pub codec: String,
    /// Share of the scored targets whose prediction can feel the codec, 0…1. Logs of before it
    /// was counted have such codecs only as feel it in all.
    #[serde(default = "all_targets")]
    pub targets_affected: f64,
    /// Stored bits over values, measured from payloads.
    pub bits_per_value: f64,
    /// Share of the values, 0…1, that are kept in 16 bits where the others are packed: sinks, the
    /// residual, and what fills no block. Older logs have none.
    #[serde(default)]
    pub exact_share: Option<f64>,
    /// f16 bytes over stored bytes.
    pub compression_ratio: f64,
    /// Cache bytes a token of a full context, all layers, served in f16. A layer with a sliding window
    /// keeps no more tokens than that.
    pub cache_bytes_per_token_f16: f64,
    /// The same as stored by this codec.
    pub cache_bytes_per_token: f64,
    /// Over all scored targets.
    #[serde(deserialize_with = "or_infinity")]
    pub perplexity: f64,
    /// Codec minus baseline.
    #[serde(deserialize_with = "or_infinity")]
    pub perplexity_change: f64,
    /// Change of the perplexity, percent of the baseline's: the mean over windows of the log-ratio.
    #[serde(deserialize_with = "or_infinity")]
    pub perplexity_change_percent: f64,
    /// Its 95 % interval; `None` from one window, and where an end is infinite.
    pub perplexity_change_percent_ci95: Option<[f64; 2]>,
    /// ln of the ratio of perplexities: mean NLL of the codec minus that of the baseline, nats.
    pub mean_log_ratio: f64,
    /// Its 95 % interval.
    pub mean_log_ratio_ci95: Option<[f64; 2]>,
    /// Mean KL divergence (untouched ‖ compressed), nats a token.
    pub kld_mean: f64,
    /// Its 95 % interval.
    pub kld_mean_ci95: Option<[f64; 2]>,
    /// Median of the KL divergence over targets, nats.
    pub kld_p50: f64,
    /// 90th percentile.
    pub kld_p90: f64,
    /// 99th percentile.
    pub kld_p99: f64,
    /// 99.9th percentile.
    pub kld_p999: f64,
    /// The largest.
    pub kld_max: f64,
    /// Share of targets whose likeliest token is the same, 0…1.
    pub top1_agreement: f64,
    /// Its 95 % interval.
    pub top1_agreement_ci95: Option<[f64; 2]>,
    /// Root mean square change of the true token's probability, 0…1.
    pub rms_delta_p: f64,
    /// −ln p summed over a window's targets, nats, by window.
    pub nll_per_window: Vec<f64>,
    /// Mean over a window's targets, nats.
    pub kld_per_window: Vec<f64>,
    /// Along the scored part of a window.
    pub nll_change_by_position: Vec<PositionBin>,
    /// Distribution of the KL divergence over targets.
    pub kld_histogram: Histogram,
    /// Distortion of keys, all layers.
    pub key: Distortion,
    /// Distortion of values, all layers.
    pub value: Distortion,
    /// One a layer.
    pub layers: Vec<LayerResult>,
}

/// Distortion of one layer, and what it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerResult {
    /// Its index, from 0.
    pub layer: usize,
    /// Of keys.
    pub key: Distortion,
    /// Of values.
    pub value: Distortion,
    /// Stored bits of its keys over their number, measured from payloads; older logs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_bits_per_value: Option<f64>,
    /// The same of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_bits_per_value: Option<f64>,
}

/// Mean change of the NLL, nats a token, over a run of targets of every window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PositionBin {
    /// Index of the first target in its window, and one past the last.
    pub start: usize,
    /// Index after the last target.
    pub end: usize,
    /// Mean change, nats a token.
    pub mean: f64,
    /// Its 95 % interval.
    pub ci95: Option<[f64; 2]>,
}

/// How often a figure lies at or above an edge and below the next; the last bin has no upper edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower edges of the bins, nats.
    pub edges: Vec<f64>,
    /// Targets in each bin.
    pub counts: Vec<u64>,
}

/// JSON has no infinity, only `null`: perplexities overflow to it, as e^x does beyond x = 709.
fn or_infinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

fn all_targets() -> f64 {
    1.0
}

/// Figures held against limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CodecResult {
    /// The figures, free of limits.
    #[serde(flatten)]
    pub figures: CodecFigures,
    /// What follows from them for the memory of a server.
    #[serde(flatten)]
    pub cache: CacheSize,
    /// The verdict on them.
    #[serde(flatten)]
    pub judgement: Judgement,
}

impl Baseline {
    /// `nll`: −ln p of every scored target, `[windows][targets]`.
    pub fn of(nll: &[Vec<f64>]) -> Self {
        let (perplexity, nll_per_window) = (mean_nll(nll).exp(), window_sums(nll));
        Self { perplexity, nll_per_window, floor: None }
    }

    /// Why nothing can be said of a codec beside this baseline; `None` where something can.
    ///
    /// A guess among all tokens of the vocabulary has a perplexity of the vocabulary's size. The
    /// margin is for rounding: weights that are all zero guess exactly so.
    pub fn meaningless(&self, vocab_size: usize) -> Option<String> {
        let guess = vocab_size as f64;
        // Not a number either.
        let below = self.perplexity < guess * (1.0 - 1e-6);
        (!below).then(|| {
            format!(
                "the baseline's perplexity, {:.6}, is not below the vocabulary's size, {vocab_size}: \
                 the model predicts this text no better than a guess would",
                self.perplexity
            )
        })
    }
}

impl CodecFigures {
    /// Figures of a codec's windows. `baseline`: −ln p of every scored target under the untouched
    /// cache, nats, `[windows][targets]`.
    pub fn new(
        codec: &str,
        windows: &[CodecWindow],
        baseline: &[Vec<f64>],
        subject: &SubjectInfo,
    ) -> Self {
        let each = || windows.iter().map(|window| window.scores.as_slice()).zip(baseline);
        let mean = |scores: &[TokenScore], f: &dyn Fn(&TokenScore) -> f64| {
            scores.iter().map(f).sum::<f64>() / scores.len() as f64
        };
        let kld_per_window: Vec<f64> =
            each().map(|(scores, _)| mean(scores, &|score| score.kld)).collect();
        let top1: Vec<f64> = each()
            .map(|(scores, _)| {
                scores.iter().filter(|s| s.same_top).count() as f64 / scores.len() as f64
            })
            .collect();
        let top1 = Estimate::of(&top1);
        // p(target) of the codec minus that of the baseline.
        let delta_p = |score: &TokenScore, base: &f64| (-score.nll).exp() - (-base).exp();
        let squares: Vec<f64> = each()
            .map(|(scores, base)| {
                let squares = scores.iter().zip(base).map(|(s, base)| delta_p(s, base).powi(2));
                squares.sum::<f64>() / scores.len() as f64
            })
            .collect();
        let squares = Estimate::of(&squares);

        let mut klds: Vec<f64> =
            windows.iter().flat_map(|window| window.scores.iter().map(|s| s.kld)).collect();
        klds.sort_by(f64::total_cmp);
        let nll: Vec<Vec<f64>> =
            each().map(|(scores, _)| scores.iter().map(|score| score.nll).collect()).collect();
        let perplexity = mean_nll(&nll).exp();
        let (nll_per_window, base_per_window) = (window_sums(&nll), window_sums(baseline));
        let tokens_per_window = baseline.first().map_or(0, Vec::len);
        let log_ratio = log_ratio(&nll_per_window, &base_per_window, tokens_per_window);
        let percent = |log_ratio: f64| 100.0 * log_ratio.exp_m1();

        let total = |of: fn(&CodecWindow) -> u64| windows.iter().map(of).sum::<u64>() as f64;
        let (stored_bytes, values) = (total(|w| w.stored_bytes), total(|w| w.values));
        let layers = layer_sums(windows);
        let bits_per_value = 8.0 * stored_bytes / values;
        let sizes: Vec<StoredSize> =
            layers.iter().map(|layer| layer.key_size.plus(layer.value_size)).collect();
        // Logs without sizes by layer have one codec for all of them, so that all are of one size.
        let is_logged = sizes.iter().map(|size| size.values).sum::<u64>() as f64 == values;
        let kept = |layer: usize| subject.model.kept(layer, subject.context);
        let per_token = |of: fn(&StoredSize) -> u64, all: f64| {
            let bytes: f64 = match is_logged {
                true => (0..).zip(&sizes).map(|(layer, size)| kept(layer) * of(size) as f64).sum(),
                false => {
                    let count = sizes.len();
                    all * ((0..count).map(kept).sum::<f64>() / count.max(1) as f64)
                }
            };
            bytes / total(|w| w.cached_tokens)
        };
        let sum = |part: fn(&LayerDistortion) -> DistortionSum| {
            layers.iter().map(part).fold(DistortionSum::default(), DistortionSum::plus).finish()
        };
        let scored: usize = baseline.iter().map(Vec::len).sum();
        Self {
            codec: codec.into(),
            targets_affected: total(|w| w.targets_affected) / scored.max(1) as f64,
            bits_per_value,
            exact_share: exact_share(&layers),
            compression_ratio: SERVED_BITS / bits_per_value,
            cache_bytes_per_token_f16: per_token(
                |size| 2 * size.values,
                values * SERVED_BITS / 8.0,
            ),
            cache_bytes_per_token: per_token(|size| size.bytes, stored_bytes),
            perplexity,
            perplexity_change: perplexity - mean_nll(baseline).exp(),
            perplexity_change_percent: percent(log_ratio.mean),
            perplexity_change_percent_ci95: log_ratio
                .ci95()
                .map(|ends| ends.map(percent))
                .filter(|ends| ends.iter().all(|end| end.is_finite())),
            mean_log_ratio: log_ratio.mean,
            mean_log_ratio_ci95: log_ratio.ci95(),
            kld_mean: Estimate::of(&kld_per_window).mean,
            kld_mean_ci95: positive_ci95(&kld_per_window),
            kld_p50: quantile(&klds, 0.5),
            kld_p90: quantile(&klds, 0.9),
            kld_p99: quantile(&klds, 0.99),
            kld_p999: quantile(&klds, 0.999),
            kld_max: quantile(&klds, 1.0),
            top1_agreement: top1.mean,
            top1_agreement_ci95: share_ci95(&top1),
            rms_delta_p: squares.mean.sqrt(),
            nll_per_window,
            kld_per_window,
            nll_change_by_position: by_position(&nll, baseline, subject.prefix + 1),
            kld_histogram: Histogram::of(&klds),
            key: sum(|layer| layer.key),
            value: sum(|layer| layer.value),
            layers: layers
                .iter()
                .enumerate()
                .map(|(layer, sums)| LayerResult {
                    layer,
                    key: sums.key.finish(),
                    value: sums.value.finish(),
                    key_bits_per_value: sums.key_size.bits_per_value(),
                    value_bits_per_value: sums.value_size.bits_per_value(),
                })
                .collect(),
        }
    }

    /// Held against limits; `subject` and `baseline` are those these figures were found on. `batch`:
    /// sequences whose cache is there at a time.
    pub fn judge(
        mut self,
        subject: &SubjectInfo,
        baseline: &Baseline,
        limits: &Limits,
        batch: usize,
    ) -> CodecResult {
        // An earlier version's could reach below 0.
        self.kld_mean_ci95 = positive_ci95(&self.kld_per_window);
        let tokens = subject.scored_tokens / subject.windows.max(1);
        let change = log_ratio(&self.nll_per_window, &baseline.nll_per_window, tokens);
        let judgement = Judgement::new(
            Criterion::perplexity_change(change, limits.max_ppl_change),
            limits.max_kld.map(|most| Criterion::kld(&self.kld_per_window, most)),
            limits.min_top1.map(|least| Criterion::top1(self.top1(subject.windows), least)),
            limits.max_bytes_per_token.map(|most| self.cache_bytes_per_token <= most),
        );
        let unfelt = || {
            (self.targets_affected <= 0.0).then(|| "no scored target could feel the codec".into())
        };
        let judgement = match baseline.meaningless(subject.model.vocab_size).or_else(unfelt) {
            Some(reason) => judgement.invalid(reason),
            None => judgement,
        };
        let cache = CacheSize::new(
            self.cache_bytes_per_token_f16,
            self.cache_bytes_per_token,
            subject.context,
            batch,
        );
        CodecResult { figures: self, cache, judgement }
    }

    /// ln of the ratio of perplexities over windows.
    pub fn log_ratio(&self, windows: usize) -> Estimate {
        from_interval(self.mean_log_ratio, self.mean_log_ratio_ci95, windows)
    }

    /// Top-1 agreement over windows; one end of its interval may be cut at 0 or 1.
    pub fn top1(&self, windows: usize) -> Estimate {
        from_interval(self.top1_agreement, self.top1_agreement_ci95, windows)
    }
}

/// Of all layers' keys and values; `None` where their sizes were not logged.
fn exact_share(layers: &[LayerDistortion]) -> Option<f64> {
    let sizes = layers.iter().flat_map(|layer| [layer.key_size, layer.value_size]);
    let all = sizes.fold(StoredSize::default(), StoredSize::plus);
    (!all.is_empty()).then(|| all.exact as f64 / all.values as f64)
}

/// The estimate that a Student's t interval was made from.
fn from_interval(mean: f64, ci95: Option<[f64; 2]>, windows: usize) -> Estimate {
    let half = ci95.map(|[low, high]| (mean - low).max(high - mean));
    let t = || student_t_quantile(0.975, windows as f64 - 1.0);
    Estimate { mean, standard_error: half.map(|half| half / t()), windows }
}

impl CodecResult {
    /// Whether the verdict would be `pass` with this limit on the perplexity change, percent, and
    /// the other limits as they are.
    pub fn passes(&self, limit: f64) -> bool {
        let Some([low, high]) = self.figures.mean_log_ratio_ci95 else { return false };
        let [least, most] = change_bounds(limit);
        let mut others = self.judgement.verdicts.others();
        self.judgement.verdict != Verdict::Invalid
            && low >= least
            && high <= most
            && others.all(|verdict| verdict == Verdict::Pass)
    }
}

/// ln of the ratio of perplexities, from NLL summed over windows of `tokens` targets each.
fn log_ratio(codec: &[f64], baseline: &[f64], tokens: usize) -> Estimate {
    let pairs = codec.iter().zip(baseline);
    Estimate::of(&pairs.map(|(codec, base)| (codec - base) / tokens as f64).collect::<Vec<_>>())
}

/// `first`: index in its window of the first scored target.
fn by_position(nll: &[Vec<f64>], baseline: &[Vec<f64>], first: usize) -> Vec<PositionBin> {
    let targets = baseline.first().map_or(0, Vec::len);
    let bins = POSITION_BINS.min(targets);
    let edge = |bin: usize| bin * targets / bins;
    (0..bins)
        .map(|bin| {
            let (start, end) = (edge(bin), edge(bin + 1));
            let change = |(codec, base): (&Vec<f64>, &Vec<f64>)| {
                let pairs = codec[start..end].iter().zip(&base[start..end]);
                pairs.map(|(codec, base)| codec - base).sum::<f64>() / (end - start) as f64
            };
            let estimate = Estimate::of(&nll.iter().zip(baseline).map(change).collect::<Vec<_>>());
            PositionBin {
                start: first + start,
                end: first + end,
                mean: estimate.mean,
                ci95: estimate.ci95(),
            }
        })
        .collect()
}

impl Histogram {
    /// Of KL divergences, sorted. The first bin holds what is below the smallest edge, zeros too.
    fn of(klds: &[f64]) -> Self {
        let steps = DECADES.start * BINS_PER_DECADE..=DECADES.end * BINS_PER_DECADE;
        let power = |step: i32| 10f64.powf(f64::from(step) / f64::from(BINS_PER_DECADE));
        let edges: Vec<f64> = std::iter::once(0.0).chain(steps.map(power)).collect();
        let below = |edge: &f64| klds.partition_point(|kld| kld < edge) as u64;
        let ends = edges[1..].iter().map(below).chain([klds.len() as u64]);
        let counts = edges.iter().map(below).zip(ends).map(|(from, to)| to - from).collect();
        Self { edges, counts }
    }
}

fn window_sums(nll: &[Vec<f64>]) -> Vec<f64> {
    nll.iter().map(|window| window.iter().sum()).collect()
}

fn mean_nll(nll: &[Vec<f64>]) -> f64 {
    let tokens: usize = nll.iter().map(Vec::len).sum();
    nll.iter().flatten().sum::<f64>() / tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::scores::TokenScore;
    use crate::results::fixture;

    /// A server keeps a quarter of the context in a layer with a window of that length: what this layer
    /// takes counts a quarter, whatever the others take.
    #[test]
    fn a_sliding_windows_bytes_count_as_far_as_it_reaches() {
        let size = |bytes| StoredSize { bytes, values: 640, exact: 0 };
        let layer = |bytes| LayerDistortion {
            key_size: size(bytes),
            value_size: size(bytes),
            ..LayerDistortion::default()
        };
        // 64 keys and 64 values of a token; the second layer in 8 bits, the first in 16.
        let window = CodecWindow {
            scores: vec![TokenScore { nll: 1.0, kld: 0.0, same_top: true }; 3],
            targets_affected: 3,
            layers: vec![layer(1280), layer(640)],
            stored_bytes: 2 * (1280 + 640),
            values: 4 * 640,
            cached_tokens: 10,
        };
        let mut subject = fixture::subject_info("m", 1, 2);
        subject.context = 40;
        subject.model.sliding_windows = vec![Some(10), None];
        let of = |window: CodecWindow| {
            let figures = CodecFigures::new("x", &[window], &[vec![1.0; 3]], &subject);
            [figures.cache_bytes_per_token, figures.cache_bytes_per_token_f16]
        };
        assert_eq!(of(window.clone()), [256.0 / 4.0 + 128.0, 256.0 / 4.0 + 256.0]);
        // Logs of before have no sizes by layer, and the same codec in all.
        let before = vec![LayerDistortion::default(); 2];
        assert_eq!(of(CodecWindow { layers: before, ..window }), [0.625 * 384.0, 0.625 * 512.0]);
    }
}
