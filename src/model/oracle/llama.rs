//! Llama and what differs from it by biases, windows, norms of queries and keys, or layers
//! without RoPE.

use super::abilities::{ALL, Abilities, NO_BIAS, Parts, QKV, RotaryAbilities, Windows};
use super::{Module, Pass};
use crate::model::{QkNorm, RopeScaling};
use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, mistral, qwen2, qwen3, smol::smollm3};

pub(super) const LLAMA: Module = Module {
    name: "llama",
    abilities: Abilities {
        any_activation: false,
        rotary: RotaryAbilities { llama3: true, ..Abilities::LLAMA.rotary },
        ..Abilities::LLAMA
    },
    build: build_llama,
    unusable: None,
};

pub(super) const MISTRAL: Module = Module {
    name: "mistral",
    abilities: Abilities { any_head_dim: true, windows: Windows::Same, ..Abilities::LLAMA },
    build: build_mistral,
    unusable: None,
};

pub(super) const QWEN2: Module = Module {
    name: "qwen2",
    // Its window is every layer's, whatever max_window_layers says.
    abilities: Abilities { biases: &[QKV], windows: Windows::Same, ..Abilities::LLAMA },
    build: build_qwen2,
    unusable: None,
};

pub(super) const QWEN3: Module = Module {
    name: "qwen3",
    abilities: Abilities {
        any_head_dim: true,
        biases: &[NO_BIAS, ALL],
        qk_norm: QkNorm::Head,
        ..Abilities::LLAMA
    },
    build: build_qwen3,
    unusable: None,
};

pub(super) const SMOLLM3: Module = Module {
    name: "smol::smollm3",
    abilities: Abilities {
        biases: &[NO_BIAS, ALL],
        mlp_bias: true,
        rotary: RotaryAbilities { some_layers: true, ..Abilities::LLAMA.rotary },
        ..Abilities::LLAMA
    },
    build: build_smollm3,
    unusable: None,
};

fn build_llama(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let scaling = parts.rotary(&config.layers[0]).map(|rotary| rotary.scaling);
    let rope_scaling = match scaling {
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        }) => Some(llama::Llama3RopeConfig {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: original_context,
            rope_type: llama::Llama3RopeType::Llama3,
        }),
        _ => None,
    };
    let theirs = llama::Config {
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        vocab_size: config.vocab_size,
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        num_key_value_heads: attention.kv_heads,
        use_flash_attn: false,
        rms_norm_eps: config.norm.eps,
        rope_theta: parts.theta(false) as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling,
        max_position_embeddings: parts.context,
        tie_word_embeddings: config.tie_word_embeddings,
    };
    let empty = llama::Cache::new(true, DType::F32, &theirs, &Device::Cpu)?;
    let model = llama::Llama::load(weights, &theirs)?;
    Ok(Box::new(move |ids| model.forward(ids, 0, &mut empty.clone())))
}

fn build_mistral(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let theirs = mistral::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        head_dim: Some(attention.head_dim),
        num_key_value_heads: attention.kv_heads,
        hidden_act: parts.their_activation(),
        max_position_embeddings: parts.context,
        rms_norm_eps: config.norm.eps,
        rope_theta: parts.theta(false),
        sliding_window: parts.window(),
        use_flash_attn: false,
    };
    let empty = mistral::Model::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_qwen2(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let theirs = qwen2::Config {
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
    };
    let empty = qwen2::ModelForCausalLM::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_qwen3(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let theirs = qwen3::Config {
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
    };
    let empty = qwen3::ModelForCausalLM::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_smollm3(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let rotates = |layer: &crate::model::LayerConfig| layer.attention.rotary.is_some();
    let theirs = smollm3::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        num_key_value_heads: attention.kv_heads,
        max_position_embeddings: parts.context,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: parts.theta(false),
        rms_norm_eps: config.norm.eps,
        hidden_act: parts.their_activation(),
        attention_bias: Some(attention.bias.qkv),
        attention_dropout: None,
        mlp_bias: parts.gated().map(|mlp| mlp.bias),
        sliding_window: None,
        use_sliding_window: None,
        rope_scaling: None,
        bos_token_id: None,
        eos_token_id: None,
        pad_token_id: None,
        max_window_layers: None,
        no_rope_layers: Some(config.layers.iter().map(|l| usize::from(rotates(l))).collect()),
        no_rope_layer_interval: None,
    };
    let empty = smollm3::ModelForCausalLM::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}
