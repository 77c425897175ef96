//! The subject of a measurement: model, text, windows and protocol, which codecs are compared on.

use crate::corpus::WindowShape;
use crate::eval::Protocol;
use crate::model::source::Provenance;
use crate::settings::{DeviceKind, FloatType};
use serde::{Deserialize, Serialize};

/// Model, text and windows: what codecs are compared on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubjectInfo {
    #[serde(flatten)]
    pub protocol: Protocol,
    pub model: ModelInfo,
    pub text: TextInfo,
    pub context: usize,
    /// Tokens of a window before the one that predicts the first scored target; with `prefix`,
    /// those whose cache is compressed.
    pub prefix: usize,
    pub first_window: usize,
    pub windows: usize,
    /// Over all windows.
    pub scored_tokens: usize,
    /// The token that replaced the first of every window.
    pub bos_id: Option<u32>,
    pub dtype: FloatType,
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub architecture: String,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextInfo {
    pub source: String,
    pub sha256: String,
    pub bytes: usize,
    pub tokens: usize,
    /// Windows of this context the whole text holds.
    pub windows_available: usize,
    /// Whether control tokens that it spells out were the model's own.
    #[serde(default = "yes")]
    pub parse_special: bool,
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
        self.protocol.name() != other.protocol.name()
            && *self == Self { protocol: self.protocol, ..other.clone() }
    }
}
