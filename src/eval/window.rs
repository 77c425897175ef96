//! Windows: every arm through the model, and its logits held against the baseline's.
//!
//! All arms run in lock-step on a window: they share the baseline, and KL divergence needs no
//! stored logits. Only hidden states are kept; logits exist for a few targets at a time. Where arms are
//! few, several windows go through the model together.

use super::decode::streams_in_memory;
use super::scores::Logits;
use super::{CodecWindow, ModelArm, Observer, StageTimings, WindowOutcome};
use crate::corpus::{Window, WindowShape};
use crate::error::{Error, Result};
use crate::model::Model;
use candle_core::Tensor;
use std::time::{Duration, Instant};

/// Targets whose logits are in memory at once, twice: the baseline's and an arm's. 128 of a vocabulary
/// of 32,000 take 16 MB each; of one beyond 65,536 they are fewer, but enough to fill the product
/// with the head.
pub fn scored_at_once(vocab_size: usize) -> usize {
    const VALUES: usize = 1 << 23;
    (VALUES / vocab_size.max(1)).clamp(64, 128)
}

/// Passes of one window whose hidden states are in memory at once; each batch of them computes the
/// baseline's logits again.
const PASSES_AT_ONCE: usize = 8;

/// Passes of several windows whose hidden states are in memory at once: of short windows, more.
pub fn passes_at_once(tokens: usize) -> usize {
    streams_in_memory(tokens).max(PASSES_AT_ONCE)
}

/// A way of one window through the model.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Index of the window among those that go together.
    pub index: usize,
    /// Of one shape with the others.
    pub window: &'a Window,
    /// What its cache goes through; `None`: nothing.
    pub arm: Option<&'a ModelArm>,
}

/// A pass that has been through the model.
pub struct ArmPass {
    /// Of the positions that predict the scored targets. [targets, hidden]
    pub hidden: Tensor,
    /// Scores are still to come.
    pub outcome: CodecWindow,
}

/// How a protocol takes passes through the model.
pub trait RunPasses {
    /// Runs some of them. One arm's failure is not the others'.
    fn run(
        &mut self,
        passes: &[Pass],
        clock: &mut Clock,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>>;
}

/// Every window under the untouched cache and under every arm.
pub fn evaluate(
    model: &Model,
    windows: &[Window],
    arms: &[ModelArm],
    protocol: &mut dyn RunPasses,
    observer: &mut dyn Observer,
    timings: &mut StageTimings,
) -> Result<Vec<WindowOutcome>> {
    let mut clock = Clock::start();
    // The untouched cache goes through the model like the others, and first.
    let of_window = |(index, window)| {
        let each = [None].into_iter().chain(arms.iter().map(Some));
        each.map(move |arm| Pass { index, window, arm })
    };
    let all: Vec<Pass> = windows.iter().enumerate().flat_map(of_window).collect();
    let at_once = passes_at_once(windows.first().map_or(0, |window| window.tokens().len()));
    let mut done: Vec<WindowOutcome> = Vec::with_capacity(windows.len());
    let mut baseline = None;
    for batch in all.chunks(at_once) {
        let mut running = protocol.run(batch, &mut clock, observer, timings)?.into_iter();
        for of_window in batch.chunk_by(|a, b| a.index == b.index) {
            let mut running: Vec<_> = running.by_ref().take(of_window.len()).collect();
            if of_window[0].arm.is_none() {
                baseline = Some(running.remove(0)?.hidden);
                done.push(WindowOutcome { baseline: Vec::new(), arms: Vec::new() });
            }
            let (Some(done), Some(baseline)) = (done.last_mut(), &baseline) else {
                return Err(Error::system("an arm before its baseline"));
            };
            done.baseline = score(model, baseline, &of_window[0].window.targets(), &mut running)?;
            done.arms.extend(running.into_iter().map(|arm| arm.map(|arm| arm.outcome)));
        }
        clock.lap(&mut timings.scoring);
    }
    Ok(done)
}

/// Scores arms on one window, each of which fails alone. Returns −ln p of every scored target under the
/// untouched cache, nats.
fn score(
    model: &Model,
    baseline: &Tensor,
    targets: &[u32],
    arms: &mut [Result<ArmPass>],
) -> Result<Vec<f64>> {
    let at_once = scored_at_once(model.config().vocab_size);
    let mut nll = Vec::with_capacity(targets.len());
    for (index, targets) in targets.chunks(at_once).enumerate() {
        let logits = |hidden: &Tensor| -> Result<Logits> {
            let rows = hidden.narrow(0, index * at_once, targets.len())?;
            Logits::new(&model.logits(&rows)?)
        };
        let base = logits(baseline)?;
        let base_rows = base.base_rows(targets)?;
        nll.extend(base_rows.iter().map(|row| row.nll));
        for arm in &mut *arms {
            let scored = match arm {
                Ok(arm) => logits(&arm.hidden)
                    .and_then(|logits| logits.score(&base, &base_rows, targets))
                    .map(|scores| arm.outcome.scores.extend(scores)),
                Err(_) => continue,
            };
            if let Err(error) = scored {
                *arm = Err(error);
            }
        }
    }
    Ok(nll)
}

/// Rows of `hidden` that predict the scored targets: [positions, hidden] → [targets, hidden].
/// `first`: position of the first row.
pub fn predicting(hidden: &Tensor, shape: &WindowShape, first: usize) -> Result<Tensor> {
    let rows = |run: std::ops::Range<usize>| hidden.narrow(0, run.start - first, run.len());
    let runs = shape.predictors().map(rows).collect::<candle_core::Result<Vec<Tensor>>>()?;
    match <[Tensor; 1]>::try_from(runs) {
        Ok([run]) => Ok(run),
        Err(runs) => Ok(Tensor::cat(&runs, 0)?),
    }
}

/// The error of a pass that gave fewer results than it had arms.
pub fn without_hidden() -> Error {
    Error::system("an arm without hidden states")
}

pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// [`Clock::lap`] of which `inner` was another stage's.
    pub fn lap_apart(&mut self, stage: &mut Duration, (inner, of): (Duration, &mut Duration)) {
        let mut all = Duration::ZERO;
        self.lap(&mut all);
        *of += inner;
        *stage += all.saturating_sub(inner);
    }

    /// Adds the time since the last lap to `stage`.
    pub fn lap(&mut self, stage: &mut Duration) {
        let now = Instant::now();
        *stage += now - self.0;
        self.0 = now;
    }
}
