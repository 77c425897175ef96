//! One list of columns: every figure of a result that is a single value or an interval, with its
//! key, unit, heading and meaning, how to get it and how to print it.
//!
//! The CSV file, the page's table with its tooltips and sort keys, the tables of Markdown and of
//! the terminal, and the tables of `SCHEMA.md` are made from it. Figures for the JSON come from
//! [`CodecFigures`](super::figures::CodecFigures) and its neighbours under the same keys.

mod list;

use super::figures::{CodecFigures, CodecResult};
use super::print::{interval, minus};
use super::subject::SubjectInfo;
use super::sweep::{CellReport, SubjectReport};
pub(crate) use list::{COLUMNS, DAMAGE, EXACT, FELT, MARKDOWN, PAGE, SIZE, SWEEP, VALIDATE};

/// A codec's result and its subject: what a row of a table is made from.
pub(crate) struct Row<'a> {
    pub result: &'a CodecResult,
    pub subject: &'a SubjectInfo,
    /// The finished cell of a sweep, with its subject's report; `None` outside of sweeps and while
    /// one is running.
    pub cell: Option<(&'a CellReport, &'a SubjectReport)>,
}

impl<'a> Row<'a> {
    pub fn new(result: &'a CodecResult, subject: &'a SubjectInfo) -> Self {
        Self { result, subject, cell: None }
    }

    pub fn of_cell(cell: &'a CellReport, subject: &'a SubjectReport) -> Self {
        let (result, info) = (&cell.result, &subject.subject);
        Self { result, subject: info, cell: Some((cell, subject)) }
    }

    fn figures(&self) -> &CodecFigures {
        &self.result.figures
    }
}

/// The tables for people, which differ in the digits and headings that they have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Page,
    Markdown,
    /// The terminal's, of a sweep.
    Sweep,
    /// The terminal's, of `validate` under one protocol.
    Validate,
    /// The same under two protocols.
    Protocols,
}

/// The value of a column in a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `null` in JSON, or not there.
    Missing,
    Text(String),
    Whole(u64),
    /// Infinite ones are `null` in JSON.
    Number(f64),
    Mark(bool),
    Interval([f64; 2]),
    /// Of counts, the upper end perhaps open.
    Range(usize, Option<usize>),
}

/// The object of the JSON that has a column's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Subject,
    Cell,
}

/// How a value is written for people.
#[derive(Clone, Copy)]
pub(crate) enum Print {
    /// As it is.
    Plain,
    Number(fn(f64, Table) -> String),
    /// The ends of an interval.
    Ends(fn(f64) -> String),
    Row(fn(&Row, Table) -> String),
}

/// A figure, or a setting of the subject, that tables and the schema page know.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// Path in the JSON of a subject or a cell, levels joined by `.`; by `_` in the CSV.
    pub key: &'static str,
    pub level: Level,
    /// Type in JSON.
    pub kind: &'static str,
    /// Empty where there is none.
    pub unit: &'static str,
    /// One sentence or two, for the tooltip and the schema page.
    pub meaning: &'static str,
    /// When the JSON has `null`; empty: never. For the schema page, which a test writes.
    #[cfg_attr(not(test), allow(dead_code))]
    pub null: &'static str,
    heading: &'static str,
    /// Headings of those tables that have another one.
    headings: &'static [(Table, &'static str)],
    /// In which the page shows it, where it is not `unit`.
    shown_unit: &'static str,
    pub value: fn(&Row) -> Value,
    print: Print,
}

const INTERVAL: &str = "interval";
const RANGE: &str = "array";

