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
use crate::report;
use crate::report::figures::{self, Baseline, SubjectInfo};
use crate::report::sweep::{SubjectReport, SweepReport, SweepSource, UnfinishedCell};
use crate::whole_file::{self, Existing, NewFile};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
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
    /// In a folder that is there ([`check_output`]).
    pub fn create(path: &Path, shard: Shard) -> Result<Self> {
        let open = |stem| {
            let name = path.join(shard.file(stem, "jsonl"));
            Log::open(&name).map_err(|e| e.within("--output"))
        };
        Ok(Self { path: path.into(), shard, cells: open("cells")?, windows: open("windows")? })
    }

    /// Takes the place of plans of other sweeps that ran here, shards' too: the folder is this
    /// sweep's from now on. What those did stays in the logs.
    pub fn write_plan(&self, plan: &Plan) -> Result<()> {
        for path in files(&self.path, "plan", "json")? {
            if read_plan(&path).is_ok_and(|old| old.source != plan.source) {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
            }
        }
        self.write("plan", plan)
    }

    /// What this sweep knew about its cells when it was last here.
    pub fn earlier_plan(&self) -> Option<Plan> {
        read_plan(&self.path.join(self.shard.file("plan", "json"))).ok()
    }

    pub fn write_timings(&self, timings: &Timings) -> Result<()> {
        self.write("timings", timings)
    }

    fn write(&self, stem: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path.join(self.shard.file(stem, "json"));
        whole_file::write(&path, report::json(value)?.as_bytes())
    }

    /// Every window there is of these subjects, by id.
    pub fn read_windows(
        &self,
        subjects: &HashMap<String, SubjectInfo>,
    ) -> Result<Vec<WindowRecord>> {
        let keep = |record: &WindowRecord| {
            subjects.get(&record.subject_id).is_some_and(|subject| record.is_sound(subject))
        };
        let mut records = Vec::new();
        for path in files(&self.path, "windows", "jsonl")? {
            records.extend(log::read(&path, keep)?.records);
        }
        Ok(records)
    }

    /// All cells of this shard are done: the windows are in them. A whole sweep takes those of
    /// shards along, unless one is still writing.
    pub fn forget_windows(self) -> Result<()> {
        drop(self.windows);
        let own = self.path.join(self.shard.file("windows", "jsonl"));
        for path in files(&self.path, "windows", "jsonl")? {
            if path == own || (self.shard.is_whole() && Log::open(&path).is_ok()) {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
            }
        }
        Ok(())
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
    /// By name and, where it was known by then, id: another model of that name may not fail.
    failed: HashMap<PlannedCell, CellFailure>,
    /// Lines that were left out, by file.
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
                let cell = PlannedCell { name: record.cell, id: failure.id.clone() };
                self.failed.insert(cell, failure);
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
            let source = plan.source.at_limit(plan.max_ppl_increase, limit);
            if !sweeps.contains(&source) {
                sweeps.push(source);
            }
        }
        // Results of one subject, in the order of the plans.
        type Judged = (String, figures::CodecResult);
        let mut subjects: Vec<(String, SubjectInfo, Baseline, Vec<Judged>)> = Vec::new();
        let (mut failed, mut missing) = (Vec::new(), Vec::new());
        for cell in merged(plans) {
            let Some(result) = cell.id.as_ref().and_then(|id| self.done.get(id)) else {
                let failure = self.failed.get(&cell).cloned();
                let list = if failure.is_some() { &mut failed } else { &mut missing };
                list.push(unfinished(cell.name, failure));
                continue;
            };
            let CellResult { id, subject_id, subject, baseline, figures } = result;
            let judged = figures.clone().judge(subject, baseline, limit);
            match subjects.iter_mut().find(|(known, ..)| known == subject_id) {
                // One cell under two names, as when a model lies at two paths, is one cell.
                Some((.., cells)) if cells.iter().any(|(other, _)| other == id) => {}
                Some((.., cells)) => cells.push((id.clone(), judged)),
                None => {
                    // As it is called here, whatever it was called when it was computed.
                    let mut subject = subject.clone();
                    subject.model.provenance.source = cell.name.model;
                    subject.text.source = cell.name.text;
                    let cells = vec![(id.clone(), judged)];
                    subjects.push((subject_id.clone(), subject, baseline.clone(), cells));
                }
            }
        }
        let subjects = subjects.into_iter().map(|(_, subject, baseline, cells)| {
            SubjectReport::new(subject, baseline, cells, limit)
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
    paths.iter().map(|path| read_plan(path)).collect()
}

fn read_plan(path: &Path) -> Result<Plan> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::io(path, &e).hint("name the folder that kvgauge sweep wrote to"))?;
    let plan: Option<Plan> = serde_json::from_slice(&bytes).ok().filter(Plan::is_known);
    plan.ok_or_else(|| {
        Error::input(format!("{}: expected a sweep's plan, found other bytes", path.display()))
            .hint("run this part of the sweep again: what is done stays done")
    })
}

/// `stem.extension` and every shard's, sorted.
fn files(folder: &Path, stem: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, &e).hint("name the folder that kvgauge sweep wrote to");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let middle = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
        if middle.is_some_and(|middle| middle == "." || is_shard(middle)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// `-2-of-3.`, as [`Shard::file`] has it.
fn is_shard(middle: &str) -> bool {
    let numbers = middle.strip_prefix('-').and_then(|rest| rest.strip_suffix('.'));
    numbers
        .and_then(|numbers| numbers.split_once("-of-"))
        .is_some_and(|(index, of)| format!("{index}/{of}").parse::<Shard>().is_ok())
}
