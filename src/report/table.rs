//! The result as text for a terminal: a head, one row a codec, the verdicts.

use super::attribution_table;
use super::figures::{Baseline, CodecFigures, CodecResult, SubjectInfo};
use super::text::one_line;
use super::validation::Validation;
use crate::eval::Protocol;
use crate::eval::stats::Verdict;
use std::fmt::Write;

/// What the titles have no room for.
const LEGEND: &str = "bits a value; KLD: mean and 99th percentile, nats; top-1: likeliest token \
    unchanged; SNR in dB\n";

/// Ends with a newline. At most 110 columns for names as long as the default codec's; no
/// colours, so that it can be pasted anywhere.
pub fn render(result: &Validation) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, result);
    out.push('\n');
    out.push_str(&align(&rows(result)));
    out.push_str(LEGEND);
    out.push('\n');
    for codec in &result.codecs {
        out.push_str(&verdict_line(&codec.result, result));
    }
    for codec in &result.codecs {
        if let Some(attribution) = &codec.attribution {
            out.push('\n');
            out.push_str(&attribution_table::render(&codec.result.figures, attribution));
        }
    }
    out
}

fn head(out: &mut String, r: &Validation) -> std::fmt::Result {
    writeln!(out, "kvgauge {}, protocol `{}`", r.kvgauge_version, r.subject.protocol)?;
    subject_lines(out, &r.subject)?;
    if let Some(check) = &r.cross_check {
        writeln!(
            out,
            "checked   candle-transformers' Llama agrees to {:.1e} in logits up to {:.1}",
            check.largest_difference, check.largest_logit
        )?;
    }
    let t = &r.timings_s;
    writeln!(
        out,
        "time      {:.1} s, of which {:.1} s loading, {:.2} s codecs",
        t.total, t.load, t.codec
    )?;
    baseline_line(out, &r.baseline)
}

pub(super) fn baseline_line(out: &mut String, baseline: &Baseline) -> std::fmt::Result {
    writeln!(out, "baseline  perplexity {:.4}", baseline.perplexity)
}

/// Model, text and windows.
pub(super) fn subject_lines(out: &mut String, subject: &SubjectInfo) -> std::fmt::Result {
    let m = &subject.model;
    write!(out, "model     {}", one_line(&m.provenance.source))?;
    if let Some(commit) = &m.provenance.revision {
        write!(out, " at {}", short(commit))?;
    }
    writeln!(
        out,
        "\n          {}, {} layers, {} heads on {} KV heads of {}, {}",
        m.architecture,
        m.layers,
        m.heads,
        m.kv_heads,
        m.head_dim,
        dtype_and_device(subject),
    )?;
    let bos = bos(subject);
    writeln!(out, "text      {} ({} tokens)", one_line(&subject.text.source), subject.text.tokens)?;
    writeln!(
        out,
        "windows   {} of {} × {} tokens, {bos}: {}, {} scored in each",
        subject.windows,
        subject.text.windows_available,
        subject.context,
        compressed(subject),
        subject.scored_tokens / subject.windows.max(1),
    )
}

/// Which tokens of a window.
pub(super) fn compressed(subject: &SubjectInfo) -> String {
    match subject.protocol {
        Protocol::Prefix => format!("{} compressed", subject.prefix),
        Protocol::Decode { residual: 0, .. } => "all compressed".into(),
        Protocol::Decode { residual, .. } => format!("all but the last {residual} compressed"),
    }
}

pub(super) fn dtype_and_device(subject: &SubjectInfo) -> String {
    format!("{} on {}", subject.dtype, subject.device)
}

/// `1 window`, `20 windows`
pub(super) fn windows(count: usize) -> String {
    if count == 1 { "1 window".into() } else { format!("{count} windows") }
}

/// Twelve characters of a commit or a hash are enough to recognise it.
pub(super) fn short(hash: &str) -> &str {
    hash.char_indices().nth(12).map_or(hash, |(end, _)| &hash[..end])
}

pub(super) fn bos(subject: &SubjectInfo) -> &'static str {
    if subject.bos_id.is_some() { "with BOS" } else { "no BOS" }
}

/// Windows the text has from the first one evaluated on.
pub(super) fn windows_left(subject: &SubjectInfo) -> usize {
    subject.text.windows_available.saturating_sub(subject.first_window)
}

