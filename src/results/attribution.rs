//! How much of a codec's damage each part of the cache carries: `attribution` in `validate`'s JSON.
//!
//! A part is compressed alone, the rest of the cache exact. Damage of parts need not add up to
//! that of the whole: errors can cancel or feed on each other, which is what the sums are for.

use super::figures::CodecFigures;
use crate::eval::attribution::CacheParts;
use crate::eval::stats::{Estimate, positive_ci95};
use serde::Serialize;

/// A codec's damage by part of the cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attribution {
    /// Each part compressed alone.
    #[serde(flatten)]
    pub parts: CacheParts<PartFigures>,
    /// Parts added up, against those parts compressed together.
    pub sums: Sums,
}

/// One part compressed alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartFigures {
    /// Mean KL divergence, nats a token.
    pub kld_mean: f64,
    /// Its 95 % interval; `None` from one window.
    pub kld_mean_ci95: Option<[f64; 2]>,
    /// Of the mean KLD of the whole cache compressed; `None` where that is zero.
    pub kld_share: Option<f64>,
    /// Change of the perplexity, percent.
    pub perplexity_change_percent: f64,
    /// Its 95 % interval.
    pub perplexity_change_percent_ci95: Option<[f64; 2]>,
    /// Mean over a window's targets, nats.
    pub kld_per_window: Vec<f64>,
}

/// KLDs of parts added up, against those parts compressed together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sums {
    /// Each layer's keys and each layer's values, against the whole.
    pub layers: Sum,
    /// Each layer's keys, against the keys of all layers.
    pub layer_keys: Sum,
    /// Each layer's values, against the values of all layers.
    pub layer_values: Sum,
    /// Keys and values of all layers, against the whole.
    pub key_and_value: Sum,
    /// Each head's keys and values, against the whole.
    pub heads: Sum,
}

/// KLDs of several parts added up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sum {
    /// Their sum, nats a token.
    pub kld_mean: f64,
    /// Its 95 % interval.
    pub kld_mean_ci95: Option<[f64; 2]>,
    /// Over the KLD of the parts compressed together; `None` where that is zero.
    pub kld_over_joint: Option<f64>,
    /// The sum less the KLD of the parts compressed together; paired by window.
    pub kld_minus_joint: f64,
    /// Its 95 % interval.
    pub kld_minus_joint_ci95: Option<[f64; 2]>,
}

impl Attribution {
    /// `whole`: of the codec on all of the cache.
    pub fn new(whole: &CodecFigures, alone: &CacheParts<CodecFigures>) -> Self {
        let parts = alone.map(|figures| PartFigures::new(figures, whole.kld_mean));
        let keys = || parts.layers.iter().map(|of| &of.key);
        let values = || parts.layers.iter().map(|of| &of.value);
        let whole = &whole.kld_per_window;
        let sums = Sums {
            layers: Sum::new(keys().chain(values()), whole),
            layer_keys: Sum::new(keys(), &parts.key.kld_per_window),
            layer_values: Sum::new(values(), &parts.value.kld_per_window),
            key_and_value: Sum::new([&parts.key, &parts.value], whole),
            heads: Sum::new(parts.heads.iter().map(|of| &of.both), whole),
        };
        Self { parts, sums }
    }
}

impl PartFigures {
    fn new(figures: &CodecFigures, whole: f64) -> Self {
        Self {
            kld_mean: figures.kld_mean,
            kld_mean_ci95: figures.kld_mean_ci95,
            kld_share: ratio(figures.kld_mean, whole),
            perplexity_change_percent: figures.perplexity_change_percent,
            perplexity_change_percent_ci95: figures.perplexity_change_percent_ci95,
            kld_per_window: figures.kld_per_window.clone(),
        }
    }
}

impl Sum {
    /// `joint`: KLD by window of the parts compressed together.
    fn new<'a>(parts: impl IntoIterator<Item = &'a PartFigures>, joint: &[f64]) -> Self {
        Self::of(parts.into_iter().map(|part| part.kld_per_window.as_slice()), joint)
    }

    /// `parts`: KLD by window of each; `joint`: of all compressed together.
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a [f64]>, joint: &[f64]) -> Self {
        let mut sums = vec![0.0; joint.len()];
        for part in parts {
            for (sum, kld) in sums.iter_mut().zip(part) {
                *sum += kld;
            }
        }
        let pairs = sums.iter().zip(joint);
        // Of either sign, and so Student's t.
        let difference = Estimate::of(&pairs.map(|(sum, joint)| sum - joint).collect::<Vec<_>>());
        let kld_mean = Estimate::of(&sums).mean;
        Self {
            kld_mean,
            kld_mean_ci95: positive_ci95(&sums),
            kld_over_joint: ratio(kld_mean, Estimate::of(joint).mean),
            kld_minus_joint: difference.mean,
            kld_minus_joint_ci95: difference.ci95(),
        }
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    #[test]
    fn sums_are_paired_by_window() {
        let part = |kld: [f64; 3]| {
            let mut figures = fixture::codec_figures("int4-g64", 0.02, 3);
            figures.kld_per_window = kld.to_vec();
            PartFigures::new(&figures, 0.04)
        };
        let parts = [part([0.1, 0.2, 0.6]), part([0.3, 0.2, 0.1])];
        // 0.4, 0.4, 0.7 less these: 0.1 each, with no spread left.
        let sum = Sum::new(&parts, &[0.3, 0.3, 0.6]);
        assert!((sum.kld_mean - 0.5).abs() < 1e-12 && (sum.kld_minus_joint - 0.1).abs() < 1e-12);
        assert!((sum.kld_over_joint.unwrap() - 1.25).abs() < 1e-12);
        let [low, high] = sum.kld_minus_joint_ci95.unwrap();
        assert!((low - 0.1).abs() < 1e-9 && (high - 0.1).abs() < 1e-9, "{low} {high}");
        assert!(parts[0].kld_share.is_some());
    }

    #[test]
    fn nothing_and_one_window_are_summed_too() {
        let none = Sum::new([], &[0.0, 0.0]);
        assert_eq!((none.kld_mean, none.kld_over_joint), (0.0, None));
        assert_eq!(none.kld_minus_joint_ci95, Some([0.0, 0.0]));
        let one = Sum::new([], &[0.5]);
        assert_eq!((one.kld_minus_joint, one.kld_over_joint), (-0.5, Some(0.0)));
        assert_eq!((one.kld_mean_ci95, one.kld_minus_joint_ci95), (None, None));
    }

    #[test]
    fn layers_sum_up_to_what_their_parts_say() {
        let (whole, attribution) = fixture::attribution("int4-g64", 4, 3, 5);
        let layers = &attribution.parts.layers;
        let sum: f64 = layers.iter().map(|of| of.key.kld_mean + of.value.kld_mean).sum();
        let sums = &attribution.sums;
        assert!((sums.layers.kld_mean - sum).abs() < 1e-12);
        let by_side = sums.layer_keys.kld_mean + sums.layer_values.kld_mean;
        assert!((by_side - sum).abs() < 1e-12);
        assert!((sums.layers.kld_minus_joint - (sum - whole.kld_mean)).abs() < 1e-12);
        let keys = &attribution.parts.key;
        assert_eq!(keys.kld_share, Some(keys.kld_mean / whole.kld_mean));
    }
}
