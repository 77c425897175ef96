//! The report in a sweep's folder: what it takes the place of, and what it must not.

use crate::error::{Error, Result};
use crate::report::{self, charts};
use crate::results::plan::{CellName, Plan};
use crate::results::sweep::SweepReport;
use crate::whole_file::{self, Existing, Kind, NewFile};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Where a reader begins.
const PAGE: &str = "report.html";
const RESULTS: &str = "results.json";
/// Files that are there whatever the sweep.
const ALWAYS: [(&str, Kind); 4] = [
    (PAGE, Kind::Page),
    (RESULTS, Kind::Sweep),
    ("results.csv", Kind::Table),
    ("report.md", Kind::Markdown),
];

/// All files of a whole sweep but the pictures.
pub const FILES: [&str; 10] = [
    PAGE,
    RESULTS,
    "results.csv",
    "report.md",
    report::MODELS,
    "plan.json",
    "cells.jsonl",
    "windows.jsonl",
    "timings.json",
    "badge.json",
];

/// Makes the folder if need be.
pub fn check_folder(path: &Path) -> Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(refuse(path, Error::input("expected a folder, found something else")));
    }
    std::fs::create_dir_all(path).map_err(|e| refuse(path, Error::io(path, &e)))
}

/// Finds out whether a report of these plans can be written into a folder, and what that would
/// take away: a file that is not of the report's making, a report with cells that no plan has.
pub fn check_report(path: &Path, plans: &[Plan], force: bool) -> Result<()> {
    let check = |name: &str, kind: Kind| {
        let writable = NewFile::create(&path.join(name), Existing::own(kind, force));
        writable.map_err(|e| refuse(path, e))
    };
    for (name, kind) in ALWAYS {
        check(name, kind)?;
    }
    let io = |e| Error::io(path, &e);
    for entry in std::fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(kind) = kind_where_there(name) {
            check(name, kind)?;
        }
    }
    if force { Ok(()) } else { check_cells(path, plans) }
}

fn refuse(path: &Path, error: Error) -> Error {
    error
        .within(format!("--output {}", path.display()))
        .hint("name a folder that can be written to")
}

/// Of files that not every report has.
fn kind_where_there(name: &str) -> Option<Kind> {
    if name == report::MODELS { Some(Kind::Markdown) } else { numbered_kind(name) }
}

/// Of files that each subject has: `kld.svg`, `2-kld.svg`, `decode-kld.svg`, `2-decode-kld.svg`, `badge.svg`,
/// `2-badge.json`; `None`: of no report.
fn numbered_kind(name: &str) -> Option<Kind> {
    let of_subject = match name.split_once('-') {
        Some((number, rest)) if number.parse::<usize>().is_ok() => rest,
        _ => name,
    };
    let chart = |stem: &str| charts::NAMES.contains(&stem.strip_prefix("decode-").unwrap_or(stem));
    match of_subject.rsplit_once('.')? {
        ("badge", "json") => Some(Kind::Badge),
        (stem, "svg") if stem == "badge" || chart(stem) => Some(Kind::Picture),
        _ => None,
    }
}

/// Of `results.json`, what says which cells it has.
#[derive(Deserialize)]
struct Results {
    subjects: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    model: Source,
    text: Source,
    context: usize,
    protocol: String,
    cells: Vec<Cell>,
    decode: Option<Decode>,
}

#[derive(Deserialize)]
struct Decode {
    protocol: String,
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Source {
    source: String,
}

#[derive(Deserialize)]
struct Cell {
    codec: String,
}

/// A report is not replaced by one that lacks its cells: nobody asked for that.
fn check_cells(path: &Path, plans: &[Plan]) -> Result<()> {
    let path = path.join(RESULTS);
    let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
    // Of a version whose cells have other names, nothing is known.
    let Ok(Results { subjects }) = serde_json::from_slice(&bytes) else { return Ok(()) };
    let planned: HashSet<CellName> =
        plans.iter().flat_map(|plan| &plan.cells).map(|cell| cell.name.key()).collect();
    let found = subjects.into_iter().flat_map(|subject| {
        let Subject { model, text, context, protocol, cells, decode } = subject;
        let decode = decode.map(|decode| (decode.protocol, decode.cells));
        std::iter::once((protocol, cells)).chain(decode).flat_map(move |(protocol, cells)| {
            let name = CellName {
                model: model.source.clone(),
                text: text.source.clone(),
                context: Some(context),
                protocol: Some(protocol),
                codec: String::new(),
            };
            cells.into_iter().map(move |cell| CellName { codec: cell.codec, ..name.clone() })
        })
    });
    // A plan may leave the context to the model, and an early one says nothing of the protocol.
    let is_planned = |name: &CellName| {
        let key = name.key();
        [key.context, None].into_iter().any(|context| {
            [key.protocol.clone(), None]
                .into_iter()
                .any(|protocol| planned.contains(&CellName { context, protocol, ..key.clone() }))
        })
    };
    let others: Vec<_> = found.filter(|name| !is_planned(name)).collect();
    let Some(CellName { model, codec, .. }) = others.first() else { return Ok(()) };
    Err(Error::input(format!(
        "{}: expected a report of cells of this sweep, found {} of others, such as {codec} on {model}",
        path.display(),
        others.len()
    ))
    .hint("choose another --output; --force replaces this report"))
}

/// Writes the report, each file whole or not at all, and returns the path of the page.
pub fn write_report(report: &SweepReport, path: &Path, force: bool) -> Result<PathBuf> {
    for file in report::files(report)? {
        let existing = Existing::own(file.kind, force);
        whole_file::write(&path.join(file.name), &file.bytes, existing)?;
    }
    Ok(path.join(PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    /// Files are checked before a run as the kinds that they are written as after it.
    #[test]
    fn every_file_of_a_report_is_checked_as_what_it_is() {
        for (name, report) in fixture::all() {
            for file in report::files(&report).unwrap() {
                let always = ALWAYS.iter().find(|(known, _)| *known == file.name);
                let kind = always.map(|(_, kind)| *kind);
                let kind = kind.or(kind_where_there(&file.name));
                assert_eq!(kind, Some(file.kind), "{name}: {}", file.name);
                assert_eq!(Kind::of(&file.bytes[..file.bytes.len().min(4096)]), Some(file.kind));
            }
        }
        for name in ["mine.svg", "2-mine.svg", "kld.png", "kld", "badge.txt", "decode-badge.json"] {
            assert_eq!(kind_where_there(name), None, "{name}");
        }
    }
}
