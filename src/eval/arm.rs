//! Arms: the treatments of the cache that are held against the untouched one.

use crate::codec::{Codec, TensorCodec};
use crate::model::LayerKv;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something to hold against the untouched cache: a codec for all of it or for a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    pub codec: Codec,
    pub scope: Scope,
}

impl Arm {
    /// A codec for the whole cache.
    pub fn of(codec: Codec) -> Self {
        Self { codec, scope: Scope::default() }
    }
}

/// Keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Key,
    Value,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

impl Codec {
    pub fn side(&self, side: Side) -> TensorCodec {
        match side {
            Side::Key => self.key,
            Side::Value => self.value,
        }
    }
}

impl LayerKv {
    pub fn side(&self, side: Side) -> &Tensor {
        match side {
            Side::Key => &self.key,
            Side::Value => &self.value,
        }
    }
}

/// The part of a cache that goes through a codec; the rest stays exact. `None`: all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    pub layer: Option<usize>,
    pub side: Option<Side>,
    pub head: Option<usize>,
}

/// The heads of one tensor that are in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadScope {
    All,
    None,
    Only(usize),
}

impl Scope {
    pub fn heads(&self, layer: usize, side: Side) -> HeadScope {
        let inside =
            self.layer.is_none_or(|own| own == layer) && self.side.is_none_or(|own| own == side);
        match self.head {
            _ if !inside => HeadScope::None,
            Some(head) => HeadScope::Only(head),
            None => HeadScope::All,
        }
    }
}
