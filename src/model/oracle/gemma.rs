//! Gemma 2 and 3.

use super::abilities::{ALL, Abilities, Factors, NO_BIAS, Parts, Windows};
use super::{Module, Pass};
use crate::model::{NormKind, QkNorm, architectures};
use candle_core::Result;
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma2, gemma3};

const GEMMA: Abilities = Abilities {
    block: architectures::gemma2::BLOCK,
    norm: NormKind::RmsPlusOne,
    any_head_dim: true,
    biases: &[NO_BIAS, ALL],
    // It takes query_pre_attn_scalar and does not look at it.
    factors: Factors::Gemma,
    softcaps: true,
    always_tied: true,
    ..Abilities::LLAMA
};

pub(super) const GEMMA2: Module = Module {
    name: "gemma2",
    // Its window is every layer's, where the model's is every second one's.
    abilities: Abilities { windows: Windows::Same, ..GEMMA },
    build: build_gemma2,
    unusable: None,
};

pub(super) const GEMMA3: Module = Module {
    name: "gemma3",
    abilities: Abilities {
        qk_norm: QkNorm::Head,
        windows: Windows::AllButEvery,
        // Its cache refuses values of several heads, which are not contiguous.
        several_kv_heads: false,
        ..GEMMA
    },
    build: build_gemma3,
    unusable: None,
};

fn build_gemma2(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let theirs = gemma2::Config {
        attention_bias: attention.bias.qkv,
        head_dim: attention.head_dim,
        hidden_activation: parts.their_activation(),
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_attention_heads: attention.heads,
        num_hidden_layers: config.layers.len(),
        num_key_value_heads: attention.kv_heads,
        rms_norm_eps: config.norm.eps,
        rope_theta: parts.theta(false),
        vocab_size: config.vocab_size,
        final_logit_softcapping: config.logit_softcap.map(f64::from),
        attn_logit_softcapping: attention.softcap.map(f64::from),
        query_pre_attn_scalar: attention.head_dim,
        sliding_window: parts.window(),
        max_position_embeddings: parts.context,
    };
    let empty = gemma2::Model::new(false, &theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}

fn build_gemma3(parts: &Parts, weights: VarBuilder<'static>) -> Result<Pass> {
    let (config, attention) = (parts.config, parts.attention());
    let theirs = gemma3::Config {
        attention_bias: attention.bias.qkv,
        head_dim: attention.head_dim,
        hidden_activation: parts.their_activation(),
        hidden_size: config.hidden_size,
        intermediate_size: parts.intermediate_size(),
        num_attention_heads: attention.heads,
        num_hidden_layers: config.layers.len(),
        num_key_value_heads: attention.kv_heads,
        rms_norm_eps: config.norm.eps,
        rope_theta: parts.theta(false),
        rope_local_base_freq: parts.theta(true),
        vocab_size: config.vocab_size,
        final_logit_softcapping: config.logit_softcap.map(f64::from),
        attn_logit_softcapping: attention.softcap.map(f64::from),
        query_pre_attn_scalar: attention.head_dim,
        sliding_window: parts.window_or_all(),
        sliding_window_pattern: parts.full_every().unwrap_or(1),
        max_position_embeddings: parts.context,
    };
    let empty = gemma3::Model::new(false, &theirs, weights)?;
    Ok(Box::new(move |ids| empty.clone().forward(ids, 0)))
}
