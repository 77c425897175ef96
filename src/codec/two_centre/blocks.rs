//! How a head vector is cut into blocks, and the rotation of a block.

use crate::codec::hadamard::{hadamard_block, hadamard_rows};
use crate::lanes::{Lanes, get, set};
use pulp::Simd;

/// How head vectors are cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockRule {
    /// As few as there can be: of the largest multiple of 4 below 128 that divides the head vector.
    /// Each has channels of all frequencies: of n blocks the one of index b has the pairs b, b + n,
    /// b + 2n … of channels i and i + head_dim / 2. Head vectors of 8, 16, 32, 64 and 128 values are
    /// cut as [`BlockRule::PowersOfTwo`] says.
    Largest,
    /// Consecutive channels, as many as the largest power of two up to 64 that divides the head
    /// vector: in files of versions 2 to 4.
    PowersOfTwo,
}

/// The blocks of a head vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Channels of a block.
    pub size: usize,
    /// Blocks of a head vector.
    pub count: usize,
    /// Whether a block's channels are consecutive.
    consecutive: bool,
}

/// Blocks have fewer channels than this, which share a scale and a choice of centre.
pub(super) const MOST: usize = 128;
/// Parts of a block whose errors noise shaping weighs differently, at most.
pub(super) const GROUPS: usize = 8;
/// Channels of a block, at least.
const LEAST: usize = 8;
/// The longest block of consecutive channels.
const LONGEST_RUN: usize = 64;

impl BlockRule {
    /// The blocks of head vectors of `head_dim` values; `None` where they cannot be cut.
    pub fn blocks(self, head_dim: usize) -> Option<Blocks> {
        let runs = LONGEST_RUN.min(hadamard_block(head_dim.max(1)));
        let is_common = head_dim.is_power_of_two() && head_dim <= 2 * LONGEST_RUN;
        let consecutive = self == Self::PowersOfTwo || is_common;
        let size = match consecutive {
            true => Some(runs),
            false => (LEAST..MOST).rev().find(|n| n % 4 == 0 && head_dim.is_multiple_of(*n)),
        };
        let size = size.filter(|size| *size >= LEAST && head_dim > 0)?;
        Some(Blocks { size, count: head_dim / size, consecutive })
    }

    /// Whether it cuts head vectors of `head_dim` values in its own way.
    pub fn differs(head_dim: usize) -> bool {
        Self::Largest.blocks(head_dim) != Self::PowersOfTwo.blocks(head_dim)
    }
}

/// The order in which a trellis takes the places of a block: chains of one place of each group, `apart`
/// from each other, so that noise shaping has taken up the errors of a chain when the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chains {
    /// Places of a chain.
    pub groups: usize,
    /// From one to the next.
    pub apart: usize,
}

impl Chains {
    /// All places of a block of so many.
    pub fn places(self, size: usize) -> impl Iterator<Item = usize> {
        let Self { groups, apart } = self;
        let starts = (0..size).step_by(groups * apart).flat_map(move |run| run..run + apart);
        starts.flat_map(move |first| (0..groups).map(move |group| first + group * apart))
    }
}

impl Blocks {
    /// The chains of a trellis.
    pub(super) fn chains(self) -> Chains {
        let run = hadamard_block(self.size);
        let groups = run.min(GROUPS);
        // The highest bit of a whole head's consecutive places says which half of it.
        let halves = if self.consecutive && self.count == 1 { 2 } else { 1 };
        Chains { groups, apart: (run / groups / halves).max(1) }
    }

    /// Of a tensor without values.
    pub(super) const NONE: Self = Self { size: LEAST, count: 0, consecutive: true };

    /// The channel of each place: those of the first block, then those of the second …
    ///
    /// Where they are not consecutive, a block's channels, listed pair by pair, are cut into 8 parts (4,
    /// of blocks of 4 times an odd number), and their places are such that the index of the part is
    /// among the bits that Hadamard's matrix mixes: what noise shaping asks for.
    pub(super) fn channels(self) -> impl Iterator<Item = usize> {
        let Self { size, count, consecutive } = self;
        let run = hadamard_block(size);
        let parts = run.min(GROUPS);
        let (apart, half) = (run / parts, size * count / 2);
        (0..size * count).map(move |index| {
            if consecutive {
                return index;
            }
            let (block, place) = (index / size, index % size);
            let listed = place % run / apart * (size / parts) + place / run * apart + place % apart;
            block + listed / 2 * count + listed % 2 * half
        })
    }
}

