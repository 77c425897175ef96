//! The cells of a sweep's folders: finished and failed ones, and the lines that were left out.

use super::shard::files;
use crate::error::Result;
use crate::results::log::{self, Rejected};
use crate::results::plan::{CellName, PlannedCell};
use crate::results::record::{CellFailure, CellOutcome, CellRecord, CellResult};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Finished and failed cells of one folder or several.
#[derive(Default)]
pub struct Cells {
    /// By id.
    done: HashMap<String, CellResult>,
    /// By key and, where it was known by then, id: another model of that name may not fail.
    failed: HashMap<(CellName, Option<String>), CellFailure>,
    /// Lines that were left out, by file and reason.
    rejected: BTreeMap<(PathBuf, Rejected), usize>,
}

impl Cells {
    /// All cells in the logs of these folders.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let mut cells = Self::default();
        for folder in folders {
            for path in files(folder, "cells", "jsonl")? {
                let found = log::read(&path)?;
                for (why, lines) in found.rejected {
                    cells.rejected.insert((path.clone(), why), lines);
                }
                found.records.into_iter().for_each(|record| cells.add(record));
            }
        }
        Ok(cells)
    }

    /// Adds a cell, or replaces one of its id.
    pub fn add(&mut self, record: CellRecord) {
        match record.outcome {
            CellOutcome::Done(result) => {
                self.done.insert(result.id.clone(), *result);
            }
            CellOutcome::Failed(failure) => {
                self.failed.insert((record.cell.key(), failure.id.clone()), failure);
            }
        }
    }

    /// Notes on lines that were left out, with the reason.
    pub fn notes(&self) -> Vec<String> {
        let note = |((path, why), lines): (&(PathBuf, Rejected), &usize)| {
            let one = *lines == 1;
            let lines = if one { "one line is".into() } else { format!("{lines} lines are") };
            let why = match why {
                Rejected::Damaged => "torn or damaged".into(),
                Rejected::Version(name) => format!(
                    "of version {name}, which kvgauge {} does not read",
                    env!("CARGO_PKG_VERSION")
                ),
                Rejected::Content(what) => format!("not what its version holds ({what})"),
            };
            format!("{}: {lines} {why}, and left out", path.display())
        };
        self.rejected.iter().map(note).collect()
    }

    /// The result of a finished cell, by its id.
    pub fn result(&self, id: &str) -> Option<&CellResult> {
        self.done.get(id)
    }

    /// Whether a cell of this id has figures.
    pub fn is_done(&self, id: &str) -> bool {
        self.done.contains_key(id)
    }

    /// That a finished cell was computed on.
    pub fn instruction_set(&self, id: &str) -> Option<&str> {
        self.done.get(id).map(|result| result.subject.instruction_set.as_str())
    }

    /// The failure of a planned cell, where it has one.
    pub(super) fn failure(&self, cell: &PlannedCell) -> Option<&CellFailure> {
        self.failed.get(&(cell.name.key(), cell.id.clone()))
    }
}