impl Column {
    const fn of(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn or_null(self, null: &'static str) -> Self {
        Self { null, ..self }
    }

    const fn headed(self, heading: &'static str) -> Self {
        Self { heading, ..self }
    }

    const fn titled(self, headings: &'static [(Table, &'static str)]) -> Self {
        Self { headings, ..self }
    }

    const fn shown(
        self,
        shown_unit: &'static str,
        heading: &'static str,
        print: fn(f64, Table) -> String,
    ) -> Self {
        Self { shown_unit, heading, print: Print::Number(print), ..self }
    }

    const fn ends(self, print: fn(f64) -> String) -> Self {
        let headings = &[
            (Table::Markdown, "95 %"),
            (Table::Sweep, "interval"),
            (Table::Protocols, "interval"),
        ];
        Self { heading: "95 % interval", headings, print: Print::Ends(print), ..self }
    }

    const fn on_page(self, heading: &'static str, print: fn(&Row, Table) -> String) -> Self {
        Self { heading, print: Print::Row(print), ..self }
    }

    /// Of two values, low and high.
    pub fn is_interval(&self) -> bool {
        [INTERVAL, RANGE].contains(&self.kind)
    }

    pub fn heading(&self, table: Table) -> &'static str {
        let own = self.headings.iter().find(|(of, _)| *of == table);
        own.map_or(self.heading, |(_, heading)| heading)
    }

    /// The meaning of what the page shows; `interval`: with its interval beside it.
    pub fn tooltip(&self, interval: bool) -> String {
        let unit = if self.shown_unit.is_empty() { self.unit } else { self.shown_unit };
        let interval = if interval { "with its 95 % interval over windows" } else { "" };
        let shown: Vec<&str> = [unit, interval].into_iter().filter(|s| !s.is_empty()).collect();
        let shown = match shown[..] {
            [] => String::new(),
            _ if unit.is_empty() => format!(" {}.", shown.join(", ")),
            _ => format!(" In {}.", shown.join(", ")),
        };
        self.meaning.replace('`', "") + &shown
    }

    /// For people.
    pub fn text(&self, row: &Row, table: Table) -> String {
        let text = match (self.print, (self.value)(row)) {
            (Print::Row(print), _) => return print(row, table),
            (_, Value::Text(text)) => return text,
            (Print::Ends(end), Value::Interval(ends)) => interval(Some(ends), end),
            (Print::Ends(end), _) => interval(None, end),
            (_, Value::Missing) => "–".into(),
            (Print::Number(print), Value::Number(value)) => print(value, table),
            (_, Value::Number(value)) => value.to_string(),
            (_, Value::Whole(value)) => value.to_string(),
            (_, Value::Mark(on)) => if on { "●" } else { "" }.into(),
            (_, Value::Interval(_) | Value::Range(..)) => String::new(),
        };
        if table == Table::Page { minus(&text) } else { text }
    }

    /// The key that the page sorts by: a number, unless the column is of text; empty where missing.
    pub fn sort_key(&self, row: &Row) -> String {
        match (self.value)(row) {
            _ if self.key == "verdict" => (row.result.judgement.verdict as u8).to_string(),
            Value::Text(_) => self.text(row, Table::Page),
            Value::Whole(value) => format!("{:e}", value as f64),
            Value::Number(value) if value.is_nan() => String::new(),
            Value::Number(f64::INFINITY) => "Infinity".into(),
            Value::Number(f64::NEG_INFINITY) => "-Infinity".into(),
            Value::Number(value) => format!("{value:e}"),
            Value::Mark(on) => u8::from(on).to_string(),
            Value::Missing | Value::Interval(_) | Value::Range(..) => String::new(),
        }
    }
}

