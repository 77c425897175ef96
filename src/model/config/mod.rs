//! The configuration of a model: the numbers its weights and its forward pass depend on, from a Hugging Face
//! `config.json` ([`ModelConfig::from_hf`]) or a GGUF header ([`ModelConfig::from_gguf`]), checked
//! before any weight is read. What is not understood there is refused by name.

mod gguf;
mod hf;
mod hf_keys;
mod hf_rope;

use crate::error::{Error, Result};

/// The program that runs models which this one does not compute.
pub(super) const IN_PYTHON: &str = "`python -m kvgauge.perplexity` (kvgauge's Python package)";

/// The numbers that a model's weights and forward pass depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The class in the words of transformers, as `LlamaForCausalLM`.
    pub architecture: String,
    /// Tokens of the vocabulary: rows of the embeddings.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// The longest context that the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// ε of RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// Whether the output head is the embeddings.
    pub tie_word_embeddings: bool,
    /// Biases on q, k, v and o.
    pub attention_bias: AttentionBias,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// Attention over at most this many positions (Mistral); longer windows are refused.
    pub sliding_window: Option<usize>,
    /// Id of the beginning-of-sequence token, where the config names one.
    pub bos_token_id: Option<u32>,
}

/// Which attention projections carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionBias {
    /// Of queries, keys and values.
    pub qkv: bool,
    /// Of the output projection.
    pub output: bool,
}

/// How RoPE frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as the base gives them.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Divisor of every frequency.
        factor: f32,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, blended between.
    Llama3 {
        /// Divisor of the lowest frequencies.
        factor: f32,
        /// Wavelengths above `original_context` / this are stretched whole.
        low_freq_factor: f32,
        /// Wavelengths below `original_context` / this stay as they are.
        high_freq_factor: f32,
        /// Context of the model before it was stretched, tokens.
        original_context: usize,
    },
    /// One divisor a frequency, head_dim / 2 of them (GGUF's `rope_freqs.weight`).
    Divisors(Vec<f32>),
}

/// A longest window, and what sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Longest {
    /// Tokens.
    pub tokens: usize,
    /// The rule that sets it.
    pub bound: Bound,
}

/// The reason why no longer window is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The positions that the model was made for.
    Positions,
    /// Attention over so many positions; beyond them it is not computed.
    SlidingWindow,
}

impl From<usize> for Longest {
    fn from(tokens: usize) -> Self {
        Self { tokens, bound: Bound::Positions }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bound::Positions => "the model's longest context",
            Bound::SlidingWindow => "the model's sliding window",
        })
    }
}

impl ModelConfig {
    /// The longest window this model computes as it was trained to.
    pub fn longest(&self) -> Longest {
        match self.sliding_window {
            Some(tokens) if tokens < self.max_position_embeddings => {
                Longest { tokens, bound: Bound::SlidingWindow }
            }
            _ => self.max_position_embeddings.into(),
        }
    }

    /// The longest window, tokens.
    pub fn max_context(&self) -> usize {
        self.longest().tokens
    }

    fn checked(self, place: &str) -> Result<Self> {
        let wrong = |what: String| {
            Err(Error::input(format!("{place}: {what}"))
                .hint("no Llama has such a value: is the file the one its author published?"))
        };
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            // The upper bound keeps a product of two of them inside 64 bits.
            if value == 0 || value > 1 << 28 {
                return wrong(format!("{name}: expected 1 to 2^28, found {value}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(format!(
                "num_key_value_heads: expected a divisor of the {} attention heads, found {}",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong(format!(
                "head_dim: expected an even number for RoPE, found {}",
                self.head_dim
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return wrong(format!(
                "rope_theta: expected a positive number, found {}",
                self.rope_theta
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return wrong(format!(
                "rms_norm_eps: expected a positive number, found {}",
                self.rms_norm_eps
            ));
        }
        Ok(self)
    }
}
