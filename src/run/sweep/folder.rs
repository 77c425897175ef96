//! A sweep's folder: which files are in it, and what several of them say together.
//!
//! | file | what |
//! |---|---|
//! | `plan.json` | what was asked for ([`Plan`]); `plan-earlier-1.json`: before that ([`super::plans`]) |
//! | `cells.jsonl` | one line a finished cell ([`CellRecord`]), appended and synced |
//! | `timings.json` | where the last run's seconds went ([`SweepTimings`]) |
//! | `windows.jsonl` | one line a window ([`WindowRecord`]) of cells still running; gone when all are done |
//!
//! A shard's files are `plan-2-of-3.json` and so on, so that shards may share a folder. Reading
//! takes all of them together.

use super::plans::{self, merged};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::eval::protocol::{Protocol, Protocols};
use crate::eval::verdict::Limits;
use crate::report;
use crate::results::log::{self, Log, Rejected};
use crate::results::record::{
    CellFailure, CellName, CellOutcome, CellRecord, CellResult, Plan, PlannedCell, WindowRecord,
};
use crate::results::subject::SubjectInfo;
use crate::results::sweep::{
    Asked, ProtocolCells, SubjectReport, SweepReport, SweepSource, UnfinishedCell,
};
use crate::results::timings::SweepTimings;
use crate::whole_file::{self, Existing, Kind, NewFile};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A folder that a sweep, or a shard of one, writes to.
pub struct Folder {
    path: PathBuf,
    shard: Shard,
    /// Whether files that kvgauge did not write are replaced.
    force: bool,
    pub cells: Log,
    pub windows: Log,
}

impl Folder {
    /// In a folder that is there ([`super::check_folder`]).
    pub fn create(path: &Path, shard: Shard, force: bool) -> Result<Self> {
        let within = |e: Error| e.within("--output");
        for (stem, kind) in [("plan", Kind::Plan), ("timings", Kind::Timings)] {
            let name = path.join(shard.file(stem, "json"));
            NewFile::create(&name, Existing::own(kind, force)).map_err(within)?;
        }
        let open = |stem| Log::open(&path.join(shard.file(stem, "jsonl"))).map_err(within);
        let (cells, windows) = (open("cells")?, open("windows")?);
        Ok(Self { path: path.into(), shard, force, cells, windows })
    }

    /// The plans in the folder, which know cells of earlier runs under whatever names of their paths.
    pub fn plans(&self) -> Result<Vec<Plan>> {
        plans::present(&self.path)
    }

    /// See [`plans::write`].
    pub fn write_plan(&self, plan: &Plan, cells: &Cells) -> Result<()> {
        let existing = Existing::own(Kind::Plan, self.force);
        plans::write(&self.path, self.shard, plan, cells, existing)
    }

    pub fn write_timings(&self, timings: &SweepTimings) -> Result<()> {
        let path = self.path.join(self.shard.file("timings", "json"));
        let existing = Existing::own(Kind::Timings, self.force);
        whole_file::write(&path, report::json(timings)?.as_bytes(), existing)
    }

    /// Every window there is of these subjects, by id.
    pub fn read_windows(
        &self,
        subjects: &HashMap<String, SubjectInfo>,
    ) -> Result<Vec<WindowRecord>> {
        let is_wanted = |record: &WindowRecord| {
            subjects.get(&record.subject_id).is_some_and(|subject| record.is_of(subject))
        };
        let mut records: Vec<WindowRecord> = Vec::new();
        for path in files(&self.path, "windows", "jsonl")? {
            records.extend(log::read(&path)?.records.into_iter().filter(is_wanted));
        }
        Ok(records)
    }

