//! The evaluator: a protocol on a model, window by window.

use super::decode::DecodePasses;
use super::prefix::PrefixPasses;
use super::protocol::Protocol;
use super::round_trip::CodecContext;
use super::{Arm, CodecOutcome, Evaluation, Observer, StageTimings, WindowOutcome, window};
use crate::codec::Codec;
use crate::corpus::{Window, WindowShape};
use crate::error::Result;
use crate::model::Model;

/// A protocol on a model, ready for windows of one length.
pub struct Evaluator {
    /// The model that windows go through, for their length.
    model: Model,
    /// How the cache is compressed.
    pub protocol: Protocol,
    context: CodecContext,
}

impl Evaluator {
    /// `context`: the longest window; `seed`: of the noise that controls draw.
    pub fn new(model: &Model, protocol: Protocol, context: usize, seed: u64) -> Self {
        let model = model.for_context(context);
        let context = CodecContext::new(model.rotary_embeddings(), context, seed);
        Self { model, protocol, context }
    }

    /// Evaluates all arms on all windows.
    pub fn evaluate(
        &self,
        windows: &[Window],
        arms: &[Arm],
        observer: &mut dyn Observer,
    ) -> Result<Evaluation> {
        let mut shapes: Vec<&WindowShape> = windows.iter().map(Window::shape).collect();
        shapes.dedup();
        for (shape, arm) in shapes.iter().flat_map(|shape| arms.iter().map(move |arm| (shape, arm)))
        {
            self.protocol.check(self.model.config(), shape, &arm.treatment)?;
        }
        let outcome =
            |arm: &Arm| CodecOutcome { codec: arm.treatment.clone(), windows: Vec::new() };
        let mut evaluation = Evaluation {
            baseline: Vec::with_capacity(windows.len()),
            codecs: arms.iter().map(outcome).collect(),
            timings: StageTimings::default(),
        };
        for window in windows {
            let outcome = self.evaluate_window(window, arms, observer, &mut evaluation.timings)?;
            evaluation.baseline.push(outcome.baseline);
            for (codec, arm) in evaluation.codecs.iter_mut().zip(outcome.arms) {
                codec.windows.push(arm?);
            }
        }
        Ok(evaluation)
    }

    /// One window under the untouched cache and under every arm.
    pub fn evaluate_window(
        &self,
        window: &Window,
        arms: &[Arm],
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<WindowOutcome> {
        let layers = self.model.config().layers.len();
        let arms = arms.iter().map(|arm| arm.on(layers)).collect::<Result<Vec<_>>>()?;
        let mut outcome = match self.protocol {
            Protocol::Prefix { residual } => {
                let (model, context) = (&self.model, &self.context);
                let mut passes =
                    PrefixPasses::prefill(model, context, window, residual, observer, timings)?;
                window::evaluate(model, window, &arms, &mut passes, observer, timings)
            }
            Protocol::Decode { residual, chunk } => {
                let (model, context) = (&self.model, &self.context);
                let mut passes = DecodePasses { model, context, window, residual, chunk };
                window::evaluate(model, window, &arms, &mut passes, observer, timings)
            }
        }?;
        for (arm, done) in arms.iter().zip(&mut outcome.arms) {
            if let Ok(done) = done {
                let codecs: Vec<Codec> = arm.codecs().collect();
                let head_dim = self.model.config().head_dim();
                let affected = self.protocol.targets_affected(head_dim, window.shape(), &codecs)?;
                done.targets_affected = affected as u64;
            }
        }
        Ok(outcome)
    }
}
