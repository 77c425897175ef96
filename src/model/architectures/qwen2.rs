//! Qwen 2 and 2.5 (Yang et al. 2024, arXiv 2407.10671 and 2412.15115): Llama with biases of
//! queries, keys and values.

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, hf};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::{Defaults, Sizes};
use crate::model::config::{AttentionBias, AttentionConfig, LayerConfig, MlpConfig, ModelConfig};

pub(super) const QWEN2: Architecture =
    Architecture { gguf: Some("qwen2"), ..Architecture::new("Qwen2ForCausalLM", "qwen2", read) };

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults { kv_heads: Some(32), ..Defaults::NONE })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let bias = match keys.is_gguf() {
        true => keys.attention_bias(true)?,
        false => AttentionBias { qkv: true, output: false },
    };
    let mlp = MlpConfig::Gated(sizes.mlp(keys.activation("hidden_act")?));
    let layers = keys.qwen_windows(&sizes)?.into_iter().map(|window| LayerConfig {
        attention: AttentionConfig { bias, window, ..sizes.attention() },
        mlp: mlp.clone(),
    });
    Ok(sizes.model(QWEN2.class, layers.collect(), vec![rotary]))
}

impl Keys<'_> {
    /// Layers from `max_window_layers` on slide, where `use_sliding_window` says so.
    pub(super) fn qwen_windows(&self, sizes: &Sizes) -> Result<Vec<Option<usize>>> {
        let used = self.flag(hf("use_sliding_window"))?.or(false);
        let window = self.count(hf("sliding_window"))?.or_absent(Some(4096)).filter(|_| used);
        let first = self.count(hf("max_window_layers"))?.or(28);
        self.windows(sizes.layers, window, |layer| layer >= first)
    }
}
