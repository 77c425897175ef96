//! Products of bf16 matrices with sums in f32, by instructions that processors have for them: AMX's tiles
//! (`tdpbf16ps`, Intel since Sapphire Rapids, 16 times f32's rate) or AVX-512's `vdpbf16ps` (AMD since
//! Zen 4, twice f32's rate; Intel's is slower than f32, and not taken).
//!
//! Every element of a product is one sum over the pairs of the inner dimension, in an order of its own
//! unit's: by pairs, or by 16 of them. So its bits depend on nothing that is computed beside it: not on
//! the number of rows, tiles or threads.
//!
//! A left operand is read row by row ([`Rows`]); 32 rows of the right one lie beside each other, pair by
//! pair ([`Panels`]).

mod amx;
mod operands;
mod registers;

use operands::PADDING;
pub use operands::{PANEL, Panels, Rows, pairs_of_bytes, pairs_of_values};

use std::ops::Range;
use std::sync::LazyLock;

/// Pairs of a panel that are read for all rows before the next: 24 KiB, which the first level of most
/// caches holds.
const DEPTH: usize = 192;
/// Rows of the left operand that are read for all panels before the next: their pairs stay in the second
/// level.
const ROWS: usize = 512;

const _: () = assert!(DEPTH.is_multiple_of(PADDING) && PANEL == 2 * PADDING);

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Amx,
    Avx512,
    /// Lane by lane, for tests.
    None,
}

/// What this processor and its system have.
static UNIT: LazyLock<Unit> = LazyLock::new(|| {
    if amx::is_there() {
        return Unit::Amx;
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bf16")
        && !registers::is_of_intel()
    {
        return Unit::Avx512;
    }
    Unit::None
});

/// The instructions of this processor that multiply bf16.
pub fn instructions() -> Option<&'static str> {
    match *UNIT {
        Unit::Amx => Some("amx-bf16"),
        Unit::Avx512 => Some("avx512-bf16"),
        Unit::None => None,
    }
}

/// Whether this processor multiplies bf16 faster than what it is widened to.
pub fn is_native() -> bool {
    *UNIT != Unit::None
}

/// Tiles of whole panels for a product with so many rows of the right operand, as many for each thread.
pub fn tiles(rows: usize) -> Vec<Range<usize>> {
    // Rows of the left operand are read from the second level of the cache for so many panels.
    const PANELS: usize = 8;
    let panels = rows.div_ceil(PANEL);
    let tiles = panels.div_ceil(PANELS).next_multiple_of(rayon::current_num_threads());
    let tiles = tiles.clamp(1, panels.max(1));
    let start = |tile: usize| rows.min(tile * panels / tiles * PANEL);
    (0..tiles).map(|tile| start(tile)..start(tile + 1)).collect()
}

/// out = factor · left · rightᵀ. `left`: a matrix and its rows to take; `right`: a matrix, its rows to
/// take, the first at the start of a panel, and their pairs, as many as the left one's, the first a
/// multiple of 16. `out`: a row of the product each.
pub fn multiply(
    (left, rows): (&Rows, Range<usize>),
    (right, columns, pairs): (&Panels, Range<usize>, Range<usize>),
    factor: f32,
    out: &mut [&mut [f32]],
) {
    assert!(rows.len() == out.len() && rows.end <= left.count());
    assert!(pairs.len() == left.depth() && pairs.end <= right.depth());
    assert!(pairs.start.is_multiple_of(PADDING));
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= right.rows());
    assert!(out.iter().all(|row| row.len() == columns.len()));
    Product { left, first: rows.start, right, columns, pairs, factor }.on(*UNIT, out);
}

/// A product on its way.
struct Product<'a> {
    left: &'a Rows,
    /// Row of the left operand.
    first: usize,
    right: &'a Panels,
    columns: Range<usize>,
    pairs: Range<usize>,
    factor: f32,
}

/// Some pairs of some rows and of one panel. All rows have room for 32, all pairs for a multiple of 16,
/// whose values are 0 beyond the matrix, or meet a 0.
struct Piece<'a> {
    /// From the first row's first pair on.
    left: &'a [u32],
    /// From one row to the next.
    stride: usize,
    panel: &'a [[u32; PANEL]],
    /// Of both operands.
    depth: usize,
    /// Of the product, the first.
    column: usize,
    /// Whether the sums have begun.
    goes_on: bool,
    factor: f32,
}

