//! The f32 CPU paths: splitting and rotating Q, K and V, causal grouped-query attention and
//! gates, which candle has no fused form of. Each returns `None` for another device or dtype, and
//! then the caller computes the same in candle operations.
//!
//! Loops are written for the compiler to vectorise; `pulp` picks the widest instruction set at
//! run time.

use super::attention::{Heads, Scores};
use super::config::Activation;
use super::product::multiply;
use super::rope::Angles;
use crate::codec::RotaryPairs;
use crate::error::Result;
use crate::lanes::reduce;
use crate::tensor::with_f32;
use candle_core::{Device, Tensor};
use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Queries a task takes. Their scores against 2048 keys are 512 KiB: they stay in L2.
const QUERY_BLOCK: usize = 64;

/// Queries, keys and values of [tokens, width], each [heads, tokens, head_dim]. `rotate`: by the
/// index of the token, a head vector and where it goes.
fn split(
    qkv: &[f32],
    width: usize,
    Heads { queries, keys, head_dim }: Heads,
    rotate: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let tokens = qkv.len() / width;
    let take = |first: usize, count: usize, rotated: bool| {
        let mut out = vec![0f32; count * tokens * head_dim];
        out.par_chunks_mut(tokens * head_dim).enumerate().for_each(|(head, out)| {
            let column = (first + head) * head_dim;
            for (token, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let x = &qkv[token * width + column..][..head_dim];
                if rotated { rotate(token, x, out) } else { out.copy_from_slice(x) }
            }
        });
        out
    };
    (take(0, queries, true), take(queries, keys, true), take(queries + keys, keys, false))
}

/// See [`super::attention::Attention::split`].
pub fn split_and_rotate(
    qkv: &Tensor,
    angles: Option<&Angles>,
    heads: Heads,
) -> Result<Option<(Tensor, Tensor, Tensor)>> {
    let (tokens, width) = qkv.dims2()?;
    let split = match angles {
        None => with_f32([qkv], |[qkv]| split(qkv, width, heads, |_, x, y| y.copy_from_slice(x)))?,
        Some(Angles { cos, sin, pairs }) => with_f32([qkv, cos, sin], |[qkv, cos, sin]| {
            let n = cos.len() / tokens;
            let at = |token: usize| (&cos[token * n..][..n], &sin[token * n..][..n]);
            match pairs {
                RotaryPairs::Halves => split(qkv, width, heads, |token, x, y| {
                    let ((cos, sin), (x, rest)) = (at(token), x.split_at(2 * n));
                    let (y, y_rest) = y.split_at_mut(2 * n);
                    let ((x1, x2), (y1, y2)) = (x.split_at(n), y.split_at_mut(n));
                    for i in 0..n {
                        y1[i] = x1[i] * cos[i] - x2[i] * sin[i];
                        y2[i] = x2[i] * cos[i] + x1[i] * sin[i];
                    }
                    y_rest.copy_from_slice(rest);
                }),
                RotaryPairs::Neighbours => split(qkv, width, heads, |token, x, y| {
                    let ((cos, sin), (x, rest)) = (at(token), x.split_at(2 * n));
                    let (y, y_rest) = y.split_at_mut(2 * n);
                    for i in 0..n {
                        let (a, b) = (x[2 * i], x[2 * i + 1]);
                        y[2 * i] = a * cos[i] - b * sin[i];
                        y[2 * i + 1] = b * cos[i] + a * sin[i];
                    }
                    y_rest.copy_from_slice(rest);
                }),
            }
        })?,
    };
    let Some((query, key, value)) = split else { return Ok(None) };
    let tensor = |values: Vec<f32>, count: usize| {
        Tensor::from_vec(values, (count, tokens, heads.head_dim), &Device::Cpu)
    };
    let Heads { queries, keys, .. } = heads;
    Ok(Some((tensor(query, queries)?, tensor(key, keys)?, tensor(value, keys)?)))
}

