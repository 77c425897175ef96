//! Scores of logits that are not f32 on the CPU, where they are: a few numbers a target leave the
//! device, in place of the vocabulary's. The same quantities as [`super::scores`], in f64 too.

use super::scores::BaseRow;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// Logits `[rows, vocab]`, one target a row. Values may be infinite or NaN.
pub fn rows(logits: &Tensor, targets: &[u32]) -> Result<Vec<BaseRow>> {
    let logits = logits.to_dtype(DType::F64)?;
    let max = logits.max_keepdim(1)?; // [rows, 1]
    let log_sum = log_sum(&logits, &max)?;
    let of_target = logits.gather(&Tensor::new(targets, logits.device())?.unsqueeze(1)?, 1)?;
    let top = first_of(&logits, &max)?;
    let [max, log_sum, of_target] = [max, log_sum, of_target].map(|x| x.flatten_all()?.to_vec1());
    let (max, log_sum, of_target): (Vec<f64>, Vec<f64>, Vec<f64>) = (max?, log_sum?, of_target?);
    let row = |row: usize| BaseRow {
        max: max[row],
        log_sum: log_sum[row],
        top: top[row] as usize,
        nll: log_sum[row] - of_target[row],
    };
    Ok((0..targets.len()).map(row).collect())
}

/// KL(base ‖ logits) of each row over the vocabulary, nats; of both what [`rows`] gave.
pub fn divergences(
    logits: &Tensor,
    base: &Tensor,
    rows: &[BaseRow],
    base_rows: &[BaseRow],
) -> Result<Vec<f64>> {
    let (logits, base) = (logits.to_dtype(DType::F64)?, base.to_dtype(DType::F64)?);
    let max: Vec<f64> = base_rows.iter().map(|row| row.max).collect();
    let max = Tensor::from_vec(max, (base_rows.len(), 1), base.device())?;
    // Σ p·(l0 − l1) − (ln Z0 − ln Z1), with p = exp(l0 − max) / Σ exp(l0 − max)
    let weighted = (base.broadcast_sub(&max)?.exp()? * (&base - logits)?)?.sum(1)?;
    let weighted = weighted.to_vec1::<f64>()?;
    let divergence = |((weighted, row), base): ((&f64, &BaseRow), &BaseRow)| {
        weighted / (base.log_sum - base.max).exp() - (base.log_sum - row.log_sum)
    };
    Ok(weighted.iter().zip(rows).zip(base_rows).map(divergence).collect())
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
