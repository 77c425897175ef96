//! One tile, in vectors: to what is stored and back. All of it knows f32 and f64 only, so that it is compiled
//! once, not for each type.

use super::definition::{Kvarn, Sizes, TILE, TileRows};
use super::normalisation::{Axis, BothWays, normalise};
use crate::codec::element::Element;
use crate::codec::exponent::PowerOfTwo;
use crate::codec::hadamard::{hadamard, hadamard_block, orthonormal};
use crate::codec::scheme::bits::{pack, unpack};
use crate::codec::transpose::transpose;
use half::f16;
use pulp::{Simd, WithSimd};

/// What all tiles of a tensor have in common.
#[derive(Clone, Copy)]
pub(super) struct TileContext {
    pub codec: Kvarn,
    pub sizes: Sizes,
    pub exponent: i32,
}

/// Buffers that a thread keeps from tile to tile.
#[derive(Default)]
pub(super) struct Buffers {
    /// [TILE, dim]
    rows: Vec<f32>,
    /// [dim, TILE]
    transposed: Vec<f32>,
    by_row: Vec<f64>,
    by_column: Vec<f64>,
    row_axis: Axis,
    column_axis: Axis,
    best: Vec<f64>,
    /// Of one row.
    numbers: Vec<f64>,
    codes: Vec<u8>,
}

impl Buffers {
    /// The head vectors of a tile.
    pub fn rows(&mut self, sizes: &Sizes) -> &mut [f32] {
        self.rows.resize(sizes.values(), 0.0);
        &mut self.rows
    }
}

/// The parts of a tile.
pub(super) struct TileParts<Halves, Bytes> {
    pub column_scales: Halves,
    pub scales: Halves,
    pub minima: Halves,
    pub codes: Bytes,
}

/// Head vectors, which the buffers have, to parts. Gives whether these can be stored as they are: all numbers
/// are finite, and no row becomes zero that is not.
pub(super) struct EncodeTile<'a> {
    pub context: TileContext,
    pub buffers: &'a mut Buffers,
    pub parts: TileParts<&'a mut [f16], &'a mut [u8]>,
}

impl WithSimd for EncodeTile<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let Self { context, buffers, parts } = self;
        let TileContext { codec, sizes, exponent } = context;
        let Sizes { dim, rows: row_count, columns: column_count, .. } = sizes;
        let Buffers { rows, transposed, by_row, by_column, row_axis, column_axis, .. } = buffers;
        PowerOfTwo::scale(-exponent, rows);
        let block = hadamard_block(dim);
        hadamard(simd, rows, block, orthonormal(block));
        // Sums of huge values are beyond f32.
        let mut fits = f32::absmax(rows).is_finite();
        transposed.resize(sizes.values(), 0.0);
        transpose(simd, rows, TILE, dim, transposed);
        let (one, other) = match codec.rows {
            TileRows::Channels => (&*transposed, &*rows),
            TileRows::Tokens => (&*rows, &*transposed),
        };
        for (wide, narrow) in [(&mut *by_row, one), (&mut *by_column, other)] {
            wide.resize(narrow.len(), 0.0);
            for (wide, narrow) in wide.iter_mut().zip(narrow) {
                *wide = f64::from(*narrow);
            }
        }
        let tile = BothWays { by_row, by_column };
        let counts = [row_count, column_count];
        normalise(simd, tile, counts, [row_axis, &mut *column_axis], &mut buffers.best);

        for (stored, scale) in parts.column_scales.iter_mut().zip(&column_axis.scales) {
            *stored = f16::from_f32(*scale as f32);
        }
        buffers.numbers.resize(column_count, 0.0);
        buffers.codes.resize(sizes.values(), 0);
        let codes = buffers.codes.chunks_exact_mut(column_count);
        let stored = parts.scales.iter_mut().zip(&mut *parts.minima);
        for ((row, codes), (scale, minimum)) in
            by_row.chunks_exact(column_count).zip(codes).zip(stored)
        {
            let quantiser = RowQuantiser { row, factors: &column_axis.factors, bits: codec.bits };
            let (low, step) = quantiser.codes(simd, &mut buffers.numbers, codes);
            (*scale, *minimum) = (f16::from_f32(step as f32), f16::from_f32(low as f32));
            let is_lost = *scale == f16::ZERO && *minimum == f16::ZERO && (low, step) != (0.0, 0.0);
            fits &= scale.is_finite() && minimum.is_finite() && !is_lost;
        }
        pack(&buffers.codes, codec.bits, parts.codes);
        fits
    }
}

