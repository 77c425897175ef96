//! Causal grouped-query attention on the CPU, in f32 or with operands of 16 bits: a task is one head and a
//! block of queries.

use super::attention::Scores;
use super::bf16::{self, Panels, Rows};
use super::kernels::{exp, tanh};
use super::product::multiply;
use super::rounding::Rounding;
use crate::error::Result;
use crate::lanes::reduce;
use crate::tensor::with_f32;
use candle_core::{DType, Device, Tensor};
use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::convert::Infallible;
use std::ops::Range;

/// Queries a task takes. Their scores against 2048 keys are 512 KiB: they stay in L2.
const QUERY_BLOCK: usize = 64;

/// See [`super::attention::causal`]. Queries are f32; keys and values are what a cache has, and what
/// queries and weights are rounded to. `None`: another device or type.
pub fn causal_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    scores: Scores,
) -> Result<Option<Tensor>> {
    if query.dtype() != DType::F32 || !query.device().is_cpu() {
        return Ok(None);
    }
    let (heads, tokens, head_dim) = query.dims3()?;
    let (kv_heads, all, _) = key.dims3()?;
    let shape = Shape { heads, kv_heads, tokens, all, head_dim, scores };
    let rounding = Rounding::of(key.dtype(), key.device());
    let (key, value) = (key.to_dtype(DType::F32)?, value.to_dtype(DType::F32)?);
    let mixed = with_f32([query, &key, &value], |[query, key, value]| match rounding {
        Some(Rounding::Bf16) if bf16::is_native() => {
            shape.attend(&InBf16::new(query, key, value, shape))
        }
        _ => {
            let rounded = rounding.map(|rounding| rounding.rounded(query));
            let query = rounded.as_deref().unwrap_or(query);
            shape.attend(&ByGemm { query, key, value, rounding, shape })
        }
    })?;
    mixed
        .map(|mixed| Ok(Tensor::from_vec(mixed, (tokens, heads * head_dim), &Device::Cpu)?))
        .transpose()
}

/// Queries are the last `tokens` of `all` positions.
#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    tokens: usize,
    all: usize,
    head_dim: usize,
    scores: Scores,
}

/// The two products of attention, of one head.
trait Products: Sync {
    /// Keys that a block sees are from a multiple of so many on.
    const KEYS: usize;
    /// Of a thread.
    type Memory: Default + Send;

    /// scale · queries · keysᵀ, [queries, keys].
    fn scores(&self, head: usize, queries: Range<usize>, keys: Range<usize>, out: &mut [f32]);

    /// What weights are rounded to before they are multiplied.
    fn rounding(&self) -> Option<Rounding>;

    /// weights · values, [queries, head_dim].
    fn mixed(
        &self,
        head: usize,
        weights: &[f32],
        keys: Range<usize>,
        out: &mut [f32],
        memory: &mut Self::Memory,
    );
}

impl Shape {
    /// Scores against all keys that a block may see, softmax by row, product with the values. Keys after
    /// the block, and those that have left the window of its first query, are in no product. Returns [tokens, heads·head_dim].
    fn attend<P: Products>(&self, products: &P) -> Vec<f32> {
        let Self { heads, tokens, all, head_dim, scores: Scores { softcap, window, .. }, .. } =
            *self;
        let past = all - tokens;
        let first_seen = |position: usize| window.map_or(0, |w| (position + 1).saturating_sub(w));
        let blocks = tokens.div_ceil(QUERY_BLOCK);
        let mut mixed = vec![0f32; heads * tokens * head_dim]; // [heads, tokens, head_dim]
        let tasks: Vec<(usize, &mut [f32])> = mixed
            .chunks_mut(tokens * head_dim)
            .flat_map(|head| head.chunks_mut(QUERY_BLOCK * head_dim))
            .enumerate()
            .collect();
        tasks.into_par_iter().for_each_init(Default::default, |memory, (task, out)| {
            let (scores, memory): &mut (Vec<f32>, P::Memory) = memory;
            let (head, start) = (task / blocks, task % blocks * QUERY_BLOCK);
            let rows = out.len() / head_dim;
            let first = first_seen(past + start) / P::KEYS * P::KEYS;
            let keys = first..past + start + rows;
            scores.resize(rows * keys.len(), 0.0);
            products.scores(head, start..start + rows, keys.clone(), scores);
            let weigh = |(row, scores): (usize, &mut [f32])| {
                let position = past + start + row;
                let own = first_seen(position) - first..position + 1 - first;
                scores[..own.start].fill(0.0);
                scores[own.end..].fill(0.0);
                let own = &mut scores[own];
                if let Some(cap) = softcap {
                    Arch::new().dispatch(Softcap { scores: own, cap });
                }
                weights(own, products.rounding())
            };
            let sums: Vec<f32> =
                scores.chunks_exact_mut(keys.len()).enumerate().map(weigh).collect();
            products.mixed(head, scores, keys, out, memory);
            for (out, sum) in out.chunks_exact_mut(head_dim).zip(sums) {
                let inverse = 1.0 / sum;
                out.iter_mut().for_each(|x| *x *= inverse);
            }
        });
        token_major(&mixed, heads, tokens, head_dim)
    }

