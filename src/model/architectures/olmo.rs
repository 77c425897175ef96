//! OLMo 2 (OLMo Team 2024, arXiv 2501.00656) and 3: norms stand behind attention and MLP, queries
//! and keys are normed over all heads; three of four layers of OLMo 3 slide, and their rotation is
//! not stretched.
//!
//! ```text
//! each layer:  x += norm(o(attend(rope(norm(q)), rope(norm(k)), v)))    q, k, v of x
//!              x += norm(down(silu(gate) · up))                         gate, up of x
//! ```

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, gguf, key};
use crate::model::config::rotary::{OfLayers, RotaryRules};
use crate::model::config::sizes::{Defaults, Sizes};
use crate::model::config::{
    AttentionConfig, BlockConfig, LayerConfig, MlpConfig, ModelConfig, QkNorm, RotaryConfig,
};

pub(super) const OLMO2: Architecture = Architecture {
    // Both: OLMo 3's files say where layers slide.
    gguf: Some("olmo2"),
    ..Architecture::new("Olmo2ForCausalLM", "olmo2", read_olmo2)
};

pub(super) const OLMO3: Architecture = Architecture::new("Olmo3ForCausalLM", "olmo3", read_olmo3);

pub(in crate::model) const BLOCK: BlockConfig = BlockConfig {
    before_attention: None,
    after_attention: Some("post_attention_layernorm"),
    before_mlp: None,
    after_mlp: Some("post_feedforward_layernorm"),
    parallel: false,
};

fn read_olmo2(keys: &Keys) -> Result<ModelConfig> {
    if keys.is_gguf() {
        return read_olmo3(keys);
    }
    let sizes = keys.sizes(Defaults { eps: 1e-5, ..Defaults::NONE })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let windows = vec![None; sizes.layers];
    model(keys, &sizes, OLMO2.class, windows, vec![rotary])
}

fn read_olmo3(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { eps: 1e-5, ..Defaults::NONE })?;
    let context = sizes.max_position_embeddings;
    let theta = if keys.is_gguf() { 1e4 } else { 5e5 };
    let rules = RotaryRules { theta, ..RotaryRules::PLAIN };
    let full = keys.rotary_of(sizes.head_dim, context, rules, Some(OfLayers::FULL))?;
    let own = gguf("rope.freq_base_swa");
    let gguf_theta = match keys.number(own)?.value() {
        Some(_) => own,
        None => OfLayers::FULL.gguf_theta,
    };
    let sliding =
        OfLayers { kind: "sliding_attention", scaled: false, gguf_theta, ..OfLayers::FULL };
    let sliding = keys.rotary_of(sizes.head_dim, context, rules, Some(sliding))?;
    let window = keys
        .count(key("sliding_window", "attention.sliding_window"))?
        .or_absent(Some(4096).filter(|_| !keys.is_gguf()))
        .filter(|window| *window > 0);
    let windows = keys.windows(sizes.layers, window, |layer| !(layer + 1).is_multiple_of(4))?;
    let class = if window.is_some() { OLMO3.class } else { OLMO2.class };
    model(keys, &sizes, class, windows, vec![full, sliding])
}

/// Layers that slide have the last of the rotary embeddings.
fn model(
    keys: &Keys,
    sizes: &Sizes,
    class: &str,
    windows: Vec<Option<usize>>,
    rotary: Vec<RotaryConfig>,
) -> Result<ModelConfig> {
    let attention = AttentionConfig {
        qk_norm: QkNorm::AllHeads,
        bias: keys.attention_bias(false)?,
        ..sizes.attention()
    };
    let mlp = MlpConfig::Gated(sizes.mlp(keys.activation("hidden_act")?));
    let last = rotary.len() - 1;
    let layers = windows.into_iter().map(|window| LayerConfig {
        attention: AttentionConfig {
            window,
            rotary: Some(if window.is_some() { last } else { 0 }),
            ..attention.clone()
        },
        mlp: mlp.clone(),
    });
    let model = sizes.model(class, layers.collect(), rotary);
    Ok(ModelConfig { block: BLOCK, ..model })
}
