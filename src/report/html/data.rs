//! The data of the page's script: figures on the scales of their intervals, so that it can
//! judge by other limits.

use super::{ONE_WINDOW, none_within, summary};
use crate::error::{Error, Result};
use crate::eval::stats::{Estimate, positive_log, student_t_quantile};
use crate::eval::verdict::{LEAST_WINDOWS_TO_PLAN, Limits, Verdict};
use crate::results::sweep::{CellReport, SweepReport};
use crate::results::verdict_words::windows_left;
use serde::Serialize;

/// Degrees of freedom with a t quantile of their own; above them the script's series is good to 1e-8.
const T_TABLE: usize = 40;

#[derive(Serialize)]
struct Data<'a> {
    limits: Limits,
    /// Quantiles of Student's t for 1 … [`T_TABLE`] degrees of freedom: 97.5 % and 90 %.
    t975: Vec<f64>,
    t900: Vec<f64>,
    /// Fewer say too little of their spread.
    least_windows_to_plan: usize,
    one_window: &'static str,
    subjects: Vec<SubjectData<'a>>,
}

#[derive(Serialize)]
struct SubjectData<'a> {
    windows: usize,
    /// That the text has, from the first one evaluated on, where they were counted.
    windows_left: Option<usize>,
    /// Whether the baseline means something, and all protocols asked for have results.
    judged: bool,
    recommends: bool,
    none_within: String,
    /// Protocol by protocol.
    views: Vec<Vec<CellData<'a>>>,
}

/// A figure on the scale of its interval: mean and standard error over windows.
type OnScale = (f64, Option<f64>);

#[derive(Serialize)]
struct CellData<'a> {
    codec: &'a str,
    bits: f64,
    ratio: f64,
    /// Of the cache, a token.
    bytes: f64,
    kld: f64,
    log_ratio: OnScale,
    /// On the log scale; no mean where it is 0.
    log_kld: OnScale,
    top1: OnScale,
    /// Whatever the limits: no target could feel it.
    invalid: bool,
    /// Of the first protocol's cells: for the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
}

impl<'a> CellData<'a> {
    fn new(cell: &'a CellReport, windows: usize, summary: Option<String>) -> Self {
        let f = &cell.result.figures;
        let on_scale = |estimate: Estimate| (estimate.mean, estimate.standard_error);
        Self {
            codec: &f.codec,
            bits: f.bits_per_value,
            ratio: f.compression_ratio,
            bytes: f.cache_bytes_per_token,
            kld: f.kld_mean,
            log_ratio: on_scale(f.log_ratio(windows)),
            log_kld: on_scale(positive_log(&f.kld_per_window)),
            top1: on_scale(f.top1(windows)),
            invalid: cell.result.judgement.verdict == Verdict::Invalid,
            summary,
        }
    }
}

pub fn data(report: &SweepReport) -> Result<String> {
    let subjects = report
        .subjects
        .iter()
        .map(|subject| {
            let windows = subject.subject.windows;
            let vocab_size = subject.subject.model.vocab_size;
            let first = subject
                .cells
                .iter()
                .map(|cell| CellData::new(cell, windows, Some(summary(subject, cell))));
            let decode = subject.decode.as_ref().map(|decode| {
                decode.cells.iter().map(|cell| CellData::new(cell, windows, None)).collect()
            });
            let views: Vec<Vec<CellData>> =
                std::iter::once(first.collect()).chain(decode).collect();
            SubjectData {
                windows,
                windows_left: windows_left(&subject.subject),
                judged: subject.baseline.meaningless(vocab_size).is_none(),
                recommends: views.len() == subject.recommended_under.len(),
                none_within: none_within(subject),
                views,
            }
        })
        .collect();
    let table = |p: f64| (1..=T_TABLE).map(|df| student_t_quantile(p, df as f64)).collect();
    let data = Data {
        limits: report.limits,
        t975: table(0.975),
        t900: table(0.9),
        least_windows_to_plan: LEAST_WINDOWS_TO_PLAN,
        one_window: ONE_WINDOW,
        subjects,
    };
    let json = serde_json::to_string(&data)
        .map_err(|e| Error::system(format!("writing the report: {e}")))?;
    // Nothing in a data block may look like the end of it.
    Ok(json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"))
}
