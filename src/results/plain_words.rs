//! A codec in a plain sentence: what it does to predictions and to memory.

use super::figures::CodecResult;
use super::print::{signed, three_digits};
use super::subject::SubjectInfo;

/// `1 prediction in 11 changes, perplexity +0.93 % (decode); cache of 1024 tokens 0.56 MB, not 2.10`, of the
/// protocol that costs more where there are two. `batch`: sequences of the saved GB, told beyond one.
pub(crate) fn sentence(results: &[(&CodecResult, &SubjectInfo)], batch: usize) -> String {
    let kld = |result: &CodecResult| result.figures.kld_mean;
    let worst = results.iter().max_by(|(a, _), (b, _)| kld(a).total_cmp(&kld(b)));
    let Some((result, subject)) = worst else { return String::new() };
    let (f, cache) = (&result.figures, &result.cache);
    let under = match results.len() {
        1 => String::new(),
        _ => format!(" ({})", subject.protocol.name()),
    };
    let saved = match batch {
        1 => String::new(),
        batch => format!(", {} GB less for {batch} of them", three_digits(cache.gb_saved)),
    };
    format!(
        "{}, perplexity {} %{under}; cache of {} tokens {} MB, not {}{saved}",
        changed(1.0 - f.top1_agreement),
        signed(f.perplexity_change_percent),
        subject.context,
        three_digits(cache.cache_mb_per_sequence),
        three_digits(cache.cache_mb_per_sequence_f16),
    )
}

/// The share of targets whose likeliest token changes.
fn changed(share: f64) -> String {
    match share {
        share if share >= 0.2 => format!("{:.0} % of predictions change", 100.0 * share),
        share if share >= 1e-4 => format!("1 prediction in {:.0} changes", 1.0 / share),
        share if share > 0.0 => "fewer than 1 prediction in 10 000 changes".into(),
        _ => "no prediction changes".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    #[test]
    fn shares_are_counted_as_people_do() {
        for (share, words) in [
            (0.31, "31 % of predictions change"),
            (0.091, "1 prediction in 11 changes"),
            (0.0005, "1 prediction in 2000 changes"),
            (0.00001, "fewer than 1 prediction in 10 000 changes"),
            (0.0, "no prediction changes"),
            (-1e-17, "no prediction changes"),
        ] {
            assert_eq!(changed(share), words);
        }
    }

    /// 30 layers × 3 KV heads × 64 channels × 2 are 11520 values a token; 512 tokens of them are 11.8 MB in
    /// 16 bits, and 3.13 MB in 4.25.
    #[test]
    fn the_worse_protocol_speaks() {
        let report = fixture::all().into_iter().find(|(name, _)| *name == "both-protocols");
        let views = report.unwrap().1.by_protocol();
        let of = |view: usize| {
            let cells = &views[view].cells;
            let cell = cells.iter().find(|cell| cell.result.figures.codec == "int4-g64").unwrap();
            (&cell.result, &views[view].subject)
        };
        let said = sentence(&[of(0), of(1)], 1);
        assert!(said.ends_with(" % (decode); cache of 512 tokens 3.13 MB, not 11.8"), "{said}");
        let said = sentence(&[of(0)], fixture::BATCH);
        let end = " %; cache of 512 tokens 3.13 MB, not 11.8, 0.07 GB less for 8 of them";
        assert!(said.ends_with(end), "{said}");
    }
}
