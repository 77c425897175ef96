//! Phi 3, 3.5 and 4 (Abdin et al. 2024, arXiv 2404.14219 and 2412.08905): Llama with q, k, v in one
//! tensor, gate and up in one, LongRoPE, and in the smallest of Phi 4 only part of a head rotated.

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, key};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{AttentionConfig, GatedMlp, LayerConfig, MlpConfig, ModelConfig};

pub(super) const PHI3: Architecture =
    Architecture { gguf: Some("phi3"), ..Architecture::new("Phi3ForCausalLM", "phi3", read) };

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { eps: 1e-5, ..Defaults::NONE })?;
    let rules = RotaryRules {
        any_part: true,
        long_rope_names: &["su", "yarn"],
        original_context: Some(4096),
        ..RotaryRules::PLAIN
    };
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, rules)?;
    // llama.cpp writes it and does not look at it; the model has it.
    let window = keys
        .count(key("sliding_window", "attention.sliding_window"))?
        .value()
        .filter(|window| *window > 0);
    let fused = !keys.has_tensor("blk.0.attn_q.weight");
    let attention = AttentionConfig { window, fused, ..sizes.attention() };
    let mlp = GatedMlp { fused: true, ..sizes.mlp(keys.activation("hidden_act")?) };
    let layer = LayerConfig { attention, mlp: MlpConfig::Gated(mlp) };
    Ok(sizes.model(PHI3.class, vec![layer; sizes.layers], vec![rotary]))
}
