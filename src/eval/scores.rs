//! What two rows of logits say about each other, in f64.
//!
//! A KL divergence of 1e-8 between near-equal rows must come out as such, so everything after
//! the logits is f64: f32 exponentials alone would leave 1e-7.

use crate::error::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// The baseline's view of one scored target.
#[derive(Debug, Clone, Copy)]
pub struct BaseRow {
    max: f64,
    /// ln Σ exp(logit)
    log_sum: f64,
    top: usize,
    /// −ln p(target), nats.
    pub nll: f64,
}

/// A codec's view of one scored target, against the baseline's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// −ln p(target), nats.
    pub nll: f64,
    /// KL(base ‖ codec) over the vocabulary, nats.
    pub kld: f64,
    pub same_top: bool,
    /// p(target) of the codec minus that of the baseline.
    pub delta_p: f64,
}

/// Logits of one chunk of targets, row-major on the host.
pub struct Logits {
    values: Vec<f32>,
    vocab: usize,
}

impl Logits {
    /// `logits`: [rows, vocab], f32 on the CPU.
    pub fn new(logits: &Tensor) -> Result<Self> {
        let (_, vocab) = logits.dims2()?;
        Ok(Self { values: logits.flatten_all()?.to_vec1()?, vocab })
    }

    /// One baseline row a target. NaN logits are an error: nothing after them means anything.
    pub fn base_rows(&self, targets: &[u32]) -> Result<Vec<BaseRow>> {
        self.rows(targets)
            .map(|(row, target)| {
                let (top, max, log_sum) = log_sum_exp(row)?;
                Ok(BaseRow { max, log_sum, top, nll: log_sum - f64::from(row[target]) })
            })
            .collect()
    }

    /// Scores this arm's logits against the baseline's.
    pub fn score(
        &self,
        base: &Logits,
        base_rows: &[BaseRow],
        targets: &[u32],
    ) -> Result<Vec<TokenScore>> {
        self.rows(targets)
            .zip(base.values.par_chunks(base.vocab))
            .zip(base_rows)
            .map(|(((row, target), base_row), base)| {
                let (top, _, log_sum) = log_sum_exp(row)?;
                // Σ p·(l0 − l1) − (ln Z0 − ln Z1), with p = exp(l0 − max) / Σ exp(l0 − max)
                let mut weighted = 0f64;
                for (l0, l1) in base_row.iter().zip(row) {
                    let (l0, l1) = (f64::from(*l0), f64::from(*l1));
                    weighted += (l0 - base.max).exp() * (l0 - l1);
                }
                let total = (base.log_sum - base.max).exp();
                let kld = weighted / total - (base.log_sum - log_sum);
                let nll = log_sum - f64::from(row[target]);
                Ok(TokenScore {
                    nll,
                    // Rounding alone can make a divergence of equal rows −1e-16.
                    kld: kld.max(0.0),
                    same_top: top == base.top,
                    delta_p: (-nll).exp() - (-base.nll).exp(),
                })
            })
            .collect()
    }

    fn rows<'a>(
        &'a self,
        targets: &'a [u32],
    ) -> impl IndexedParallelIterator<Item = (&'a [f32], usize)> {
        self.values.par_chunks(self.vocab).zip(targets).map(|(row, target)| (row, *target as usize))
    }
}

/// (index of the largest logit, its value, ln Σ exp). The first of equal logits wins.
fn log_sum_exp(row: &[f32]) -> Result<(usize, f64, f64)> {
    let mut top = 0;
    for (index, logit) in row.iter().enumerate() {
        if *logit > row[top] {
            top = index;
        }
    }
    let max = f64::from(row[top]);
    let sum: f64 = row.iter().map(|logit| (f64::from(*logit) - max).exp()).sum();
    let log_sum = max + sum.ln();
    if log_sum.is_finite() {
        Ok((top, max, log_sum))
    } else {
        Err(Error::system("logits: expected finite numbers, found NaN or infinity")
            .hint("activations overflowed: try --dtype f32 or bf16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn logits(values: &[f32]) -> Logits {
        Logits::new(&Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap()
    }

    #[test]
    fn scores_of_a_distribution_worked_out_by_hand() {
        // base p = (1/2, 1/4, 1/4), codec q = (1/4, 1/2, 1/4)
        let ln2 = std::f32::consts::LN_2;
        let (base, codec) = (logits(&[ln2, 0.0, 0.0]), logits(&[0.0, ln2, 0.0]));
        let rows = base.base_rows(&[0]).unwrap();
        let score = codec.score(&base, &rows, &[0]).unwrap()[0];
        let ln2 = f64::from(ln2);
        assert!((rows[0].nll - ln2).abs() < 1e-7);
        assert!((score.nll - 2.0 * ln2).abs() < 1e-7);
        // ½ ln 2 − ¼ ln 2
        assert!((score.kld - 0.25 * ln2).abs() < 1e-7, "{}", score.kld);
        assert!((score.delta_p + 0.25).abs() < 1e-7);
        assert!(!score.same_top);
    }

    #[test]
    fn tiny_divergences_are_not_drowned_by_rounding() {
        let base: Vec<f32> = (0..50_000).map(|i| ((i * 7919) % 1000) as f32 * 0.01).collect();
        let mut near = base.clone();
        near[17] += 1.0 / 1024.0;
        let p = {
            let z: f64 = base.iter().map(|l| f64::from(*l).exp()).sum();
            f64::from(base[17]).exp() / z
        };
        let (base, near) = (logits(&base), logits(&near));
        let rows = base.base_rows(&[0]).unwrap();
        let found = near.score(&base, &rows, &[0]).unwrap()[0].kld;
        // KL = ln(1 + p (e^δ − 1)) − p δ ≈ p (1 − p) δ² / 2
        let delta = 1.0 / 1024.0f64;
        let expected = (p * delta.exp_m1()).ln_1p() - p * delta;
        assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        assert_eq!(base.score(&base, &rows, &[0]).unwrap()[0].kld, 0.0);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        assert!(logits(&[0.0, f32::NAN]).base_rows(&[0]).is_err());
        assert!(logits(&[0.0, f32::INFINITY]).base_rows(&[0]).is_err());
    }
}
