//! Which part of a cache carries a codec's damage: the parts that are compressed alone, the rest
//! of the cache exact.

use super::{Arm, Scope, Side, Treatment};
use serde::Serialize;

/// One thing for each part of a cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CacheParts<T> {
    /// Keys of all layers.
    pub key: T,
    /// Values of all layers.
    pub value: T,
    /// One a layer.
    pub layers: Vec<LayerParts<T>>,
    /// One a KV head.
    pub heads: Vec<HeadParts<T>>,
}

/// One layer, all its heads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerParts<T> {
    /// Index of the layer, from 0.
    pub layer: usize,
    /// Its keys.
    pub key: T,
    /// Its values.
    pub value: T,
}

/// One KV head, in all layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadParts<T> {
    /// Index of the KV head, from 0.
    pub head: usize,
    /// Keys and values.
    pub both: T,
    /// Its keys.
    pub key: T,
    /// Its values.
    pub value: T,
}

impl CacheParts<Scope> {
    /// All parts of a cache of so many layers and KV heads.
    pub fn of(layers: usize, kv_heads: usize) -> Self {
        let all = |side| Scope { side, ..Scope::default() };
        let (key, value) = (all(Some(Side::Key)), all(Some(Side::Value)));
        let of_layer = |layer| LayerParts {
            layer,
            key: Scope { layer: Some(layer), ..key },
            value: Scope { layer: Some(layer), ..value },
        };
        let of_head = |head| HeadParts {
            head,
            both: Scope { head: Some(head), ..Scope::default() },
            key: Scope { head: Some(head), ..key },
            value: Scope { head: Some(head), ..value },
        };
        Self {
            key,
            value,
            layers: (0..layers).map(of_layer).collect(),
            heads: (0..kv_heads).map(of_head).collect(),
        }
    }

    /// A codec on each part alone, in the order of [`CacheParts::map`].
    pub fn arms(&self, treatment: &Treatment) -> Vec<Arm> {
        let mut arms = Vec::new();
        self.map(|scope| arms.push(Arm { treatment: treatment.clone(), scope: *scope }));
        arms
    }
}

impl<T> CacheParts<T> {
    /// Keys before values: of all layers, of each layer, and of each head after both together.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> CacheParts<U> {
        let (key, value) = (f(&self.key), f(&self.value));
        let layers = self.layers.iter().map(|of| LayerParts {
            layer: of.layer,
            key: f(&of.key),
            value: f(&of.value),
        });
        let layers = layers.collect();
        let heads = self.heads.iter().map(|of| HeadParts {
            head: of.head,
            both: f(&of.both),
            key: f(&of.key),
            value: f(&of.value),
        });
        CacheParts { key, value, layers, heads: heads.collect() }
    }

    /// How many.
    pub fn count(&self) -> usize {
        2 + 2 * self.layers.len() + 3 * self.heads.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::HeadScope;

    #[test]
    fn every_part_is_there_once_and_none_is_everything() {
        for (layers, heads) in [(1, 1), (1, 4), (3, 2)] {
            let arms = CacheParts::of(layers, heads).arms(&"int4-g64".parse().unwrap());
            assert_eq!(arms.len(), CacheParts::of(layers, heads).count());
            for (i, arm) in arms.iter().enumerate() {
                assert!(!arms[..i].contains(arm), "{:?} twice", arm.scope);
                assert_ne!(arm.scope, Scope::default());
            }
            let alone = Scope { layer: Some(layers - 1), side: Some(Side::Value), head: None };
            assert!(arms.iter().any(|arm| arm.scope == alone));
        }
    }

    #[test]
    fn a_scope_holds_its_part_and_nothing_else() {
        let parts = CacheParts::of(3, 2);
        let heads = |scope: &Scope, layer, side| scope.heads(layer, side);
        assert_eq!(heads(&parts.key, 2, Side::Key), HeadScope::All);
        assert_eq!(heads(&parts.key, 2, Side::Value), HeadScope::None);
        assert_eq!(heads(&parts.layers[1].value, 1, Side::Value), HeadScope::All);
        assert_eq!(heads(&parts.layers[1].value, 0, Side::Value), HeadScope::None);
        assert_eq!(heads(&parts.layers[1].value, 1, Side::Key), HeadScope::None);
        assert_eq!(heads(&parts.heads[1].both, 0, Side::Key), HeadScope::Only(1));
        assert_eq!(heads(&parts.heads[1].key, 0, Side::Value), HeadScope::None);
    }
}
