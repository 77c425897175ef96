//! Causal grouped-query attention of one layer over a cache, without repeated heads.
//!
//! On the CPU it goes through [`kernels`] and [`super::causal`]; on every other device through the same
//! arithmetic in candle operations, in blocks of queries so that scores stay small.

use super::causal::causal_attention;
use super::config::{AttentionConfig, NormConfig, QkNorm, Temperature};
use super::kernels;
use super::loader::Loader;
use super::parts::{Linear, Norm, softcapped};
use super::rope::Angles;
use crate::codec::RotaryPairs;
use crate::error::Result;
use candle_core::{DType, Device, Tensor};

/// Queries whose scores against all keys are in memory at once.
const QUERY_BLOCK: usize = 256;

/// Attention with its weights.
#[derive(Clone)]
pub(super) struct Attention {
    config: AttentionConfig,
    /// Queries, keys and values in one product: [(heads + 2·kv_heads)·head_dim, hidden].
    pub qkv: Linear,
    /// Norms of queries and of keys.
    norms: Option<[Norm; 2]>,
    pub output: Linear,
}

/// How scores become weights.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    pub scale: f32,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
}

/// Heads in one row of a product.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub queries: usize,
    pub keys: usize,
    pub head_dim: usize,
}

/// Columns of a row a token, [tokens, width].
pub(super) struct Columns {
    pub rows: Tensor,
    pub first: usize,
}

impl Columns {
    pub fn width(&self) -> usize {
        self.rows.dims()[1]
    }

    /// [tokens, count]
    fn take(&self, count: usize) -> Result<Tensor> {
        Ok(self.rows.narrow(1, self.first, count)?)
    }
}

impl Attention {
    /// `name`: of a part of its layer.
    pub fn load(
        loader: &Loader,
        config: &AttentionConfig,
        norm: NormConfig,
        hidden: usize,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Self> {
        let AttentionConfig { heads, kv_heads, head_dim, bias, .. } = *config;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let part = |part: &str, out: usize| (name(&format!("self_attn.{part}_proj")), out);
        let qkv = match config.fused {
            true => loader.linear(&[part("qkv", q + 2 * kv)], hidden, bias.qkv)?,
            false => {
                loader.linear(&[part("q", q), part("k", kv), part("v", kv)], hidden, bias.qkv)?
            }
        };
        let norm = |part: &str, heads: usize| -> Result<Norm> {
            let shape: &[usize] = match config.qk_norm {
                QkNorm::None | QkNorm::Head => &[head_dim],
                QkNorm::EachHead => &[heads, head_dim],
                QkNorm::AllHeads => &[heads * head_dim],
            };
            Norm::load(loader, &name(&format!("self_attn.{part}_norm.weight")), shape, norm)
        };
        let norms = match config.qk_norm {
            QkNorm::None => None,
            _ => Some([norm("q", heads)?, norm("k", kv_heads)?]),
        };
        let output = loader.linear(&[part("o", hidden)], q, bias.output)?;
        Ok(Self { config: config.clone(), qkv, norms, output })
    }

    /// Splits [tokens, (heads + 2·kv_heads)·head_dim] into queries [heads, tokens, head_dim] and
    /// keys and values [kv_heads, tokens, head_dim]; norms and rotates queries and keys, the
    /// first of which stand at position `start`.
    pub fn split(
        &self,
        qkv: &Tensor,
        angles: Option<&Angles>,
        start: usize,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let AttentionConfig { heads, kv_heads, head_dim, .. } = self.config;
        let shape = Heads { queries: heads, keys: kv_heads, head_dim };
        let at = |first: usize| Columns { rows: qkv.clone(), first: first * head_dim };
        let (mut query, mut key) = (at(0), at(heads));
        if let Some([of_queries, of_keys]) = &self.norms {
            query = self.normed(of_queries, query, heads)?;
            key = self.normed(of_keys, key, kv_heads)?;
        }
        let parts = [query, key, at(heads + kv_heads)];
        let [query, key, value] = match kernels::split_and_rotate(&parts, angles, shape)? {
            Some(split) => split,
            None => split_and_rotate(&parts, angles, shape)?,
        };
        Ok((tempered(query, self.config.temperature, start)?, key, value))
    }

    fn normed(&self, norm: &Norm, columns: Columns, heads: usize) -> Result<Columns> {
        let AttentionConfig { head_dim, qk_norm, .. } = self.config;
        let x = columns.take(heads * head_dim)?.contiguous()?;
        let rows = match qk_norm {
            QkNorm::AllHeads => norm.forward(&x)?,
            _ => {
                let tokens = x.dim(0)?;
                let x = norm.forward_heads(&x.reshape((tokens, heads, head_dim))?)?;
                x.reshape((tokens, heads * head_dim))?
            }
        };
        Ok(Columns { rows, first: 0 })
    }

    /// See [`causal`].
    pub fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let AttentionConfig { scale, softcap, window, .. } = self.config;
        causal(query, key, value, Scores { scale, softcap, window })
    }
}

