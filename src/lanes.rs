//! Work on lanes: as many f32 as the widest registers hold, whatever the machine has.
//!
//! Work that pulp runs with the widest registers is a struct with an `#[inline(always)]` body, never a
//! closure: a closure is compiled for those registers only if it happens to be inlined. Inside, hot
//! loops go over [`Simd::f32s`], of which 16 lanes are 1, 2, 4 or 16: left to itself the compiler
//! unrolls a loop over 16 lanes, and vectorises the one around it with gathers.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m256, __m256d, __m512, __m512d};
use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
#[cfg(target_arch = "x86_64")]
use std::any::Any;

/// f32 lanes of the widest registers there are.
pub const LANES: usize = 16;
/// A row of lanes.
pub type Lanes = [f32; LANES];

/// Folds every value into one of the lanes, then the lanes into one. `f` has to come to the same
/// in any order (up to rounding), and `start` is its neutral element.
#[inline(always)]
pub fn reduce(values: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *x);
        }
    }
    let all = lanes.into_iter().fold(start, &f);
    rest.iter().fold(all, |a, x| f(a, *x))
}

/// The largest magnitude.
#[inline(always)]
pub fn absmax_of<S: Simd>(simd: S, vectors: &[S::f32s]) -> f32 {
    let mut max = simd.splat_f32s(0.0);
    for x in vectors {
        max = simd.max_f32s(max, simd.abs_f32s(*x));
    }
    simd.reduce_max_f32s(max)
}

/// A row of lanes in vectors: that of `index`.
#[inline(always)]
pub fn get<S: Simd>(row: &Lanes, index: usize) -> S::f32s {
    S::as_simd_f32s(row).0[index]
}

/// Stores a vector into a row of lanes, at `index`.
#[inline(always)]
pub fn set<S: Simd>(row: &mut Lanes, index: usize, x: S::f32s) {
    S::as_mut_simd_f32s(row).0[index] = x;
}

/// Whole numbers below this are the low bits of their sum with it.
pub const TWO_23: f32 = 8_388_608.0;
/// Its sum with what is small, of either sign, rounds to a whole number.
const MAGIC: f32 = 1.5 * TWO_23;

/// Rounded to whole numbers, of what is small.
#[inline(always)]
pub fn whole<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let magic = simd.splat_f32s(MAGIC);
    simd.sub_f32s(simd.add_f32s(x, magic), magic)
}

/// Rows become columns.
#[inline(always)]
pub fn transpose<S: Simd>(simd: S, square: &mut [Lanes; LANES]) {
    #[cfg(target_arch = "x86_64")]
    {
        let simd: &dyn Any = &simd;
        if let Some(simd) = simd.downcast_ref::<V4>() {
            return transpose_512(*simd, square);
        }
        if let Some(simd) = simd.downcast_ref::<V3>() {
            return transpose_256(*simd, square);
        }
    }
    let _ = simd;
    let rows = *square;
    for (column, lanes) in square.iter_mut().enumerate() {
        for (to, row) in lanes.iter_mut().zip(&rows) {
            *to = row[column];
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_512(simd: V4, square: &mut [Lanes; LANES]) {
    let f = simd.avx512f;
    let rows: [__m512; LANES] = bytemuck::cast(*square);
    let mut pairs = rows;
    for (pair, row) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        *pair = [f._mm512_unpacklo_ps(row[0], row[1]), f._mm512_unpackhi_ps(row[0], row[1])];
    }
    // Row j of each four: columns j, j + 4, j + 8, j + 12 of four rows.
    let mut fours = rows;
    for (four, pair) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
        let pair: [__m512d; 4] = bytemuck::cast(*pair);
        *four = bytemuck::cast([
            f._mm512_unpacklo_pd(pair[0], pair[2]),
            f._mm512_unpackhi_pd(pair[0], pair[2]),
            f._mm512_unpacklo_pd(pair[1], pair[3]),
            f._mm512_unpackhi_pd(pair[1], pair[3]),
        ]);
    }
    let mut out = rows;
    for j in 0..4 {
        // Even and odd quarters of the upper eight rows, and of the lower.
        let upper = [fours[j], fours[4 + j]];
        let lower = [fours[8 + j], fours[12 + j]];
        let upper_even = f._mm512_shuffle_f32x4::<0x88>(upper[0], upper[1]);
        let upper_odd = f._mm512_shuffle_f32x4::<0xdd>(upper[0], upper[1]);
        let lower_even = f._mm512_shuffle_f32x4::<0x88>(lower[0], lower[1]);
        let lower_odd = f._mm512_shuffle_f32x4::<0xdd>(lower[0], lower[1]);
        out[j] = f._mm512_shuffle_f32x4::<0x88>(upper_even, lower_even);
        out[4 + j] = f._mm512_shuffle_f32x4::<0x88>(upper_odd, lower_odd);
        out[8 + j] = f._mm512_shuffle_f32x4::<0xdd>(upper_even, lower_even);
        out[12 + j] = f._mm512_shuffle_f32x4::<0xdd>(upper_odd, lower_odd);
    }
    *square = bytemuck::cast(out);
}

/// Four squares of eight.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_256(simd: V3, square: &mut [Lanes; LANES]) {
    let from: [[__m256; 2]; LANES] = bytemuck::cast(*square);
    let mut to = from;
    for down in 0..2 {
        for right in 0..2 {
            let mut eight = [from[0][0]; 8];
            for (row, from) in eight.iter_mut().zip(&from[8 * down..]) {
                *row = from[right];
            }
            for (row, to) in eights(simd, eight).into_iter().zip(&mut to[8 * right..]) {
                to[down] = row;
            }
        }
    }
    *square = bytemuck::cast(to);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn eights(simd: V3, rows: [__m256; 8]) -> [__m256; 8] {
    let f = simd.avx;
    let mut pairs = rows;
    for (pair, row) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        *pair = [f._mm256_unpacklo_ps(row[0], row[1]), f._mm256_unpackhi_ps(row[0], row[1])];
    }
    let mut fours = rows;
    for (four, pair) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
        let pair: [__m256d; 4] = bytemuck::cast(*pair);
        *four = bytemuck::cast([
            f._mm256_unpacklo_pd(pair[0], pair[2]),
            f._mm256_unpackhi_pd(pair[0], pair[2]),
            f._mm256_unpacklo_pd(pair[1], pair[3]),
            f._mm256_unpackhi_pd(pair[1], pair[3]),
        ]);
    }
    let mut out = rows;
    for j in 0..4 {
        out[j] = f._mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
        out[4 + j] = f._mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, WithSimd};

    struct Transpose(Box<[Lanes; LANES]>);

    impl WithSimd for Transpose {
        type Output = Box<[Lanes; LANES]>;

        fn with_simd<S: Simd>(mut self, simd: S) -> Self::Output {
            transpose(simd, &mut self.0);
            self.0
        }
    }

    #[test]
    fn rows_become_columns() {
        let square = std::array::from_fn(|row| std::array::from_fn(|n| (100 * row + n) as f32));
        let mut archs = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        archs.extend(V3::try_new().map(Arch::V3));
        for arch in archs {
            let turned = arch.dispatch(Transpose(Box::new(square)));
            for (row, lanes) in turned.iter().enumerate() {
                for (column, x) in lanes.iter().enumerate() {
                    assert_eq!(*x, square[column][row], "{arch:?}");
                }
            }
        }
    }
}
