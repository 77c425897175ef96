//! A layer of a cache through a codec and back, with what that costs in bytes and in distortion.

use super::noise::{Noisy, add_noise, rounded_otherwise};
use super::protocol::stored_of_prefix;
use super::{CodecWindow, HeadScope, LayerDistortion, ModelArm, Side, SideTreatment, StoredSize};
use crate::codec::{
    DistortionSum, Element, Geometry, Packing, RotaryEmbedding, RotaryTable, TensorCodec,
};
use crate::error::{Error, Result};
use crate::model::LayerKv;
use candle_core::{DType, Tensor, WithDType};
use half::{bf16, f16};
use std::ops::Range;

/// The context of every cache of a run, as codecs are told.
#[derive(Debug, Clone)]
pub struct CodecContext {
    /// Rotations of the model's keys, for every position of a window.
    tables: Vec<RotaryTable>,
    /// Index of each layer's.
    table_of: Vec<usize>,
    /// Of the noise that controls draw.
    seed: u64,
}

/// The context of one layer's keys or values.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerContext<'a> {
    /// The rotations of its keys.
    pub rope: &'a RotaryTable,
    /// Of the noise that controls draw.
    pub seed: u64,
}

impl CodecContext {
    /// `positions`: those of the longest window.
    pub fn new(layers: Vec<RotaryEmbedding>, positions: usize, seed: u64) -> Self {
        let mut distinct: Vec<RotaryEmbedding> = Vec::new();
        let mut table_of = Vec::with_capacity(layers.len());
        for embedding in layers {
            let known = distinct.iter().position(|known| *known == embedding);
            table_of.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(embedding);
            }
        }
        let table = |embedding| RotaryTable::of(embedding, positions);
        Self { tables: distinct.into_iter().map(table).collect(), table_of, seed }
    }

    pub(super) fn of_layer(&self, layer: usize) -> LayerContext<'_> {
        LayerContext { rope: &self.tables[self.table_of[layer]], seed: self.seed }
    }
}

/// A layer of a cache as a codec gives it back; its last `residual` tokens stay exact, and count as a
/// server keeps them, in 16 bits. Real payload bytes and distortion are added to `outcome`, whose
/// layers came before.
pub(super) fn round_trip(
    layer: &LayerKv,
    arm: &ModelArm,
    context: &CodecContext,
    residual: usize,
    outcome: &mut CodecWindow,
) -> Result<LayerKv> {
    let index = outcome.layers.len();
    let through = |side: Side, tensor: &Tensor| -> Result<(Tensor, DistortionSum, StoredSize)> {
        let treatment = arm.side(index, side);
        let heads = arm.scope.heads(index, side);
        let (_, tokens, head_dim) = tensor.dims3()?;
        let stored = stored_of_prefix(&treatment.codec, head_dim, tokens, residual);
        let rest = StoredSize::exact((tensor.elem_count() / tokens * (tokens - stored)) as u64);
        if stored == 0 {
            return Ok((tensor.clone(), DistortionSum::default(), rest));
        }
        let source = tensor.narrow(1, 0, stored)?.contiguous()?;
        let done = round_trip_tensor(&source, treatment, heads, 0, &context.of_layer(index))
            .map_err(|e| e.within(format!("layer {index} {side}")))?;
        let size = done.size.plus(rest);
        Ok((with_range(tensor, 1, 0..stored, &done.tensor)?, done.distortion, size))
    };
    let (key, of_key, key_size) = through(Side::Key, &layer.key)?;
    let (value, of_value, value_size) = through(Side::Value, &layer.value)?;
    outcome.push_layer(LayerDistortion { key: of_key, value: of_value, key_size, value_size });
    Ok(LayerKv { key, value })
}

pub(super) struct RoundTrip {
    pub tensor: Tensor,
    pub distortion: DistortionSum,
    pub size: StoredSize,
}

impl RoundTrip {
    /// As it was, and not stored.
    fn untouched(tensor: Tensor) -> Self {
        let values = tensor.elem_count() as u64;
        let size = StoredSize { values, ..StoredSize::default() };
        Self { tensor, distortion: DistortionSum::default(), size }
    }
}

