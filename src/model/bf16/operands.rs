//! Operands of products in bf16: pairs of neighbours along the inner dimension, the first in the lower
//! half.

use crate::model::rounding::bf16_bits;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows of the right operand that lie beside each other.
pub const PANEL: usize = 32;
/// Operands have pairs up to a multiple of so many, and a left one so many rows more, all of them 0 or
/// multiplied with 0.
pub(super) const PADDING: usize = 16;

/// A left operand: rows of pairs.
#[derive(Default)]
pub struct Rows {
    pairs: Vec<u32>,
    count: usize,
    depth: usize,
    /// Pairs from one row to the next.
    stride: usize,
}

impl Rows {
    /// Rounds rows of `width` f32 to bf16, on this thread.
    pub fn rounded(&mut self, values: &[f32], width: usize) {
        self.shape(values.len() / width, width);
        let rows = self.pairs.chunks_exact_mut(self.stride).zip(values.chunks_exact(width));
        rows.for_each(|(pairs, values)| Arch::new().dispatch(Round { values, pairs }));
    }

    /// [`Rows::rounded`] on all threads of the pool.
    pub fn rounded_on_all(values: &[f32], width: usize) -> Self {
        let mut rows = Self::default();
        rows.shape(values.len() / width, width);
        let pairs = rows.pairs.par_chunks_exact_mut(rows.stride);
        let each = pairs.zip(values.par_chunks_exact(width));
        each.for_each(|(pairs, values)| Arch::new().dispatch(Round { values, pairs }));
        rows
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// From a pair of a row on, with those of the rows that follow.
    pub(super) fn from(&self, row: usize, pair: usize) -> &[u32] {
        &self.pairs[row * self.stride + pair..]
    }

    fn shape(&mut self, count: usize, width: usize) {
        (self.count, self.depth) = (count, width.div_ceil(2));
        // An odd number of cache lines: the same pair of neighbouring rows never falls into the same
        // set of a cache.
        self.stride = self.depth.next_multiple_of(PADDING) | PADDING;
        self.pairs.resize((count + 2 * PADDING) * self.stride, 0);
    }
}

/// Pairs of a row of f32, 0 behind them.
struct Round<'a> {
    values: &'a [f32],
    pairs: &'a mut [u32],
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (whole, last) = self.values.as_chunks::<2>();
        let (pairs, rest) = self.pairs.split_at_mut(whole.len());
        for (pair, [low, high]) in pairs.iter_mut().zip(whole) {
            *pair = bf16_bits(*low) | bf16_bits(*high) << 16;
        }
        rest.fill(0);
        if let [last] = last {
            rest[0] = bf16_bits(*last);
        }
    }
}

/// A right operand, transposed: [panel][pair][PANEL], rows and pairs beyond the last 0.
#[derive(Default, PartialEq)]
pub struct Panels {
    pairs: Vec<[u32; PANEL]>,
    rows: usize,
    width: usize,
    depth: usize,
}

