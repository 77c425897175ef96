//! How far decoded values are from the originals.

use super::Element;
use pulp::Arch;
use rayon::prelude::*;
use serde::Serialize;

/// Sums over one tensor or several, in f64. [`DistortionSum::finish`] makes the figures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DistortionSum {
    /// Σ x²
    energy: f64,
    /// Σ (x − y)²
    error: f64,
    /// Σ cos(x, y) over head vectors
    cosine: f64,
    values: u64,
    vectors: u64,
}

/// RMSE (unit of the tensor), SNR (dB, pooled energy over pooled error) and the mean cosine
/// over last-dimension vectors. `None` where undefined: no values, or no error (infinite SNR).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distortion {
    pub rmse: Option<f64>,
    pub snr_db: Option<f64>,
    pub cosine: Option<f64>,
}

impl DistortionSum {
    /// Compares two flattened tensors of head vectors of `head_dim` values.
    pub fn measure<T: Element>(original: &[T], decoded: &[T], head_dim: usize) -> Self {
        assert_eq!(original.len(), decoded.len(), "tensors of different size");
        // Chunks of fixed size, added in order: the same bits at any thread count.
        original
            .par_chunks(head_dim * 256)
            .zip(decoded.par_chunks(head_dim * 256))
            .map(|(x, y)| {
                let (mut wide_x, mut wide_y) = (vec![0f32; x.len()], vec![0f32; y.len()]);
                T::widen(x, &mut wide_x);
                T::widen(y, &mut wide_y);
                let mut sum = Self::default();
                Arch::new().dispatch(|| {
                    for (x, y) in wide_x.chunks(head_dim).zip(wide_y.chunks(head_dim)) {
                        sum.add_vector(x, y);
                    }
                });
                sum
            })
            .collect::<Vec<_>>()
            .into_iter()
            .fold(Self::default(), Self::plus)
    }

    #[inline(always)]
    fn add_vector(&mut self, x: &[f32], y: &[f32]) {
        // Four sums in eight lanes each, so that they vectorise.
        const LANES: usize = 8;
        let mut sums = [[0f64; LANES]; 4];
        let ((x_chunks, x_rest), (y_chunks, y_rest)) =
            (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        let mut add = |lane: usize, x: f32, y: f32| {
            let (x, y) = (f64::from(x), f64::from(y));
            sums[0][lane] += x * x;
            sums[1][lane] += y * y;
            sums[2][lane] += x * y;
            sums[3][lane] += (x - y) * (x - y);
        };
        for (x, y) in x_chunks.iter().zip(y_chunks) {
            for lane in 0..LANES {
                add(lane, x[lane], y[lane]);
            }
        }
        for (x, y) in x_rest.iter().zip(y_rest) {
            add(0, *x, *y);
        }
        let [xx, yy, xy, ee] = sums.map(|lanes| lanes.iter().sum::<f64>());
        self.energy += xx;
        self.error += ee;
        // Two zero vectors agree; a zero beside a non-zero one is orthogonal to it.
        self.cosine += if xx == 0.0 && yy == 0.0 {
            1.0
        } else if xx == 0.0 || yy == 0.0 {
            0.0
        } else {
            (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0)
        };
        self.values += x.len() as u64;
        self.vectors += 1;
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            energy: self.energy + other.energy,
            error: self.error + other.error,
            cosine: self.cosine + other.cosine,
            values: self.values + other.values,
            vectors: self.vectors + other.vectors,
        }
    }

    pub fn finish(&self) -> Distortion {
        let some = self.values > 0;
        Distortion {
            rmse: some.then(|| (self.error / self.values as f64).sqrt()),
            snr_db: (some && self.error > 0.0 && self.energy > 0.0)
                .then(|| 10.0 * (self.energy / self.error).log10()),
            cosine: some.then(|| self.cosine / self.vectors as f64),
        }
    }
}
