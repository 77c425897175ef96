//! Variance normalisation of a tile: the scales of its columns.

use pulp::Simd;

/// Rounds of columns and rows, as the fork of vLLM runs them; the paper has 16.
const ROUNDS: usize = 8;
/// What a standard deviation counts for lies between these.
const LEAST_DEVIATION: f64 = 1e-3;
const LARGEST_DEVIATION: f64 = 1e3;
/// What a scale is lies between these: e^−0.3 and e^10.
const LEAST_SCALE: f64 = 0.740_818_220_681_717_9;
const LARGEST_SCALE: f64 = 22_026.465_794_806_717;
/// Of ratios of deviations: the divisor is no less.
const LEAST_DIVISOR: f64 = 1e-8;

/// A tile [rows, columns], and [columns, rows], in f64.
pub(super) struct BothWays<'a> {
    pub by_row: &'a [f64],
    pub by_column: &'a [f64],
}

/// Numbers for each column or for each row of a tile.
#[derive(Default)]
pub(super) struct Axis {
    /// What it is divided by.
    pub scales: Vec<f64>,
    /// 1 / scale.
    pub factors: Vec<f64>,
    /// Standard deviations of what the other axis' scales leave of it, its own scale not yet applied.
    deviations: Vec<f64>,
}

impl Axis {
    fn reset(&mut self, len: usize) {
        for numbers in [&mut self.scales, &mut self.factors] {
            numbers.clear();
            numbers.resize(len, 1.0);
        }
        self.deviations.clear();
        self.deviations.resize(len, 0.0);
    }

    /// Divides by the deviations that there are.
    fn normalise(&mut self) {
        let numbers = self.scales.iter_mut().zip(&mut self.factors).zip(&self.deviations);
        for ((scale, factor), deviation) in numbers {
            let own = (deviation / *scale).clamp(LEAST_DEVIATION, LARGEST_DEVIATION);
            *scale = (*scale * own).clamp(LEAST_SCALE, LARGEST_SCALE);
            *factor = 1.0 / *scale;
        }
    }

    /// The largest deviation over the least.
    fn spread(&self) -> f64 {
        let (mut least, mut largest) = (f64::INFINITY, 0f64);
        for (deviation, scale) in self.deviations.iter().zip(&self.scales) {
            let own = deviation / scale;
            (least, largest) = (least.min(own), largest.max(own));
        }
        largest / least.max(LEAST_DIVISOR)
    }
}

/// Leaves in `columns` the scales and factors of the columns, of the round after which deviations are
/// most alike. `rows` has room for those of the rows.
#[inline(always)]
pub(super) fn normalise<S: Simd>(
    simd: S,
    tile: BothWays,
    [row_count, column_count]: [usize; 2],
    [rows, columns]: [&mut Axis; 2],
    best: &mut Vec<f64>,
) {
    rows.reset(row_count);
    columns.reset(column_count);
    best.clear();
    best.extend_from_slice(&columns.scales);
    let BothWays { by_row, by_column } = tile;
    deviations(simd, by_row, &rows.factors, &mut columns.deviations);
    deviations(simd, by_column, &columns.factors, &mut rows.deviations);
    let mut least = columns.spread() + rows.spread();
    for _ in 0..ROUNDS {
        columns.normalise();
        deviations(simd, by_column, &columns.factors, &mut rows.deviations);
        rows.normalise();
        deviations(simd, by_row, &rows.factors, &mut columns.deviations);
        let spread = columns.spread() + rows.spread();
        if spread <= least {
            least = spread;
            best.copy_from_slice(&columns.scales);
        }
    }
    columns.scales.copy_from_slice(best);
    for (factor, scale) in columns.factors.iter_mut().zip(best) {
        *factor = 1.0 / *scale;
    }
}

/// The standard deviation of each column, of n − 1 degrees of freedom, once each row is multiplied by its
/// factor. `matrix`: [factors.len(), out.len()]. Sums go from row to row.
#[inline(always)]
fn deviations<S: Simd>(simd: S, matrix: &[f64], factors: &[f64], out: &mut [f64]) {
    let columns = out.len();
    let of_columns = Columns { matrix, columns, factors };
    let vectors = columns / S::F64_LANES;
    let mut vector = 0;
    while vector < vectors {
        // Enough of them at once that no sum waits for the one before.
        vector += match vectors - vector {
            4.. => of_columns.vectors::<S, 4>(simd, vector, out),
            _ => of_columns.vectors::<S, 1>(simd, vector, out),
        };
    }
    for column in vectors * S::F64_LANES..columns {
        let (mut sum, mut squares) = (0f64, 0f64);
        for (row, factor) in matrix.chunks_exact(columns).zip(factors) {
            let x = row[column] * factor;
            sum += x;
            squares += x * x;
        }
        out[column] = deviation(sum, squares, factors.len());
    }
}

#[derive(Clone, Copy)]
struct Columns<'a> {
    matrix: &'a [f64],
    columns: usize,
    factors: &'a [f64],
}

impl Columns<'_> {
    /// Of `COUNT` vectors of columns from `first` on. Gives `COUNT`.
    #[inline(always)]
    fn vectors<S: Simd, const COUNT: usize>(self, simd: S, first: usize, out: &mut [f64]) -> usize {
        let mut sums = [simd.splat_f64s(0.0); COUNT];
        let mut squares = sums;
        for (row, factor) in self.matrix.chunks_exact(self.columns).zip(self.factors) {
            let factor = simd.splat_f64s(*factor);
            let row = &S::as_simd_f64s(row).0[first..first + COUNT];
            for index in 0..COUNT {
                let x = simd.mul_f64s(row[index], factor);
                sums[index] = simd.add_f64s(sums[index], x);
                squares[index] = simd.add_f64s(squares[index], simd.mul_f64s(x, x));
            }
        }
        let lanes = first * S::F64_LANES..(first + COUNT) * S::F64_LANES;
        let all = bytemuck::cast_slice::<_, f64>(&sums).iter();
        let all = all.zip(bytemuck::cast_slice::<_, f64>(&squares));
        for (out, (sum, squares)) in out[lanes].iter_mut().zip(all) {
            *out = deviation(*sum, *squares, self.factors.len());
        }
        COUNT
    }
}

#[inline(always)]
fn deviation(sum: f64, squares: f64, count: usize) -> f64 {
    let count = count as f64;
    ((squares - sum * sum / count) / (count - 1.0)).max(0.0).sqrt()
}
