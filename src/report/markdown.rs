//! The result as Markdown, for a pull request.

use super::figures::{CodecResult, SubjectInfo};
use super::sweep::{SubjectReport, SweepReport, UnfinishedCell};
use super::table::{
    bos, change_interval, dtype_and_device, kld_interval, short, signed, small, undecided, windows,
};
use super::text::{one_line, printable};
use crate::eval::stats::Verdict;
use crate::whole_file::MARKDOWN_MARK;
use std::fmt::Write;

pub fn render(report: &SweepReport) -> String {
    let mut out = format!("{MARKDOWN_MARK}## What compressing the KV cache costs\n");
    let mixed = report.instruction_sets_note();
    if let Some(note) = &mixed {
        let _ = write!(out, "\n{note}\n");
    }
    for subject in &report.subjects {
        // Writing to a String cannot fail.
        let _ = section(&mut out, subject, report.max_ppl_increase, mixed.is_some());
    }
    for (title, cells) in [("Failed", &report.failed), ("Missing", &report.missing)] {
        if !cells.is_empty() {
            let _ = write!(out, "\n### {title}\n\n");
            cells.iter().for_each(|cell| out.push_str(&unfinished(cell)));
        }
    }
    let _ = write!(out, "\nMade by kvgauge {} with\n\n", report.kvgauge_version);
    for sweep in &report.sweeps {
        out.push_str(&block("sh", &sweep.command));
    }
    out
}

/// `mixed`: results of several instruction sets are in the report.
fn section(out: &mut String, subject: &SubjectReport, limit: f64, mixed: bool) -> std::fmt::Result {
    let s = &subject.subject;
    let (model, text) = (code(&s.model.provenance.source), code(&s.text.source));
    write!(out, "\n### {model} on {text}, context {}\n\n", s.context)?;
    write!(out, "Protocol {}", code(&s.protocol.to_string()))?;
    if let Some(revision) = &s.model.provenance.revision {
        write!(out, ", model at {}", code(short(revision)))?;
    }
    let bos = bos(s);
    let (windows, context, mut place) = (windows(s.windows), s.context, dtype_and_device(s));
    if mixed {
        place += &format!(" ({})", code(&s.instruction_set));
    }
    writeln!(
        out,
        ", {windows} of {context} tokens, {bos}, {place}, baseline perplexity {:.4}.\n",
        subject.baseline.perplexity
    )?;
    match subject.recommended_codec() {
        Some(codec) => writeln!(out, "**Recommended** within ±{limit} %: {}\n", code(codec))?,
        None if s.windows < 2 => {
            writeln!(out, "**Nothing to recommend**: one window has no interval.\n")?;
        }
        None => writeln!(
            out,
            "**No codec** smaller than f16 is within ±{limit} %, interval included.\n"
        )?,
    }
    writeln!(out, "| codec | bits | ratio | ppl change, 95 % | KLD, 95 % | top-1 | verdict |")?;
    writeln!(out, "|---|--:|--:|--:|--:|--:|---|")?;
    for cell in &subject.cells {
        let f = &cell.result.figures;
        let mark = if subject.recommends(cell) { " ★" } else { "" };
        writeln!(
            out,
            "| {}{mark} | {:.3} | {:.2}× | {} %, {} | {}, {} | {:.1} % | {} |",
            code(&f.codec),
            f.bits_per_value,
            f.compression_ratio,
            signed(f.perplexity_change_percent),
            change_interval(f),
            small(f.kld_mean),
            kld_interval(f),
            100.0 * f.top1_agreement,
            verdict(&cell.result, s)
        )?;
    }
    Ok(())
}

fn verdict(result: &CodecResult, subject: &SubjectInfo) -> String {
    match result.verdict {
        Verdict::Pass => "pass".into(),
        Verdict::Fail => "fail".into(),
        Verdict::Inconclusive => format!("inconclusive, {}", undecided(result, subject)),
    }
}

fn unfinished(cell: &UnfinishedCell) -> String {
    let context = cell.context.map_or(String::new(), |context| format!(", context {context}"));
    let error = cell.error.as_ref().map_or(String::new(), |error| format!(": {}", code(error)));
    let hint = cell.hint.as_ref().map_or(String::new(), |hint| format!(" ({})", code(hint)));
    let (codec, model, text) = (code(&cell.codec), code(&cell.model), code(&cell.text));
    format!("- {codec} on {model}, {text}{context}{error}{hint}\n")
}

/// A code span, which holds any text but a bar in a table and backticks as many as its own.
/// HTML is text in it, but a reader that strips tags first would not know: `<` and `>` become
/// look-alikes.
fn code(text: &str) -> String {
    let text = one_line(text).replace('|', "¦").replace('<', "‹").replace('>', "›");
    let ticks = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// A code block.
fn block(language: &str, text: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(3) + 1);
    let text: String = text.chars().map(printable).collect();
    format!("{fence}{language}\n{text}\n{fence}\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn what_could_be_markup_stays_in_code() {
        assert_eq!(code("int4-g64"), "`int4-g64`");
        assert_eq!(code("a|`b`\n<i>"), "``a¦`b` ‹i›``");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(block("sh", "a\n```"), "````sh\na\n```\n````\n");
    }

    #[test]
    fn every_row_has_all_columns() {
        for (name, report) in fixture::all() {
            let text = render(&report);
            let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
            let heads = 2 * report.subjects.len();
            assert_eq!(rows.len(), heads + report.cells().count(), "{name}");
            assert!(rows.iter().all(|row| row.matches('|').count() == 8), "{name}: {text}");
        }
    }
}
