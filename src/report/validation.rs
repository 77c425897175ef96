//! The result of `validate` as one value: what `--json` prints and the table shows.
//!
//! Field names are the contract of schema `kvgauge.validation/1`; README explains each.
//! NaN and infinities cannot occur in the JSON: serde_json writes them as `null`.

use super::attribution::Attribution;
use super::figures::{Baseline, CodecFigures, CodecResult, SubjectInfo};
use crate::eval::attribution::Parts;
use crate::eval::stats::Verdict;
use crate::eval::{Evaluation, Scope, StageTimings};
use crate::settings::Settings;
use serde::Serialize;
use std::time::Duration;

pub const SCHEMA: &str = "kvgauge.validation/1";

#[derive(Debug, Clone, Serialize)]
pub struct Validation {
    pub schema: &'static str,
    pub kvgauge_version: &'static str,
    #[serde(flatten)]
    pub subject: SubjectInfo,
    pub baseline: Baseline,
    pub codecs: Vec<ValidatedCodec>,
    pub cross_check: Option<CrossCheck>,
    /// The settings as resolved, context and threads filled in.
    pub config: Settings,
    pub timings_s: Timings,
    pub peak_rss_bytes: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ValidatedCodec {
    #[serde(flatten)]
    pub result: CodecResult,
    /// Left out where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
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
    pub subject: SubjectInfo,
    /// One outcome a codec; with `parts`, behind them for each codec one a part.
    pub evaluation: &'a Evaluation,
    pub parts: Option<Parts<Scope>>,
    pub threads: usize,
    pub cross_check: Option<CrossCheck>,
    pub prepare: Duration,
    pub load: Duration,
    pub cross_checking: Duration,
    pub total: Duration,
    pub peak_rss_bytes: Option<u64>,
}

impl Validation {
    pub fn new(run: Run) -> Self {
        let Run { settings, subject, evaluation, .. } = run;
        let StageTimings { prefill, codec, continuation, scoring } = evaluation.timings;
        let baseline = Baseline::of(&evaluation.baseline);
        let figures = |outcome| CodecFigures::new(outcome, &evaluation.baseline, subject.prefix);
        let (whole, alone) = evaluation.codecs.split_at(settings.codec.len());
        let validated = |(index, outcome)| {
            let whole = figures(outcome);
            let attribution = run.parts.as_ref().map(|parts| {
                let mut next = index * parts.count()..;
                let found = parts.map(|_| figures(&alone[next.next().unwrap_or_default()]));
                Attribution::new(&whole, &found)
            });
            let result = whole.judge(&subject, &baseline, settings.max_ppl_increase);
            ValidatedCodec { result, attribution }
        };
        Self {
            schema: SCHEMA,
            kvgauge_version: env!("CARGO_PKG_VERSION"),
            codecs: whole.iter().enumerate().map(validated).collect(),
            config: Settings {
                context: Some(subject.context),
                threads: Some(run.threads),
                ..settings.clone()
            },
            subject,
            baseline,
            cross_check: run.cross_check,
            timings_s: Timings {
                prepare: run.prepare.as_secs_f64(),
                load: run.load.as_secs_f64(),
                cross_check: run.cross_checking.as_secs_f64(),
                prefill: prefill.as_secs_f64(),
                codec: codec.as_secs_f64(),
                continuation: continuation.as_secs_f64(),
                scoring: scoring.as_secs_f64(),
                total: run.total.as_secs_f64(),
            },
            peak_rss_bytes: run.peak_rss_bytes,
        }
    }

    /// True when a codec's verdict is not `pass`, which `--strict` turns into exit status 1.
    pub fn misses_limit(&self) -> bool {
        self.codecs.iter().any(|codec| codec.result.verdict != Verdict::Pass)
    }
}
