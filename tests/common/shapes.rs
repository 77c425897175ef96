//! Shapes of models, to be filled with random weights.

#![allow(dead_code, reason = "not every test and benchmark uses all of them")]

use kvgauge::model::{AttentionBias, ModelConfig, RopeScaling};

/// A Llama with TinyLlama's vocabulary and context, untied, without biases.
pub fn llama(
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
) -> ModelConfig {
    ModelConfig {
        architecture: "LlamaForCausalLM".into(),
        vocab_size: 32_000,
        hidden_size: hidden,
        intermediate_size: intermediate,
        layers,
        heads,
        kv_heads,
        head_dim: hidden / heads,
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: false,
        attention_bias: AttentionBias { qkv: false, output: false },
        mlp_bias: false,
        sliding_window: None,
        bos_token_id: Some(1),
    }
}

/// TinyLlama-1.1B: 22 layers, 2048 wide, 32 query heads on 4 key heads.
pub fn tinyllama() -> ModelConfig {
    llama(2048, 5632, 22, 32, 4)
}

/// SmolLM2-135M: 30 layers, 576 wide, 9 query heads on 3 key heads.
pub fn smollm2() -> ModelConfig {
    ModelConfig {
        vocab_size: 49_152,
        tie_word_embeddings: true,
        rope_theta: 100_000.0,
        ..llama(576, 1536, 30, 9, 3)
    }
}
