//! The result of `validate` as one value: what `--json` prints and the table shows.
//!
//! Field names are the contract of schema `kvgauge.validation/1`; README explains each.
//! NaN and infinities cannot occur in the JSON: serde_json writes them as `null`.

use crate::codec::{Distortion, DistortionSum};
use crate::corpus::Text;
use crate::eval::stats::{Estimate, Verdict, positive_ci95, quantile, share_ci95, verdict};
use crate::eval::{CodecOutcome, Evaluation};
use crate::model::ModelConfig;
use crate::model::source::Provenance;
use crate::settings::Settings;
use serde::Serialize;
use std::time::Duration;

pub const SCHEMA: &str = "kvgauge.validation/1";
/// A cache is served in f16 or bf16: what ratios compare with.
const SERVED_BITS: f64 = 16.0;

#[derive(Debug, Clone, Serialize)]
pub struct Validation {
    pub schema: &'static str,
    pub kvgauge_version: &'static str,
    pub protocol: &'static str,
    pub model: ModelInfo,
    pub text: TextInfo,
    pub context: usize,
    /// Tokens of a window whose cache is compressed.
    pub prefix: usize,
    pub first_window: usize,
    pub windows: usize,
    /// Over all windows.
    pub scored_tokens: usize,
    /// The token that replaced the first of every window.
    pub bos_id: Option<u32>,
    pub baseline: Baseline,
    pub codecs: Vec<CodecResult>,
    pub cross_check: Option<CrossCheck>,
    /// The settings as resolved, context and threads filled in.
    pub config: Settings,
    pub timings_s: Timings,
    pub peak_rss_bytes: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub architecture: String,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct TextInfo {
    pub source: String,
    pub sha256: String,
    pub bytes: usize,
    pub tokens: usize,
    /// Windows of this context the whole text holds.
    pub windows_available: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct Baseline {
    pub perplexity: f64,
    /// Summed over a window's targets, nats.
    pub nll_per_window: Vec<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CodecResult {
    pub codec: String,
    pub bits_per_value: f64,
    pub compression_ratio: f64,
    /// Cache bytes a token, all layers, served in f16 and stored by this codec.
    pub cache_bytes_per_token_f16: f64,
    pub cache_bytes_per_token: f64,
    pub perplexity: f64,
    /// Codec minus baseline.
    pub perplexity_change: f64,
    pub perplexity_change_percent: f64,
    pub perplexity_change_percent_ci95: Option<[f64; 2]>,
    /// ln of the ratio of perplexities: mean NLL of the codec minus that of the baseline, nats.
    pub mean_log_ratio: f64,
    pub mean_log_ratio_ci95: Option<[f64; 2]>,
    pub kld_mean: f64,
    pub kld_mean_ci95: Option<[f64; 2]>,
    pub kld_p50: f64,
    pub kld_p90: f64,
    pub kld_p99: f64,
    pub kld_p999: f64,
    pub kld_max: f64,
    pub top1_agreement: f64,
    pub top1_agreement_ci95: Option<[f64; 2]>,
    /// Root mean square change of the true token's probability, 0…1.
    pub rms_delta_p: f64,
    pub nll_per_window: Vec<f64>,
    /// Mean over a window's targets, nats.
    pub kld_per_window: Vec<f64>,
    pub key: Distortion,
    pub value: Distortion,
    pub layers: Vec<LayerResult>,
    pub verdict: Verdict,
    pub windows_needed: Option<usize>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LayerResult {
    pub layer: usize,
    pub key: Distortion,
    pub value: Distortion,
}

/// Our last-position logits beside candle-transformers'.
#[derive(Debug, Clone, Serialize)]
pub struct CrossCheck {
    pub oracle: String,
    pub largest_logit: f32,
    pub largest_difference: f32,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timings {
    /// Opening and hashing files, downloads, tokenising.
    pub prepare: f64,
    /// Reading and converting weights.
    pub load: f64,
    pub cross_check: f64,
    pub prefill: f64,
    /// Compressing, decompressing and measuring distortion, all codecs.
    pub codec: f64,
    pub continuation: f64,
    /// Logits and scores.
    pub scoring: f64,
    pub total: f64,
}

/// What a result is made from.
pub struct Run<'a> {
    pub settings: &'a Settings,
    pub evaluation: &'a Evaluation,
    pub model: ModelInfo,
    pub text: TextInfo,
    pub context: usize,
    pub threads: usize,
    pub bos: Option<u32>,
    pub cross_check: Option<CrossCheck>,
    pub prepare: Duration,
    pub load: Duration,
    pub cross_checking: Duration,
    pub total: Duration,
    pub peak_rss_bytes: Option<u64>,
}

impl ModelInfo {
    pub fn new(config: &ModelConfig, provenance: Provenance) -> Self {
        Self {
            provenance,
            architecture: config.architecture.clone(),
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
        }
    }
}

impl TextInfo {
    pub fn new(text: &Text, tokens: usize, windows_available: usize) -> Self {
        Self {
            source: text.source.clone(),
            sha256: text.sha256.clone(),
            bytes: text.content.len(),
            tokens,
            windows_available,
        }
    }
}

impl Validation {
    pub fn new(run: Run) -> Self {
        let evaluation = run.evaluation;
        let stages = evaluation.timings;
        Self {
            schema: SCHEMA,
            kvgauge_version: env!("CARGO_PKG_VERSION"),
            protocol: evaluation.protocol,
            model: run.model,
            text: run.text,
            context: run.context,
            prefix: evaluation.prefix,
            first_window: run.settings.first_window,
            windows: evaluation.baseline.len(),
            scored_tokens: evaluation.baseline.iter().map(Vec::len).sum(),
            bos_id: run.bos,
            baseline: Baseline {
                perplexity: mean_nll(&evaluation.baseline).exp(),
                nll_per_window: window_sums(&evaluation.baseline),
            },
            codecs: evaluation
                .codecs
                .iter()
                .map(|outcome| {
                    CodecResult::new(outcome, &evaluation.baseline, run.settings.max_ppl_increase)
                })
                .collect(),
            cross_check: run.cross_check,
            config: Settings {
                context: Some(run.context),
                threads: Some(run.threads),
                ..run.settings.clone()
            },
            timings_s: Timings {
                prepare: run.prepare.as_secs_f64(),
                load: run.load.as_secs_f64(),
                cross_check: run.cross_checking.as_secs_f64(),
                prefill: stages.prefill.as_secs_f64(),
                codec: stages.codec.as_secs_f64(),
                continuation: stages.continuation.as_secs_f64(),
                scoring: stages.scoring.as_secs_f64(),
                total: run.total.as_secs_f64(),
            },
            peak_rss_bytes: run.peak_rss_bytes,
        }
    }

    /// True when a codec's verdict is not `pass`, which `--strict` turns into exit status 1.
    pub fn misses_limit(&self) -> bool {
        self.codecs.iter().any(|codec| codec.verdict != Verdict::Pass)
    }
}

impl CodecResult {
    /// `limit`: the highest accepted perplexity increase, percent.
    fn new(outcome: &CodecOutcome, baseline: &[Vec<f64>], limit: f64) -> Self {
        let per_window = |f: &dyn Fn(usize) -> f64| -> Estimate {
            Estimate::of(&(0..baseline.len()).map(f).collect::<Vec<_>>())
        };
        let scores = &outcome.scores;
        let tokens = |window: usize| scores[window].len() as f64;
        let log_ratio = per_window(&|w| {
            let codec: f64 = scores[w].iter().map(|score| score.nll).sum();
            let base: f64 = baseline[w].iter().sum();
            (codec - base) / tokens(w)
        });
        let kld_per_window: Vec<f64> = (0..scores.len())
            .map(|w| scores[w].iter().map(|score| score.kld).sum::<f64>() / tokens(w))
            .collect();
        let top1 =
            per_window(&|w| scores[w].iter().filter(|s| s.same_top).count() as f64 / tokens(w));
        let squares =
            per_window(&|w| scores[w].iter().map(|s| s.delta_p.powi(2)).sum::<f64>() / tokens(w));

        let mut klds: Vec<f64> = scores.iter().flatten().map(|score| score.kld).collect();
        klds.sort_by(f64::total_cmp);
        let nll: Vec<Vec<f64>> =
            scores.iter().map(|window| window.iter().map(|score| score.nll).collect()).collect();
        let perplexity = mean_nll(&nll).exp();
        let percent = |log_ratio: f64| 100.0 * log_ratio.exp_m1();
        let (verdict, windows_needed) = verdict(&log_ratio, (limit / 100.0).ln_1p());

        let bits_per_value = 8.0 * outcome.stored_bytes as f64 / outcome.values as f64;
        let per_token = |bytes: f64| bytes / outcome.cached_tokens as f64;
        let sum = |part: fn(&crate::eval::LayerDistortion) -> DistortionSum| {
            outcome
                .layers
                .iter()
                .map(part)
                .fold(DistortionSum::default(), DistortionSum::plus)
                .finish()
        };
        Self {
            codec: outcome.codec.to_string(),
            bits_per_value,
            compression_ratio: SERVED_BITS / bits_per_value,
            cache_bytes_per_token_f16: per_token(outcome.values as f64 * SERVED_BITS / 8.0),
            cache_bytes_per_token: per_token(outcome.stored_bytes as f64),
            perplexity,
            perplexity_change: perplexity - mean_nll(baseline).exp(),
            perplexity_change_percent: percent(log_ratio.mean),
            perplexity_change_percent_ci95: log_ratio.ci95().map(|ends| ends.map(percent)),
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
            nll_per_window: window_sums(&nll),
            kld_per_window,
            key: sum(|layer| layer.key),
            value: sum(|layer| layer.value),
            layers: outcome
                .layers
                .iter()
                .enumerate()
                .map(|(layer, sums)| LayerResult {
                    layer,
                    key: sums.key.finish(),
                    value: sums.value.finish(),
                })
                .collect(),
            verdict,
            windows_needed,
        }
    }
}

fn window_sums(nll: &[Vec<f64>]) -> Vec<f64> {
    nll.iter().map(|window| window.iter().sum()).collect()
}

fn mean_nll(nll: &[Vec<f64>]) -> f64 {
    let tokens: usize = nll.iter().map(Vec::len).sum();
    nll.iter().flatten().sum::<f64>() / tokens as f64
}
