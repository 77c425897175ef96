//! Gemma 3 (Gemma Team 2025, arXiv 2503.19786): Gemma 2 whose queries and keys are normed by head,
//! without softcap of scores; five of six layers slide, and rotate by a base of their own.

use super::Architecture;
use super::gemma2::{BLOCK, gemma_activation, gemma_scale};
use crate::error::Result;
use crate::model::config::keys::{Keys, gguf, hf, key};
use crate::model::config::rotary::{OfLayers, RotaryRules};
use crate::model::config::sizes::Defaults;
use crate::model::config::{
    AttentionConfig, LayerConfig, MlpConfig, ModelConfig, NormConfig, NormKind, QkNorm,
};

pub(super) const GEMMA3: Architecture = Architecture {
    gguf: Some("gemma3"),
    ..Architecture::new("Gemma3ForCausalLM", "gemma3_text", |keys| read(keys, true))
};

/// The language model of the one that sees.
pub(super) const GEMMA3_TEXT_HALF: Architecture = Architecture {
    text_half: &["gemma3_text"],
    // It has no softcap of logits.
    ..Architecture::new("Gemma3ForConditionalGeneration", "gemma3", |keys| read(keys, false))
};

/// Index of the rotary embedding of layers that attend to everything, and of those that slide.
const FULL: usize = 0;
const SLIDING: usize = 1;

fn read(keys: &Keys, softcap: bool) -> Result<ModelConfig> {
    // Configs of the larger models hold only what differs from these.
    let sizes = keys.sizes(Defaults {
        vocab_size: Some(262_208),
        heads: Some(8),
        kv_heads: Some(4),
        head_dim: Some(256),
        max_position_embeddings: Some(131_072),
        tied: true,
        ..Defaults::NONE
    })?;
    let theta = |gguf: f64, hf: f64| if keys.is_gguf() { gguf } else { hf };
    let context = sizes.max_position_embeddings;
    let full = RotaryRules { theta: theta(1e4, 1e6), ..RotaryRules::PLAIN };
    let full = keys.rotary_of(sizes.head_dim, context, full, Some(OfLayers::FULL))?;
    let sliding = OfLayers {
        kind: "sliding_attention",
        theta: hf("rope_local_base_freq"),
        scaled: false,
        gguf_theta: gguf("rope.freq_base_swa"),
    };
    let sliding = keys.rotary_of(sizes.head_dim, context, RotaryRules::PLAIN, Some(sliding))?;

    let window = keys
        .count(key("sliding_window", "attention.sliding_window"))?
        .or_absent(Some(4096).filter(|_| !keys.is_gguf()))
        .filter(|window| *window > 0);
    let every = keys.count(hf("sliding_window_pattern"))?.or(6).max(1);
    // Written by transformers beside layer_types.
    keys.count(hf("_sliding_window_pattern"))?;
    let slides = |layer: usize| !(layer + 1).is_multiple_of(every);
    let attention = AttentionConfig {
        scale: gemma_scale(keys, &sizes, 62)?,
        bias: keys.attention_bias(false)?,
        qk_norm: QkNorm::Head,
        ..sizes.attention()
    };
    // transformers reads it and does nothing with it.
    keys.number(hf("attn_logit_softcapping"))?;
    let mlp = MlpConfig::Gated(sizes.mlp(gemma_activation(keys)?));
    let layers = keys.windows(sizes.layers, window, slides)?.into_iter().map(|window| {
        let rotary = Some(if window.is_some() { SLIDING } else { FULL });
        LayerConfig {
            attention: AttentionConfig { window, rotary, ..attention.clone() },
            mlp: mlp.clone(),
        }
    });
    let cap = key("final_logit_softcapping", "final_logit_softcapping");
    let cap = keys.number(cap)?.value().filter(|_| softcap).map(|cap| cap as f32);
    Ok(ModelConfig {
        norm: NormConfig { kind: NormKind::RmsPlusOne, eps: sizes.eps },
        block: BLOCK,
        embedding_scale: (sizes.hidden_size as f64).sqrt() as f32,
        logit_softcap: cap,
        ..sizes.model(GEMMA3.class, layers.collect(), vec![full, sliding])
    })
}
