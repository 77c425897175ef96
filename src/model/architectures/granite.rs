//! Granite 3 and later (IBM 2024): Llama with four factors, of the embeddings, of the scores, of
//! what a layer adds, and of the logits.

use super::Architecture;
use crate::error::{Error, Result};
use crate::model::config::keys::{Key, Keys, gguf, key};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{
    AttentionConfig, GatedMlp, LayerConfig, MlpConfig, ModelConfig, unknown_hint,
};

pub(super) const GRANITE: Architecture = Architecture {
    gguf: Some("granite"),
    permuted: true,
    ..Architecture::new("GraniteForCausalLM", "granite", read)
};

const STATES: [&str; 5] = [
    "ssm.conv_kernel",
    "ssm.state_size",
    "ssm.group_count",
    "ssm.inner_size",
    "ssm.time_step_rank",
];

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults::NONE)?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    // Of the dense models of a family whose others have states: there are none here.
    for name in STATES {
        keys.count(gguf(name))?;
    }
    let rotates = gguf("rope.scaling.finetuned");
    if keys.flag(rotates)?.value() == Some(false) {
        let place = keys.place(rotates);
        return Err(Error::unsupported(format!("{place}: expected true, found false: no RoPE"))
            .hint(unknown_hint()));
    }
    // In GGUF, 0 stands for none.
    let factor = |key: Key, default: f32| -> Result<f32> {
        let given = keys.number(key)?.value().filter(|factor| *factor != 0.0 || !keys.is_gguf());
        Ok(given.map_or(default, |factor| factor as f32))
    };
    let plain = if keys.is_gguf() { sizes.attention().scale } else { 1.0 };
    let attention = AttentionConfig {
        scale: factor(key("attention_multiplier", "attention.scale"), plain)?,
        bias: keys.attention_bias(false)?,
        ..sizes.attention()
    };
    let mlp = GatedMlp { bias: keys.mlp_bias()?, ..sizes.mlp(keys.activation("hidden_act")?) };
    let layer = LayerConfig { attention, mlp: MlpConfig::Gated(mlp) };
    Ok(ModelConfig {
        embedding_scale: factor(key("embedding_multiplier", "embedding_scale"), 1.0)?,
        residual_scale: factor(key("residual_multiplier", "residual_scale"), 1.0)?,
        // Logits are divided by it.
        logit_scale: 1.0 / factor(key("logits_scaling", "logit_scale"), 1.0)?,
        ..sizes.model(GRANITE.class, vec![layer; sizes.layers], vec![rotary])
    })
}
