//! Matrices of weights: in memory as they are multiplied, or packed as a file has them.
//!
//! A packed matrix is dequantised a tile of rows at a time, just before the tile is multiplied. Every
//! element of a product is the same sum in the same order either way, so results are equal to the last
//! bit (`tests/architecture_ggufs.rs`, and of several tiles below).
//!
//! Matrices of 16-bit arithmetic are kept in 16 bits, or packed too, and what is multiplied is rounded:
//! by the processor's instruction where it has one, else in f32 as above.

use super::bf16::{self, Panels, Rows};
use super::gguf::WeightType;
use super::product;
use super::rounding::Rounding;
use super::weights::{CHECKED_AT_ONCE, check_finite};
use crate::error::{Error, Result};
use crate::tensor::with_f32;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// A matrix [rows, width] that vectors are multiplied with.
#[derive(Clone)]
pub(super) enum Matrix {
    Dense(Tensor),
    /// Below each other, and what they and `x` are rounded to before they are multiplied.
    Packed(Arc<[PackedRows]>, Option<Rounding>),
    /// In bf16, as the processor's instructions take it.
    Panels(Arc<Panels>),
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
    /// A matrix [rows, width] in 16 bits.
    pub(super) fn rounded(values: &[f32], width: usize, rounding: Rounding) -> Self {
        Self::of_halves(rounding.bytes(values), [values.len() / width, width], rounding)
    }

    /// Of bytes in 16 bits, little-endian.
    pub(super) fn of_halves(bytes: Vec<u8>, [rows, width]: [usize; 2], rounding: Rounding) -> Self {
        Self { kind: rounding.weight_type(), bytes, rows, width, heads: None, factor: None }
    }

    /// An error where a value is not finite; `place`: file and tensor.
    pub(super) fn check_finite(&self, place: &str) -> Result<()> {
        let width = self.width;
        let some = CHECKED_AT_ONCE.div_ceil(width.max(1));
        let pieces = (0..self.rows.div_ceil(some)).into_par_iter();
        let checked = pieces.map_init(Vec::new, |values, index| {
            values.resize(some.min(self.rows - index * some) * width, 0f32);
            self.decode(index * some, values)?;
            check_finite(values, index * some * width, place)
        });
        // The first of them, whichever is found first.
        checked.find_first(Result::is_err).unwrap_or(Ok(()))
    }

    /// Whether its values are what `rounding` makes of them.
    pub(super) fn is_kept_as(&self, rounding: Rounding) -> bool {
        self.kind.name == rounding.weight_type().name && self.factor.is_none()
    }

    /// The bytes of a row that is kept in bf16.
    fn bf16_bytes(&self, row: usize) -> Option<&[u8]> {
        let as_is = self.is_kept_as(Rounding::Bf16) && self.heads.is_none();
        as_is.then(|| &self.bytes[row * 2 * self.width..][..2 * self.width])
    }

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
    /// Whether it is in another type than it is multiplied in.
    pub fn is_packed(&self) -> bool {
        let kept = |part: &PackedRows, rounding: &Option<Rounding>| {
            rounding.is_some_and(|rounding| part.is_kept_as(rounding))
        };
        match self {
            Self::Dense(_) | Self::Panels(_) => false,
            Self::Packed(parts, rounding) => parts.iter().any(|part| !kept(part, rounding)),
        }
    }