impl Panels {
    /// Of rows whose inner dimension is theirs. `row`: fills the pairs of one.
    pub fn of_rows<E>(
        &mut self,
        rows: usize,
        width: usize,
        mut row: impl FnMut(usize, &mut [u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.shape(rows, width);
        let mut of_panel = Vec::new();
        let each = self.pairs.chunks_exact_mut(self.depth.next_multiple_of(PADDING));
        for (panel, pairs) in each.enumerate() {
            let rows = panel * PANEL..rows.min(panel * PANEL + PANEL);
            fill(pairs, rows, self.depth, &mut of_panel, &mut row)?;
        }
        Ok(())
    }

    /// [`Panels::of_rows`] on all threads of the pool.
    pub fn of_rows_on_all<E: Send>(
        rows: usize,
        width: usize,
        row: impl Fn(usize, &mut [u32]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let mut panels = Self::default();
        panels.shape(rows, width);
        let depth = panels.depth;
        let each = panels.pairs.par_chunks_exact_mut(depth.next_multiple_of(PADDING));
        each.enumerate().try_for_each_init(Vec::new, |of_panel, (panel, pairs)| {
            let rows = panel * PANEL..rows.min(panel * PANEL + PANEL);
            fill(pairs, rows, depth, of_panel, &mut |index, pairs| row(index, pairs))
        })?;
        Ok(panels)
    }

    /// Of columns: the inner dimension goes through the rows of `values` [any, width].
    pub fn of_columns(values: &[f32], width: usize) -> Self {
        let mut panels = Self::default();
        panels.shape(width, values.len() / width);
        let each = panels.pairs.chunks_exact_mut(panels.depth.next_multiple_of(PADDING));
        for (panel, pairs) in each.enumerate() {
            let columns = panel * PANEL..width.min(panel * PANEL + PANEL);
            for (out, rows) in pairs.iter_mut().zip(values.chunks(2 * width)) {
                let (low, high) = rows.split_at(width);
                let high = high.get(columns.clone());
                Arch::new().dispatch(Interleave { low: &low[columns.clone()], high, out });
            }
        }
        panels
    }

    /// Values of a row, [width].
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let panel = self.panel(row / PANEL);
        for (values, pairs) in out.chunks_mut(2).zip(panel) {
            let pair = pairs[row % PANEL];
            for (value, bits) in values.iter_mut().zip([pair << 16, pair & 0xffff_0000]) {
                *value = f32::from_bits(bits);
            }
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Pairs of a row.
    pub fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn panel(&self, index: usize) -> &[[u32; PANEL]] {
        let depth = self.depth.next_multiple_of(PADDING);
        &self.pairs[index * depth..][..depth]
    }

    fn shape(&mut self, rows: usize, width: usize) {
        (self.rows, self.width, self.depth) = (rows, width, width.div_ceil(2));
        self.pairs.clear();
        let pairs = rows.div_ceil(PANEL) * self.depth.next_multiple_of(PADDING);
        self.pairs.resize(pairs, [0; PANEL]);
    }
}

/// Fills a panel with rows, which go through memory of their own.
fn fill<E>(
    panel: &mut [[u32; PANEL]],
    rows: std::ops::Range<usize>,
    depth: usize,
    of_panel: &mut Vec<u32>,
    row: &mut impl FnMut(usize, &mut [u32]) -> Result<(), E>,
) -> Result<(), E> {
    // So many pairs of a panel are written while they are in the first level of the cache.
    const AT_ONCE: usize = 64;
    of_panel.clear();
    of_panel.resize(PANEL * depth, 0);
    for (index, pairs) in rows.zip(of_panel.chunks_exact_mut(depth)) {
        row(index, pairs)?;
    }
    for start in (0..depth).step_by(AT_ONCE) {
        let end = depth.min(start + AT_ONCE);
        for (offset, pairs) in of_panel.chunks_exact(depth).enumerate() {
            let out = panel[start..end].iter_mut().zip(&pairs[start..end]);
            out.for_each(|(out, pair)| out[offset] = *pair);
        }
    }
    Ok(())
}

/// Two rows of f32 as pairs; `None`: the second is beyond the last.
struct Interleave<'a> {
    low: &'a [f32],
    high: Option<&'a [f32]>,
    out: &'a mut [u32; PANEL],
}

impl WithSimd for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (out, low) in self.out.iter_mut().zip(self.low) {
            *out = bf16_bits(*low);
        }
        for (out, high) in self.out.iter_mut().zip(self.high.unwrap_or_default()) {
            *out |= bf16_bits(*high) << 16;
        }
    }
}

/// Pairs of a row of bf16, little-endian bytes; the partner of a last one alone is 0.
pub fn pairs_of_bytes(bytes: &[u8], pairs: &mut [u32]) {
    let (whole, rest) = bytes.as_chunks::<4>();
    for (pair, bytes) in pairs.iter_mut().zip(whole) {
        *pair = u32::from_le_bytes(*bytes);
    }
    if let [low, high] = rest {
        pairs[whole.len()] = u32::from(u16::from_le_bytes([*low, *high]));
    }
}

/// Pairs of a row of f32, rounded.
pub fn pairs_of_values(values: &[f32], pairs: &mut [u32]) {
    Arch::new().dispatch(Round { values, pairs });
}
