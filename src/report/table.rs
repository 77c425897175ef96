//! The result as text for a terminal: a head, one row a codec, the verdicts.

use super::align::{align_groups, align_within};
use super::attribution_table;
use super::text::one_line;
use crate::eval::Protocol;
use crate::eval::verdict::{Limits, Verdict};
use crate::model::source::ModelSource;
use crate::results::columns::{DAMAGE, EXACT, FELT, Row, SIZE, Table, VALIDATE, headings, texts};
use crate::results::figures::{Baseline, CodecResult, Floor};
use crate::results::print::{
    self, bos, compressed, dtype_and_device, shape_words, short, three_digits,
};
use crate::results::subject::SubjectInfo;
use crate::results::validation::{FiguresReport, ProtocolResult, Validation};
use crate::results::{plain_words, verdict_words};
use std::fmt::Write;

/// For the headings, which have no room for it.
const LEGEND: &str = "bits a value; MB: cache of a sequence; KLD: mean and 99th percentile, nats; top-1: \
    likeliest token unchanged; SNR in dB\n";
const BOTH_LEGEND: &str = "bits a value; MB: cache of a sequence; interval: 95 %; KLD: mean, nats; top-1: \
    likeliest token unchanged\n";
const FELT_LEGEND: &str = "felt: scored targets that attend to a stored token\n";
const EXACT_LEGEND: &str =
    "exact: values kept in 16 bits, which bits count: sinks, the residual, what fills no block\n";

/// Where the embedded model was tried: what to type for one's own.
const NEXT: &str = "next: your model  kvgauge validate --model OWNER/NAME (or a folder, or model.gguf)\n      \
    your text   kvgauge validate --model OWNER/NAME --text my-prompts.txt\n";

/// Ends with a newline. At most 110 columns for names as long as the default codec's; no
/// colours, so that it can be pasted anywhere. `width`: of the terminal, within which a table that is
/// wider comes in blocks.
pub fn render(result: &Validation, width: Option<usize>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, result);
    out.push('\n');
    match &result.decode {
        Some(decode) => both(&mut out, result, decode, width),
        None => {
            let codecs: Vec<&CodecResult> = result.codecs.iter().map(|c| &c.result).collect();
            let limits = &result.config.limits();
            let judged = Judged { limits, batch: result.config.batch };
            one(&mut out, &result.subject, &result.baseline, &codecs, judged, width);
        }
    }
    for codec in &result.codecs {
        if let Some(attribution) = &codec.attribution {
            out.push('\n');
            out.push_str(&attribution_table::render(&codec.result.figures, attribution, width));
        }
    }
    if result.config.source == ModelSource::Builtin {
        out.push_str(NEXT);
    }
    out
}

/// What verdicts and saved bytes are told for.
#[derive(Clone, Copy)]
struct Judged<'a> {
    limits: &'a Limits,
    /// Sequences.
    batch: usize,
}

/// One protocol: every figure there is room for.
fn one(
    out: &mut String,
    subject: &SubjectInfo,
    baseline: &Baseline,
    codecs: &[&CodecResult],
    Judged { limits, batch }: Judged,
    width: Option<usize>,
) {
    let notable = Notable::of(codecs.iter().copied());
    let columns = notable.behind(VALIDATE);
    let row = |result: &&CodecResult| texts(&columns, &Row::new(result, subject), Table::Validate);
    let mut rows = vec![headings(&columns, Table::Validate)];
    rows.extend(codecs.iter().map(row));
    out.push_str(&align_within(&rows, width));
    out.push_str(LEGEND);
    notable.legend(out);
    out.push('\n');
    if let Some(reason) = meaningless(baseline, subject) {
        out.push_str(&reason);
        return;
    }
    for result in codecs {
        let plain = plain_words::sentence(&[(result, subject)], batch);
        let says = verdict_words::sentence(result, subject, limits);
        let _ = writeln!(out, "{}: {plain}\n  {says}", result.figures.codec);
    }
}

/// Figures of a measurement that another program made: a head, one row a codec, the verdicts.
pub fn render_figures(figures: &FiguresReport, width: Option<usize>) -> String {
    let FiguresReport { kvgauge_version, subject, limits, batch, baseline, codecs, .. } = figures;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "kvgauge {kvgauge_version}, protocol `{}`", subject.protocol);
    let _ = subject_lines(&mut out, subject);
    let _ = baseline_line(&mut out, baseline);
    let _ = cache_line(&mut out, codecs.first(), subject);
    out.push('\n');
    let judged = Judged { limits, batch: *batch };
    one(&mut out, subject, baseline, &codecs.iter().collect::<Vec<_>>(), judged, width);
    out
}

