//! The end of a sweep as text for a terminal.

use super::align::{align, align_within};
use super::models::{MEAN, NONE, bits, title};
use super::table::{baseline_line, cache_line, subject_lines};
use super::text::one_line;
use crate::codec::shown_name;
use crate::eval::verdict::Limits;
use crate::results::columns::{Row, SWEEP, Table, headings, texts, with_batch};
use crate::results::comparison::Comparison;
use crate::results::figures::{CodecFigures, CodecResult};
use crate::results::names::Headlines;
use crate::results::print::{interval, signed, small};
use crate::results::subject::SubjectInfo;
use crate::results::sweep::{SubjectReport, SweepReport, UnfinishedCell};
use crate::results::verdict_words;
use std::fmt::Write;

const LEGEND: &str = "bits a value; MB: cache of a sequence; KLD: mean, nats; top-1: likeliest token \
    unchanged; interval: 95 %\n* recommended; needs N, has M: inconclusive, N windows would settle it (80 % range), the text has M\n";

/// Ends with a newline. At most 110 columns for names of up to 25 characters, 120 with saved GB; no colours, so
/// that it can be pasted anywhere. `width`: of the terminal, within which a table that is wider comes
/// in blocks.
pub fn render(report: &SweepReport, width: Option<usize>) -> String {
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
            out.push_str(&align_within(&rows(view, report.batch), width));
        }
        for refused in subject.decode.iter().flat_map(|decode| &decode.refused) {
            out.push_str(&one_line(&format!("no verdict under decode: {}", refused.error)));
            out.push('\n');
        }
        out.push_str(&recommendation(subject, &report.limits));
        let named = |codec: &Option<String>| codec.as_deref().map_or("none".into(), one_line);
        for answer in subject.answers_in_words(named) {
            let _ = writeln!(out, "{answer}");
        }
        out.push('\n');
    }
    for comparison in &report.comparisons {
        side_by_side(&mut out, comparison, width);
    }
    if !report.subjects.is_empty() {
        out.push_str(LEGEND);
        if report.batch > 1 {
            let _ = writeln!(out, "GB saved: on the cache of {} sequences", report.batch);
        }
    }
    if let Some(note) = report.instruction_sets_note() {
        let _ = writeln!(out, "note: {note}");
    }
    let headlines = report.headlines();
    for (what, cells) in [("failed", &report.failed), ("missing", &report.missing)] {
        for cell in cells {
            out.push_str(&unfinished(what, cell, &headlines));
        }
    }
    out
}

/// Mean KL divergences, a column a model.
fn side_by_side(out: &mut String, comparison: &Comparison, width: Option<usize>) {
    let models = comparison.models.iter().map(|model| one_line(&model.name));
    let models: Vec<String> = models.collect();
    let ends = [vec!["codec".into(), "bits".into()], models, vec![MEAN.into()]];
    let mut rows = vec![ends.concat()];
    for codec in &comparison.codecs {
        let klds = codec.kld_mean.iter().chain([&codec.kld_geometric_mean]);
        let klds = klds.map(|kld| kld.map_or(NONE.into(), small)).collect();
        let name = one_line(&codec.codec);
        rows.push([vec![name, bits(codec)], klds].concat());
    }
    let title = one_line(&title(comparison, str::to_string));
    let _ = writeln!(out, "{title}: mean KLD\n{}", align_within(&rows, width));
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
    baseline_line(out, &subject.baseline)?;
    cache_line(out, subject.cells.first().map(|cell| &cell.result), &subject.subject)
}

/// `batch`: sequences that the saved GB are of.
fn rows(subject: &SubjectReport, batch: usize) -> Vec<Vec<String>> {
    let columns = with_batch(SWEEP, batch);
    let mut rows = vec![headings(&columns, Table::Sweep)];
    for cell in &subject.cells {
        let mut row = texts(&columns, &Row::of_cell(cell, subject), Table::Sweep);
        row[0] = one_line(&row[0]) + if subject.recommends(cell) { " *" } else { "" };
        rows.push(row);
    }
    rows
}

/// The same rows, with their headings, for codecs that are still running: fewer columns where a terminal
/// of this `width` has no room for all. No line ends.
pub fn so_far(results: &[CodecResult], subject: &SubjectInfo, width: Option<usize>) -> Vec<String> {
    const FEW: &[&str] = &["codec", "perplexity_change_percent", "kld_mean", "verdict"];
    let table = |columns: &[&str]| {
        let row = |result| {
            let mut row = texts(columns, &Row::new(result, subject), Table::Sweep);
            row[0] = shown_name(&row[0]);
            row
        };
        let rows: Vec<_> =
            [headings(columns, Table::Sweep)].into_iter().chain(results.iter().map(row)).collect();
        let lines = align(&rows).lines().map(str::to_string).collect::<Vec<_>>();
        let longest = lines.iter().map(|line| line.chars().count()).max();
        (lines, width.is_none() || longest <= width)
    };
    match table(SWEEP) {
        (lines, true) => lines,
        _ => table(FEW).0,
    }
}

