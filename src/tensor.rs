//! Reading tensors' values where they are.

use crate::error::Result;
use candle_core::{DType, Storage, Tensor};

/// Calls `f` with the values of all tensors, without a copy, if each can be read as one f32
/// slice: contiguous, f32, on the CPU. `None` otherwise.
pub fn with_f32<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> R,
) -> Result<Option<R>> {
    if tensors.iter().any(|tensor| tensor.dtype() != DType::F32) {
        return Ok(None);
    }
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [&[][..]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        match (&**storage, layout.contiguous_offsets()) {
            (Storage::Cpu(cpu), Some((start, end))) => *slice = &cpu.as_slice()?[start..end],
            _ => return Ok(None),
        }
    }
    Ok(Some(f(slices)))
}
