//! TinyLlama's shape, for speed and memory figures on random weights.

use crate::random_weights::llama;
use kvgauge::model::ModelConfig;

/// TinyLlama-1.1B: 22 layers, 2048 wide, 32 query heads on 4 key heads.
pub fn tinyllama() -> ModelConfig {
    llama(2048, 5632, 22, 32, 4)
}
