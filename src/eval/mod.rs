//! Evaluation: windows of tokens in, scores of every codec out.

pub mod prefix;
mod round_trip;
pub mod scores;
pub mod stats;

use crate::codec::{Codec, DistortionSum};
use scores::TokenScore;
use std::time::Duration;

/// What one codec did, over all windows.
#[derive(Debug, Clone)]
pub struct CodecOutcome {
    pub codec: Codec,
    /// [windows][scored targets]
    pub scores: Vec<Vec<TokenScore>>,
    /// One a layer, summed over windows.
    pub layers: Vec<LayerDistortion>,
    /// Bytes of all payloads.
    pub stored_bytes: u64,
    /// Values those bytes stand for.
    pub values: u64,
    /// Prefix tokens those values stand for.
    pub cached_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct LayerDistortion {
    pub key: DistortionSum,
    pub value: DistortionSum,
}

/// The result of one protocol on one model and text.
#[derive(Debug, Clone)]
pub struct Evaluation {
    pub protocol: &'static str,
    /// Tokens of a window whose cache is compressed.
    pub prefix: usize,
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

/// Hears how far the evaluation is. Called from the evaluating thread only.
pub trait Observer {
    /// `tokens` more went through the model.
    fn advanced(&mut self, tokens: usize);
}

impl Observer for () {
    fn advanced(&mut self, _: usize) {}
}
