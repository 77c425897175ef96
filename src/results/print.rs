//! Figures as they are written for people.

use super::figures::CodecResult;
use super::subject::{ModelInfo, SubjectInfo};
use crate::eval::Protocol;

/// Six characters for a positive figure of any size.
pub fn small(figure: f64) -> String {
    match figure {
        0.0 | 0.001..10.0 => format!("{figure:.4}"),
        10.0..100.0 => format!("{figure:.3}"),
        100.0..1000.0 => format!("{figure:.2}"),
        _ => format!("{figure:.1e}"),
    }
}

/// With its sign, in five characters up to ±99.9; rounded to zero it is never `-0.00`.
pub fn signed(percent: f64) -> String {
    if percent.is_infinite() {
        return if percent > 0.0 { "+∞".into() } else { "-∞".into() };
    }
    let decimals = if percent.abs() < 9.995 { 2 } else { 1 };
    let text = format!("{percent:+.decimals$}");
    if text == "-0.00" { "+0.00".into() } else { text }
}

/// [`small`] of a figure of either sign, with its sign.
pub fn signed_small(figure: f64) -> String {
    let sign = if figure < 0.0 { '-' } else { '+' };
    format!("{sign}{}", small(figure.abs()))
}

/// A share 0…1 in percent.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A positive figure in three digits, or as many as its whole part has.
pub fn three_digits(figure: f64) -> String {
    match figure.abs() {
        size if size < 9.995 => format!("{figure:.2}"),
        size if size < 99.95 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// In MB of 1e6 or GB of 1e9.
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 * 1e-6 {
        mb if mb < 999.5 => format!("{mb:.0} MB"),
        mb => format!("{:.1} GB", mb * 1e-3),
    }
}

/// The ends of a 95 % interval, each written by `end`; a single window has none.
pub fn interval(ends: Option<[f64; 2]>, end: fn(f64) -> String) -> String {
    ends.map_or("one window".into(), |[low, high]| format!("{} … {}", end(low), end(high)))
}

/// With a minus sign in place of the hyphen, and none before a zero.
pub fn minus(text: &str) -> String {
    let text = text.replace('-', "−");
    if text.trim_matches(['−', '0', '.']).is_empty() { text.replace('−', "") } else { text }
}

/// In the largest unit that keeps two digits.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.95 => "< 1 s".into(),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// The cache in 16 bits: what a codec's MB compare with.
pub fn cache_words(result: &CodecResult, subject: &SubjectInfo) -> String {
    let size = &result.cache;
    format!(
        "Cache in 16 bits: {} MB for a sequence of {} tokens, {} MB for 1000 tokens",
        three_digits(size.cache_mb_per_sequence_f16),
        subject.context,
        three_digits(size.cache_mb_per_1000_tokens_f16)
    )
}

/// `1 cell`, `20 cells`; `one`: a noun whose plural ends in s.
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// `1 window`, `20 windows`
pub fn windows(count: usize) -> String {
    counted(count, "window")
}

/// `30 layers, 9 heads on 3 KV heads of 64`
pub fn shape_words(model: &ModelInfo) -> String {
    format!(
        "{}, {} on {} of {}",
        counted(model.layers, "layer"),
        counted(model.heads, "head"),
        counted(model.kv_heads, "KV head"),
        model.head_dim
    )
}

/// The first twelve characters of a commit or a hash, enough to recognise it.
pub fn short(hash: &str) -> &str {
    hash.char_indices().nth(12).map_or(hash, |(end, _)| &hash[..end])
}

/// Whether windows begin with the beginning-of-sequence token.
pub fn bos(subject: &SubjectInfo) -> &'static str {
    if subject.bos_id.is_some() { "with BOS" } else { "no BOS" }
}

/// `f32 on cpu`
pub fn dtype_and_device(subject: &SubjectInfo) -> String {
    format!("{} on {}", subject.dtype, subject.device)
}

/// The tokens of a window that are stored compressed.
pub fn compressed(subject: &SubjectInfo) -> String {
    match subject.protocol {
        Protocol::Prefix { residual: 0 } => format!("{} compressed", subject.prefix),
        Protocol::Prefix { residual } => {
            format!("all but the last {residual} of {} compressed", subject.prefix)
        }
        Protocol::Decode { residual: 0, .. } => "all compressed".into(),
        Protocol::Decode { residual, .. } => format!("all but the last {residual} compressed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_keeps_two_digits() {
        let told: Vec<String> = [0.2, 1.2, 75.0, 119.0, 5400.0, 90000.0].map(duration).to_vec();
        assert_eq!(told, ["< 1 s", "1 s", "75 s", "2 min", "90 min", "25.0 h"]);
    }

    #[test]
    fn one_is_counted_as_one() {
        let told = [0, 1, 2].map(|count| counted(count, "KV head"));
        assert_eq!(told, ["0 KV heads", "1 KV head", "2 KV heads"]);
        let mut model = crate::results::fixture::subject_info("m", 1, 4).model;
        (model.layers, model.heads, model.kv_heads, model.head_dim) = (18, 4, 1, 256);
        assert_eq!(shape_words(&model), "18 layers, 4 heads on 1 KV head of 256");
    }

    #[test]
    fn three_digits_are_enough() {
        let told = [0.0, 1.114, 9.994, 9.996, 99.94, 99.96, 12345.6].map(three_digits);
        assert_eq!(told, ["0.00", "1.11", "9.99", "10.0", "99.9", "100", "12346"]);
    }

    #[test]
    fn units_fit_the_figure() {
        let told = [48_000_000, 999_400_000, 999_600_000, 4_751_000_000].map(bytes);
        assert_eq!(told, ["48 MB", "999 MB", "1.0 GB", "4.8 GB"]);
    }
}
