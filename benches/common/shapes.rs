//! Shapes of models, for speed and memory figures on random weights.

use crate::random_weights::llama;
use kvgauge::model::ModelConfig;

/// TinyLlama-1.1B: 22 layers, 2048 wide, 32 query heads on 4 key heads.
pub fn tinyllama() -> ModelConfig {
    llama(2048, 5632, 22, 32, 4)
}

/// SmolLM2-135M: 30 layers, 576 wide, 9 query heads on 3 key heads.
#[allow(dead_code, reason = "not every bench measures it")]
pub fn smollm2() -> ModelConfig {
    ModelConfig {
        vocab_size: 49_152,
        tie_word_embeddings: true,
        rope_theta: 100_000.0,
        ..llama(576, 1536, 30, 9, 3)
    }
}
