//! Models side by side, as Markdown: what stands in a sweep's report, and a page of its own with every
//! figure.

use super::markdown::{code, joined};
use crate::results::columns::{COMPARED, Column, Row, Table};
use crate::results::comparison::{ComparedCodec, Comparison, WithinBits};
use crate::results::print::{bos, dtype_and_device, small, windows};
use crate::results::sweep::{SubjectReport, SweepReport};
use crate::whole_file::MARKDOWN_MARK;
use std::fmt::Write;

/// What a codec's figure over the models is.
pub const MEAN: &str = "geometric mean";
/// What stands where a codec has no result.
pub const NONE: &str = "—";

/// The page with every figure; `None`: no two models can be compared.
pub fn render(report: &SweepReport) -> Option<String> {
    if report.comparisons.is_empty() {
        return None;
    }
    let views = report.by_protocol();
    let mut out = format!("{MARKDOWN_MARK}## Models side by side\n\n{LEGEND}\n");
    for comparison in &report.comparisons {
        let _ = section(&mut out, comparison);
        for view in views.iter().filter(|view| comparison.is_of(view)) {
            let _ = figures(&mut out, comparison, view);
        }
    }
    Some(out)
}

/// For the report: empty where no two models can be compared.
pub fn side_by_side(report: &SweepReport) -> String {
    if report.comparisons.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{LEGEND}\n");
    for comparison in &report.comparisons {
        // Writing to a String cannot fail.
        let _ = section(&mut out, comparison);
    }
    out
}

/// `Models on TEXT, context N, protocol P`, its parts named by `named`.
pub fn title(comparison: &Comparison, named: impl Fn(&str) -> String) -> String {
    format!(
        "Models on {}, context {}, protocol {}",
        named(&comparison.text_name),
        comparison.context,
        named(&comparison.protocol.to_string())
    )
}

/// What the tables' figures are, and what the answers below them.
pub const LEGEND: &str = "Mean KLD of each codec on each model, nats a token. The geometric mean is over these \
    models; a codec without a result on one of them has none. Below: the codec with the smallest KLD on \
    the model where it is largest, within so many bits a value on every model, of all codecs and of \
    those that an engine has. A limit is left out where a lower one has the same answer.";

/// `Windows: 10, 6, 1`
pub fn windows_of(comparison: &Comparison) -> String {
    let counts = comparison.models.iter().map(|model| model.windows.to_string());
    format!("Windows: {}", counts.collect::<Vec<_>>().join(", "))
}

pub const ANSWER_HEADS: [&str; 7] =
    ["of", "bits within", "codec", "bits", "KLD", "on", "asked for as"];

/// An answer's fields, under [`ANSWER_HEADS`], names by `named`.
pub fn answer(
    comparison: &Comparison,
    answer: &WithinBits,
    named: impl Fn(&str) -> String,
) -> [String; 7] {
    let model = &comparison.models[answer.worst_model];
    [
        answer.engine.unwrap_or("all").into(),
        answer.max_bits_per_value.to_string(),
        named(&answer.codec),
        format!("{:.2}", answer.bits_per_value),
        small(answer.kld_mean),
        named(&model.name),
        answer.flag.as_deref().map_or(String::new(), named),
    ]
}

/// `4.50`, or `4.25 … 4.50` where the models differ.
pub fn bits(codec: &ComparedCodec) -> String {
    let [fewest, most] = codec.bits_range().map(|bits| format!("{bits:.2}"));
    if fewest == most { most } else { format!("{fewest} … {most}") }
}

