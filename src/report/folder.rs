//! The files that a sweep leaves behind.

use super::badge::Badge;
use super::{charts, csv, html, json, markdown, models};
use crate::error::Result;
use crate::results::sweep::SweepReport;
use crate::whole_file::Kind;

/// Of several models alone.
pub const MODELS: &str = "models.md";

/// A file of a report.
pub struct ReportFile {
    /// Inside the output folder.
    pub name: String,
    /// By which a file of ours is known when it is overwritten.
    pub kind: Kind,
    /// All of its content.
    pub bytes: Vec<u8>,
}

/// All of them. Equal reports give equal bytes.
pub fn files(report: &SweepReport) -> Result<Vec<ReportFile>> {
    let shown = report.for_people();
    let views = shown.by_protocol();
    let limit = report.limits.max_ppl_change;
    let pictures: Vec<_> = views.iter().map(|subject| charts::all(subject, limit)).collect();
    let file = |name: &str, kind, text: String| {
        let (name, bytes) = (name.into(), text.into_bytes());
        ReportFile { name, kind, bytes }
    };
    let mut files = vec![
        file("report.html", Kind::Page, html::render(&shown, &pictures)?),
        file("results.json", Kind::Sweep, json(report)?),
        file("results.csv", Kind::Table, csv::render(report)),
        file("report.md", Kind::Markdown, markdown::render(&shown)),
    ];
    files.extend(models::render(&shown).map(|page| file(MODELS, Kind::Markdown, page)));
    // Names begin with the subject's number where there are several, and `decode` beside another
    // protocol.
    let prefixes = (1..).zip(&report.subjects).flat_map(|(number, subject)| {
        let number = numbered(report, number);
        let decode = subject.decode.as_ref().map(|_| format!("{number}decode-"));
        std::iter::once(number).chain(decode)
    });
    for (number, subject) in (1..).zip(&shown.subjects) {
        let prefix = numbered(report, number);
        let badge = Badge::of_subject(subject);
        files.push(file(&format!("{prefix}badge.svg"), Kind::Picture, badge.svg()));
        files.push(file(&format!("{prefix}badge.json"), Kind::Badge, badge.endpoint()?));
    }
    for (prefix, charts) in prefixes.zip(&pictures) {
        for chart in charts {
            let picture = chart.chart.standalone();
            files.push(file(&format!("{prefix}{}.svg", chart.name), Kind::Picture, picture));
        }
    }
    Ok(files)
}