    /// The head of keys and values that a head of queries attends to.
    fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }
}

/// In f32, of operands that are rounded or not.
struct ByGemm<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    rounding: Option<Rounding>,
    shape: Shape,
}

impl ByGemm<'_> {
    /// Those of a head, [keys, head_dim].
    fn of<'a>(&self, kv: &'a [f32], head: usize, keys: &Range<usize>) -> &'a [f32] {
        let Shape { all, head_dim, .. } = self.shape;
        &kv[(self.shape.kv_head(head) * all + keys.start) * head_dim..][..keys.len() * head_dim]
    }
}

impl Products for ByGemm<'_> {
    const KEYS: usize = 1;
    type Memory = ();

    fn scores(&self, head: usize, queries: Range<usize>, keys: Range<usize>, out: &mut [f32]) {
        let Shape { tokens, head_dim, scores, .. } = self.shape;
        let (rows, seen) = (queries.len(), keys.len());
        let query = &self.query[(head * tokens + queries.start) * head_dim..][..rows * head_dim];
        multiply(
            out,
            seen,
            [rows, seen, head_dim],
            (query, head_dim, 1),
            (self.of(self.key, head, &keys), 1, head_dim),
            scores.scale,
            Parallelism::None,
        );
    }

    fn rounding(&self) -> Option<Rounding> {
        self.rounding
    }

    fn mixed(&self, head: usize, weights: &[f32], keys: Range<usize>, out: &mut [f32], _: &mut ()) {
        let head_dim = self.shape.head_dim;
        let (rows, seen) = (out.len() / head_dim, keys.len());
        multiply(
            out,
            head_dim,
            [rows, head_dim, seen],
            (weights, seen, 1),
            (self.of(self.value, head, &keys), head_dim, 1),
            1.0,
            Parallelism::None,
        );
    }
}

/// In bf16 with sums in f32.
struct InBf16 {
    /// Of all heads below each other.
    query: Rows,
    /// Of each head: rows are keys.
    keys: Vec<Panels>,
    /// Of each head: rows are channels.
    values: Vec<Panels>,
    shape: Shape,
}

impl InBf16 {
    fn new(query: &[f32], key: &[f32], value: &[f32], shape: Shape) -> Self {
        let Shape { all, head_dim, .. } = shape;
        let of_keys = |key: &[f32]| {
            let mut panels = Panels::default();
            let Ok(()) = panels.of_rows(all, head_dim, |row, pairs| {
                bf16::pairs_of_values(&key[row * head_dim..][..head_dim], pairs);
                Ok::<(), Infallible>(())
            });
            panels
        };
        Self {
            query: Rows::rounded_on_all(query, head_dim),
            keys: key.par_chunks_exact(all * head_dim).map(of_keys).collect(),
            values: value
                .par_chunks_exact(all * head_dim)
                .map(|value| Panels::of_columns(value, head_dim))
                .collect(),
            shape,
        }
    }
}

impl Products for InBf16 {
    const KEYS: usize = bf16::PANEL;
    type Memory = Rows;

