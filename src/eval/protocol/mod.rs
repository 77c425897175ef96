//! Protocols: which tokens go through the model, when their keys and values go through the
//! codec, and which targets are scored.

mod applicability;

pub(super) use applicability::{is_one_pass, stored_of};

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
    Prefix,
    /// Every token's keys and values are compressed once, when the token leaves the `residual`
    /// most recent ones, and never again. See [`decode`].
    Decode { residual: usize, chunk: usize },
}

/// The protocols of a run: at least one of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Protocols {
    Prefix,
    Decode {
        residual: usize,
        chunk: usize,
    },
    /// `prefix`, and `decode` with these.
    Both {
        residual: usize,
        chunk: usize,
    },
}

impl Protocols {
    /// One by one, `prefix` first.
    pub fn each(self) -> Vec<Protocol> {
        match self {
            Self::Prefix => vec![Protocol::Prefix],
            Self::Decode { residual, chunk } => vec![Protocol::Decode { residual, chunk }],
            Self::Both { residual, chunk } => {
                vec![Protocol::Prefix, Protocol::Decode { residual, chunk }]
            }
        }
    }
}

/// For people.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => f.write_str("prefix"),
            Self::Decode { residual, chunk } => {
                write!(f, "decode, residual {residual}, chunk {chunk}")
            }
        }
    }
}

impl Protocol {
    /// The meaning of its figures, in a sentence for people.
    pub fn tells(self) -> &'static str {
        match self {
            Self::Prefix => {
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
            Self::Prefix => "prefix",
            Self::Decode { .. } => "decode",
        }
    }

    /// Tokens that go through the model for one window, which is what progress counts.
    pub fn model_tokens(self, shape: &WindowShape, codecs: usize) -> usize {
        let inputs = shape.tokens() - 1;
        match self {
            Self::Prefix => shape.prefix() + (1 + codecs) * (inputs - shape.prefix()),
            Self::Decode { .. } => (1 + codecs) * inputs,
        }
    }
}
