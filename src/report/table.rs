//! The result as text for a terminal: a head, one row a codec, the verdicts.

use super::attribution_table;
use super::text::one_line;
use super::verdict::{self, share_felt};
use crate::eval::Protocol;
use crate::eval::verdict::Verdict;
use crate::results::figures::{Baseline, CodecFigures, CodecResult};
use crate::results::subject::SubjectInfo;
use crate::results::validation::{ProtocolResult, Validation};
use std::fmt::Write;

/// What the titles have no room for.
const LEGEND: &str = "bits a value; KLD: mean and 99th percentile, nats; top-1: likeliest token \
    unchanged; SNR in dB\n";
const BOTH_LEGEND: &str = "bits a value; interval: 95 %; KLD: mean, nats; top-1: likeliest token \
    unchanged\n";
const FELT_LEGEND: &str = "felt: scored targets that attend to a stored token\n";

/// Ends with a newline. At most 110 columns for names as long as the default codec's; no
/// colours, so that it can be pasted anywhere.
pub fn render(result: &Validation) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, result);
    out.push('\n');
    match &result.decode {
        Some(decode) => both(&mut out, result, decode),
        None => one(&mut out, result),
    }
    for codec in &result.codecs {
        if let Some(attribution) = &codec.attribution {
            out.push('\n');
            out.push_str(&attribution_table::render(&codec.result.figures, attribution));
        }
    }
    out
}

/// One protocol: every figure there is room for.
fn one(out: &mut String, r: &Validation) {
    let felt = r.codecs.iter().any(|codec| share_felt(&codec.result).is_some());
    out.push_str(&align(&rows(r, felt)));
    out.push_str(LEGEND);
    if felt {
        out.push_str(FELT_LEGEND);
    }
    out.push('\n');
    if let Some(reason) = meaningless(r) {
        out.push_str(&reason);
        return;
    }
    for codec in &r.codecs {
        let result = &codec.result;
        let says = verdict::sentence(result, &r.subject, &r.config.limits());
        out.push_str(&format!("{}: {says}\n", result.figures.codec));
    }
}

/// Both protocols side by side.
fn both(out: &mut String, r: &Validation, decode: &ProtocolResult) {
    let felt = r.codecs.iter().chain(&decode.codecs).any(|c| share_felt(&c.result).is_some());
    let mut title: Vec<String> = ["codec", "bits", "ratio"].map(String::from).to_vec();
    let under = |title: &mut Vec<String>| {
        title.extend(["change", "interval", "KLD", "top-1"].map(String::from));
        title.extend(felt.then(|| "felt".into()));
    };
    under(&mut title);
    let own = title.len();
    under(&mut title);
    let mut rows = vec![title];
    for codec in &r.codecs {
        let result = &codec.result;
        let f = &result.figures;
        let mut row = vec![
            f.codec.clone(),
            format!("{:.2}", f.bits_per_value),
            format!("{:.2}×", f.compression_ratio),
        ];
        row.extend(side(result, felt));
        match decode.of(&f.codec) {
            Some(result) => row.extend(side(result, felt)),
            None => {
                row.extend(["no verdict", "", "", ""].map(String::from));
                row.extend(felt.then(String::new));
            }
        }
        rows.push(row);
    }
    let (table, starts) = align_at(&rows, &[3, own]);
    let heading = |name: &str, at: usize, out: &mut String| {
        let width = out.chars().count();
        out.push_str(&" ".repeat(at.saturating_sub(width)));
        out.push_str(name);
    };
    let mut titles = String::new();
    heading("prefix", starts[0], &mut titles);
    heading(&decode_name(decode.protocol), starts[1], &mut titles);
    out.push_str(&titles);
    out.push('\n');
    out.push_str(&table);
    out.push_str(BOTH_LEGEND);
    if felt {
        out.push_str(FELT_LEGEND);
    }
    for protocol in [r.subject.protocol, decode.protocol] {
        out.push_str(protocol.tells());
        out.push('\n');
    }
    out.push('\n');
    if let Some(reason) = meaningless(r) {
        out.push_str(&reason);
        return;
    }
    let of_decode = SubjectInfo { protocol: decode.protocol, ..r.subject.clone() };
    for codec in &r.codecs {
        let result = &codec.result;
        let name = &result.figures.codec;
        let prefix = verdict::sentence(result, &r.subject, &r.config.limits());
        let _ = writeln!(out, "{name}, prefix: {prefix}");
        let says = match (decode.of(name), decode.refused.iter().find(|c| c.codec == *name)) {
            (Some(result), _) => verdict::sentence(result, &of_decode, &r.config.limits()),
            (None, Some(refused)) => format!("no verdict: {}", one_line(&refused.error)),
            (None, None) => continue,
        };
        let _ = writeln!(out, "{name}, decode: {says}");
    }
    let passed: Vec<&str> = r
        .overall()
        .filter(|(_, verdict)| *verdict == Some(Verdict::Pass))
        .map(|(name, _)| name)
        .collect();
    out.push_str(&match passed.is_empty() {
        true => "no codec passes under both protocols\n".to_string(),
        false => format!("passes under both protocols: {}\n", passed.join(", ")),
    });
}

/// `decode`, and what it kept exact.
fn decode_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::Decode { residual, .. } if residual > 0 => format!("decode, residual {residual}"),
        other => other.name().into(),
    }
}

/// A codec's figures under one of two protocols.
fn side(result: &CodecResult, felt: bool) -> Vec<String> {
    let f = &result.figures;
    let mut cells = vec![
        format!("{} %", signed(f.perplexity_change_percent)),
        change_interval(f),
        small(f.kld_mean),
        format!("{:.1} %", 100.0 * f.top1_agreement),
    ];
    cells.extend(felt.then(|| share_felt(result).unwrap_or_else(|| "100 %".into())));
    cells
}

/// The verdict of all codecs where the baseline itself means nothing: said once.
fn meaningless(r: &Validation) -> Option<String> {
    let reason = r.baseline.meaningless(r.subject.model.vocab_size)?;
    Some(format!("INVALID: {reason}\n{}\n", verdict::CHECK))
}

fn head(out: &mut String, r: &Validation) -> std::fmt::Result {
    let protocols = match &r.decode {
        Some(decode) => format!("protocols `prefix` and `{}`", decode.protocol),
        None => format!("protocol `{}`", r.subject.protocol),
    };
    writeln!(out, "kvgauge {}, {protocols}", r.kvgauge_version)?;
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

fn rows(r: &Validation, felt: bool) -> Vec<Vec<String>> {
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
    rows[0].extend(felt.then(|| "felt".into()));
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
        if let (Some(row), true) = (rows.last_mut(), felt) {
            row.push(share_felt(c).unwrap_or_else(|| "100 %".into()));
        }
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
    align_at(rows, &[]).0
}

/// The same with three more spaces before each of `groups`, and where those columns begin.
fn align_at(rows: &[Vec<String>], groups: &[usize]) -> (String, Vec<usize>) {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let gap = |column: usize| match column {
        0 => 0,
        column if groups.contains(&column) => 5,
        _ => 2,
    };
    let start =
        |column: &usize| (0..*column).map(|c| gap(c) + widths[c]).sum::<usize>() + gap(*column);
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(gap(column));
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "{gap}{cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    (out, groups.iter().map(start).collect())
}
