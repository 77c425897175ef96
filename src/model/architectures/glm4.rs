//! GLM 4 (GLM Team 2024, arXiv 2406.12793; the 0414 models): norms before and behind, half of a
//! head rotated, neighbouring channels together, gate and up in one tensor.

use super::Architecture;
use crate::codec::RotaryPairs;
use crate::error::Result;
use crate::model::config::keys::Keys;
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{
    AttentionBias, AttentionConfig, BlockConfig, GatedMlp, LayerConfig, MlpConfig, ModelConfig,
};

pub(super) const GLM4: Architecture =
    Architecture { gguf: Some("glm4"), ..Architecture::new("Glm4ForCausalLM", "glm4", read) };

pub(in crate::model) const BLOCK: BlockConfig = BlockConfig {
    before_attention: Some("input_layernorm"),
    after_attention: Some("post_self_attn_layernorm"),
    before_mlp: Some("post_attention_layernorm"),
    after_mlp: Some("post_mlp_layernorm"),
    parallel: false,
};

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults {
        kv_heads: Some(2),
        head_dim: Some(128),
        eps: 1.5625e-7,
        ..Defaults::NONE
    })?;
    let rules = RotaryRules {
        part: 0.5,
        any_part: true,
        pairs: RotaryPairs::Neighbours,
        ..RotaryRules::PLAIN
    };
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, rules)?;
    // The output projection never has one.
    let bias = AttentionBias { output: false, ..keys.attention_bias(true)? };
    let attention = AttentionConfig { bias, ..sizes.attention() };
    let mlp = GatedMlp { fused: true, ..sizes.mlp(keys.activation("hidden_act")?) };
    let layer = LayerConfig { attention, mlp: MlpConfig::Gated(mlp) };
    let model = sizes.model(GLM4.class, vec![layer; sizes.layers], vec![rotary]);
    Ok(ModelConfig { block: BLOCK, ..model })
}