/// A finished cell's figures in half a line.
pub fn brief(f: &CodecFigures) -> String {
    format!(
        "{:.3} bits, perplexity {} % ({}), KLD {}",
        f.bits_per_value,
        signed(f.perplexity_change_percent),
        interval(f.perplexity_change_percent_ci95, signed),
        small(f.kld_mean)
    )
}

fn recommendation(subject: &SubjectReport, limits: &Limits) -> String {
    if let Some(reason) = subject.baseline.meaningless(subject.subject.model.vocab_size) {
        return format!("\ninvalid: {reason}\n{}\n", verdict_words::CHECK);
    }
    let (limits, under) = (verdict_words::limits(limits), subject.under());
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

fn unfinished(what: &str, cell: &UnfinishedCell, headlines: &Headlines) -> String {
    let context = cell.context.map_or(String::new(), |context| format!(", context {context}"));
    let error = match &cell.error {
        Some(error) => format!(": {}", one_line(error)),
        None => String::new(),
    };
    let protocol = cell.protocol.as_ref().map_or(String::new(), |name| format!(", {name}"));
    let (model, text) = (headlines.model(&cell.model), headlines.text(&cell.text));
    let place = format!("{} on {model}, {text}{context}{protocol}", cell.codec);
    let place = one_line(&place);
    format!("{what}: {place}{error}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    fn rendered(name: &str) -> String {
        let (_, report) = fixture::all().into_iter().find(|(found, _)| *found == name).unwrap();
        render(&SweepReport { batch: 1, ..report }, None)
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
    fn a_batch_has_its_saved_gb() {
        let (_, mut report) =
            fixture::all().into_iter().find(|(name, _)| *name == "both-protocols").unwrap();
        assert!(!rendered("both-protocols").contains("GB saved"));
        report.batch = 32;
        let text = render(&report, None);
        // Under both protocols, and in the legend.
        assert_eq!(text.matches("GB saved").count(), 3, "{text}");
        assert!(text.contains("GB saved: on the cache of 32 sequences"), "{text}");
        let longest = |text: &str| text.lines().map(|line| line.chars().count()).max();
        let alone = longest(&rendered("both-protocols")).map(|columns| columns + 10);
        assert!(longest(&text) <= alone, "{text}");
    }

    /// But for names, which have no place to break.
    #[test]
    fn a_narrow_terminal_gets_blocks() {
        let (_, report) =
            fixture::all().into_iter().find(|(name, _)| *name == "both-protocols").unwrap();
        let narrow = crate::report::text::wrap(&render(&report, Some(60)), 60);
        for line in narrow.lines() {
            assert!(line.chars().count() <= 60, "{line}");
        }
        // Every figure of the wide table, in as many words.
        let wide = render(&report, None);
        let mut words: Vec<&str> = narrow.split_whitespace().collect();
        words.sort_unstable();
        for word in wide.split_whitespace() {
            assert!(words.binary_search(&word).is_ok(), "{word} in\n{narrow}");
        }
        let views = report.by_protocol();
        let results: Vec<_> = views[0].cells.iter().map(|cell| cell.result.clone()).collect();
        for (width, columns) in [(None, 10), (Some(110), 10), (Some(60), 4)] {
            let lines = so_far(&results, &views[0].subject, width);
            let titles = lines[0].replace("ppl change", "change");
            assert_eq!(titles.split_whitespace().count(), columns, "{titles}");
        }
    }

    #[test]
    fn models_stand_side_by_side() {
        let (_, report) =
            fixture::all().into_iter().find(|(name, _)| *name == "several-models").unwrap();
        let text = render(&report.for_people(), None);
        let (_, table) = text.split_once("context 512, protocol prefix: mean KLD\n").unwrap();
        let heads =
            "codec      bits  HuggingFaceTB/SmolLM2-135M  qwen-0.5b  gemma-270m  geometric mean\n";
        assert!(table.starts_with(heads), "{table}");
        assert_eq!(text.matches(": mean KLD\n").count(), 2);
        assert_eq!(rendered("usual").matches(": mean KLD\n").count(), 0);
    }

    #[test]
    fn one_window_recommends_nothing() {
        assert!(rendered("one-window").contains("one window has no interval"));
    }
}
