//! Scores of logits that are not f32 on the CPU, where they are: a few numbers a target leave the
//! device, in place of the vocabulary's. The same quantities as [`super::scores`], in f64 too.

use crate::error::Result;
use candle_core::{DType, Device, Tensor};

/// Of each row of logits: the largest, ln Σ exp, the index of the largest, −ln p(target).
pub struct Rows {
    pub max: Vec<f64>,
    pub log_sum: Vec<f64>,
    pub top: Vec<u32>,
    pub nll: Vec<f64>,
}

/// Logits `[rows, vocab]`, one target a row.
pub fn rows(logits: &Tensor, targets: &[u32]) -> Result<Rows> {
    let logits = logits.to_dtype(DType::F64)?;
    let max = logits.max_keepdim(1)?; // [rows, 1]
    let log_sum = log_sum(&logits, &max)?;
    let of_target = logits.gather(&column(targets, logits.device())?, 1)?;
    Ok(Rows {
        top: first_of(&logits, &max)?,
        nll: (&log_sum - of_target)?.flatten_all()?.to_vec1()?,
        log_sum: log_sum.flatten_all()?.to_vec1()?,
        max: max.flatten_all()?.to_vec1()?,
    })
}

/// KL(base ‖ logits) of each row over the vocabulary, nats; `max` and `log_sum` of the base's rows
/// and `log_sum` of the others.
pub fn divergences(
    logits: &Tensor,
    base: &Tensor,
    [base_max, base_log_sum, log_sum]: [Vec<f64>; 3],
) -> Result<Vec<f64>> {
    let (logits, base) = (logits.to_dtype(DType::F64)?, base.to_dtype(DType::F64)?);
    let rows = base_max.len();
    let shift: Vec<f64> = base_log_sum.iter().zip(&log_sum).map(|(a, b)| a - b).collect();
    let totals: Vec<f64> =
        base_log_sum.iter().zip(&base_max).map(|(sum, max)| (sum - max).exp()).collect();
    let base_max = Tensor::from_vec(base_max, (rows, 1), base.device())?;
    // Σ p·(l0 − l1) − (ln Z0 − ln Z1), with p = exp(l0 − max) / Σ exp(l0 − max)
    let weighted = (base.broadcast_sub(&base_max)?.exp()? * (&base - logits)?)?.sum(1)?;
    let weighted = weighted.to_vec1::<f64>()?;
    Ok(weighted
        .iter()
        .zip(totals)
        .zip(shift)
        .map(|((sum, all), shift)| sum / all - shift)
        .collect())
}

/// ln Σ exp of each row, [rows, 1].
fn log_sum(logits: &Tensor, max: &Tensor) -> Result<Tensor> {
    Ok((logits.broadcast_sub(max)?.exp()?.sum_keepdim(1)?.log()? + max)?)
}

/// The index of the first of the largest: which of equal ones an argmax takes is left to the device.
fn first_of(logits: &Tensor, max: &Tensor) -> Result<Vec<u32>> {
    let (rows, vocab) = logits.dims2()?;
    let device = logits.device();
    let index = Tensor::arange(0u32, vocab as u32, device)?.broadcast_as((rows, vocab))?;
    let beyond = Tensor::full(vocab as u32, (rows, vocab), device)?;
    let first = logits.broadcast_eq(max)?.where_cond(&index.contiguous()?, &beyond)?.min(1)?;
    Ok(first.to_vec1()?)
}

fn column(values: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::new(values, device)?.unsqueeze(1)?)
}
