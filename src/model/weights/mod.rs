//! Where weights come from. All sources answer to Hugging Face tensor names, in Hugging Face
//! order, as f32 on the CPU; the model asks once a tensor and keeps what it made of it.

mod kv_scales;
mod safetensors;
mod unread;

pub use kv_scales::KvScales;
pub use safetensors::Safetensors;
pub use unread::Unread;
pub(super) use unread::refuse_unread;

use super::matrix::PackedRows;
use super::rounding::Rounding;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// A source of named tensors in f32.
pub trait Weights {
    /// The tensor as f32 on the CPU. Missing, of another shape or dtype, or not finite: an
    /// input error that names file and tensor.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// 1 + the tensor, for norms that multiply by that; files that hold it already give it as it
    /// is.
    fn tensor_plus_one(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok((self.tensor(name, shape)? + 1.0)?)
    }

    /// A matrix [rows, width] as it is stored, to be dequantised when it is used; `None` where the
    /// source has it in no such form. Errors are those of [`Weights::tensor`].
    fn packed(&self, _name: &str, _shape: [usize; 2]) -> Result<Option<PackedRows>> {
        Ok(None)
    }

    /// A matrix [rows, width] that is stored in the type that arithmetic of 16 bits keeps, as it is
    /// stored; `None` where it is not. Errors are those of [`Weights::tensor`].
    fn kept(
        &self,
        _name: &str,
        _shape: [usize; 2],
        _rounding: Rounding,
    ) -> Result<Option<PackedRows>> {
        Ok(None)
    }

    /// The error that [`Weights::tensor`] gives before it reads a value, if it does.
    fn check(&self, name: &str, shape: &[usize]) -> Result<()>;

    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool;

    /// The tensors that are there and not `asked` for, but for those that are known to change
    /// nothing.
    fn unread(&self, asked: &BTreeSet<String>) -> Vec<Unread>;
}

pub(super) fn check_shape(place: &str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::input(format!("{place}: expected shape {expected:?}, found {found:?}"))
        .hint("the config asks for the expected shape: do weights and config belong together?"))
}

/// Values that a thread looks at before it takes others.
pub(super) const CHECKED_AT_ONCE: usize = 1 << 16;

pub(super) fn finite_tensor(values: Vec<f32>, shape: &[usize], place: &str) -> Result<Tensor> {
    let pieces = values.par_chunks(CHECKED_AT_ONCE).enumerate();
    // The first of them, whichever is found first.
    let errors = pieces.map(|(index, piece)| check_finite(piece, index * CHECKED_AT_ONCE, place));
    errors.find_first(Result::is_err).transpose()?;
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// `first`: the index of the first value in its tensor.
pub(super) fn check_finite(values: &[f32], first: usize, place: &str) -> Result<()> {
    let Some(index) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    Err(Error::not_finite(format!(
        "{place}: index {}: expected a finite number, found {}",
        first + index,
        values[index]
    ))
    .hint("no result from such weights would mean anything: does the model run elsewhere?"))
}
