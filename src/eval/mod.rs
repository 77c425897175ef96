//! Evaluation: windows of tokens in, scores of every codec out.

mod arm;
pub mod attribution;
mod decode;
mod device_scores;
mod evaluator;
mod noise;
mod outcome;
mod prefix;
pub mod protocol;
mod round_trip;
pub mod scores;
pub mod stats;
mod treatment;
pub mod verdict;
mod window;

pub use crate::codec::Side;
pub use arm::{Arm, HeadScope, ModelArm, Scope};
pub use decode::streams_in_memory;
pub use evaluator::Evaluator;
pub use outcome::{
    CodecOutcome, CodecWindow, Evaluation, LayerDistortion, StageTimings, StoredSize,
    WindowOutcome, layer_sums,
};
pub use protocol::Protocol;
pub use treatment::{LayerTreatment, SideTreatment, Treatment};
pub use window::{passes_at_once, scored_at_once};

/// Hears how far the evaluation is. Called from the evaluating thread only.
pub trait Observer {
    /// `tokens` more went through the model.
    fn advanced(&mut self, tokens: usize);
}

impl Observer for () {
    fn advanced(&mut self, _: usize) {}
}
