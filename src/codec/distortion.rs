//! How far decoded values are from the originals.
//!
//! [`DistortionSum::measure`] compares two tensors in f64. Compression measures on the way, in
//! f32 where that is enough, and gives the same bits with any instruction set and any number
//! of threads:
//!
//! - A *cell* is a run of values in one group and one head vector, cut further at [`CELL`]
//!   values. It sums x², x·y, y² and (x − y)² in f32 in [`LANES`] lanes (the lane is the index
//!   in the cell modulo 16) without fused multiply-add; x and y are divided by 2^e, e being the
//!   tensor's exponent. Lanes are added in halves: i and i + 8, then i + 4, i + 2, i + 1.
//! - Cells are added up in f64 to head vectors, and head vectors to a [`DistortionRun`], in
//!   order; runs are joined in order.
//! - A cell whose Σx² is below [`TRUSTED_ENERGY`] is worked out in f64 instead, from the values
//!   themselves, one after the other: its squares would underflow.

use super::Element;
use super::int4::BlockLayout;
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
        self.add(VectorSums { sums: [xx, xy, yy, ee], values: x.len() as u64 });
    }

    #[inline(always)]
    fn add(&mut self, vector: VectorSums) {
        let [xx, xy, yy, ee] = vector.sums;
        self.energy += xx;
        self.error += ee;
        self.cosine += cosine(xx, xy, yy);
        self.values += vector.values;
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

/// Σxy / √(Σx² · Σy²). Two zero vectors agree; a zero beside a non-zero one is orthogonal to it.
/// The product of two sums of squared f32 neither overflows nor underflows.
#[inline(always)]
fn cosine(xx: f64, xy: f64, yy: f64) -> f64 {
    let product = xx * yy;
    let cosine = (xy / product.sqrt()).clamp(-1.0, 1.0);
    let without = if xx == yy { 1.0 } else { 0.0 };
    if product == 0.0 { without } else { cosine }
}

/// Values in a cell at most. Sixteen additions a lane keep f32 sums within 10⁻⁶ of the truth.
pub(super) const CELL: usize = 256;
pub(super) const LANES: usize = 16;
/// Cells with less Σx² may have lost squares to underflow: 2⁻⁹⁰.
pub(super) const TRUSTED_ENERGY: f32 = f32::from_bits((127 - 90) << 23);

/// Σx², Σxy, Σy² and Σ(x − y)² of one cell.
#[derive(Clone, Copy)]
pub(super) struct CellSums(pub [f32; 4]);

impl CellSums {
    #[inline(always)]
    pub fn of(x: &[f32], y: &[f32]) -> Self {
        let mut sums = [[0f32; LANES]; 4];
        let mut add = |lane: usize, x: f32, y: f32| {
            sums[0][lane] += x * x;
            sums[1][lane] += x * y;
            sums[2][lane] += y * y;
            sums[3][lane] += (x - y) * (x - y);
        };
        let ((x_chunks, x_rest), (y_chunks, y_rest)) =
            (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        for (x, y) in x_chunks.iter().zip(y_chunks) {
            for lane in 0..LANES {
                add(lane, x[lane], y[lane]);
            }
        }
        for (lane, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
            add(lane, *x, *y);
        }
        Self(sums.map(|mut lanes| {
            for half in [8, 4, 2, 1] {
                for lane in 0..half {
                    lanes[lane] += lanes[lane + half];
                }
            }
            lanes[0]
        }))
    }

    #[inline(always)]
    pub fn energy(self) -> f32 {
        self.0[0]
    }
}

/// Σx², Σxy, Σy² and Σ(x − y)² of one head vector or a part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct VectorSums {
    sums: [f64; 4],
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
    /// What lies before the first boundary of head vectors.
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

/// 2^n for the n that twice an exponent can be.
fn exp2(n: i32) -> f64 {
    f64::from_bits(((n.clamp(-1022, 1023) + 1023) as u64) << 52)
}

/// Head vectors whose cosines are worked out together, so that they vectorise.
const BATCH: usize = 32;

/// Adds up the cells of a block, in order.
pub(super) struct RunBuilder {
    head_dim: usize,
    /// 2^2e, which the sums of cells are to be multiplied by.
    unit: f64,
    /// The head vector under way.
    vector: [f64; 4],
    /// Its values that are still to come.
    left: usize,
    /// Its values that lie in this block; known in advance.
    values: u64,
    batch: [[f64; 4]; BATCH],
    filled: usize,
    /// No boundary yet: the vector under way began before this block.
    entering: bool,
    first: VectorSums,
    sum: DistortionSum,
}

impl RunBuilder {
    #[inline(always)]
    pub fn new(layout: BlockLayout, exponent: i32) -> Self {
        let head_dim = layout.head_dim.max(1);
        let left = head_dim - layout.start % head_dim;
        Self {
            head_dim,
            unit: exp2(2 * exponent),
            vector: [0.0; 4],
            left,
            values: left as u64,
            batch: [[0.0; 4]; BATCH],
            filled: 0,
            entering: left < head_dim,
            first: VectorSums::default(),
            sum: DistortionSum::default(),
        }
    }

    /// Length of the next cell where the group has `group_left` more values.
    #[inline(always)]
    pub fn next_cell(&self, group_left: usize) -> usize {
        group_left.min(self.left).min(CELL)
    }

    /// The next `len` values; no more than [`Self::next_cell`] says.
    #[inline(always)]
    pub fn add(&mut self, cell: CellSums, len: usize) {
        self.add_f64(cell.0.map(|sum| f64::from(sum) * self.unit), len);
    }

    /// As [`Self::add`], in f64 and from the values as they are.
    #[cold]
    pub fn add_exact<T: Element>(&mut self, original: &[T], decoded: &[T]) {
        let mut sums = [0.0; 4];
        for (x, y) in original.iter().zip(decoded) {
            let (x, y) = (f64::from(x.to_f32()), f64::from(y.to_f32()));
            sums[0] += x * x;
            sums[1] += x * y;
            sums[2] += y * y;
            sums[3] += (x - y) * (x - y);
        }
        self.add_f64(sums, original.len());
    }

    #[inline(always)]
    fn add_f64(&mut self, sums: [f64; 4], len: usize) {
        for (sum, more) in self.vector.iter_mut().zip(sums) {
            *sum += more;
        }
        self.left -= len;
        if self.left == 0 {
            self.end_vector();
        }
    }

    #[inline(always)]
    fn end_vector(&mut self) {
        if self.entering {
            self.first = VectorSums { sums: self.vector, values: self.values };
            self.entering = false;
        } else {
            self.batch[self.filled] = self.vector;
            self.filled += 1;
            if self.filled == BATCH {
                self.flush();
            }
        }
        self.vector = [0.0; 4];
        self.left = self.head_dim;
        self.values = self.head_dim as u64;
    }

    #[inline(always)]
    fn flush(&mut self) {
        let mut cosines = [0.0; BATCH];
        for (cosine_, [xx, xy, yy, _]) in cosines.iter_mut().zip(&self.batch) {
            *cosine_ = cosine(*xx, *xy, *yy);
        }
        for ([xx, _, _, ee], cosine) in self.batch.iter().zip(cosines).take(self.filled) {
            self.sum.energy += xx;
            self.sum.error += ee;
            self.sum.cosine += cosine;
        }
        self.sum.values += (self.filled * self.head_dim) as u64;
        self.sum.vectors += self.filled as u64;
        self.filled = 0;
    }

    #[inline(always)]
    pub fn finish(mut self) -> DistortionRun {
        self.flush();
        let open = VectorSums { sums: self.vector, values: self.values - self.left as u64 };
        if self.entering {
            DistortionRun { first: open, rest: None }
        } else {
            DistortionRun { first: self.first, rest: Some((self.sum, open)) }
        }
    }
}