/// These keys, and behind the cache of a sequence what several of them save, where there is a `batch`.
pub(crate) fn with_batch(keys: &[&'static str], batch: usize) -> Vec<&'static str> {
    let saved = |key: &str| (batch > 1 && key == "cache_mb_per_sequence").then_some("gb_saved");
    keys.iter().flat_map(|key| [Some(*key), saved(key)].into_iter().flatten()).collect()
}

/// The columns of these keys.
pub(crate) fn named(keys: &[&str]) -> Vec<&'static Column> {
    keys.iter().filter_map(|key| COLUMNS.iter().find(|column| column.key == *key)).collect()
}

pub(crate) fn headings(keys: &[&str], table: Table) -> Vec<String> {
    named(keys).iter().map(|column| column.heading(table).into()).collect()
}

pub(crate) fn texts(keys: &[&str], row: &Row, table: Table) -> Vec<String> {
    named(keys).iter().map(|column| column.text(row, table)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;
    use serde_json::Value as Json;
    use std::collections::BTreeSet;

    /// Keys that are left out where they say nothing.
    const OPTIONAL: [&str; 5] =
        ["residual", "chunk", "verdicts.kld", "verdicts.top1", "verdicts.bytes_per_token"];

    fn json(value: &Value) -> Json {
        match value {
            Value::Missing => Json::Null,
            Value::Text(text) => text.as_str().into(),
            Value::Whole(count) => (*count).into(),
            Value::Number(figure) => (*figure).into(),
            Value::Mark(on) => (*on).into(),
            Value::Interval(ends) => ends.to_vec().into(),
            Value::Range(low, high) => serde_json::json!([low, high]),
        }
    }

    /// Calls `check` with each column, its value and what the JSON has at its key.
    fn every_value(mut check: impl FnMut(&'static Column, Value, Option<&Json>)) {
        for (_, report) in fixture::all() {
            for subject in &report.by_protocol() {
                let of_subject = serde_json::to_value(subject).unwrap();
                for cell in &subject.cells {
                    let of_cell = serde_json::to_value(cell).unwrap();
                    let row = Row::of_cell(cell, subject);
                    for column in COLUMNS {
                        let object = match column.level {
                            Level::Subject => &of_subject,
                            Level::Cell => &of_cell,
                        };
                        let pointer = format!("/{}", column.key.replace('.', "/"));
                        check(column, (column.value)(&row), object.pointer(&pointer));
                    }
                }
            }
        }
    }

    #[test]
    fn every_column_is_the_json_s_value_at_its_key() {
        let mut found = BTreeSet::new();
        every_value(|column, value, of_json| {
            let key = column.key;
            assert!(of_json.is_some() || OPTIONAL.contains(&key), "{key} is left out");
            assert_eq!(&json(&value), of_json.unwrap_or(&Json::Null), "{key}");
            if value == Value::Missing || of_json == Some(&Json::Null) {
                let may = !column.null.is_empty() || column.is_interval();
                assert!(may || OPTIONAL.contains(&key), "{key} is null");
            } else {
                found.insert(key);
            }
        });
        // A column without a value in any fixture would be empty without anyone noticing.
        assert!(COLUMNS.iter().all(|column| found.contains(column.key)), "{found:?}");
    }

    #[test]
    fn tables_have_columns_with_headings_that_say_what_they_mean() {
        for (keys, table) in [
            (PAGE, Table::Page),
            (MARKDOWN, Table::Markdown),
            (SWEEP, Table::Sweep),
            (VALIDATE, Table::Validate),
            (SIZE, Table::Protocols),
            (&with_batch(SIZE, 2)[..], Table::Markdown),
            (&with_batch(SWEEP, 2)[..], Table::Sweep),
            (DAMAGE, Table::Protocols),
            (&[FELT, EXACT][..], Table::Validate),
        ] {
            assert_eq!(named(keys).len(), keys.len(), "{keys:?}");
            assert!(headings(keys, table).iter().all(|heading| !heading.is_empty()), "{keys:?}");
        }
        for (at, column) in COLUMNS.iter().enumerate() {
            assert!(column.meaning.ends_with('.'), "{}", column.key);
            assert!(COLUMNS[..at].iter().all(|other| other.key != column.key), "{}", column.key);
        }
        let tooltip = |key| named(&[key])[0].tooltip(true);
        assert_eq!(
            tooltip("kld_mean"),
            "Mean KL divergence, untouched ‖ compressed. In nats a token, with its 95 % interval \
             over windows."
        );
    }

    /// The rows of the schema page's table.
    fn schema_table(level: Level) -> String {
        let mut table = String::from("| key | type | meaning |\n|---|---|---|\n");
        for column in COLUMNS.iter().filter(|column| column.level == level) {
            let Column { key, kind, unit, meaning, null, .. } = column;
            let mut kind = kind.to_string();
            let mut meaning = meaning.trim_end_matches('.').to_string();
            if !null.is_empty() {
                kind += " or null";
                meaning += &format!("; `null`: {null}");
            }
            if !unit.is_empty() {
                kind += &format!(", {unit}");
            }
            table += &format!("| `{key}` | {kind} | {meaning} |\n");
        }
        table
    }

    /// Set `KVGAUGE_WRITE` to write it.
    #[test]
    fn the_schema_page_has_the_list() {
        const PATH: &str = "src/results/SCHEMA.md";
        let page = std::fs::read_to_string(PATH).unwrap();
        let mut expected = page.clone();
        for (name, level) in [("subjects", Level::Subject), ("cells", Level::Cell)] {
            let (before, rest) = expected.split_once(&format!("<!-- columns of {name},")).unwrap();
            let (mark, rest) = rest.split_once('\n').unwrap();
            let (_, after) = rest.split_once("<!-- end -->").unwrap();
            let table = schema_table(level);
            expected =
                format!("{before}<!-- columns of {name},{mark}\n\n{table}\n<!-- end -->{after}");
        }
        if std::env::var_os("KVGAUGE_WRITE").is_some() {
            std::fs::write(PATH, expected).unwrap();
        } else {
            assert!(page == expected, "{PATH} is not what KVGAUGE_WRITE=1 would write");
        }
    }
}
