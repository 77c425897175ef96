//! Verdicts in words. The page's script has the same for another limit.

use super::figures::CodecResult;
use super::print::percent;
use super::subject::SubjectInfo;
use crate::eval::verdict::{Judgement, LEAST_WINDOWS_TO_PLAN, Limits, Verdict, Verdicts};

/// The limits, in words: `±1 % perplexity, mean KLD at most 0.01`.
pub(crate) fn limits(limits: &Limits) -> String {
    let mut words = format!("±{} % perplexity", limits.max_ppl_change);
    if let Some(most) = limits.max_kld {
        words.push_str(&format!(", mean KLD at most {most}"));
    }
    if let Some(least) = limits.min_top1 {
        words.push_str(&format!(", top-1 at least {} %", in_percent(least)));
    }
    if let Some(most) = limits.max_bytes_per_token {
        words.push_str(&format!(", at most {most} bytes a token"));
    }
    words
}

/// A share as a percentage without a tail of nines.
fn in_percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

/// The verdict, what to do, and what it rests on: a line, and indented ones behind it. Ends without a
/// newline.
pub(crate) fn sentence(result: &CodecResult, subject: &SubjectInfo, against: &Limits) -> String {
    let judgement = &result.judgement;
    let reasons = match judgement.verdict {
        Verdict::Pass => format!("the whole interval is within {}", limits(against)),
        Verdict::Fail | Verdict::Inconclusive => reasons(result, against).join("; "),
        // The reason is the baseline's, which is told once.
        Verdict::Invalid => "nothing was measured that a limit could be held against".into(),
    };
    let word = judgement.verdict.word().to_uppercase();
    let mut lines = vec![format!("{word}{}: {reasons}", to_do(judgement))];
    if judgement.verdict == Verdict::Inconclusive {
        lines.push(advice(result, subject));
    }
    let affected = result.figures.targets_affected;
    if affected < 1.0 {
        let share = percent(affected);
        lines.push(format!("only {share} of the scored targets attend to a stored token"));
    }
    lines.join("\n    ")
}

/// What to do with a codec, behind a comma.
fn to_do(judgement: &Judgement) -> &'static str {
    let Verdicts { perplexity_change, kld, top1, bytes_per_token } = judgement.verdicts;
    let damage = [Some(perplexity_change), kld, top1].contains(&Some(Verdict::Fail));
    match (judgement.verdict, bytes_per_token) {
        (Verdict::Pass, _) => ", use it",
        (Verdict::Inconclusive, _) => ", measure more",
        (Verdict::Fail, Some(Verdict::Fail)) if damage => ", take another codec",
        (Verdict::Fail, Some(Verdict::Fail)) => ", take fewer bits",
        (Verdict::Fail, _) => ", take more bits or another codec",
        (Verdict::Invalid, _) => "",
    }
}

/// The criteria whose verdict is that of the whole, and why.
fn reasons(result: &CodecResult, against: &Limits) -> Vec<String> {
    let judgement = &result.judgement;
    let open = judgement.verdict == Verdict::Inconclusive;
    let mut reasons = Vec::new();
    if judgement.verdicts.perplexity_change == judgement.verdict {
        let limit = against.max_ppl_change;
        let one = result.figures.perplexity_change_percent_ci95.is_none();
        reasons.push(match open {
            true if one => {
                format!("one window has no interval to hold against ±{limit} % perplexity")
            }
            true => format!("an end of ±{limit} % perplexity is inside the interval"),
            false => format!("the whole interval is outside ±{limit} % perplexity"),
        });
    }
    if let (Some(verdict), Some(most)) = (judgement.verdicts.kld, against.max_kld)
        && verdict == judgement.verdict
    {
        reasons.push(match open {
            true => format!("the limit of {most} is inside the interval of the mean KLD"),
            false => format!("the whole interval of the mean KLD is above {most}"),
        });
    }
    if let (Some(verdict), Some(least)) = (judgement.verdicts.top1, against.min_top1)
        && verdict == judgement.verdict
    {
        let least = in_percent(least);
        reasons.push(match open {
            true => format!("the limit of {least} % is inside the interval of top-1"),
            false => format!("the whole interval of top-1 is below {least} %"),
        });
    }
    if let (Some(Verdict::Fail), Some(most)) =
        (judgement.verdicts.bytes_per_token, against.max_bytes_per_token)
    {
        let bytes = result.figures.cache_bytes_per_token;
        reasons.push(format!("{bytes:.0} bytes a token, more than {most}"));
    }
    reasons
}

