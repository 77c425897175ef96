//! Our weights under the names that candle-transformers asks for.

use crate::model::{ModelConfig, NormKind, Weights};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

/// The weight sources the oracle can read from.
pub type WeightsRef = std::sync::Arc<dyn Weights + Send + Sync>;

const HEAD: &str = "lm_head.weight";
const EMBEDDINGS: &str = "model.embed_tokens.weight";

/// Our weights for a model of candle-transformers, in f32 on the CPU.
pub fn var_builder(config: &ModelConfig, weights: WeightsRef) -> VarBuilder<'static> {
    let backend = Backend {
        weights,
        tied: config.tie_word_embeddings,
        adds_one: config.norm.kind == NormKind::RmsPlusOne,
    };
    VarBuilder::from_backend(Box::new(backend), DType::F32, Device::Cpu)
}

/// The names are Hugging Face's, but for those of the last of [`Backend::read`].
struct Backend {
    weights: WeightsRef,
    /// Whether the head is the embeddings; some modules ask for a head all the same.
    tied: bool,
    /// Whether norms multiply by 1 + w.
    adds_one: bool,
}

impl Backend {
    fn read(&self, name: &str, shape: &[usize]) -> crate::error::Result<Tensor> {
        if name == HEAD && self.tied {
            return self.weights.tensor(EMBEDDINGS, shape);
        }
        if self.adds_one && name.ends_with("norm.weight") {
            // GGUF files hold 1 + w, and candle adds 1. v − 1 is exact in f32, and so (v − 1) + 1
            // is v, for each v that is the rounded 1 + w of an f32 w: from 1/2 on nothing is cut
            // off, and below that such a v is a multiple of 2⁻²⁴.
            return Ok((self.weights.tensor_plus_one(name, shape)? - 1.0)?);
        }
        // Granite's dense MLP as its hybrids have it.
        if let Some(layer) = name.strip_suffix("shared_mlp.input_linear.weight") {
            let [rows, hidden] = shape else {
                return self.weights.tensor(name, shape);
            };
            let half = |part: &str| {
                self.weights.tensor(&format!("{layer}mlp.{part}.weight"), &[rows / 2, *hidden])
            };
            return Ok(Tensor::cat(&[half("gate_proj")?, half("up_proj")?], 0)?);
        }
        if let Some(layer) = name.strip_suffix("shared_mlp.output_linear.weight") {
            return self.weights.tensor(&format!("{layer}mlp.down_proj.weight"), shape);
        }
        self.weights.tensor(name, shape)
    }
}

impl SimpleBackend for Backend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.read(name, shape.dims()).map_err(candle_core::Error::wrap)?;
        tensor.to_dtype(dtype)?.to_device(device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("tensor {name}: asked for without a shape")
    }

    /// Asked of the head alone.
    fn contains_tensor(&self, name: &str) -> bool {
        name != HEAD || !self.tied
    }
}
