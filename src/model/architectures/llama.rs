//! Llama 1 to 3 (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288; Grattafiori et al. 2024,
//! arXiv 2407.21783).
//!
//! ```text
//! x = embed(tokens)
//! each layer:  x += o(attend(rope(q), rope(k), v))    q, k, v of norm(x)
//!              x += down(silu(gate) · up)             gate, up of norm(x)
//! logits = head(norm(x))
//! ```

use super::Architecture;
use crate::error::Result;
use crate::model::config::keys::{Keys, gguf, hf};
use crate::model::config::rotary::RotaryRules;
use crate::model::config::sizes::Defaults;
use crate::model::config::{AttentionConfig, GatedMlp, LayerConfig, MlpConfig, ModelConfig};

pub(super) const LLAMA: Architecture = Architecture {
    gguf: Some("llama"),
    permuted: true,
    ..Architecture::new("LlamaForCausalLM", "llama", read)
};

fn read(keys: &Keys) -> Result<ModelConfig> {
    let sizes = keys.sizes(Defaults::NONE)?;
    let rotary = keys.rotary(sizes.head_dim, sizes.max_position_embeddings, RotaryRules::PLAIN)?;
    // Mistral's files in GGUF, where somebody wrote it.
    let window = keys.count(gguf("attention.sliding_window"))?.value().filter(|w| *w > 0);
    let bias = keys.attention_bias(false)?;
    let attention = AttentionConfig { bias, window, ..sizes.attention() };
    let mlp = GatedMlp { bias: keys.mlp_bias()?, ..sizes.mlp(keys.activation("hidden_act")?) };
    let layer = LayerConfig { attention, mlp: MlpConfig::Gated(mlp) };
    Ok(sizes.model(LLAMA.class, vec![layer; sizes.layers], vec![rotary]))
}

impl Keys<'_> {
    /// Biases of gate, up and down.
    pub(super) fn mlp_bias(&self) -> Result<bool> {
        match self.is_gguf() {
            true => Ok(self.has_tensor("blk.0.ffn_gate.bias")),
            false => Ok(self.flag(hf("mlp_bias"))?.or(false)),
        }
    }
}
