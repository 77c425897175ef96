//! The Walsh–Hadamard rotation of head vectors and the flips of sign before it.
//!
//! Every step is one rounding to f32, in the order written here, so that a decoder in another
//! language comes to the same bits.

use crate::lanes::{LANES, Lanes, get, set};
use pulp::Simd;

/// The largest power of two that divides `dim`.
pub(super) fn hadamard_block(dim: usize) -> usize {
    1 << dim.trailing_zeros()
}

/// The Walsh–Hadamard transform of each block of `block` values, in place, O(d log d): butterflies
/// (a + b, a − b) over distances 1, 2, 4 … block / 2, then one product with `scale`. Its own inverse
/// where that is [`orthonormal`].
#[inline(always)]
pub(super) fn hadamard<S: Simd>(simd: S, values: &mut [f32], block: usize, scale: f32) {
    let lanes = S::F32_LANES;
    if block < lanes || lanes == 1 {
        for values in values.chunks_exact_mut(block) {
            butterflies(values, block, scale);
        }
        return;
    }
    for values in values.chunks_exact_mut(block) {
        let (values, _) = S::as_mut_simd_f32s(values);
        for value in &mut *values {
            let mut x = *value;
            x = within::<S, 1>(simd, x);
            if lanes > 2 {
                x = within::<S, 2>(simd, x);
            }
            if lanes > 4 {
                x = within::<S, 4>(simd, x);
            }
            if lanes > 8 {
                x = within::<S, 8>(simd, x);
            }
            *value = x;
        }
        let mut distance = 1;
        while distance < values.len() {
            for pair in values.chunks_exact_mut(2 * distance) {
                let (a, b) = pair.split_at_mut(distance);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (simd.add_f32s(*a, *b), simd.sub_f32s(*a, *b));
                }
            }
            distance *= 2;
        }
        let scale = simd.splat_f32s(scale);
        for value in values {
            *value = simd.mul_f32s(*value, scale);
        }
    }
}

/// f32(1 / √block).
pub(super) fn orthonormal(block: usize) -> f32 {
    (1.0 / (block as f64).sqrt()) as f32
}

/// The orthonormal transform of as many values as there are rows, a power of two of 2 or more, for
/// each lane of one column of vectors.
#[inline(always)]
pub(super) fn hadamard_rows<S: Simd>(simd: S, rows: &mut [Lanes], column: usize) {
    let scale = orthonormal(rows.len());
    let mut distance = 1;
    while distance < rows.len() {
        // Eight rows fit the registers: three distances a pass.
        let left = rows.len() / distance;
        let last = (left <= 8).then_some(scale);
        distance *= match left {
            2 => cross::<S, 2>(simd, rows, distance, last, column),
            4 => cross::<S, 4>(simd, rows, distance, last, column),
            _ => cross::<S, 8>(simd, rows, distance, last, column),
        };
    }
}

/// Butterflies over the distances `distance`, 2 · `distance` … `ROWS`/2 · `distance`. Gives `ROWS`.
#[inline(always)]
fn cross<S: Simd, const ROWS: usize>(
    simd: S,
    rows: &mut [Lanes],
    distance: usize,
    scale: Option<f32>,
    column: usize,
) -> usize {
    for rows in rows.chunks_exact_mut(ROWS * distance) {
        for first in 0..distance {
            let mut x = [simd.splat_f32s(0.0); ROWS];
            for (index, x) in x.iter_mut().enumerate() {
                *x = get::<S>(&rows[first + index * distance], column);
            }
            let mut apart = 1;
            while apart < ROWS {
                for pair in x.chunks_exact_mut(2 * apart) {
                    let (a, b) = pair.split_at_mut(apart);
                    for (a, b) in a.iter_mut().zip(b) {
                        (*a, *b) = (simd.add_f32s(*a, *b), simd.sub_f32s(*a, *b));
                    }
                }
                apart *= 2;
            }
            for (index, x) in x.into_iter().enumerate() {
                let x = scale.map_or(x, |scale| simd.mul_f32s(x, simd.splat_f32s(scale)));
                set::<S>(&mut rows[first + index * distance], column, x);
            }
        }
    }
    ROWS
}

/// Butterflies between the lanes of one vector, `D` apart: lanes without bit `D` of their index become
/// x + other, the others other − x; the product with 1 or −1 is exact, so it is one rounding.
#[inline(always)]
fn within<S: Simd, const D: usize>(simd: S, x: S::f32s) -> S::f32s {
    let upper: [u32; LANES] = std::array::from_fn(|lane| (lane & D) as u32);
    let sign: Lanes = upper.map(|upper| if upper == 0 { 1.0 } else { -1.0 });
    let other = match D {
        // As pairs of f32, and of f64.
        1 => bytemuck::cast(simd.swap_re_im_c32s(bytemuck::cast(x))),
        2 => bytemuck::cast(simd.swap_re_im_c64s(bytemuck::cast(x))),
        _ if 2 * D == S::F32_LANES => simd.rotate_left_f32s(x, D),
        _ => {
            let is_upper = simd.less_than_u32s(simd.splat_u32s(0), S::as_simd_u32s(&upper).0[0]);
            let (below, above) = (simd.rotate_right_f32s(x, D), simd.rotate_left_f32s(x, D));
            simd.select_f32s(is_upper, below, above)
        }
    };
    simd.mul_add_f32s(x, S::as_simd_f32s(&sign).0[0], other)
}

/// Of blocks narrower than a vector, and where there are no vectors: unrolled, as the others are,
/// it would be most of what there is to compile.
#[inline(never)]
fn butterflies(values: &mut [f32], block: usize, scale: f32) {
    let mut distance = 1;
    while distance < block {
        for pair in values.chunks_exact_mut(2 * distance) {
            let (a, b) = pair.split_at_mut(distance);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        distance *= 2;
    }
    for value in values {
        *value *= scale;
    }
}

/// Flips the signs of a head vector's channels: of channel i where bit i mod 64 of word ⌊i / 64⌋,
/// from the first word on again, is set. Its own inverse.
#[inline(always)]
pub(super) fn flip_signs(values: &mut [f32], signs: &[u64]) {
    for (chunk, signs) in values.chunks_mut(64).zip(signs.iter().cycle()) {
        for (index, value) in chunk.iter_mut().enumerate() {
            let flip = (signs >> index & 1) as u32;
            *value = f32::from_bits(value.to_bits() ^ flip << 31);
        }
    }
}
