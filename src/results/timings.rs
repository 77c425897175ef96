//! Seconds and bytes: what runs took, and what they would take.

use super::names::Headlines;
use super::subject::SubjectInfo;
use super::sweep::UnfinishedCell;
use crate::codec::shown_name;
use crate::eval::StageTimings;
use serde::Serialize;

/// Seconds of this run, by stage; kept apart from results, which are the same in every run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SweepTimings {
    /// Threads of the run.
    pub threads: usize,
    /// Opening and hashing files, tokenising; seconds.
    pub prepare: f64,
    /// Reading and converting weights.
    pub load: f64,
    /// The whole run.
    pub total: f64,
    /// One a model, text, context and protocol.
    pub subjects: Vec<SubjectTimings>,
    /// The most memory at any time, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

/// Seconds of one subject, by stage.
#[derive(Debug, Clone, Serialize)]
pub struct SubjectTimings {
    /// The model as asked for.
    pub model: String,
    /// The text as asked for.
    pub text: String,
    /// Tokens of a window.
    pub context: usize,
    /// Its name.
    pub protocol: &'static str,
    /// That this run evaluated.
    pub codecs: usize,
    /// The exact pass over prefixes.
    pub prefill: f64,
    /// Compressing, decompressing and measuring distortion.
    pub codec: f64,
    /// Passes over the rest of the windows.
    pub continuation: f64,
    /// Logits and scores.
    pub scoring: f64,
}

impl SubjectTimings {
    /// Times of a subject with so many codecs.
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

/// Estimates of a run.
#[derive(Debug, Clone, Serialize)]
pub struct DryRun {
    /// One a model, text, context and protocol.
    pub subjects: Vec<SubjectEstimate>,
    /// Cells that would fail, and why.
    pub failed: Vec<UnfinishedCell>,
    /// All of them together.
    pub seconds: f64,
    /// The most at any time.
    pub memory_bytes: u64,
    /// That can be had now, where the system tells.
    pub free_memory_bytes: Option<u64>,
}

impl DryRun {
    /// The number of cells that can be run.
    pub fn cells(&self) -> usize {
        self.subjects.iter().map(|subject| subject.cells.len()).sum()
    }

    /// With codecs by the names that people are shown: for everything but JSON.
    pub fn for_people(&self) -> Self {
        let mut shown = self.clone();
        let cells = shown.subjects.iter_mut().flat_map(|subject| &mut subject.cells);
        let failed = shown.failed.iter_mut().map(|cell| &mut cell.codec);
        for name in cells.map(|cell| &mut cell.codec).chain(failed) {
            *name = shown_name(name);
        }
        shown
    }

    /// Of all its models and texts.
    pub fn headlines(&self) -> Headlines {
        let subjects = self.subjects.iter();
        let subjects = subjects.map(|subject| (subject.model.as_str(), subject.text.as_str()));
        Headlines::of(subjects.chain(self.failed.iter().map(UnfinishedCell::sources)))
    }
}

/// Codecs that share a model, text, context and protocol.
#[derive(Debug, Clone, Serialize)]
pub struct SubjectEstimate {
    /// The model as asked for.
    pub model: String,
    /// The text as asked for.
    pub text: String,
    /// Tokens of a window.
    pub context: usize,
    /// Its name.
    pub protocol: &'static str,
    /// Number of windows.
    pub windows: usize,
    /// Prefill and baseline, which all cells share.
    pub shared_seconds: f64,
    /// How they are kept: as numbers of a type (`f32`, `bf16`, `f16`) or `packed` as in the file.
    pub weights: String,
    /// Of the model and its work, beside the program, texts and tokenizers.
    pub memory_bytes: u64,
    /// One a codec.
    pub cells: Vec<CellEstimate>,
}

/// Estimates of one cell.
#[derive(Debug, Clone, Serialize)]
pub struct CellEstimate {
    /// The codec's name.
    pub codec: String,
    /// Counted on real payloads.
    pub bits_per_value: f64,
    /// Its own, beside those that cells share.
    pub seconds: f64,
}
