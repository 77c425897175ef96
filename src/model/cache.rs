//! The KV cache as a value: it can be taken out, changed and put back at any position.

use crate::error::{Error, Result};
use candle_core::Tensor;

/// One layer's keys (after RoPE, Hugging Face channel order) and values,
/// each [kv_heads, tokens, head_dim], contiguous.
#[derive(Debug, Clone)]
pub struct LayerKv {
    /// Keys, after RoPE.
    pub key: Tensor,
    /// Values.
    pub value: Tensor,
}

impl LayerKv {
    /// These tokens, and `new` ones behind them.
    pub(crate) fn followed_by(&self, new: &LayerKv) -> Result<LayerKv> {
        Ok(LayerKv {
            key: Tensor::cat(&[&self.key, &new.key], 1)?,
            value: Tensor::cat(&[&self.value, &new.value], 1)?,
        })
    }
}

/// The cache of all layers. Cloning shares the tensors, which are never changed in place.
#[derive(Debug, Clone)]
pub struct KvCache {
    tokens: usize,
    layers: Vec<Option<LayerKv>>,
}

impl KvCache {
    /// A cache that holds no token yet.
    pub fn empty(layers: usize) -> Self {
        Self { tokens: 0, layers: vec![None; layers] }
    }

    /// Puts tensors back: what [`KvCache::layers`] gave, as it was or changed.
    pub fn from_layers(layers: Vec<LayerKv>) -> Result<Self> {
        let mut tokens = None;
        for (index, layer) in layers.iter().enumerate() {
            let (key, value) = (layer.key.dims3()?, layer.value.dims3()?);
            let expected = *tokens.get_or_insert(key.1);
            if key != value || key.1 != expected {
                return Err(Error::input(format!(
                    "cache layer {index}: expected keys and values of {expected} tokens and one shape, \
                     found {key:?} and {value:?}"
                )));
            }
        }
        Ok(Self { tokens: tokens.unwrap_or(0), layers: layers.into_iter().map(Some).collect() })
    }

    /// Tokens held, which is the position of the next one.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The layers in order; empty for a cache without tokens.
    pub fn layers(&self) -> impl Iterator<Item = &LayerKv> {
        self.layers.iter().flatten()
    }

    /// One of them; `None`: there is no such layer, or no token.
    pub(crate) fn layer(&self, index: usize) -> Option<&LayerKv> {
        self.layers.get(index)?.as_ref()
    }

    /// The cache of the first `tokens` tokens only.
    pub fn truncated(&self, tokens: usize) -> Result<Self> {
        let layers = self
            .layers()
            .map(|layer| {
                Ok(LayerKv {
                    key: layer.key.narrow(1, 0, tokens)?.contiguous()?,
                    value: layer.value.narrow(1, 0, tokens)?.contiguous()?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Self::from_layers(layers)
    }

    pub(super) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Appends one layer's new keys and values and returns all of that layer's.
    /// [`KvCache::advance`] follows once every layer was extended.
    pub(super) fn extend(&mut self, layer: usize, new: LayerKv) -> Result<LayerKv> {
        let all = match &self.layers[layer] {
            None => new,
            Some(past) => past.followed_by(&new)?,
        };
        self.layers[layer] = Some(all.clone());
        Ok(all)
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
