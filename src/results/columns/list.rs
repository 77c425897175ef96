//! The entries: one a column.

use super::{Column, INTERVAL, Level, Print, RANGE, Row, Table, Value};
use crate::codec::Distortion;
use crate::eval::Protocol;
use crate::eval::verdict::Verdict;
use crate::results::print::{bos, dtype_and_device, percent, signed, small, three_digits};
use crate::results::verdict_words;

/// Columns of the page's table; intervals stand in the cell of their figure.
#[rustfmt::skip]
pub(crate) const PAGE: &[&str] = &[
    "codec", "verdict", "targets_affected", "bits_per_value", "exact_share", "compression_ratio",
    "cache_bytes_per_token", "cache_mb_per_sequence", "cache_mb_per_sequence_f16",
    "cache_mb_per_1000_tokens", "cache_mb_per_1000_tokens_f16", "gb_saved", "perplexity",
    "perplexity_change_percent", "perplexity_change_percent_ci95", "kld_mean", "kld_mean_ci95",
    "kld_p50", "kld_p90",
    "kld_p99", "kld_p999", "kld_max", "top1_agreement", "top1_agreement_ci95", "rms_delta_p",
    "key.snr_db", "value.snr_db", "key.cosine", "value.cosine", "key.rmse", "value.rmse",
    "on_perplexity_front", "on_kld_front", "context", "windows", "protocol", "id",
];
/// Of Markdown's table, behind [`SIZE`]; intervals as on the page.
#[rustfmt::skip]
pub(crate) const MARKDOWN: &[&str] = &[
    "perplexity_change_percent", "perplexity_change_percent_ci95", "kld_mean", "kld_mean_ci95",
    "top1_agreement", "verdict",
];
/// Of Markdown's tables of several models, every codec of a model under a protocol.
#[rustfmt::skip]
pub(crate) const COMPARED: &[&str] = &[
    "codec", "bits_per_value", "kld_mean", "kld_mean_ci95", "kld_p50", "kld_p999",
    "perplexity_change_percent", "perplexity_change_percent_ci95", "top1_agreement",
];
/// Of a sweep's table on a terminal.
#[rustfmt::skip]
pub(crate) const SWEEP: &[&str] = &[
    "codec", "bits_per_value", "compression_ratio", "cache_mb_per_sequence", "perplexity",
    "perplexity_change_percent", "perplexity_change_percent_ci95", "kld_mean", "top1_agreement",
    "verdict",
];
/// Of `validate`'s, under one protocol; [`FELT`] and [`EXACT`] stand behind them where they
/// say something.
#[rustfmt::skip]
pub(crate) const VALIDATE: &[&str] = &[
    "codec", "bits_per_value", "compression_ratio", "cache_mb_per_sequence", "perplexity",
    "perplexity_change_percent", "perplexity_change_percent_ci95", "kld_mean", "kld_mean_ci95",
    "kld_p99", "top1_agreement", "key.snr_db", "value.snr_db",
];
/// Under two protocols: those of the codec itself, and those of each protocol.
#[rustfmt::skip]
pub(crate) const SIZE: &[&str] = &[
    "codec", "bits_per_value", "compression_ratio", "cache_mb_per_sequence",
];
#[rustfmt::skip]
pub(crate) const DAMAGE: &[&str] = &[
    "perplexity_change_percent", "perplexity_change_percent_ci95", "kld_mean", "top1_agreement",
];
pub(crate) const FELT: &str = "targets_affected";
pub(crate) const EXACT: &str = "exact_share";

