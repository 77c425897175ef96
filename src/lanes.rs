//! Work on lanes: as many f32 as the widest registers hold, whatever the machine has.
//!
//! What pulp runs with the widest registers is a struct with an `#[inline(always)]` body, never a
//! closure: a closure is compiled for those registers only if it happens to be inlined. Inside, hot
//! loops go over [`Simd::f32s`], of which 16 lanes are 1, 2, 4 or 16: left to itself the compiler
//! unrolls a loop over 16 lanes, and vectorises the one around it with gathers.

use pulp::Simd;

pub const LANES: usize = 16;
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

/// Folds vectors, of which there are those of whole [`Lanes`], into one row of lanes from 0 on, and
/// sums that. The same on every machine.
#[inline(always)]
pub fn sum_of<S: Simd>(
    simd: S,
    vectors: &[S::f32s],
    fold: impl Fn(S::f32s, S::f32s) -> S::f32s,
) -> f32 {
    let row = LANES / S::F32_LANES;
    let mut lanes = [0f32; LANES];
    let (sums, _) = S::as_mut_simd_f32s(&mut lanes);
    for (index, sum) in sums.iter_mut().enumerate() {
        let mut own = simd.splat_f32s(0.0);
        for vectors in vectors.chunks_exact(row) {
            own = fold(own, vectors[index]);
        }
        *sum = own;
    }
    sum(simd, &mut lanes)
}

/// Upper halves are added to lower ones, until one lane is left.
#[inline(always)]
fn sum<S: Simd>(simd: S, lanes: &mut Lanes) -> f32 {
    let (vectors, _) = S::as_mut_simd_f32s(&mut lanes[..]);
    let mut left = vectors.len();
    while left > 1 {
        left /= 2;
        for index in 0..left {
            vectors[index] = simd.add_f32s(vectors[index], vectors[index + left]);
        }
    }
    // Halves too, in registers; narrower ones than these may have another order.
    if S::F32_LANES >= 8 {
        return simd.reduce_sum_f32s(vectors[0]);
    }
    let mut left = S::F32_LANES;
    while left > 1 {
        left /= 2;
        for index in 0..left {
            lanes[index] += lanes[index + left];
        }
    }
    lanes[0]
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

/// Its sum with what is small rounds to a whole number: 1.5·2²³.
const MAGIC: f32 = 12_582_912.0;

/// Rounded to whole numbers, of what is small.
#[inline(always)]
pub fn whole<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let magic = simd.splat_f32s(MAGIC);
    simd.sub_f32s(simd.add_f32s(x, magic), magic)
}
