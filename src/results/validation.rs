//! The result of `validate` as one value: what `--json` prints and the table shows.
//!
//! Field names are the contract of schema `kvgauge.validation/1`; docs/json.md explains them.
//! NaN and infinities cannot occur in the JSON: serde_json writes them as `null`.

use super::attribution::Attribution;
use super::figures::{Baseline, CodecFigures, CodecResult, Floor};
use super::measurement::{CodecMeasurement, Measurement};
use super::subject::SubjectInfo;
use crate::codec::shown_name;
use crate::eval::attribution::CacheParts;
use crate::eval::verdict::{Limits, Verdict};
use crate::eval::{CodecOutcome, Evaluation, Protocol, Scope, StageTimings};
use crate::settings::Settings;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Version of `validate`'s JSON.
pub const SCHEMA: &str = "kvgauge.validation/1";
/// Version of `figures`' JSON.
pub const FIGURES_SCHEMA: &str = "kvgauge.figures/1";

/// The result of `validate`.
#[derive(Debug, Clone, Serialize)]
pub struct Validation {
    /// [`SCHEMA`]
    pub schema: &'static str,
    /// Version of the binary.
    pub kvgauge_version: &'static str,
    /// Model, text and windows, under the first protocol.
    #[serde(flatten)]
    pub subject: SubjectInfo,
    /// The untouched cache under it.
    pub baseline: Baseline,
    /// In the order asked for.
    pub codecs: Vec<ValidatedCodec>,
    /// Where both protocols ran: what is above is `prefix`'s, and this `decode`'s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<ProtocolResult>,
    /// Where it was asked for.
    pub cross_check: Option<CrossCheck>,
    /// The settings as resolved, context and threads filled in.
    pub config: Settings,
    /// Seconds by stage.
    pub timings_s: Timings,
    /// The most memory at any time, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

/// Figures of a measurement that another program made: what `kvgauge figures` prints.
#[derive(Debug, Clone, Serialize)]
pub struct FiguresReport {
    /// [`FIGURES_SCHEMA`]
    pub schema: &'static str,
    /// Version of the binary that worked them out.
    pub kvgauge_version: &'static str,
    /// Model, text, windows and protocol.
    #[serde(flatten)]
    pub subject: SubjectInfo,
    /// The limits behind the verdicts.
    #[serde(flatten)]
    pub limits: Limits,
    /// Sequences behind `gb_saved`.
    pub batch: usize,
    /// The untouched cache.
    pub baseline: Baseline,
    /// In the order of the measurement.
    pub codecs: Vec<CodecResult>,
}

impl FiguresReport {
    /// Figures and verdicts of a measurement that was checked ([`Measurement::read`]).
    pub fn new(measurement: Measurement, limits: Limits, batch: usize) -> Self {
        let Measurement { subject, baseline, codecs } = measurement;
        let nll: Vec<Vec<f64>> = baseline.into_iter().map(|window| window.0).collect();
        let baseline = Baseline::of(&nll);
        let result = |codec: &CodecMeasurement| {
            let figures = CodecFigures::new(&codec.codec, &codec.windows, &nll, &subject);
            figures.judge(&subject, &baseline, &limits, batch)
        };
        let codecs = codecs.iter().map(result).collect();
        let (schema, kvgauge_version) = (FIGURES_SCHEMA, env!("CARGO_PKG_VERSION"));
        Self { schema, kvgauge_version, subject, limits, batch, baseline, codecs }
    }

    /// True when a codec does not pass.
    pub fn misses_limit(&self) -> bool {
        self.codecs.iter().any(|codec| codec.judgement.verdict != Verdict::Pass)
    }
}

/// The same model, text and windows under another protocol.
#[derive(Debug, Clone, Serialize)]
pub struct ProtocolResult {
    /// `decode`, and its residual and chunk.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Over all windows.
    pub scored_tokens: usize,
    /// The untouched cache under it.
    pub baseline: Baseline,
    /// Those asked for, in that order, but for the refused ones.
    pub codecs: Vec<ValidatedCodec>,
    /// Codecs that `decode` cannot take.
    pub refused: Vec<RefusedCodec>,
}

/// A codec that has no verdict under this protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RefusedCodec {
    /// The codec's name.
    pub codec: String,
    /// Why, one line.
    pub error: String,
    /// The hint: a setting that would do.
    pub hint: Option<String>,
}

/// A codec's result.
#[derive(Debug, Clone, Serialize)]
pub struct ValidatedCodec {
    /// Figures and verdict.
    #[serde(flatten)]
    pub result: CodecResult,
    /// Left out where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
}

/// Our last-position logits beside candle-transformers'.
#[derive(Debug, Clone, Serialize)]
pub struct CrossCheck {
    /// The other implementation, and what was compared.
    pub oracle: String,
    /// Its module in candle-transformers.
    #[serde(skip)]
    pub module: &'static str,
    /// The largest of its logits.
    pub largest_logit: f32,
    /// The largest difference to ours.
    pub largest_difference: f32,
}

/// Seconds by stage.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timings {
    /// Opening and hashing files, downloads, tokenising.
    pub prepare: f64,
    /// Reading and converting weights.
    pub load: f64,
    /// The other implementation's pass.
    pub cross_check: f64,
    /// The exact pass over prefixes.
    pub prefill: f64,
    /// Compressing, decompressing and measuring distortion, all codecs.
    pub codec: f64,
    /// Passes over the rest of the windows.
    pub continuation: f64,
    /// Logits and scores.
    pub scoring: f64,
    /// The whole run.
    pub total: f64,
}

