//! The result as Markdown, for a pull request.

use super::models;
use super::text::{one_line, printable};
use crate::results::columns::{Column, MARKDOWN, Row, SIZE, Table, named, with_batch};
use crate::results::names::Headlines;
use crate::results::print::{bos, cache_words, dtype_and_device, short, windows};
use crate::results::sweep::{SubjectReport, SweepReport, UnfinishedCell};
use crate::results::verdict_words;
use crate::whole_file::MARKDOWN_MARK;
use std::fmt::Write;

pub fn render(report: &SweepReport) -> String {
    let mut out = format!("{MARKDOWN_MARK}## What compressing the KV cache costs\n");
    let mixed = report.instruction_sets_note();
    if let Some(note) = &mixed {
        let _ = write!(out, "\n{note}\n");
    }
    out.push_str(&models::side_by_side(report));
    for subject in &report.subjects {
        // Writing to a String cannot fail.
        let _ = section(&mut out, subject, report, mixed.is_some());
    }
    let headlines = report.headlines();
    for (title, cells) in [("Failed", &report.failed), ("Missing", &report.missing)] {
        if !cells.is_empty() {
            let _ = write!(out, "\n### {title}\n\n");
            cells.iter().for_each(|cell| out.push_str(&unfinished(cell, &headlines)));
        }
    }
    let _ = write!(out, "\nMade by kvgauge {} with\n\n", report.kvgauge_version);
    for sweep in &report.sweeps {
        out.push_str(&block("sh", &sweep.command));
    }
    out
}

/// `mixed`: results of several instruction sets are in the report.
fn section(
    out: &mut String,
    subject: &SubjectReport,
    report: &SweepReport,
    mixed: bool,
) -> std::fmt::Result {
    let s = &subject.subject;
    let (model, text) = (code(s.model.name()), code(s.text.name()));
    write!(out, "\n### {model} on {text}, context {}\n\n", s.context)?;
    let protocols = subject.by_protocol();
    let names: Vec<String> =
        protocols.iter().map(|view| code(&view.subject.protocol.to_string())).collect();
    let word = if names.len() > 1 { "Protocols" } else { "Protocol" };
    write!(out, "{word} {}", names.join(" and "))?;
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
        ", {windows} of {context} tokens, {bos}, {place}, baseline perplexity {:.4}. {}.\n",
        subject.baseline.perplexity,
        subject.cells.first().map_or(String::new(), |cell| cache_words(&cell.result, s))
    )?;
    let limit = verdict_words::limits(&report.limits);
    if let Some(reason) = subject.baseline.meaningless(s.model.vocab_size) {
        writeln!(out, "**Invalid**: {reason}; {}.\n", verdict_words::CHECK)?;
    } else {
        match subject.recommended_codec() {
            Some(codec) => writeln!(
                out,
                "**Recommended** within {limit}, under {}: {}\n",
                subject.under(),
                code(codec)
            )?,
            None if s.windows < 2 => {
                writeln!(out, "**Nothing to recommend**: one window has no interval.\n")?;
            }
            None => writeln!(
                out,
                "**No codec** smaller than f16 is within {limit}, intervals included, under {}.\n",
                subject.under()
            )?,
        }
    }
    out.push_str(&within(subject));
    if protocols.len() > 1 {
        for view in &protocols {
            writeln!(out, "- {}", view.subject.protocol.tells())?;
        }
        out.push('\n');
    }
    table(out, subject, &protocols, report.batch)?;
    match report.batch {
        1 => Ok(()),
        batch => writeln!(out, "\nGB saved: on the cache of {batch} sequences."),
    }
}

/// The answers for a KL divergence and for so many bytes: two lines, and an empty one.
fn within(subject: &SubjectReport) -> String {
    let named = |codec: &Option<String>| codec.as_deref().map_or("none".into(), code);
    let [klds, bytes] = subject.answers_in_words(named);
    format!("{klds}.  \n{bytes}.\n\n")
}

