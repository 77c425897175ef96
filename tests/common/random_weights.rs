//! Shapes of models, to be filled with random weights.
pub use kvgauge::model::RandomWeights;
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
