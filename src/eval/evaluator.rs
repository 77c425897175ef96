//! The evaluator: a protocol on a model, a few windows at a time.

use super::decode::DecodePasses;
use super::prefix::PrefixPasses;
use super::protocol::Protocol;
use super::round_trip::CodecContext;
use super::{Arm, CodecOutcome, Evaluation, Observer, StageTimings, WindowOutcome};
use super::{passes_at_once, window};
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
        let mut rest = windows;
        while !rest.is_empty() {
            let (together, others) = rest.split_at(self.windows_at_once(rest, arms)?);
            rest = others;
            for outcome in
                self.evaluate_windows(together, arms, observer, &mut evaluation.timings)?
            {
                evaluation.baseline.push(outcome.baseline);
                for (codec, arm) in evaluation.codecs.iter_mut().zip(outcome.arms) {
                    codec.windows.push(arm?);
                }
            }
        }
        Ok(evaluation)
    }

    /// How many of the first of these windows [`Evaluator::evaluate_windows`] should get at once, at
    /// least one: such as are of one shape, and with few arms and tokens more of them.
    pub fn windows_at_once(&self, windows: &[Window], arms: &[Arm]) -> Result<usize> {
        let Some(first) = windows.first() else { return Ok(0) };
        let tokens = first.tokens().len();
        let caches = match self.protocol {
            Protocol::Prefix { .. } => self.model.caches_at_once(first.shape().prefix())?,
            Protocol::Decode { chunk, .. } => self.model.caches_at_once(chunk.min(tokens))?,
        };
        let most = (passes_at_once(tokens) / (1 + arms.len())).clamp(1, caches);
        let alike = windows.iter().take_while(|window| window.shape() == first.shape());
        Ok(alike.take(most).count())
    }

    /// Windows of one shape under the untouched cache and under every arm, in their order. What comes
    /// out is the same bits whichever windows go together.
    pub fn evaluate_windows(
        &self,
        windows: &[Window],
        arms: &[Arm],
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<WindowOutcome>> {
        let layers = self.model.config().layers.len();
        let arms = arms.iter().map(|arm| arm.on(layers)).collect::<Result<Vec<_>>>()?;
        let (model, context) = (&self.model, &self.context);
        let mut outcomes = match self.protocol {
            Protocol::Prefix { residual } => {
                let mut passes =
                    PrefixPasses::prefill(model, context, windows, residual, observer, timings)?;
                window::evaluate(model, windows, &arms, &mut passes, observer, timings)
            }
            Protocol::Decode { residual, chunk } => {
                let mut passes = DecodePasses { model, context, residual, chunk };
                window::evaluate(model, windows, &arms, &mut passes, observer, timings)
            }
        }?;
        let sliding = model.config().sliding_windows();
        for (outcome, window) in outcomes.iter_mut().zip(windows) {
            for (arm, done) in arms.iter().zip(&mut outcome.arms) {
                let Ok(done) = done else { continue };
                let codecs = self.protocol.seen(arm.codecs(), &sliding);
                let head_dim = self.model.config().head_dim();
                let affected = self.protocol.targets_affected(head_dim, window.shape(), &codecs)?;
                done.targets_affected = affected as u64;
            }
        }
        Ok(outcomes)
    }
}
