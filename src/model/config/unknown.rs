//! Keys of other architectures in a config or a header: forks write the class that loads and
//! leave in what makes their model another one. A key that the architecture did not ask for is
//! refused where it is known to change numbers (configs, which are full of keys that do not) or
//! where it is not known at all (GGUF headers). A value that changes nothing may stay.

use super::keys::{Format, GgufMetadata, Keys, described};
use super::{IN_PYTHON, ModelConfig, short};
use crate::error::{Error, Result};
use crate::gguf_value::number;
use candle_core::quantized::gguf_file;
use serde_json::Value;

/// null, false, 0, or an empty list.
const OFF: [&str; 42] = [
    "add_cross_attention",
    "alibi",
    "attention_chunk_size",
    "attention_sinks",
    "attn_logit_softcapping",
    "attn_output_gate",
    "attn_soft_cap",
    "attn_temperature_tuning",
    "clip_qkv",
    "dim_model_base",
    "final_logit_softcapping",
    "is_encoder_decoder",
    "kv_lora_rank",
    "linear_num_key_heads",
    "llama_4_scaling_beta",
    "logits_soft_cap",
    "mamba_d_state",
    "moe_layer_freq",
    "moe_num_experts",
    "n_routed_experts",
    "no_rope_layer_interval",
    "num_experts",
    "num_kv_shared_layers",
    "num_local_experts",
    "parallel_attn",
    "parallel_residual",
    "q_lora_rank",
    "qk_layernorm",
    "qk_norm",
    "rope_interleave",
    "rope_interleaved",
    "rope_local_base_freq",
    "router_logit_softcapping",
    "scale_depth",
    "scale_embedding",
    "scale_embeddings",
    "shared_expert_intermediate_size",
    "use_alibi",
    "use_bidirectional_attention",
    "use_parallel_residual",
    "use_qk_layernorm",
    "use_qk_norm",
];

/// null or 1.
const ONE: [&str; 15] = [
    "attention_out_multiplier",
    "embedding_multiplier",
    "embedding_scale",
    "key_multiplier",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "residual_multiplier",
    "residual_scale",
    "rope_ratio",
    "rope_scaling_factor",
    "rotary_pct",
    "rotary_percent",
    "scale_emb",
];

/// GGUF keys that change nothing: YaRN alone reads the two of RoPE's.
const HARMLESS: [&str; 6] = [
    "attention.layer_norm_epsilon",
    "pooling_type",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
    "vocab_size",
];

/// GGUF's factors whose 1 changes nothing.
const FACTORS: [&str; 4] =
    ["attention.output_scale", "embedding_scale", "logit_scale", "residual_scale"];

/// Refuses what changes the numbers of a model of this architecture, and was not asked for.
pub(super) fn refuse(keys: &Keys, config: &ModelConfig) -> Result<()> {
    match &keys.format {
        Format::Hf { place, config: json } => {
            for (key, value) in *json {
                if !keys.was_read(key) {
                    refuse_hf(place, key, value, config)?;
                }
            }
            Ok(())
        }
        Format::Gguf { architecture, metadata, .. } => {
            refuse_gguf(keys, architecture, metadata, config)
        }
    }
}

fn refuse_hf(place: &str, key: &str, value: &Value, config: &ModelConfig) -> Result<()> {
    let one = |value: &Value| value.is_null() || value.as_f64() == Some(1.0);
    let near = |value: &Value, expected: f64| {
        value.is_null() || value.as_f64().is_some_and(|found| (found / expected - 1.0).abs() < 1e-6)
    };
    let silu = |value: &Value| value.is_null() || value == "silu";
    let head_dim = config.layers[0].attention.head_dim as f64;
    let expected = match key {
        name if OFF.contains(&name) && !is_off(value) => "no such key".to_string(),
        name if ONE.contains(&name) && !one(value) => "1".to_string(),
        "attention_multiplier" if !near(value, head_dim.powf(-0.5)) => {
            format!("{}", head_dim.powf(-0.5))
        }
        "query_pre_attn_scalar" if !near(value, head_dim) => format!("{head_dim}"),
        "hidden_act" | "hidden_activation" | "activation_function" if !silu(value) => {
            "silu".to_string()
        }
        "is_causal" if value == &Value::Bool(false) => "true".to_string(),
        "use_sliding_window" if !is_off(value) => "false".to_string(),
        // 1 where a layer rotates.
        "no_rope_layers" if !all(value, |one| one.as_f64() == Some(1.0)) => {
            "1 for every layer".to_string()
        }
        "layer_types" if !all(value, |kind| kind == "full_attention") => {
            "full_attention in every layer".to_string()
        }
        "position_embedding_type" if !(value.is_null() || value == "rope" || value == "rotary") => {
            "rope".to_string()
        }
        _ => return Ok(()),
    };
    Err(Error::unsupported(format!(
        "{place}: {key}: expected {expected} in a {}, found {}",
        config.architecture,
        short(value)
    ))
    .hint(format!(
        "a model with it gives other numbers than the {} that kvgauge computes: {IN_PYTHON} runs \
         it as transformers does",
        config.architecture
    )))
}

/// Every key of the architecture is understood, or says nothing.
fn refuse_gguf(
    keys: &Keys,
    architecture: &str,
    metadata: &GgufMetadata,
    config: &ModelConfig,
) -> Result<()> {
    let prefix = format!("{architecture}.");
    let mut own: Vec<_> = metadata
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?, value)))
        .collect();
    own.sort_unstable_by_key(|(key, _)| *key);
    for (name, value) in own {
        // Of the half that sees or hears.
        let other_half = ["vision.", "mm.", "audio."].iter().any(|half| name.starts_with(half));
        if keys.was_read(name) || HARMLESS.contains(&name) || other_half {
            continue;
        }
        let found = number(value);
        let head_dim = config.layers[0].attention.head_dim;
        let scale = (head_dim as f64).powf(-0.5);
        let says_nothing = match name {
            "attention.causal" => found == Some(1.0),
            "attention.scale" => found.is_some_and(|x| x == 0.0 || (x / scale - 1.0).abs() < 1e-6),
            _ if FACTORS.contains(&name) => found.is_some_and(|x| x == 0.0 || x == 1.0),
            // RoPE's others are refused whatever they say: what 0 means is the key's own.
            "rope.scaling.attn_factor" | "rope.scaling.yarn_attn_factor" => found == Some(1.0),
            "rope.scaling.yarn_log_multiplier" | "rope.scaling.yarn_ext_factor" => {
                found == Some(0.0)
            }
            _ if name.starts_with("rope.") => false,
            _ => {
                found == Some(0.0)
                    || matches!(value, gguf_file::Value::Array(values) if values.is_empty())
            }
        };
        if !says_nothing {
            return Err(Error::unsupported(format!(
                "{prefix}{name}: expected no such key in a {}, found {}",
                config.architecture,
                described(value)
            ))
            .hint(other_numbers()));
        }
    }
    Ok(())
}

/// The hint for a model that would be computed as another one.
pub(in crate::model) fn other_numbers() -> String {
    format!(
        "a model with it gives other numbers than the one that kvgauge computes: {IN_PYTHON} \
         measures the model's Hugging Face folder"
    )
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

/// null, or a list of nothing else.
fn all(value: &Value, is: impl Fn(&Value) -> bool) -> bool {
    value.is_null() || value.as_array().is_some_and(|values| values.iter().all(is))
}
