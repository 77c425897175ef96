//! The `prefix` protocol: prefill the first half of a window, compress and reinject its cache,
//! run the second half in one pass over it.
//!
//! The continuation's own keys and values stay exact. The first continuation token is predicted
//! by the prefix pass, which no codec touches, so it is not scored. All arms run in lock-step on
//! a window: they share the prefill and the baseline, and KL divergence needs no stored logits.
//! Only hidden states are kept; logits exist for a few targets at a time.

use super::round_trip::{CacheRoundTrip, round_trip};
use super::scores::Logits;
use super::{CodecOutcome, CodecWindow, Evaluation, Observer, StageTimings, WindowOutcome};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::model::{KvCache, Llama, ModelConfig};
use candle_core::Tensor;
use std::time::{Duration, Instant};

/// The name every output carries.
pub const NAME: &str = "prefix";

/// Targets whose logits are in memory at once: 128 × 32000 f32 are 16 MB an arm.
pub const SCORED_AT_ONCE: usize = 128;

/// Codecs whose hidden states are in memory at once; each batch computes the baseline's logits
/// again.
pub const ARMS_AT_ONCE: usize = 8;

/// Tokens that get compressed.
pub fn prefix_len(context: usize) -> usize {
    context / 2
}

/// Targets scored in a window of `context` tokens: `prefix + 1 … context − 1`.
pub fn scored_len(context: usize) -> usize {
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
    let context = windows.first().map_or(0, Vec::len);
    check_groups(model.config(), context, codecs)?;
    let mut evaluation = Evaluation {
        protocol: NAME,
        prefix: prefix_len(context),
        baseline: Vec::with_capacity(windows.len()),
        codecs: codecs
            .iter()
            .map(|codec| CodecOutcome { codec: *codec, windows: Vec::new() })
            .collect(),
        timings: StageTimings::default(),
    };
    for window in windows {
        let outcome = evaluate_window(model, window, codecs, observer, &mut evaluation.timings)?;
        evaluation.baseline.push(outcome.baseline);
        for (codec, arm) in evaluation.codecs.iter_mut().zip(outcome.arms) {
            codec.windows.push(arm?);
        }
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

/// One window under the untouched cache and under every codec.
pub fn evaluate_window(
    model: &Llama,
    window: &[u32],
    codecs: &[Codec],
    observer: &mut dyn Observer,
    timings: &mut StageTimings,
) -> Result<WindowOutcome> {
    let prefix = prefix_len(window.len());
    let targets = &window[prefix + 1..];
    // The last token of a window is only ever a target.
    let continuation = &window[prefix..window.len() - 1];

    let mut clock = Clock::start();
    let mut cache = model.empty_cache();
    model.forward(&window[..prefix], &mut cache)?;
    clock.lap(&mut timings.prefill);
    observer.advanced(prefix);

    // `None`, the untouched cache, goes through the model like the others, and first.
    let caches: Vec<Option<&Codec>> = [None].into_iter().chain(codecs.iter().map(Some)).collect();
    let mut base_hidden = None;
    let (mut baseline, mut arms) = (Vec::new(), Vec::with_capacity(codecs.len()));
    for batch in caches.chunks(ARMS_AT_ONCE) {
        let mut running = Vec::with_capacity(batch.len());
        for pass in batch.chunks(model.caches_at_once(continuation.len())) {
            let restored = pass.iter().map(|codec| restored(&cache, *codec)).collect();
            clock.lap(&mut timings.codec);
            running.extend(run_arms(model, continuation, restored)?);
            clock.lap(&mut timings.continuation);
            observer.advanced(pass.len() * continuation.len());
        }
        let first = base_hidden.is_none();
        let base_hidden = match &mut base_hidden {
            Some(hidden) => hidden,
            none => none.insert(running.remove(0)?.hidden),
        };
        for (index, targets) in targets.chunks(SCORED_AT_ONCE).enumerate() {
            let logits = |hidden: &Tensor| -> Result<Logits> {
                let rows = hidden.narrow(0, index * SCORED_AT_ONCE, targets.len())?;
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
        arms.extend(running.into_iter().map(|arm| arm.map(|arm| arm.outcome)));
        clock.lap(&mut timings.scoring);
    }
    Ok(WindowOutcome { baseline, arms })
}

/// A codec that has run the continuation.
struct Arm {
    /// [continuation tokens, hidden]
    hidden: Tensor,
    outcome: CodecWindow,
}

/// The cache as the codec gives it back; as it is without one.
fn restored(cache: &KvCache, codec: Option<&Codec>) -> Result<CacheRoundTrip> {
    match codec {
        Some(codec) => round_trip(cache, codec),
        None => Ok(CacheRoundTrip { cache: cache.clone(), outcome: CodecWindow::default() }),
    }
}

/// Runs the continuation over several caches, but those whose codec failed.
fn run_arms(
    model: &Llama,
    continuation: &[u32],
    restored: Vec<Result<CacheRoundTrip>>,
) -> Result<Vec<Result<Arm>>> {
    let mut caches: Vec<KvCache> = restored.iter().flatten().map(|arm| arm.cache.clone()).collect();
    let mut hidden = model.forward_each(continuation, &mut caches)?.into_iter();
    let arm = |restored: Result<CacheRoundTrip>| {
        let outcome = restored?.outcome;
        let hidden = hidden.next().ok_or_else(|| Error::system("an arm without hidden states"))?;
        Ok(Arm { hidden, outcome })
    };
    Ok(restored.into_iter().map(arm).collect())
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
