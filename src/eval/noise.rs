//! The control beside a codec: Gaussian noise of the same size.
//!
//! A codec whose error is noise costs a model what its size says; the difference to this control
//! is what its error costs beyond its size.

use crate::codec::{DistortionSum, Element, decompress_halves};
use crc32fast::Hasher;
use half::f16;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// Values with noise, in head vectors.
pub(super) struct Noisy<T> {
    pub values: Vec<T>,
    /// Between the values and those without noise.
    pub distortion: DistortionSum,
    /// Noise stores nothing smaller: bytes of f16, as a cache is served.
    pub stored_bytes: usize,
}

/// The values, in head vectors of `head_dim`, with noise of the same root mean square as `error`,
/// rounded to f16. The same for the same values and seed.
pub(super) fn add_noise<T: Element>(
    values: &[T],
    error: DistortionSum,
    head_dim: usize,
    seed: u64,
) -> Noisy<T> {
    let halves = with_noise(values, error.finish().rmse.unwrap_or(0.0), seed);
    let mut noisy = vec![T::default(); values.len()];
    decompress_halves(&halves, &mut noisy);
    let distortion = DistortionSum::measure(values, &noisy, head_dim);
    Noisy { values: noisy, distortion, stored_bytes: 2 * halves.len() }
}

/// The values with Gaussian noise added whose root mean square is `rmse` exactly.
fn with_noise<T: Element>(values: &[T], rmse: f64, seed: u64) -> Vec<f16> {
    // Tensors of one seed are to have noise of their own, whichever others there are.
    let mut content = Hasher::new();
    content.update(bytemuck::cast_slice(values));
    let mut draw = StdRng::seed_from_u64(seed ^ u64::from(content.finalize()) << 32);
    let noise: Vec<f32> = (0..values.len()).map(|_| StandardNormal.sample(&mut draw)).collect();
    let power: f64 = noise.iter().map(|n| f64::from(*n).powi(2)).sum();
    let unit = (rmse / (power / values.len().max(1) as f64).sqrt()) as f32;
    let noisy: Vec<f32> =
        values.iter().zip(noise).map(|(value, noise)| value.to_f32() + noise * unit).collect();
    let mut halves = vec![f16::ZERO; values.len()];
    f16::narrow_saturating(&noisy, &mut halves);
    halves
}
