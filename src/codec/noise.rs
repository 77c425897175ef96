//! The control beside a codec: Gaussian noise of the same size.
//!
//! A codec whose error is noise costs a model what its size says; the difference to this control
//! is what its error costs beyond its size.

use super::distortion::DistortionSum;
use super::element::Element;
use super::halves::decompress_halves;
use crc32fast::Hasher;
use half::f16;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// The values with Gaussian noise added whose root mean square is `rmse` exactly, rounded to f16,
/// as a cache is served. The same for the same values and seed.
pub(super) fn with_noise<T: Element>(values: &[T], rmse: f64, seed: u64) -> Vec<f16> {
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

/// Root mean square of the error, 0 without values.
pub(super) fn size(distortion: DistortionSum) -> f64 {
    distortion.finish().rmse.unwrap_or(0.0)
}

/// The values with noise as large as the error of `decoded`, what that differs by from them, and
/// the bytes it takes: what [`super::TensorCodec::Noise`] makes of a part of a tensor.
pub fn add_noise<T: Element>(
    values: &[T],
    decoded: &[T],
    head_dim: usize,
    seed: u64,
) -> (Vec<T>, DistortionSum, usize) {
    let error = DistortionSum::measure(values, decoded, head_dim);
    let halves = with_noise(values, size(error), seed);
    let mut noisy = vec![T::default(); values.len()];
    decompress_halves(&halves, &mut noisy);
    let distortion = DistortionSum::measure(values, &noisy, head_dim);
    (noisy, distortion, 2 * halves.len())
}