    /// x [any, width] · selfᵀ → [any, rows]
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        if let Self::Dense(weight) = self {
            return match product::product(x, weight)? {
                Some(product) => Ok(product),
                None => Ok(x.matmul(&weight.t()?)?),
            };
        }
        let (x, (count, width)) = (x.contiguous()?, x.dims2()?);
        let product = with_f32([&x], |[x]| match self {
            Self::Panels(panels) => bf16_product(x, panels, width),
            Self::Packed(parts, Some(Rounding::Bf16)) if bf16::is_native() => {
                packed_bf16_product(x, width, parts)
            }
            Self::Packed(parts, rounding) => {
                let rounded = rounding.map(|rounding| rounding.rounded(x));
                let rows = parts.iter().map(|part| part.rows).sum::<usize>();
                let tiles = product::tiles(count, rows, width);
                let make = |first, tile: &mut [f32]| rounded_below(parts, *rounding, first, tile);
                product::tiled_product(rounded.as_deref().unwrap_or(x), width, &tiles, make)
            }
            Self::Dense(_) => unreachable!("multiplied above"),
        })?;
        product.ok_or_else(|| Error::system("packed weights: expected f32 on the CPU"))?
    }

    /// The rows of these indices, as they are multiplied. [ids, width]
    pub fn select(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        let rows = |width: usize, row: &(dyn Fn(usize, &mut [f32]) -> Result<()> + Sync)| {
            let mut values = vec![0f32; ids.len() * width];
            let rows = values.par_chunks_exact_mut(width).zip(ids);
            rows.try_for_each(|(out, id)| row(*id as usize, out))?;
            Ok(Tensor::from_vec(values, (ids.len(), width), &Device::Cpu)?)
        };
        match self {
            Self::Dense(weight) => Ok(weight.index_select(&Tensor::new(ids, device)?, 0)?),
            Self::Packed(parts, rounding) => {
                let width = parts.first().map_or(0, |part| part.width);
                rows(width, &|id, out| rounded_below(parts, *rounding, id, out))
            }
            Self::Panels(panels) => rows(panels.width(), &|id, out| {
                if id >= panels.rows() {
                    return Err(beyond(id));
                }
                panels.row(id, out);
                Ok(())
            }),
        }
    }

    /// Matrices below each other that are kept in bf16, in the form that this processor multiplies
    /// fastest.
    pub fn in_bf16(parts: Vec<PackedRows>) -> Result<Self> {
        match bf16::is_native() {
            true => Self::in_panels(&parts),
            false => Ok(Self::Packed(parts.into(), Some(Rounding::Bf16))),
        }
    }

    fn in_panels(parts: &[PackedRows]) -> Result<Self> {
        let rows = parts.iter().map(|part| part.rows).sum();
        let width = parts.first().map_or(0, |part| part.width);
        let row = |index: usize, pairs: &mut [u32]| bf16_row(parts, index, &mut Vec::new(), pairs);
        Ok(Self::Panels(Panels::of_rows_on_all(rows, width, row)?.into()))
    }
}

/// x [any, width] · rightᵀ, both in bf16.
fn bf16_product(x: &[f32], right: &Panels, width: usize) -> Result<Tensor> {
    assert_eq!(width, right.width());
    let x = Rows::rounded_on_all(x, width);
    product::by_tiles(x.count(), &bf16::tiles(right.rows()), |tile, pieces, (): &mut ()| {
        let right = (right, tile.clone(), 0..right.depth());
        bf16::multiply((&x, 0..x.count()), right, 1.0, pieces);
        Ok(())
    })
}

/// [`bf16_product`] with matrices below each other that are made a tile at a time.
fn packed_bf16_product(x: &[f32], width: usize, parts: &[PackedRows]) -> Result<Tensor> {
    let x = Rows::rounded_on_all(x, width);
    let tiles = bf16::tiles(parts.iter().map(|part| part.rows).sum());
    product::by_tiles(x.count(), &tiles, |tile, pieces, (panels, row): &mut (Panels, Vec<f32>)| {
        panels.of_rows(tile.len(), width, |index, pairs| {
            bf16_row(parts, tile.start + index, row, pairs)
        })?;
        let right = (&*panels, 0..tile.len(), 0..panels.depth());
        bf16::multiply((&x, 0..x.count()), right, 1.0, pieces);
        Ok(())
    })
}

/// A row of matrices below each other in pairs of bf16. `row`: memory for it.
fn bf16_row(
    parts: &[PackedRows],
    mut index: usize,
    row: &mut Vec<f32>,
    pairs: &mut [u32],
) -> Result<()> {
    for part in parts {
        if index < part.rows {
            match part.bf16_bytes(index) {
                Some(bytes) => bf16::pairs_of_bytes(bytes, pairs),
                None => {
                    row.resize(part.width, 0.0);
                    part.decode(index, row)?;
                    bf16::pairs_of_values(row, pairs);
                }
            }
            return Ok(());
        }
        index -= part.rows;
    }
    Err(beyond(index))
}