/// In the order of the CSV file and of the schema page.
pub(crate) const COLUMNS: &[Column] = &[
    subject("model.source", "string", "The model as asked for.", |r| {
        text(&r.subject.model.provenance.source)
    }),
    subject("model.revision", "string", "The hub's commit.", |r| {
        r.subject.model.provenance.revision.as_deref().map_or(Value::Missing, text)
    })
    .or_null("local files and the embedded model"),
    subject("text.source", "string", "The text as asked for.", |r| text(&r.subject.text.source)),
    subject("text.sha256", "string", "SHA-256 of its bytes, hex.", |r| {
        text(&r.subject.text.sha256)
    }),
    subject(
        "protocol",
        "string",
        "How the cache is compressed: `prefix`, or `decode` with `residual` and `chunk` beside it.",
        |r| text(r.subject.protocol.name()),
    )
    .on_page("protocol", |r, _| {
        format!("{}, {}, {}", r.subject.protocol, bos(r.subject), dtype_and_device(r.subject))
    }),
    subject(
        "residual",
        "integer",
        "Most recent tokens that stay exact, under `prefix` those of the prefix; there where it is \
         not 0, and under `decode`.",
        |r| match r.subject.protocol {
            Protocol::Prefix { residual: 0 } => Value::Missing,
            protocol => whole(protocol.residual()),
        },
    )
    .of("tokens"),
    subject(
        "chunk",
        "integer",
        "Under `decode` alone: tokens computed together where tokens are not stored one by one.",
        |r| match r.subject.protocol {
            Protocol::Decode { chunk, .. } => whole(chunk),
            Protocol::Prefix { .. } => Value::Missing,
        },
    )
    .of("tokens"),
    subject("context", "integer", "Tokens of a window.", |r| whole(r.subject.context))
        .headed("context"),
    subject(
        "prefix",
        "integer",
        "Of a window, tokens before the one that predicts the first scored target; under protocol \
         `prefix` these are compressed but for the last `residual`, under `decode` all but the last \
         `residual` of a window.",
        |r| whole(r.subject.prefix),
    )
    .of("tokens"),
    subject("first_window", "integer", "Index of the first window evaluated.", |r| {
        whole(r.subject.first_window)
    }),
    subject("windows", "integer", "Windows evaluated.", |r| whole(r.subject.windows))
        .headed("windows"),
    subject(
        "scored_tokens",
        "integer",
        "Scored targets over all windows, the same number in each.",
        |r| whole(r.subject.scored_tokens),
    ),
    subject("bos_id", "integer", "Token that replaced the first of every window.", |r| {
        r.subject.bos_id.map_or(Value::Missing, |id| Value::Whole(id.into()))
    })
    .or_null("none did"),
    subject("dtype", "string", "Weights, cache and what is multiplied: `f32`, `bf16` or `f16`.", |r| {
        Value::Text(r.subject.dtype.to_string())
    }),
    subject("device", "string", "`cpu`, `cuda` or `metal`.", |r| {
        Value::Text(r.subject.device.to_string())
    }),
    subject(
        "instruction_set",
        "string",
        "What the model was computed with, on which the last digits depend: `x86-64 avx512`, \
         `x86-64 avx2`, `x86-64 sse2`, of bf16 also `x86-64 amx-bf16` and `x86-64 avx512-bf16`, \
         `aarch64 neon` or a processor's name. Results of one are never put \
         with those of another. `unknown`: from before it was recorded.",
        |r| text(&r.subject.instruction_set),
    ),
    subject(
        "seed",
        "integer",
        "Of what the `noise-` controls draw; no other codec draws numbers.",
        |r| Value::Whole(r.subject.seed),
    ),
    subject(
        "text.windows_available",
        "integer",
        "Windows of this context that the whole text holds.",
        |r| r.subject.text.windows_available.map_or(Value::Missing, whole),
    )
    .or_null("a text of more than 4 MiB, not tokenised to its end"),
    subject(
        "baseline.perplexity",
        "number",
        "Perplexity under the untouched cache: exp of the mean NLL.",
        |r| r.cell.map_or(Value::Missing, |(_, s)| Value::Number(s.baseline.perplexity)),
    )
    .or_null("infinite"),
    cell(
        "id",
        "string",
        "Of the cell, derived from everything that determines its figures.",
        |r| r.cell.map_or(Value::Missing, |(cell, _)| text(&cell.id)),
    )
    .headed("id"),
    cell("codec", "string", "Name of the codec.", |r| text(&r.figures().codec)).headed("codec"),
    cell(
        "targets_affected",
        "number",
        "Share of the scored targets that attend to a stored token: the others see the cache as \
         it was.",
        |r| Value::Number(r.figures().targets_affected),
    )
    .of("0…1")
    .shown("percent", "felt", |v, table| match table {
        Table::Page => percent(v),
        _ if v < 1.0 => percent(v),
        _ => "100 %".into(),
    }),
    cell(
        "bits_per_value",
        "number",
        "Stored bits a cached value of the real payload, scales and everything else included.",
        |r| Value::Number(r.figures().bits_per_value),
    )
    .of("bits")
    .shown("", "bits", |v, table| match table {
        Table::Validate | Table::Protocols => format!("{v:.2}"),
        _ => format!("{v:.3}"),
    }),
    cell(
        "exact_share",
        "number",
        "Share of the values that are kept in 16 bits where the others are packed: sinks, the \
         residual, and what fills no block.",
        |r| r.figures().exact_share.map_or(Value::Missing, Value::Number),
    )
    .of("0…1")
    .or_null("not logged, as by earlier versions and other programs")
    .shown("percent", "exact", |v, _| percent(v)),
    cell("compression_ratio", "number", "f16 bytes over stored bytes.", |r| {
        Value::Number(r.figures().compression_ratio)
    })
    .shown("", "ratio", |v, _| format!("{v:.2}×")),
    cell("cache_bytes_per_token_f16", "number", "Cache of a token of a full context, all layers, in f16; layers with a sliding window keep no more tokens than that.", |r| {
        Value::Number(r.figures().cache_bytes_per_token_f16)
    })
    .of("bytes"),
    cell("cache_bytes_per_token", "number", "Cache of a token of a full context, all layers, as stored; layers with a sliding window keep no more tokens than that.", |r| {
        Value::Number(r.figures().cache_bytes_per_token)
    })
    .of("bytes")
    .shown("", "bytes/token", |v, _| format!("{v:.0}")),
    cell("cache_mb_per_sequence_f16", "number", "Cache of a sequence that fills the context, in f16; MB are 10⁶ bytes.", |r| {
        Value::Number(r.result.cache.cache_mb_per_sequence_f16)
    })
    .of("MB")
    .shown("", "MB/sequence, f16", |v, _| three_digits(v)),
    cell("cache_mb_per_sequence", "number", "The same as stored.", |r| {
        Value::Number(r.result.cache.cache_mb_per_sequence)
    })
    .of("MB")
    .shown("", "MB/sequence", |v, _| three_digits(v))
    .titled(&[
        (Table::Markdown, "MB"),
        (Table::Sweep, "MB"),
        (Table::Validate, "MB"),
        (Table::Protocols, "MB"),
    ]),
    cell("cache_mb_per_1000_tokens_f16", "number", "Cache of 1000 tokens of such a sequence, in f16.", |r| {
        Value::Number(r.result.cache.cache_mb_per_1000_tokens_f16)
    })
    .of("MB")
    .shown("", "MB/1000 tokens, f16", |v, _| three_digits(v)),
    cell("cache_mb_per_1000_tokens", "number", "The same as stored.", |r| {
        Value::Number(r.result.cache.cache_mb_per_1000_tokens)
    })
    .of("MB")
    .shown("", "MB/1000 tokens", |v, _| three_digits(v)),
    cell("gb_saved", "number", "Cache of `batch` such sequences, in f16 less as stored; GB are 10⁹ bytes.", |r| {
        Value::Number(r.result.cache.gb_saved)
    })
    .of("GB")
    .shown("", "GB saved", |v, _| three_digits(v)),
    cell("perplexity", "number", "Perplexity under the compressed cache.", |r| {
        Value::Number(r.figures().perplexity)
    })
    .or_null("infinite")
    .shown("", "ppl", |v, table| match table {
        Table::Page if v < 1e5 => format!("{v:.4}"),
        Table::Page => format!("{v:.2e}"),
        Table::Sweep if v >= 1e5 => format!("{v:.1e}"),
        _ => format!("{v:.3}"),
    }),
    cell("perplexity_change", "number", "The same less the baseline's.", |r| {
        Value::Number(r.figures().perplexity_change)
    })
    .or_null("infinite"),
    cell(
        "perplexity_change_percent",
        "number",
        "Change of perplexity against the untouched cache.",
        |r| Value::Number(r.figures().perplexity_change_percent),
    )
    .of("%")
    .or_null("infinite")
    .shown("percent", "ppl change", |v, _| format!("{} %", signed(v)))
    .titled(&[
        (Table::Sweep, "change"),
        (Table::Validate, "change"),
        (Table::Protocols, "change"),
    ]),
    cell("perplexity_change_percent_ci95", INTERVAL, "Of it.", |r| {
        ends(r.figures().perplexity_change_percent_ci95)
    })
    .of("%")
    .ends(signed),
    cell(
        "mean_log_ratio",
        "number",
        "Mean NLL less the baseline's: ln of the ratio of perplexities.",
        |r| Value::Number(r.figures().mean_log_ratio),
    )
    .of("nats"),
    cell("mean_log_ratio_ci95", INTERVAL, "Of it, Student's t; verdicts rest on it.", |r| {
        ends(r.figures().mean_log_ratio_ci95)
    })
    .of("nats"),
    cell("kld_mean", "number", "Mean KL divergence, untouched ‖ compressed.", |r| {
        Value::Number(r.figures().kld_mean)
    })
    .of("nats a token")
    .shown("", "mean KLD", |v, _| small(v))
    .titled(&[
        (Table::Markdown, "KLD"),
        (Table::Sweep, "KLD"),
        (Table::Validate, "KLD"),
        (Table::Protocols, "KLD"),
    ]),
    cell("kld_mean_ci95", INTERVAL, "Of it, on the log scale: never below 0.", |r| {
        ends(r.figures().kld_mean_ci95)
    })
    .of("nats a token")
    .ends(small),
    cell("kld_p50", "number", "Median KL divergence over scored tokens.", |r| {
        Value::Number(r.figures().kld_p50)
    })
    .of("nats")
    .shown("", "KLD p50", |v, _| small(v)),
    cell("kld_p90", "number", "90th percentile of the KL divergence over scored tokens.", |r| {
        Value::Number(r.figures().kld_p90)
    })
    .of("nats")
    .shown("", "p90", |v, _| small(v)),
    cell("kld_p99", "number", "99th percentile of the KL divergence over scored tokens.", |r| {
        Value::Number(r.figures().kld_p99)
    })
    .of("nats")
    .shown("", "p99", |v, _| small(v))
    .titled(&[(Table::Validate, "p99 KLD")]),
    cell("kld_p999", "number", "99.9th percentile of the KL divergence over scored tokens.", |r| {
        Value::Number(r.figures().kld_p999)
    })
    .of("nats")
    .shown("", "p99.9", |v, _| small(v)),
    cell("kld_max", "number", "Largest KL divergence of a scored token.", |r| {
        Value::Number(r.figures().kld_max)
    })
    .of("nats")
    .shown("", "max", |v, _| small(v)),
    cell(
        "top1_agreement",
        "number",
        "Share of the scored targets for which compressed and untouched cache give the same \
         likeliest token.",
        |r| Value::Number(r.figures().top1_agreement),
    )
    .of("0…1")
    .shown("percent", "top-1", |v, table| match table {
        Table::Page => format!("{:.2} %", 100.0 * v),
        _ => percent(v),
    }),
    cell("top1_agreement_ci95", INTERVAL, "Of it.", |r| ends(r.figures().top1_agreement_ci95))
        .of("0…1")
        .ends(|v| format!("{:.1}", 100.0 * v)),
    cell(
        "rms_delta_p",
        "number",
        "Root mean square change of the true token's probability.",
        |r| Value::Number(r.figures().rms_delta_p),
    )
    .of("0…1")
    .shown("percentage points", "RMS Δp", |v, _| format!("{:.2}", 100.0 * v)),
    rmse("key.rmse", "K RMSE", "Keys: root mean square error, in the cache's own unit.", |r| {
        option(r.figures().key.rmse)
    }),
    snr("key.snr_db", "K SNR", "Keys: energy over that of the error, all layers.", |r| {
        snr_of(r.figures().key)
    }),
    cosine("key.cosine", "K cosine", "Keys: mean cosine over head vectors.", |r| {
        option(r.figures().key.cosine)
    }),
    rmse("value.rmse", "V RMSE", "Values: root mean square error, in the cache's own unit.", |r| {
        option(r.figures().value.rmse)
    }),
    snr("value.snr_db", "V SNR", "Values: energy over that of the error, all layers.", |r| {
        snr_of(r.figures().value)
    }),
    cosine("value.cosine", "V cosine", "Values: mean cosine over head vectors.", |r| {
        option(r.figures().value.cosine)
    }),
    cell(
        "verdict",
        "string",
        "The worst of `verdicts`. `pass`: the whole interval of the perplexity change is within \
         ± the limit, and KLD, top-1 and bytes are within theirs where there are any; `fail`: one \
         whole interval is outside; `inconclusive`: an interval holds its limit, and how many \
         windows would settle it stands beside it, with 80 % confidence, if any number would; \
         `invalid`: nothing was measured that could be judged.",
        |r| verdict(Some(r.result.judgement.verdict)),
    )
    .on_page("verdict", |r, table| match table {
        Table::Page => verdict_words::undecided(r.result, r.subject),
        Table::Sweep => verdict_words::brief_under_legend(r.result, r.subject),
        _ => verdict_words::brief(r.result, r.subject),
    }),
    cell(
        "verdicts.perplexity_change",
        "string",
        "Of the perplexity change alone, against ± `max_ppl_increase`.",
        |r| verdict(Some(r.result.judgement.verdicts.perplexity_change)),
    ),
    cell("verdicts.kld", "string", "The same for `max_kld`; left out where that is `null`.", |r| {
        verdict(r.result.judgement.verdicts.kld)
    }),
    cell(
        "verdicts.top1",
        "string",
        "The same for `min_top1`; left out where that is `null`.",
        |r| verdict(r.result.judgement.verdicts.top1),
    ),
    cell(
        "verdicts.bytes_per_token",
        "string",
        "Of the bytes, which have no interval, against `max_bytes_per_token`; left out where that \
         is `null`.",
        |r| verdict(r.result.judgement.verdicts.bytes_per_token),
    ),
    cell(
        "windows_needed",
        "integer",
        "For `inconclusive`: windows that would settle it if mean and spread are what they look \
         like.",
        |r| r.result.judgement.windows_needed.map_or(Value::Missing, whole),
    )
    .or_null("no number would, or fewer than eight windows, which do not tell"),
    cell(
        "windows_needed_ci80",
        RANGE,
        "`[low, high]`: where that number lies with 80 % confidence; `high` is `null` where there \
         is no upper end.",
        |r| {
            let range = r.result.judgement.windows_needed_ci80;
            range.map_or(Value::Missing, |(low, high)| Value::Range(low, high))
        },
    )
    .or_null("as above"),
    cell(
        "on_perplexity_front",
        "boolean",
        "No other codec of the subject has as few bits or fewer and a perplexity nearer to the \
         baseline's, or fewer bits and one as near.",
        |r| r.cell.map_or(Value::Missing, |(cell, _)| Value::Mark(cell.on_perplexity_front)),
    )
    .headed("ppl front"),
    cell(
        "on_kld_front",
        "boolean",
        "No other codec of the subject has as few bits or fewer and a smaller mean KLD, or fewer \
         bits and one as small.",
        |r| r.cell.map_or(Value::Missing, |(cell, _)| Value::Mark(cell.on_kld_front)),
    )
    .headed("KLD front"),
];

