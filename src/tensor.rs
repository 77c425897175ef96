//! Reading a tensor's values where they are.

use crate::error::Result;
use candle_core::{DType, Storage, Tensor};

/// Whether the values can be read as one f32 slice: contiguous, f32, on the CPU.
pub fn is_host_f32(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous()
}

/// Calls `f` with the values, without a copy, where [`is_host_f32`]; `None` elsewhere.
pub fn with_f32<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<Option<R>> {
    if !is_host_f32(tensor) {
        return Ok(None);
    }
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(cpu), Some((start, end))) => Ok(Some(f(&cpu.as_slice::<f32>()?[start..end]))),
        _ => Ok(None),
    }
}
