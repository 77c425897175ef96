//! Mixtral (Jiang et al. 2024, arXiv 2401.04088): Mistral with a mixture of experts.

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, hf, key};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{
    AttentionConfig, ExpertNames, Experts, LayerConfig, MlpConfig, ModelConfig,
};

pub(super) const MIXTRAL: Architecture = Architecture {
    gguf: Some("llama"),
    mixture: true,
    permuted: true,
    ..Architecture::new("MixtralForCausalLM", "mixtral", read)
};

pub(in crate::model) const NAMES: ExpertNames = ExpertNames {
    router: "block_sparse_moe.gate",
    expert: "block_sparse_moe.experts.",
    projections: ["w1", "w3", "w2"],
};

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { kv_heads: Some(8), eps: 1e-5, ..Defaults::NONE })?;
    let theta = if keys.is_gguf() { 1e4 } else { 1e6 };
    let rules = RotaryRules { theta, ..RotaryRules::PLAIN };
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, rules)?;
    let window = keys.count(hf("sliding_window"))?.value();
    let other_name = keys.count(hf("num_experts"))?.value();
    let mlp = MlpConfig::Experts(Experts {
        count: keys
            .count(key("num_local_experts", "expert_count"))?
            .value()
            .or(other_name)
            .unwrap_or(8),
        used: keys.count(key("num_experts_per_tok", "expert_used_count"))?.or(2),
        intermediate_size: sizes.intermediate_size,
        activation: keys.activation("hidden_act")?,
        normalised: true,
        shared: None,
        names: NAMES,
    });
    let attention = AttentionConfig {
        window,
        // Never in a config; a GGUF file may have them.
        bias: keys.attention_bias(false)?,
        ..sizes.attention()
    };
    let layers = vec![LayerConfig { attention, mlp }; sizes.layers];
    Ok(sizes.model(MIXTRAL.class, layers, vec![rotary]))
}
