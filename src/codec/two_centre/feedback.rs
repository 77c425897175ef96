//! The feedback of errors within a block, from the weights of its channels.
//!
//! An error e of the rotated block costs eᵀMe with M = R·diag(w)·R. Where channels of one weight are
//! those whose places have the same three bits, all of them bits that Hadamard's matrix mixes, M has
//! as many copies of H₈·diag(of the 8 weights)·H₈ as such a group has channels. With that = U·D·Uᵀ, U
//! upper with a diagonal of ones, coding one value after the other, each taking up U[i][j] times the
//! error of each value i before it, has the cost Σ D[j]·d[j]², d[j] what rounding the j-th leaves
//! (LDLQ, Chee et al. 2023).

use super::blocks::{Blocks, Chains, GROUPS};
use crate::codec::hadamard::hadamard_block;
use crate::codec::rotary::RotaryTable;

/// How much squared errors of keys count, by eighths of the rotary frequencies, the fastest first:
/// the energy that queries have there. Fitted to SmolLM2-135M, of whose keys it takes away a third of the KL
/// divergence; of Qwen2.5-Coder-0.5B it takes away nearly half, of Gemma 3 270M nothing that could be told.
/// Weights from the energy of each head's own keys did worse on both, since the large keys of a bias do not
/// meet large queries.
const PROFILE: [f64; GROUPS] = [1.0, 1.0, 1.0, 1.0, 1.0, 2.5, 4.0, 4.0];

/// What codes of a block take up of errors of earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Feedback {
    /// 8, or 4 where blocks are 4 times an odd number.
    pub groups: usize,
    /// Places from a channel to the one of the next group.
    pub apart: usize,
    /// U: `shares[i][j]` of the error of group i in group j.
    pub shares: [[f32; GROUPS]; GROUPS],
    /// D: how much what is left of each group counts.
    pub costs: [f32; GROUPS],
}

impl Feedback {
    /// Of each block; `None` where all channels weigh the same. `rope`: what the keys rotate by; without,
    /// the whole head in halves. `chains`: where their order is given, those of a trellis.
    pub fn of_blocks(
        blocks: Blocks,
        rope: Option<&RotaryTable>,
        chains: Option<Chains>,
    ) -> Vec<Option<Self>> {
        let weights = query_weights(blocks.size * blocks.count, rope);
        let places: Vec<f64> = blocks.channels().map(|channel| weights[channel]).collect();
        places.chunks_exact(blocks.size).map(|weights| Self::new(weights, chains)).collect()
    }

    /// `weights`: of the block's channels, in the order of their places. Groups are those that differ
    /// most, if they are not given; a group whose channels differ has their mean.
    fn new(weights: &[f64], chains: Option<Chains>) -> Option<Self> {
        let run = hadamard_block(weights.len());
        let groups = run.min(GROUPS);
        let all = std::iter::successors(Some(run / groups), |apart| Some(apart / 2));
        let all = all.take_while(|apart| *apart > 0);
        let distances = all.filter(|apart| chains.is_none_or(|chains| chains.apart == *apart));
        let (mut best, mut most) = (None, 0.0);
        for apart in distances {
            let means = means(weights, groups, apart);
            let mean = means.iter().sum::<f64>() / groups as f64;
            let spread: f64 = means[..groups].iter().map(|w| (w - mean) * (w - mean)).sum();
            if spread > most * 1.001 {
                (best, most) = (Some((apart, means)), spread);
            }
        }
        let (apart, means) = best?;
        let (shares, costs) = factor(&means[..groups]);
        Some(Self { groups, apart, shares, costs })
    }
}

/// The weight of each channel's squared error. [head_dim]
fn query_weights(head_dim: usize, rope: Option<&RotaryTable>) -> Vec<f64> {
    let of_rank = |rank: usize, ranks: usize| PROFILE[rank * GROUPS / ranks];
    let Some(table) = rope else {
        let pairs = head_dim.div_ceil(2);
        return (0..head_dim).map(|channel| of_rank(channel % pairs, pairs)).collect();
    };
    let pairs: Vec<[usize; 2]> = table.turning_pairs().collect();
    // Channels that do not turn are those of frequency 0; where none turns all are alike.
    let mut weights = vec![PROFILE[GROUPS - 1]; head_dim];
    for (rank, pair) in pairs.iter().enumerate() {
        for channel in pair {
            weights[*channel] = of_rank(rank, pairs.len());
        }
    }
    weights
}

/// The mean weight of each group.
fn means(weights: &[f64], groups: usize, apart: usize) -> [f64; GROUPS] {
    let mut means = [0.0; GROUPS];
    for (place, weight) in weights.iter().enumerate() {
        means[place / apart % groups] += weight * groups as f64 / weights.len() as f64;
    }
    means
}

