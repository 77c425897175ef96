//! A sweep's folder: which files are in it, and what several of them say together.
//!
//! | file | what |
//! |---|---|
//! | `plan.json` | what was asked for ([`Plan`]) |
//! | `cells.jsonl` | one line a finished cell ([`CellRecord`]), appended and synced |
//! | `timings.json` | where the last run's seconds went ([`Timings`]) |
//! | `windows.jsonl` | one line a window ([`WindowRecord`]) of cells still running; gone when all are done |
//!
//! A shard's files are `plan-2-of-3.json` and so on, so that shards may share a folder. Reading
//! takes all of them together.

use super::Timings;
use super::log::{self, Log};
use super::record::{
    CellFailure, CellName, CellOutcome, CellRecord, CellResult, Plan, PlannedCell, WindowRecord,
};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::report::sweep::{SubjectReport, SweepReport, SweepSource, UnfinishedCell};
use crate::report::{self, figures};
use crate::whole_file::{self, Existing, NewFile};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Where a reader begins.
const PAGE: &str = "report.html";
/// Files of the report that are there whatever the sweep.
const REPORTS: [&str; 4] = [PAGE, "results.json", "results.csv", "report.md"];

/// A folder that a sweep, or a shard of one, writes to.
pub struct Folder {
    path: PathBuf,
    shard: Shard,
    pub cells: Log,
    pub windows: Log,
}

impl Folder {
    /// Makes the folder if need be, and finds out at once whether all files can be written.
    pub fn create(path: &Path, shard: Shard) -> Result<Self> {
        check_output(path)?;
        let open = |stem| {
            let name = path.join(shard.file(stem, "jsonl"));
            Log::open(&name).map_err(|e| e.within("--output"))
        };
        Ok(Self { path: path.into(), shard, cells: open("cells")?, windows: open("windows")? })
    }

    pub fn write_plan(&self, plan: &Plan) -> Result<()> {
        self.write("plan", plan)
    }

    pub fn write_timings(&self, timings: &Timings) -> Result<()> {
        self.write("timings", timings)
    }

    fn write(&self, stem: &str, value: &impl Serialize) -> Result<()> {
        let json =
            serde_json::to_string_pretty(value).map_err(|e| Error::system(format!("JSON: {e}")))?;
        let path = self.path.join(self.shard.file(stem, "json"));
        whole_file::write(&path, (json + "\n").as_bytes())
    }

    /// Every window there is of these subjects.
    pub fn read_windows(&self, subjects: &HashSet<String>) -> Result<Vec<WindowRecord>> {
        let mut records = Vec::new();
        for path in files(&self.path, "windows", "jsonl")? {
            let keep =
                |record: &WindowRecord| record.is_known() && subjects.contains(&record.subject_id);
            records.extend(log::read(&path, keep)?.records);
        }
        Ok(records)
    }

    /// Nothing is running any more: the windows are in the cells.
    pub fn forget_windows(self) -> Result<()> {
        let path = self.path.join(self.shard.file("windows", "jsonl"));
        drop(self.windows);
        std::fs::remove_file(&path).map_err(|e| Error::io(&path, &e))
    }
}

/// Makes the folder if need be, and finds out whether a report can be written into it.
pub fn check_output(path: &Path) -> Result<()> {
    let refuse = |e: Error| {
        e.within(format!("--output {}", path.display()))
            .hint("name a folder that can be written to")
    };
    if path.exists() && !path.is_dir() {
        return Err(refuse(Error::input("expected a folder, found something else")));
    }
    std::fs::create_dir_all(path).map_err(|e| refuse(Error::io(path, &e)))?;
    for name in REPORTS {
        NewFile::create(&path.join(name), Existing::Replace).map_err(refuse)?;
    }
    Ok(())
}

/// Writes the report, each file whole or not at all, and returns the path of the page.
pub fn write_report(report: &SweepReport, path: &Path) -> Result<PathBuf> {
    for file in report::files(report)? {
        whole_file::write(&path.join(file.name), &file.bytes)?;
    }
    Ok(path.join(PAGE))
}

/// Finished and failed cells of one folder or several.
#[derive(Default)]
pub struct Cells {
    /// By id.
    done: HashMap<String, CellResult>,
    failed: HashMap<CellName, CellFailure>,
    /// Lines that are not trusted, by file.
    rejected: BTreeMap<PathBuf, usize>,
}

