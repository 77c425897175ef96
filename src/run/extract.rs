//! A model's KV cache on a text, as a safetensors file: something to compress.

use crate::codec::{Element, RotaryEmbedding};
use crate::container::{self, TensorData, TextMap};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::model::source::{ModelWeights, Provenance};
use crate::run::load::choose;
use crate::run::subject::{SharedInputs, Stages, Subject};
use crate::settings::{FloatType, Settings};
use candle_core::DType;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Serialize;

/// One window's cache, in memory.
pub struct Extraction {
    /// `layer.{i}.key` and `layer.{i}.value`, each [kv_heads, tokens, head_dim]: keys after
    /// RoPE, in the Hugging Face channel order.
    pub tensors: Vec<TensorData<'static>>,
    /// Where the cache comes from.
    pub origin: Origin,
    /// Values beyond the dtype's range, stored as its largest finite one.
    pub saturated: usize,
}

/// Where a cache comes from; the file's metadata entry `kvgauge.extract`, as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    /// The model's identity.
    pub model: Provenance,
    /// The text as asked for.
    pub text: String,
    /// SHA-256 of its bytes, hex.
    pub text_sha256: String,
    /// Left out where it is the default, true.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub parse_special: bool,
    /// Tokens of a window.
    pub context: usize,
    /// Index of the window, from 0.
    pub window: usize,
    /// Tokens in the cache.
    pub tokens: usize,
    /// The token that replaced the window's first.
    pub bos_id: Option<u32>,
    /// Number of layers.
    pub layers: usize,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// The rotary embedding of every layer's keys, where it is the same in all and turns the whole
    /// head in halves: radians a position, one for channels i and i + head_dim / 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_frequencies: Option<Vec<f32>>,
    /// The rotary embeddings of other models' keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rotary: Vec<RotaryOfLayers>,
    /// Type of the file's values.
    pub dtype: Dtype,
}

/// A rotary embedding, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RotaryOfLayers {
    /// Indices of the layers.
    pub layers: Vec<usize>,
    /// What turns their keys.
    #[serde(flatten)]
    pub embedding: RotaryEmbedding,
}

/// Layers that share an embedding together, in the order of their first.
fn by_embedding(layers: Vec<RotaryEmbedding>) -> Vec<RotaryOfLayers> {
    let mut distinct: Vec<RotaryOfLayers> = Vec::new();
    for (layer, embedding) in layers.into_iter().enumerate() {
        match distinct.iter_mut().find(|known| known.embedding == embedding) {
            Some(known) => known.layers.push(layer),
            None => distinct.push(RotaryOfLayers { layers: vec![layer], embedding }),
        }
    }
    distinct
}

/// The cache of the first `tokens` tokens (all, if `None`) of window `settings.first_window`,
/// computed with `settings.dtype` and given as `dtype`.
pub fn run(
    settings: &Settings,
    tokens: Option<usize>,
    dtype: FloatType,
    hub: &Hub,
    stages: &mut dyn Stages,
) -> Result<Extraction> {
    let device = settings.device.open()?;
    let subject = Subject::open(
        settings,
        hub,
        &mut SharedInputs::default(),
        stages,
        |_, context| match tokens {
            Some(found) if !(1..=context).contains(&found) => Err(Error::input(format!(
                "--tokens: expected 1 to {context}, the tokens of a window, found {found}"
            ))
            .hint("leave --tokens out for the whole window")),
            _ => Ok(()),
        },
    )?;
    let tokens = tokens.unwrap_or(subject.context);
    stages.stage("opening the weights");
    let choice = choose(settings, &subject.model)?;
    let ModelWeights { weights, provenance, .. } = subject.model.weights()?;
    stages.stage("loading the weights");
    let config = &subject.model.config;
    let model = choice.load(settings, &subject.model, weights.as_ref(), &device, stages)?;
    let model = model.for_context(subject.context);
    stages.stage("computing the cache");
    let mut cache = model.empty_cache();
    model.forward(&subject.windows[0].tokens()[..tokens], &mut cache)?;

    let (dtype, pack): (Dtype, Pack) = match dtype {
        FloatType::F32 => (Dtype::F32, bytes_of::<f32>),
        FloatType::F16 => (Dtype::F16, bytes_of::<f16>),
        FloatType::Bf16 => (Dtype::BF16, bytes_of::<bf16>),
    };
    let (mut tensors, mut saturated) = (Vec::new(), 0);
    for (index, layer) in cache.layers().enumerate() {
        for (part, tensor) in [("key", &layer.key), ("value", &layer.value)] {
            let name = format!("layer.{index}.{part}");
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            if !f32::absmax(&values).is_finite() {
                return Err(Error::not_finite(format!(
                    "{name}: expected finite numbers, found others"
                ))
                .hint("are these weights what their author published?"));
            }
            if dtype == Dtype::F16 {
                saturated += values.iter().filter(|x| x.abs() > f16::MAX.to_f32()).count();
            }
            let (shape, data) = (tensor.dims().to_vec(), pack(values).into());
            tensors.push(TensorData { name, dtype, shape, data });
        }
    }
    let mut rotary = by_embedding(model.rotary_embeddings());
    let mut rope_frequencies = None;
    if let [RotaryOfLayers { embedding, .. }] = rotary.as_slice()
        && *embedding == RotaryEmbedding::halves(&embedding.frequencies)
    {
        rope_frequencies = Some(embedding.frequencies.clone());
        rotary.clear();
    }
    let origin = Origin {
        model: provenance,
        text: subject.text.source.clone(),
        text_sha256: subject.text.sha256.clone(),
        parse_special: settings.parse_special,
        context: subject.context,
        window: settings.first_window,
        tokens,
        bos_id: subject.bos,
        layers: config.layers.len(),
        kv_heads: config.kv_heads(),
        head_dim: config.head_dim(),
        rope_frequencies,
        rotary,
        dtype,
    };
    Ok(Extraction { tensors, origin, saturated })
}

impl Extraction {
    /// Writes the file, whole or not at all.
    pub fn write(&self, target: container::Target) -> Result<()> {
        let origin =
            serde_json::to_string(&self.origin).map_err(|e| Error::system(e.to_string()))?;
        let metadata: TextMap = [(container::origin::KEY.to_string(), origin)].into();
        container::write_tensors(target, &self.tensors, Some(metadata))
    }
}

/// Values as the bytes of one float type.
type Pack = fn(Vec<f32>) -> Vec<u8>;

fn bytes_of<T: Element>(values: Vec<f32>) -> Vec<u8> {
    let mut out = vec![T::default(); values.len()];
    T::narrow_saturating(&values, &mut out);
    bytemuck::cast_slice(&out).to_vec()
}
