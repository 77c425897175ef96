//! Protocols: which tokens go through the model, when their keys and values go through the
//! codec, and which targets are scored.

mod applicability;

pub(super) use applicability::{is_one_pass, stored_of, stored_of_prefix};

use crate::corpus::WindowShape;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Tokens that a chunk has unless said otherwise.
pub const DEFAULT_CHUNK: usize = 32;

/// How the cache is compressed. Both score the same targets of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Protocol {
    /// The first half of a window is computed exactly, its cache compressed and put back; the
    /// second half runs over it, its own keys and values exact. See [`prefix`].
    Prefix {
        /// Last tokens of the half that stay exact.
        #[serde(default, skip_serializing_if = "is_zero")]
        residual: usize,
    },
    /// Every token's keys and values are compressed once, when the token leaves the `residual`
    /// most recent ones, and never again. See [`decode`].
    Decode {
        /// Most recent tokens that stay exact.
        residual: usize,
        /// Tokens that are computed together, where tokens are not stored one by one.
        chunk: usize,
    },
}

/// The protocols of a run: at least one of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Protocols {
    /// `prefix` alone.
    Prefix {
        /// Last tokens of the prefix that stay exact.
        #[serde(skip_serializing_if = "is_zero")]
        residual: usize,
    },
    /// `decode` alone.
    Decode {
        /// Most recent tokens that stay exact.
        residual: usize,
        /// Tokens that are computed together.
        chunk: usize,
    },
    /// `prefix` and `decode` with these.
    Both {
        /// Most recent tokens that stay exact, under either.
        residual: usize,
        /// Tokens that are computed together, under `decode`.
        chunk: usize,
    },
}

/// Of a residual, which results of before it was one say nothing of.
fn is_zero(tokens: &usize) -> bool {
    *tokens == 0
}

impl Protocols {
    /// One by one, `prefix` first.
    pub fn each(self) -> Vec<Protocol> {
        match self {
            Self::Prefix { residual } => vec![Protocol::Prefix { residual }],
            Self::Decode { residual, chunk } => vec![Protocol::Decode { residual, chunk }],
            Self::Both { residual, chunk } => {
                vec![Protocol::Prefix { residual }, Protocol::Decode { residual, chunk }]
            }
        }
    }
}

/// For people.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix { residual: 0 } => f.write_str("prefix"),
            Self::Prefix { residual } => write!(f, "prefix, residual {residual}"),
            Self::Decode { residual, chunk } => {
                write!(f, "decode, residual {residual}, chunk {chunk}")
            }
        }
    }
}

impl Protocol {
    /// [`Protocol::Prefix`] whose whole cache is compressed.
    pub const PREFIX: Self = Self::Prefix { residual: 0 };

    /// Most recent tokens that stay exact.
    pub fn residual(self) -> usize {
        match self {
            Self::Prefix { residual } | Self::Decode { residual, .. } => residual,
        }
    }

    /// The meaning of its figures, in a sentence for people.
    pub fn tells(self) -> &'static str {
        match self {
            Self::Prefix { .. } => {
                "prefix: what a prompt's cache costs that is stored once and reused; new tokens stay exact"
            }
            Self::Decode { .. } => {
                "decode: what a server pays that stores every token this way, as it is written"
            }
        }
    }

    /// The name every output carries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefix { .. } => "prefix",
            Self::Decode { .. } => "decode",
        }
    }

    /// Tokens that go through the model for one window, which is what progress counts.
    pub fn model_tokens(self, shape: &WindowShape, codecs: usize) -> usize {
        let inputs = shape.tokens() - 1;
        match self {
            Self::Prefix { .. } => shape.prefix() + (1 + codecs) * (inputs - shape.prefix()),
            Self::Decode { .. } => (1 + codecs) * inputs,
        }
    }
}