/// The rotation of a block of as many channels as there are rows, for each lane of one column of
/// vectors; its own inverse.
///
/// Of N = m · P channels, P the largest power of two, each run of P is transformed by Hadamard's
/// matrix. Then, for each prime factor f of m, the smallest first, f values each at a distance that
/// is P at first and f times longer after each factor: two in f of their sum is taken from each.
#[inline(always)]
pub(super) fn rotate_block<S: Simd>(simd: S, rows: &mut [Lanes], column: usize) {
    let run = hadamard_block(rows.len());
    for rows in rows.chunks_exact_mut(run) {
        hadamard_rows(simd, rows, column);
    }
    let (mut distance, mut left) = (run, rows.len() / run);
    let mut factor = 3;
    while left > 1 {
        if left.is_multiple_of(factor) {
            reflect(simd, rows, distance, factor, column);
            distance *= factor;
            left /= factor;
        } else {
            factor += 2;
        }
    }
}

#[inline(always)]
fn reflect<S: Simd>(simd: S, rows: &mut [Lanes], distance: usize, factor: usize, column: usize) {
    let share = simd.splat_f32s(two_in(factor));
    for rows in rows.chunks_exact_mut(factor * distance) {
        for first in 0..distance {
            let mut sum = get::<S>(&rows[first], column);
            for index in 1..factor {
                sum = simd.add_f32s(sum, get::<S>(&rows[first + index * distance], column));
            }
            let part = simd.mul_f32s(sum, share);
            for index in 0..factor {
                let row = &mut rows[first + index * distance];
                set::<S>(row, column, simd.sub_f32s(get::<S>(row, column), part));
            }
        }
    }
}

/// 2/f, rounded to f32.
fn two_in(factor: usize) -> f32 {
    (2.0 / factor as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_vectors_are_cut_into_few_blocks() {
        let cut = |rule: BlockRule, dim| rule.blocks(dim).map(|blocks| (blocks.size, blocks.count));
        let largest = |dim| cut(BlockRule::Largest, dim);
        for (dim, size, count) in [
            (8, 8, 1),
            (12, 12, 1),
            (32, 32, 1),
            (64, 64, 1),
            (80, 80, 1),
            (96, 96, 1),
            (100, 100, 1),
            (112, 112, 1),
            (120, 120, 1),
            (128, 64, 2),
            (160, 80, 2),
            (192, 96, 2),
            (256, 64, 4),
            (512, 64, 8),
            (576, 96, 6),
        ] {
            assert_eq!(largest(dim), Some((size, count)), "{dim}");
        }
        for dim in [0, 1, 4, 10, 66, 148] {
            assert_eq!(largest(dim), None, "{dim}");
        }
        let runs = |dim| cut(BlockRule::PowersOfTwo, dim);
        assert_eq!([80, 96, 192, 256].map(runs), [(16, 5), (32, 3), (64, 3), (64, 4)].map(Some));
        assert_eq!([100, 12].map(runs), [None, None]);
        assert!([8, 16, 32, 64, 128].into_iter().all(|dim| !BlockRule::differs(dim)));
        assert!([80, 96, 100, 192, 256].into_iter().all(BlockRule::differs));
        let channels = |dim| BlockRule::Largest.blocks(dim).unwrap().channels();
        assert!(channels(128).eq(0..128));
        assert!(channels(256).take(3).eq([0, 128, 4]) && channels(256).skip(64).take(1).eq([1]));
        assert!(channels(80).skip(14).take(4).eq([35, 75, 1, 41]));
        for dim in [12, 80, 96, 100, 192, 256, 576] {
            let mut all: Vec<usize> = channels(dim).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..dim), "{dim}");
        }
    }
}
