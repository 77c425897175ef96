//! The `prefix` protocol: prefill the first half of a window, compress and reinject its cache,
//! run the second half in one pass over it.
//!
//! The continuation's own keys and values stay exact, and so do the last `residual` tokens of the
//! first half. The first continuation token is predicted
//! by the prefix pass, which no codec touches, so it is not scored.

use super::round_trip::{CodecContext, round_trip};
use super::window::{ArmPass, Clock, RunArms, predicting};
use super::{CodecWindow, ModelArm, Observer, StageTimings};
use crate::corpus::Window;
use crate::error::Result;
use crate::model::{KvCache, LayerKv, Model};
use candle_core::Tensor;
use std::time::{Duration, Instant};

/// The cache of one window's first half, and the tokens that run over it.
pub struct PrefixPasses<'a> {
    model: &'a Model,
    context: &'a CodecContext,
    cache: KvCache,
    window: &'a Window,
    /// Last tokens of the cache that stay exact.
    residual: usize,
}

impl<'a> PrefixPasses<'a> {
    pub fn prefill(
        model: &'a Model,
        context: &'a CodecContext,
        window: &'a Window,
        residual: usize,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Self> {
        let mut clock = Clock::start();
        let prefix = window.shape().prefix();
        let mut cache = model.empty_cache();
        model.forward(&window.tokens()[..prefix], &mut cache)?;
        clock.lap(&mut timings.prefill);
        observer.advanced(prefix);
        Ok(Self { model, context, cache, window, residual })
    }

    /// The tokens that run over the cache.
    fn continuation(&self) -> &[u32] {
        &self.window.inputs()[self.window.shape().prefix()..]
    }

    /// Runs the continuation over the cache as each arm gives it back, layer by layer: no arm's is in
    /// memory whole.
    fn continued(
        &self,
        arms: &[Option<&ModelArm>],
        clock: &mut Clock,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let (model, shape) = (self.model, self.window.shape());
        let tokens = self.cache.tokens();
        let mut arms: Vec<RestoredCache> = arms.iter().map(|arm| self.restored(*arm)).collect();
        let count = arms.len();
        let mut in_codecs = Duration::ZERO;
        let mut attended = |arm: usize, layer: usize, new: LayerKv| -> Result<LayerKv> {
            let Some(exact) = self.cache.layer(layer) else { return Ok(new) };
            let clock = Instant::now();
            let restored = arms[arm].layer(exact, self.context, self.residual);
            in_codecs += clock.elapsed();
            restored.followed_by(&new)
        };
        let hidden = model.forward_attending(self.continuation(), tokens, count, &mut attended)?;
        clock.lap_apart(&mut timings.continuation, (in_codecs, &mut timings.codec));
        let pass = |(arm, hidden): (RestoredCache, Tensor)| {
            let outcome = arm.outcome?;
            Ok(ArmPass { hidden: predicting(&hidden, shape, shape.prefix())?, outcome })
        };
        Ok(arms.into_iter().zip(hidden).map(pass).collect())
    }

    fn restored<'b>(&self, arm: Option<&'b ModelArm>) -> RestoredCache<'b> {
        let cached_tokens = arm.map_or(0, |_| self.cache.tokens() as u64);
        RestoredCache { arm, outcome: Ok(CodecWindow { cached_tokens, ..Default::default() }) }
    }
}

/// The cache as an arm gives it back, a layer at a time.
struct RestoredCache<'a> {
    /// `None`: as it is.
    arm: Option<&'a ModelArm>,
    /// Of the layers so far, or the first error: one arm's failure is not the others'.
    outcome: Result<CodecWindow>,
}

impl RestoredCache<'_> {
    /// The next layer; as it is, once the codec has failed.
    fn layer(&mut self, exact: &LayerKv, context: &CodecContext, residual: usize) -> LayerKv {
        let (Some(arm), Ok(outcome)) = (self.arm, &mut self.outcome) else { return exact.clone() };
        match round_trip(exact, arm, context, residual, outcome) {
            Ok(restored) => restored,
            Err(error) => {
                self.outcome = Err(error);
                exact.clone()
            }
        }
    }
}

impl RunArms for PrefixPasses<'_> {
    fn run(
        &mut self,
        arms: &[Option<&ModelArm>],
        clock: &mut Clock,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let mut done = Vec::with_capacity(arms.len());
        let tokens = self.continuation().len();
        for some in arms.chunks(self.model.caches_at_once(tokens)) {
            done.extend(self.continued(some, clock, timings)?);
            observer.advanced(some.len() * tokens);
        }
        Ok(done)
    }
}
