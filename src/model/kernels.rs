//! The f32 CPU paths: splitting and rotating Q, K and V, causal grouped-query attention and
//! SwiGLU, which candle has no fused form of, and the product with weights. Each returns `None`
//! for another device or dtype, and then the caller computes the same in candle operations.
//!
//! Loops are written for the compiler to vectorise; `pulp` picks the widest instruction set at
//! run time. The one unsafe call is the matrix product, behind bounds checks.

use crate::error::Result;
use crate::lanes::reduce;
use crate::tensor::with_f32;
use candle_core::{Device, Tensor};
use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Queries a task takes. Their scores against 2048 keys are 512 KiB: they stay in L2.
const QUERY_BLOCK: usize = 64;

/// See [`super::attention::split_and_rotate`].
pub fn split_and_rotate(
    qkv: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) -> Result<Option<(Tensor, Tensor, Tensor)>> {
    let (tokens, width) = qkv.dims2()?;
    let half = head_dim / 2;
    let split = with_f32([qkv, cos, sin], |[qkv, cos, sin]| {
        let take = |first: usize, count: usize, rotated: bool| {
            let mut out = vec![0f32; count * tokens * head_dim];
            out.par_chunks_mut(tokens * head_dim).enumerate().for_each(|(head, out)| {
                let column = (first + head) * head_dim;
                for (token, out) in out.chunks_exact_mut(head_dim).enumerate() {
                    let x = &qkv[token * width + column..][..head_dim];
                    if !rotated {
                        out.copy_from_slice(x);
                        continue;
                    }
                    let (cos, sin) = (&cos[token * half..][..half], &sin[token * half..][..half]);
                    let ((x1, x2), (y1, y2)) = (x.split_at(half), out.split_at_mut(half));
                    for i in 0..half {
                        y1[i] = x1[i] * cos[i] - x2[i] * sin[i];
                        y2[i] = x2[i] * cos[i] + x1[i] * sin[i];
                    }
                }
            });
            out
        };
        (take(0, heads, true), take(heads, kv_heads, true), take(heads + kv_heads, kv_heads, false))
    })?;
    let Some((query, key, value)) = split else { return Ok(None) };
    let tensor = |values: Vec<f32>, heads: usize| {
        Tensor::from_vec(values, (heads, tokens, head_dim), &Device::Cpu)
    };
    Ok(Some((tensor(query, heads)?, tensor(key, kv_heads)?, tensor(value, kv_heads)?)))
}

/// See [`super::attention::causal`]. A task is one head and a block of queries: scores against
/// all keys it may see, softmax by row, product with the values. Keys after the block are never
/// touched, so the masked half of the scores costs nothing.
pub fn causal_attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Option<Tensor>> {
    let (heads, tokens, head_dim) = query.dims3()?;
    let (kv_heads, all, _) = key.dims3()?;
    let (past, group) = (all - tokens, heads / kv_heads);
    let scale = 1.0 / (head_dim as f32).sqrt();
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
            let seen = past + start + rows;
            let q = &q[(head * tokens + start) * head_dim..][..rows * head_dim];
            let kv = head / group * all * head_dim;
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
                .map(|(row, scores)| exponentials(scores, past + start + row + 1))
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

/// Replaces the first `seen` scores of a row by exp(score − max), the rest by 0; returns the sum.
fn exponentials(row: &mut [f32], seen: usize) -> f32 {
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

    let (row, masked) = row.split_at_mut(seen);
    masked.fill(0.0);
    Arch::new().dispatch(Exponentials(row))
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

struct Swiglu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Swiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((out, gate), up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

/// silu(gate) · up for rows [gate | up]. See [`super::swiglu`].
pub fn swiglu(gate_up: &Tensor) -> Result<Option<Tensor>> {
    let (rows, both) = gate_up.dims2()?;
    let width = both / 2;
    let fused = with_f32([gate_up], |[x]| {
        let mut out = vec![0f32; rows * width];
        out.par_chunks_mut(width).zip(x.par_chunks(both)).for_each(|(out, row)| {
            let (gate, up) = row.split_at(width);
            Arch::new().dispatch(Swiglu { gate, up, out });
        });
        out
    })?;
    fused.map(|out| Ok(Tensor::from_vec(out, (rows, width), &Device::Cpu)?)).transpose()
}

/// x [rows, in] · weightᵀ [in, out] on all threads of the pool. candle's own product counts
/// physical cores instead, whatever pool it runs in.
pub fn product(x: &Tensor, weight: &Tensor) -> Result<Option<Tensor>> {
    let ((rows, input), (output, _)) = (x.dims2()?, weight.dims2()?);
    let threads = match rayon::current_num_threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    let multiplied = with_f32([x, weight], |[x, weight]| {
        let mut out = vec![0f32; rows * output];
        let dims = [rows, output, input];
        multiply(&mut out, output, dims, (x, input, 1), (weight, 1, input), 1.0, threads);
        out
    })?;
    multiplied.map(|out| Ok(Tensor::from_vec(out, (rows, output), &Device::Cpu)?)).transpose()
}

/// A matrix in a slice: (values, row stride, column stride).
type Strided<'a> = (&'a [f32], usize, usize);

/// dst [m, n] = factor · a [m, k] · b [k, n]; dst has unit column stride.
#[allow(unsafe_code)]
fn multiply(
    dst: &mut [f32],
    dst_rows: usize,
    [m, n, k]: [usize; 3],
    (a, a_rows, a_columns): Strided,
    (b, b_rows, b_columns): Strided,
    factor: f32,
    parallelism: Parallelism,
) {
    let last = |rows: usize, columns: usize, row: usize, column: usize| {
        (rows - 1) * row + (columns - 1) * column
    };
    assert!(m > 0 && n > 0 && k > 0);
    assert!(n <= dst_rows && last(m, n, dst_rows, 1) < dst.len());
    assert!(last(m, k, a_rows, a_columns) < a.len());
    assert!(last(k, n, b_rows, b_columns) < b.len());
    // SAFETY: the asserts bound every index the product touches; dst is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_rows as isize,
            false,
            a.as_ptr(),
            a_columns as isize,
            a_rows as isize,
            b.as_ptr(),
            b_columns as isize,
            b_rows as isize,
            0.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
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
}
