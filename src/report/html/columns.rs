//! The columns of the table of all cells.

use super::minus;
use crate::codec::Distortion;
use crate::eval::verdict::Verdict;
use crate::report::table::{bos, change_interval, kld_interval, signed, small};
use crate::report::text::escape;
use crate::report::verdict::undecided;
use crate::results::subject::SubjectInfo;
use crate::results::sweep::{CellReport, SubjectReport};

pub struct Column {
    pub name: &'static str,
    /// What it is and in which unit.
    pub meaning: &'static str,
    pub class: &'static str,
    /// What it is sorted by, a number unless the class is `name` and empty where missing, and
    /// what is shown. Both are fit for HTML.
    pub cell: fn(&CellReport, &SubjectReport) -> (String, String),
}

const fn number(
    name: &'static str,
    meaning: &'static str,
    cell: fn(&CellReport, &SubjectReport) -> (String, String),
) -> Column {
    Column { name, meaning, class: "n", cell }
}

/// The same in every row, and in the caption too.
const fn setting(
    name: &'static str,
    meaning: &'static str,
    cell: fn(&CellReport, &SubjectReport) -> (String, String),
) -> Column {
    Column { name, meaning, class: "n same", cell }
}

pub const COLUMNS: [Column; 28] = [
    Column {
        name: "codec",
        meaning: "Name of the codec. ★: recommended at the limit.",
        class: "name",
        cell: |cell, _| {
            let name = escape(&cell.result.figures.codec);
            (name.clone(), format!("<code>{}</code>", breakable(&name)))
        },
    },
    Column {
        name: "verdict",
        meaning: "Pass: the whole interval of the perplexity change is within ± the limit, and those \
            of KLD and top-1 within theirs where there are any. Fail: one whole interval is outside. \
            Inconclusive: an interval holds its limit; how many windows would settle it, with 80 % \
            confidence, if any number would. Invalid: nothing was measured that could be judged.",
        class: "verdict",
        cell: |cell, subject| {
            let html = verdict_html(cell, &subject.subject);
            (verdict_order(cell.result.judgement.verdict).to_string(), html)
        },
    },
    number(
        "felt",
        "Scored targets that attend to a stored token, percent: the others see the cache as it was.",
        |cell, _| of(cell.result.figures.targets_affected, |v| format!("{:.1} %", 100.0 * v)),
    ),
    number("bits", "Stored bits a cached value, scales included.", |cell, _| {
        of(cell.result.figures.bits_per_value, |v| format!("{v:.3}"))
    }),
    number("ratio", "f16 bytes over stored bytes.", |cell, _| {
        of(cell.result.figures.compression_ratio, |v| format!("{v:.2}×"))
    }),
    number("bytes/token", "Stored bytes of cache a token, all layers.", |cell, _| {
        of(cell.result.figures.cache_bytes_per_token, |v| format!("{v:.0}"))
    }),
    number("ppl", "Perplexity under the compressed cache.", |cell, _| {
        of(cell.result.figures.perplexity, |v| {
            if v < 1e5 { format!("{v:.4}") } else { format!("{v:.2e}") }
        })
    }),
    number(
        "ppl change",
        "Change of perplexity against the untouched cache, percent, with its 95 % interval over \
         windows.",
        |cell, _| {
            let f = &cell.result.figures;
            with_interval(of(f.perplexity_change_percent, percent), &minus(&change_interval(f)))
        },
    ),
    number(
        "mean KLD",
        "Mean KL divergence, untouched ‖ compressed, nats a token, with its 95 % interval over \
         windows.",
        |cell, _| {
            let f = &cell.result.figures;
            with_interval(of(f.kld_mean, |v| minus(&small(v))), &minus(&kld_interval(f)))
        },
    ),
    number("KLD p50", "Median KL divergence over tokens, nats.", |cell, _| {
        of(cell.result.figures.kld_p50, |v| minus(&small(v)))
    }),
    number("p90", "90th percentile of the KL divergence over tokens, nats.", |cell, _| {
        of(cell.result.figures.kld_p90, |v| minus(&small(v)))
    }),
    number("p99", "99th percentile of the KL divergence over tokens, nats.", |cell, _| {
        of(cell.result.figures.kld_p99, |v| minus(&small(v)))
    }),
    number("p99.9", "99.9th percentile of the KL divergence over tokens, nats.", |cell, _| {
        of(cell.result.figures.kld_p999, |v| minus(&small(v)))
    }),
    number("max", "Largest KL divergence of a token, nats.", |cell, _| {
        of(cell.result.figures.kld_max, |v| minus(&small(v)))
    }),
    number(
        "top-1",
        "Targets where both arms rank the same token first, percent, with its 95 % interval over \
         windows.",
        |cell, _| {
            let f = &cell.result.figures;
            let interval = f.top1_agreement_ci95.map_or("one window".into(), |[low, high]| {
                format!("{:.1} … {:.1}", 100.0 * low, 100.0 * high)
            });
            with_interval(of(f.top1_agreement, |v| format!("{:.2} %", 100.0 * v)), &interval)
        },
    ),
    number(
        "RMS Δp",
        "Root mean square change of the true token's probability, percentage points.",
        |cell, _| of(cell.result.figures.rms_delta_p, |v| format!("{:.2}", 100.0 * v)),
    ),
    number("K SNR", "Keys: energy over that of the error, dB, all layers.", |cell, _| {
        snr(cell.result.figures.key)
    }),
    number("V SNR", "Values: energy over that of the error, dB, all layers.", |cell, _| {
        snr(cell.result.figures.value)
    }),
    number("K cosine", "Keys: mean cosine over head vectors.", |cell, _| {
        option(cell.result.figures.key.cosine, |v| format!("{v:.5}"))
    }),
    number("V cosine", "Values: mean cosine over head vectors.", |cell, _| {
        option(cell.result.figures.value.cosine, |v| format!("{v:.5}"))
    }),
    number("K RMSE", "Keys: root mean square error, in the cache's own unit.", |cell, _| {
        option(cell.result.figures.key.rmse, |v| minus(&small(v)))
    }),
    number("V RMSE", "Values: root mean square error, in the cache's own unit.", |cell, _| {
        option(cell.result.figures.value.rmse, |v| minus(&small(v)))
    }),
    number(
        "ppl front",
        "●: no other codec of as few bits or fewer has a perplexity nearer to the baseline's.",
        |cell, _| mark(cell.on_perplexity_front),
    ),
    number(
        "KLD front",
        "●: no other codec of as few bits or fewer has a smaller mean KLD.",
        |cell, _| mark(cell.on_kld_front),
    ),
    setting("context", "Tokens of a window.", |_, subject| {
        of(subject.subject.context as f64, |v| format!("{v}"))
    }),
    setting("windows", "Windows evaluated.", |_, subject| {
        of(subject.subject.windows as f64, |v| format!("{v}"))
    }),
    Column {
        name: "protocol",
        meaning: "Protocol, beginning-of-sequence token, dtype and device.",
        class: "name2 same",
        cell: |_, subject| {
            let s = &subject.subject;
            let bos = bos(s);
            let device = crate::report::table::dtype_and_device(s);
            let text = escape(&format!("{}, {bos}, {device}", s.protocol));
            (text.clone(), text)
        },
    },
    Column {
        name: "id",
        meaning: "Of the cell, derived from everything that determines its figures.",
        class: "name2",
        cell: |cell, _| {
            let id = escape(&cell.id);
            (id.clone(), format!("<code>{id}</code>"))
        },
    },
];

