//! One window: every arm through the model, and its logits held against the baseline's.
//!
//! All arms run in lock-step on a window: they share the baseline, and KL divergence needs no
//! stored logits. Only hidden states are kept; logits exist for a few targets at a time.

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

/// Codecs whose hidden states are in memory at once; each batch computes the baseline's logits
/// again.
pub const ARMS_AT_ONCE: usize = 8;

/// An arm that has been through the model.
pub struct ArmPass {
    /// Of the positions that predict the scored targets. [targets, hidden]
    pub hidden: Tensor,
    /// Scores are still to come.
    pub outcome: CodecWindow,
}

/// How a protocol takes arms through the model.
pub trait RunArms {
    /// Runs some arms; `None` is the untouched cache. One arm's failure is not the others'.
    fn run(
        &mut self,
        arms: &[Option<&ModelArm>],
        clock: &mut Clock,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>>;
}

pub fn evaluate(
    model: &Model,
    window: &Window,
    arms: &[ModelArm],
    passes: &mut dyn RunArms,
    observer: &mut dyn Observer,
    timings: &mut StageTimings,
) -> Result<WindowOutcome> {
    let targets = window.targets();
    let at_once = scored_at_once(model.config().vocab_size);
    let mut clock = Clock::start();
    // The untouched cache goes through the model like the others, and first.
    let all: Vec<Option<&ModelArm>> = [None].into_iter().chain(arms.iter().map(Some)).collect();
    let mut base_hidden = None;
    let (mut baseline, mut done) = (Vec::new(), Vec::with_capacity(arms.len()));
    for batch in all.chunks(ARMS_AT_ONCE) {
        let mut running = passes.run(batch, &mut clock, observer, timings)?;
        let first = base_hidden.is_none();
        let base_hidden = match &mut base_hidden {
            Some(hidden) => hidden,
            none => none.insert(running.remove(0)?.hidden),
        };
        for (index, targets) in targets.chunks(at_once).enumerate() {
            let logits = |hidden: &Tensor| -> Result<Logits> {
                let rows = hidden.narrow(0, index * at_once, targets.len())?;
                Logits::new(&model.logits(&rows)?)
            };
            let base = logits(base_hidden)?;
            let base_rows = base.base_rows(targets)?;
            if first {
                baseline.extend(base_rows.iter().map(|row| row.nll));
            }
            for arm in &mut running {
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
        done.extend(running.into_iter().map(|arm| arm.map(|arm| arm.outcome)));
        clock.lap(&mut timings.scoring);
    }
    Ok(WindowOutcome { baseline, arms: done })
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
