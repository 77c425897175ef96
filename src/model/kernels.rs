//! The f32 CPU paths: splitting and rotating Q, K and V, and gates, which candle has no fused form of
//! (attention's is [`super::causal`]). Each returns `None` for another device or dtype, and then the
//! caller computes the same in candle operations.
//!
//! Loops are written for the compiler to vectorise; `pulp` picks the widest instruction set at
//! run time.

use super::attention::{Columns, Heads};
use super::config::Activation;
use super::rope::Angles;
use crate::codec::RotaryPairs;
use crate::error::Result;
use crate::tensor::with_f32;
use candle_core::{Device, Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::marker::PhantomData;

/// Queries, keys and values, each [heads, tokens, head_dim], of columns of `rows`. `rotate`: by the
/// index of the token, a head vector and where it goes.
fn split(
    parts: &[Columns; 3],
    rows: [&[f32]; 3],
    Heads { queries, keys, head_dim }: Heads,
    rotate: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> [Vec<f32>; 3] {
    let take = |part: usize, count: usize, rotated: bool| {
        let (rows, first) = (rows[part], parts[part].first);
        let width = parts[part].width();
        let tokens = rows.len() / width;
        let mut out = vec![0f32; count * tokens * head_dim];
        out.par_chunks_mut(tokens * head_dim).enumerate().for_each(|(head, out)| {
            let column = first + head * head_dim;
            for (token, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let x = &rows[token * width + column..][..head_dim];
                if rotated { rotate(token, x, out) } else { out.copy_from_slice(x) }
            }
        });
        out
    };
    [take(0, queries, true), take(1, keys, true), take(2, keys, false)]
}

/// See [`super::attention::Attention::split`].
pub fn split_and_rotate(
    parts: &[Columns; 3],
    angles: Option<&Angles>,
    heads: Heads,
) -> Result<Option<[Tensor; 3]>> {
    let [query, key, value] = parts.each_ref().map(|part| &part.rows);
    let tokens = value.dim(0)?;
    let split = match angles {
        None => with_f32([query, key, value], |rows| {
            split(parts, rows, heads, |_, x, y| y.copy_from_slice(x))
        })?,
        Some(Angles { cos, sin, pairs }) => {
            with_f32([query, key, value, cos, sin], |[query, key, value, cos, sin]| {
                let rows = [query, key, value];
                let n = cos.len() / tokens;
                let at = |token: usize| (&cos[token * n..][..n], &sin[token * n..][..n]);
                match pairs {
                    RotaryPairs::Halves => split(parts, rows, heads, |token, x, y| {
                        let ((cos, sin), (x, rest)) = (at(token), x.split_at(2 * n));
                        let (y, y_rest) = y.split_at_mut(2 * n);
                        let ((x1, x2), (y1, y2)) = (x.split_at(n), y.split_at_mut(n));
                        for i in 0..n {
                            y1[i] = x1[i] * cos[i] - x2[i] * sin[i];
                            y2[i] = x2[i] * cos[i] + x1[i] * sin[i];
                        }
                        y_rest.copy_from_slice(rest);
                    }),
                    RotaryPairs::Neighbours => split(parts, rows, heads, |token, x, y| {
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
            })?
        }
    };
    let Some([query, key, value]) = split else { return Ok(None) };
    let tensor = |values: Vec<f32>, count: usize| {
        Tensor::from_vec(values, (count, tokens, heads.head_dim), &Device::Cpu)
    };
    let Heads { queries, keys, .. } = heads;
    Ok(Some([tensor(query, queries)?, tensor(key, keys)?, tensor(value, keys)?]))
}

/// e^x to within 2 ulp for x in [−87, 88], clamped outside: x = n·ln 2 + r, |r| ≤ ln 2 / 2, and a
/// polynomial in r. Branch-free, so that loops over it vectorise.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
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
pub(super) fn tanh(x: f32) -> f32 {
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
