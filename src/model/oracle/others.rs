//! Phi 3, GLM 4, OLMo 2 and Granite.

use super::abilities::{ALL, Abilities, Factors, NO_BIAS, Parts, QKV, RotaryAbilities};
use super::{Module, Pass};
use crate::codec::RotaryPairs;
use crate::model::{QkNorm, architectures};
use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use candle_transformers::models::{glm4_new, granite, granitemoehybrid, olmo2, phi3};

pub(super) const PHI3: Module = Module {
    name: "phi3",
    abilities: Abilities {
        fused: [true, true],
        rotary: RotaryAbilities {
            part: true,
            long_rope: "computes LongRoPE otherwise than transformers: it multiplies frequencies \
                        by the divisors, changes them within a window, and has no factor of \
                        cosines and sines",
            ..Abilities::LLAMA.rotary
        },
        ..Abilities::LLAMA
    },
    build: build_phi3,
    unusable: None,
};

pub(super) const GLM4: Module = Module {
    name: "glm4_new",
    abilities: Abilities {
        block: architectures::glm4::BLOCK,
        any_head_dim: true,
        biases: &[NO_BIAS, QKV],
        fused: [false, true],
        rotary: RotaryAbilities {
            pairs: RotaryPairs::Neighbours,
            part: true,
            ..Abilities::LLAMA.rotary
        },
        ..Abilities::LLAMA
    },
    build: build_glm4,
    unusable: None,
};

pub(super) const OLMO2: Module = Module {
    name: "olmo2",
    abilities: Abilities {
        block: architectures::olmo::BLOCK,
        qk_norm: QkNorm::AllHeads,
        biases: &[NO_BIAS, ALL],
        ..Abilities::LLAMA
    },
    build: build_olmo2,
    unusable: None,
};

/// A Llama: it leaves out the factors that make Granite.
pub(super) const GRANITE: Module = Module {
    name: "granite",
    abilities: Abilities { any_activation: false, ..Abilities::LLAMA },
    build: build_granite,
    unusable: None,
};

/// Granite 4, whose layers of attention without experts are Granite 3's.
pub(super) const GRANITE_HYBRID: Module = Module {
    name: "granitemoehybrid",
    abilities: Abilities {
        any_activation: false,
        factors: Factors::Any,
        always_tied: true,
        ..Abilities::LLAMA
    },
    build: build_granite_hybrid,
    unusable: None,
};

fn build_phi3(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let part = parts.rotated() != attention.head_dim;
    let theirs = phi3::Config {
        vocab_size: config.vocab_size,
        hidden_act: parts.their_activation(),
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        num_key_value_heads: attention.kv_heads,
        rms_norm_eps: config.norm.eps,
        rope_theta: parts.theta(false),
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: parts.context,
        original_max_position_embeddings: None,
        partial_rotary_factor: part.then(|| share(parts.rotated(), attention.head_dim)),
        tie_word_embeddings: config.tie_word_embeddings,
    };
    let empty = phi3::Model::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

/// A share of a head that candle multiplies by the head and rounds down to `channels` again.
fn share(channels: usize, head_dim: usize) -> f64 {
    (channels as f64 + 0.5) / head_dim as f64
}

fn build_glm4(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let part = parts.rotated() != attention.head_dim;
    let theirs = glm4_new::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        head_dim: Some(attention.head_dim),
        partial_rotary_factor: part.then(|| share(parts.rotated(), attention.head_dim) as f32),
        attention_bias: Some(attention.bias.qkv),
        num_key_value_heads: attention.kv_heads,
        max_position_embeddings: parts.context,
        sliding_window: None,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: parts.theta(false),
        rms_norm_eps: config.norm.eps,
        hidden_act: parts.their_activation(),
        eos_token_id: None,
    };
    let empty = glm4_new::ModelForCausalLM::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_olmo2(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let theirs = olmo2::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        attention_bias: attention.bias.qkv,
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        num_key_value_heads: attention.kv_heads,
        rms_norm_eps: config.norm.eps,
        hidden_act: parts.their_activation(),
        max_position_embeddings: parts.context,
        rope_theta: parts.theta(false),
        tie_word_embeddings: config.tie_word_embeddings,
        clip_qkv: None,
    };
    let empty = olmo2::Model::new(&theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_granite(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let theirs = granite::Config {
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
        rope_scaling: None,
        max_position_embeddings: parts.context,
    };
    let empty = granite::Cache::new(true, DType::F32, &theirs, &Device::Cpu)?;
    let model = granite::Granite::load(weights, &theirs)?;
    Ok(Box::new(move |ids| model.forward(ids, 0, &mut empty.clone())))
}

fn build_granite_hybrid(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    use granitemoehybrid::{
        GraniteMoeHybrid, GraniteMoeHybridCache, GraniteMoeHybridInternalConfig,
        GraniteMoeHybridLayerType,
    };
    let (config, attention) = (parts.config, parts.attention());
    let theirs = GraniteMoeHybridInternalConfig {
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        shared_intermediate_size: parts.intermediate_size(),
        vocab_size: config.vocab_size,
        num_hidden_layers: config.layers.len(),
        num_attention_heads: attention.heads,
        num_key_value_heads: attention.kv_heads,
        use_flash_attn: false,
        rms_norm_eps: config.norm.eps,
        rope_theta: parts.theta(false) as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: parts.context,
        layer_types: vec![GraniteMoeHybridLayerType::Attention; config.layers.len()],
        attention_multiplier: attention.scale,
        embedding_multiplier: config.embedding_scale,
        residual_multiplier: config.residual_scale,
        // It divides by it.
        logits_scaling: 1.0 / config.logit_scale,
    };
    let empty = GraniteMoeHybridCache::new(true, DType::F32, &theirs, &Device::Cpu)?;
    let model = GraniteMoeHybrid::load(weights, &theirs)?;
    Ok(Box::new(move |ids| model.forward(ids, 0, &mut empty.clone())))
}
