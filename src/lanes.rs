//! Reductions in independent accumulators, which a compiler can vectorise.
//!
//! What pulp runs with the widest registers is a struct with an `#[inline(always)]` body, never a
//! closure: a closure is compiled for those registers only if it happens to be inlined.

/// Accumulators: as many f32 as the widest registers hold.
pub const LANES: usize = 16;

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
