//! Ministral, whose layers slide by `layer_types`, and Ministral 3, whose queries grow with the
//! position; also the text half of the Mistrals that see, which is one of these or Mistral.

use super::Architecture;
use crate::error::{Error, Result};
use crate::model::config::keys::{Keys, gguf, hf};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::{Defaults, Sizes};
use crate::model::config::{AttentionConfig, LayerConfig, MlpConfig, ModelConfig, Temperature};

pub(super) const MINISTRAL: Architecture =
    Architecture::new("MinistralForCausalLM", "ministral", read_ministral);

pub(super) const MINISTRAL3: Architecture = Architecture {
    gguf: Some("mistral3"),
    permuted: true,
    ..Architecture::new("Ministral3ForCausalLM", "ministral3", read_ministral3)
};

pub(super) const MISTRAL3_TEXT_HALF: Architecture = Architecture {
    text_half: &["mistral", "ministral3"],
    ..Architecture::new("Mistral3ForConditionalGeneration", "mistral3", read_text_half)
};

fn read_text_half(keys: &Keys) -> Result<ModelConfig> {
    match keys.text(hf("model_type"))?.value().as_deref() {
        Some("ministral3") => read_ministral3(keys),
        _ => super::mistral::read(keys),
    }
}

fn read_ministral(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { kv_heads: Some(8), ..Defaults::NONE })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let window = keys.count(hf("sliding_window"))?.or_absent(Some(4096));
    let windows = keys.windows(sizes.layers, window, |_| true)?;
    let mlp = MlpConfig::Gated(sizes.mlp(keys.activation("hidden_act")?));
    let layers = windows.into_iter().map(|window| LayerConfig {
        attention: AttentionConfig { window, ..sizes.attention() },
        mlp: mlp.clone(),
    });
    Ok(sizes.model(MINISTRAL.class, layers.collect(), vec![rotary]))
}

fn read_ministral3(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults {
        kv_heads: Some(8),
        head_dim: Some(128),
        eps: 1e-5,
        ..Defaults::NONE
    })?;
    let rules = RotaryRules {
        theta: if keys.is_gguf() { RotaryRules::PLAIN.theta } else { 1e6 },
        more_keys: &["llama_4_scaling_beta", "max_position_embeddings"],
        ..RotaryRules::PLAIN
    };
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, rules)?;
    let temperature = temperature(keys, &sizes)?;
    let window = keys.count(hf("sliding_window"))?.value();
    keys.texts_by_layer(hf("layer_types"), sizes.layers)?;
    let attention = AttentionConfig { window, temperature, ..sizes.attention() };
    let mlp = MlpConfig::Gated(sizes.mlp(keys.activation("hidden_act")?));
    let layers = vec![LayerConfig { attention, mlp }; sizes.layers];
    Ok(sizes.model(MINISTRAL3.class, layers, vec![rotary]))
}

/// β stands among RoPE's parameters, and so does the period, the context before any scaling.
fn temperature(keys: &Keys, sizes: &Sizes) -> Result<Option<Temperature>> {
    const BETA: &str = "llama_4_scaling_beta";
    const PERIOD: &str = "original_max_position_embeddings";
    let parameters = hf("rope_parameters");
    let (beta, period) = match keys.is_gguf() {
        true => (
            keys.number(gguf("attention.temperature_scale"))?.value(),
            keys.count(gguf("rope.scaling.original_context_length"))?.value(),
        ),
        false => {
            let object = keys.object(parameters)?.value();
            let number = |name: &str| object.as_ref().and_then(|object| object.get(name)?.as_f64());
            (number(BETA), number(PERIOD).map(|period| period as usize).filter(|n| *n > 0))
        }
    };
    let period = period.unwrap_or(sizes.max_position_embeddings);
    match beta {
        // Mistral Small 3.1 in GGUF.
        None if keys.is_gguf() => Ok(None),
        None => Err(Error::input(format!("{}.{BETA}: missing", keys.place(parameters)))
            .hint("compare config.json with the one that the model's author published")),
        Some(beta) => Ok((beta != 0.0).then_some(Temperature { beta: beta as f32, period })),
    }
}
