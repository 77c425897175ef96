//! Mistral 7B and Nemo (Jiang et al. 2023, arXiv 2310.06825): Llama with a sliding window in every
//! layer. In GGUF it is a Llama, and its window is lost.

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, hf};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{AttentionConfig, LayerConfig, MlpConfig, ModelConfig};

pub(super) const MISTRAL: Architecture = Architecture::new("MistralForCausalLM", "mistral", read);

pub(super) fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { kv_heads: Some(8), ..Defaults::NONE })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let window = keys.count(hf("sliding_window"))?.or_absent(Some(4096));
    // transformers does not look at them: the window is every layer's.
    keys.texts_by_layer(hf("layer_types"), sizes.layers)?;
    let attention = AttentionConfig { window, ..sizes.attention() };
    let mlp = MlpConfig::Gated(sizes.mlp(keys.activation("hidden_act")?));
    let layers = vec![LayerConfig { attention, mlp }; sizes.layers];
    Ok(sizes.model(MISTRAL.class, layers, vec![rotary]))
}