/// U and D of H·diag(weights)·H = U·D·Uᵀ.
fn factor(weights: &[f64]) -> ([[f32; GROUPS]; GROUPS], [f32; GROUPS]) {
    let mut left = [[0.0; GROUPS]; GROUPS];
    for (row, left) in left.iter_mut().enumerate() {
        for (column, entry) in left.iter_mut().enumerate() {
            // H[i][g]·H[g][j] is the parity of the bits of g in which i and j differ.
            let sign =
                |group: usize| 1.0 - f64::from((group & (row ^ column)).count_ones() % 2) * 2.0;
            *entry = weights.iter().enumerate().map(|(group, w)| sign(group) * w).sum::<f64>();
        }
    }
    let (mut upper, mut costs) = ([[0.0; GROUPS]; GROUPS], [0.0; GROUPS]);
    for last in (0..weights.len()).rev() {
        let column = left.map(|row| row[last]);
        costs[last] = column[last] as f32;
        for row in 0..=last {
            let share = column[row] / column[last];
            upper[row][last] = share as f32;
            for other in 0..last {
                left[row][other] -= share * column[other];
            }
        }
    }
    (upper, costs)
}

#[cfg(test)]
mod tests {
    use super::super::blocks::BlockRule;
    use super::*;
    use crate::codec::rotary::{RotaryEmbedding, RotaryPairs};

    fn feedback(dim: usize, rope: Option<RotaryEmbedding>) -> Vec<Option<Feedback>> {
        let table = rope.map(|embedding| RotaryTable::of(embedding, 1));
        Feedback::of_blocks(BlockRule::Largest.blocks(dim).unwrap(), table.as_ref(), None)
    }

    /// U·D·Uᵀ is H·diag(w)·H for the D that its last column's diagonal says.
    #[test]
    fn the_factor_multiplies_back() {
        for groups in [4, 8] {
            let weights: Vec<f64> = PROFILE.into_iter().skip(GROUPS - groups).collect();
            let (upper, costs) = factor(&weights);
            let entry = |i: usize, j: usize| {
                let sign = |g: usize| if (g & (i ^ j)).count_ones() % 2 == 1 { -1.0 } else { 1.0 };
                (0..groups).map(|g| sign(g) * weights[g]).sum::<f64>()
            };
            let mut diagonal = [0.0; GROUPS];
            for last in (0..groups).rev() {
                let later = |n: usize| diagonal[n] * f64::from(upper[last][n]).powi(2);
                diagonal[last] = entry(last, last) - (last + 1..groups).map(later).sum::<f64>();
            }
            for i in 0..groups {
                assert!((diagonal[i] - f64::from(costs[i])).abs() < 1e-5, "{i}");
                assert_eq!(upper[i][i], 1.0);
                for j in 0..groups {
                    let term = |n: usize| f64::from(upper[i][n] * upper[j][n]) * diagonal[n];
                    let found: f64 = (0..groups).map(term).sum();
                    assert!((found - entry(i, j)).abs() < 1e-5, "{i}, {j}: {found}");
                }
            }
        }
    }

    /// Each block of each head size has all frequencies, so the whole profile.
    #[test]
    fn every_head_size_is_shaped_by_the_same_profile() {
        let whole = factor(&PROFILE).0;
        for (dim, apart) in [(64, 4), (128, 8), (256, 8), (80, 2), (96, 4), (112, 2), (192, 4)] {
            let rope = RotaryEmbedding::halves(&RotaryTable::frequencies_of(1e4, dim));
            let all = feedback(dim, Some(rope));
            assert_eq!(all, feedback(dim, None));
            for block in all {
                let block = block.unwrap();
                assert_eq!((block.groups, block.apart), (8, apart), "{dim}");
                assert_eq!(block.shares, whole, "{dim}");
            }
        }
        let block = feedback(100, None)[0].clone().unwrap();
        assert_eq!((block.groups, block.apart), (4, 1));
        let one = RotaryEmbedding::none(64);
        assert_eq!(feedback(64, Some(one)), [None]);
    }

    /// Pairs side by side: the first block of two has the fast half of the frequencies, which weigh
    /// alike, the second the others.
    #[test]
    fn neighbours_are_shaped_by_their_own_frequencies() {
        let frequencies = RotaryTable::frequencies_of(1e4, 128);
        let pairs = RotaryPairs::Neighbours;
        let all = feedback(128, Some(RotaryEmbedding { frequencies, pairs, head_dim: 128 }));
        assert_eq!(all[0], None);
        let second = all[1].clone().unwrap();
        assert_eq!(second.apart, 8);
        assert_eq!(second.shares, factor(&[1.0, 1.0, 2.5, 2.5, 4.0, 4.0, 4.0, 4.0]).0);
    }
}
