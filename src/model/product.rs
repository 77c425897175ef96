//! Products with weights, f32 on the CPU, by gemm: with a whole matrix, and with one that is made a tile
//! at a time. The one unsafe call is here, behind bounds checks.
//!
//! gemm splits a sum by its length alone, but for few rows and columns: so an element has the same bits
//! whatever others are computed beside it, and in whichever tile.

use crate::error::Result;
use crate::tensor::with_f32;
use candle_core::{Device, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;
use std::ops::Range;

/// Values of a tile, about: 4 MiB of f32, which the last level of most caches holds.
const TILE: usize = 1 << 20;
/// Rows of a tile, at least.
const LEAST_ROWS: usize = 128;
/// With so many rows and columns or fewer, and with a product of so many elements or fewer, gemm takes
/// sums in another order. So it does with a single row or column.
const FEW_ROWS: usize = 64;
const FEW_ELEMENTS: usize = 256;

/// Whether sums over `rows` rows are those over more, for matrices of more than `narrowest` rows or as
/// many.
pub fn sums_are_the_same(rows: usize, narrowest: usize) -> bool {
    rows > FEW_ROWS || rows > 1 && narrowest > FEW_ELEMENTS
}

/// Tiles of a matrix [rows, width] for a product with `count` rows, in order: as many for each thread,
/// and none so small that its sums are others.
pub fn tiles(count: usize, rows: usize, width: usize) -> Vec<Range<usize>> {
    let tiles = (rows * width).div_ceil(TILE).next_multiple_of(rayon::current_num_threads());
    let least = LEAST_ROWS.max(FEW_ELEMENTS / count.max(1) + 1);
    let tiles = tiles.clamp(1, (rows / least).max(1));
    let start = |tile: usize| tile * rows / tiles;
    (0..tiles).map(|tile| start(tile)..start(tile + 1)).collect()
}

/// x [rows, in] · weightᵀ [in, out] on all threads of the pool. candle's own product counts
/// physical cores instead, whatever pool it runs in.
pub fn product(x: &Tensor, weight: &Tensor) -> Result<Option<Tensor>> {
    let ((rows, input), (output, _)) = (x.dims2()?, weight.dims2()?);
    let multiplied = with_f32([x, weight], |[x, weight]| {
        let mut out = vec![0f32; rows * output];
        let dims = [rows, output, input];
        let threads = on_threads(rayon::current_num_threads());
        multiply(&mut out, output, dims, (x, input, 1), (weight, 1, input), 1.0, threads);
        out
    })?;
    multiplied.map(|out| Ok(Tensor::from_vec(out, (rows, output), &Device::Cpu)?)).transpose()
}

/// The product of `x` [any, width] with the transposed of a matrix that is made a tile of its rows at
/// a time. `tiles`: of the matrix's rows, in order; `make` fills one, [rows, width]. A thread makes and
/// multiplies a tile of its own, so that none waits for another's.
pub fn tiled_product(
    x: &[f32],
    width: usize,
    tiles: &[Range<usize>],
    make: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
) -> Result<Tensor> {
    let rows = x.len() / width;
    // Where there are fewer tiles than threads, several share one.
    let threads = on_threads(rayon::current_num_threads().div_ceil(tiles.len().max(1)));
    by_tiles(rows, tiles, |tile, pieces, (matrix, product): &mut (Vec<f32>, Vec<f32>)| {
        matrix.resize(tile.len() * width, 0.0);
        product.resize(rows * tile.len(), 0.0);
        make(tile.start, matrix)?;
        let (dims, matrix) = ([rows, tile.len(), width], (&matrix[..], 1, width));
        multiply(product, tile.len(), dims, (x, width, 1), matrix, 1.0, threads);
        for (piece, product) in pieces.iter_mut().zip(product.chunks_exact(tile.len())) {
            piece.copy_from_slice(product);
        }
        Ok(())
    })
}

/// A product [rows, columns] of tiles that threads take one by one. `multiply` gets a tile's columns,
/// its piece of every row, and memory of its own.
pub fn by_tiles<M: Default + Send>(
    rows: usize,
    tiles: &[Range<usize>],
    multiply: impl Fn(&Range<usize>, &mut [&mut [f32]], &mut M) -> Result<()> + Sync,
) -> Result<Tensor> {
    let columns = tiles.last().map_or(0, |tile| tile.end);
    let mut out = vec![0f32; rows * columns];
    let mut pieces: Vec<Vec<&mut [f32]>> = tiles.iter().map(|_| Vec::with_capacity(rows)).collect();
    for mut row in out.chunks_exact_mut(columns) {
        for (pieces, tile) in pieces.iter_mut().zip(tiles) {
            let (piece, rest) = row.split_at_mut(tile.len());
            pieces.push(piece);
            row = rest;
        }
    }
    let tasks = pieces.into_par_iter().zip(tiles);
    tasks.try_for_each_init(M::default, |memory, (mut pieces, tile)| {
        multiply(tile, &mut pieces, memory)
    })?;
    Ok(Tensor::from_vec(out, (rows, columns), &Device::Cpu)?)
}

fn on_threads(count: usize) -> Parallelism {
    if count == 1 { Parallelism::None } else { Parallelism::Rayon(count) }
}

/// A matrix in a slice: (values, row stride, column stride).
pub type Strided<'a> = (&'a [f32], usize, usize);

/// dst [m, n] = factor · a [m, k] · b [k, n]; dst has unit column stride.
#[allow(unsafe_code)]
pub fn multiply(
    dst: &mut [f32],
    dst_rows: usize,
    [m, n, k]: [usize; 3],
    (a, a_rows, a_columns): Strided,
    (b, b_rows, b_columns): Strided,
    factor: f32,
    parallelism: Parallelism,
) {
    let last = |rows: usize, columns: usize, row: usize, column: usize| {
        (rows - 1) * row + (columns - 1) * column
    };
    assert!(m > 0 && n > 0 && k > 0);
    assert!(n <= dst_rows && last(m, n, dst_rows, 1) < dst.len());
    assert!(last(m, k, a_rows, a_columns) < a.len());
    assert!(last(k, n, b_rows, b_columns) < b.len());
    // SAFETY: the asserts bound every index the product touches; dst is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_rows as isize,
            false,
            a.as_ptr(),
            a_columns as isize,
            a_rows as isize,
            b.as_ptr(),
            b_columns as isize,
            b_rows as isize,
            0.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}
