//! The rotary position embedding (RoPE) of keys, and its way back.
//!
//! Every step is one rounding to f32, in the order written here, so that a decoder in another
//! language comes to the same bits.

use pulp::Simd;

/// The rotations of a model's keys: cosines and sines of the first positions (Su et al. 2021, half-split
/// order as in Hugging Face).
///
/// An angle is f32(position) · frequency, rounded to f32; its cosine and sine are those of that
/// f32, worked out in f64 and rounded to f32.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryTable {
    frequencies: Vec<f32>,
    /// [positions, head_dim / 2] each.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RotaryTable {
    /// The table of `positions` positions from 0 on. `frequencies`: radians a position, one for each pair of channels i and i + head_dim / 2.
    pub fn new(frequencies: &[f32], positions: usize) -> Self {
        let angles = || {
            (0..positions).flat_map(|position| {
                frequencies.iter().map(move |f| f64::from(position as f32 * f))
            })
        };
        Self {
            frequencies: frequencies.to_vec(),
            cos: angles().map(|angle| angle.cos() as f32).collect(),
            sin: angles().map(|angle| angle.sin() as f32).collect(),
        }
    }

    /// The frequencies of plain RoPE with this base: 1 / theta^(2i / head_dim), each step in f32.
    pub fn frequencies_of(theta: f32, head_dim: usize) -> Vec<f32> {
        let channels = (0..head_dim).step_by(2);
        channels.map(|i| 1.0 / theta.powf(i as f32 / head_dim as f32)).collect()
    }

    /// Radians a position, one a pair of channels. [head_dim / 2]
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Values of the head vectors it rotates.
    pub fn head_dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Number of positions, from 0 on, that it holds.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.frequencies.len()).unwrap_or(0)
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
        let half = self.frequencies.len();
        let (first, second) = vector.split_at_mut(half);
        let (a, a_rest) = S::as_mut_simd_f32s(first);
        let (b, b_rest) = S::as_mut_simd_f32s(&mut second[..half]);
        let (cos, cos_rest) = S::as_simd_f32s(&self.cos[position * half..][..half]);
        let (sin, sin_rest) = S::as_simd_f32s(&self.sin[position * half..][..half]);
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
            (*a, *b) = if back {
                (*a * cos + *b * sin, *b * cos - *a * sin)
            } else {
                (*a * cos - *b * sin, *b * cos + *a * sin)
            };
        }
    }
}
