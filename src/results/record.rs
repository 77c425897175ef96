//! What a sweep's folder holds: the plan, finished cells, and windows of cells still running.

use crate::error::{Error, Result};
use crate::eval::CodecWindow;
use crate::eval::verdict::Limits;
use crate::hash;
use crate::results::figures::{Baseline, CodecFigures};
use crate::results::subject::{SubjectInfo, UNKNOWN_INSTRUCTION_SET};
use crate::results::sweep::SweepSource;
use crate::results::validation::RefusedCodec;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

const PLAN: &str = "kvgauge.sweep-plan/1";
const CELL: &str = "kvgauge.sweep-cell/1";
const WINDOW: &str = "kvgauge.sweep-window/1";

/// One cell, as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CellName {
    pub model: String,
    pub text: String,
    /// `None`: the model's own.
    pub context: Option<usize>,
    /// `None`: planned by a version that ran one protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    pub codec: String,
}

/// What a sweep or a shard of one sets out to do: all cells of the whole sweep, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub schema: String,
    #[serde(flatten)]
    pub source: SweepSource,
    #[serde(flatten)]
    pub limits: Limits,
    /// Whether missing it is exit status 1.
    pub strict: bool,
    pub cells: Vec<PlannedCell>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlannedCell {
    #[serde(flatten)]
    pub name: CellName,
    /// [`cell_id`]; `None`: another shard's, its model could not be opened, or it was refused.
    pub id: Option<String>,
    /// Why `decode` cannot take this codec: a cell that no run will have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedCodec>,
}

