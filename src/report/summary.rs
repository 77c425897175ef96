//! A result in one line, for the log of a CI job.

use super::text::one_line;
use crate::eval::verdict::Verdict;
use crate::results::figures::CodecResult;
use crate::results::print::{counted, small, windows};
use crate::results::subject::SubjectInfo;
use crate::results::sweep::{SubjectReport, SweepReport};
use crate::results::tuning::{Budget, Tuning};
use crate::results::validation::{ValidatedCodec, Validation};
use crate::results::verdict_words;

/// `kvgauge: 1 of 2 codecs passes within … under prefix and decode: …`, with its newline.
pub fn of_validation(result: &Validation) -> String {
    let verdicts: Vec<_> = result.overall().zip(&result.codecs).collect();
    let of = |wanted: Option<Verdict>| -> Vec<String> {
        let those = verdicts.iter().filter(|((_, verdict), _)| *verdict == wanted);
        let told = |((name, _), own): &((&str, _), &ValidatedCodec)| {
            let decode = result.decode.as_ref().and_then(|decode| decode.of(name));
            told(&own.result, decode)
        };
        those.map(told).collect()
    };
    let passing = of(Some(Verdict::Pass));
    let mut words = format!(
        "{} of {} {} within {} under {}",
        passing.len(),
        verdicts.len(),
        if verdicts.len() == 1 { "codec passes" } else { "codecs pass" },
        verdict_words::limits(&result.config.limits()),
        match &result.decode {
            Some(_) => "prefix and decode".into(),
            None => result.subject.protocol.to_string(),
        }
    );
    let groups = [
        ("pass", passing),
        ("inconclusive", of(Some(Verdict::Inconclusive))),
        ("fail", of(Some(Verdict::Fail))),
        ("invalid", of(Some(Verdict::Invalid))),
        ("no verdict", of(None)),
    ];
    for (verdict, codecs) in groups.iter().filter(|(_, codecs)| !codecs.is_empty()) {
        words.push_str(&format!("; {verdict}: {}", codecs.join(", ")));
    }
    one_line(&format!("kvgauge: {}: {words}", place(&result.subject))) + "\n"
}

/// The assignment with its name, and what the check on unseen windows says of it.
pub fn of_tuning(tuning: &Tuning) -> String {
    let budget = match tuning.budget {
        Budget::Bits(bits) => format!("within {bits} bits a value"),
        Budget::MaxKld(kld) => format!("within a mean KLD of {kld}"),
    };
    let unseen = tuning.unseen.first().map_or(&tuning.subject, |unseen| &unseen.subject);
    let verdicts = tuning.unseen.iter().map(|unseen| {
        let says = match &unseen.tuned {
            Some(tuned) => {
                let verdict = tuned.judgement.verdict.word();
                format!("{verdict}, KLD {}", small(tuned.figures.kld_mean))
            }
            None => "no verdict".into(),
        };
        format!("{} {says}", unseen.protocol.name())
    });
    let unchecked = tuning.unchecked.iter();
    let unchecked = unchecked.map(|unchecked| format!("{} no verdict", unchecked.protocol.name()));
    let verdicts: Vec<String> = verdicts.chain(unchecked).collect();
    one_line(&format!(
        "kvgauge: {}, unseen: tuned {budget}: {:.2} bits; within {}: {}; {}",
        place(unseen),
        tuning.bits,
        verdict_words::limits(&tuning.config.limits()),
        verdicts.join(", "),
        tuning.codec
    )) + "\n"
}

/// A line a subject.
pub fn of_sweep(report: &SweepReport) -> String {
    let limits = verdict_words::limits(&report.limits);
    let line = |subject: &SubjectReport| {
        let (place, under) = (place(&subject.subject), subject.under());
        let found = subject.cells.iter().find(|cell| subject.recommends(cell));
        let says = match found {
            Some(cell) => {
                let decode = subject.decode_cell(&cell.result.figures.codec);
                format!("recommended: {}", told(&cell.result, decode.map(|cell| &cell.result)))
            }
            None => "no codec to recommend".into(),
        };
        one_line(&format!("kvgauge: {place}: {says}, within {limits} under {under}")) + "\n"
    };
    let unfinished = [("failed", &report.failed), ("missing", &report.missing)];
    let counts = unfinished.iter().filter(|(_, cells)| !cells.is_empty());
    let counts =
        counts.map(|(what, cells)| format!("kvgauge: {} {what}\n", counted(cells.len(), "cell")));
    report.subjects.iter().map(line).chain(counts).collect()
}

/// `q8_0 (8.50 bits, KLD 3.3e-4)`, the KLD of the protocol where it is larger.
fn told(result: &CodecResult, decode: Option<&CodecResult>) -> String {
    let f = &result.figures;
    let kld = decode.map_or(f.kld_mean, |decode| f.kld_mean.max(decode.figures.kld_mean));
    format!("{} ({:.2} bits, KLD {})", f.codec, f.bits_per_value, small(kld))
}

fn place(subject: &SubjectInfo) -> String {
    let (model, text) = (subject.model.name(), subject.text.name());
    format!("{model} on {text}, {} of {} tokens", windows(subject.windows), subject.context)
}
