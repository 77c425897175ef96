//! A cache through a codec and back, with what that costs in bytes and in distortion.

use super::{CodecOutcome, LayerDistortion};
use crate::codec::{Codec, DistortionSum, Element, TensorCodec};
use crate::error::{Error, Result};
use crate::model::{KvCache, LayerKv, Llama};
use candle_core::{DType, Tensor, WithDType};
use half::{bf16, f16};

impl CodecOutcome {
    pub(super) fn new(codec: Codec, model: &Llama) -> Self {
        Self {
            codec,
            scores: Vec::new(),
            layers: vec![LayerDistortion::default(); model.config().layers],
            stored_bytes: 0,
            values: 0,
            cached_tokens: 0,
        }
    }

    /// Compresses and decompresses every layer; counts real payload bytes and distortion.
    pub(super) fn round_trip(&mut self, cache: &KvCache) -> Result<KvCache> {
        let codec = self.codec;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (index, layer) in cache.layers().enumerate() {
            let sums = &mut self.layers[index];
            let key = round_trip(&layer.key, &codec.key);
            let key = key.map_err(|e| e.within(format!("layer {index} key")))?;
            let value = round_trip(&layer.value, &codec.value);
            let value = value.map_err(|e| e.within(format!("layer {index} value")))?;
            sums.key = sums.key.plus(key.distortion);
            sums.value = sums.value.plus(value.distortion);
            self.stored_bytes += (key.stored_bytes + value.stored_bytes) as u64;
            self.values += (layer.key.elem_count() + layer.value.elem_count()) as u64;
            layers.push(LayerKv { key: key.tensor, value: value.tensor });
        }
        self.cached_tokens += cache.tokens() as u64;
        KvCache::from_layers(layers)
    }
}

struct RoundTrip {
    tensor: Tensor,
    distortion: DistortionSum,
    stored_bytes: usize,
}

fn round_trip(tensor: &Tensor, codec: &TensorCodec) -> Result<RoundTrip> {
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