/// Advice on an open verdict: the windows that would settle it, and a limit that would pass.
fn advice(result: &CodecResult, subject: &SubjectInfo) -> String {
    // Nothing is said of a text whose end was not read.
    let left = windows_left(subject).unwrap_or(usize::MAX);
    let judgement = &result.judgement;
    let mut advice = match (judgement.windows_needed, judgement.windows_needed_ci80) {
        (Some(needed), Some(range)) => {
            let told =
                format!("it takes about {needed} windows (80 % range: {})", range_words(range));
            match range.0 > left {
                true => format!("{told}, the text has {left}: take a longer one"),
                false if needed > left => format!("{told}, the text has {left}"),
                false => told,
            }
        }
        _ if subject.windows < LEAST_WINDOWS_TO_PLAN => match left < LEAST_WINDOWS_TO_PLAN {
            true => format!("the text has {left} windows: take a longer one"),
            false => {
                format!("{LEAST_WINDOWS_TO_PLAN} windows or more tell how many would settle it")
            }
        },
        _ => "it is too close to its limit to tell".into(),
    };
    if let Some([low, high]) = result.figures.perplexity_change_percent_ci95
        && judgement.verdicts.perplexity_change == Verdict::Inconclusive
    {
        // Rounded up, so that it holds.
        let passes = (10.0 * low.abs().max(high.abs())).ceil() / 10.0;
        advice.push_str(&format!("; a limit of ±{passes} % would pass as it is"));
    }
    advice
}

/// `24 to 600`, or `24 or more`
fn range_words((low, high): (usize, Option<usize>)) -> String {
    match high {
        Some(high) => format!("{low} to {high}"),
        None => format!("{low} or more"),
    }
}

/// Why a verdict is open, for a cell of a table; empty where it is not.
pub(crate) fn undecided(result: &CodecResult, subject: &SubjectInfo) -> String {
    let judgement = &result.judgement;
    match (judgement.verdict, judgement.windows_needed_ci80) {
        (Verdict::Inconclusive, Some(range)) => {
            let left = windows_left(subject).unwrap_or(usize::MAX);
            let short = if range.0 <= left { String::new() } else { format!(", text has {left}") };
            format!("needs {} windows{short}", range_words(range))
        }
        (Verdict::Inconclusive, None) if subject.windows < 2 => "one window".into(),
        (Verdict::Inconclusive, None) if subject.windows < LEAST_WINDOWS_TO_PLAN => {
            "few windows".into()
        }
        (Verdict::Inconclusive, None) => "too close".into(),
        _ => String::new(),
    }
}

/// The verdict for a cell of a table.
pub(crate) fn brief(result: &CodecResult, subject: &SubjectInfo) -> String {
    match result.judgement.verdict {
        Verdict::Inconclusive => format!("inconclusive, {}", undecided(result, subject)),
        decided => decided.word().into(),
    }
}

/// The verdict for a table whose legend says what is needed and had.
pub(crate) fn brief_under_legend(result: &CodecResult, subject: &SubjectInfo) -> String {
    match result.judgement.verdict {
        Verdict::Inconclusive => {
            undecided(result, subject).replace(" windows", "").replace(" text", "")
        }
        decided => decided.word().into(),
    }
}

/// Windows the text has from the first one evaluated on; `None` where they were not counted.
pub(crate) fn windows_left(subject: &SubjectInfo) -> Option<usize> {
    Some(subject.text.windows_available?.saturating_sub(subject.first_window))
}

/// Advice where the baseline itself means nothing.
pub(crate) const CHECK: &str = "check that model, tokenizer and text belong together: published weights, \
    their own tokenizer, and plain text in a language the model knows";
