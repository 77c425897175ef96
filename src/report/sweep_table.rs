//! The end of a sweep as text for a terminal.

use super::table::{align, baseline_line, change_interval, signed, small, subject_lines};
use super::text::one_line;
use super::verdict::{self, undecided};
use crate::eval::verdict::{Limits, Verdict};
use crate::results::figures::{CodecFigures, CodecResult};
use crate::results::subject::SubjectInfo;
use crate::results::sweep::{SubjectReport, SweepReport, UnfinishedCell};
use std::fmt::Write;

const LEGEND: &str = "bits a value; KLD: mean, nats; top-1: likeliest token unchanged; interval: \
    95 %, over windows\n* recommended; needs N, has M: inconclusive, N windows would settle it (80 % range), the text has M\n";

/// Ends with a newline. At most 110 columns for names of up to 25 characters; no colours, so
/// that it can be pasted anywhere.
pub fn render(report: &SweepReport) -> String {
    let mut out = String::new();
    for subject in &report.subjects {
        let views = subject.by_protocol();
        // Writing to a String cannot fail.
        let _ = head(&mut out, report, subject, &views);
        for view in &views {
            if views.len() > 1 {
                out.push_str(&format!("\n{}\n", view.subject.protocol.tells()));
            } else {
                out.push('\n');
            }
            out.push_str(&align(&rows(view)));
        }
        for refused in subject.decode.iter().flat_map(|decode| &decode.refused) {
            out.push_str(&one_line(&format!("no verdict under decode: {}", refused.error)));
            out.push('\n');
        }
        out.push_str(&recommendation(subject, &report.limits));
        out.push('\n');
    }
    if !report.subjects.is_empty() {
        out.push_str(LEGEND);
    }
    if let Some(note) = report.instruction_sets_note() {
        let _ = writeln!(out, "note: {note}");
    }
    for (what, cells) in [("failed", &report.failed), ("missing", &report.missing)] {
        for cell in cells {
            out.push_str(&unfinished(what, cell));
        }
    }
    out
}

fn head(
    out: &mut String,
    report: &SweepReport,
    subject: &SubjectReport,
    views: &[SubjectReport],
) -> std::fmt::Result {
    let names: Vec<String> =
        views.iter().map(|view| format!("`{}`", view.subject.protocol)).collect();
    let word = if views.len() > 1 { "protocols" } else { "protocol" };
    writeln!(out, "kvgauge {}, {word} {}", report.kvgauge_version, names.join(" and "))?;
    subject_lines(out, &subject.subject)?;
    if report.instruction_sets().len() > 1 {
        writeln!(out, "computed  on {}", one_line(&subject.subject.instruction_set))?;
    }
    baseline_line(out, &subject.baseline)
}

fn rows(subject: &SubjectReport) -> Vec<Vec<String>> {
    let mark = |cell| if subject.recommends(cell) { " *" } else { "" };
    let rows = subject.cells.iter().map(|cell| row(&cell.result, mark(cell), &subject.subject));
    std::iter::once(TITLE.map(String::from).to_vec()).chain(rows).collect()
}

const TITLE: [&str; 9] =
    ["codec", "bits", "ratio", "ppl", "change", "interval", "KLD", "top-1", "verdict"];

fn row(result: &CodecResult, mark: &str, subject: &SubjectInfo) -> Vec<String> {
    let f = &result.figures;
    vec![
        one_line(&f.codec) + mark,
        format!("{:.3}", f.bits_per_value),
        format!("{:.2}×", f.compression_ratio),
        perplexity(f.perplexity),
        format!("{} %", signed(f.perplexity_change_percent)),
        change_interval(f),
        small(f.kld_mean),
        format!("{:.1} %", 100.0 * f.top1_agreement),
        verdict(result, subject),
    ]
}

/// The same rows, with their title, for codecs that are still running. No line ends.
pub fn so_far(results: &[CodecResult], subject: &SubjectInfo) -> Vec<String> {
    let rows = results.iter().map(|result| row(result, "", subject));
    let rows: Vec<_> = std::iter::once(TITLE.map(String::from).to_vec()).chain(rows).collect();
    align(&rows).lines().map(str::to_string).collect()
}

/// A finished cell's figures in half a line.
pub fn brief(f: &CodecFigures) -> String {
    format!(
        "{:.3} bits, perplexity {} % ({}), KLD {}",
        f.bits_per_value,
        signed(f.perplexity_change_percent),
        change_interval(f),
        small(f.kld_mean)
    )
}

fn perplexity(figure: f64) -> String {
    if figure < 1e5 { format!("{figure:.3}") } else { format!("{figure:.1e}") }
}

fn verdict(result: &CodecResult, subject: &SubjectInfo) -> String {
    match result.judgement.verdict {
        // The legend says of what.
        Verdict::Inconclusive => {
            undecided(result, subject).replace(" windows", "").replace(" text", "")
        }
        decided => decided.word().into(),
    }
}

fn recommendation(subject: &SubjectReport, limits: &Limits) -> String {
    if let Some(reason) = subject.baseline.meaningless(subject.subject.model.vocab_size) {
        return format!("\ninvalid: {reason}\n{}\n", verdict::CHECK);
    }
    let (limits, under) = (verdict::limits(limits), subject.under());
    match subject.recommended_codec() {
        Some(codec) => {
            format!("\nrecommended within {limits}, under {under}: {}\n", one_line(codec))
        }
        None if subject.subject.windows < 2 => {
            "\nnothing to recommend: one window has no interval\n".into()
        }
        None => format!(
            "\nno codec smaller than f16 is within {limits}, intervals included, under {under}\n"
        ),
    }
}

fn unfinished(what: &str, cell: &UnfinishedCell) -> String {
    let context = cell.context.map_or(String::new(), |context| format!(", context {context}"));
    let error = match &cell.error {
        Some(error) => format!(": {}", one_line(error)),
        None => String::new(),
    };
    let protocol = cell.protocol.as_ref().map_or(String::new(), |name| format!(", {name}"));
    let place = format!("{} on {}, {}{context}{protocol}", cell.codec, cell.model, cell.text);
    let place = one_line(&place);
    format!("{what}: {place}{error}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    fn rendered(name: &str) -> String {
        render(&fixture::all().into_iter().find(|(found, _)| *found == name).unwrap().1)
    }

    #[test]
    fn fits_a_terminal() {
        let text = rendered("failed-and-missing");
        let longest = text
            .lines()
            .filter(|line| !line.starts_with("failed") && !line.starts_with("missing"))
            .map(|line| line.chars().count());
        assert!(longest.max().unwrap() <= 110, "{text}");
        assert!(text.contains("\nfailed: int4-g99999999 on HuggingFaceTB"), "{text}");
        assert!(text.contains("\nmissing: int5-g64 on"), "{text}");
        assert_eq!(text.matches(" * ").count(), 1, "{text}");
    }

    #[test]
    fn one_window_recommends_nothing() {
        assert!(rendered("one-window").contains("one window has no interval"));
    }
}
