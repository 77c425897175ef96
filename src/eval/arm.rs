//! Arms: the treatments of the cache that are held against the untouched one.

use super::{LayerTreatment, Side, SideTreatment, Treatment};
use crate::codec::Codec;
use crate::error::Result;
use crate::model::LayerKv;
use candle_core::Tensor;

/// Something to hold against the untouched cache: a codec for all of it or for a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// A codec, or noise as large as its error.
    pub treatment: Treatment,
    /// The part of the cache that is treated.
    pub scope: Scope,
}

impl Arm {
    /// A treatment of the whole cache.
    pub fn of(treatment: Treatment) -> Self {
        Self { treatment, scope: Scope::default() }
    }

    /// On a model of so many layers.
    ///
    /// # Errors
    /// A layer that is named and not there.
    pub fn on(&self, layers: usize) -> Result<ModelArm> {
        Ok(ModelArm { layers: self.treatment.of_layers(layers)?, scope: self.scope })
    }
}

/// An arm on a model, whose number of layers is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelArm {
    /// The treatment of each.
    pub layers: Vec<LayerTreatment>,
    /// The part of the cache that is treated.
    pub scope: Scope,
}

impl ModelArm {
    /// The treatment of one layer's keys or values.
    pub fn side(&self, layer: usize, side: Side) -> SideTreatment {
        let f16 = |layer: &LayerTreatment| layer.as_codec().is_some_and(|codec| codec.is_f16());
        SideTreatment { floor: self.layers.iter().all(f16), ..self.layers[layer].side(side) }
    }

    /// The codecs of its layers, one a layer.
    pub fn codecs(&self) -> impl Iterator<Item = Codec> {
        self.layers.iter().map(|layer| layer.codec)
    }
}

impl LayerKv {
    /// The keys or the values.
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
    /// This layer alone.
    pub layer: Option<usize>,
    /// Keys or values alone.
    pub side: Option<Side>,
    /// This KV head alone.
    pub head: Option<usize>,
}

/// The heads of one tensor that are in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadScope {
    /// Every head.
    All,
    /// No head.
    None,
    /// One head.
    Only(usize),
}

impl Scope {
    /// The heads in scope of one layer's keys or values.
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
