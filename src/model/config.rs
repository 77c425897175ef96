//! What a model is: the numbers its weights and its forward pass depend on, from a Hugging Face
//! `config.json` or a GGUF header, checked before any weight is read.

use crate::error::{Error, Result};
use candle_core::quantized::gguf_file::Value;
use serde::Deserialize;
use std::collections::HashMap;

/// Architectures this model code computes exactly; everything else is refused by name.
const SUPPORTED: [&str; 2] = ["LlamaForCausalLM", "MistralForCausalLM"];

#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f32,
    pub rope_scaling: RopeScaling,
    pub tie_word_embeddings: bool,
    /// Biases on q, k, v and o.
    pub attention_bias: AttentionBias,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// Attention over at most this many positions (Mistral); longer windows are refused.
    pub sliding_window: Option<usize>,
    pub bos_token_id: Option<u32>,
}

/// Which attention projections carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionBias {
    pub qkv: bool,
    pub output: bool,
}

/// How RoPE frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// Positions divided by `factor`.
    Linear {
        factor: f32,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, blended between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: usize,
    },
    /// One divisor a frequency, head_dim / 2 of them (GGUF's `rope_freqs.weight`).
    Divisors(Vec<f32>),
}

#[derive(Deserialize)]
struct HfConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f32>,
    rope_scaling: Option<HfRope>,
    /// Where transformers 5 keeps theta and scaling.
    rope_parameters: Option<HfRope>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    sliding_window: Option<usize>,
    partial_rotary_factor: Option<f32>,
    quantization_config: Option<serde_json::Value>,
    bos_token_id: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct HfRope {
    rope_type: Option<String>,
    /// `rope_type`'s old name; transformers 4.43 and later write both where this one was given.
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f32>,
}

impl ModelConfig {
    /// From the bytes of a Hugging Face `config.json`.
    pub fn from_hf(json: &[u8]) -> Result<Self> {
        // The architecture first: another one's config need not even have Llama's fields.
        let any: serde_json::Value = serde_json::from_slice(json).map_err(|e| {
            Error::input(format!("config.json: not valid JSON: {e}"))
                .hint("the file is damaged or cut short: download it again")
        })?;
        let architecture = any["architectures"][0].as_str().unwrap_or("none").to_string();
        check_architecture(&architecture)?;
        // What MistralConfig takes where the key is absent; `null` means no window.
        let mistral = architecture == "MistralForCausalLM";
        let absent = |key: &str| any.get(key).is_none();
        let default_window = (mistral && absent("sliding_window")).then_some(4096);
        let default_kv_heads = (mistral && absent("num_key_value_heads")).then_some(8);
        let hf: HfConfig = serde_json::from_value(any).map_err(|e| {
            Error::input(format!("config.json: {e}"))
                .hint("the fields of a Llama config.json are needed, as transformers writes it")
        })?;
        let refuse =
            |what: String, hint: &str| Err(Error::input(format!("config.json: {what}")).hint(hint));
        if hf.quantization_config.is_some() {
            return refuse(
                "quantization_config: expected float weights, found quantised ones".into(),
                "use the unquantised repository, or a GGUF file",
            );
        }
        if let Some(act) = hf.hidden_act.filter(|act| act != "silu") {
            return refuse(
                format!("hidden_act: expected silu, found {act}"),
                "only silu is Llama's",
            );
        }
        let rope = hf.rope_parameters.or(hf.rope_scaling);
        let part = rope.as_ref().and_then(|rope| rope.partial_rotary_factor);
        if let Some(part) = part.or(hf.partial_rotary_factor).filter(|part| *part != 1.0) {
            return refuse(
                format!("partial_rotary_factor: expected 1, found {part}"),
                "models that rotate part of a head are not supported",
            );
        }
        let rope_theta =
            rope.as_ref().and_then(|rope| rope.rope_theta).or(hf.rope_theta).unwrap_or(10_000.0);
        let attention_bias = hf.attention_bias.unwrap_or(false);
        Self {
            vocab_size: hf.vocab_size,
            hidden_size: hf.hidden_size,
            intermediate_size: hf.intermediate_size,
            layers: hf.num_hidden_layers,
            heads: hf.num_attention_heads,
            kv_heads: hf.num_key_value_heads.or(default_kv_heads).unwrap_or(hf.num_attention_heads),
            head_dim: hf.head_dim.unwrap_or(hf.hidden_size / hf.num_attention_heads.max(1)),
            max_position_embeddings: hf.max_position_embeddings,
            rms_norm_eps: hf.rms_norm_eps,
            rope_theta,
            rope_scaling: rope
                .map_or(Ok(RopeScaling::None), |rope| rope.scaling(hf.max_position_embeddings))?,
            tie_word_embeddings: hf.tie_word_embeddings.unwrap_or(false),
            attention_bias: AttentionBias { qkv: attention_bias, output: attention_bias },
            mlp_bias: hf.mlp_bias.unwrap_or(false),
            sliding_window: hf.sliding_window.filter(|_| mistral).or(default_window),
            // A list of several ids has no single first token: leave it to the tokenizer.
            bos_token_id: hf
                .bos_token_id
                .and_then(|id| id.as_u64())
                .and_then(|id| id.try_into().ok()),
            architecture,
        }
        .checked("config.json")
    }

