//! Hugging Face's `config.json`.

use super::{AttentionBias, IN_PYTHON, ModelConfig, hf_keys, hf_rope};
use crate::error::{Error, Result};
use crate::model::json;
use serde::Deserialize;

/// Architectures this model code computes exactly, with transformers' name for the kind of
/// config; everything else is refused by name.
const SUPPORTED: [(&str, &str); 2] =
    [("LlamaForCausalLM", "llama"), ("MistralForCausalLM", "mistral")];

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
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    sliding_window: Option<usize>,
    quantization_config: Option<serde_json::Value>,
    bos_token_id: Option<serde_json::Value>,
}

impl ModelConfig {
    /// From the bytes of a Hugging Face `config.json`.
    pub fn from_hf(bytes: &[u8]) -> Result<Self> {
        // The architecture first: another one's config need not even have Llama's fields.
        let any = json::parse("config.json", bytes)?;
        let architecture = any["architectures"][0].as_str().unwrap_or("none").to_string();
        check_architecture(&architecture, &any["model_type"])?;
        // MistralConfig's default where the key is absent; `null` means no window.
        let mistral = architecture == "MistralForCausalLM";
        let absent = |key: &str| any.get(key).is_none();
        let default_window = (mistral && absent("sliding_window")).then_some(4096);
        let default_kv_heads = (mistral && absent("num_key_value_heads")).then_some(8);
        let hf: HfConfig = HfConfig::deserialize(&any).map_err(|e| {
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
        let attention_bias = hf.attention_bias.unwrap_or(false);
        let (rope_theta, rope_scaling) = hf_rope::read(&any, hf.max_position_embeddings)?;
        let config = Self {
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
            rope_scaling,
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
        .checked("config.json")?;
        hf_keys::refuse_unknown(&any, &config)?;
        Ok(config)
    }
}

fn check_architecture(name: &str, model_type: &serde_json::Value) -> Result<()> {
    let refuse = |what: String, hint: String| Err(Error::unsupported(what).hint(hint));
    let Some((_, expected)) = SUPPORTED.iter().find(|(supported, _)| *supported == name) else {
        let hint = match name {
            "none" => "transformers writes the model's class there, for example \
                       \"architectures\": [\"LlamaForCausalLM\"]"
                .to_string(),
            "LlamaModel" | "MistralModel" => {
                "it is a model without a head that predicts tokens: use the repository it was \
                 made from"
                    .to_string()
            }
            _ if ["Mamba", "Rwkv", "FalconMamba"].iter().any(|kind| name.starts_with(kind)) => {
                "it keeps no keys and values: there is no KV cache to compress".to_string()
            }
            _ => format!(
                "kvgauge computes the Llama family only: {IN_PYTHON} measures what transformers \
                 can run"
            ),
        };
        return refuse(
            format!(
                "config.json: architectures: expected LlamaForCausalLM or MistralForCausalLM, \
                 found {name}"
            ),
            hint,
        );
    };
    // transformers goes by it, whatever the architecture says.
    match model_type.as_str() {
        Some(found) if found != *expected => refuse(
            format!("config.json: model_type: expected {expected} for {name}, found {found}"),
            format!(
                "the two contradict each other; if it is a {found} model, {IN_PYTHON} may run it"
            ),
        ),
        _ => Ok(()),
    }
}
