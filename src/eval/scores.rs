//! Scores: two rows of logits held against each other, in f64.
//!
//! A KL divergence of 1e-8 between near-equal rows must come out as such, so everything after
//! the logits is f64: f32 exponentials alone would leave 1e-7.

use super::device_scores;
use crate::error::{Error, Result};
use crate::lanes::{LANES, reduce};
use crate::tensor::with_f32;
use candle_core::{Device, Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// The baseline's view of one scored target.
#[derive(Debug, Clone, Copy)]
pub struct BaseRow {
    pub(super) max: f64,
    /// ln Σ exp(logit)
    pub(super) log_sum: f64,
    pub(super) top: usize,
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
    /// Whether both find the same token likeliest.
    pub same_top: bool,
}

/// Logits of one chunk of targets, [rows, vocab].
pub struct Logits(Tensor);

impl Logits {
    /// Logits `[rows, vocab]`. f32 on the CPU is read where it is; on CUDA the scores are worked out
    /// there; Metal has no f64, and its logits come to the CPU.
    ///
    /// # Errors
    /// A tensor of another rank.
    pub fn new(logits: &Tensor) -> Result<Self> {
        logits.dims2()?;
        let here = match logits.device().is_metal() {
            true => logits.to_device(&Device::Cpu)?,
            false => logits.contiguous()?,
        };
        Ok(Self(here))
    }

    /// One baseline row a target. NaN logits are an error: nothing after them means anything.
    pub fn base_rows(&self, targets: &[u32]) -> Result<Vec<BaseRow>> {
        let read = with_f32([&self.0], |[logits]| {
            let base_row = |(row, target): (&[f32], &u32)| {
                let (top, max, log_sum) = log_sum_exp(row)?;
                let nll = log_sum - f64::from(row[*target as usize]);
                Ok(BaseRow { max, log_sum, top, nll })
            };
            rows(logits, targets.len()).zip(targets).map(base_row).collect()
        })?;
        read.unwrap_or_else(|| {
            let rows = device_scores::rows(&self.0, targets)?;
            let finite = rows.iter().all(|row| row.log_sum.is_finite());
            if finite { Ok(rows) } else { Err(not_finite()) }
        })
    }

    /// Scores this arm's logits against the baseline's.
    pub fn score(
        &self,
        base: &Logits,
        base_rows: &[BaseRow],
        targets: &[u32],
    ) -> Result<Vec<TokenScore>> {
        let read = with_f32([&self.0, &base.0], |[logits, base]| {
            rows(logits, targets.len())
                .zip(rows(base, targets.len()))
                .zip(base_rows.par_iter().zip(targets))
                .map(|((row, base_row), (base, target))| {
                    score_row(row, base_row, base, *target as usize)
                })
                .collect()
        })?;
        read.unwrap_or_else(|| self.score_on_device(base, base_rows, targets))
    }

    fn score_on_device(
        &self,
        base: &Logits,
        base_rows: &[BaseRow],
        targets: &[u32],
    ) -> Result<Vec<TokenScore>> {
        let own = device_scores::rows(&self.0, targets)?;
        let klds = device_scores::divergences(&self.0, &base.0, &own, base_rows)?;
        let rows = own.iter().zip(klds).zip(base_rows);
        rows.map(|((own, kld), base)| token_score(own.nll, kld, own.top == base.top)).collect()
    }
}

fn rows(logits: &[f32], count: usize) -> impl IndexedParallelIterator<Item = &[f32]> {
    logits.par_chunks_exact(logits.len() / count.max(1))
}

fn score_row(row: &[f32], base_row: &[f32], base: &BaseRow, target: usize) -> Result<TokenScore> {
    let (top, _, log_sum) = log_sum_exp(row)?;
    // Σ p·(l0 − l1) − (ln Z0 − ln Z1), with p = exp(l0 − max) / Σ exp(l0 − max)
    let weighted = sum(base_row, row, |l0, l1| exp(l0 - base.max) * (l0 - l1));
    let total = (base.log_sum - base.max).exp();
    let kld = weighted / total - (base.log_sum - log_sum);
    token_score(log_sum - f64::from(row[target]), kld, top == base.top)
}

fn token_score(nll: f64, kld: f64, same_top: bool) -> Result<TokenScore> {
    if !(kld.is_finite() && nll.is_finite()) {
        return Err(not_finite());
    }
    // Rounding alone can make a divergence of equal rows −1e-16.
    Ok(TokenScore { nll, kld: kld.max(0.0), same_top })
}

/// (index of the largest logit, its value, ln Σ exp). The first of equal logits wins.
fn log_sum_exp(row: &[f32]) -> Result<(usize, f64, f64)> {
    let max = Arch::new().dispatch(|| reduce(row, f32::NEG_INFINITY, f32::max));
    let from = f64::from(max);
    let total = sum(row, row, |logit, _| exp(logit - from));
    let top = row.iter().position(|logit| *logit == max).unwrap_or(0);
    // NaN anywhere makes the sum NaN: a maximum alone would pass over it.
    let max = f64::from(max);
    let log_sum = max + total.ln();
    if log_sum.is_finite() { Ok((top, max, log_sum)) } else { Err(not_finite()) }
}

fn not_finite() -> Error {
    Error::not_finite("logits: expected finite numbers, found NaN or infinity")
}

/// Σ f(a, b) over two rows of one length, with the widest registers there are.
fn sum(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> f64 {
    Arch::new().dispatch(Sum { a, b, f })
}

/// Not a closure: see [`crate::lanes`].
struct Sum<'a, F> {
    a: &'a [f32],
    b: &'a [f32],
    f: F,
}

impl<F: Fn(f64, f64) -> f64> WithSimd for Sum<'_, F> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        /// Terms worked out before they are added: a loop without a sum in it vectorises.
        const BLOCK: usize = 8 * LANES;
        let (mut lanes, mut terms) = ([0f64; LANES], [0f64; BLOCK]);
        let ((a, a_rest), (b, b_rest)) = (self.a.as_chunks::<BLOCK>(), self.b.as_chunks::<BLOCK>());
        for (a, b) in a.iter().zip(b) {
            for (term, (a, b)) in terms.iter_mut().zip(a.iter().zip(b)) {
                *term = (self.f)(f64::from(*a), f64::from(*b));
            }
            for terms in terms.as_chunks::<LANES>().0 {
                for (lane, term) in lanes.iter_mut().zip(terms) {
                    *lane += term;
                }
            }
        }
        let rest = a_rest.iter().zip(b_rest);
        let rest: f64 = rest.map(|(a, b)| (self.f)(f64::from(*a), f64::from(*b))).sum();
        lanes.iter().sum::<f64>() + rest
    }
}

