//! The rotary position embedding (RoPE) of keys, and its way back.
//!
//! Every step is one rounding to f32, in the order written here, so that a decoder in another
//! language comes to the same bits.

use pulp::Simd;
use serde::{Deserialize, Serialize};

/// How the channels that rotate together lie in a head vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotaryPairs {
    /// Channels i and i + n of the first 2·n (Llama in Hugging Face order, GPT-NeoX).
    Halves,
    /// Channels 2·i and 2·i + 1 (Cohere, GLM, the original GPT-J).
    Neighbours,
}

/// The rotary position embedding of one layer's keys (Su et al. 2021): the first
/// 2·`frequencies.len()` channels of a head vector rotate, the rest stay as they are; without
/// frequencies none rotates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotaryEmbedding {
    /// Radians a position, one a pair of channels.
    pub frequencies: Vec<f32>,
    /// How the pairs lie.
    pub pairs: RotaryPairs,
    /// Channels of a head vector.
    pub head_dim: usize,
}

impl RotaryEmbedding {
    /// Over the whole head, in halves. `frequencies`: head_dim / 2.
    pub fn halves(frequencies: &[f32]) -> Self {
        Self {
            frequencies: frequencies.to_vec(),
            pairs: RotaryPairs::Halves,
            head_dim: 2 * frequencies.len(),
        }
    }

    /// Of a layer whose keys do not rotate.
    pub fn none(head_dim: usize) -> Self {
        Self { frequencies: Vec::new(), pairs: RotaryPairs::Halves, head_dim }
    }
}

/// The rotations of a layer's keys: cosines and sines of the first positions.
///
/// An angle is f32(position) · frequency, rounded to f32; its cosine and sine are those of that
/// f32, worked out in f64 and rounded to f32.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryTable {
    embedding: RotaryEmbedding,
    positions: usize,
    /// [positions, pairs] each.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RotaryTable {
    /// The table of `positions` positions from 0 on, over the whole head in halves. `frequencies`:
    /// radians a position, one for each pair of channels i and i + head_dim / 2.
    pub fn new(frequencies: &[f32], positions: usize) -> Self {
        Self::of(RotaryEmbedding::halves(frequencies), positions)
    }

    /// The table of `positions` positions from 0 on.
    pub fn of(embedding: RotaryEmbedding, positions: usize) -> Self {
        let frequencies = &embedding.frequencies;
        let angles = || {
            (0..positions).flat_map(|position| {
                frequencies.iter().map(move |f| f64::from(position as f32 * f))
            })
        };
        Self {
            cos: angles().map(|angle| angle.cos() as f32).collect(),
            sin: angles().map(|angle| angle.sin() as f32).collect(),
            positions,
            embedding,
        }
    }

    /// The frequencies of plain RoPE with this base: 1 / theta^(2i / head_dim), each step in f32.
    pub fn frequencies_of(theta: f32, head_dim: usize) -> Vec<f32> {
        let channels = (0..head_dim).step_by(2);
        channels.map(|i| 1.0 / theta.powf(i as f32 / head_dim as f32)).collect()
    }

    /// Radians a position, one a pair of channels. [pairs]
    pub fn frequencies(&self) -> &[f32] {
        &self.embedding.frequencies
    }

    /// How the channels that rotate together lie.
    pub fn pairs(&self) -> RotaryPairs {
        self.embedding.pairs
    }

    /// Values of the head vectors it rotates.
    pub fn head_dim(&self) -> usize {
        self.embedding.head_dim
    }

    /// Number of positions, from 0 on, that it holds.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// The channels of each pair that does turn: one of frequency 0 does not.
    pub(super) fn turning_pairs(&self) -> impl Iterator<Item = [usize; 2]> {
        let (count, pairs) = (self.frequencies().len(), self.pairs());
        let turning = self.frequencies().iter().enumerate().filter(|(_, f)| **f != 0.0);
        turning.map(move |(index, _)| match pairs {
            RotaryPairs::Halves => [index, index + count],
            RotaryPairs::Neighbours => [2 * index, 2 * index + 1],
        })
    }

    /// Rotates head vectors of one head, the first of which is at `position`, or rotates them back.
    #[inline(always)]
    pub(super) fn rotate_rows<S: Simd>(
        &self,
        simd: S,
        position: usize,
        back: bool,
        rows: &mut [f32],
    ) {
        for (index, row) in rows.chunks_exact_mut(self.head_dim().max(1)).enumerate() {
            self.rotate(simd, position + index, back, row);
        }
    }

    /// Rotates a head vector by the angles of `position`, or back.
    #[inline(always)]
    fn rotate<S: Simd>(&self, simd: S, position: usize, back: bool, vector: &mut [f32]) {
        let pairs = self.frequencies().len();
        let cos = &self.cos[position * pairs..][..pairs];
        let sin = &self.sin[position * pairs..][..pairs];
        if self.pairs() == RotaryPairs::Neighbours {
            let (vector, _) = vector[..2 * pairs].as_chunks_mut::<2>();
            for ([a, b], (cos, sin)) in vector.iter_mut().zip(cos.iter().zip(sin)) {
                (*a, *b) = rotated(*a, *b, *cos, *sin, back);
            }
            return;
        }
        let (first, second) = vector.split_at_mut(pairs);
        let (a, a_rest) = S::as_mut_simd_f32s(first);
        let (b, b_rest) = S::as_mut_simd_f32s(&mut second[..pairs]);
        let (cos, cos_rest) = S::as_simd_f32s(cos);
        let (sin, sin_rest) = S::as_simd_f32s(sin);
        for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
            let (a_cos, a_sin) = (simd.mul_f32s(*a, *cos), simd.mul_f32s(*a, *sin));
            let (b_cos, b_sin) = (simd.mul_f32s(*b, *cos), simd.mul_f32s(*b, *sin));
            (*a, *b) = if back {
                (simd.add_f32s(a_cos, b_sin), simd.sub_f32s(b_cos, a_sin))
            } else {
                (simd.sub_f32s(a_cos, b_sin), simd.add_f32s(b_cos, a_sin))
            };
        }
        for ((a, b), (cos, sin)) in a_rest.iter_mut().zip(b_rest).zip(cos_rest.iter().zip(sin_rest))
        {
            (*a, *b) = rotated(*a, *b, *cos, *sin, back);
        }
    }
}

/// A pair turned by an angle, or back.
#[inline(always)]
fn rotated(a: f32, b: f32, cos: f32, sin: f32, back: bool) -> (f32, f32) {
    if back {
        (a * cos + b * sin, b * cos - a * sin)
    } else {
        (a * cos - b * sin, b * cos + a * sin)
    }
}