/// How a subject's files begin where there are several.
fn numbered(report: &SweepReport, number: usize) -> String {
    match report.subjects.len() {
        1 => String::new(),
        _ => format!("{number}-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture::{self, HOSTILE};
    use roxmltree::Document;

    fn text(file: &ReportFile) -> &str {
        std::str::from_utf8(&file.bytes).unwrap()
    }

    /// Set `KVGAUGE_REPORT_DIR` to look at the reports these tests are about.
    #[test]
    fn every_report_can_be_written() {
        let folder = std::env::var_os("KVGAUGE_REPORT_DIR").map(std::path::PathBuf::from);
        for (name, report) in fixture::all() {
            let files = files(&report).unwrap();
            let badges = 2 * report.subjects.len();
            let several = usize::from(!report.comparisons.is_empty());
            let expected = 4 + several + 6 * report.by_protocol().len() + badges;
            assert_eq!(files.len(), expected, "{name}");
            assert!(files.iter().all(|file| file.bytes.ends_with(b"\n")), "{name}");
            if let Some(folder) = &folder {
                let folder = folder.join(name);
                std::fs::create_dir_all(&folder).unwrap();
                for file in &files {
                    std::fs::write(folder.join(&file.name), &file.bytes).unwrap();
                }
                let table = crate::report::sweep_table::render(&report, None);
                std::fs::write(folder.join("stdout.txt"), table).unwrap();
            }
        }
    }

    #[test]
    fn equal_reports_give_equal_bytes() {
        for ((name, a), (_, b)) in fixture::all().iter().zip(&fixture::all()) {
            for (a, b) in files(a).unwrap().iter().zip(&files(b).unwrap()) {
                assert!(a.name == b.name && a.bytes == b.bytes, "{name}: {}", a.name);
            }
        }
    }

    #[test]
    fn pictures_are_well_formed_and_have_a_name() {
        for (name, report) in fixture::all() {
            for file in files(&report).unwrap().iter().filter(|f| f.name.ends_with(".svg")) {
                let document = Document::parse(text(file))
                    .unwrap_or_else(|e| panic!("{name}: {}: {e}", file.name));
                let svg = document.root_element();
                assert_eq!(svg.attribute("role"), Some("img"));
                assert!(svg.attribute("aria-label").is_some_and(|label| !label.is_empty()));
                // A badge is as large as the text beside it, whatever is around.
                let sized = file.name.ends_with("badge.svg");
                assert_eq!(svg.attribute("width").is_some(), sized, "{}", file.name);
                assert!(svg.attribute("viewBox").is_some());
                for attribute in document.descendants().flat_map(|node| node.attributes()) {
                    let value = attribute.value();
                    assert!(
                        attribute.name() == "aria-label"
                            || !(value.contains("NaN") || value.contains("inf")),
                        "{name}: {}: {attribute:?}",
                        file.name
                    );
                }
            }
        }
    }

    #[test]
    fn names_from_outside_are_never_markup() {
        for (_, report) in fixture::all() {
            for file in files(&report).unwrap() {
                let text = text(&file);
                match file.name.rsplit_once('.').unwrap().1 {
                    "svg" | "html" => {
                        assert!(!text.contains("<script>alert"), "{}", file.name);
                        assert!(!text.contains("<img"), "{}", file.name);
                        assert!(!text.contains('\u{1b}'), "{}", file.name);
                    }
                    "md" => {
                        let outside_code = text.split("````").step_by(2);
                        for part in outside_code {
                            assert!(!part.contains("<script") && !part.contains("<img"), "{part}");
                        }
                    }
                    _ => {}
                }
            }
        }
        assert!(HOSTILE.contains("<script>alert") && HOSTILE.contains("<img"));
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        const NAMESPACE: &str = "http://www.w3.org/2000/svg";
        for (name, report) in fixture::all() {
            for file in files(&report).unwrap() {
                let text = text(&file).replace(NAMESPACE, "");
                for reference in ["http:", "https:", "//cdn", "@import", "url(", "src="] {
                    // The hostile names hold one, as text.
                    let found = text.contains(reference) && name != "hostile";
                    assert!(!found, "{name}: {}: {reference}", file.name);
                }
            }
        }
    }

    /// Keys of objects at any depth; those of `files_sha256` are file names.
    fn keys(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    found.insert(key.clone());
                    if key != "files_sha256" {
                        keys(value, found);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_key_is_in_the_schema_and_the_other_way_round() {
        let schema = std::fs::read_to_string("src/results/SCHEMA.md").unwrap();
        let mut found = std::collections::BTreeSet::new();
        for (_, report) in fixture::all() {
            keys(&serde_json::to_value(&report).unwrap(), &mut found);
        }
        assert!(found.len() > 60, "{found:?}");
        for key in &found {
            let named =
                [format!("`{key}`"), format!(".{key}`"), format!("`{key}["), format!("`{key}.")];
            assert!(named.iter().any(|name| schema.contains(name)), "{key}");
        }
        for row in schema.lines().filter(|line| line.starts_with("| `")) {
            let names = row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2);
            for part in names.flat_map(|name| name.split('.')).filter(|part| !part.is_empty()) {
                assert!(found.contains(part.trim_end_matches("[]")), "{part} of {row}");
            }
        }
    }

    #[test]
    fn results_of_several_instruction_sets_are_told_apart() {
        for (name, report) in fixture::all() {
            let mixed = name == "every-key";
            let both = "2 instruction sets (x86-64 avx2; x86-64 avx512)";
            for file in files(&report).unwrap() {
                match file.name.as_str() {
                    "report.html" | "report.md" => {
                        assert_eq!(text(&file).contains(both), mixed, "{name}: {}", file.name);
                    }
                    "results.json" | "results.csv" if mixed => {
                        let sets = ["x86-64 avx2", "x86-64 avx512"];
                        assert!(sets.iter().all(|set| text(&file).contains(set)), "{}", file.name);
                    }
                    _ => {}
                }
            }
            let table = crate::report::sweep_table::render(&report, None);
            assert_eq!(table.contains(both), mixed, "{name}");
            assert_eq!(table.contains("\ncomputed  on x86-64 avx2\n"), mixed, "{name}");
        }
    }

    #[test]
    fn the_json_is_the_report() {
        for (name, report) in fixture::all() {
            let files = files(&report).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&files[1].bytes).unwrap();
            assert_eq!(json["schema"], "kvgauge.sweep/1", "{name}");
            let cells = json["subjects"]
                .as_array()
                .unwrap()
                .iter()
                .map(|subject| subject["cells"].as_array().unwrap().len());
            let of_report = report.subjects.iter().map(|subject| subject.cells.len());
            assert_eq!(cells.sum::<usize>(), of_report.sum::<usize>(), "{name}");
        }
    }
}
