//! How far decoded values are from the originals.
//!
//! [`DistortionSum::measure`] compares two tensors in f64. Compression measures on the way, in
//! f32 where that is enough, and gives the same bits with any instruction set and any number
//! of threads:
//!
//! - A *cell* is a run of values in one block and one head vector, cut further at [`CELL`]
//!   values. With e = x − y it sums x², x·e and e² in f32 in [`CELL_LANES`] lanes (the lane is the
//!   index in the cell modulo 16) with fused multiply-add, x and y being divided by 2^exponent of
//!   the tensor. Lanes are added in halves: i and i + 8, i + 4, i + 2, i + 1.
//! - A cell that f32 cannot be trusted with ([`is_trusted`]) is worked out in f64 instead, one
//!   value after the other.
//! - Cells are added up in f64 to head vectors, in order. Σx·y is Σx² − Σx·e and Σy² is
//!   Σx² − 2Σx·e + Σe².
//! - The whole head vectors of a block are added up in f64 in [`TOTAL_LANES`] lanes (the lane is
//!   the index of the vector modulo 8), and those one after the other. Blocks follow in order.

use super::element::Element;
use super::exponent::wide_exp2;
use pulp::Arch;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Sums over one tensor or several, in f64. [`DistortionSum::finish`] makes the figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distortion {
    /// Root mean square of the error, in the unit of the tensor.
    pub rmse: Option<f64>,
    /// Signal-to-noise ratio, dB.
    pub snr_db: Option<f64>,
    /// Mean cosine similarity of head vectors.
    pub cosine: Option<f64>,
}

impl DistortionSum {
    /// Compares two flattened tensors of head vectors of `head_dim` values.
    pub fn measure<T: Element>(original: &[T], decoded: &[T], head_dim: usize) -> Self {
        assert_eq!(original.len(), decoded.len(), "tensors of different size");
        let head_dim = head_dim.max(1);
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
        const VECTOR_LANES: usize = 8;
        let mut sums = [[0f64; VECTOR_LANES]; 4];
        let ((x_chunks, x_rest), (y_chunks, y_rest)) =
            (x.as_chunks::<VECTOR_LANES>(), y.as_chunks::<VECTOR_LANES>());
        let mut add = |lane: usize, x: f32, y: f32| {
            let (x, y) = (f64::from(x), f64::from(y));
            sums[0][lane] += x * x;
            sums[1][lane] += y * y;
            sums[2][lane] += x * y;
            sums[3][lane] += (x - y) * (x - y);
        };
        for (x, y) in x_chunks.iter().zip(y_chunks) {
            for lane in 0..VECTOR_LANES {
                add(lane, x[lane], y[lane]);
            }
        }
        for (x, y) in x_rest.iter().zip(y_rest) {
            add(0, *x, *y);
        }
        let [xx, yy, xy, ee] = sums.map(|lanes| lanes.iter().sum::<f64>());
        self.energy += xx;
        self.error += ee;
        self.cosine += cosine(xx, xy, yy);
        self.values += x.len() as u64;
        self.vectors += 1;
    }

    fn add(&mut self, vector: VectorSums) {
        let [xx, xe, ee] = vector.sums;
        self.energy += xx;
        self.error += ee;
        self.cosine += cosine_of_error(xx, xe, ee);
        self.values += vector.values;
        self.vectors += 1;
    }

    /// The sums over both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            energy: self.energy + other.energy,
            error: self.error + other.error,
            cosine: self.cosine + other.cosine,
            values: self.values + other.values,
            vectors: self.vectors + other.vectors,
        }
    }

    /// The figures of what was summed.
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

/// Σxy / √(Σx² · Σy²). Two zero vectors agree; a zero beside a non-zero one is orthogonal to it.
/// The product of two sums of squared f32 neither overflows nor underflows.
#[inline(always)]
fn cosine(xx: f64, xy: f64, yy: f64) -> f64 {
    let product = xx * yy;
    let cosine = (xy / product.sqrt()).clamp(-1.0, 1.0);
    let without = if xx == yy { 1.0 } else { 0.0 };
    if product == 0.0 { without } else { cosine }
}

#[inline(always)]
fn cosine_of_error(xx: f64, xe: f64, ee: f64) -> f64 {
    cosine(xx, xx - xe, xx - 2.0 * xe + ee)
}

/// Values in a cell at most. Sixteen additions a lane keep f32 sums within 10⁻⁶ of the truth.
pub(super) const CELL: usize = 256;
/// Partial sums of a cell. The definition has as many, whatever the registers hold.
pub(super) const CELL_LANES: usize = 16;
/// Whether f32 was good enough for the sums of a cell: not where squares may have underflowed
/// (Σx² below 2⁻⁹⁰), nor where Σy² is what remains of terms that are more than eight times as
/// large.
#[inline(always)]
pub(super) fn is_trusted(xx: f64, xe: f64, ee: f64) -> bool {
    const LEAST_ENERGY: f64 = f64::from_bits((1023 - 90) << 52);
    (xx >= LEAST_ENERGY) & ((xx - 2.0 * xe + ee) * 8.0 >= xx)
}

