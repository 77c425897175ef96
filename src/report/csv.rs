//! One row a cell, RFC 4180. Figures are those of the JSON, digit for digit, under its keys:
//! levels joined by `_`, ends of an interval `_low` and `_high`. Empty: `null`, or not known.

use crate::error::{Error, Result};
use crate::results::sweep::SweepReport;
use serde::Serialize;
use serde_json::Value;

/// Where columns come from: JSON pointers into a subject …
const SUBJECT: [&str; 19] = [
    "/model/source",
    "/model/revision",
    "/text/source",
    "/text/sha256",
    "/protocol",
    "/residual",
    "/chunk",
    "/context",
    "/prefix",
    "/first_window",
    "/windows",
    "/scored_tokens",
    "/bos_id",
    "/dtype",
    "/device",
    "/instruction_set",
    "/seed",
    "/text/windows_available",
    "/baseline/perplexity",
];
/// … and into a cell.
const CELL: [&str; 43] = [
    "/codec",
    "/targets_affected",
    "/bits_per_value",
    "/compression_ratio",
    "/cache_bytes_per_token_f16",
    "/cache_bytes_per_token",
    "/perplexity",
    "/perplexity_change",
    "/perplexity_change_percent",
    "/perplexity_change_percent_ci95/0",
    "/perplexity_change_percent_ci95/1",
    "/mean_log_ratio",
    "/mean_log_ratio_ci95/0",
    "/mean_log_ratio_ci95/1",
    "/kld_mean",
    "/kld_mean_ci95/0",
    "/kld_mean_ci95/1",
    "/kld_p50",
    "/kld_p90",
    "/kld_p99",
    "/kld_p999",
    "/kld_max",
    "/top1_agreement",
    "/top1_agreement_ci95/0",
    "/top1_agreement_ci95/1",
    "/rms_delta_p",
    "/key/rmse",
    "/key/snr_db",
    "/key/cosine",
    "/value/rmse",
    "/value/snr_db",
    "/value/cosine",
    "/verdict",
    "/verdicts/perplexity_change",
    "/verdicts/kld",
    "/verdicts/top1",
    "/windows_needed",
    "/windows_needed_ci80/0",
    "/windows_needed_ci80/1",
    "/on_perplexity_front",
    "/on_kld_front",
    "/error",
    "/hint",
];

pub fn render(report: &SweepReport) -> Result<String> {
    let mut out = String::new();
    let pointers = || SUBJECT.into_iter().chain(CELL);
    let names = ["id", "status"].map(String::from).into_iter().chain(pointers().map(column));
    row(&mut out, names.chain(["recommended".into()]));
    for subject in &report.by_protocol() {
        let about = value(subject)?;
        for cell in &subject.cells {
            let result = value(cell)?;
            let fields = SUBJECT.iter().map(|p| field(about.pointer(p)));
            let fields = fields.chain(CELL.iter().map(|p| field(result.pointer(p))));
            let head = [cell.id.clone(), "done".into()];
            let recommended = subject.recommends(cell).to_string();
            row(&mut out, head.into_iter().chain(fields).chain([recommended]));
        }
    }
    for (status, cells) in [("failed", &report.failed), ("missing", &report.missing)] {
        for cell in cells {
            let known = value(cell)?;
            let fields = pointers().map(|p| field(known.pointer(source(p))));
            // No id: the model that is part of it may be what failed.
            let head = [String::new(), status.into()];
            row(&mut out, head.into_iter().chain(fields).chain([String::new()]));
        }
    }
    Ok(out)
}

/// Where an unfinished cell has what a finished one has at `pointer`.
fn source(pointer: &str) -> &str {
    match pointer {
        "/model/source" => "/model",
        "/text/source" => "/text",
        pointer => pointer,
    }
}

fn column(pointer: &str) -> String {
    let name = pointer.trim_start_matches('/').replace('/', "_");
    // The ends of an interval.
    for interval in ["_ci95", "_ci80"] {
        let (low, high) = (format!("{interval}_0"), format!("{interval}_1"));
        if let Some(stem) = name.strip_suffix(&low) {
            return format!("{stem}{interval}_low");
        }
        if let Some(stem) = name.strip_suffix(&high) {
            return format!("{stem}{interval}_high");
        }
    }
    name
}

fn value(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|e| Error::system(format!("writing the results as CSV: {e}")))
}

fn field(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
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
            let rows = parse(&render(&report).unwrap());
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

    /// A column whose pointer meets nothing would be empty without anyone noticing.
    #[test]
    fn every_column_is_a_key() {
        let all = fixture::all();
        let (_, report) = all.iter().find(|(name, _)| *name == "both-protocols").unwrap();
        let decode = &report.by_protocol()[1];
        let subject = value(decode).unwrap();
        // Not decided, so that it has everything.
        let open = decode.cells.iter().find(|cell| cell.result.judgement.windows_needed.is_some());
        let cell = value(open.unwrap()).unwrap();
        assert!(SUBJECT.iter().all(|pointer| subject.pointer(pointer).is_some()));
        let unfinished = ["/error", "/hint"];
        let found = |p: &&&str| cell.pointer(p).is_none() && !unfinished.contains(*p);
        assert_eq!(CELL.iter().find(found), None);
    }
}
