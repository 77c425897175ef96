//! Outcomes: what each arm did, window by window.

use super::Treatment;
use super::scores::TokenScore;
use crate::codec::DistortionSum;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All windows under one codec.
#[derive(Debug, Clone)]
pub struct CodecOutcome {
    /// The treatment, whose name is the codec's in all results.
    pub codec: Treatment,
    /// One a window, in order.
    pub windows: Vec<CodecWindow>,
}

/// One window under one codec.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CodecWindow {
    /// One a scored target.
    pub scores: Vec<TokenScore>,
    /// Scored targets whose prediction can feel the codec.
    pub targets_affected: u64,
    /// One a layer.
    pub layers: Vec<LayerDistortion>,
    /// Bytes of all payloads.
    pub stored_bytes: u64,
    /// Values those bytes stand for.
    pub values: u64,
    /// Tokens those values stand for.
    pub cached_tokens: u64,
}

/// One window under the untouched cache and under every codec.
pub struct WindowOutcome {
    /// −ln p of every scored target under the untouched cache, nats.
    pub baseline: Vec<f64>,
    /// In the order asked for. One codec's failure is not the others'.
    pub arms: Vec<Result<CodecWindow>>,
}

/// Distortion of one layer, and what it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerDistortion {
    /// Of its keys.
    pub key: DistortionSum,
    /// Of its values.
    pub value: DistortionSum,
    /// The size of its keys; empty in older logs and those of other programs.
    #[serde(default, skip_serializing_if = "StoredSize::is_empty")]
    pub key_size: StoredSize,
    /// The size of its values.
    #[serde(default, skip_serializing_if = "StoredSize::is_empty")]
    pub value_size: StoredSize,
}

/// What keys or values take as they are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSize {
    /// Bytes of their payloads, and two for each value that is kept in 16 bits.
    pub bytes: u64,
    /// Values those bytes stand for.
    pub values: u64,
    /// Of these, the ones that are kept in 16 bits where the others are packed: sinks, the residual,
    /// and what fills no block yet.
    #[serde(default)]
    pub exact: u64,
}

impl StoredSize {
    /// So many values that are kept in 16 bits.
    pub(super) fn exact(values: u64) -> Self {
        Self { bytes: 2 * values, values, exact: values }
    }

    /// Whether nothing is known of it, or nothing there.
    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// Stored bits a value; `None` without values.
    pub fn bits_per_value(&self) -> Option<f64> {
        (!self.is_empty()).then(|| 8.0 * self.bytes as f64 / self.values as f64)
    }

    /// Together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            values: self.values + other.values,
            exact: self.exact + other.exact,
        }
    }
}

impl CodecWindow {
    /// Adds the next layer.
    pub(super) fn push_layer(&mut self, layer: LayerDistortion) {
        for size in [layer.key_size, layer.value_size] {
            self.stored_bytes += size.bytes;
            self.values += size.values;
        }
        self.layers.push(layer);
    }
}

/// The result of one protocol on one model and text.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// −ln p of every scored target under the untouched cache, nats. `[windows][targets]`
    pub baseline: Vec<Vec<f64>>,
    /// In the order asked for.
    pub codecs: Vec<CodecOutcome>,
    /// Seconds of all windows, by stage.
    pub timings: StageTimings,
}

/// Time by stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct StageTimings {
    /// The exact pass over prefixes.
    pub prefill: Duration,
    /// Compressing, decompressing and measuring distortion.
    pub codec: Duration,
    /// Passes over the rest of the windows, of all arms.
    pub continuation: Duration,
    /// Logits and scores.
    pub scoring: Duration,
}

impl StageTimings {
    /// The sum, stage by stage.
    pub fn plus(self, other: Self) -> Self {
        Self {
            prefill: self.prefill + other.prefill,
            codec: self.codec + other.codec,
            continuation: self.continuation + other.continuation,
            scoring: self.scoring + other.scoring,
        }
    }
}

impl CodecOutcome {
    /// `[windows][scored targets]`
    pub fn scores(&self) -> Vec<&[TokenScore]> {
        self.windows.iter().map(|window| window.scores.as_slice()).collect()
    }
}

/// Distortion of each layer, summed over windows.
pub fn layer_sums(windows: &[CodecWindow]) -> Vec<LayerDistortion> {
    let layers = windows.first().map_or(0, |window| window.layers.len());
    let mut sums = vec![LayerDistortion::default(); layers];
    for window in windows {
        for (sum, layer) in sums.iter_mut().zip(&window.layers) {
            sum.key = sum.key.plus(layer.key);
            sum.value = sum.value.plus(layer.value);
            sum.key_size = sum.key_size.plus(layer.key_size);
            sum.value_size = sum.value_size.plus(layer.value_size);
        }
    }
    sums
}