impl Cells {
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let mut cells = Self::default();
        for folder in folders {
            for path in files(folder, "cells", "jsonl")? {
                let found = log::read(&path, CellRecord::is_known)?;
                if found.rejected > 0 {
                    cells.rejected.insert(path, found.rejected);
                }
                found.records.into_iter().for_each(|record| cells.add(record));
            }
        }
        Ok(cells)
    }

    pub fn add(&mut self, record: CellRecord) {
        match record.outcome {
            CellOutcome::Done(result) => {
                self.done.insert(result.id.clone(), *result);
            }
            CellOutcome::Failed(failure) => {
                self.failed.insert(record.cell, failure);
            }
        }
    }

    /// What was left out, in words.
    pub fn notes(&self) -> Vec<String> {
        let note = |(path, lines): (&PathBuf, &usize)| {
            let lines = if *lines == 1 { "one line is" } else { &format!("{lines} lines are") };
            format!("{}: {lines} torn, damaged or of another version, and left out", path.display())
        };
        self.rejected.iter().map(note).collect()
    }

    pub fn is_done(&self, id: &str) -> bool {
        self.done.contains_key(id)
    }

    /// What became of the cells of these plans.
    pub fn report(&self, plans: &[Plan], limit: f64) -> SweepReport {
        let mut sweeps: Vec<SweepSource> = Vec::new();
        for plan in plans.iter().filter(|plan| !plan.cells.is_empty()) {
            if !sweeps.contains(&plan.source) {
                sweeps.push(plan.source.clone());
            }
        }
        // Results of one subject, in the order of the plans.
        let mut subjects: Vec<(&CellResult, Vec<(String, figures::CodecResult)>)> = Vec::new();
        let (mut failed, mut missing) = (Vec::new(), Vec::new());
        for PlannedCell { name, id } in merged(plans) {
            let Some(result) = id.as_ref().and_then(|id| self.done.get(id)) else {
                let failure = self.failed.get(&name).cloned();
                let list = if failure.is_some() { &mut failed } else { &mut missing };
                list.push(unfinished(name, failure));
                continue;
            };
            let CellResult { id, subject_id, subject, baseline, figures } = result;
            let judged = figures.clone().judge(subject, baseline, limit);
            match subjects.iter_mut().find(|(first, _)| first.subject_id == *subject_id) {
                // One cell under two names, as when a model lies at two paths, is one cell.
                Some((_, cells)) if cells.iter().any(|(other, _)| other == id) => {}
                Some((_, cells)) => cells.push((id.clone(), judged)),
                None => subjects.push((result, vec![(id.clone(), judged)])),
            }
        }
        let subjects = subjects.into_iter().map(|(first, cells)| {
            SubjectReport::new(first.subject.clone(), first.baseline.clone(), cells, limit)
        });
        SweepReport::new(sweeps, limit, subjects.collect(), failed, missing)
    }
}

/// Each cell once, in the order of the plans; a plan that knows the id speaks for those that do
/// not.
fn merged(plans: &[Plan]) -> Vec<PlannedCell> {
    let cells = || plans.iter().flat_map(|plan| &plan.cells);
    let mut ids: HashMap<&CellName, Vec<&String>> = HashMap::new();
    for cell in cells() {
        let known = ids.entry(&cell.name).or_default();
        known.extend(cell.id.iter().filter(|id| !known.contains(id)).collect::<Vec<_>>());
    }
    let mut merged = Vec::new();
    for name in cells().map(|cell| &cell.name) {
        // Taken out: the second mention of a name adds nothing.
        let Some(known) = ids.remove(name) else { continue };
        let planned = |id: Option<String>| PlannedCell { name: name.clone(), id };
        if known.is_empty() {
            merged.push(planned(None));
        }
        merged.extend(known.into_iter().map(|id| planned(Some(id.clone()))));
    }
    merged
}

fn unfinished(name: CellName, failure: Option<CellFailure>) -> UnfinishedCell {
    let CellName { model, text, context, codec } = name;
    let (error, hint) = failure.map_or((None, None), |failure| (Some(failure.error), failure.hint));
    UnfinishedCell { model, text, context, codec, error, hint }
}

/// All plans in a folder, in the order of their names.
pub fn read_plans(folder: &Path) -> Result<Vec<Plan>> {
    let paths = files(folder, "plan", "json")?;
    if paths.is_empty() {
        return Err(Error::input(format!(
            "{}: expected a sweep's folder, found no plan.json in it",
            folder.display()
        ))
        .hint("name the folder that kvgauge sweep wrote to with --output"));
    }
    paths
        .iter()
        .map(|path| {
            let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
            let plan: Option<Plan> = serde_json::from_slice(&bytes).ok().filter(Plan::is_known);
            plan.ok_or_else(|| {
                Error::input(format!(
                    "{}: expected a sweep's plan, found other bytes",
                    path.display()
                ))
                .hint("run the sweep again: it writes the plan anew and keeps what is done")
            })
        })
        .collect()
}

/// `stem.extension` and every shard's, sorted.
fn files(folder: &Path, stem: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, &e).hint("name the folder that kvgauge sweep wrote to");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let middle = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
        if middle.is_some_and(|middle| {
            middle == "." || (middle.starts_with('-') && middle.ends_with('.'))
        }) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
