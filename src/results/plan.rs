//! The plan of a sweep: which cells it has, and what they were planned as.

use super::log;
use super::sweep::SweepSource;
use super::validation::RefusedCodec;
use crate::codec::todays_names;
use crate::error::{Error, Result};
use crate::eval::verdict::Limits;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

const PLAN: &str = "kvgauge.sweep-plan/2";
/// Plans of this version name some codecs as they were called before ([`todays_names`]).
const PLAN_OF_FORMER_NAMES: &str = "kvgauge.sweep-plan/1";
const PLAN_OF_ANY_VERSION: &str = "kvgauge.sweep-plan/";

/// One cell, as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CellName {
    /// The model as asked for.
    pub model: String,
    /// The text as asked for.
    pub text: String,
    /// `None`: the model's own.
    pub context: Option<usize>,
    /// `None`: planned by a version that ran one protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The codec's name.
    pub codec: String,
}

/// The plan of a sweep or a shard of one: all cells of the whole sweep, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the plan.
    pub schema: String,
    /// The request.
    #[serde(flatten)]
    pub source: SweepSource,
    /// The limits asked for.
    #[serde(flatten)]
    pub limits: Limits,
    /// Sequences that the report says the saved GB of; earlier plans say none.
    #[serde(default = "one")]
    pub batch: usize,
    /// Whether missing it is exit status 1.
    pub strict: bool,
    /// All cells of the whole sweep, in order.
    pub cells: Vec<PlannedCell>,
}

/// A cell of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlannedCell {
    /// The cell as asked for.
    #[serde(flatten)]
    pub name: CellName,
    /// [`cell_id`](super::record::cell_id); `None`: another shard's, its model could not be opened, or it was refused.
    pub id: Option<String>,
    /// Why `decode` cannot take this codec: a cell that no run will have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedCodec>,
}

fn one() -> usize {
    1
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
    /// A plan of this version.
    pub fn new(
        source: SweepSource,
        limits: Limits,
        batch: usize,
        strict: bool,
        cells: Vec<PlannedCell>,
    ) -> Self {
        Self { schema: PLAN.into(), source, limits, batch, strict, cells }
    }

    /// A plan from the bytes of its file.
    ///
    /// # Errors
    /// Bytes that are no plan, and plans of another version, by its name.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let schema = std::str::from_utf8(bytes).ok().and_then(|json| log::schema(json).ok());
        let former = schema.as_deref() == Some(PLAN_OF_FORMER_NAMES);
        let known = former || schema.as_deref() == Some(PLAN);
        let found: Option<Self> = match schema {
            Some(other) if other.starts_with(PLAN_OF_ANY_VERSION) && !known => {
                return Err(Error::input(format!(
                    "expected a plan of version {PLAN}, found {other}"
                ))
                .hint("use the kvgauge that wrote it, or a newer one"));
            }
            _ => serde_json::from_slice(bytes).ok().filter(|_| known),
        };
        let found = found.ok_or_else(|| {
            Error::input("expected a sweep's plan, found other bytes")
                .hint("run this part of the sweep again: what is done stays done")
        })?;
        Ok(if former { found.renamed() } else { found })
    }

    /// As it would be asked for today, where it names codecs as they were called before.
    fn renamed(mut self) -> Self {
        self.schema = PLAN.into();
        for text in [&mut self.source.command, &mut self.source.config] {
            *text = todays_names(text);
        }
        for cell in &mut self.cells {
            cell.name.codec = todays_names(&cell.name.codec);
            if let Some(refused) = &mut cell.refused {
                for text in [&mut refused.codec, &mut refused.error] {
                    *text = todays_names(text);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_of_other_versions_are_named() {
        let plan = std::fs::read("tests/data/sweep-v1/plan.json").unwrap();
        assert_eq!(Plan::read(&plan).unwrap().cells.len(), 6);
        let plan = String::from_utf8(plan).unwrap();
        let newer = plan.replace("sweep-plan/1", "sweep-plan/7");
        let error = Plan::read(newer.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("found kvgauge.sweep-plan/7"), "{error}");
        assert!(Plan::read(b"{}").unwrap_err().to_string().contains("other bytes"));
        // What it asked for, in today's words.
        let former = plan.replace("f16", "fp8-e4m3");
        let read = Plan::read(former.as_bytes()).unwrap();
        let of_today = "fp8-e4m3-per-tensor";
        assert_eq!(read.cells.iter().filter(|cell| cell.name.codec == of_today).count(), 2);
        assert!(read.source.config.contains("\"fp8-e4m3-per-tensor\"]"), "{:?}", read.source);
        let again = serde_json::to_string(&read).unwrap();
        assert_eq!(Plan::read(again.as_bytes()).unwrap(), read);
        let today = Plan::read(former.replace("sweep-plan/1", "sweep-plan/2").as_bytes()).unwrap();
        assert_eq!(today.cells.iter().filter(|cell| cell.name.codec == "fp8-e4m3").count(), 2);
    }
}
