//! Answers of a sweep for one figure that is given: the cheapest codec within a KL divergence, the best
//! codec within so many bytes. Neither asks for the limit on the perplexity change.

use super::figures::{CodecFigures, CodecResult};
use crate::eval::verdict::{Criterion, Verdict};
use serde::Serialize;

/// Mean KL divergences that there is an answer for beside the one asked for, nats a token.
const USUAL_KLDS: [f64; 3] = [0.001, 0.01, 0.1];
/// Parts of 16 bits' bytes that there is an answer for.
const PARTS_OF_F16: [f64; 3] = [2.0, 3.0, 4.0];

/// The codec with the fewest bytes a token whose mean KL divergence is within a limit, its whole interval
/// under every protocol that was asked for, and that is smaller than f16.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WithinKld {
    /// Nats a token.
    pub max_kld: f64,
    /// `None`: no codec of this sweep.
    pub codec: Option<String>,
}

/// The codec with the smallest mean KL divergence, the larger one of its protocols', that takes no more
/// than so many bytes a token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WithinBytes {
    /// Of a full context.
    pub max_bytes_per_token: f64,
    /// `None`: no codec of this sweep.
    pub codec: Option<String>,
}

/// A codec's results under every protocol that was asked for.
pub struct Candidate<'a>(Vec<&'a CodecResult>);

/// Codecs that are smaller than f16 and have a result under each protocol that says something; none where
/// a protocol is not `complete`. `first`, `decode`: cells of each protocol by id.
pub fn candidates<'a>(
    first: &'a [(String, CodecResult)],
    decode: Option<&'a [(String, CodecResult)]>,
    complete: bool,
) -> Vec<Candidate<'a>> {
    let results = |cells: &'a [(String, CodecResult)]| cells.iter().map(|(_, result)| result);
    let candidate = |result: &'a CodecResult| -> Option<Candidate<'a>> {
        let name = &result.figures.codec;
        let beside = match decode {
            Some(cells) => vec![results(cells).find(|other| other.figures.codec == *name)?],
            None => vec![],
        };
        let all: Vec<_> = std::iter::once(result).chain(beside).collect();
        let says = |result: &&CodecResult| {
            result.judgement.verdict != Verdict::Invalid && result.figures.compression_ratio > 1.0
        };
        all.iter().all(says).then_some(Candidate(all))
    };
    results(first).filter(|_| complete).filter_map(candidate).collect()
}

impl Candidate<'_> {
    fn figures(&self) -> impl Iterator<Item = &CodecFigures> {
        self.0.iter().map(|result| &result.figures)
    }

    fn largest(&self, of: fn(&CodecFigures) -> f64) -> f64 {
        self.figures().map(of).fold(f64::NEG_INFINITY, f64::max)
    }

    fn bytes(&self) -> f64 {
        self.largest(|figures| figures.cache_bytes_per_token)
    }

    fn kld(&self) -> f64 {
        self.largest(|figures| figures.kld_mean)
    }

    fn is_within_kld(&self, most: f64) -> bool {
        let verdict = |f: &CodecFigures| Criterion::kld(&f.kld_per_window, most).verdict();
        self.figures().all(|figures| verdict(figures) == Verdict::Pass)
    }
}

/// The name of the first in order of `key`, smallest first.
fn least<'a>(
    candidates: impl Iterator<Item = &'a Candidate<'a>>,
    key: impl Fn(&Candidate) -> [f64; 2],
) -> Option<String> {
    let compare = |a: &&Candidate, b: &&Candidate| {
        let ([a, then_a], [b, then_b]) = (key(a), key(b));
        a.total_cmp(&b).then(then_a.total_cmp(&then_b))
    };
    Some(candidates.min_by(compare)?.figures().next()?.codec.clone())
}

/// `asked`: the limit of the request.
pub fn cheapest_within_kld(candidates: &[Candidate], asked: Option<f64>) -> Vec<WithinKld> {
    let usual = USUAL_KLDS.into_iter().filter(|usual| Some(*usual) != asked);
    let answer = |max_kld: f64| WithinKld {
        max_kld,
        codec: least(
            candidates.iter().filter(|candidate| candidate.is_within_kld(max_kld)),
            |candidate| [candidate.bytes(), candidate.kld()],
        ),
    };
    asked.into_iter().chain(usual).map(answer).collect()
}