/// Keys or values of one layer, [kv_heads, tokens, head_dim]; the first token is at position
/// `first`. Heads out of scope stay as they are.
pub(super) fn round_trip_tensor(
    tensor: &Tensor,
    treatment: SideTreatment,
    heads: HeadScope,
    first: usize,
    context: &LayerContext,
) -> Result<RoundTrip> {
    let (_, tokens, head_dim) = tensor.dims3()?;
    match heads {
        HeadScope::All => {}
        HeadScope::None => return Ok(RoundTrip::untouched(tensor.clone())),
        HeadScope::Only(head) => {
            let mut done = round_trip_tensor(tensor, treatment, HeadScope::All, first, context)?;
            let own = done.tensor.narrow(0, head, 1)?;
            done.tensor = with_range(tensor, 0, head..head + 1, &own)?;
            return Ok(done);
        }
    }
    let rope = Some(context.rope);
    let geometry = Geometry { tokens, head_dim, first, rope };
    match tensor.dtype() {
        DType::F32 => round_trip_as::<f32>(tensor, treatment, &geometry, context.seed),
        DType::F16 => round_trip_as::<f16>(tensor, treatment, &geometry, context.seed),
        DType::BF16 => round_trip_as::<bf16>(tensor, treatment, &geometry, context.seed),
        other => Err(unknown(other)),
    }
}

/// The tokens `new` of keys or values [kv_heads, tokens, head_dim] of one layer, from the first
/// token on, with noise of the same size as the error that the codec makes in them.
pub(super) fn noise_of(
    tensor: &Tensor,
    codec: &TensorCodec,
    heads: HeadScope,
    new: Range<usize>,
    context: &LayerContext,
) -> Result<RoundTrip> {
    let treatment = SideTreatment { codec: *codec, noise: false, floor: false };
    let decoded = round_trip_tensor(tensor, treatment, HeadScope::All, 0, context)?.tensor;
    let own = |tensor: &Tensor| -> Result<Tensor> {
        Ok(tensor.narrow(1, new.start, new.len())?.contiguous()?)
    };
    let (original, decoded) = (own(tensor)?, own(&decoded)?);
    let mut done = match tensor.dtype() {
        DType::F32 => noise_as::<f32>(&original, &decoded, context.seed),
        DType::F16 => noise_as::<f16>(&original, &decoded, context.seed),
        DType::BF16 => noise_as::<bf16>(&original, &decoded, context.seed),
        other => Err(unknown(other)),
    }?;
    match heads {
        HeadScope::All => {}
        HeadScope::None => return Ok(RoundTrip::untouched(original)),
        HeadScope::Only(head) => {
            let own = done.tensor.narrow(0, head, 1)?;
            done.tensor = with_range(&original, 0, head..head + 1, &own)?;
        }
    }
    Ok(done)
}

fn noise_as<T: Element + WithDType>(
    original: &Tensor,
    decoded: &Tensor,
    seed: u64,
) -> Result<RoundTrip> {
    let head_dim = original.dim(2)?;
    let values = original.flatten_all()?.to_vec1::<T>()?;
    let decoded = decoded.flatten_all()?.to_vec1::<T>()?;
    let error = DistortionSum::measure(&values, &decoded, head_dim);
    RoundTrip::of_noise(add_noise(&values, error, head_dim, seed), original)
}

fn unknown(dtype: DType) -> Error {
    Error::system(format!("cache: expected f32, f16 or bf16, found {dtype:?}"))
}

/// `tensor` with `part` in the place of a range along one dimension.
pub(super) fn with_range(
    tensor: &Tensor,
    dim: usize,
    range: Range<usize>,
    part: &Tensor,
) -> Result<Tensor> {
    let all = tensor.dim(dim)?;
    let mut parts = Vec::with_capacity(3);
    // candle reads beyond its storage where it concatenates nothing from the end of a part of it.
    if range.start > 0 {
        parts.push(tensor.narrow(dim, 0, range.start)?);
    }
    parts.push(part.clone());
    if range.end < all {
        parts.push(tensor.narrow(dim, range.end, all - range.end)?);
    }
    Ok(Tensor::cat(&parts, dim)?)
}

fn round_trip_as<T: Element + WithDType>(
    tensor: &Tensor,
    treatment: SideTreatment,
    geometry: &Geometry,
    seed: u64,
) -> Result<RoundTrip> {
    let original = tensor.flatten_all()?.to_vec1::<T>()?;
    if treatment.floor && tensor.dtype() != DType::F32 {
        return RoundTrip::of_noise(rounded_otherwise(&original, geometry.head_dim, seed)?, tensor);
    }
    let (payload, distortion) = treatment.codec.compress_measured(&original, geometry)?;
    if treatment.noise {
        let noisy = add_noise(&original, distortion, geometry.head_dim, seed);
        return RoundTrip::of_noise(noisy, tensor);
    }
    let mut decoded = vec![T::default(); original.len()];
    payload.decompress(geometry, &mut decoded);
    let exact = |packing: &Packing| packing.exact_tokens(geometry.first, geometry.tokens);
    let exact = treatment.codec.packing().map_or(0, exact);
    let (bytes, values) = (payload.stored_bytes() as u64, original.len() as u64);
    let exact = values / geometry.tokens.max(1) as u64 * exact as u64;
    Ok(RoundTrip {
        distortion,
        size: StoredSize { bytes, values, exact },
        tensor: Tensor::from_vec(decoded, tensor.shape(), tensor.device())?,
    })
}

