//! The `prefix` protocol: prefill the first half of a window, compress and reinject its cache,
//! run the second half in one pass over it.
//!
//! The continuation's own keys and values stay exact. The first continuation token is predicted
//! by the prefix pass, which no codec touches, so it is not scored.

use super::round_trip::{CacheRoundTrip, CodecContext, round_trip};
use super::window::{ArmPass, Clock, RunArms, predicting, without_hidden};
use super::{Arm, CodecWindow, Observer, StageTimings};
use crate::corpus::Window;
use crate::error::Result;
use crate::model::{KvCache, Model};

/// The cache of one window's first half, and the tokens that run over it.
pub struct PrefixPasses<'a> {
    model: &'a Model,
    context: &'a CodecContext,
    cache: KvCache,
    window: &'a Window,
}

impl<'a> PrefixPasses<'a> {
    pub fn prefill(
        model: &'a Model,
        context: &'a CodecContext,
        window: &'a Window,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Self> {
        let mut clock = Clock::start();
        let prefix = window.shape().prefix();
        let mut cache = model.empty_cache();
        model.forward(&window.tokens()[..prefix], &mut cache)?;
        clock.lap(&mut timings.prefill);
        observer.advanced(prefix);
        Ok(Self { model, context, cache, window })
    }

    /// The tokens that run over the cache.
    fn continuation(&self) -> &[u32] {
        &self.window.inputs()[self.window.shape().prefix()..]
    }

    /// The cache as the arm gives it back; as it is without one.
    fn restored(&self, arm: Option<&Arm>) -> Result<CacheRoundTrip> {
        match arm {
            Some(arm) => round_trip(&self.cache, arm, self.context),
            None => {
                Ok(CacheRoundTrip { cache: self.cache.clone(), outcome: CodecWindow::default() })
            }
        }
    }

    /// Runs the continuation over several caches, but those whose codec failed.
    fn continued(&self, restored: Vec<Result<CacheRoundTrip>>) -> Result<Vec<Result<ArmPass>>> {
        let mut caches: Vec<KvCache> =
            restored.iter().flatten().map(|arm| arm.cache.clone()).collect();
        let (model, shape) = (self.model, self.window.shape());
        let mut hidden = model.forward_each(self.continuation(), &mut caches)?.into_iter();
        let pass = |restored: Result<CacheRoundTrip>| {
            let outcome = restored?.outcome;
            let hidden = hidden.next().ok_or_else(without_hidden)?;
            Ok(ArmPass { hidden: predicting(&hidden, shape, shape.prefix())?, outcome })
        };
        Ok(restored.into_iter().map(pass).collect())
    }
}

impl RunArms for PrefixPasses<'_> {
    fn run(
        &mut self,
        arms: &[Option<&Arm>],
        clock: &mut Clock,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let mut done = Vec::with_capacity(arms.len());
        let tokens = self.continuation().len();
        for some in arms.chunks(self.model.caches_at_once(tokens)) {
            let restored = some.iter().map(|arm| self.restored(*arm)).collect();
            clock.lap(&mut timings.codec);
            done.extend(self.continued(restored)?);
            clock.lap(&mut timings.continuation);
            observer.advanced(some.len() * tokens);
        }
        Ok(done)
    }
}
