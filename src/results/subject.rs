//! The subject of a measurement: model, text, windows and protocol, which codecs are compared on.

use super::names::{model_name, text_name};
use crate::corpus::WindowShape;
use crate::eval::Protocol;
use crate::model::source::Provenance;
use crate::settings::{DeviceKind, FloatType};
use serde::{Deserialize, Serialize};

/// Model, text and windows: what codecs are compared on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubjectInfo {
    /// How the cache is compressed.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// The model.
    pub model: ModelInfo,
    /// The text.
    pub text: TextInfo,
    /// Tokens of a window.
    pub context: usize,
    /// Tokens of a window before the one that predicts the first scored target; with `prefix`,
    /// those whose cache is compressed.
    pub prefix: usize,
    /// Index of the first window in the text.
    pub first_window: usize,
    /// Number of windows.
    pub windows: usize,
    /// Over all windows.
    pub scored_tokens: usize,
    /// The token that replaced the first of every window.
    pub bos_id: Option<u32>,
    /// Type of the model's arithmetic and cache.
    pub dtype: FloatType,
    /// Where the model runs.
    pub device: DeviceKind,
    /// See [`crate::instruction_set`].
    #[serde(default = "unknown_instruction_set")]
    pub instruction_set: String,
    /// Of what is drawn at random.
    #[serde(default)]
    pub seed: u64,
}

/// Of figures from before it was recorded.
pub const UNKNOWN_INSTRUCTION_SET: &str = "unknown";

fn unknown_instruction_set() -> String {
    UNKNOWN_INSTRUCTION_SET.into()
}

/// A model: its identity and its shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Source, commit and hashes.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// In headlines of a report where another model would have the same one.
    #[serde(skip)]
    pub headline: Option<String>,
    /// The class in the words of transformers.
    pub architecture: String,
    /// Number of layers.
    pub layers: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// The longest context that the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// Sliding window of each layer, tokens; `None`: it attends to everything before. Empty where no
    /// layer has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sliding_windows: Vec<Option<usize>>,
}

impl ModelInfo {
    /// For headlines.
    pub fn name(&self) -> &str {
        self.headline.as_deref().unwrap_or_else(|| model_name(&self.provenance.source))
    }

    /// Share of the tokens of a context that a server keeps in a layer: one with a sliding window keeps no
    /// more than that.
    pub fn kept(&self, layer: usize, context: usize) -> f64 {
        match self.sliding_windows.get(layer).copied().flatten() {
            Some(window) if window < context => window as f64 / context as f64,
            _ => 1.0,
        }
    }
}

/// A text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextInfo {
    /// The text as asked for.
    pub source: String,
    /// In headlines of a report where another text would have the same one.
    #[serde(skip)]
    pub headline: Option<String>,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Its length, bytes.
    pub bytes: usize,
    /// Its length, tokens; `None` where it is longer than the windows needed, and so was not
    /// tokenised to its end.
    pub tokens: Option<usize>,
    /// Windows of this context the whole text holds; `None` where its length in tokens is not known.
    pub windows_available: Option<usize>,
    /// Whether control tokens that it spells out were the model's own.
    #[serde(default = "yes")]
    pub parse_special: bool,
}

impl TextInfo {
    /// For headlines.
    pub fn name(&self) -> &str {
        self.headline.as_deref().unwrap_or_else(|| text_name(&self.source))
    }
}

fn yes() -> bool {
    true
}

impl SubjectInfo {
    /// The shape that its windows have.
    pub fn window_shape(&self) -> WindowShape {
        WindowShape::halves(self.context)
    }

    /// Whether this is the same model, text and windows under the other protocol.
    pub fn is_beside(&self, other: &Self) -> bool {
        // Known by its hash, whether it was tokenised to its end or not.
        let text = TextInfo {
            headline: None,
            tokens: self.text.tokens,
            windows_available: self.text.windows_available,
            ..other.text.clone()
        };
        self.protocol.name() != other.protocol.name()
            && *self == Self { protocol: self.protocol, text, ..other.clone() }
    }
}