    /// All cells of this shard are done: the windows are in them. A whole sweep takes those of
    /// shards along, unless one is still writing. What another plan here waits for stays.
    pub fn forget_windows(self, cells: &Cells) -> Result<()> {
        drop(self.windows);
        let planned = plans::present(&self.path)?;
        let planned =
            planned.iter().flat_map(|plan| &plan.cells).filter_map(|cell| cell.id.as_ref());
        let waiting: HashSet<&String> = planned.filter(|id| !cells.is_done(id)).collect();
        let awaited =
            |record: &WindowRecord| record.arms.iter().any(|arm| waiting.contains(&arm.cell_id));
        let own = self.path.join(self.shard.file("windows", "jsonl"));
        for path in files(&self.path, "windows", "jsonl")? {
            let ours = path == own || (self.shard.is_whole() && Log::open(&path).is_ok());
            let found = log::read(&path)?;
            // Lines of a version that is not known are not for this one to throw away.
            let foreign = found.rejected.keys().any(|why| matches!(why, Rejected::Version(_)));
            if ours && !foreign && !found.records.iter().any(awaited) {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
            }
        }
        Ok(())
    }
}

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

    pub fn is_done(&self, id: &str) -> bool {
        self.done.contains_key(id)
    }

    /// That a finished cell was computed on.
    pub fn instruction_set(&self, id: &str) -> Option<&str> {
        self.done.get(id).map(|result| result.subject.instruction_set.as_str())
    }

    fn failure(&self, cell: &PlannedCell) -> Option<&CellFailure> {
        self.failed.get(&(cell.name.key(), cell.id.clone()))
    }

    /// The report on the cells of these plans.
    pub fn report(&self, plans: &[Plan], limits: &Limits) -> SweepReport {
        let mut sweeps: Vec<SweepSource> = Vec::new();
        for plan in plans.iter().filter(|plan| !plan.cells.is_empty()) {
            let source = plan.source.at_limits(&plan.limits, limits);
            if !sweeps.iter().any(|known| known.is_same_sweep(&source)) {
                sweeps.push(source);
            }
        }
        let mut asked: HashMap<Place, Asked> = HashMap::new();
        // By id of the subject, which the protocol is part of, in the order of the plans.
        let mut parts: Vec<(String, Place, ProtocolCells)> = Vec::new();
        let (mut failed, mut missing) = (Vec::new(), Vec::new());
        let done = |cell: &PlannedCell| cell.id.as_ref().and_then(|id| self.done.get(id));
        for cell in merged(plans, |cell| done(cell).is_some() || self.failure(cell).is_some()) {
            let place = Place::of(&cell.name);
            let asked = asked.entry(place.clone()).or_default();
            let protocol = cell.name.protocol.as_deref().and_then(known_protocol);
            asked.protocols.extend(protocol.filter(|name| !asked.protocols.contains(name)));
            if let Some(refused) = cell.refused {
                asked.refused.push(refused);
                continue;
            }
            let Some(result) = done(&cell) else {
                let failure = self.failure(&cell).cloned();
                let name = cell.name;
                let list = if failure.is_some() { &mut failed } else { &mut missing };
                list.push(unfinished(name, failure));
                continue;
            };
            let CellResult { id, subject_id, subject, baseline, figures } = result;
            let judged = figures.clone().judge(subject, baseline, limits);
            match parts.iter_mut().find(|(known, ..)| known == subject_id) {
                // One cell under two names, as when a model lies at two paths, is one cell.
                Some((.., part)) if part.cells.iter().any(|(other, _)| other == id) => {}
                Some((.., part)) => part.cells.push((id.clone(), judged)),
                None => {
                    // As it is called here, whatever it was called when it was computed.
                    let mut subject = subject.clone();
                    subject.model.provenance.source = cell.name.model;
                    subject.text.source = cell.name.text;
                    let cells = vec![(id.clone(), judged)];
                    let part = ProtocolCells { subject, baseline: baseline.clone(), cells };
                    parts.push((subject_id.clone(), place, part));
                }
            }
        }
        let mut subjects = Vec::new();
        while !parts.is_empty() {
            let (_, place, first) = parts.remove(0);
            let is_beside = |(_, other, part): &(String, Place, ProtocolCells)| {
                *other == place && first.subject.is_beside(&part.subject)
            };
            let beside = parts.iter().position(is_beside).map(|at| parts.remove(at).2);
            let asked = asked.get(&place).cloned().unwrap_or_default();
            // `prefix` first, whichever was planned first.
            let (first, decode) = match beside {
                Some(other) if first.subject.protocol != Protocol::Prefix => (other, Some(first)),
                other => (first, other),
            };
            subjects.push(SubjectReport::new(first, decode, &asked, limits));
        }
        SweepReport::new(sweeps, *limits, subjects, failed, missing)
    }
}

/// Model, text and context: cells that share them are compared with each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    model: String,
    text: String,
    context: Option<usize>,
}

impl Place {
    fn of(name: &CellName) -> Self {
        let CellName { model, text, context, .. } = name.key();
        Self { model, text, context }
    }
}

/// The protocol of a plan's word for it.
fn known_protocol(name: &str) -> Option<&'static str> {
    let known = Protocols::Both { residual: 0, chunk: 1 }.each();
    known.into_iter().map(Protocol::name).find(|known| *known == name)
}

fn unfinished(name: CellName, failure: Option<CellFailure>) -> UnfinishedCell {
    let CellName { model, text, context, protocol, codec } = name;
    let (error, hint) = failure.map_or((None, None), |failure| (Some(failure.error), failure.hint));
    UnfinishedCell { model, text, context, protocol, codec, error, hint }
}

/// `stem.extension` and every shard's, sorted; of plans, earlier ones too.
pub(super) fn files(folder: &Path, stem: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, &e).hint("name the folder that kvgauge sweep wrote to");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
        if rest.and_then(|rest| rest.strip_suffix('.')).is_some_and(is_part) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Empty, `-2-of-3` as [`Shard::file`] has it, and either with `-earlier-1` behind it.
fn is_part(middle: &str) -> bool {
    let shard = match middle.split_once("-earlier-") {
        Some((shard, number)) if number.parse::<usize>().is_ok() => shard,
        Some(_) => return false,
        None => middle,
    };
    let numbers = shard.strip_prefix('-').and_then(|rest| rest.split_once("-of-"));
    shard.is_empty()
        || numbers.is_some_and(|(index, of)| format!("{index}/{of}").parse::<Shard>().is_ok())
}