/// Σx², Σx·e and Σe² of a cell in f32.
#[inline(always)]
pub(super) fn cell_sums(x: &[f32], y: &[f32]) -> [f32; 3] {
    let (mut xx, mut xe, mut ee) = ([0f32; CELL_LANES], [0f32; CELL_LANES], [0f32; CELL_LANES]);
    let mut add = |x: &[f32; CELL_LANES], y: &[f32; CELL_LANES]| {
        for lane in 0..CELL_LANES {
            let (x, e) = (x[lane], x[lane] - y[lane]);
            xx[lane] = x.mul_add(x, xx[lane]);
            xe[lane] = x.mul_add(e, xe[lane]);
            ee[lane] = e.mul_add(e, ee[lane]);
        }
    };
    let ((x_chunks, x_rest), (y_chunks, y_rest)) =
        (x.as_chunks::<CELL_LANES>(), y.as_chunks::<CELL_LANES>());
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        add(x, y);
    }
    if !x_rest.is_empty() {
        // Zeros change no sum.
        let (mut x, mut y) = ([0f32; CELL_LANES], [0f32; CELL_LANES]);
        x[..x_rest.len()].copy_from_slice(x_rest);
        y[..y_rest.len()].copy_from_slice(y_rest);
        add(&x, &y);
    }
    [xx, xe, ee].map(add_lanes)
}

#[inline(always)]
pub(super) fn add_lanes(mut lanes: [f32; CELL_LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Σx², Σx·e and Σe² of a cell in f64.
pub(super) fn exact_cell_sums<T: Element>(
    original: &[T],
    decoded: &[T],
    exponent: i32,
) -> [f64; 3] {
    let mut sums = [0.0; 3];
    // Usual, and fast.
    if T::absmax(original) == 0.0 && T::absmax(decoded) == 0.0 {
        return sums;
    }
    let unit = wide_exp2(-exponent);
    for (x, y) in original.iter().zip(decoded) {
        let (x, y) = (f64::from(x.to_f32()) * unit, f64::from(y.to_f32()) * unit);
        let e = x - y;
        sums[0] += x * x;
        sums[1] += x * e;
        sums[2] += e * e;
    }
    sums
}

/// Σx², Σx·e and Σe² of one head vector or a part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct VectorSums {
    sums: [f64; 3],
    values: u64,
}

impl VectorSums {
    fn plus(mut self, other: Self) -> Self {
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum += more;
        }
        self.values += other.values;
        self
    }
}

/// Distortion of consecutive values; may begin and end inside a head vector. The default is that
/// of no values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DistortionRun {
    /// The values before the first boundary of head vectors.
    first: VectorSums,
    /// Whole head vectors, then what lies behind the last boundary; `None` without a boundary.
    rest: Option<(DistortionSum, VectorSums)>,
}

impl DistortionRun {
    /// This run and the one that follows it.
    pub fn then(self, next: Self) -> Self {
        let Some((mut sum, last)) = self.rest else {
            return Self { first: self.first.plus(next.first), rest: next.rest };
        };
        let joined = last.plus(next.first);
        let Some((more, last)) = next.rest else {
            return Self { first: self.first, rest: Some((sum, joined)) };
        };
        if joined.values > 0 {
            sum.add(joined);
        }
        Self { first: self.first, rest: Some((sum.plus(more), last)) }
    }

    /// All values of the tensor were added; a last short head vector counts as one.
    pub fn finish(self) -> DistortionSum {
        let (sum, last) = self.rest.unwrap_or_default();
        let mut all = DistortionSum::default();
        if self.first.values > 0 {
            all.add(self.first);
        }
        all = all.plus(sum);
        if last.values > 0 {
            all.add(last);
        }
        all
    }
}

/// Head vectors that [`RunBuilder::add_vectors`] takes together, so that they vectorise.
pub(super) const BATCH: usize = 32;
/// Lanes of the sums over head vectors.
const TOTAL_LANES: usize = 8;

/// Adds up the cells of a block, in order.
pub(super) struct RunBuilder {
    head_dim: usize,
    exponent: i32,
    /// The head vector under way: its sums so far, its values in this block (known in advance)
    /// and those of them that are still to come.
    open: [f64; 3],
    values: usize,
    left: usize,
    /// No boundary yet: the vector under way began before this block.
    entering: bool,
    first: VectorSums,
    /// Σ Σx², Σ Σe² and Σ cos over whole vectors.
    totals: [[f64; TOTAL_LANES]; 3],
    vectors: u64,
}

