//! Mixtures of experts.

use super::abilities::{ALL, Abilities, ExpertAbilities, NO_BIAS, Parts, QKV, Windows};
use super::{Module, Pass};
use crate::model::{QkNorm, architectures};
use candle_core::{Error, Result};
use candle_nn::VarBuilder;
use candle_transformers::models::{mixtral, qwen2_moe, qwen3_moe};
use serde_json::json;

const QWEN: ExpertAbilities = ExpertAbilities {
    names: architectures::qwen_moe::NAMES,
    shared: false,
    always_normalised: false,
    some_layers: true,
};

pub(super) const MIXTRAL: Module = Module {
    name: "mixtral",
    abilities: Abilities {
        windows: Windows::Same,
        experts: Some(ExpertAbilities {
            names: architectures::mixtral::NAMES,
            shared: false,
            always_normalised: true,
            some_layers: false,
        }),
        ..Abilities::LLAMA
    },
    build: build_mixtral,
    unusable: None,
};

pub(super) const QWEN2_MOE: Module = Module {
    name: "qwen2_moe",
    abilities: Abilities {
        biases: &[QKV],
        windows: Windows::Same,
        experts: Some(ExpertAbilities { shared: true, ..QWEN }),
        ..Abilities::LLAMA
    },
    build: build_qwen2_moe,
    unusable: None,
};

pub(super) const QWEN3_MOE: Module = Module {
    name: "qwen3_moe",
    abilities: Abilities {
        any_head_dim: true,
        biases: &[NO_BIAS, ALL],
        qk_norm: QkNorm::Head,
        experts: Some(QWEN),
        ..Abilities::LLAMA
    },
    build: build_qwen3_moe,
    // With that feature it takes a kernel that is CUDA's alone, on the CPU too.
    unusable: if cfg!(feature = "cuda") {
        Some("built for CUDA does not run on the CPU")
    } else {
        None
    },
};

/// Its configuration has private fields and is made of a config.json.
fn build_mixtral(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let experts = parts.experts();
    let theirs: mixtral::Config = serde_json::from_value(json!({
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": experts.map_or(0, |experts| experts.intermediate_size),
        "num_hidden_layers": config.layers.len(),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "hidden_act": parts.their_activation(),
        "max_position_embeddings": parts.context,
        "rms_norm_eps": config.norm.eps,
        "rope_theta": parts.theta(false),
        "sliding_window": parts.window_or_all(),
        "num_experts_per_tok": experts.map_or(0, |experts| experts.used),
        "num_local_experts": experts.map_or(0, |experts| experts.count),
        "use_flash_attn": false,
    }))
    .map_err(Error::wrap)?;
    let empty = mixtral::Model::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_qwen2_moe(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let experts = parts.experts();
    let theirs = qwen2_moe::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        num_key_value_heads: attention.kv_heads,
        max_position_embeddings: parts.context,
        sliding_window: parts.window_or_all(),
        max_window_layers: 0,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: parts.theta(false),
        rms_norm_eps: config.norm.eps,
        use_sliding_window: parts.window().is_some(),
        hidden_act: parts.their_activation(),
        decoder_sparse_step: parts.experts_every().unwrap_or(1),
        moe_intermediate_size: experts.map_or(0, |experts| experts.intermediate_size),
        shared_expert_intermediate_size: experts.and_then(|experts| experts.shared).unwrap_or(0),
        num_experts_per_tok: experts.map_or(0, |experts| experts.used),
        num_experts: experts.map_or(0, |experts| experts.count),
        norm_topk_prob: experts.is_some_and(|experts| experts.normalised),
    };
    let empty = qwen2_moe::Model::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_qwen3_moe(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let experts = parts.experts();
    let theirs = qwen3_moe::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        head_dim: attention.head_dim,
        attention_bias: attention.bias.qkv,
        num_key_value_heads: attention.kv_heads,
        max_position_embeddings: parts.context,
        sliding_window: None,
        max_window_layers: 0,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: parts.theta(false),
        rms_norm_eps: config.norm.eps,
        use_sliding_window: false,
        hidden_act: parts.their_activation(),
        decoder_sparse_step: parts.experts_every().unwrap_or(1),
        moe_intermediate_size: experts.map_or(0, |experts| experts.intermediate_size),
        num_experts_per_tok: experts.map_or(0, |experts| experts.used),
        num_experts: experts.map_or(0, |experts| experts.count),
        norm_topk_prob: experts.is_some_and(|experts| experts.normalised),
    };
    let empty = qwen3_moe::ModelForCausalLM::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}
