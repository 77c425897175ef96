//! The sizes that every architecture has, and the plainest parts made of them.

use super::keys::{Key, Keys, gguf, hf, key};
use super::{
    Activation, AttentionBias, AttentionConfig, GatedMlp, LayerConfig, ModelConfig, NormConfig,
    NormKind, QkNorm, RotaryConfig,
};
use crate::error::{Error, Result};
use crate::model::config::BlockConfig;

/// Hyperparameters that every architecture has.
#[derive(Debug, Clone)]
pub(in crate::model) struct Sizes {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub eps: f64,
    pub tied: bool,
    pub bos_token_id: Option<u32>,
}

/// transformers' values where a config lacks a key; `None`: the key is needed.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct Defaults {
    pub vocab_size: Option<usize>,
    pub heads: Option<usize>,
    /// As many as query heads where there is none.
    pub kv_heads: Option<usize>,
    /// hidden_size / heads where there is none.
    pub head_dim: Option<usize>,
    pub max_position_embeddings: Option<usize>,
    pub eps: f64,
    pub tied: bool,
    /// Name of ε in both formats.
    pub eps_key: Key,
}

impl Defaults {
    pub const NONE: Self = Self {
        vocab_size: None,
        heads: None,
        kv_heads: None,
        head_dim: None,
        max_position_embeddings: None,
        eps: 1e-6,
        tied: false,
        eps_key: key("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    };
}

impl Keys<'_> {
    pub fn sizes(&self, defaults: Defaults) -> Result<Sizes> {
        let needed = |key: Key, default: Option<usize>| -> Result<usize> {
            let given = self.count(key)?;
            match default {
                Some(default) => Ok(given.or(default)),
                None => given.required(),
            }
        };
        let hidden_size = self.count(key("hidden_size", "embedding_length"))?.required()?;
        let layers = self.count(key("num_hidden_layers", "block_count"))?.required()?;
        // The upper bound is that of every size: a vector of layers is made of it.
        if layers == 0 || layers > 1 << 16 {
            return Err(Error::input(format!(
                "{}: expected 1 to 2^16, found {layers}",
                self.place(key("num_hidden_layers", "block_count"))
            ))
            .hint("no model has such a value: is the file the one its author published?"));
        }
        let heads = needed(key("num_attention_heads", "attention.head_count"), defaults.heads)?;
        let kv_key = key("num_key_value_heads", "attention.head_count_kv");
        let kv_heads = match (self.is_gguf(), defaults.kv_heads) {
            (false, Some(default)) => self.count(kv_key)?.or_absent(Some(default)),
            _ => self.count(kv_key)?.value(),
        };
        let head_dim = match self.is_gguf() {
            true => self.gguf_head_dim()?,
            false => match defaults.head_dim {
                Some(default) => Some(self.count(hf("head_dim"))?.or(default)),
                None => self.count(hf("head_dim"))?.value(),
            },
        };
        let eps = self.number(defaults.eps_key)?;
        Ok(Sizes {
            vocab_size: match self.array_length("tokenizer.ggml.tokens") {
                Some(tokens) => self.count(gguf("vocab_size"))?.or(tokens),
                None => needed(key("vocab_size", "vocab_size"), defaults.vocab_size)?,
            },
            intermediate_size: self
                .count(key("intermediate_size", "feed_forward_length"))?
                .required()?,
            kv_heads: kv_heads.unwrap_or(heads),
            head_dim: head_dim.unwrap_or(hidden_size / heads.max(1)),
            max_position_embeddings: needed(
                key("max_position_embeddings", "context_length"),
                defaults.max_position_embeddings,
            )?,
            eps: if self.is_gguf() { eps.required()? } else { eps.or(defaults.eps) },
            tied: match self.is_gguf() {
                true => !self.has_tensor("output.weight"),
                false => self.flag(hf("tie_word_embeddings"))?.or(defaults.tied),
            },
            bos_token_id: self.bos_token_id(),
            hidden_size,
            layers,
            heads,
        })
    }

    fn gguf_head_dim(&self) -> Result<Option<usize>> {
        let head_dim = self.count(gguf("attention.key_length"))?.value();
        let values = self.count(gguf("attention.value_length"))?.value();
        if let (Some(expected), Some(found)) = (head_dim, values)
            && found != expected
        {
            return Err(Error::unsupported(format!(
                "{}: expected {expected} (value heads as wide as key heads), found {found}",
                self.place(gguf("attention.value_length"))
            ))
            .hint(super::unknown::other_numbers()));
        }
        Ok(head_dim.or(values))
    }

    /// A list of several ids has no single first token: leave it to the tokenizer.
    fn bos_token_id(&self) -> Option<u32> {
        match self.count(hf("bos_token_id")) {
            Ok(given) => given.value().and_then(|id| id.try_into().ok()),
            Err(_) => None,
        }
    }

    /// The gate's activation, in a config under `name`.
    pub fn activation(&self, name: &'static str) -> Result<Activation> {
        let text = self.text(hf(name))?.value();
        Ok(match text.as_deref() {
            None | Some("silu" | "swish") => Activation::Silu,
            Some("gelu") => Activation::Gelu,
            Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "{}: expected silu, gelu, gelu_pytorch_tanh or relu, found {other}",
                    self.place(hf(name))
                ))
                .hint(super::unknown::other_numbers()));
            }
        })
    }

    /// q, k and v by the config's `attention_bias`, o likewise; a GGUF file shows them.
    pub fn attention_bias(&self, default: bool) -> Result<AttentionBias> {
        if self.is_gguf() {
            return Ok(AttentionBias {
                qkv: self.has_tensor("blk.0.attn_q.bias") || self.has_tensor("blk.0.attn_qkv.bias"),
                output: self.has_tensor("blk.0.attn_output.bias"),
            });
        }
        let bias = self.flag(hf("attention_bias"))?.or(default);
        Ok(AttentionBias { qkv: bias, output: bias })
    }
}

impl Sizes {
    /// Attention to everything before, rotated by the first rotary embedding, without biases or
    /// norms of its own.
    pub fn attention(&self) -> AttentionConfig {
        AttentionConfig {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            // In f64 first, as transformers computes it.
            scale: (self.head_dim as f64).powf(-0.5) as f32,
            softcap: None,
            window: None,
            rotary: Some(0),
            qk_norm: QkNorm::None,
            bias: AttentionBias { qkv: false, output: false },
            fused: false,
            temperature: None,
        }
    }

    /// A gated MLP without biases.
    pub fn mlp(&self, activation: Activation) -> GatedMlp {
        GatedMlp {
            intermediate_size: self.intermediate_size,
            activation,
            bias: false,
            fused: false,
        }
    }

    /// The model of such layers, RMSNorm before attention and MLP, nothing scaled.
    pub fn model(
        &self,
        class: &str,
        layers: Vec<LayerConfig>,
        rotary: Vec<RotaryConfig>,
    ) -> ModelConfig {
        ModelConfig {
            architecture: class.into(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            layers,
            rotary,
            max_position_embeddings: self.max_position_embeddings,
            norm: NormConfig { kind: NormKind::Rms, eps: self.eps },
            block: BlockConfig::NORM_BEFORE,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            tie_word_embeddings: self.tied,
            bos_token_id: self.bos_token_id,
        }
    }
}