/// Why a verdict is open, in words; empty where it is not. The page's script has the same.
pub(super) fn undecided(result: &CodecResult, subject: &SubjectInfo) -> String {
    match (result.verdict, result.windows_needed) {
        (Verdict::Pass | Verdict::Fail, _) => String::new(),
        (Verdict::Inconclusive, Some(windows)) => match windows_left(subject) {
            left if windows <= left => format!("needs {windows} windows"),
            left => format!("needs {windows} windows, text has {left}"),
        },
        (Verdict::Inconclusive, None) if subject.windows < 2 => "one window".into(),
        (Verdict::Inconclusive, None) => "too close".into(),
    }
}

fn rows(r: &Validation) -> Vec<Vec<String>> {
    let title = [
        "codec",
        "bits",
        "ratio",
        "ppl",
        "change",
        "95 % interval",
        "KLD",
        "95 % interval",
        "p99 KLD",
        "top-1",
        "K SNR",
        "V SNR",
    ];
    let mut rows = vec![title.map(String::from).to_vec()];
    for c in r.codecs.iter().map(|codec| &codec.result) {
        let snr = |snr: Option<f64>| snr.map_or("∞".into(), |db| format!("{db:.1}"));
        rows.push(vec![
            c.figures.codec.clone(),
            format!("{:.2}", c.figures.bits_per_value),
            format!("{:.2}×", c.figures.compression_ratio),
            format!("{:.3}", c.figures.perplexity),
            format!("{} %", signed(c.figures.perplexity_change_percent)),
            change_interval(&c.figures),
            small(c.figures.kld_mean),
            kld_interval(&c.figures),
            small(c.figures.kld_p99),
            format!("{:.1} %", 100.0 * c.figures.top1_agreement),
            snr(c.figures.key.snr_db),
            snr(c.figures.value.snr_db),
        ]);
    }
    rows
}

pub(super) fn change_interval(figures: &CodecFigures) -> String {
    signed_ends(figures.perplexity_change_percent_ci95)
}

pub(super) fn signed_ends(ends: Option<[f64; 2]>) -> String {
    ends.map_or("one window".into(), |[low, high]| format!("{} … {}", signed(low), signed(high)))
}

pub(super) fn kld_interval(figures: &CodecFigures) -> String {
    small_ends(figures.kld_mean_ci95)
}

pub(super) fn small_ends(ends: Option<[f64; 2]>) -> String {
    ends.map_or("one window".into(), |[low, high]| format!("{} … {}", small(low), small(high)))
}

/// Six characters for a positive figure of any size.
pub(super) fn small(figure: f64) -> String {
    match figure {
        0.0 | 0.001..10.0 => format!("{figure:.4}"),
        10.0..100.0 => format!("{figure:.3}"),
        100.0..1000.0 => format!("{figure:.2}"),
        _ => format!("{figure:.1e}"),
    }
}

/// With its sign, in five characters up to ±99.9; what rounds to zero is never `-0.00`.
pub(super) fn signed(percent: f64) -> String {
    if percent.is_infinite() {
        return if percent > 0.0 { "+∞".into() } else { "-∞".into() };
    }
    let decimals = if percent.abs() < 9.995 { 2 } else { 1 };
    let text = format!("{percent:+.decimals$}");
    if text == "-0.00" { "+0.00".into() } else { text }
}

/// First column to the left, the others to the right, two spaces between.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                let _ = write!(out, "{cell:<width$}");
            } else {
                let _ = write!(out, "  {cell:>width$}");
            }
        }
        out.push('\n');
    }
    out
}

fn verdict_line(c: &CodecResult, r: &Validation) -> String {
    let limit = r.config.max_ppl_increase;
    let what = match c.verdict {
        Verdict::Pass => {
            format!("PASS: the whole interval is within the limit of {limit:+} % perplexity")
        }
        Verdict::Fail => {
            format!("FAIL: the whole interval is above the limit of {limit:+} % perplexity")
        }
        Verdict::Inconclusive if r.subject.windows < 2 => format!(
            "INCONCLUSIVE: one window has no interval to hold against the limit of {limit:+} %"
        ),
        Verdict::Inconclusive => {
            let left = r.subject.text.windows_available.saturating_sub(r.subject.first_window);
            let advice = match c.windows_needed {
                None => "the change is too close to it to tell".to_string(),
                Some(n) if n <= left => format!("--windows {n} should settle it"),
                Some(n) => format!("it takes about {n} windows, {left} are there"),
            };
            format!("INCONCLUSIVE: the limit of {limit:+} % is inside the interval; {advice}")
        }
    };
    format!("{}: {what}\n", c.figures.codec)
}