fn section(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    write!(out, "\n### {}\n\n", title(comparison, code))?;
    let names: Vec<String> = comparison.models.iter().map(|model| code(&model.name)).collect();
    let heads = [vec!["codec".into(), "bits".into()], names, vec![MEAN.into()]].concat();
    writeln!(out, "| {} |\n|---|{}", heads.join(" | "), "--:|".repeat(heads.len() - 1))?;
    let figure = |kld: &Option<f64>| kld.map_or(NONE.into(), small);
    for codec in &comparison.codecs {
        let klds = codec.kld_mean.iter().chain([&codec.kld_geometric_mean]).map(figure);
        let klds: Vec<String> = klds.collect();
        let name = code(&codec.codec);
        writeln!(out, "| {name} | {} | {} |", bits(codec), klds.join(" | "))?;
    }
    write!(out, "\n{}.\n", windows_of(comparison))?;
    if comparison.best_within_bits.is_empty() {
        return Ok(());
    }
    write!(out, "\n| {} |\n", ANSWER_HEADS.join(" | "))?;
    writeln!(out, "|---|--:|---|--:|--:|---|---|")?;
    for within in &comparison.best_within_bits {
        writeln!(out, "| {} |", answer(comparison, within, code).join(" | "))?;
    }
    Ok(())
}

/// Every codec of a model, in the order of the comparison.
fn figures(out: &mut String, comparison: &Comparison, view: &SubjectReport) -> std::fmt::Result {
    let s = &view.subject;
    let name = s.model.name().trim_end_matches(".gguf");
    write!(out, "\n#### {}, context {}, `{}`\n\n", code(name), s.context, s.protocol.name())?;
    writeln!(
        out,
        "{} of the text from number {} on, {}, {}, baseline perplexity {:.4}.\n",
        windows(s.windows),
        s.first_window,
        bos(s),
        dtype_and_device(s),
        view.baseline.perplexity
    )?;
    let heads = joined(COMPARED, |column: &Column| column.heading(Table::Markdown).into());
    writeln!(out, "| {} |\n|---|{}", heads.join(" | "), "--:|".repeat(heads.len() - 1))?;
    for cell in comparison.cells_of(view) {
        let row = Row::of_cell(cell, view);
        let mut fields = joined(COMPARED, |column| column.text(&row, Table::Markdown));
        fields[0] = code(&cell.result.figures.codec);
        writeln!(out, "| {} |", fields.join(" | "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture::{self, HOSTILE, made_up, subject};

    /// Written by an earlier run and looked at; set `KVGAUGE_WRITE` to write it again.
    #[test]
    fn several_models_are_the_golden_page() {
        const PATH: &str = "tests/data/models-side-by-side.md";
        let (_, report) =
            fixture::all().into_iter().find(|(name, _)| *name == "several-models").unwrap();
        let report = report.for_people();
        let page = render(&report).unwrap();
        if std::env::var_os("KVGAUGE_WRITE").is_some() {
            std::fs::write(PATH, &page).unwrap();
        }
        assert!(std::fs::read_to_string(PATH).unwrap() == page, "{PATH} is another than\n{page}");
        // The report has the comparisons, word for word.
        let part = side_by_side(&report);
        assert!(super::super::markdown::render(&report).contains(&part));
        assert!(part.lines().filter(|line| !line.is_empty()).all(|line| page.contains(line)));
    }

    #[test]
    fn every_row_of_a_table_is_as_wide_as_its_head() {
        for (name, report) in fixture::all() {
            let Some(page) = render(&report) else { continue };
            let bars = |line: &str| line.matches('|').count();
            let mut width = None;
            for line in page.lines() {
                match line.starts_with('|') {
                    true => {
                        assert_eq!(*width.get_or_insert(bars(line)), bars(line), "{name}: {line}")
                    }
                    false => width = None,
                }
            }
        }
    }

    #[test]
    fn names_from_outside_stay_in_code() {
        let codecs = [made_up("q4_0", 4.5, [0.01, 0.01], 0.01, [16.0, 19.0])];
        let of = |model: &str| subject(model, 8, 2, &codecs);
        let report = fixture::report(vec![of("a/b"), of(HOSTILE)]);
        let page = render(&report).unwrap();
        for part in ["<script", "<img", "\u{1b}", "</svg"] {
            assert!(!page.contains(part), "{page}");
        }
        // One model is no comparison.
        assert!(render(&fixture::report(vec![of("a/b")])).is_none());
    }
}