/// Under two protocols without top-1, which there is no room for. `batch`: sequences that the saved GB are of.
fn table(
    out: &mut String,
    subject: &SubjectReport,
    protocols: &[SubjectReport],
    batch: usize,
) -> std::fmt::Result {
    let several = protocols.len() > 1;
    let damage: Vec<&str> =
        MARKDOWN.iter().copied().filter(|key| !several || *key != "top1_agreement").collect();
    let heading = |column: &Column| column.heading(Table::Markdown).to_string();
    let size = with_batch(SIZE, batch);
    let mut heads = joined(&size, heading);
    for view in protocols {
        let mut of_view = joined(&damage, heading);
        if several {
            of_view[0].insert_str(0, &format!("{}: ", view.subject.protocol.name()));
        }
        heads.extend(of_view);
    }
    let rule = |head: &String| match head.as_str() {
        "codec" | "verdict" => "---",
        _ => "--:",
    };
    let rules: Vec<&str> = heads.iter().map(rule).collect();
    writeln!(out, "| {} |\n|{}|", heads.join(" | "), rules.join("|"))?;
    for cell in &subject.cells {
        let name = &cell.result.figures.codec;
        let mark = if subject.recommends(cell) { " ★" } else { "" };
        let row = Row::of_cell(cell, subject);
        let mut fields = joined(&size, |column| column.text(&row, Table::Markdown));
        fields[0] = code(name) + mark;
        for view in protocols {
            let of_view = view.cells.iter().find(|cell| cell.result.figures.codec == *name);
            match of_view {
                Some(cell) => {
                    let row = Row::of_cell(cell, view);
                    fields.extend(joined(&damage, |column| column.text(&row, Table::Markdown)));
                }
                None => fields.push(refused(subject, name)),
            }
        }
        writeln!(out, "| {} |", fields.join(" | "))?;
    }
    Ok(())
}

/// A field for each column, an interval in that of its figure.
pub(super) fn joined(keys: &[&str], text: impl Fn(&Column) -> String) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for column in named(keys) {
        match fields.last_mut() {
            Some(figure) if column.is_interval() => *figure += &format!(", {}", text(column)),
            _ => fields.push(text(column)),
        }
    }
    fields
}

/// Why `decode` says nothing of a codec.
fn refused(subject: &SubjectReport, codec: &str) -> String {
    let reason = subject.why_refused(codec).map_or("no result".into(), code);
    format!("– | – | {reason}")
}

fn unfinished(cell: &UnfinishedCell, headlines: &Headlines) -> String {
    let context = cell.context.map_or(String::new(), |context| format!(", context {context}"));
    let error = cell.error.as_ref().map_or(String::new(), |error| format!(": {}", code(error)));
    let hint = cell.hint.as_ref().map_or(String::new(), |hint| format!(" ({})", code(hint)));
    let codec = code(&cell.codec);
    let (model, text) = (code(headlines.model(&cell.model)), code(headlines.text(&cell.text)));
    let protocol = cell.protocol.as_ref().map_or(String::new(), |name| format!(", {}", code(name)));
    format!("- {codec} on {model}, {text}{context}{protocol}{error}{hint}\n")
}

/// A code span, which holds any text but a bar in a table and backticks as many as its own.
/// HTML is text in it, but a reader that strips tags first would not know: `<` and `>` become
/// look-alikes.
pub(super) fn code(text: &str) -> String {
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
    use super::*;
    use crate::results::fixture;

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
            let text = render(&report).replace(&models::side_by_side(&report), "");
            let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
            let heads = 2 * report.subjects.len();
            let cells = report.subjects.iter().map(|subject| subject.cells.len()).sum::<usize>();
            assert_eq!(rows.len(), heads + cells, "{name}");
            let both = report.subjects.iter().any(|subject| subject.decode.is_some());
            let bars = if both { 11 } else { 9 };
            let all_have = |text: &str, bars: usize| {
                let mut rows = text.lines().filter(|line| line.starts_with('|'));
                rows.all(|row| row.matches('|').count() == bars)
            };
            // A batch has a column more: what it saves.
            assert!(report.batch > 1 && all_have(&text, bars + 1), "{name}: {text}");
            let alone = SweepReport { batch: 1, ..report };
            let alone = render(&alone).replace(&models::side_by_side(&alone), "");
            assert!(all_have(&alone, bars) && !alone.contains("GB saved"), "{name}: {alone}");
        }
    }
}
