//! A sweep's folder: which files are in it, and what several of them say together.
//!
//! | file | what |
//! |---|---|
//! | `plan.json` | what was asked for ([`Plan`]); `plan-earlier-1.json`: before that ([`super::plans`]) |
//! | `cells.jsonl` | one line a finished cell ([`CellLine`](crate::results::record::CellLine)), appended and synced |
//! | `timings.json` | where the last run's seconds went ([`SweepTimings`]) |
//! | `windows.jsonl` | one line a window ([`WindowRecord`]) of cells still running; gone when all are done |
//!
//! A shard's files are `plan-2-of-3.json` and so on, so that shards may share a folder. Reading
//! takes all of them together.

use super::cells::Cells;
use super::plans;
use super::shard::{Shard, files};
use crate::error::{Error, Result};
use crate::report;
use crate::results::log::{self, Log, Rejected};
use crate::results::plan::Plan;
use crate::results::record::WindowRecord;
use crate::results::subject::SubjectInfo;
use crate::results::timings::SweepTimings;
use crate::whole_file::{self, Existing, Kind, NewFile};
use std::collections::{HashMap, HashSet};
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