/// Queries [heads, tokens, head_dim] times their position's factor.
fn tempered(query: Tensor, temperature: Option<Temperature>, start: usize) -> Result<Tensor> {
    let Some(Temperature { beta, period }) = temperature else { return Ok(query) };
    let tokens = query.dim(1)?;
    let factors: Vec<f32> = (start..start + tokens)
        .map(|position| 1.0 + beta * (1.0 + (position / period) as f32).ln())
        .collect();
    let factors = Tensor::from_vec(factors, (1, tokens, 1), query.device())?;
    Ok(query.broadcast_mul(&factors.to_dtype(query.dtype())?)?)
}

fn split_and_rotate(
    [query, key, value]: &[Columns; 3],
    angles: Option<&Angles>,
    Heads { queries, keys, head_dim }: Heads,
) -> Result<[Tensor; 3]> {
    let take = |columns: &Columns, count: usize| -> Result<Tensor> {
        let part = columns.take(count * head_dim)?;
        let tokens = part.dim(0)?;
        Ok(part.reshape((tokens, count, head_dim))?.transpose(0, 1)?.contiguous()?)
    };
    let rotate = |x: Tensor| -> Result<Tensor> {
        let Some(Angles { cos, sin, pairs }) = angles else { return Ok(x) };
        let channels = 2 * cos.dim(1)?;
        let turning = x.narrow(2, 0, channels)?.contiguous()?.unsqueeze(0)?;
        let turned = match pairs {
            RotaryPairs::Halves => candle_nn::rotary_emb::rope(&turning, cos, sin)?,
            RotaryPairs::Neighbours => candle_nn::rotary_emb::rope_i(&turning, cos, sin)?,
        };
        let turned = turned.squeeze(0)?;
        match head_dim - channels {
            0 => Ok(turned),
            rest => Ok(Tensor::cat(&[turned, x.narrow(2, channels, rest)?], 2)?),
        }
    };
    Ok([rotate(take(query, queries)?)?, rotate(take(key, keys)?)?, take(value, keys)?])
}

/// 0 where a query attends to a key and −∞ elsewhere, [1, 1, rows, seen], made on the device:
/// queries stand at `position` and after it, keys at `first` and after it.
fn mask(
    position: usize,
    rows: usize,
    first: usize,
    seen: usize,
    window: Option<usize>,
    device: &Device,
) -> Result<Tensor> {
    let from = |start: usize, count: usize| {
        Tensor::arange(start as f32, (start + count) as f32, device) // exact below 2^24
    };
    // How many tokens a key is behind its query.
    let behind = from(position, rows)?
        .reshape((rows, 1))?
        .broadcast_sub(&from(first, seen)?.unsqueeze(0)?)?;
    let hidden = match window {
        None => behind.lt(0f64)?,
        Some(window) => (behind.lt(0f64)? + behind.ge(window as f64)?)?,
    };
    let zero = Tensor::zeros((rows, seen), DType::F32, device)?;
    let least = Tensor::full(f32::NEG_INFINITY, (rows, seen), device)?;
    Ok(hidden.where_cond(&least, &zero)?.reshape((1, 1, rows, seen))?)
}

/// Queries [heads, tokens, head_dim] are the last `tokens` positions of keys and values
/// [kv_heads, past + tokens, head_dim]. Returns [tokens, heads·head_dim].
fn causal(query: &Tensor, key: &Tensor, value: &Tensor, scores: Scores) -> Result<Tensor> {
    if let Some(mixed) = causal_attention(query, key, value, scores)? {
        return Ok(mixed);
    }
    let Scores { scale, softcap, window } = scores;
    let (heads, tokens, head_dim) = query.dims3()?;
    let (kv_heads, all, _) = key.dims3()?;
    let past = all - tokens;
    let group = heads / kv_heads;
    let mut blocks = Vec::new();
    for start in (0..tokens).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(tokens - start);
        // Keys that some query of the block sees.
        let first = window.map_or(0, |window| (past + start + 1).saturating_sub(window));
        let seen = past + start + rows - first;
        let keys = key.narrow(1, first, seen)?.t()?; // [kv_heads, head_dim, seen]
        // Heads of a group stand below each other: one product a key head.
        let block = query.narrow(1, start, rows)?.contiguous()?.reshape((
            kv_heads,
            group * rows,
            head_dim,
        ))?;
        let scores = (block.matmul(&keys)?.to_dtype(DType::F32)? * f64::from(scale))?;
        let scores = softcapped(scores, softcap)?; // [kv_heads, group·rows, seen]
        let mask = mask(past + start, rows, first, seen, window, query.device())?;
        let scores = scores
            .reshape((kv_heads, group, rows, seen))?
            .broadcast_add(&mask)?
            .reshape((kv_heads, group * rows, seen))?;
        let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(value.dtype())?;
        let mixed = weights.matmul(&value.narrow(1, first, seen)?.contiguous()?)?;
        blocks.push(mixed.reshape((heads, rows, head_dim))?); // of [kv_heads, group·rows, head_dim]
    }
    let mixed = Tensor::cat(&blocks, 1)?; // [heads, tokens, head_dim]
    Ok(mixed.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * head_dim))?)
}