type Get = fn(&Row) -> Value;

const fn column(
    level: Level,
    key: &'static str,
    kind: &'static str,
    meaning: &'static str,
    value: Get,
) -> Column {
    let (unit, null, heading, shown_unit) = ("", "", "", "");
    let (headings, print) = (&[] as &[_], Print::Plain);
    Column { key, level, kind, unit, meaning, null, heading, headings, shown_unit, value, print }
}

const fn subject(
    key: &'static str,
    kind: &'static str,
    meaning: &'static str,
    value: Get,
) -> Column {
    column(Level::Subject, key, kind, meaning, value)
}

const fn cell(key: &'static str, kind: &'static str, meaning: &'static str, value: Get) -> Column {
    column(Level::Cell, key, kind, meaning, value)
}

const fn rmse(
    key: &'static str,
    heading: &'static str,
    meaning: &'static str,
    value: Get,
) -> Column {
    let column = cell(key, "number", meaning, value).or_null("nothing to measure");
    column.shown("", heading, |v, _| small(v))
}

const fn snr(
    key: &'static str,
    heading: &'static str,
    meaning: &'static str,
    value: Get,
) -> Column {
    let column = cell(key, "number", meaning, value).of("dB");
    column.or_null("no error at all, or nothing to measure").shown("", heading, |v, table| {
        match table {
            _ if v.is_infinite() => "∞".into(),
            Table::Page => format!("{v:.2}"),
            _ => format!("{v:.1}"),
        }
    })
}

const fn cosine(
    key: &'static str,
    heading: &'static str,
    meaning: &'static str,
    value: Get,
) -> Column {
    let column = cell(key, "number", meaning, value).or_null("nothing to measure");
    column.shown("", heading, |v, _| format!("{v:.5}"))
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn whole(count: usize) -> Value {
    Value::Whole(count as u64)
}

fn option(figure: Option<f64>) -> Value {
    figure.map_or(Value::Missing, Value::Number)
}

fn ends(interval: Option<[f64; 2]>) -> Value {
    interval.map_or(Value::Missing, Value::Interval)
}

fn verdict(verdict: Option<Verdict>) -> Value {
    verdict.map_or(Value::Missing, |verdict| text(verdict.word()))
}

/// No SNR, but an error: it is zero.
fn snr_of(distortion: Distortion) -> Value {
    match distortion.rmse {
        Some(_) => Value::Number(distortion.snr_db.unwrap_or(f64::INFINITY)),
        None => option(distortion.snr_db),
    }
}
