//! Qwen 3 (Yang et al. 2025, arXiv 2505.09388): Llama whose queries and keys are normed by head
//! before they rotate.

use super::Architecture;
use crate::error::{Error, Result};
use crate::model::config::keys::{Keys, hf};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{
    AttentionConfig, LayerConfig, MlpConfig, ModelConfig, QkNorm, unknown_hint,
};

pub(super) const QWEN3: Architecture =
    Architecture { gguf: Some("qwen3"), ..Architecture::new("Qwen3ForCausalLM", "qwen3", read) };

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes =
        keys.sizes(Defaults { kv_heads: Some(32), head_dim: Some(128), ..Defaults::NONE })?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    let bias = keys.attention_bias(false)?;
    keys.expect_qk_norm()?;
    let mlp = MlpConfig::Gated(sizes.mlp(keys.activation("hidden_act")?));
    let layers = keys.qwen_windows(&sizes)?.into_iter().map(|window| LayerConfig {
        attention: AttentionConfig { bias, window, qk_norm: QkNorm::Head, ..sizes.attention() },
        mlp: mlp.clone(),
    });
    Ok(sizes.model(QWEN3.class, layers.collect(), vec![rotary]))
}

impl Keys<'_> {
    /// Some configs say what is always so.
    pub(super) fn expect_qk_norm(&self) -> Result<()> {
        let key = hf("use_qk_norm");
        match self.flag(key)?.value() {
            Some(false) => {
                let place = self.place(key);
                Err(Error::unsupported(format!("{place}: expected true, found false"))
                    .hint(unknown_hint()))
            }
            _ => Ok(()),
        }
    }
}