impl Product<'_> {
    fn on(&self, unit: Unit, out: &mut [&mut [f32]]) {
        match unit {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Unit::Amx => amx::with_tiles(|| self.by_pieces(out, amx::multiply)),
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512 => self.by_pieces(out, registers::multiply_natively),
            _ => self.by_pieces(out, registers::multiply_emulated),
        }
    }

    /// Panels meet the rows in such pieces that both stay in a cache.
    fn by_pieces(&self, out: &mut [&mut [f32]], multiply: impl Fn(&Piece, &mut [&mut [f32]])) {
        let count = self.pairs.len();
        for first in (0..count).step_by(DEPTH) {
            let depth = DEPTH.min(count - first);
            for (block, out) in out.chunks_mut(ROWS).enumerate() {
                let left = self.left.from(self.first + block * ROWS, first);
                for column in (0..self.columns.len()).step_by(PANEL) {
                    let panel = (self.columns.start + column) / PANEL;
                    let piece = Piece {
                        left,
                        stride: self.left.stride(),
                        panel: &self.right.panel(panel)[self.pairs.start + first..],
                        depth,
                        column,
                        goes_on: first > 0,
                        factor: if first + depth == count { self.factor } else { 1.0 },
                    };
                    multiply(&piece, out);
                }
            }
        }
    }
}

