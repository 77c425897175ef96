//! The marks of kvgauge's own files: the first bytes of each kind that it replaces.
//!
//! Renderers write the marks, [`Kind::of`] finds them again. A file is kvgauge's only if it is of
//! one of these kinds, and stands in the way of another kind as anybody's file does.

use std::fs::File;
use std::io::{ErrorKind, Read, Result};
use std::path::Path;

/// In the head of a page.
pub const PAGE_MARK: &str = "<meta name=\"generator\" content=\"kvgauge\">";
/// The first line of a Markdown report; readers of Markdown do not show it.
pub const MARKDOWN_MARK: &str = "<!-- written by kvgauge -->\n";
/// How the first line of a model card's results begins, a comment.
pub const CARD_MARK: &str = "# Written by kvgauge";
/// The first line of a manual's page, a comment.
pub const MANUAL_MARK: &str = ".\\\" Written by kvgauge\n";
/// The first attributes of a picture.
pub const PICTURE_MARK: &str =
    " xmlns=\"http://www.w3.org/2000/svg\" data-generator=\"kvgauge\" class=\"chart\"";

/// Marks are found in as many bytes.
const HEAD: u64 = 4096;

/// A kind of file that a later run may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The JSON that `kvgauge validate --output` writes.
    Validation,
    /// `results.json` of a sweep.
    Sweep,
    /// `report.html`.
    Page,
    /// `results.csv`.
    Table,
    /// `report.md`.
    Markdown,
    /// SVG.
    Picture,
    /// What a badge service reads.
    Badge,
    /// The results of a model card.
    Card,
    /// A page of the manual.
    Manual,
    /// `plan.json` of a sweep.
    Plan,
    /// `timings.json` of a sweep.
    Timings,
    /// `tune.json`.
    Tuning,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Validation,
        Self::Sweep,
        Self::Page,
        Self::Table,
        Self::Markdown,
        Self::Picture,
        Self::Badge,
        Self::Card,
        Self::Manual,
        Self::Plan,
        Self::Timings,
        Self::Tuning,
    ];

    /// The kind of file that kvgauge wrote at `path`; `None`: nothing, or somebody else did.
    pub fn at(path: &Path) -> Result<Option<Self>> {
        let mut head = Vec::new();
        File::open(path)?.take(HEAD).read_to_end(&mut head)?;
        Ok(Self::of(&head))
    }

    /// `head`: the first bytes of a file.
    pub fn of(head: &[u8]) -> Option<Self> {
        // A character may be cut at the end.
        let head = match std::str::from_utf8(head) {
            Ok(head) => head,
            Err(e) => std::str::from_utf8(&head[..e.valid_up_to()]).ok()?,
        };
        Self::ALL.into_iter().find(|kind| kind.begins(head))
    }

    fn begins(self, head: &str) -> bool {
        // Indented or not.
        let json = |start: &str| {
            let mut bytes = head.bytes().filter(|byte| !byte.is_ascii_whitespace());
            start.bytes().all(|byte| bytes.next() == Some(byte))
        };
        match self {
            Self::Validation => json(r#"{"schema":"kvgauge.validation/"#),
            Self::Sweep => json(r#"{"schema":"kvgauge.sweep/"#),
            Self::Plan => json(r#"{"schema":"kvgauge.sweep-plan/"#),
            Self::Tuning => json(r#"{"schema":"kvgauge.tune/"#),
            Self::Timings => json(r#"{"threads":"#) && head.contains("\"prepare\":"),
            Self::Badge => json(r#"{"schemaVersion":1,"label":"KVcache"#),
            Self::Card => head.starts_with(CARD_MARK),
            Self::Manual => head.starts_with(MANUAL_MARK),
            Self::Table => head.starts_with("id,status,model_source,"),
            // Behind each mark, how files began before there was one.
            Self::Page => {
                let ours = [PAGE_MARK, "<title>KV cache compression: "];
                head.starts_with("<!doctype html>") && ours.iter().any(|mark| head.contains(mark))
            }
            Self::Markdown => {
                let ours = [MARKDOWN_MARK, "## What compressing the KV cache costs\n"];
                ours.iter().any(|mark| head.starts_with(mark))
            }
            Self::Picture => {
                let old = " xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 ";
                head.strip_prefix("<svg")
                    .is_some_and(|rest| [PICTURE_MARK, old].iter().any(|m| rest.starts_with(m)))
            }
        }
    }

    /// In an error.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "a result of kvgauge validate",
            Self::Sweep => "the results.json of a sweep",
            Self::Page => "a report page of kvgauge",
            Self::Table => "the results.csv of a sweep",
            Self::Markdown => "a Markdown report of kvgauge",
            Self::Picture => "a picture of kvgauge",
            Self::Badge => "a badge's JSON of kvgauge",
            Self::Card => "the model card's results of kvgauge",
            Self::Manual => "a man page of kvgauge",
            Self::Plan => "the plan of a sweep",
            Self::Timings => "the timings of a sweep",
            Self::Tuning => "a result of kvgauge tune",
        }
    }
}

/// Whether a file is there and has something in it.
pub(super) fn is_empty(path: &Path) -> Result<bool> {
    match path.metadata() {
        Ok(found) => Ok(found.len() == 0),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_how_a_file_begins() {
        let page = format!("<!doctype html>\n<html>\n<head>\n{PAGE_MARK}\n");
        let picture = format!("<svg{PICTURE_MARK} viewBox=\"0 0 440 9\">");
        for (head, kind) in [
            ("{\n  \"schema\": \"kvgauge.validation/1\",\n", Some(Kind::Validation)),
            ("{\"schema\":\"kvgauge.validation/2\"}", Some(Kind::Validation)),
            ("{\n  \"schema\": \"kvgauge.sweep/1\",\n", Some(Kind::Sweep)),
            ("{\n  \"schema\": \"kvgauge.sweep-plan/1\",\n", Some(Kind::Plan)),
            ("{\n  \"schema\": \"kvgauge.tune/1\",\n", Some(Kind::Tuning)),
            ("{\n  \"threads\": 2,\n  \"prepare\": 0.1,\n", Some(Kind::Timings)),
            (&page, Some(Kind::Page)),
            ("<!doctype html>\n<title>KV cache compression: a</title>", Some(Kind::Page)),
            (&picture, Some(Kind::Picture)),
            (&picture.replace(" data-generator=\"kvgauge\"", ""), Some(Kind::Picture)),
            ("<!-- written by kvgauge -->\n## ", Some(Kind::Markdown)),
            ("## What compressing the KV cache costs\n\n", Some(Kind::Markdown)),
            ("id,status,model_source,model_revision,", Some(Kind::Table)),
            ("{\"schemaVersion\":1,\"label\":\"KV cache q8_0\",", Some(Kind::Badge)),
            ("# Written by kvgauge 0.1.0: its place", Some(Kind::Card)),
            // Others' files, some of which speak of kvgauge.
            ("", None),
            ("kvgauge.validation/1", None),
            ("{\"note\":\"kvgauge.validation/1\"}", None),
            ("{\"schema\":\"mine/1\",\"schema\":\"kvgauge.validation/1\"}", None),
            ("[{\"schema\":\"kvgauge.validation/1\"}]", None),
            ("{\"threads\": 8, \"name\": \"a build\"}", None),
            ("# Notes\n\n## What compressing the KV cache costs\n", None),
            ("<!doctype html>\n<title>My page about kvgauge</title>", None),
            ("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 24 24\">", None),
            ("id,name\n", None),
            ("{\"schemaVersion\":1,\"label\":\"build\"}", None),
            ("\u{7f}ELF", None),
        ] {
            assert_eq!(Kind::of(head.as_bytes()), kind, "{head}");
        }
        // Cut within a character, and no text at all.
        let cut = "## What compressing the KV cache costs\n…".as_bytes();
        assert_eq!(Kind::of(&cut[..cut.len() - 1]), Some(Kind::Markdown));
        assert_eq!(Kind::of(b"\xff\xfe{\"schema\":\"kvgauge.sweep/1\"}"), None);
    }
}
