//! The configuration of a model: the parts it is made of and their numbers, from a Hugging Face
//! `config.json` ([`ModelConfig::from_hf`]) or a GGUF header ([`ModelConfig::from_gguf`]), checked
//! before any weight is read. What is not understood there is refused by name.
//!
//! Which parts an architecture has is in its own file ([`super::architectures`]).

mod gguf;
mod hf;
pub(super) mod keys;
mod mlp;
pub(super) mod rotary;
pub(super) mod sizes;
mod unknown;

pub use mlp::{Activation, ExpertNames, Experts, GatedMlp, MlpConfig};

use crate::codec::RotaryPairs;
use crate::error::{Error, Result};
use serde_json::Value;

/// The program that runs models which this one does not compute.
pub(super) const IN_PYTHON: &str = "`python -m kvgauge.perplexity` (kvgauge's Python package)";

pub(super) const AS_PUBLISHED: &str =
    "compare config.json with the one that the model's author published";

/// The parts and numbers that a model's weights and forward pass depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The class in the words of transformers, as `LlamaForCausalLM`.
    pub architecture: String,
    /// Tokens of the vocabulary: rows of the embeddings.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// The layers, in order.
    pub layers: Vec<LayerConfig>,
    /// The rotary embeddings that layers point to.
    pub rotary: Vec<RotaryConfig>,
    /// The longest context that the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// The kind of all norms.
    pub norm: NormConfig,
    /// Where norms stand in a layer, and how it ends.
    pub block: BlockConfig,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// Factor of what attention and MLP add to the residual stream.
    pub residual_scale: f32,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// Logits become softcap · tanh(logits / softcap).
    pub logit_softcap: Option<f32>,
    /// Whether the output head is the embeddings.
    pub tie_word_embeddings: bool,
    /// Id of the beginning-of-sequence token, where the config names one.
    pub bos_token_id: Option<u32>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// Its attention.
    pub attention: AttentionConfig,
    /// Its MLP.
    pub mlp: MlpConfig,
}

/// Attention of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Factor of the scores q · k.
    pub scale: f32,
    /// Scores become softcap · tanh(scores / softcap).
    pub softcap: Option<f32>,
    /// A token attends to itself and to so many less one before it; `None`: to all before it.
    pub window: Option<usize>,
    /// Index of its rotary embedding; `None`: queries and keys do not rotate.
    pub rotary: Option<usize>,
    /// Norm of queries and keys before they rotate.
    pub qk_norm: QkNorm,
    /// Which projections have biases.
    pub bias: AttentionBias,
    /// Whether q, k and v are one tensor in files, below each other.
    pub fused: bool,
    /// A factor of the queries that grows with the position.
    pub temperature: Option<Temperature>,
}

/// Norm of queries and keys, of the model's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// There is none.
    None,
    /// Of each head, one weight for all heads: [head_dim].
    Head,
    /// Of each head, each with weights of its own: [heads, head_dim].
    EachHead,
    /// Of all heads together: [heads·head_dim].
    AllHeads,
}

/// Queries at position p are multiplied by 1 + beta · ln(1 + ⌊p / period⌋) (Llama 4, Ministral 3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// See there.
    pub beta: f32,
    /// Positions.
    pub period: usize,
}

/// Which attention projections carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionBias {
    /// Of queries, keys and values.
    pub qkv: bool,
    /// Of the output projection.
    pub output: bool,
}

/// The kind of a model's norms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormConfig {
    /// What is computed.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
}

/// What a norm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// x / √(mean(x²) + ε) · w
    Rms,
    /// x / √(mean(x²) + ε) · (1 + w), w as Hugging Face's files have it
    RmsPlusOne,
    /// (x − mean(x)) / √(var(x) + ε) · w
    Layer,
}

/// Where norms stand in a layer, by Hugging Face's names; `None`: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockConfig {
    /// Of what attention reads.
    pub before_attention: Option<&'static str>,
    /// Of what attention adds to the residual stream.
    pub after_attention: Option<&'static str>,
    /// Of what the MLP reads.
    pub before_mlp: Option<&'static str>,
    /// Of what the MLP adds.
    pub after_mlp: Option<&'static str>,
    /// Whether attention and MLP read the same and are added at once.
    pub parallel: bool,
}

/// A rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// Channels of a head that rotate, from the first on.
    pub channels: usize,
    /// Which of them rotate together.
    pub pairs: RotaryPairs,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
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
    /// One divisor a frequency (GGUF's `rope_freqs.weight`).
    Divisors(Vec<f32>),
    /// YaRN (Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        /// Divisor of the lowest frequencies.
        factor: f32,
        /// Frequencies that turn more often than this over `original_context` stay.
        beta_fast: f32,
        /// Those that turn less often are divided by `factor`.
        beta_slow: f32,
        /// Factor of cosines and sines.
        attention_factor: f32,
        /// Context of the model before it was stretched, tokens.
        original_context: usize,
        /// Whether the bounds of the blend are whole channels.
        truncate: bool,
    },
    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753): divisors by frequency, one set for windows
    /// up to `original_context` tokens, another for longer ones.
    LongRope {
        /// Divisors for short windows.
        short: Vec<f32>,
        /// Divisors for long windows.
        long: Vec<f32>,
        /// Factor of cosines and sines.
        attention_factor: f32,
        /// The longest short window, tokens.
        original_context: usize,
    },
    /// Dynamic NTK: the base grows with the window's length beyond `original_context`.
    Dynamic {
        /// How fast.
        factor: f32,
        /// Up to here nothing changes, tokens.
        original_context: usize,
    },
}

impl BlockConfig {
    /// x += attend(norm(x)); x += mlp(norm(x))
    pub const NORM_BEFORE: Self = Self {
        before_attention: Some("input_layernorm"),
        after_attention: None,
        before_mlp: Some("post_attention_layernorm"),
        after_mlp: None,
        parallel: false,
    };
}

