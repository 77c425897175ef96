//! One row a cell, RFC 4180. Figures are those of the JSON, digit for digit, under its keys:
//! levels joined by `_`, ends of an interval `_low` and `_high`. Empty: `null`, or not known.

use crate::results::columns::{COLUMNS, Column, Row, Value};
use crate::results::sweep::{SweepReport, UnfinishedCell};

pub fn render(report: &SweepReport) -> String {
    let mut out = String::new();
    // The id stands first: in the JSON it is a column of cells, here it names the row.
    let columns = || COLUMNS.iter().filter(|column| column.key != "id");
    let line = |[id, status, error, hint, recommended]: [&str; 5], fields: Vec<String>| {
        let ends = [error, hint, recommended].map(String::from);
        [id, status].map(String::from).into_iter().chain(fields).chain(ends)
    };
    let names = columns().flat_map(names).collect();
    row(&mut out, line(["id", "status", "error", "hint", "recommended"], names));
    for subject in &report.by_protocol() {
        for cell in &subject.cells {
            let of = Row::of_cell(cell, subject);
            let fields = columns().flat_map(|column| fields(column, (column.value)(&of))).collect();
            let recommended = subject.recommends(cell).to_string();
            row(&mut out, line([&cell.id, "done", "", "", &recommended], fields));
        }
    }
    for (status, cells) in [("failed", &report.failed), ("missing", &report.missing)] {
        for cell in cells {
            let fields = columns().flat_map(|column| fields(column, known(cell, column))).collect();
            let [error, hint] = [&cell.error, &cell.hint].map(|text| text.as_deref().unwrap_or(""));
            // No id: the model that is part of it may be what failed.
            row(&mut out, line(["", status, error, hint, ""], fields));
        }
    }
    out
}

fn names(column: &Column) -> Vec<String> {
    let name = column.key.replace('.', "_");
    match column.is_interval() {
        true => vec![format!("{name}_low"), format!("{name}_high")],
        false => vec![name],
    }
}

/// One field, or two of an interval.
fn fields(column: &Column, value: Value) -> Vec<String> {
    let fields = match value {
        Value::Missing => vec![String::new()],
        Value::Text(text) => vec![text],
        Value::Whole(count) => vec![count.to_string()],
        Value::Number(figure) => vec![number(figure)],
        Value::Mark(on) => vec![on.to_string()],
        Value::Interval(ends) => ends.map(number).to_vec(),
        Value::Range(low, high) => {
            vec![low.to_string(), high.map_or(String::new(), |high| high.to_string())]
        }
    };
    match column.is_interval() && fields.len() == 1 {
        true => vec![String::new(); 2],
        false => fields,
    }
}

/// Digits of the JSON; nothing for its `null`.
fn number(figure: f64) -> String {
    serde_json::Number::from_f64(figure).map_or(String::new(), |number| number.to_string())
}

/// The columns that an unfinished cell has.
fn known(cell: &UnfinishedCell, column: &Column) -> Value {
    let text = |text: &str| Value::Text(text.into());
    match column.key {
        "model.source" => text(&cell.model),
        "text.source" => text(&cell.text),
        "codec" => text(&cell.codec),
        "protocol" => cell.protocol.as_deref().map_or(Value::Missing, text),
        "context" => cell.context.map_or(Value::Missing, |tokens| Value::Whole(tokens as u64)),
        _ => Value::Missing,
    }
}

fn row(out: &mut String, fields: impl Iterator<Item = String>) {
    for (i, field) in fields.enumerate() {
        if i > 0 {
            out.push(',');
        }
        let odd = |c: char| matches!(c, '"' | ',' | '\n' | '\r');
        if field.contains(odd) || field.starts_with(' ') || field.ends_with(' ') {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&field);
        }
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    /// A reader of RFC 4180.
    fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut fields, mut field, mut quoted) = (vec![], vec![], String::new(), false);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    field.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(std::mem::take(&mut field)),
                '\r' if !quoted => {}
                '\n' if !quoted => {
                    fields.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut fields));
                }
                c => field.push(c),
            }
        }
        assert!(!quoted && fields.is_empty() && field.is_empty());
        rows
    }

    #[test]
    fn reads_back_as_what_was_found() {
        for (name, report) in fixture::all() {
            let rows = parse(&render(&report));
            let views = report.by_protocol();
            let done =
                views.iter().flat_map(|view| view.cells.iter().map(move |cell| (view, cell)));
            let count = done.clone().count();
            let cells = count + report.failed.len() + report.missing.len();
            assert_eq!(rows.len(), 1 + cells, "{name}");
            assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{name}");
            let at = |column: &str| rows[0].iter().position(|name| name == column).unwrap();
            for ((subject, cell), row) in done.zip(&rows[1..]) {
                let f = &cell.result.figures;
                assert_eq!(row[at("codec")], f.codec);
                assert_eq!(row[at("model_source")], subject.subject.model.provenance.source);
                let number = |column: &str| row[at(column)].parse::<f64>().ok();
                assert_eq!(number("kld_mean"), Some(f.kld_mean));
                let finite = |value: f64| value.is_finite().then_some(value);
                let change = f.perplexity_change_percent;
                assert_eq!(number("perplexity_change_percent"), finite(change));
                assert_eq!(
                    number("perplexity_change_percent_ci95_high"),
                    f.perplexity_change_percent_ci95.and_then(|[_, high]| finite(high))
                );
                assert_eq!(number("key_snr_db"), f.key.snr_db);
            }
            for (cell, row) in report.failed.iter().zip(&rows[1 + count..]) {
                assert_eq!(row[at("status")], "failed");
                assert_eq!(Some(&row[at("error")]), cell.error.as_ref());
                assert_eq!(row[at("model_source")], cell.model);
            }
        }
    }
}
