//! Causal grouped-query attention over a cache, without repeated heads.
//!
//! f32 on the CPU goes through [`kernels`]; every other device and dtype through the same
//! arithmetic in candle operations, in blocks of queries so that scores stay small.

use super::config::ModelConfig;
use super::kernels;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// Queries whose scores against all keys are in memory at once.
const QUERY_BLOCK: usize = 256;

/// Splits [tokens, (heads + 2·kv_heads)·head_dim] into queries [heads, tokens, head_dim] and
/// keys and values [kv_heads, tokens, head_dim]; rotates queries and keys.
pub fn split_and_rotate(
    qkv: &Tensor,
    (cos, sin): &(Tensor, Tensor),
    config: &ModelConfig,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);
    if let Some(split) = kernels::split_and_rotate(qkv, cos, sin, heads, kv_heads, head_dim)? {
        return Ok(split);
    }
    let tokens = qkv.dim(0)?;
    let take = |first: usize, count: usize| -> Result<Tensor> {
        let part = qkv.narrow(1, first * head_dim, count * head_dim)?;
        Ok(part.reshape((tokens, count, head_dim))?.transpose(0, 1)?.contiguous()?)
    };
    let rotate = |x: Tensor| -> Result<Tensor> {
        Ok(candle_nn::rotary_emb::rope(&x.unsqueeze(0)?, cos, sin)?.squeeze(0)?)
    };
    Ok((
        rotate(take(0, heads)?)?,
        rotate(take(heads, kv_heads)?)?,
        take(heads + kv_heads, kv_heads)?,
    ))
}

/// Queries [heads, tokens, head_dim] are the last `tokens` positions of keys and values
/// [kv_heads, past + tokens, head_dim]. Returns [tokens, heads·head_dim].
pub fn causal(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    let (heads, tokens, head_dim) = query.dims3()?;
    let (kv_heads, all, _) = key.dims3()?;
    let past = all - tokens;
    if let Some(mixed) = kernels::causal_attention(query, key, value)? {
        return Ok(mixed);
    }
    let (group, scale) = (heads / kv_heads, 1.0 / (head_dim as f64).sqrt());
    let keys = key.t()?; // [kv_heads, head_dim, all]
    let mut blocks = Vec::new();
    for start in (0..tokens).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(tokens - start);
        // Heads of a group stand below each other: one product a key head.
        let block = query.narrow(1, start, rows)?.contiguous()?.reshape((
            kv_heads,
            group * rows,
            head_dim,
        ))?;
        let scores = (block.matmul(&keys)?.to_dtype(DType::F32)? * scale)?; // [kv_heads, group·rows, all]
        let mask: Vec<f32> = (0..rows)
            .flat_map(|row| {
                (0..all)
                    .map(move |at| if at > past + start + row { f32::NEG_INFINITY } else { 0.0 })
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, 1, rows, all), query.device())?;
        let scores = scores
            .reshape((kv_heads, group, rows, all))?
            .broadcast_add(&mask)?
            .reshape((kv_heads, group * rows, all))?;
        let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(value.dtype())?;
        let mixed = weights.matmul(value)?; // [kv_heads, group·rows, head_dim]
        blocks.push(mixed.reshape((heads, rows, head_dim))?);
    }
    let mixed = Tensor::cat(&blocks, 1)?; // [heads, tokens, head_dim]
    Ok(mixed.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * head_dim))?)
}
