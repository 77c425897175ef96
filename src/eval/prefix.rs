//! The `prefix` protocol: prefill the first half of a window, compress and reinject its cache,
//! run the second half in one pass over it.
//!
//! The continuation's own keys and values stay exact. The first continuation token is predicted
//! by the prefix pass, which no codec touches, so it is not scored. All arms run in lock-step on
//! a window: they share the prefill and the baseline, and KL divergence needs no stored logits.
//! Only hidden states are kept; logits exist for a few targets at a time.

use super::scores::Logits;
use super::{CodecOutcome, Evaluation, Observer, StageTimings};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::model::{Llama, ModelConfig};
use candle_core::Tensor;
use std::time::{Duration, Instant};

/// The name every output carries.
const NAME: &str = "prefix";

/// Targets whose logits are in memory at once: 128 × 32000 f32 are 16 MB an arm.
const SCORED_AT_ONCE: usize = 128;

/// Tokens that get compressed.
fn prefix_len(context: usize) -> usize {
    context / 2
}

/// Targets scored in a window of `context` tokens: `prefix + 1 … context − 1`.
fn scored_len(context: usize) -> usize {
    (context - prefix_len(context)).saturating_sub(1)
}

/// Tokens that go through the model for one window, which is what progress counts.
pub fn model_tokens(context: usize, codecs: usize) -> usize {
    prefix_len(context) + (1 + codecs) * scored_len(context)
}

/// Evaluates all codecs on all windows. Every window has the same length, at least 4.
pub fn evaluate(
    model: &Llama,
    windows: &[Vec<u32>],
    codecs: &[Codec],
    observer: &mut dyn Observer,
) -> Result<Evaluation> {
    check_groups(model.config(), windows.first().map_or(0, Vec::len), codecs)?;
    let mut evaluation = Evaluation {
        protocol: NAME,
        prefix: prefix_len(windows.first().map_or(0, Vec::len)),
        baseline: Vec::with_capacity(windows.len()),
        codecs: codecs.iter().map(|codec| CodecOutcome::new(*codec, model)).collect(),
        timings: StageTimings::default(),
    };
    for window in windows {
        evaluation.add_window(model, window, observer)?;
    }
    Ok(evaluation)
}

/// A group larger than one layer's keys would be a scale for values that are not there.
/// Needs no weights, so that it can be asked before they are read.
pub fn check_groups(config: &ModelConfig, context: usize, codecs: &[Codec]) -> Result<()> {
    let values = (config.kv_heads * config.head_dim).saturating_mul(prefix_len(context));
    for codec in codecs {
        for group in [codec.key.group(), codec.value.group()].into_iter().flatten() {
            if group > values {
                return Err(Error::input(format!(
                    "codec {codec}: expected a group of at most {values} values, which one layer's \
                     keys have, found {group}"
                ))
                .hint("choose a smaller group or a longer context"));
            }
        }
    }
    Ok(())
}

impl Evaluation {
    fn add_window(
        &mut self,
        model: &Llama,
        window: &[u32],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let prefix = prefix_len(window.len());
        let targets = &window[prefix + 1..];
        // The last token of a window is only ever a target.
        let continuation = &window[prefix..window.len() - 1];

        let mut clock = Clock::start();
        let mut cache = model.empty_cache();
        model.forward(&window[..prefix], &mut cache)?;
        clock.lap(&mut self.timings.prefill);
        observer.advanced(prefix);

        let base_hidden = model.forward(continuation, &mut cache.clone())?;
        clock.lap(&mut self.timings.continuation);
        observer.advanced(continuation.len());

        let mut arms = Vec::with_capacity(self.codecs.len());
        for outcome in &mut self.codecs {
            let mut compressed = outcome.round_trip(&cache)?;
            clock.lap(&mut self.timings.codec);
            arms.push(model.forward(continuation, &mut compressed)?);
            clock.lap(&mut self.timings.continuation);
            observer.advanced(continuation.len());
        }

        let mut baseline = Vec::with_capacity(targets.len());
        let mut scores = vec![Vec::with_capacity(targets.len()); arms.len()];
        for (index, targets) in targets.chunks(SCORED_AT_ONCE).enumerate() {
            let logits = |hidden: &Tensor| -> Result<Logits> {
                let rows = hidden.narrow(0, index * SCORED_AT_ONCE, targets.len())?;
                Logits::new(&model.logits(&rows)?)
            };
            let base = logits(&base_hidden)?;
            let base_rows = base.base_rows(targets)?;
            baseline.extend(base_rows.iter().map(|row| row.nll));
            for (arm, scores) in arms.iter().zip(&mut scores) {
                scores.extend(logits(arm)?.score(&base, &base_rows, targets)?);
            }
        }
        clock.lap(&mut self.timings.scoring);
        self.baseline.push(baseline);
        for (outcome, scores) in self.codecs.iter_mut().zip(scores) {
            outcome.scores.push(scores);
        }
        Ok(())
    }
}

struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    /// Adds the time since the last lap to `stage`.
    fn lap(&mut self, stage: &mut Duration) {
        let now = Instant::now();
        *stage += now - self.0;
        self.0 = now;
    }
}
