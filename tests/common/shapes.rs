//! Shapes of models, to be filled with random weights.

#![allow(dead_code, reason = "not every test and benchmark uses all of them")]

use kvgauge::model::{AttentionBias, MlpConfig, ModelConfig, RopeScaling};
use serde_json::{Value, json};

/// A Llama with TinyLlama's vocabulary and context, untied, without biases.
pub fn llama(
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
) -> ModelConfig {
    of_json(&json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
        "bos_token_id": 1,
    }))
}

/// A config.json.
pub fn of_json(config: &Value) -> ModelConfig {
    ModelConfig::from_hf(config.to_string().as_bytes()).unwrap()
}

/// Another scaling of the rotary embedding.
pub fn with_scaling(mut config: ModelConfig, scaling: RopeScaling) -> ModelConfig {
    config.rotary[0].scaling = scaling;
    config
}

/// Biases of attention in every layer.
pub fn with_attention_bias(mut config: ModelConfig, bias: AttentionBias) -> ModelConfig {
    config.layers.iter_mut().for_each(|layer| layer.attention.bias = bias);
    config
}

/// Biases of the MLP in every layer, or none.
pub fn with_mlp_bias(mut config: ModelConfig, bias: bool) -> ModelConfig {
    for layer in &mut config.layers {
        if let MlpConfig::Gated(mlp) = &mut layer.mlp {
            mlp.bias = bias;
        }
    }
    config
}

/// A sliding window in every layer.
pub fn with_window(mut config: ModelConfig, window: Option<usize>) -> ModelConfig {
    config.layers.iter_mut().for_each(|layer| layer.attention.window = window);
    config
}

/// TinyLlama-1.1B: 22 layers, 2048 wide, 32 query heads on 4 key heads.
pub fn tinyllama() -> ModelConfig {
    llama(2048, 5632, 22, 32, 4)
}

/// SmolLM2-135M: 30 layers, 576 wide, 9 query heads on 3 key heads.
pub fn smollm2() -> ModelConfig {
    let mut config = llama(576, 1536, 30, 9, 3);
    config.vocab_size = 49_152;
    config.tie_word_embeddings = true;
    config.rotary[0].theta = 100_000.0;
    config
}
