//! A GGUF header's `llama.*` keys.

use super::{AttentionBias, IN_PYTHON, ModelConfig, RopeScaling};
use crate::error::{Error, Result};
use crate::gguf_value::{float, integer, number, string};
use candle_core::quantized::gguf_file::Value;
use std::collections::HashMap;

/// The keys of `llama.*` that are read below, and those that change nothing: YaRN alone reads the
/// two of RoPE's.
const KNOWN: [&str; 22] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "feed_forward_length",
    "pooling_type",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "tensor_data_layout",
    "vocab_size",
];

/// Factors whose 1 changes nothing.
const FACTORS: [&str; 4] =
    ["attention.output_scale", "embedding_scale", "logit_scale", "residual_scale"];

const PREFIX: &str = "llama.";

impl ModelConfig {
    /// From a GGUF header. `tensors` tells what only the tensor list knows: tied embeddings,
    /// biases and `rope_freqs.weight` (the values are read with the weights).
    pub fn from_gguf(
        metadata: &HashMap<String, Value>,
        has_tensor: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let header = Header(metadata);
        let architecture = header.string("general.architecture")?;
        if architecture != "llama" {
            return Err(Error::unsupported(format!(
                "general.architecture: expected llama, found {architecture}"
            ))
            .hint(format!(
                "kvgauge computes Llama and Mistral, which carry the architecture `llama` in \
                 GGUF: {IN_PYTHON} measures the model's Hugging Face folder"
            )));
        }
        if header.integer_or("llama.expert_count", 0)? > 0 {
            return Err(Error::unsupported(
                "llama.expert_count: expected 0, found a mixture of experts",
            )
            .hint(format!(
                "mixtures of experts are not computed: {IN_PYTHON} measures the model's \
                     Hugging Face folder"
            )));
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
                ))
                .hint(other_numbers()));
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
        let config = Self {
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
        .checked("GGUF header")?;
        header.refuse_unknown(config.head_dim)?;
        Ok(config)
    }
}

/// Typed reading of GGUF metadata.
struct Header<'a>(&'a HashMap<String, Value>);

impl Header<'_> {
    fn get(&self, key: &str) -> Result<&Value> {
        self.0.get(key).ok_or_else(|| missing(key))
    }

    fn string(&self, key: &str) -> Result<String> {
        let value = self.get(key)?;
        string(value).map(str::to_string).ok_or_else(|| mistyped(key, "a string", value))
    }

    fn integer(&self, key: &str) -> Result<usize> {
        let value = self.get(key)?;
        integer(value)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| mistyped(key, "a whole number", value))
    }

    fn integer_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.0.contains_key(key) { self.integer(key) } else { Ok(default) }
    }

    fn float(&self, key: &str) -> Result<f64> {
        let value = self.get(key)?;
        float(value).ok_or_else(|| mistyped(key, "a float", value))
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
                let why = match other {
                    "yarn" => {
                        "YaRN's frequencies do not change with the context, but kvgauge \
                               does not compute them yet"
                    }
                    "longrope" => {
                        "longrope has two sets of divisors, for short and for long \
                                   texts, which kvgauge does not compute yet"
                    }
                    _ => {
                        "kvgauge does not compute this scaling (Llama 3's comes as \
                          rope_freqs.weight, which is read)"
                    }
                };
                return Err(Error::input(format!(
                    "{TYPE}: expected none or linear, found {other}"
                ))
                .hint(format!("{why}; {IN_PYTHON} measures the model's Hugging Face folder")));
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
                .hint(AS_CONVERTED)),
        }
    }

    /// Every key of the architecture is understood, or says nothing.
    fn refuse_unknown(&self, head_dim: usize) -> Result<()> {
        let mut keys: Vec<_> = self.0.iter().filter(|(key, _)| key.starts_with(PREFIX)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in keys {
            let name = &key[PREFIX.len()..];
            if KNOWN.contains(&name) {
                continue;
            }
            let found = number(value);
            let scale = (head_dim as f64).powf(-0.5);
            let says_nothing = match name {
                "attention.causal" => found == Some(1.0),
                "attention.scale" => {
                    found.is_some_and(|x| x == 0.0 || (x / scale - 1.0).abs() < 1e-6)
                }
                _ if FACTORS.contains(&name) => found.is_some_and(|x| x == 0.0 || x == 1.0),
                // RoPE's others are refused whatever they say: what 0 means is the key's own.
                "rope.scaling.attn_factor" | "rope.scaling.yarn_attn_factor" => found == Some(1.0),
                "rope.scaling.yarn_log_multiplier" | "rope.scaling.yarn_ext_factor" => {
                    found == Some(0.0)
                }
                _ if name.starts_with("rope.") => false,
                _ => found == Some(0.0) || matches!(value, Value::Array(v) if v.is_empty()),
            };
            if !says_nothing {
                return Err(Error::input(format!(
                    "{key}: expected no such key in a Llama, found {}",
                    described(value)
                ))
                .hint(other_numbers()));
            }
        }
        Ok(())
    }
}

fn other_numbers() -> String {
    format!(
        "a model with it gives other numbers than the Llama that kvgauge computes: {IN_PYTHON} \
         measures the model's Hugging Face folder"
    )
}

fn described(value: &Value) -> String {
    match (number(value), value) {
        (_, Value::Bool(flag)) => flag.to_string(),
        (Some(number), _) => number.to_string(),
        (None, Value::String(text)) => text.chars().take(60).collect(),
        (None, Value::Array(values)) => format!("an array of {}", values.len()),
        (None, other) => format!("{:?}", other.value_type()),
    }
}

const AS_CONVERTED: &str =
    "no converter writes that: convert the model again with a current llama.cpp";

fn missing(key: &str) -> Error {
    Error::input(format!("GGUF header: {key}: missing")).hint(
        "is it a language model? vocabularies, adapters and vision parts are GGUF files too; a \
         Llama's converter writes this key",
    )
}

fn mistyped(key: &str, expected: &str, found: &Value) -> Error {
    let error = Error::input(format!(
        "GGUF header: {key}: expected {expected}, found {:?}",
        found.value_type()
    ));
    match found {
        Value::Array(_) => error.hint(format!(
            "a value for every layer is another architecture than Llama's: {IN_PYTHON} measures \
             the model's Hugging Face folder"
        )),
        _ => error.hint(AS_CONVERTED),
    }
}