fn verdict_order(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Inconclusive => 1,
        Verdict::Fail => 2,
        Verdict::Invalid => 3,
    }
}

/// The script writes the same for other limits.
pub fn verdict_html(cell: &CellReport, subject: &SubjectInfo) -> String {
    let class = cell.result.judgement.verdict.word();
    let words = undecided(&cell.result, subject);
    format!("<span class=\"{class}\">{class}</span> <span class=\"ci\">{words}</span>")
}

fn of(value: f64, show: impl Fn(f64) -> String) -> (String, String) {
    let sort = match value {
        v if v.is_nan() => String::new(),
        v if v.is_infinite() => if v > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        v => format!("{v:e}"),
    };
    (sort, show(value))
}

fn option(value: Option<f64>, show: impl Fn(f64) -> String) -> (String, String) {
    value.map_or((String::new(), "–".into()), |value| of(value, show))
}

/// No SNR: no error at all, or nothing to measure.
fn snr(distortion: Distortion) -> (String, String) {
    match (distortion.snr_db, distortion.rmse) {
        (None, Some(_)) => ("Infinity".into(), "∞".into()),
        (snr, _) => option(snr, |v| minus(&format!("{v:.2}"))),
    }
}

fn mark(on: bool) -> (String, String) {
    if on { ("1".into(), "●".into()) } else { ("0".into(), String::new()) }
}

fn percent(value: f64) -> String {
    format!("{} %", minus(&signed(value)))
}

fn with_interval((sort, html): (String, String), interval: &str) -> (String, String) {
    (sort, format!("{html} <span class=\"ci\">{interval}</span>"))
}

/// A long name may be broken before the values' part.
pub fn breakable(name: &str) -> String {
    name.replace("/v:", "/<wbr>v:")
}
