//! Matrices of weights: in memory as they are multiplied, or packed as a file has them.
//!
//! A packed matrix is dequantised a tile of rows at a time, just before the tile is multiplied. Every
//! element of a product is the same sum in the same order either way, so results are equal to the last
//! bit (`tests/architecture_ggufs.rs`, and of several tiles below).

use super::gguf::WeightType;
use super::product;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// A matrix [rows, width] that vectors are multiplied with.
#[derive(Clone)]
pub(super) enum Matrix {
    Dense(Tensor),
    /// Below each other.
    Packed(Arc<[PackedRows]>),
}

/// Rows of weights in blocks of a GGUF type, [rows, width].
pub struct PackedRows {
    pub(super) kind: WeightType,
    /// Of all rows, each of whole blocks.
    pub(super) bytes: Vec<u8>,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Heads whose rows are stored in the order of the pairs that rotate together, and are given in
    /// halves.
    pub(super) heads: Option<usize>,
    /// What every value is multiplied by.
    pub(super) factor: Option<f32>,
}

impl PackedRows {
    /// Rows from `first` on in f32. `out`: [any, width]
    pub(super) fn decode(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let row_bytes = self.kind.bytes_of(self.width) as usize;
        match self.heads {
            None => {
                let count = out.len() / self.width;
                let bytes = &self.bytes[first * row_bytes..][..count * row_bytes];
                self.kind.dequantise(bytes, out)?;
            }
            Some(heads) => {
                let of_head = self.rows / heads;
                for (row, out) in (first..).zip(out.chunks_exact_mut(self.width)) {
                    let (head, row) = (row / of_head, row % of_head);
                    let (half, pair) = (row / (of_head / 2), row % (of_head / 2));
                    let stored = head * of_head + 2 * pair + half;
                    self.kind.dequantise(&self.bytes[stored * row_bytes..][..row_bytes], out)?;
                }
            }
        }
        if let Some(factor) = self.factor {
            out.iter_mut().for_each(|value| *value *= factor);
        }
        Ok(())
    }
}

impl Matrix {
    /// x [any, width] · selfᵀ → [any, rows]
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => match product::product(x, weight)? {
                Some(product) => Ok(product),
                None => Ok(x.matmul(&weight.t()?)?),
            },
            Self::Packed(parts) => packed_product(x, parts),
        }
    }

    /// The rows of these indices. [ids, width]
    pub fn select(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        let parts = match self {
            Self::Dense(weight) => {
                return Ok(weight.index_select(&Tensor::new(ids, device)?, 0)?);
            }
            Self::Packed(parts) => parts,
        };
        let width = parts.first().map_or(0, |part| part.width);
        let mut values = vec![0f32; ids.len() * width];
        let rows = values.par_chunks_exact_mut(width).zip(ids);
        rows.try_for_each(|(out, id)| rows_below(parts, *id as usize, out))?;
        Ok(Tensor::from_vec(values, (ids.len(), width), &Device::Cpu)?)
    }
}

/// x [any, width] · the transposed of matrices below each other → [any, rows of all]
fn packed_product(x: &Tensor, parts: &[PackedRows]) -> Result<Tensor> {
    let (rows, width) = (parts.iter().map(|part| part.rows).sum::<usize>(), x.dim(1)?);
    let tiles = product::tiles(x.dim(0)?, rows, width);
    product::tiled_product(x, &tiles, |first, tile| rows_below(parts, first, tile))
}

/// Rows from `first` on of matrices below each other. `out`: [any, width]
fn rows_below(parts: &[PackedRows], mut first: usize, mut out: &mut [f32]) -> Result<()> {
    for part in parts {
        if out.is_empty() {
            return Ok(());
        }
        if first < part.rows {
            let count = (part.rows - first).min(out.len() / part.width);
            let (own, rest) = out.split_at_mut(count * part.width);
            part.decode(first, own)?;
            (first, out) = (0, rest);
        } else {
            first -= part.rows;
        }
    }
    match out.is_empty() {
        true => Ok(()),
        false => Err(Error::input(format!("row {first} beyond the last of a matrix"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RandomWeights, Weights};

    /// Q8_0 blocks of random codes.
    fn packed(rows: usize, width: usize, heads: Option<usize>, seed: u8) -> PackedRows {
        let mut state = u32::from(seed) + 1;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut bytes = Vec::new();
        for _ in 0..rows * width / 32 {
            bytes.extend(half::f16::from_f32(0.01 + f32::from(byte()) / 1e4).to_le_bytes());
            bytes.extend((0..32).map(|_| byte()));
        }
        let kind = WeightType::of(8).unwrap();
        PackedRows { kind, bytes, rows, width, heads, factor: Some(0.75) }
    }

    /// More than one tile, tiles that cannot be equal, few rows and many.
    #[test]
    fn products_of_packed_matrices_have_the_bits_of_dense_ones() {
        for (rows, width) in [(2050, 1056), (260, 9248)] {
            check_products(rows, width);
        }
    }

    fn check_products(first: usize, width: usize) {
        let parts = [(first, None, 1), (130, Some(1), 2), (3, None, 3)];
        let parts = parts.map(|(rows, heads, seed)| packed(rows, width, heads, seed));
        let mut dense = Vec::new();
        for part in &parts {
            let mut values = vec![0.0; part.rows * width];
            part.decode(0, &mut values).unwrap();
            dense.extend(values);
        }
        let rows = dense.len() / width;
        let dense = Matrix::Dense(Tensor::from_vec(dense, (rows, width), &Device::Cpu).unwrap());
        let packed = Matrix::Packed(parts.into());
        for count in [1, 2, 7, 64, 65, 200] {
            let x = RandomWeights.tensor("x", &[count, width]).unwrap();
            let bits = |matrix: &Matrix| matrix.product(&x).unwrap().to_vec2::<f32>().unwrap();
            assert!(bits(&packed) == bits(&dense), "{count} rows of {width}");
        }
        let ids = [0, first as u32 - 1, first as u32, rows as u32 - 1, 5];
        let select =
            |matrix: &Matrix| matrix.select(&ids, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(select(&packed), select(&dense));
        assert!(packed.select(&[rows as u32], &Device::Cpu).is_err());
    }

    /// Rows of pairs side by side are given in halves.
    #[test]
    fn permuted_rows_come_in_halves() {
        let stored = packed(8, 32, None, 9);
        let given = PackedRows { heads: Some(2), ..packed(8, 32, None, 9) };
        let rows = |matrix: &PackedRows| {
            let mut values = vec![0.0; 8 * 32];
            matrix.decode(0, &mut values).unwrap();
            values.chunks(32).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let (stored, given) = (rows(&stored), rows(&given));
        for (to, from) in [0, 2, 1, 3, 4, 6, 5, 7].into_iter().enumerate() {
            assert_eq!(given[to], stored[from]);
        }
    }
}