/// One protocol's part of a run.
pub struct ProtocolRun {
    /// Model, text, windows and protocol.
    pub subject: SubjectInfo,
    /// One outcome a codec; with `parts`, behind them for each codec one a part.
    pub evaluation: Evaluation,
    /// Of a run in 16 bits, the control beside it.
    pub floor: Option<CodecOutcome>,
    /// The parts, where damage is attributed to them.
    pub parts: Option<CacheParts<Scope>>,
}

/// A finished run: the material of a result.
pub struct Run<'a> {
    /// As resolved.
    pub settings: &'a Settings,
    /// The protocol that the result begins with.
    pub first: ProtocolRun,
    /// Beside `prefix`, and the codecs it refused.
    pub decode: Option<(ProtocolRun, Vec<RefusedCodec>)>,
    /// Threads of the run.
    pub threads: usize,
    /// Where it was asked for.
    pub cross_check: Option<CrossCheck>,
    /// Opening and hashing files, tokenising.
    pub prepare: Duration,
    /// Reading and converting weights.
    pub load: Duration,
    /// The other implementation's pass.
    pub cross_checking: Duration,
    /// The whole run.
    pub total: Duration,
    /// The most memory at any time, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

impl ProtocolRun {
    fn results(&self, settings: &Settings) -> (Baseline, Vec<ValidatedCodec>) {
        let Self { subject, evaluation, floor, parts } = self;
        let figures = |outcome: &CodecOutcome| {
            let name = outcome.codec.to_string();
            CodecFigures::new(&name, &outcome.windows, &evaluation.baseline, subject)
        };
        let floor = floor.as_ref().map(|outcome| Floor::of(&figures(outcome)));
        let baseline = Baseline { floor, ..Baseline::of(&evaluation.baseline) };
        let each = 1 + parts.as_ref().map_or(0, CacheParts::count);
        let (whole, alone) = evaluation.codecs.split_at(evaluation.codecs.len() / each);
        let validated = |(index, outcome)| {
            let whole = figures(outcome);
            let attribution = parts.as_ref().map(|parts| {
                let mut next = index * parts.count()..;
                let found = parts.map(|_| figures(&alone[next.next().unwrap_or_default()]));
                Attribution::new(&whole, &found)
            });
            let result = whole.judge(subject, &baseline, &settings.limits(), settings.batch);
            ValidatedCodec { result, attribution }
        };
        let codecs = whole.iter().enumerate().map(validated).collect();
        (baseline, codecs)
    }
}

impl Validation {
    /// With codecs by the names that people are shown: for everything but JSON.
    pub fn for_people(&self) -> Self {
        let mut shown = self.clone();
        let (beside, refused) = match &mut shown.decode {
            Some(decode) => (&mut decode.codecs[..], &mut decode.refused[..]),
            None => Default::default(),
        };
        let results = shown.codecs.iter_mut().chain(beside);
        let results = results.map(|codec| &mut codec.result.figures.codec);
        for name in results.chain(refused.iter_mut().map(|refused| &mut refused.codec)) {
            *name = shown_name(name);
        }
        shown
    }

    /// The result of a finished run.
    pub fn new(run: Run) -> Self {
        let Run { settings, first, decode, .. } = run;
        let mut stages = first.evaluation.timings;
        let (baseline, codecs) = first.results(settings);
        let decode = decode.map(|(run, refused)| {
            stages = stages.plus(run.evaluation.timings);
            let (baseline, codecs) = run.results(settings);
            ProtocolResult {
                protocol: run.subject.protocol,
                scored_tokens: run.subject.scored_tokens,
                baseline,
                codecs,
                refused,
            }
        });
        let StageTimings { prefill, codec, continuation, scoring } = stages;
        Self {
            schema: SCHEMA,
            kvgauge_version: env!("CARGO_PKG_VERSION"),
            codecs,
            decode,
            config: Settings {
                context: Some(first.subject.context),
                threads: Some(run.threads),
                ..settings.clone()
            },
            subject: first.subject,
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

    /// Each codec's verdict over all protocols that ran, in the order asked for: the worst of
    /// its verdicts, and `None` where one of them refused it.
    pub fn overall(&self) -> impl Iterator<Item = (&str, Option<Verdict>)> {
        self.codecs.iter().map(|codec| {
            let (name, own) = (&codec.result.figures.codec, codec.result.judgement.verdict);
            let verdict = match &self.decode {
                None => Some(own),
                Some(decode) => decode.of(name).map(|other| own.max(other.judgement.verdict)),
            };
            (name.as_str(), verdict)
        })
    }

    /// True when a codec does not pass under every protocol that ran, which `--strict` turns into
    /// exit status 1.
    pub fn misses_limit(&self) -> bool {
        self.overall().any(|(_, verdict)| verdict != Some(Verdict::Pass))
    }
}

impl ProtocolResult {
    /// The codec of this name, unless it was refused.
    pub fn of(&self, name: &str) -> Option<&CodecResult> {
        self.codecs.iter().map(|codec| &codec.result).find(|result| result.figures.codec == name)
    }
}