    /// From a GGUF header. `tensors` tells what only the tensor list knows: tied embeddings,
    /// biases and `rope_freqs.weight` (the values are read with the weights).
    pub fn from_gguf(
        metadata: &HashMap<String, Value>,
        has_tensor: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let header = GgufHeader(metadata);
        let architecture = header.string("general.architecture")?;
        if architecture != "llama" {
            return Err(Error::input(format!(
                "general.architecture: expected llama, found {architecture}"
            ))
            .hint("Llama and Mistral models in GGUF carry the architecture `llama`"));
        }
        if header.integer_or("llama.expert_count", 0)? > 0 {
            return Err(Error::input("llama.expert_count: expected 0, found a mixture of experts")
                .hint("mixtures of experts are not supported"));
        }
        let heads = header.integer("llama.attention.head_count")?;
        let hidden_size = header.integer("llama.embedding_length")?;
        let head_dim =
            header.integer_or("llama.attention.key_length", hidden_size / heads.max(1))?;
        for (key, what) in [
            ("llama.attention.value_length", "value heads as wide as key heads"),
            ("llama.rope.dimension_count", "RoPE over the whole head"),
        ] {
            let found = header.integer_or(key, head_dim)?;
            if found != head_dim {
                return Err(Error::input(format!(
                    "{key}: expected {head_dim} ({what}), found {found}"
                )));
            }
        }
        let vocab_size = match metadata.get("llama.vocab_size") {
            Some(_) => header.integer("llama.vocab_size")?,
            None => match metadata.get("tokenizer.ggml.tokens") {
                Some(Value::Array(tokens)) => tokens.len(),
                _ => return Err(missing("llama.vocab_size")),
            },
        };
        let rope_scaling = header.rope_scaling()?;
        let window = header.integer_or("llama.attention.sliding_window", 0)?;
        Self {
            architecture: "LlamaForCausalLM".into(),
            vocab_size,
            hidden_size,
            intermediate_size: header.integer("llama.feed_forward_length")?,
            layers: header.integer("llama.block_count")?,
            heads,
            kv_heads: header.integer_or("llama.attention.head_count_kv", heads)?,
            head_dim,
            max_position_embeddings: header.integer("llama.context_length")?,
            rms_norm_eps: header.float("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: match metadata.contains_key("llama.rope.freq_base") {
                true => header.float("llama.rope.freq_base")? as f32,
                false => 10_000.0,
            },
            rope_scaling,
            tie_word_embeddings: !has_tensor("output.weight"),
            attention_bias: AttentionBias {
                qkv: has_tensor("blk.0.attn_q.bias"),
                output: has_tensor("blk.0.attn_output.bias"),
            },
            mlp_bias: has_tensor("blk.0.ffn_gate.bias"),
            sliding_window: Some(window).filter(|window| *window > 0),
            bos_token_id: None,
        }
        .checked("GGUF header")
    }

    /// The longest window this model computes as it was trained to.
    pub fn max_context(&self) -> usize {
        self.sliding_window.unwrap_or(usize::MAX).min(self.max_position_embeddings)
    }