/// A row of a tile, whose own scale is left out: it is part of what is stored for the row.
struct RowQuantiser<'a> {
    row: &'a [f64],
    /// Of the columns.
    factors: &'a [f64],
    bits: u8,
}

impl RowQuantiser<'_> {
    /// Codes of the values, half to even; gives the minimum and the scale. `numbers` is as long as the row.
    #[inline(always)]
    fn codes<S: Simd>(self, simd: S, numbers: &mut [f64], codes: &mut [u8]) -> (f64, f64) {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for ((number, x), factor) in numbers.iter_mut().zip(self.row).zip(self.factors) {
            *number = x * factor;
        }
        let (vectors, rest) = S::as_simd_f64s(numbers);
        let (mut lows, mut highs) = (simd.splat_f64s(low), simd.splat_f64s(high));
        for x in vectors {
            (lows, highs) = (simd.min_f64s(lows, *x), simd.max_f64s(highs, *x));
        }
        (low, high) = (simd.reduce_min_f64s(lows), simd.reduce_max_f64s(highs));
        for x in rest {
            (low, high) = (low.min(*x), high.max(*x));
        }
        // A zero has no sign: which one is the smaller depends on the instructions.
        let (low, high) = (low + 0.0, high + 0.0);
        let most = f64::from(u8::MAX >> (8 - self.bits));
        let step = (high - low) / most;
        let divisor = if step > 0.0 { step } else { 1.0 };
        for (code, x) in codes.iter_mut().zip(&*numbers) {
            // Whole numbers are the low bits of their sum with 2^52.
            const TWO_52: f64 = 4_503_599_627_370_496.0;
            let place = ((x - low) / divisor).min(most);
            *code = (place + TWO_52).to_bits() as u8;
        }
        (low, step)
    }
}

/// Parts to head vectors, which are left in the buffers.
pub(super) struct DecodeTile<'a> {
    pub context: TileContext,
    pub buffers: &'a mut Buffers,
    pub parts: TileParts<&'a [f16], &'a [u8]>,
}

impl WithSimd for DecodeTile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { context, buffers, parts } = self;
        let TileContext { codec, sizes, exponent } = context;
        let Sizes { dim, columns: column_count, .. } = sizes;
        let Buffers { rows, transposed, codes, .. } = buffers;
        rows.resize(sizes.values(), 0.0);
        codes.resize(sizes.values(), 0);
        unpack(parts.codes, codec.bits, codes);
        let column_scales: Vec<f32> = parts.column_scales.iter().map(|x| x.to_f32()).collect();
        let tile = match codec.rows {
            TileRows::Channels => {
                transposed.resize(sizes.values(), 0.0);
                &mut *transposed
            }
            TileRows::Tokens => &mut *rows,
        };
        let tile = tile.chunks_exact_mut(column_count).zip(codes.chunks_exact(column_count));
        for ((row, codes), (scale, minimum)) in tile.zip(parts.scales.iter().zip(parts.minima)) {
            let (scale, minimum) = (scale.to_f32(), minimum.to_f32());
            for ((x, code), column) in row.iter_mut().zip(codes).zip(&column_scales) {
                *x = (f32::from(*code) * scale + minimum) * column;
            }
        }
        if codec.rows == TileRows::Channels {
            transpose(simd, transposed, dim, TILE, rows);
        }
        let block = hadamard_block(dim);
        hadamard(simd, rows, block, orthonormal(block));
        PowerOfTwo::scale(exponent, rows);
    }
}
