//! The proof for `--cross-check`: candle-transformers' own Llama on the same weights.

use super::{LayerConfig, MlpConfig, ModelConfig, RopeScaling, Weights};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use candle_transformers::models::llama as theirs;

/// The weight sources the oracle can read from.
pub type WeightsRef = std::sync::Arc<dyn Weights + Send + Sync>;

/// candle-transformers' Llama in f32 on the CPU.
pub struct Oracle {
    model: theirs::Llama,
    /// Without tokens: every pass starts from a copy.
    empty: theirs::Cache,
}

impl Oracle {
    /// A model that candle-transformers' configuration cannot express is an error.
    pub fn load(config: &ModelConfig, weights: WeightsRef) -> Result<Self> {
        let config = oracle_config(config)?;
        let builder = var_builder(weights);
        let empty = theirs::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
        Ok(Self { model: theirs::Llama::load(builder, &config)?, empty })
    }

    /// Logits `[vocab]` after the last of `tokens`, which start at position 0.
    pub fn last_logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let ids = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        Ok(self.model.forward(&ids, 0, &mut self.empty.clone())?.squeeze(0)?.to_vec1()?)
    }
}

fn oracle_config(config: &ModelConfig) -> Result<theirs::Config> {
    if config.architecture != "LlamaForCausalLM" && config.architecture != "MistralForCausalLM" {
        return Err(Error::unsupported(format!(
            "--cross-check: there is no second implementation of {} here",
            config.architecture
        ))
        .hint("run without --cross-check"));
    }
    let LayerConfig { attention, mlp } = &config.layers[0];
    let MlpConfig::Gated(mlp) = mlp else {
        return Err(Error::unsupported("--cross-check: candle-transformers' Llama has no experts"));
    };
    let cannot = |what: &str| {
        Error::input(format!("--cross-check: candle-transformers' Llama has no {what}"))
            .hint("run without --cross-check")
    };
    if attention.head_dim * attention.heads != config.hidden_size {
        return Err(cannot("head_dim apart from hidden_size / heads"));
    }
    if attention.bias.qkv || attention.bias.output || mlp.bias {
        return Err(cannot("biases"));
    }
    let rope_scaling = match &config.rotary[0].scaling {
        RopeScaling::None => None,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            Some(theirs::Llama3RopeConfig {
                factor: *factor,
                low_freq_factor: *low_freq_factor,
                high_freq_factor: *high_freq_factor,
                original_max_position_embeddings: *original_context,
                rope_type: theirs::Llama3RopeType::Llama3,
            })
        }
        RopeScaling::Linear { .. } => return Err(cannot("linear RoPE scaling")),
        RopeScaling::Divisors(_) => return Err(cannot("RoPE divisors from a file")),
        _ => return Err(cannot("this scaling of RoPE")),
    };
    Ok(theirs::Config {
        hidden_size: config.hidden_size,
        intermediate_size: mlp.intermediate_size,
        vocab_size: config.vocab_size,
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        num_key_value_heads: attention.kv_heads,
        use_flash_attn: false,
        rms_norm_eps: config.norm.eps,
        rope_theta: config.rotary[0].theta,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling,
        max_position_embeddings: config.max_position_embeddings,
        tie_word_embeddings: config.tie_word_embeddings,
    })
}

/// Our weights for any of candle-transformers' models whose tensors have Llama's names.
pub fn var_builder(weights: WeightsRef) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Backend(weights)), DType::F32, Device::Cpu)
}

/// Serves our weights under the names candle asks for, which are Hugging Face's.
struct Backend(WeightsRef);

impl SimpleBackend for Backend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.0.tensor(name, shape.dims()).map_err(candle_core::Error::wrap)?;
        tensor.to_dtype(dtype)?.to_device(device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("tensor {name}: asked for without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