/// [`rows_below`], rounded.
fn rounded_below(
    parts: &[PackedRows],
    rounding: Option<Rounding>,
    first: usize,
    out: &mut [f32],
) -> Result<()> {
    rows_below(parts, first, out)?;
    match rounding {
        Some(rounding) if !parts.iter().all(|part| part.is_kept_as(rounding)) => {
            rounding.round(out);
        }
        _ => {}
    }
    Ok(())
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
        false => Err(beyond(first)),
    }
}

fn beyond(row: usize) -> Error {
    Error::input(format!("row {row} beyond the last of a matrix"))
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
        let packed = Matrix::Packed(parts.into(), None);
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

    /// In f64, of operands rounded by the `half` crate; and kept in 16 bits or in blocks is the same.
    #[test]
    fn products_of_16_bits_are_those_of_rounded_operands() {
        let (width, count) = (544, 70);
        let parts = || vec![packed(300, width, None, 1), packed(64, width, Some(2), 2)];
        let mut values = vec![0.0; 364 * width];
        rows_below(&parts(), 0, &mut values).unwrap();
        let x = RandomWeights.tensor("x", &[count, width]).unwrap();
        let of_x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for rounding in [Rounding::Bf16, Rounding::F16] {
            let blocks = Matrix::Packed(parts().into(), Some(rounding));
            let kept = vec![PackedRows::rounded(&values, width, rounding)];
            let kept = Matrix::Packed(kept.into(), Some(rounding));
            assert!(blocks.is_packed() && !kept.is_packed());
            let bits = |matrix: &Matrix| matrix.product(&x).unwrap().to_vec2::<f32>().unwrap();
            let found = bits(&kept);
            assert!(bits(&blocks) == found, "{rounding:?}");
            let rounded = |value: &f32| match rounding {
                Rounding::Bf16 => f64::from(half::bf16::from_f32(*value)),
                Rounding::F16 => f64::from(half::f16::from_f32(*value)),
            };
            let sums: Vec<f64> = of_x
                .chunks(width)
                .flat_map(|row| values.chunks(width).map(move |column| (row, column)))
                .map(|(row, column)| {
                    row.iter().zip(column).map(|(a, b)| rounded(a) * rounded(b)).sum()
                })
                .collect();
            let largest = sums.iter().fold(0f64, |largest, sum| largest.max(sum.abs()));
            let check = |found: &[Vec<f32>]| {
                let off = found.iter().flatten().zip(&sums).map(|(a, b)| (f64::from(*a) - b).abs());
                let error = off.fold(0f64, f64::max);
                assert!(error < 1e-6 * largest, "{rounding:?}: {error} of {largest}");
            };
            check(&found);
            if rounding == Rounding::Bf16 {
                let rows = [PackedRows::rounded(&values, width, rounding)];
                let panels = Matrix::in_panels(&rows).unwrap();
                check(&bits(&panels));
                assert!(!bf16::is_native() || bits(&panels) == found);
                let ids = [0, 299, 363];
                let rows = |matrix: &Matrix| {
                    matrix.select(&ids, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap()
                };
                assert_eq!(rows(&panels), rows(&kept));
                assert!(panels.select(&[364], &Device::Cpu).is_err());
            }
            let select = |matrix: &Matrix| {
                matrix.select(&[299, 300, 363], &Device::Cpu).unwrap().to_vec2::<f32>().unwrap()
            };
            assert_eq!(select(&blocks), select(&kept));
            let expected: Vec<f64> = values[299 * width..300 * width].iter().map(rounded).collect();
            let first = &select(&kept)[0];
            assert!(first.iter().zip(expected).all(|(a, b)| f64::from(*a) == b));
        }
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
