//! The maps of head vectors that come before quantisation, and their ways back: RoPE and the
//! Walsh–Hadamard rotation.
//!
//! Every step is one rounding to f32, in the order written here, so that a decoder in another
//! language comes to the same bits.

/// What keys were rotated by: cosines and sines of the first positions (Su et al. 2021, half-split
/// order as in Hugging Face).
///
/// An angle is f32(position) · frequency, rounded to f32; its cosine and sine are those of that
/// f32, worked out in f64 and rounded to f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    frequencies: Vec<f32>,
    /// [positions, head_dim / 2] each.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// `frequencies`: radians a position, one for each pair of channels i and i + head_dim / 2.
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

    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    pub fn head_dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Positions from 0 on that it knows.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.frequencies.len()).unwrap_or(0)
    }

    /// Turns a head vector at `position` by the angles, or back.
    #[inline(always)]
    pub(super) fn turn(&self, position: usize, back: bool, vector: &mut [f32]) {
        let half = self.frequencies.len();
        let (cos, sin) =
            (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        let (first, second) = vector.split_at_mut(half);
        let pairs = first.iter_mut().zip(&mut second[..half]).zip(cos.iter().zip(sin));
        if back {
            for ((a, b), (cos, sin)) in pairs {
                (*a, *b) = (*a * cos + *b * sin, *b * cos - *a * sin);
            }
        } else {
            for ((a, b), (cos, sin)) in pairs {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// The largest power of two that divides `dim`.
pub(super) fn hadamard_block(dim: usize) -> usize {
    1 << dim.trailing_zeros()
}

/// The Walsh–Hadamard transform of each block of `block` values, in place, O(d log d): butterflies
/// (a + b, a − b) over distances 1, 2, 4 … block / 2, then one product with f32(1 / √block). Its
/// own inverse.
#[inline(always)]
pub(super) fn hadamard(values: &mut [f32], block: usize) {
    match block {
        64 => values.as_chunks_mut().0.iter_mut().for_each(hadamard_of::<64>),
        128 => values.as_chunks_mut().0.iter_mut().for_each(hadamard_of::<128>),
        32 => values.as_chunks_mut().0.iter_mut().for_each(hadamard_of::<32>),
        _ => values.chunks_exact_mut(block).for_each(|values| butterflies(values, block)),
    }
}

/// The length is known to the compiler: all of it stays in registers.
#[inline(always)]
fn hadamard_of<const N: usize>(values: &mut [f32; N]) {
    butterflies(values, N);
}

#[inline(always)]
fn butterflies(values: &mut [f32], block: usize) {
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
    let scale = (1.0 / (block as f64).sqrt()) as f32;
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Bit i: channel i of each 64 changes its sign. Drawn once, by torch's generator with seed 0.
pub(super) const SIGNS: u64 = 0xa685_0592_a197_d809;

#[inline(always)]
pub(super) fn flip_signs(values: &mut [f32]) {
    for chunk in values.chunks_mut(64) {
        for (index, value) in chunk.iter_mut().enumerate() {
            let flip = (SIGNS >> index & 1) as u32;
            *value = f32::from_bits(value.to_bits() ^ flip << 31);
        }
    }
}