/// A line of the result log: a cell that came to an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    pub schema: String,
    #[serde(flatten)]
    pub cell: CellName,
    #[serde(flatten)]
    pub outcome: CellOutcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum CellOutcome {
    Done(Box<CellResult>),
    Failed(CellFailure),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellFailure {
    /// [`cell_id`], where it was known by then.
    pub id: Option<String>,
    pub error: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// [`cell_id`]
    pub id: String,
    /// [`subject_id`]
    pub subject_id: String,
    pub subject: SubjectInfo,
    pub baseline: Baseline,
    pub figures: CodecFigures,
}

/// A line of the log of windows: what a killed run need not do again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    pub schema: String,
    pub subject_id: String,
    /// Index in the subject's windows.
    pub window: usize,
    /// −ln p of every scored target under the untouched cache, nats.
    pub baseline: Vec<f64>,
    pub arms: Vec<ArmRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmRecord {
    pub cell_id: String,
    pub outcome: CodecWindow,
}

impl CellName {
    /// For comparing: the same however its paths are spelt.
    pub fn key(&self) -> Self {
        let normal = |name: &str| {
            let parts = Path::new(name).components().filter(|part| *part != Component::CurDir);
            parts.collect::<PathBuf>().to_string_lossy().into_owned()
        };
        Self { model: normal(&self.model), text: normal(&self.text), ..self.clone() }
    }
}

impl Plan {
    pub fn new(source: SweepSource, limits: Limits, strict: bool, cells: Vec<PlannedCell>) -> Self {
        Self { schema: PLAN.into(), source, limits, strict, cells }
    }

    pub fn is_known(&self) -> bool {
        self.schema == PLAN
    }
}

impl CellRecord {
    pub fn done(cell: CellName, result: CellResult) -> Self {
        Self { schema: CELL.into(), cell, outcome: CellOutcome::Done(Box::new(result)) }
    }

    pub fn failed(cell: PlannedCell, error: &Error) -> Self {
        let (error, hint) = (error.to_string(), error.hint_text().map(str::to_string));
        let outcome = CellOutcome::Failed(CellFailure { id: cell.id, error, hint });
        Self { schema: CELL.into(), cell: cell.name, outcome }
    }

    /// Of this version, and what its id says.
    pub fn is_known(&self) -> bool {
        self.schema == CELL
            && match &self.outcome {
                CellOutcome::Failed(_) => true,
                CellOutcome::Done(result) => result.is_sound(),
            }
    }
}

impl CellResult {
    /// Its id says what it is of, and it has a figure for each window and layer.
    fn is_sound(&self) -> bool {
        let Self { id, subject_id: of, subject, baseline, figures } = self;
        subject_id(subject).is_ok_and(|id| id == *of)
            && *id == cell_id(of, &figures.codec)
            && [&baseline.nll_per_window, &figures.nll_per_window, &figures.kld_per_window]
                .iter()
                .all(|windows| windows.len() == subject.windows)
            && figures.layers.len() == subject.model.layers
            && figures.bits_per_value > 0.0
    }
}

impl WindowRecord {
    pub fn new(
        subject_id: String,
        window: usize,
        baseline: Vec<f64>,
        arms: Vec<ArmRecord>,
    ) -> Self {
        Self { schema: WINDOW.into(), subject_id, window, baseline, arms }
    }

    /// Of this version, and of the shape that `subject` has.
    pub fn is_sound(&self, subject: &SubjectInfo) -> bool {
        let targets = subject.window_shape().scored_len();
        self.schema == WINDOW
            && self.window < subject.windows
            && self.baseline.len() == targets
            && self.arms.iter().all(|ArmRecord { outcome, .. }| {
                outcome.scores.len() == targets
                    && outcome.layers.len() == subject.model.layers
                    && outcome.values > 0
            })
    }
}

/// Hash of everything that determines a subject's numbers: the contents of model and text, not
/// their paths; not the thread count, which changes no bit. Lines of logs that do not know their
/// instruction set keep the id they had.
pub fn subject_id(subject: &SubjectInfo) -> Result<String> {
    let model = &subject.model.provenance;
    let mut identity = serde_json::json!({
        "kvgauge_version": env!("CARGO_PKG_VERSION"),
        "protocol": subject.protocol,
        // The hub's commit says it all. Local files are known by their hashes; a single one may
        // have any name.
        "model": match (&model.revision, model.files_sha256.len()) {
            (Some(commit), _) => serde_json::json!(commit),
            (None, 1) => serde_json::json!(model.files_sha256.values().next()),
            (None, _) => serde_json::json!(model.files_sha256),
        },
        "text": subject.text.sha256,
        "context": subject.context,
        "first_window": subject.first_window,
        "windows": subject.windows,
        "bos_id": subject.bos_id,
        "dtype": subject.dtype,
        "device": subject.device,
        "seed": subject.seed,
    });
    if subject.instruction_set != UNKNOWN_INSTRUCTION_SET {
        identity["instruction_set"] = subject.instruction_set.as_str().into();
    }
    // Said only where it is not the default: ids from before it could be said stay.
    if !subject.text.parse_special {
        identity["parse_special"] = false.into();
    }
    let bytes = serde_json::to_vec(&identity).map_err(|e| Error::system(format!("JSON: {e}")))?;
    Ok(short(&bytes))
}

pub fn cell_id(subject_id: &str, codec: &str) -> String {
    short(format!("{subject_id} {codec}").as_bytes())
}

/// 64 bits are plenty for the cells of a lifetime.
fn short(bytes: &[u8]) -> String {
    hash::sha256(bytes)[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    #[test]
    fn control_tokens_as_plain_text_are_other_cells_and_old_ones_stay() {
        let own = fixture::subject_info("builtin", 2, 4);
        let mut plain = own.clone();
        plain.text.parse_special = false;
        assert_ne!(subject_id(&own).unwrap(), subject_id(&plain).unwrap());
        // A record from before it could be said.
        let mut json = serde_json::to_value(&own).unwrap();
        json["text"].as_object_mut().unwrap().remove("parse_special").unwrap();
        assert_eq!(serde_json::from_value::<SubjectInfo>(json).unwrap(), own);
        let json = serde_json::to_value(&plain).unwrap();
        assert_eq!(json["text"]["parse_special"], false);
        assert_eq!(serde_json::from_value::<SubjectInfo>(json).unwrap(), plain);
    }
}
