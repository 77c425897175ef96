//! Command R (Cohere 2024): LayerNorm without bias, attention and MLP side by side, neighbouring
//! channels rotated together, a factor of the logits.
//!
//! ```text
//! each layer:  x += o(attend(rope(q), rope(k), v)) + down(silu(gate) · up)    all of norm(x)
//! ```

use super::Architecture;
use crate::codec::RotaryPairs;
use crate::error::Result;
use crate::model::config::keys::{Keys, hf, key};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{
    AttentionConfig, BlockConfig, LayerConfig, MlpConfig, ModelConfig, NormConfig, NormKind, QkNorm,
};

pub(super) const COHERE: Architecture = Architecture {
    gguf: Some("command-r"),
    ..Architecture::new("CohereForCausalLM", "cohere", read)
};

const BLOCK: BlockConfig = BlockConfig {
    before_attention: Some("input_layernorm"),
    after_attention: None,
    before_mlp: None,
    after_mlp: None,
    parallel: true,
};

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults {
        tied: true,
        eps: 1e-5,
        eps_key: key("layer_norm_eps", "attention.layer_norm_epsilon"),
        ..Defaults::NONE
    })?;
    let rules = RotaryRules {
        theta: if keys.is_gguf() { 1e4 } else { 5e5 },
        pairs: RotaryPairs::Neighbours,
        ..RotaryRules::PLAIN
    };
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, rules)?;
    let normed = match keys.is_gguf() {
        true => keys.has_tensor("blk.0.attn_q_norm.weight"),
        false => keys.flag(hf("use_qk_norm"))?.or(false),
    };
    let attention = AttentionConfig {
        qk_norm: if normed { QkNorm::EachHead } else { QkNorm::None },
        bias: keys.attention_bias(false)?,
        ..sizes.attention()
    };
    let mlp = MlpConfig::Gated(sizes.mlp(keys.activation("hidden_act")?));
    let layers = vec![LayerConfig { attention, mlp }; sizes.layers];
    // In GGUF, 0 stands for none.
    let scale = keys.number(key("logit_scale", "logit_scale"))?;
    let default = if keys.is_gguf() { 1.0 } else { 0.0625 };
    let scale = scale.value().filter(|scale| *scale != 0.0 || !keys.is_gguf()).unwrap_or(default);
    Ok(ModelConfig {
        norm: NormConfig { kind: NormKind::Layer, eps: sizes.eps },
        block: BLOCK,
        logit_scale: scale as f32,
        ..sizes.model(COHERE.class, layers, vec![rotary])
    })
}
