//! The `prefix` protocol: prefill the first half of a window, compress and reinject its cache,
//! run the second half in one pass over it.
//!
//! The continuation's own keys and values stay exact, and so do the last `residual` tokens of the
//! first half. The first continuation token is predicted
//! by the prefix pass, which no codec touches, so it is not scored.

use super::round_trip::{CodecContext, round_trip};
use super::window::{ArmPass, Clock, Pass, RunPasses, predicting};
use super::{CodecWindow, ModelArm, Observer, StageTimings};
use crate::corpus::Window;
use crate::error::Result;
use crate::model::{KvCache, LayerKv, Model};
use candle_core::Tensor;
use std::time::{Duration, Instant};

/// The caches of some windows' first halves, and the tokens that run over them.
pub struct PrefixPasses<'a> {
    model: &'a Model,
    context: &'a CodecContext,
    /// One a window.
    caches: Vec<KvCache>,
    /// Last tokens of each that stay exact.
    residual: usize,
}

impl<'a> PrefixPasses<'a> {
    /// `windows`: of one shape.
    pub fn prefill(
        model: &'a Model,
        context: &'a CodecContext,
        windows: &[Window],
        residual: usize,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Self> {
        let mut clock = Clock::start();
        let mut caches: Vec<KvCache> = windows.iter().map(|_| model.empty_cache()).collect();
        let prefix = windows.first().map_or(0, |window| window.shape().prefix());
        let prefixes: Vec<&[u32]> =
            windows.iter().map(|window| &window.tokens()[..prefix]).collect();
        let at_once = model.caches_at_once(prefix)?;
        for (prefixes, caches) in prefixes.chunks(at_once).zip(caches.chunks_mut(at_once)) {
            model.forward_each(prefixes, caches)?;
            observer.advanced(prefixes.len() * prefix);
        }
        clock.lap(&mut timings.prefill);
        Ok(Self { model, context, caches, residual })
    }

    /// Runs continuations over the caches as each arm gives them back, layer by layer: no arm's is in
    /// memory whole.
    fn continued(
        &self,
        passes: &[Pass],
        clock: &mut Clock,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let prefix = self.caches.first().map_or(0, KvCache::tokens);
        let mut restored: Vec<RestoredCache> =
            passes.iter().map(|pass| self.restored(pass)).collect();
        let mut in_codecs = Duration::ZERO;
        let mut attended = |pass: usize, layer: usize, new: LayerKv| -> Result<LayerKv> {
            let Some(exact) = self.caches[passes[pass].index].layer(layer) else { return Ok(new) };
            let clock = Instant::now();
            let restored = restored[pass].layer(exact, self.context, self.residual);
            in_codecs += clock.elapsed();
            restored.followed_by(&new)
        };
        let continuations: Vec<&[u32]> = passes.iter().map(continuation).collect();
        let hidden = self.model.forward_attending(&continuations, prefix, &mut attended)?;
        clock.lap_apart(&mut timings.continuation, (in_codecs, &mut timings.codec));
        let done = restored.into_iter().zip(passes).zip(hidden);
        let pass = |((restored, pass), hidden): ((RestoredCache, &Pass), Tensor)| {
            let (outcome, shape) = (restored.outcome?, pass.window.shape());
            Ok(ArmPass { hidden: predicting(&hidden, shape, shape.prefix())?, outcome })
        };
        Ok(done.map(pass).collect())
    }

    fn restored<'b>(&self, pass: &Pass<'b>) -> RestoredCache<'b> {
        let arm = pass.arm;
        let cached_tokens = arm.map_or(0, |_| self.caches[pass.index].tokens() as u64);
        RestoredCache { arm, outcome: Ok(CodecWindow { cached_tokens, ..Default::default() }) }
    }
}

/// The tokens that run over the cache.
fn continuation<'a>(pass: &Pass<'a>) -> &'a [u32] {
    &pass.window.inputs()[pass.window.shape().prefix()..]
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

impl RunPasses for PrefixPasses<'_> {
    fn run(
        &mut self,
        passes: &[Pass],
        clock: &mut Clock,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let mut done = Vec::with_capacity(passes.len());
        let tokens = passes.first().map_or(0, |pass| continuation(pass).len());
        for some in passes.chunks(self.model.caches_at_once(tokens)?) {
            done.extend(self.continued(some, clock, timings)?);
            observer.advanced(some.len() * tokens);
        }
        Ok(done)
    }
}
