//! Keys of other architectures in a config that says Llama: forks write the class that loads and
//! leave in what makes their model another one. A value that changes nothing may stay.

use super::hf_rope::short;
use super::{IN_PYTHON, ModelConfig};
use crate::error::{Error, Result};
use serde_json::Value;

/// null, false, 0, or an empty list.
const OFF: [&str; 36] = [
    "add_cross_attention",
    "alibi",
    "attention_chunk_size",
    "attention_sinks",
    "attn_logit_softcapping",
    "attn_soft_cap",
    "attn_temperature_tuning",
    "clip_qkv",
    "dim_model_base",
    "final_logit_softcapping",
    "is_encoder_decoder",
    "kv_lora_rank",
    "logits_soft_cap",
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

/// Refuses what changes a Llama's numbers and is no Llama's.
pub fn refuse_unknown(json: &Value, config: &ModelConfig) -> Result<()> {
    let mistral = config.architecture == "MistralForCausalLM";
    let one = |value: &Value| value.is_null() || value.as_f64() == Some(1.0);
    let near = |value: &Value, expected: f64| {
        value.is_null() || value.as_f64().is_some_and(|found| (found / expected - 1.0).abs() < 1e-6)
    };
    let silu = |value: &Value| value.is_null() || value == "silu";
    let head_dim = config.head_dim as f64;
    let keys = json.as_object().into_iter().flatten();
    for (key, value) in keys {
        let expected = match key.as_str() {
            name if OFF.contains(&name) && !is_off(value) => "no such key".to_string(),
            name if ONE.contains(&name) && !one(value) => "1".to_string(),
            "attention_multiplier" if !near(value, head_dim.powf(-0.5)) => {
                format!("{}", head_dim.powf(-0.5))
            }
            "query_pre_attn_scalar" if !near(value, head_dim) => format!("{head_dim}"),
            "hidden_activation" | "activation_function" if !silu(value) => "silu".to_string(),
            "is_causal" if value == &Value::Bool(false) => "true".to_string(),
            "use_sliding_window" if !mistral && !is_off(value) => "false".to_string(),
            // 1 where a layer rotates.
            "no_rope_layers" if !all(value, |one| one.as_f64() == Some(1.0)) => {
                "1 for every layer".to_string()
            }
            // A window no longer than the sliding one is the same under both kinds.
            "layer_types"
                if !all(value, |kind| {
                    kind == "full_attention" || mistral && kind == "sliding_attention"
                }) =>
            {
                "full_attention in every layer".to_string()
            }
            "position_embedding_type"
                if !(value.is_null() || value == "rope" || value == "rotary") =>
            {
                "rope".to_string()
            }
            _ => continue,
        };
        return Err(Error::input(format!(
            "config.json: {key}: expected {expected} in a {}, found {}",
            config.architecture,
            short(value)
        ))
        .hint(format!(
            "a model with it gives other numbers than the Llama that kvgauge computes: {IN_PYTHON} \
             runs it as transformers does"
        )));
    }
    Ok(())
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
