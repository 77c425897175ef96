//! The size of a cache in the units that a server's memory is planned in: MB of 10⁶ bytes a sequence,
//! GB of 10⁹ bytes a batch.

use serde::Serialize;

/// The cache of sequences that fill the context, in 16 bits and as stored by a codec. A layer with a
/// sliding window keeps no more tokens than that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CacheSize {
    /// Of one sequence in 16 bits, MB.
    pub cache_mb_per_sequence_f16: f64,
    /// The same as stored.
    pub cache_mb_per_sequence: f64,
    /// Of 1000 of its tokens in 16 bits, MB.
    pub cache_mb_per_1000_tokens_f16: f64,
    /// The same as stored.
    pub cache_mb_per_1000_tokens: f64,
    /// Saved on a batch of sequences against 16 bits, GB.
    pub gb_saved: f64,
}

impl CacheSize {
    /// `f16`, `stored`: bytes a token; `context`: tokens of a sequence; `batch`: sequences.
    pub fn new(f16: f64, stored: f64, context: usize, batch: usize) -> Self {
        let mb = |bytes_per_token: f64, tokens: usize| bytes_per_token * tokens as f64 / 1e6;
        Self {
            cache_mb_per_sequence_f16: mb(f16, context),
            cache_mb_per_sequence: mb(stored, context),
            cache_mb_per_1000_tokens_f16: mb(f16, 1000),
            cache_mb_per_1000_tokens: mb(stored, 1000),
            gb_saved: mb(f16 - stored, context) * batch as f64 / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Llama 3 8B: 32 layers × 8 KV heads × 128 channels × keys and values × 2 bytes are 131072 bytes a
    /// token, 0.537 GB for 4096 tokens.
    #[test]
    fn sizes_are_those_worked_out_by_hand() {
        let size = CacheSize::new(131_072.0, 34_816.0, 4096, 32);
        assert_eq!(size.cache_mb_per_sequence_f16, 536.870912);
        assert_eq!(size.cache_mb_per_sequence, 142.606336);
        assert_eq!(size.cache_mb_per_1000_tokens_f16, 131.072);
        assert_eq!(size.cache_mb_per_1000_tokens, 34.816);
        assert!((size.gb_saved - 12.616466432).abs() < 1e-12, "{}", size.gb_saved);
    }
}