impl RunBuilder {
    /// Of a block whose first value has index `start` in its tensor.
    pub fn new(head_dim: usize, start: usize, exponent: i32) -> Self {
        let head_dim = head_dim.max(1);
        let left = head_dim - start % head_dim;
        Self {
            head_dim,
            exponent,
            open: [0.0; 3],
            values: left,
            left,
            entering: left < head_dim,
            first: VectorSums::default(),
            totals: [[0.0; TOTAL_LANES]; 3],
            vectors: 0,
        }
    }

    /// Length of the next cell, where the block is long enough.
    #[inline(always)]
    pub fn next_cell(&self) -> usize {
        self.left.min(CELL)
    }

    /// From here on every cell is a head vector, but for one that the block's end cuts off.
    #[inline(always)]
    pub fn cells_are_vectors(&self) -> bool {
        !self.entering && self.left == self.head_dim && self.head_dim <= CELL
    }

    /// The next `len` values; no more than [`Self::next_cell`] says.
    #[inline(always)]
    pub fn add(&mut self, cell: [f64; 3], len: usize) {
        for (sum, more) in self.open.iter_mut().zip(cell) {
            *sum += more;
        }
        self.left -= len;
        if self.left > 0 {
            return;
        }
        if self.entering {
            self.first = VectorSums { sums: self.open, values: self.values as u64 };
            self.entering = false;
        } else {
            let [xx, xe, ee] = self.open;
            let lane = (self.vectors % TOTAL_LANES as u64) as usize;
            let terms = [xx, ee, cosine_of_error(xx, xe, ee)];
            for (totals, term) in self.totals.iter_mut().zip(terms) {
                totals[lane] += term;
            }
            self.vectors += 1;
        }
        self.open = [0.0; 3];
        self.left = self.head_dim;
        self.values = self.head_dim;
    }

    /// The next `count` whole head vectors, where cells are vectors. Only the block's last call
    /// may take less than [`BATCH`]. `exact` works out the sums of one that f32 cannot be trusted
    /// with.
    #[inline(always)]
    pub fn add_vectors(
        &mut self,
        sums: &[[f32; BATCH]; 3],
        count: usize,
        mut exact: impl FnMut(usize) -> [f64; 3],
    ) {
        let [xx, xe, ee] = sums;
        let mut trusted = true;
        for index in 0..BATCH {
            trusted &= is_trusted(xx[index].into(), xe[index].into(), ee[index].into());
        }
        if trusted {
            return self.add_batch(sums, count);
        }
        let mut wide = [[0.0; BATCH]; 3];
        for index in 0..count {
            let mut vector = [xx[index], xe[index], ee[index]].map(f64::from);
            if !is_trusted(vector[0], vector[1], vector[2]) {
                vector = exact(index);
            }
            for (wide, sum) in wide.iter_mut().zip(vector) {
                wide[index] = sum;
            }
        }
        self.add_batch(&wide, count);
    }

    #[inline(always)]
    fn add_batch<S: Copy + Into<f64>>(&mut self, [xx, xe, ee]: &[[S; BATCH]; 3], count: usize) {
        let mut terms = [[0.0; BATCH]; 3];
        for index in 0..BATCH {
            let (xx, xe, ee) = (xx[index].into(), xe[index].into(), ee[index].into());
            terms[0][index] = xx;
            terms[1][index] = ee;
            terms[2][index] = cosine_of_error(xx, xe, ee);
        }
        for (totals, terms) in self.totals.iter_mut().zip(&terms) {
            if count == BATCH {
                for terms in terms.as_chunks::<TOTAL_LANES>().0 {
                    for (total, term) in totals.iter_mut().zip(terms) {
                        *total += term;
                    }
                }
            } else {
                for (index, term) in terms[..count].iter().enumerate() {
                    totals[index % TOTAL_LANES] += term;
                }
            }
        }
        self.vectors += count as u64;
    }

    /// The block ends here.
    pub fn finish(self) -> DistortionRun {
        let unit = wide_exp2(2 * self.exponent);
        let scaled = |mut vector: VectorSums| {
            vector.sums = vector.sums.map(|sum| sum * unit);
            vector
        };
        let open = scaled(VectorSums { sums: self.open, values: (self.values - self.left) as u64 });
        if self.entering {
            return DistortionRun { first: open, rest: None };
        }
        let [energy, error, cosine] = self.totals.map(|lanes| lanes.iter().sum::<f64>());
        let sum = DistortionSum {
            energy: energy * unit,
            error: error * unit,
            cosine,
            values: self.vectors * self.head_dim as u64,
            vectors: self.vectors,
        };
        DistortionRun { first: scaled(self.first), rest: Some((sum, open)) }
    }
}