/// Both protocols side by side.
fn both(out: &mut String, r: &Validation, decode: &ProtocolResult, width: Option<usize>) {
    let notable = Notable::of(r.codecs.iter().chain(&decode.codecs).map(|codec| &codec.result));
    let damage = notable.behind(DAMAGE);
    let of_decode = SubjectInfo { protocol: decode.protocol, ..r.subject.clone() };
    let of = |columns: &[&str], result: &CodecResult, subject: &SubjectInfo| {
        texts(columns, &Row::new(result, subject), Table::Protocols)
    };
    let titles = [SIZE, &damage[..], &damage[..]];
    let mut rows = vec![titles.map(|columns| headings(columns, Table::Protocols)).concat()];
    for codec in &r.codecs {
        let result = &codec.result;
        let mut row = of(SIZE, result, &r.subject);
        row.extend(of(&damage, result, &r.subject));
        match decode.of(&result.figures.codec) {
            Some(result) => row.extend(of(&damage, result, &of_decode)),
            None => {
                row.push("no verdict".into());
                row.resize(rows[0].len(), String::new());
            }
        }
        rows.push(row);
    }
    let groups = [SIZE.len(), SIZE.len() + damage.len()];
    let names = [r.subject.protocol, decode.protocol].map(name_of);
    out.push_str(&beside(&rows, groups, &names, width));
    out.push_str(BOTH_LEGEND);
    notable.legend(out);
    for protocol in [r.subject.protocol, decode.protocol] {
        out.push_str(protocol.tells());
        out.push('\n');
    }
    out.push('\n');
    if let Some(reason) = meaningless(&r.baseline, &r.subject) {
        out.push_str(&reason);
        return;
    }
    for codec in &r.codecs {
        let result = &codec.result;
        let name = &result.figures.codec;
        let beside = decode.of(name);
        let results: Vec<_> = std::iter::once((result, &r.subject))
            .chain(beside.map(|result| (result, &of_decode)))
            .collect();
        let plain = plain_words::sentence(&results, r.config.batch);
        let prefix = verdict_words::sentence(result, &r.subject, &r.config.limits());
        let _ = writeln!(out, "{name}: {plain}\n  prefix: {prefix}");
        let says = match (beside, decode.refused.iter().find(|c| c.codec == *name)) {
            (Some(result), _) => verdict_words::sentence(result, &of_decode, &r.config.limits()),
            (None, Some(refused)) => format!("no verdict: {}", one_line(&refused.error)),
            (None, None) => continue,
        };
        let _ = writeln!(out, "  decode: {says}");
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

/// A table whose columns from each of `groups` on are a protocol's, with the protocols' names above them;
/// below each other where the terminal is narrower.
fn beside(
    rows: &[Vec<String>],
    groups: [usize; 2],
    names: &[String; 2],
    width: Option<usize>,
) -> String {
    let (table, starts) = align_groups(rows, &groups);
    let longest = table.lines().map(|line| line.chars().count()).max();
    if longest <= width || width.is_none() {
        let mut titles = String::new();
        for (name, at) in names.iter().zip(&starts) {
            titles.push_str(&" ".repeat(at.saturating_sub(titles.chars().count())));
            titles.push_str(name);
        }
        return format!("{titles}\n{table}");
    }
    let ends = [0, groups[0], groups[1], rows[0].len()];
    let part = |part: usize| -> Vec<Vec<String>> {
        let of_row = |row: &Vec<String>| {
            let first = (part > 0).then(|| row[0].clone());
            first.into_iter().chain(row[ends[part]..ends[part + 1]].iter().cloned()).collect()
        };
        rows.iter().map(of_row).collect()
    };
    let block = |at: usize| align_within(&part(at), width);
    format!("{}\n{}\n{}\n{}\n{}", block(0), names[0], block(1), names[1], block(2))
}

/// A protocol, and what it kept exact.
fn name_of(protocol: Protocol) -> String {
    match protocol.residual() {
        0 => protocol.name().into(),
        residual => format!("{}, residual {residual}", protocol.name()),
    }
}

/// Which columns say something that they do not say of most codecs.
struct Notable {
    /// Some scored targets cannot feel a codec.
    felt: bool,
    /// A codec keeps some values in 16 bits.
    exact: bool,
}

impl Notable {
    fn of<'a>(codecs: impl Iterator<Item = &'a CodecResult>) -> Self {
        let mut all = Self { felt: false, exact: false };
        for CodecResult { figures, .. } in codecs {
            all.felt |= figures.targets_affected < 1.0;
            all.exact |= figures.exact_share.is_some_and(|share| share > 0.0);
        }
        all
    }

    fn behind(&self, columns: &[&'static str]) -> Vec<&'static str> {
        let own = [self.felt.then_some(FELT), self.exact.then_some(EXACT)];
        columns.iter().copied().chain(own.into_iter().flatten()).collect()
    }

    fn legend(&self, out: &mut String) {
        for (_, legend) in
            [(self.felt, FELT_LEGEND), (self.exact, EXACT_LEGEND)].iter().filter(|(said, _)| *said)
        {
            out.push_str(legend);
        }
    }
}

/// The verdict of all codecs where the baseline itself means nothing: said once.
pub(super) fn meaningless(baseline: &Baseline, subject: &SubjectInfo) -> Option<String> {
    let reason = baseline.meaningless(subject.model.vocab_size)?;
    Some(format!("INVALID: {reason}\n{}\n", verdict_words::CHECK))
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
            "checked   candle-transformers' {} agrees to {:.1e} in logits up to {:.1}",
            check.module, check.largest_difference, check.largest_logit
        )?;
    }
    let t = &r.timings_s;
    writeln!(
        out,
        "time      {:.1} s, of which {:.1} s loading, {:.2} s codecs",
        t.total, t.load, t.codec
    )?;
    baseline_line(out, &r.baseline)?;
    cache_line(out, r.codecs.first().map(|codec| &codec.result), &r.subject)?;
    floor_line(out, r)
}

/// Of a run in 16 bits: what no codec's KL divergence says anything below.
fn floor_line(out: &mut String, r: &Validation) -> std::fmt::Result {
    let decode = r.decode.iter().map(|decode| (decode.protocol, &decode.baseline));
    let each = [(r.subject.protocol, &r.baseline)].into_iter().chain(decode);
    let said = each.filter_map(|(protocol, baseline)| {
        Some(format!("{} {}", protocol.name(), floor_words(baseline.floor.as_ref()?)))
    });
    let said: Vec<String> = said.collect();
    if said.is_empty() {
        return Ok(());
    }
    let dtype = &r.subject.dtype;
    writeln!(out, "floor     KLD of another rounding to {dtype}: {}", said.join(", "))
}

/// With its interval.
pub(super) fn floor_words(floor: &Floor) -> String {
    let Floor { kld_mean, kld_mean_ci95 } = floor;
    format!("{} ({})", print::small(*kld_mean), print::interval(*kld_mean_ci95, print::small))
}

pub(super) fn baseline_line(out: &mut String, baseline: &Baseline) -> std::fmt::Result {
    writeln!(out, "baseline  perplexity {:.4}", baseline.perplexity)
}

/// The cache in 16 bits.
pub(super) fn cache_line(
    out: &mut String,
    result: Option<&CodecResult>,
    subject: &SubjectInfo,
) -> std::fmt::Result {
    let Some(size) = result.map(|result| result.cache) else { return Ok(()) };
    writeln!(
        out,
        "cache     {} MB a sequence of {} tokens in 16 bits, {} MB per 1000 tokens",
        three_digits(size.cache_mb_per_sequence_f16),
        subject.context,
        three_digits(size.cache_mb_per_1000_tokens_f16)
    )
}

/// Model, text and windows.
pub(super) fn subject_lines(out: &mut String, subject: &SubjectInfo) -> std::fmt::Result {
    let m = &subject.model;
    write!(out, "model     {}", one_line(m.name()))?;
    if let Some(commit) = &m.provenance.revision {
        write!(out, " at {}", short(commit))?;
    }
    writeln!(
        out,
        "\n          {}, {}, {}",
        m.architecture,
        shape_words(m),
        dtype_and_device(subject),
    )?;
    let bos = bos(subject);
    let text = &subject.text;
    let size = match text.tokens {
        Some(tokens) => format!("{tokens} tokens"),
        None => format!("{} bytes", text.bytes),
    };
    writeln!(out, "text      {} ({size})", one_line(text.name()))?;
    let of = text.windows_available.map_or(String::new(), |all| format!(" of {all}"));
    writeln!(
        out,
        "windows   {}{of} × {} tokens, {bos}: {}, {} scored in each",
        subject.windows,
        subject.context,
        compressed(subject),
        subject.scored_tokens / subject.windows.max(1),
    )
}
