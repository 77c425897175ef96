//! A cache through a codec and back, with what that costs in bytes and in distortion.

use super::{CodecWindow, LayerDistortion};
use crate::codec::{Codec, DistortionSum, Element, TensorCodec};
use crate::error::{Error, Result};
use crate::model::{KvCache, LayerKv};
use candle_core::{DType, Tensor, WithDType};
use half::{bf16, f16};

/// A cache as a codec gives it back, and what that cost; no target is scored yet.
pub(super) struct CacheRoundTrip {
    pub cache: KvCache,
    pub outcome: CodecWindow,
}

/// Compresses and decompresses every layer; counts real payload bytes and distortion.
pub(super) fn round_trip(cache: &KvCache, codec: &Codec) -> Result<CacheRoundTrip> {
    let (mut layers, mut tensors) = (Vec::new(), Vec::new());
    let (mut stored_bytes, mut values) = (0, 0);
    for (index, layer) in cache.layers().enumerate() {
        let key = round_trip_tensor(&layer.key, &codec.key);
        let key = key.map_err(|e| e.within(format!("layer {index} key")))?;
        let value = round_trip_tensor(&layer.value, &codec.value);
        let value = value.map_err(|e| e.within(format!("layer {index} value")))?;
        stored_bytes += (key.stored_bytes + value.stored_bytes) as u64;
        values += (layer.key.elem_count() + layer.value.elem_count()) as u64;
        layers.push(LayerDistortion { key: key.distortion, value: value.distortion });
        tensors.push(LayerKv { key: key.tensor, value: value.tensor });
    }
    let cached_tokens = cache.tokens() as u64;
    Ok(CacheRoundTrip {
        cache: KvCache::from_layers(tensors)?,
        outcome: CodecWindow { scores: Vec::new(), layers, stored_bytes, values, cached_tokens },
    })
}

struct RoundTrip {
    tensor: Tensor,
    distortion: DistortionSum,
    stored_bytes: usize,
}

fn round_trip_tensor(tensor: &Tensor, codec: &TensorCodec) -> Result<RoundTrip> {
    match tensor.dtype() {
        DType::F32 => round_trip_as::<f32>(tensor, codec),
        DType::F16 => round_trip_as::<f16>(tensor, codec),
        DType::BF16 => round_trip_as::<bf16>(tensor, codec),
        other => Err(Error::system(format!("cache: expected f32, f16 or bf16, found {other:?}"))),
    }
}

fn round_trip_as<T: Element + WithDType>(
    tensor: &Tensor,
    codec: &TensorCodec,
) -> Result<RoundTrip> {
    let (_, _, head_dim) = tensor.dims3()?;
    let original = tensor.flatten_all()?.to_vec1::<T>()?;
    let (payload, distortion) = codec.compress_measured(&original, head_dim)?;
    let mut decoded = vec![T::default(); original.len()];
    payload.decompress(&mut decoded);
    Ok(RoundTrip {
        distortion,
        stored_bytes: payload.stored_bytes(),
        tensor: Tensor::from_vec(decoded, tensor.shape(), tensor.device())?,
    })
}
