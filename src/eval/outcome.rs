//! Outcomes: what each arm did, window by window.

use super::scores::TokenScore;
use super::{Side, Treatment};
use crate::codec::DistortionSum;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All windows under one codec.
#[derive(Debug, Clone)]
pub struct CodecOutcome {
    /// The treatment, whose name is the codec's in all results.
    pub codec: Treatment,
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerDistortion {
    pub key: DistortionSum,
    pub value: DistortionSum,
}

impl LayerDistortion {
    pub(super) fn add(&mut self, side: Side, distortion: DistortionSum) {
        let sum = match side {
            Side::Key => &mut self.key,
            Side::Value => &mut self.value,
        };
        *sum = sum.plus(distortion);
    }
}

/// The result of one protocol on one model and text.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// −ln p of every scored target under the untouched cache, nats. `[windows][targets]`
    pub baseline: Vec<Vec<f64>>,
    /// In the order asked for.
    pub codecs: Vec<CodecOutcome>,
    pub timings: StageTimings,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct StageTimings {
    pub prefill: Duration,
    pub codec: Duration,
    pub continuation: Duration,
    pub scoring: Duration,
}

impl StageTimings {
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
        }
    }
    sums
}
