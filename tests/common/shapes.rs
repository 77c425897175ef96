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

/// Gemma 3 1B: 26 layers, 1152 wide, 4 query heads on one key head of 256 channels; all but every
/// sixth layer have a window of 512.
pub fn gemma3_1b() -> ModelConfig {
    of_json(&gemma3(26, 262_144, 6912))
}

/// One of its layers, with 256 tokens of the vocabulary. `intermediate`: another width of the MLP.
pub fn gemma3_1b_layer(intermediate: Option<usize>) -> ModelConfig {
    of_json(&gemma3(1, 256, intermediate.unwrap_or(6912)))
}

fn gemma3(layers: usize, vocabulary: usize, intermediate: usize) -> Value {
    json!({
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": vocabulary,
        "hidden_size": 1152,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh",
        "bos_token_id": 2,
    })
}

/// Qwen3-0.6B: 28 layers, 1024 wide, 16 query heads on 8 key heads of 128 channels.
pub fn qwen3_06b() -> ModelConfig {
    of_json(&json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": true,
        "bos_token_id": 151_643,
    }))
}
