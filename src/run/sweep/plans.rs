//! The plans in a sweep's folder: one a sweep or shard, and those that came before it under its
//! name and have finished cells that no other plan has.
//!
//! Plans are the same if they ask for the same cells, however they or their paths are called.

use super::cells::Cells;
use super::shard::{Shard, files};
use crate::error::{Error, Result};
use crate::report;
use crate::results::plan::{CellName, Plan, PlannedCell};
use crate::whole_file::{self, Existing, Kind};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// All plans in a folder, in the order of their names.
pub fn read_plans(folder: &Path) -> Result<Vec<Plan>> {
    if folder.is_file() {
        return Err(Error::input(format!(
            "{}: expected a sweep's folder, found a file",
            folder.display()
        ))
        .hint("name the folder that kvgauge sweep wrote to with --output"));
    }
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

/// The same; none is no error, and what is no plan at all counts as not there.
pub fn present(folder: &Path) -> Result<Vec<Plan>> {
    let is_plan = |path: &PathBuf| Kind::at(path).is_ok_and(|kind| kind == Some(Kind::Plan));
    files(folder, "plan", "json")?
        .iter()
        .filter(|path| is_plan(path))
        .map(|p| read_plan(p))
        .collect()
}

fn read_plan(path: &Path) -> Result<Plan> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::io(path, &e).hint("name the folder that kvgauge sweep wrote to"))?;
    Plan::read(&bytes).map_err(|e| e.within(path.display()))
}

/// Writes a sweep's plan, its cells' ids known. The one that was there stays under another name
/// where it has finished cells that would be in no plan any more; those that stayed so before go
/// once other plans have their cells.
pub fn write(
    folder: &Path,
    shard: Shard,
    plan: &Plan,
    cells: &Cells,
    existing: Existing,
) -> Result<()> {
    let own = folder.join(shard.file("plan", "json"));
    let (mut before, mut known) = (Vec::new(), ids(plan));
    for path in files(folder, "plan", "json")? {
        let Ok(other) = read_plan(&path) else { continue };
        match path == own || earlier_number(&path, shard).is_some() {
            true => before.push((path, ids(&other))),
            false => known.extend(ids(&other)),
        }
    }
    // The latest first: what it has, older ones need not have.
    before.sort_by_key(|(path, _)| earlier_number(path, shard).map_or(0, |n| usize::MAX - n));
    let numbers = || before.iter().filter_map(|(path, _)| earlier_number(path, shard));
    let next = numbers().max().map_or(1, |last| last + 1);
    for (path, ids) in &before {
        if ids.iter().any(|id| cells.is_done(id) && !known.contains(id)) {
            known.extend(ids.iter().cloned());
            if *path == own {
                let name = format!("{}-earlier-{next}.json", stem(shard));
                std::fs::rename(path, folder.join(name)).map_err(|e| Error::io(path, &e))?;
            }
        } else if *path != own {
            std::fs::remove_file(path).map_err(|e| Error::io(path, &e))?;
        }
    }
    whole_file::write(&own, report::json(plan)?.as_bytes(), existing)
}

fn ids(plan: &Plan) -> HashSet<String> {
    plan.cells.iter().filter_map(|cell| cell.id.clone()).collect()
}

fn stem(shard: Shard) -> String {
    shard.file("plan", "json").trim_end_matches(".json").to_string()
}

/// N of `plan-earlier-N.json`, of a shard's plan too.
fn earlier_number(path: &Path, shard: Shard) -> Option<usize> {
    let name = path.file_name()?.to_str()?;
    let rest = name.strip_prefix(&stem(shard))?.strip_prefix("-earlier-")?;
    rest.strip_suffix(".json")?.parse().ok()
}

