//! The result of `tune` as text for a terminal: a head, a row a layer, the check on unseen windows, and the
//! codec's name at the end.

use super::align::{align_groups, align_within};
use super::table::{baseline_line, floor_words, meaningless, subject_lines};
use crate::results::columns::{Row, Table, VALIDATE, headings, texts};
use crate::results::figures::CodecResult;
use crate::results::print::{duration, interval, signed_small, small};
use crate::results::subject::SubjectInfo;
use crate::results::tuning::{
    AgainstUniform, Budget, Comparison, PartChoice, SumAndWhole, Tuning, Unchecked, Unseen,
};
use crate::results::validation::RefusedCodec;
use crate::results::verdict_words;
use std::fmt::Write;

/// What the assignment is called in tables: its name is long.
const TUNED: &str = "tuned";

/// Ends with a newline; the name of the codec stands alone on the last line. `width`: of the terminal, within
/// which a table that is wider comes in blocks.
pub fn render(tuning: &Tuning, width: Option<usize>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, tuning);
    out.push('\n');
    out.push_str(&layers(tuning, width));
    let _ = sums(&mut out, tuning);
    for unseen in &tuning.unseen {
        let _ = checked(&mut out, tuning, unseen, width);
    }
    for Unchecked { protocol, refused } in &tuning.unchecked {
        let _ = writeln!(out, "\nprotocol `{protocol}`: no verdict");
        for RefusedCodec { codec, error, .. } in refused {
            let name = if *codec == tuning.codec { TUNED } else { codec };
            let _ = writeln!(out, "{name}: {error}");
        }
    }
    let _ = writeln!(
        out,
        "\n{:.2} bits a value, {:.0} bytes of cache a token in place of {:.0}; for --codec everywhere:\n{}",
        tuning.bits, tuning.cache_bytes_per_token, tuning.cache_bytes_per_token_f16, tuning.codec
    );
    out
}

fn head(out: &mut String, tuning: &Tuning) -> std::fmt::Result {
    let budget = match tuning.budget {
        Budget::Bits(bits) => format!("the least damage within {bits} bits a value"),
        Budget::MaxKld(kld) => format!("the fewest bytes within a mean KLD of {kld}"),
    };
    let Tuning { kvgauge_version, subject, .. } = tuning;
    writeln!(out, "kvgauge {kvgauge_version}, tune: {budget}, protocol `{}`", subject.protocol)?;
    subject_lines(out, subject)?;
    baseline_line(out, &tuning.baseline)?;
    let (parts, timings) = (2 * tuning.layers.len(), &tuning.timings_s);
    writeln!(
        out,
        "parts     {parts}, {} measurements; {} for them, {} for the check, {} in all",
        tuning.measurements,
        duration(timings.measuring),
        duration(timings.validating),
        duration(timings.total)
    )
}