/// e^x in f64 to 1e-15 of itself for x in [−700, 700], clamped outside; NaN stays NaN.
/// x = n·ln 2 + r, |r| ≤ ln 2 / 2, and Taylor's polynomial in r; branch-free, so that loops over
/// it vectorise.
#[inline(always)]
fn exp(x: f64) -> f64 {
    // 1.5·2^52: adding it leaves the nearest integer in the low mantissa bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let x = x.clamp(-700.0, 700.0);
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Σ r^k / k!, written out: a loop in here would keep the loop around it from vectorising.
    let mut p = 1.0 / 479_001_600.0;
    p = p * r + 1.0 / 39_916_800.0;
    p = p * r + 1.0 / 3_628_800.0;
    p = p * r + 1.0 / 362_880.0;
    p = p * r + 1.0 / 40_320.0;
    p = p * r + 1.0 / 5_040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    p * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// In f64 a tensor is not read in place, wherever it is.
    #[test]
    fn scores_are_the_same_on_a_device() {
        let (rows, vocab) = (3usize, 5_000usize);
        let base: Vec<f32> =
            (0..rows * vocab).map(|i| ((i * 7919) % 1013) as f32 * 0.013).collect();
        let near: Vec<f32> =
            base.iter().enumerate().map(|(i, l)| l + ((i * 104_729) % 97) as f32 * 1e-4).collect();
        // The largest logits of a row of `base` are equal: the first is the top.
        let targets = [0, 77, 4_999];
        let of = |values: &[f32], dtype: candle_core::DType| {
            let logits = Tensor::from_slice(values, (rows, vocab), &Device::Cpu).unwrap();
            Logits::new(&logits.to_dtype(dtype).unwrap()).unwrap()
        };
        let scored = |dtype| {
            let (base, near) = (of(&base, dtype), of(&near, dtype));
            let rows = base.base_rows(&targets).unwrap();
            let scores = near.score(&base, &rows, &targets).unwrap();
            let own = base.score(&base, &rows, &targets).unwrap();
            (rows, scores, own)
        };
        let (here, there) = (scored(candle_core::DType::F32), scored(candle_core::DType::F64));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        for (here, there) in here.0.iter().zip(&there.0) {
            close(here.nll, there.nll);
            close(here.log_sum, there.log_sum);
            assert_eq!((here.max, here.top), (there.max, there.top));
        }
        for (here, there) in here.1.iter().chain(&here.2).zip(there.1.iter().chain(&there.2)) {
            close(here.nll, there.nll);
            close(here.kld, there.kld);
            assert_eq!(here.same_top, there.same_top);
        }
        assert!(here.1.iter().any(|score| !score.same_top) && here.1[0].kld > 1e-8);
        let nan = Tensor::from_vec(vec![0.0, f64::NAN], (1, 2), &Device::Cpu).unwrap();
        assert!(Logits::new(&nan).unwrap().base_rows(&[0]).is_err());
    }

    #[test]
    fn exp_is_within_1e_15() {
        for i in -700_000..700_000 {
            let x = f64::from(i) * 1e-3;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-15, "exp({x}) = {}", exp(x));
        }
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        assert!(logits(&[0.0, f32::NAN]).base_rows(&[0]).is_err());
        assert!(logits(&[0.0, f32::INFINITY]).base_rows(&[0]).is_err());
    }
}
