//! Seconds and bytes: what runs took, and what a sweep would take.

use super::subject::SubjectInfo;
use crate::eval::StageTimings;
use serde::Serialize;

/// Seconds of this run, by stage; kept apart from results, which are the same in every run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SweepTimings {
    pub threads: usize,
    pub prepare: f64,
    pub load: f64,
    pub total: f64,
    pub subjects: Vec<SubjectTimings>,
    pub peak_rss_bytes: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct SubjectTimings {
    pub model: String,
    pub text: String,
    pub context: usize,
    pub protocol: &'static str,
    /// That this run evaluated.
    pub codecs: usize,
    pub prefill: f64,
    pub codec: f64,
    pub continuation: f64,
    pub scoring: f64,
}

impl SubjectTimings {
    pub fn new(subject: &SubjectInfo, codecs: usize, stages: StageTimings) -> Self {
        let StageTimings { prefill, codec, continuation, scoring } = stages;
        Self {
            model: subject.model.provenance.source.clone(),
            text: subject.text.source.clone(),
            context: subject.context,
            protocol: subject.protocol.name(),
            codecs,
            prefill: prefill.as_secs_f64(),
            codec: codec.as_secs_f64(),
            continuation: continuation.as_secs_f64(),
            scoring: scoring.as_secs_f64(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct DryRun {
    pub subjects: Vec<SubjectEstimate>,
    pub seconds: f64,
    /// The most at any time.
    pub memory_bytes: u64,
}

/// Cells of this shard that share a model, text, context and protocol.
#[derive(Debug, Clone, Serialize)]
pub struct SubjectEstimate {
    pub model: String,
    pub text: String,
    pub context: usize,
    pub protocol: &'static str,
    pub windows: usize,
    /// Prefill and baseline, which all cells share.
    pub shared_seconds: f64,
    /// Of the model and its work, beside the program, texts and tokenizers.
    pub memory_bytes: u64,
    pub cells: Vec<CellEstimate>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CellEstimate {
    pub codec: String,
    pub bits_per_value: f64,
    pub seconds: f64,
}