impl RoundTrip {
    /// Of `original` with noise.
    fn of_noise<T: WithDType>(noisy: Noisy<T>, original: &Tensor) -> Result<Self> {
        let Noisy { values, distortion, stored_bytes } = noisy;
        let tensor = Tensor::from_vec(values, original.shape(), original.device())?;
        let (bytes, values) = (stored_bytes as u64, tensor.elem_count() as u64);
        Ok(Self { tensor, distortion, size: StoredSize { bytes, values, exact: 0 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::RotaryPairs;
    use crate::container::{self, Plan, Target, TensorData, TextMap};
    use crate::eval::{Arm, Treatment};
    use crate::whole_file::Existing;
    use candle_core::Device;
    use safetensors::Dtype;

    /// A cache whose layers differ: another base, a part of the head, neighbours, none.
    fn embeddings() -> Vec<RotaryEmbedding> {
        let of = |theta: f32, channels: usize, pairs: RotaryPairs| RotaryEmbedding {
            frequencies: RotaryTable::frequencies_of(theta, channels),
            pairs,
            head_dim: 32,
        };
        vec![
            of(1e4, 32, RotaryPairs::Halves),
            of(1e6, 32, RotaryPairs::Halves),
            of(1e4, 16, RotaryPairs::Neighbours),
            RotaryEmbedding::none(32),
            of(1e4, 32, RotaryPairs::Halves),
        ]
    }

    /// What a file of `kv-compress` gives back is what the evaluation puts back.
    #[test]
    fn files_hold_what_the_evaluation_does() {
        let (heads, tokens, head_dim) = (2, 37, 32);
        let mut state = 1u64;
        let mut values = || -> Vec<f32> {
            let next = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
            };
            (0..heads * tokens * head_dim).map(next).collect()
        };
        let shape = [heads, tokens, head_dim];
        let (mut layers, mut tensors, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for (layer, embedding) in embeddings().iter().enumerate() {
            let [key, value] = [values(), values()];
            for (part, values) in [("key", &key), ("value", &value)] {
                tensors.push(TensorData {
                    name: format!("layer.{layer}.{part}"),
                    dtype: Dtype::F32,
                    shape: shape.to_vec(),
                    data: bytemuck::cast_slice(values).to_vec().into(),
                });
            }
            let [key, value] =
                [key, value].map(|x| Tensor::from_vec(x, shape.as_slice(), &Device::Cpu).unwrap());
            layers.push(LayerKv { key, value });
            let json = serde_json::to_string(embedding).unwrap();
            entries.push(format!(r#"{{"layers":[{layer}],{}"#, &json[1..]));
        }
        let context = CodecContext::new(embeddings(), 64, 0);
        let metadata: TextMap =
            [(container::origin::KEY.into(), format!(r#"{{"rotary":[{}]}}"#, entries.join(",")))]
                .into();
        let folder = tempfile::tempdir().unwrap();
        let [source, packed] = ["source", "packed"].map(|name| folder.path().join(name));
        container::write_file(&source, &tensors, Some(metadata)).unwrap();
        for name in [
            "kvgauge4",
            "int4-g64-prerope",
            "k:int3-g8-ch-prerope-ctr-sink2/v:q8_0",
            "kvgauge4+k:int4-g64-prerope/v:f16@1,-1+q8_0@3",
        ] {
            let treatment: Treatment = name.parse().unwrap();
            let mut outcome = CodecWindow::default();
            let arm = Arm::of(treatment.clone()).on(layers.len()).unwrap();
            let through = |layer| round_trip(layer, &arm, &context, 0, &mut outcome).unwrap();
            let evaluated: Vec<LayerKv> = layers.iter().map(through).collect();
            let target = Target { path: &packed, existing: Existing::Replace, sync: false };
            let plan = Plan::all(treatment.as_codec().unwrap());
            let made = container::compress(&source, Some(target), &plan, &()).unwrap();
            let file = container::read_file(&packed).unwrap();
            for (index, layer) in evaluated.iter().enumerate() {
                for (part, tensor) in [("key", &layer.key), ("value", &layer.value)] {
                    let expected = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    let found = file.get_tensor_f32(&format!("layer.{index}.{part}")).unwrap();
                    assert!(found == expected, "{name}: layer {index} {part}");
                }
            }
            let stored: u64 = made.tensors.iter().map(|tensor| tensor.stored_bytes).sum();
            assert_eq!(stored, outcome.stored_bytes, "{name}");
        }
    }
}
