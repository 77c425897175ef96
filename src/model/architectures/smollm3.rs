//! SmolLM 3 (Bakouch et al. 2025): Llama without rotation in every fourth layer.

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, hf};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{AttentionConfig, GatedMlp, LayerConfig, MlpConfig, ModelConfig};

pub(super) const SMOLLM3: Architecture = Architecture {
    gguf: Some("smollm3"),
    permuted: true,
    ..Architecture::new("SmolLM3ForCausalLM", "smollm3", read)
};

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { kv_heads: Some(4), tied: true, ..Defaults::NONE })?;
    let theta = if keys.is_gguf() { 1e4 } else { 2e6 };
    let rules = RotaryRules { theta, ..RotaryRules::PLAIN };
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, rules)?;
    // llama.cpp knows no other than the default.
    let every = keys.count(hf("no_rope_layer_interval"))?.or(4).max(1);
    let rotates = keys
        .flags_by_layer(hf("no_rope_layers"), sizes.layers)?
        .or((1..=sizes.layers).map(|layer| !layer.is_multiple_of(every)).collect());
    let used = keys.flag(hf("use_sliding_window"))?.or(false);
    let window = keys.count(hf("sliding_window"))?.value();
    let windows = keys.windows(sizes.layers, window, |layer| used && !rotates[layer])?;
    let attention = AttentionConfig { bias: keys.attention_bias(false)?, ..sizes.attention() };
    let mlp = GatedMlp { bias: keys.mlp_bias()?, ..sizes.mlp(keys.activation("hidden_act")?) };
    let layers = windows.into_iter().zip(&rotates).map(|(window, rotates)| LayerConfig {
        attention: AttentionConfig { window, rotary: rotates.then_some(0), ..attention.clone() },
        mlp: MlpConfig::Gated(mlp.clone()),
    });
    Ok(sizes.model(SMOLLM3.class, layers.collect(), vec![rotary]))
}