    fn checked(self, place: &str) -> Result<Self> {
        let wrong = |what: String| {
            Err(Error::input(format!("{place}: {what}"))
                .hint("no Llama has such a value: is the file the one its author published?"))
        };
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            // The upper bound keeps a product of two of them inside 64 bits.
            if value == 0 || value > 1 << 28 {
                return wrong(format!("{name}: expected 1 to 2^28, found {value}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(format!(
                "num_key_value_heads: expected a divisor of the {} attention heads, found {}",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong(format!(
                "head_dim: expected an even number for RoPE, found {}",
                self.head_dim
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return wrong(format!(
                "rope_theta: expected a positive number, found {}",
                self.rope_theta
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return wrong(format!(
                "rms_norm_eps: expected a positive number, found {}",
                self.rms_norm_eps
            ));
        }
        Ok(self)
    }
}

fn check_architecture(name: &str) -> Result<()> {
    if SUPPORTED.contains(&name) {
        return Ok(());
    }
    Err(Error::input(format!(
        "config.json: architectures: expected LlamaForCausalLM or MistralForCausalLM, found {name}"
    ))
    .hint("kvgauge computes the Llama family only; another model's numbers would be wrong"))
}

impl HfRope {
    fn scaling(&self, max_position_embeddings: usize) -> Result<RopeScaling> {
        let need = |name: &str, value: Option<f32>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(Error::input(format!(
                "config.json: rope_scaling.{name}: expected a positive number, found {value}"
            ))),
            None => Err(Error::input(format!("config.json: rope_scaling.{name}: missing"))),
        };
        let rope_type = self.rope_type.as_deref().or(self.old_type.as_deref());
        Ok(match rope_type.unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need("factor", self.factor)? },
            "llama3" => {
                let (low, high) = (
                    need("low_freq_factor", self.low_freq_factor)?,
                    need("high_freq_factor", self.high_freq_factor)?,
                );
                if low == high {
                    return Err(Error::input(format!(
                        "config.json: rope_scaling: expected high_freq_factor above low_freq_factor, found {high} twice"
                    )));
                }
                RopeScaling::Llama3 {
                    factor: need("factor", self.factor)?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_context: self
                        .original_max_position_embeddings
                        .unwrap_or(max_position_embeddings),
                }
            }
            other => {
                return Err(Error::input(format!(
                    "config.json: rope_scaling.rope_type: expected default, linear or llama3, found {other}"
                ))
                .hint("dynamic, yarn and longrope change with the context and are not supported"));
            }
        })
    }
}

/// Typed reading of GGUF metadata.
struct GgufHeader<'a>(&'a HashMap<String, Value>);

impl GgufHeader<'_> {
    fn get(&self, key: &str) -> Result<&Value> {
        self.0.get(key).ok_or_else(|| missing(key))
    }

    fn string(&self, key: &str) -> Result<String> {
        match self.get(key)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(mistyped(key, "a string", other)),
        }
    }

    fn integer(&self, key: &str) -> Result<usize> {
        let value = self.get(key)?;
        let number = match value {
            Value::I8(n) => u64::try_from(*n).ok(),
            Value::I16(n) => u64::try_from(*n).ok(),
            Value::I32(n) => u64::try_from(*n).ok(),
            Value::I64(n) => u64::try_from(*n).ok(),
            Value::Bool(_) => None,
            other => other.to_u64().ok(),
        };
        number
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| mistyped(key, "a whole number", value))
    }

    fn integer_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.0.contains_key(key) { self.integer(key) } else { Ok(default) }
    }

    /// As llama.cpp reads it: linear unless the type says `none`, the factor under either name,
    /// no factor or 0 for no scaling.
    fn rope_scaling(&self) -> Result<RopeScaling> {
        const TYPE: &str = "llama.rope.scaling.type";
        let kind = match self.0.contains_key(TYPE) {
            true => self.string(TYPE)?,
            false => "linear".into(),
        };
        match kind.as_str() {
            "none" => return Ok(RopeScaling::None),
            "linear" => {}
            other => {
                return Err(Error::input(format!(
                    "{TYPE}: expected none or linear, found {other}"
                ))
                .hint("Llama 3's scaling comes as rope_freqs.weight, which is honoured"));
            }
        }
        let keys = ["llama.rope.scaling.factor", "llama.rope.scale_linear"];
        let Some(key) = keys.into_iter().find(|key| self.0.contains_key(*key)) else {
            return Ok(RopeScaling::None);
        };
        let factor = self.float(key)? as f32;
        match factor {
            0.0 | 1.0 => Ok(RopeScaling::None),
            _ if factor.is_finite() && factor > 0.0 => Ok(RopeScaling::Linear { factor }),
            _ => Err(Error::input(format!("{key}: expected a positive number, found {factor}"))
                .hint("the file is damaged: download or convert it again")),
        }
    }

    fn float(&self, key: &str) -> Result<f64> {
        match self.get(key)? {
            Value::F32(x) => Ok(f64::from(*x)),
            Value::F64(x) => Ok(*x),
            other => Err(mistyped(key, "a float", other)),
        }
    }
}

fn missing(key: &str) -> Error {
    Error::input(format!("GGUF header: {key}: missing"))
        .hint("the file may be cut short, or no language model; download or convert it again")
}

fn mistyped(key: &str, expected: &str, found: &Value) -> Error {
    Error::input(format!("GGUF header: {key}: expected {expected}, found {:?}", found.value_type()))
}