/// A note on finished cells in a sweep's folder that are not of it; `plan`: its own, ids known; `here`:
/// the instruction set that it runs on.
pub fn others_note(
    folder: &Path,
    plan: &Plan,
    cells: &Cells,
    here: &str,
) -> Result<Option<String>> {
    let own = ids(plan);
    let names: HashMap<CellName, Option<&String>> =
        plan.cells.iter().map(|cell| (cell.name.key(), cell.id.as_ref())).collect();
    let mut others = HashSet::new();
    let mut elsewhere: Vec<String> = Vec::new();
    for other in present(folder)? {
        for PlannedCell { name, id, .. } in other.cells {
            let Some(id) = id.filter(|id| cells.is_done(id) && !own.contains(id)) else { continue };
            let named = names.get(&name.key());
            // Another shard's, of this sweep.
            if named == Some(&None) {
                continue;
            }
            let set = cells.instruction_set(&id).filter(|set| *set != here);
            if let (Some(_), Some(set)) = (named, set)
                && !others.contains(&id)
            {
                elsewhere.push(set.to_string());
            }
            others.insert(id);
        }
    }
    if others.is_empty() {
        return Ok(None);
    }
    let count = match others.len() {
        1 => "one finished cell of another sweep is".into(),
        more => format!("{more} finished cells of other sweeps are"),
    };
    let mut note = format!(
        "{}: {count} kept, and the report is of all; another --output keeps sweeps apart",
        folder.display()
    );
    if let Some(set) = elsewhere.first() {
        note += &format!(
            "; {} computed on instruction set {set} and again on {here}, on which the last digits depend",
            if elsewhere.len() == 1 { "one was" } else { "some were" },
        );
    }
    Ok(Some(note))
}