fn layers(tuning: &Tuning, width: Option<usize>) -> String {
    let titles = ["layer", "keys", "bits", "KLD", "values", "bits", "KLD"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    let cells = |part: &PartChoice| {
        [part.codec.clone(), format!("{:.2}", part.bits_per_value), small(part.kld_mean)]
    };
    for layer in &tuning.layers {
        let mut row = vec![layer.layer.to_string()];
        row.extend(cells(&layer.key.chosen));
        row.extend(cells(&layer.value.chosen));
        rows.push(row);
    }
    let (table, _) = align_groups(&rows, &[1, 4]);
    let fits = width.is_none_or(|width| table.lines().all(|line| line.chars().count() <= width));
    if fits { table } else { align_within(&rows, width) }
}

fn sums(out: &mut String, tuning: &Tuning) -> std::fmt::Result {
    let SumAndWhole { measured, whole_kld_mean, unseen_kld_mean, .. } = &tuning.sum;
    writeln!(
        out,
        "KLD: of each part alone, the rest in f16, nats a token\n\
         sum of the parts {}; the whole {} on the same windows, difference {} ({})",
        small(measured.kld_mean),
        small(*whole_kld_mean),
        signed_small(measured.kld_minus_joint),
        interval(measured.kld_minus_joint_ci95, signed_small),
    )?;
    writeln!(
        out,
        "the whole {} on unseen windows, difference {} ({})",
        small(*unseen_kld_mean),
        signed_small(tuning.sum.kld_minus_unseen),
        interval(tuning.sum.kld_minus_unseen_ci95, signed_small),
    )
}

/// The check under one protocol.
fn checked(
    out: &mut String,
    tuning: &Tuning,
    unseen: &Unseen,
    width: Option<usize>,
) -> std::fmt::Result {
    let Unseen { protocol, first_window, windows, subject, .. } = unseen;
    writeln!(
        out,
        "\nunseen windows {first_window} to {}, protocol `{protocol}`",
        first_window + windows - 1
    )?;
    let row = |result: &CodecResult, name: Option<&str>, subject: &SubjectInfo| {
        let mut row = texts(VALIDATE, &Row::new(result, subject), Table::Validate);
        if let (Some(first), Some(name)) = (row.first_mut(), name) {
            *first = name.into();
        }
        row
    };
    let mut rows = vec![headings(VALIDATE, Table::Validate)];
    rows.extend(unseen.tuned.iter().map(|tuned| row(tuned, Some(TUNED), subject)));
    let others = unseen.uniform.iter().filter(|result| result.figures.codec != tuning.codec);
    rows.extend(others.map(|result| row(result, None, subject)));
    out.push_str(&align_within(&rows, width));
    if let Some(floor) = &unseen.baseline.floor {
        let (dtype, floor) = (&subject.dtype, floor_words(floor));
        writeln!(
            out,
            "floor: KLD {floor} of another rounding to {dtype}, below which none is a codec's"
        )?;
    }
    for refused in &unseen.refused {
        let name = if refused.codec == tuning.codec { TUNED } else { &refused.codec };
        writeln!(out, "{name}: no verdict: {}", refused.error)?;
    }
    if let Some(reason) = meaningless(&unseen.baseline, subject) {
        out.push_str(&reason);
        return Ok(());
    }
    let Some(tuned) = &unseen.tuned else { return Ok(()) };
    writeln!(out, "{TUNED}: {}", verdict_words::sentence(tuned, subject, &tuning.config.limits()))?;
    match &unseen.against_best {
        None => writeln!(out, "no uniform candidate takes as few bits"),
        Some(against) => writeln!(out, "{}", compared(tuning, against)),
    }
}

/// Whether layers of their own were worth it.
fn compared(tuning: &Tuning, against: &AgainstUniform) -> String {
    let AgainstUniform { codec, kld_ratio, kld_difference, kld_difference_ci95, tuned_is } =
        against;
    let ratio = kld_ratio.map(|ratio| format!(", {ratio:.2} of it")).unwrap_or_default();
    let says = match tuned_is {
        Comparison::Worse => {
            "nothing is gained: a uniform candidate of no more bits is better, take it"
        }
        _ if tuning.is_uniform() => {
            "layers of their own gain nothing; all alike, against the next best"
        }
        Comparison::Better => "below the best uniform candidate of no more bits",
        Comparison::Alike => "not told apart from the best uniform candidate of no more bits",
    };
    format!(
        "KLD {says}, {codec}: {} ({}){ratio}",
        signed_small(*kld_difference),
        interval(*kld_difference_ci95, signed_small)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tuning::fixture;

    #[test]
    fn every_layer_has_a_row_and_the_name_the_last_line() {
        let tuning = fixture::tuning("a/b", 30, 5);
        let table = render(&tuning, None);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.last(), Some(&tuning.codec.as_str()));
        for layer in 0..30 {
            let row = format!("{layer} ");
            assert!(lines.iter().any(|line| line.starts_with(&row)), "{table}");
        }
        assert!(table.contains("\ntuned "), "{table}");
        assert!(table.ends_with('\n') && !table.contains(" \n"), "{table}");
    }

    #[test]
    fn no_gain_is_said_in_plain_words() {
        let mut tuning = fixture::tuning("a/b", 4, 5);
        for (tuned_is, words) in [
            (Comparison::Better, "KLD below the best uniform candidate of no more bits"),
            (Comparison::Alike, "KLD not told apart from the best uniform candidate"),
            (
                Comparison::Worse,
                "KLD nothing is gained: a uniform candidate of no more bits is better",
            ),
        ] {
            tuning.unseen[0].against_best.as_mut().unwrap().tuned_is = tuned_is;
            assert!(render(&tuning, None).contains(words), "{words}");
        }
        tuning.unseen[0].against_best = None;
        assert!(render(&tuning, None).contains("no uniform candidate takes as few bits"));
    }
}