/// See [`super::attention::causal`]. A task is one head and a block of queries: scores against
/// all keys it may see, softmax by row, product with the values. Keys after the block, and those
/// that have left the window of its first query, are never touched: they cost nothing.
pub fn causal_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    Scores { scale, softcap, window }: Scores,
) -> Result<Option<Tensor>> {
    let (heads, tokens, head_dim) = query.dims3()?;
    let (kv_heads, all, _) = key.dims3()?;
    let (past, group) = (all - tokens, heads / kv_heads);
    let first_seen = |position: usize| window.map_or(0, |w| (position + 1).saturating_sub(w));
    let blocks = tokens.div_ceil(QUERY_BLOCK);
    let attend = |[q, k, v]: [&[f32]; 3]| {
        let mut mixed = vec![0f32; heads * tokens * head_dim]; // [heads, tokens, head_dim]
        let tasks: Vec<(usize, &mut [f32])> = mixed
            .chunks_mut(tokens * head_dim)
            .flat_map(|head| head.chunks_mut(QUERY_BLOCK * head_dim))
            .enumerate()
            .collect();
        tasks.into_par_iter().for_each_init(Vec::new, |scores, (task, out)| {
            let (head, start) = (task / blocks, task % blocks * QUERY_BLOCK);
            let rows = out.len() / head_dim;
            let first = first_seen(past + start);
            let seen = past + start + rows - first;
            let q = &q[(head * tokens + start) * head_dim..][..rows * head_dim];
            let kv = (head / group * all + first) * head_dim;
            let (k, v) = (&k[kv..][..seen * head_dim], &v[kv..][..seen * head_dim]);
            scores.resize(rows * seen, 0.0);
            // scores [rows, seen] = scale · q · kᵀ
            multiply(
                scores,
                seen,
                [rows, seen, head_dim],
                (q, head_dim, 1),
                (k, 1, head_dim),
                scale,
                Parallelism::None,
            );
            let sums: Vec<f32> = scores
                .chunks_exact_mut(seen)
                .enumerate()
                .map(|(row, scores)| {
                    let position = past + start + row;
                    let own = first_seen(position) - first..position + 1 - first;
                    if let Some(cap) = softcap {
                        Arch::new().dispatch(Softcap { scores: &mut scores[own.clone()], cap });
                    }
                    exponentials(scores, own)
                })
                .collect();
            // out [rows, head_dim] = scores · v, then divided by the row sums
            multiply(
                out,
                head_dim,
                [rows, head_dim, seen],
                (scores, seen, 1),
                (v, head_dim, 1),
                1.0,
                Parallelism::None,
            );
            for (out, sum) in out.chunks_exact_mut(head_dim).zip(sums) {
                let inverse = 1.0 / sum;
                out.iter_mut().for_each(|x| *x *= inverse);
            }
        });
        token_major(&mixed, heads, tokens, head_dim)
    };
    with_f32([query, key, value], attend)?
        .map(|mixed| Ok(Tensor::from_vec(mixed, (tokens, heads * head_dim), &Device::Cpu)?))
        .transpose()
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

/// Replaces the scores `own` of a row by exp(score − max), the others by 0; returns the sum.
fn exponentials(row: &mut [f32], own: Range<usize>) -> f32 {
    /// Not a closure: see [`crate::lanes`].
    struct Exponentials<'a>(&'a mut [f32]);

    impl WithSimd for Exponentials<'_> {
        type Output = f32;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> f32 {
            let max = reduce(self.0, f32::NEG_INFINITY, f32::max);
            for x in self.0.iter_mut() {
                *x = exp(*x - max);
            }
            reduce(self.0, 0.0, |a, b| a + b)
        }
    }

    row[..own.start].fill(0.0);
    row[own.end..].fill(0.0);
    Arch::new().dispatch(Exponentials(&mut row[own]))
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

/// e^x to within 2 ulp for x in [−87, 88], clamped outside: x = n·ln 2 + r, |r| ≤ ln 2 / 2, and a
/// polynomial in r. Branch-free, so that loops over it vectorise.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5·2^23: adding it leaves the nearest integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Written out: a loop in here would keep the loop around it from vectorising.
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// tanh(x) to within 2 ulp. Branch-free: both forms are computed, a polynomial for small x (Moshier's
/// Cephes), where the other loses digits.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_6e-3;
    p = p * z + 2.063_909e-2;
    p = p * z - 5.373_971_5e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328e-1;
    let small = p * z * x + x;
    let large = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { small } else { large }
}

/// A gate's activation, as a type: a loop over it has no branch.
trait Activate: Send + Sync {
    fn of(x: f32) -> f32;
}

struct Silu;

impl Activate for Silu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x / (1.0 + exp(-x))
    }
}

struct GeluTanh;

impl Activate for GeluTanh {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        // √(2/π)
        const FACTOR: f32 = 0.797_884_6;
        0.5 * x * (1.0 + tanh(FACTOR * (x + 0.044_715 * x * x * x)))
    }
}

struct Relu;

impl Activate for Relu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x.max(0.0)
    }
}

struct Gate<'a, A> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
    activation: PhantomData<A>,
}

impl<A: Activate> WithSimd for Gate<'_, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((out, gate), up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = A::of(*gate) * up;
        }
    }
}

/// act(gate) · up for rows [gate | up]. See [`super::parts`].
pub fn gated(gate_up: &Tensor, activation: Activation) -> Result<Option<Tensor>> {
    match activation {
        Activation::Silu => gated_by::<Silu>(gate_up),
        Activation::GeluTanh => gated_by::<GeluTanh>(gate_up),
        Activation::Relu => gated_by::<Relu>(gate_up),
        // No fused form of erf.
        Activation::Gelu => Ok(None),
    }
}

fn gated_by<A: Activate>(gate_up: &Tensor) -> Result<Option<Tensor>> {
    let (rows, both) = gate_up.dims2()?;
    let width = both / 2;
    let fused = with_f32([gate_up], |[x]| {
        let mut out = vec![0f32; rows * width];
        out.par_chunks_mut(width).zip(x.par_chunks(both)).for_each(|(out, row)| {
            let (gate, up) = row.split_at(width);
            Arch::new().dispatch(Gate::<A> { gate, up, out, activation: PhantomData });
        });
        out
    })?;
    fused.map(|out| Ok(Tensor::from_vec(out, (rows, width), &Device::Cpu)?)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_f64() {
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((found - expected) / expected).abs() < 2.4e-7, "exp({x}) = {found}");
        }
    }

    #[test]
    fn tanh_is_within_two_ulp_of_f64() {
        for i in -1_200_000..1_200_000 {
            let x = i as f32 * 1e-5;
            let (found, expected) = (f64::from(tanh(x)), f64::from(x).tanh());
            let error = (found - expected).abs();
            assert!(error <= 2.4e-7 * expected.abs(), "tanh({x}) = {found}, not {expected}");
        }
        assert_eq!((tanh(100.0), tanh(-100.0)), (1.0, -1.0));
    }
}