/// Each cell once, in the order of the plans; a plan that knows the id, or why there is none,
/// speaks for those that do not. Of one name, what is done or failed speaks for what another plan
/// waits for.
pub fn merged(plans: &[Plan], is_known: impl Fn(&PlannedCell) -> bool) -> Vec<PlannedCell> {
    let cells = || plans.iter().flat_map(|plan| &plan.cells);
    let mut told: HashMap<CellName, Vec<&PlannedCell>> = HashMap::new();
    for cell in cells() {
        let same = told.entry(cell.name.key()).or_default();
        let tells = cell.id.is_some() || cell.refused.is_some();
        if tells && same.iter().all(|other| other.id != cell.id) {
            same.push(cell);
        }
    }
    let mut merged = Vec::new();
    for name in cells().map(|cell| &cell.name) {
        // Taken out: the second mention of a name adds nothing.
        let Some(told) = told.remove(&name.key()) else { continue };
        let named = |cell: &PlannedCell| PlannedCell { name: name.clone(), ..cell.clone() };
        let (known, waiting): (Vec<_>, Vec<_>) =
            told.into_iter().map(named).partition(|cell| cell.refused.is_some() || is_known(cell));
        match (known.is_empty(), waiting.is_empty()) {
            (false, _) => merged.extend(known),
            (true, false) => merged.extend(waiting.into_iter().next_back()),
            (true, true) => {
                merged.push(PlannedCell { name: name.clone(), id: None, refused: None });
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::verdict::Limits;
    use crate::results::figures::Baseline;
    use crate::results::fixture;
    use crate::results::log::Log;
    use crate::results::record::{CellOutcome, CellRecord, CellResult, cell_id, subject_id};
    use crate::results::sweep::{SweepReport, SweepSource};
    use tempfile::TempDir;

    /// An instruction set.
    const HERE: &str = "x86-64 avx2";
    const CODECS: [&str; 3] = ["f16", "int4-g32", "int4-g64"];

    fn name(model: &str, codec: &str) -> CellName {
        let (model, text, codec) = (model.into(), "t.txt".into(), codec.into());
        CellName { model, text, context: None, protocol: None, codec }
    }

    /// Done on a processor with this instruction set.
    fn done(model: &str, codec: &str, set: &str) -> CellRecord {
        let mut subject = fixture::subject_info("m", 3, 4);
        subject.instruction_set = set.into();
        let subject_id = subject_id(&subject).unwrap();
        let result = CellResult {
            id: cell_id(&subject_id, codec, subject.dtype),
            subject_id,
            subject,
            baseline: Baseline { perplexity: 20.0, nll_per_window: vec![3.0; 3], floor: None },
            figures: fixture::codec_figures(codec, 0.01, 3),
        };
        let outcome = CellOutcome::Done(Box::new(result));
        CellRecord { cell: name(model, codec), outcome }
    }

    fn id(record: &CellRecord) -> String {
        match &record.outcome {
            CellOutcome::Done(result) => result.id.clone(),
            CellOutcome::Failed(_) => panic!("{record:?}"),
        }
    }

    /// Of a config at `path`, with the ids of those cells that are `own`.
    fn plan(path: &str, model: &str, codecs: &[&str], own: &[CellRecord]) -> Plan {
        let cells = codecs.iter().map(|codec| PlannedCell {
            name: name(model, codec),
            id: own.iter().find(|record| record.cell.codec == *codec).map(id),
            refused: None,
        });
        let source = SweepSource {
            command: format!("kvgauge sweep {path} --windows 3"),
            config_path: path.into(),
            config: "model = \"m\"\n".into(),
        };
        Plan::new(source, Limits::default(), 1, false, cells.collect())
    }

    fn cells(records: &[CellRecord]) -> Cells {
        let mut cells = Cells::default();
        records.iter().for_each(|record| cells.add(record.clone()));
        cells
    }

    fn count(report: &SweepReport) -> usize {
        report.subjects.iter().map(|subject| subject.cells.len()).sum()
    }

    fn write_shard(folder: &Path, shard: &str, plan: &Plan, all: &Cells) {
        write(folder, shard.parse().unwrap(), plan, all, Existing::Own(Kind::Plan)).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        files(folder, "plan", "json").unwrap().iter().map(name).collect()
    }

    /// One sweep, whose config and whose model two shards call by different paths.
    #[test]
    fn plans_are_compared_by_their_cells() {
        for (config, model) in [("./tiny.toml", "m"), ("/a/tiny.toml", "./m"), ("tiny.toml", "m/")]
        {
            let folder = TempDir::new().unwrap();
            let set = HERE;
            let (one, two) = (done("m", "f16", set), done(model, "int4-g32", set));
            let three = done(model, "int4-g64", set);
            let all = cells(&[one.clone(), two.clone(), three.clone()]);
            let first = plan("tiny.toml", "m", &CODECS, &[one]);
            let second = plan(config, model, &CODECS, &[two, three]);
            write_shard(folder.path(), "1/2", &first, &all);
            write_shard(folder.path(), "2/2", &second, &all);
            assert_eq!(names(folder.path()), ["plan-1-of-2.json", "plan-2-of-2.json"]);
            assert_eq!(others_note(folder.path(), &second, &all, HERE).unwrap(), None);
            let report = all.report(&read_plans(folder.path()).unwrap(), &Limits::default(), 1);
            assert!(report.missing.is_empty() && report.failed.is_empty(), "{config}, {model}");
            assert_eq!((report.sweeps.len(), report.subjects.len()), (1, 1), "{config}, {model}");
            assert_eq!(report.subjects[0].cells.len(), 3);
        }
        // Other flags are another sweep.
        let mut other = plan("tiny.toml", "m", &CODECS, &[]);
        other.source.command += " --seed 2";
        assert!(!other.source.is_same_sweep(&plan("tiny.toml", "m", &CODECS, &[]).source));
    }

    #[test]
    fn a_plan_with_finished_cells_is_kept() {
        let folder = TempDir::new().unwrap();
        let set = HERE;
        let [f16, g32, g64] = CODECS.map(|codec| done("m", codec, set));
        let all = cells(&[f16.clone(), g32.clone(), g64.clone()]);
        let large = plan("a.toml", "m", &CODECS[..2], &[f16.clone(), g32.clone()]);
        let small = plan("b.toml", "m", &CODECS[2..], std::slice::from_ref(&g64));
        let both = ["plan-earlier-1.json", "plan.json"];
        write_shard(folder.path(), "1/1", &large, &all);
        let note = others_note(folder.path(), &small, &all, HERE).unwrap().unwrap();
        assert!(note.contains("2 finished cells of other sweeps are kept"), "{note}");
        write_shard(folder.path(), "1/1", &small, &all);
        assert_eq!(names(folder.path()), both);
        assert_eq!(read_plans(folder.path()).unwrap(), [large.clone(), small.clone()]);
        let report = all.report(&read_plans(folder.path()).unwrap(), &Limits::default(), 1);
        assert_eq!(count(&report), 3);
        // Again, to and fro: nothing piles up.
        write_shard(folder.path(), "1/1", &small, &all);
        assert_eq!(names(folder.path()), both);
        write_shard(folder.path(), "1/1", &large, &all);
        assert_eq!(names(folder.path()), ["plan-earlier-2.json", "plan.json"]);
        assert_eq!(read_plans(folder.path()).unwrap(), [small, large.clone()]);
        // One of all cells takes the place of both.
        let whole = plan("c.toml", "m", &CODECS, &[f16, g32, g64]);
        write_shard(folder.path(), "1/1", &whole, &all);
        assert_eq!(names(folder.path()), ["plan.json"]);
        assert_eq!(others_note(folder.path(), &whole, &all, HERE).unwrap(), None);
        // A plan without a finished cell, as of an older version, goes.
        write_shard(folder.path(), "1/1", &large, &Cells::default());
        assert_eq!(read_plans(folder.path()).unwrap(), [large]);
    }

    /// Shards on unequal machines, a folder that moved to another, a log from before.
    #[test]
    fn instruction_sets_are_never_put_together_in_silence() {
        let here = HERE;
        for elsewhere in ["x86-64 none", "unknown"] {
            let folder = TempDir::new().unwrap();
            let one = done("m", "f16", elsewhere);
            let (two, again) = (done("m", "int4-g32", here), done("m", "f16", here));
            assert_ne!(id(&one), id(&again));
            let all = cells(&[one.clone(), two.clone()]);
            let first = plan("a.toml", "m", &CODECS[..2], std::slice::from_ref(&one));
            let second = plan("a.toml", "m", &CODECS[..2], std::slice::from_ref(&two));
            let report = all.report(&[first.clone(), second], &Limits::default(), 1);
            assert!(report.missing.is_empty());
            assert_eq!((report.subjects.len(), count(&report)), (2, 2));
            let note = report.instruction_sets_note().unwrap();
            assert!(note.contains(elsewhere) && note.contains(here), "{note}");

            // The whole here: done again, what was done there kept, both told.
            write_shard(folder.path(), "1/1", &first, &all);
            let whole = plan("a.toml", "m", &CODECS[..2], &[again.clone(), two.clone()]);
            let note = others_note(folder.path(), &whole, &all, HERE).unwrap().unwrap();
            assert!(note.contains("one finished cell of another sweep is kept"), "{note}");
            assert!(note.contains(elsewhere) && note.contains(here), "{note}");
            write_shard(folder.path(), "1/1", &whole, &all);
            let all = cells(&[one, two, again]);
            let report = all.report(&read_plans(folder.path()).unwrap(), &Limits::default(), 1);
            assert_eq!((report.subjects.len(), count(&report)), (2, 3));
        }
    }

    #[test]
    fn a_log_is_not_written_into_another_file() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("cells.jsonl");
        for foreign in ["{\"a\": 1}\n", "{\n  \"crc32\": 1\n}\n", "\n\nmine\n", "x"] {
            std::fs::write(&path, foreign).unwrap();
            let error = Log::open(&path).err().unwrap().to_string();
            assert!(error.contains("kvgauge did not write"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
        for torn in ["", "{", "{\"crc", "{\"crc\n", "{\"crc\n{\"crc32\":\"0\"}", "x\n{\"crc32\":\""]
        {
            std::fs::write(&path, torn).unwrap();
            assert!(Log::open(&path).is_ok(), "{torn}");
        }
    }
}