impl Piece<'_> {
    /// The columns of the panel that a row of the product has.
    fn columns<'a>(&self, row: &'a mut [f32]) -> &'a mut [f32] {
        let columns = self.columns_of(row.len());
        &mut row[columns]
    }

    /// Those of a row of so many.
    fn columns_of(&self, columns: usize) -> Range<usize> {
        self.column..columns.min(self.column + PANEL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::roughly_normal;

    fn panels(values: &[f32], width: usize) -> Panels {
        let row = |row: usize, pairs: &mut [u32]| {
            pairs_of_values(&values[row * width..][..width], pairs);
            Ok::<(), std::convert::Infallible>(())
        };
        let on_all = Panels::of_rows_on_all(values.len() / width, width, row).unwrap();
        let mut panels = Panels::default();
        panels.of_rows(values.len() / width, width, row).unwrap();
        assert!(on_all == panels);
        panels
    }

    fn rounded(value: f32) -> f64 {
        f64::from(half::bf16::from_f32(value).to_f32())
    }

    /// Rows `rows` of the product of two matrices of a width with rows `columns` of the other.
    fn product(
        [left, right]: [&[f32]; 2],
        width: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        unit: Unit,
    ) -> Vec<f32> {
        let (left, right) = (Rows::rounded_on_all(left, width), panels(right, width));
        let mut out = vec![f32::NAN; rows.len() * columns.len()];
        let mut of_rows: Vec<&mut [f32]> = out.chunks_mut(columns.len()).collect();
        let pairs = 0..width.div_ceil(2);
        let (left, right, first) = (&left, &right, rows.start);
        let product = Product { left, first, right, columns, pairs, factor: 0.5 };
        product.on(unit, &mut of_rows);
        out
    }

    const SHAPES: [(usize, usize, usize); 6] =
        [(1, 1, 1), (3, 40, 7), (14, 32, 64), (15, 70, 385), (64, 96, 1537), (29, 33, 770)];

    fn largest(values: &[f32]) -> f32 {
        values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
    }

    /// Sums of exact products in f64 are the witness.
    #[test]
    fn products_are_those_of_rounded_operands() {
        for (rows, columns, width) in SHAPES {
            let (left, right) =
                (roughly_normal(rows * width, 1), roughly_normal(columns * width, 2));
            let found = product([&left, &right], width, 0..rows, 0..columns, Unit::None);
            let scale = f64::from(largest(&found)).max(1.0);
            for (index, found) in found.iter().enumerate() {
                let (row, column) = (index / columns, index % columns);
                let pairs = left[row * width..].iter().zip(&right[column * width..]).take(width);
                let sum: f64 = pairs.map(|(a, b)| rounded(*a) * rounded(*b)).sum();
                let error = (f64::from(*found) - 0.5 * sum).abs();
                assert!(error < 2e-6 * scale, "{rows}×{columns}×{width}: {index}: {error}");
            }
        }
    }

    /// The units of this processor.
    fn units() -> Vec<Unit> {
        let mut units = vec![Unit::None];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512bf16") {
            units.push(Unit::Avx512);
        }
        if amx::is_there() {
            units.push(Unit::Amx);
        }
        units
    }

    /// A unit rounds sums in its own way, which may not be the emulation's.
    #[test]
    fn units_do_what_is_emulated() {
        for unit in &units()[1..] {
            for (rows, columns, width) in SHAPES {
                let (left, right) =
                    (roughly_normal(rows * width, 1), roughly_normal(columns * width, 2));
                let of = |unit| product([&left, &right], width, 0..rows, 0..columns, unit);
                let (found, expected) = (of(*unit), of(Unit::None));
                let scale = largest(&expected).max(1.0);
                for (found, expected) in found.iter().zip(&expected) {
                    let error = (found - expected).abs();
                    assert!(error < 1e-6 * scale, "{unit:?}: {found}, not {expected}");
                }
            }
        }
    }

    /// Whatever is computed beside an element.
    #[test]
    fn an_element_has_the_same_bits_in_every_product() {
        let (rows, columns, width) = (61, 75, 1000);
        let (left, right) = (roughly_normal(rows * width, 3), roughly_normal(columns * width, 4));
        for unit in units() {
            let of = |rows, columns| product([&left, &right], width, rows, columns, unit);
            let whole = of(0..rows, 0..columns);
            for (some, of_columns) in
                [(0..1, 0..75), (17..18, 32..64), (5..61, 64..75), (3..9, 0..40)]
            {
                let part = of(some.clone(), of_columns.clone());
                for (row, part) in some.zip(part.chunks(of_columns.len())) {
                    let expected = &whole[row * columns..][of_columns.clone()];
                    assert_eq!(part, expected, "{unit:?}: row {row}, {of_columns:?}");
                }
            }
        }
    }

    /// A part of the inner dimension of the right operand meets a whole left one, whose memory held
    /// another matrix before.
    #[test]
    fn pairs_of_a_part_are_summed() {
        let (rows, columns, width, first, count) = (40, 64, 500, 96, 33);
        let (left, right) = (roughly_normal(rows * count, 5), roughly_normal(columns * width, 6));
        let panels = panels(&right, width);
        let mut memory = Rows::default();
        memory.rounded(&roughly_normal(80 * 700, 7), 700);
        memory.rounded(&left, count);
        for unit in units() {
            let mut out = vec![f32::NAN; rows * columns];
            let mut of_rows: Vec<&mut [f32]> = out.chunks_mut(columns).collect();
            let pairs = first / 2..(first + count).div_ceil(2);
            let (left_of, right_of) = (&memory, &panels);
            let product = Product {
                left: left_of,
                first: 0,
                right: right_of,
                columns: 0..columns,
                pairs,
                factor: 1.0,
            };
            product.on(unit, &mut of_rows);
            for (index, found) in out.iter().enumerate() {
                let (row, column) = (index / columns, index % columns);
                let of_left = &left[row * count..][..count];
                let of_right = &right[column * width + first..][..count];
                let products = of_left.iter().zip(of_right).map(|(a, b)| rounded(*a) * rounded(*b));
                let error = (f64::from(*found) - products.sum::<f64>()).abs();
                assert!(error < 1e-4, "{unit:?}: {row}, {column}: {error}");
            }
        }
    }

    #[test]
    fn columns_are_paired_along_the_rows() {
        for (rows, width) in [(7, 40), (64, 64), (33, 5)] {
            let values = roughly_normal(rows * width, 5);
            let turned: Vec<f32> =
                (0..rows * width).map(|i| values[i % rows * width + i / rows]).collect();
            let columns = Panels::of_columns(&values, width);
            assert!(columns == panels(&turned, rows));
            let mut row = vec![0.0; rows];
            columns.row(width - 1, &mut row);
            let expected = turned[(width - 1) * rows..].iter().map(|value| rounded(*value));
            assert!(row.iter().map(|value| f64::from(*value)).eq(expected));
        }
    }
}