    fn scores(&self, head: usize, queries: Range<usize>, keys: Range<usize>, out: &mut [f32]) {
        let Shape { tokens, head_dim, scores, .. } = self.shape;
        let rows = head * tokens + queries.start..head * tokens + queries.end;
        let mut out: Vec<&mut [f32]> = out.chunks_exact_mut(keys.len()).collect();
        let right = (&self.keys[self.shape.kv_head(head)], keys, 0..head_dim.div_ceil(2));
        bf16::multiply((&self.query, rows), right, scores.scale, &mut out);
    }

    fn rounding(&self) -> Option<Rounding> {
        Some(Rounding::Bf16)
    }

    fn mixed(
        &self,
        head: usize,
        weights: &[f32],
        keys: Range<usize>,
        out: &mut [f32],
        memory: &mut Rows,
    ) {
        let head_dim = self.shape.head_dim;
        memory.rounded(weights, keys.len());
        let mut out: Vec<&mut [f32]> = out.chunks_exact_mut(head_dim).collect();
        let pairs = keys.start / 2..keys.end.div_ceil(2);
        let right = (&self.values[self.shape.kv_head(head)], 0..head_dim, pairs);
        bf16::multiply((memory, 0..out.len()), right, 1.0, &mut out);
    }
}

/// [heads, tokens, head_dim] → [tokens, heads·head_dim]
fn token_major(x: &[f32], heads: usize, tokens: usize, head_dim: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    out.par_chunks_mut(heads * head_dim).enumerate().for_each(|(token, row)| {
        for (head, out) in row.chunks_exact_mut(head_dim).enumerate() {
            out.copy_from_slice(&x[(head * tokens + token) * head_dim..][..head_dim]);
        }
    });
    out
}

/// Replaces scores by their exponentials, as they are multiplied; returns their sum.
fn weights(scores: &mut [f32], rounding: Option<Rounding>) -> f32 {
    Arch::new().dispatch(Exponentials(scores));
    if let Some(rounding) = rounding {
        rounding.round(scores);
    }
    Arch::new().dispatch(Sum(scores))
}

/// Replaces scores by exp(score − max). Not a closure: see [`crate::lanes`].
struct Exponentials<'a>(&'a mut [f32]);

impl WithSimd for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let max = reduce(self.0, f32::NEG_INFINITY, f32::max);
        for x in self.0.iter_mut() {
            *x = exp(*x - max);
        }
    }
}

struct Sum<'a>(&'a [f32]);

impl WithSimd for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        reduce(self.0, 0.0, |a, b| a + b)
    }
}

/// Replaces scores by cap · tanh(score / cap).
struct Softcap<'a> {
    scores: &'a mut [f32],
    cap: f32,
}

impl WithSimd for Softcap<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for score in self.scores.iter_mut() {
            *score = self.cap * tanh(*score / self.cap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rounding::to_bf16;
    use crate::random::roughly_normal;

    /// Rounded operands in f32 are the witness: windows, odd numbers of keys, heads in groups, and a
    /// head that is no whole panel.
    #[test]
    fn attention_in_bf16_is_that_of_rounded_operands() {
        let shapes = [(64, 70, 0, None), (40, 129, 200, Some(50)), (80, 1, 33, None)];
        for (head_dim, tokens, past, window) in shapes {
            let scores = Scores { scale: 0.2, softcap: None, window };
            let (heads, kv_heads, all) = (4, 2, past + tokens);
            let shape = Shape { heads, kv_heads, tokens, all, head_dim, scores };
            let query = roughly_normal(heads * tokens * head_dim, 1);
            let [mut key, mut value] =
                [2, 3].map(|seed| roughly_normal(kv_heads * all * head_dim, seed));
            to_bf16(&mut key);
            to_bf16(&mut value);
            let rounded = Rounding::Bf16.rounded(&query);
            let rounding = Some(Rounding::Bf16);
            let (query_of, key_of, value_of) = (&rounded[..], &key[..], &value[..]);
            let expected = shape.attend(&ByGemm {
                query: query_of,
                key: key_of,
                value: value_of,
                rounding,
                shape,
            });
            let found = shape.attend(&InBf16::new(&query, &key, &value, shape));
            let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                // A weight at a tie may round the other way.
                let error = (found - expected).abs();
                assert!(error < 1e-3 * largest, "head {head_dim}: {found}, not {expected}");
            }
            let off = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 2e-5 * largest);
            assert!(off.count() * 50 < found.len(), "head {head_dim}");
        }
    }
}
