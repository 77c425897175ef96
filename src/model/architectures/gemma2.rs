//! Gemma 2 (Gemma Team 2024, arXiv 2408.00118).
//!
//! ```text
//! x = √hidden · embed(tokens)
//! each layer:  x += norm(o(attend(rope(q), rope(k), v)))    q, k, v of norm(x)
//!              x += norm(down(gelu(gate) · up))             gate, up of norm(x)
//! logits = softcap(head(norm(x)))
//! ```
//! Norms multiply by 1 + w; scores have a softcap; every second layer slides.

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, hf, key};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::{Defaults, Sizes};
use crate::model::config::{
    Activation, AttentionConfig, BlockConfig, LayerConfig, MlpConfig, ModelConfig, NormConfig,
    NormKind,
};

pub(super) const GEMMA2: Architecture =
    Architecture { gguf: Some("gemma2"), ..Architecture::new("Gemma2ForCausalLM", "gemma2", read) };

/// Four norms a layer.
pub(in crate::model) const BLOCK: BlockConfig = BlockConfig {
    before_attention: Some("input_layernorm"),
    after_attention: Some("post_attention_layernorm"),
    before_mlp: Some("pre_feedforward_layernorm"),
    after_mlp: Some("post_feedforward_layernorm"),
    parallel: false,
};

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults {
        kv_heads: Some(4),
        head_dim: Some(256),
        tied: true,
        ..Defaults::NONE
    })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let softcap = key("attn_logit_softcapping", "attn_logit_softcapping");
    let softcap = keys.number(softcap)?.or_absent(Some(50.0)).map(|cap| cap as f32);
    let window = keys
        .count(key("sliding_window", "attention.sliding_window"))?
        .or_absent(Some(4096))
        .filter(|window| *window > 0);
    let attention = AttentionConfig {
        softcap,
        scale: gemma_scale(keys, &sizes, 46)?,
        bias: keys.attention_bias(false)?,
        ..sizes.attention()
    };
    let mlp = MlpConfig::Gated(sizes.mlp(gemma_activation(keys)?));
    let windows = keys.windows(sizes.layers, window, |layer| layer % 2 == 0)?;
    let layers = windows.into_iter().map(|window| LayerConfig {
        attention: AttentionConfig { window, ..attention.clone() },
        mlp: mlp.clone(),
    });
    let softcap = key("final_logit_softcapping", "final_logit_softcapping");
    Ok(ModelConfig {
        norm: NormConfig { kind: NormKind::RmsPlusOne, eps: sizes.eps },
        block: BLOCK,
        embedding_scale: (sizes.hidden_size as f64).sqrt() as f32,
        logit_softcap: keys.number(softcap)?.or_absent(Some(30.0)).map(|cap| cap as f32),
        ..sizes.model(GEMMA2.class, layers.collect(), vec![rotary])
    })
}

/// The config says it; llama.cpp knows the largest model, of `other` layers, by its layers.
pub(super) fn gemma_scale(keys: &Keys, sizes: &Sizes, other: usize) -> Result<f32> {
    let scalar = match keys.is_gguf() {
        true if sizes.layers == other => (sizes.hidden_size / sizes.heads.max(1)) as f64,
        true => sizes.head_dim as f64,
        false => keys.number(hf("query_pre_attn_scalar"))?.or(256.0),
    };
    Ok(scalar.powf(-0.5) as f32)
}

pub(super) fn gemma_activation(keys: &Keys) -> Result<Activation> {
    // transformers 4.38 and older wrote `hidden_act`, which Gemma's code does not look at.
    keys.text(hf("hidden_act"))?;
    match keys.text(hf("hidden_activation"))?.value() {
        None => Ok(Activation::GeluTanh),
        Some(_) => keys.activation("hidden_activation"),
    }
}
