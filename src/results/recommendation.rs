//! The codec to use for a limit on the perplexity change, and the codecs that no other one beats. What is
//! chosen by one other figure is in [`super::answers`].

use super::figures::CodecResult;
use serde::Serialize;

/// Limits that recommendations are given for beside the one asked for, percent.
const USUAL_LIMITS: [f64; 5] = [0.1, 0.5, 1.0, 2.0, 5.0];

/// The codec with the fewest bits a value that is smaller than f16 and passes under every
/// protocol that was asked for, with this limit on the perplexity change and the other limits as
/// they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// Percent.
    pub max_ppl_increase: f64,
    /// `None`: no codec of this sweep.
    pub codec: Option<String>,
}

/// For the limit `asked` for first, then for usual ones; of no codec where a protocol is not `complete`.
/// `first`, `decode`: cells of each protocol by id.
pub fn recommendations(
    first: &[(String, CodecResult)],
    decode: Option<&[(String, CodecResult)]>,
    complete: bool,
    asked: f64,
) -> Vec<Recommendation> {
    let usual = USUAL_LIMITS.into_iter().filter(|usual| *usual != asked);
    let recommendation = |limit| Recommendation {
        max_ppl_increase: limit,
        codec: recommend(first, decode, limit).filter(|_| complete),
    };
    std::iter::once(asked).chain(usual).map(recommendation).collect()
}

/// The name of the codec to use for a limit on the perplexity change, percent.
fn recommend(
    first: &[(String, CodecResult)],
    decode: Option<&[(String, CodecResult)]>,
    limit: f64,
) -> Option<String> {
    let under_decode = |name: &str| match decode {
        None => true,
        Some(cells) => {
            let mut cells = cells.iter().map(|(_, result)| result);
            cells.any(|result| result.figures.codec == name && result.passes(limit))
        }
    };
    first
        .iter()
        .map(|(_, result)| result)
        .filter(|result| result.figures.compression_ratio > 1.0)
        .filter(|result| result.passes(limit) && under_decode(&result.figures.codec))
        .min_by(|a, b| {
            let size = a.figures.bits_per_value.total_cmp(&b.figures.bits_per_value);
            size.then(a.figures.kld_mean.total_cmp(&b.figures.kld_mean))
        })
        .map(|result| result.figures.codec.clone())
}

/// Which results no other one beats: as few bits or fewer, and `damage` smaller; or fewer bits
/// and as little damage.
pub fn front(results: &[&CodecResult], damage: impl Fn(&CodecResult) -> f64) -> Vec<bool> {
    let point = |result: &CodecResult| (result.figures.bits_per_value, damage(result));
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
    let points: Vec<_> = results.iter().map(|result| point(result)).collect();
    points.iter().map(|point| !points.iter().any(|other| beats(*other, *point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    /// Cells of the fixture of that name.
    fn cells(name: &str) -> Vec<(String, CodecResult)> {
        let report = fixture::all().into_iter().find(|(found, _)| *found == name).unwrap().1;
        let cells = report.subjects[0].cells.iter();
        cells.map(|cell| (cell.id.clone(), cell.result.clone())).collect()
    }

    fn told(recommendations: &[Recommendation]) -> Vec<(f64, &str)> {
        let told = recommendations.iter();
        told.map(|r| (r.max_ppl_increase, r.codec.as_deref().unwrap_or("-"))).collect()
    }

    /// Intervals of the fixture's changes, percent: −0.02 … 0.01 (8.25 bits), −0.29 … 0.48 (5),
    /// 0.53 … 1.34 (4.5), 4.26 … 5.98 (4.25), 2.92 … 4.42 (4.125), and far beyond below.
    #[test]
    fn the_smallest_that_passes_is_recommended_and_the_limit_asked_for_is_first() {
        let usual = cells("usual");
        assert_eq!(
            told(&recommendations(&usual, None, true, 2.0)),
            [
                (2.0, "int4-g32"),
                (0.1, "int8-g64"),
                (0.5, "int4-g16"),
                (1.0, "int4-g16"),
                (5.0, "int4-g128")
            ]
        );
        assert_eq!(told(&recommendations(&usual, None, true, 1e-9))[0], (1e-9, "-"));
    }

    #[test]
    fn a_codec_passes_under_every_protocol_that_was_asked_for() {
        let usual = cells("usual");
        let mut decode = usual.clone();
        decode.retain(|(_, result)| result.figures.codec != "int4-g32");
        let both = recommendations(&usual, Some(&decode), true, 2.0);
        assert_eq!(told(&both)[0], (2.0, "int4-g16"));
        let incomplete = recommendations(&usual, None, false, 2.0);
        assert!(told(&incomplete).iter().all(|(_, codec)| *codec == "-"));
    }

    /// Of equals both stay.
    #[test]
    fn the_front_has_what_no_other_beats() {
        let (_, any) = cells("usual").swap_remove(0);
        let points = [(4.0, 0.3), (4.0, 0.2), (5.0, 0.2), (5.0, 0.1), (5.0, 0.1), (8.0, 0.1)];
        let results = points.map(|(bits, kld)| {
            let mut result = any.clone();
            (result.figures.bits_per_value, result.figures.kld_mean) = (bits, kld);
            result
        });
        let front = front(&results.each_ref(), |result| result.figures.kld_mean);
        assert_eq!(front, [false, true, false, true, true, false]);
    }
}