/// `asked`: the limit of the request; `f16`: bytes a token in 16 bits.
pub fn best_within_bytes(
    candidates: &[Candidate],
    asked: Option<f64>,
    f16: f64,
) -> Vec<WithinBytes> {
    let parts = PARTS_OF_F16.into_iter().map(|part| f16 / part);
    let answer = |max_bytes_per_token: f64| WithinBytes {
        max_bytes_per_token,
        codec: least(
            candidates.iter().filter(|candidate| candidate.bytes() <= max_bytes_per_token),
            |candidate| [candidate.kld(), candidate.bytes()],
        ),
    };
    asked.into_iter().chain(parts.filter(|part| Some(*part) != asked)).map(answer).collect()
}

/// `fewest bytes within a mean KLD of 0.001: NAME; 0.01: NAME`, and the same of bytes. `named`: a codec, or
/// that there is none.
pub fn in_words(
    klds: &[WithinKld],
    bytes: &[WithinBytes],
    named: impl Fn(&Option<String>) -> String,
) -> [String; 2] {
    let klds = klds.iter();
    let klds = klds.map(|answer| format!("{}: {}", answer.max_kld, named(&answer.codec)));
    let bytes = bytes
        .iter()
        .map(|answer| format!("{:.0}: {}", answer.max_bytes_per_token, named(&answer.codec)));
    [
        format!("Fewest bytes within a mean KLD of {}", klds.collect::<Vec<_>>().join("; ")),
        format!("Smallest KLD within bytes a token of {}", bytes.collect::<Vec<_>>().join("; ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;
    use crate::results::sweep::SweepReport;

    fn of(name: &str) -> SweepReport {
        fixture::all().into_iter().find(|(found, _)| *found == name).unwrap().1
    }

    /// Limits and codecs.
    type Told = Vec<(f64, String)>;

    fn told(report: &SweepReport) -> (Told, Told) {
        let name = |codec: &Option<String>| codec.clone().unwrap_or_else(|| "-".into());
        let subject = &report.subjects[0];
        (
            subject.cheapest_within_kld.iter().map(|a| (a.max_kld, name(&a.codec))).collect(),
            subject
                .best_within_bytes
                .iter()
                .map(|a| (a.max_bytes_per_token, name(&a.codec)))
                .collect(),
        )
    }

    /// KLDs of the fixture are 4e-5 (8.25 bits), 0.0099 (5 bits, an interval that reaches beyond 0.01),
    /// 0.0121 (4.5), 0.025 (4.25), 0.068 (4.125) and 0.004 (10.125); 30 layers × 3 heads × 64 channels.
    #[test]
    fn the_answer_is_the_first_of_those_within() {
        let (klds, bytes) = told(&of("usual"));
        let codecs: Vec<_> = klds.iter().map(|(limit, codec)| (*limit, codec.as_str())).collect();
        assert_eq!(codecs, [(0.001, "int8-g64"), (0.01, "int8-g64"), (0.1, "int4-g128")]);
        let codecs: Vec<_> = bytes.iter().map(|(limit, codec)| (*limit, codec.as_str())).collect();
        // 8 bits and fewer, 5⅓ and fewer, 4 and fewer.
        assert_eq!(codecs, [(11520.0, "int4-g16"), (7680.0, "int4-g16"), (5760.0, "int3-g64")]);
    }

    /// Ten times the KLD under the other protocol, which the fixture's limit of 0.2 is first of.
    #[test]
    fn both_protocols_count_and_the_limit_asked_for_is_first() {
        let (klds, _) = told(&of("both-protocols"));
        let limits: Vec<f64> = klds.iter().map(|(limit, _)| *limit).collect();
        assert_eq!(limits, [0.2, 0.001, 0.01, 0.1]);
        assert_eq!(klds[1].1, "int8-g64");
        let alone = cheapest_within_kld(&[], Some(0.01));
        let limits: Vec<f64> = alone.iter().map(|answer| answer.max_kld).collect();
        assert_eq!(limits, [0.01, 0.001, 0.1]);
        assert!(alone.iter().all(|answer| answer.codec.is_none()));
        assert_eq!(best_within_bytes(&[], Some(7.0), 14.0).len(), 3);
    }

    #[test]
    fn nothing_is_said_without_an_interval_or_of_a_baseline_that_means_nothing() {
        let none = |answers: &[(f64, String)]| answers.iter().all(|(_, codec)| codec == "-");
        assert!(none(&told(&of("one-window")).0));
        let (klds, bytes) = told(&of("meaningless-baseline"));
        assert!(none(&klds) && none(&bytes));
    }
}