impl LayerConfig {
    /// Values that a token's keys take, and its values.
    pub fn key_width(&self) -> usize {
        self.attention.kv_heads * self.attention.head_dim
    }
}

impl ModelConfig {
    /// The longest window, tokens: the positions that the model was made for, or that its rotary
    /// embedding is stretched to.
    pub fn max_context(&self) -> usize {
        let stretched = self.rotary.iter().filter_map(|rotary| match rotary.scaling {
            RopeScaling::Yarn { factor, original_context, .. }
            | RopeScaling::Dynamic { factor, original_context } => {
                Some((factor * original_context as f32) as usize)
            }
            _ => None,
        });
        stretched.fold(self.max_position_embeddings, usize::max)
    }

    /// Query heads of a layer. No architecture computed here has layers of several sizes.
    pub fn heads(&self) -> usize {
        self.layers[0].attention.heads
    }

    /// Key and value heads of a layer.
    pub fn kv_heads(&self) -> usize {
        self.layers[0].attention.kv_heads
    }

    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        self.layers[0].attention.head_dim
    }

    /// Numbers in all matrices, about: norms and biases are left out.
    pub fn weights(&self) -> u64 {
        let hidden = self.hidden_size;
        let of_layer = |layer: &LayerConfig| {
            let AttentionConfig { heads, kv_heads, head_dim, .. } = layer.attention;
            hidden * (2 * (heads + kv_heads) * head_dim + 3 * layer.mlp.widths().all)
        };
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        let layers: usize = self.layers.iter().map(of_layer).sum();
        (layers + tables * hidden * self.vocab_size) as u64
    }

    /// Sliding window of each layer; empty where none has one.
    pub fn sliding_windows(&self) -> Vec<Option<usize>> {
        let windows = || self.layers.iter().map(|layer| layer.attention.window);
        if windows().any(|window| window.is_some()) { windows().collect() } else { Vec::new() }
    }

    /// Values that a token's keys and values take in all layers.
    pub fn cache_width(&self) -> usize {
        self.layers.iter().map(|layer| 2 * layer.key_width()).sum()
    }

    /// Sizes as a pass and a cache need them: there are layers, and heads are as many and as
    /// large in each.
    fn checked(self, place: &str) -> Result<Self> {
        let wrong = |what: String| {
            Err(Error::input(format!("{place}: {what}"))
                .hint("no model has such a value: is the file the one its author published?"))
        };
        let all = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.layers.len()),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let of_layers = self.layers.iter().flat_map(|layer| {
            let widths = match &layer.mlp {
                MlpConfig::Gated(mlp) => [mlp.intermediate_size, 1, 1],
                MlpConfig::Experts(mlp) => [mlp.intermediate_size, mlp.count, mlp.used],
            };
            [
                ("num_attention_heads", layer.attention.heads),
                ("num_key_value_heads", layer.attention.kv_heads),
                ("head_dim", layer.attention.head_dim),
                ("sliding_window", layer.attention.window.unwrap_or(1)),
                ("intermediate_size", widths[0]),
                ("num_experts", widths[1]),
                ("num_experts_per_tok", widths[2]),
            ]
        });
        for (name, value) in all.into_iter().chain(of_layers) {
            // The upper bound keeps a product of two of them inside 64 bits.
            if value == 0 || value > 1 << 28 {
                return wrong(format!("{name}: expected 1 to 2^28, found {value}"));
            }
        }
        let sizes = |layer: &LayerConfig| {
            let AttentionConfig { heads, kv_heads, head_dim, .. } = layer.attention;
            (heads, kv_heads, head_dim)
        };
        if self.layers.windows(2).any(|pair| sizes(&pair[0]) != sizes(&pair[1])) {
            return wrong(
                "expected heads as many and as large in every layer, found others".into(),
            );
        }
        for LayerConfig { attention, mlp } in &self.layers {
            if !attention.heads.is_multiple_of(attention.kv_heads) {
                return wrong(format!(
                    "num_key_value_heads: expected a divisor of the {} attention heads, found {}",
                    attention.heads, attention.kv_heads
                ));
            }
            if attention.rotary.is_some() && !attention.head_dim.is_multiple_of(2) {
                return wrong(format!(
                    "head_dim: expected an even number for RoPE, found {}",
                    attention.head_dim
                ));
            }
            if let MlpConfig::Experts(mlp) = mlp
                && mlp.used > mlp.count
            {
                return wrong(format!(
                    "num_experts_per_tok: expected at most the {} experts, found {}",
                    mlp.count, mlp.used
                ));
            }
        }
        for rotary in &self.rotary {
            if !(rotary.theta.is_finite() && rotary.theta > 0.0) {
                return wrong(format!(
                    "rope_theta: expected a positive number, found {}",
                    rotary.theta
                ));
            }
        }
        if !(self.norm.eps.is_finite() && self.norm.eps >= 0.0) {
            return wrong(format!(
                "rms_norm_eps: expected a positive number, found {}",
                self.norm.eps
            ));
        }
        let factors = [
            ("the embeddings' factor", self.embedding_scale),
            ("the residual's factor", self.residual_scale),
            ("the logits' factor", self.logit_scale),
            ("the logits' softcap", self.logit_softcap.unwrap_or(1.0)),
        ];
        for (name, factor) in factors {
            if !factor.is_finite() || factor == 0.0 {
                return wrong(format!("{name}: expected a number other than 0, found {factor}"));
            }
        }
        Ok(self)
    }
}

pub(super) use gguf::of_gguf;
pub(super) use unknown::other_numbers as unknown_hint;

/// Short enough for a line.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
