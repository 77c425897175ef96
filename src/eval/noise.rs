//! Controls that draw numbers.
//!
//! Beside a codec, Gaussian noise of the same size: a codec whose error is noise costs a model what its
//! size says, and the difference to this control is what its error costs beyond its size. Beside a run in
//! 16 bits, a rounding that came out otherwise: what it costs is the floor below any codec.

use crate::codec::{DistortionSum, Element, decompress_halves};
use crate::error::{Error, Result};
use crc32fast::Hasher;
use half::f16;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
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
    let mut draw = draws(values, seed);
    let noise: Vec<f32> = (0..values.len()).map(|_| StandardNormal.sample(&mut draw)).collect();
    let power: f64 = noise.iter().map(|n| f64::from(*n).powi(2)).sum();
    let unit = (rmse / (power / values.len().max(1) as f64).sqrt()) as f32;
    let noisy: Vec<f32> =
        values.iter().zip(noise).map(|(value, noise)| value.to_f32() + noise * unit).collect();
    let mut halves = vec![f16::ZERO; values.len()];
    f16::narrow_saturating(&noisy, &mut halves);
    halves
}

/// What is drawn for these values: tensors of one seed have numbers of their own, whichever others there
/// are.
fn draws<T: Element>(values: &[T], seed: u64) -> StdRng {
    let mut content = Hasher::new();
    content.update(bytemuck::cast_slice(values));
    StdRng::seed_from_u64(seed ^ u64::from(content.finalize()) << 32)
}

/// Values of a 16-bit type as if they had been rounded to it otherwise: one in twelve is moved to a
/// neighbour, a unit in the last place away. Rounding makes a mean squared error of a twelfth of that
/// unit's square, and so does this. Zeros stay, and what has no finite neighbour.
pub(super) fn rounded_otherwise<T: Element>(
    values: &[T],
    head_dim: usize,
    seed: u64,
) -> Result<Noisy<T>> {
    if size_of::<T>() != size_of::<u16>() {
        return Err(Error::system("rounding otherwise: expected values of 16 bits"));
    }
    let mut draw = draws(values, seed);
    let mut moved = values.to_vec();
    for bits in bytemuck::cast_slice_mut::<T, u16>(&mut moved) {
        // Magnitudes are ordered as their bits are.
        let (sign, magnitude) = (*bits & 0x8000, *bits & 0x7fff);
        let neighbour = match draw.random_range(0..24) {
            0 => magnitude + 1,
            1 => magnitude.saturating_sub(1),
            _ => continue,
        };
        if magnitude > 0 {
            *bits = sign | neighbour;
        }
    }
    for (moved, value) in moved.iter_mut().zip(values) {
        if !moved.is_finite() {
            *moved = *value;
        }
    }
    let distortion = DistortionSum::measure(values, &moved, head_dim);
    Ok(Noisy { values: moved, distortion, stored_bytes: 2 * values.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Rounds normal numbers, and moves what came out.
    fn errors<T: Element>(seed: u64) -> (Vec<T>, Noisy<T>, f64) {
        let mut draw = StdRng::seed_from_u64(7);
        let exact: Vec<f32> = (0..40_000).map(|_| StandardNormal.sample(&mut draw)).collect();
        let mut rounded = vec![T::default(); exact.len()];
        T::narrow_saturating(&exact, &mut rounded);
        let squared = |(a, b): (&f32, &T)| f64::from(a - b.to_f32()).powi(2);
        let of_rounding = exact.iter().zip(&rounded).map(squared).sum::<f64>() / exact.len() as f64;
        let moved = rounded_otherwise(&rounded, 64, seed).unwrap();
        (rounded, moved, of_rounding.sqrt())
    }

    /// The error of the control is as large as that of rounding, which f32 knows.
    fn is_as_large_as_rounding<T: Element + PartialEq>() {
        let (rounded, moved, of_rounding) = errors::<T>(1);
        let rmse = moved.distortion.finish().rmse.unwrap();
        assert!((rmse / of_rounding - 1.0).abs() < 0.05, "{rmse} and {of_rounding}");
        let count = rounded.iter().zip(&moved.values).filter(|(a, b)| a != b).count();
        assert!((3000..3667).contains(&count), "{count} of 40,000 moved");
        assert!(errors::<T>(1).1.values == moved.values, "the same seed");
        assert!(errors::<T>(2).1.values != moved.values, "another seed");
    }

    #[test]
    fn rounding_otherwise_is_as_large_as_rounding() {
        is_as_large_as_rounding::<bf16>();
        is_as_large_as_rounding::<f16>();
    }

    #[test]
    fn zeros_stay_and_nothing_overflows() {
        let values = [0.0, -0.0, f32::MAX, f32::MIN].repeat(1000);
        let mut rounded = vec![f16::ZERO; values.len()];
        f16::narrow_saturating(&values, &mut rounded);
        let moved = rounded_otherwise(&rounded, 4, 0).unwrap().values;
        assert!(moved.iter().all(|value| value.is_finite()));
        assert!(
            moved.iter().zip(&rounded).all(|(a, b)| a.to_bits() == b.to_bits() || *a != f16::ZERO)
        );
        assert!(rounded_otherwise(&[1f32], 1, 0).is_err());
    }
}
