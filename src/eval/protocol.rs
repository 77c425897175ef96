//! What is measured: which tokens go through the model, when their keys and values go through the
//! codec, and which targets are scored.

use super::round_trip::CodecContext;
use super::{Arm, window};
use super::{CodecOutcome, Evaluation, Observer, StageTimings, WindowOutcome, decode, prefix};
use crate::codec::{Codec, Packing, Rope, TensorCodec};
use crate::error::{Error, Result};
use crate::model::{Llama, ModelConfig};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Tokens that a chunk has unless said otherwise.
pub const DEFAULT_CHUNK: usize = 32;

/// How the cache is compressed. Both score the same targets of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Protocol {
    /// The first half of a window is computed exactly, its cache compressed and put back; the
    /// second half runs over it, its own keys and values exact. See [`prefix`].
    Prefix,
    /// Every token's keys and values are compressed once, when the token leaves the `residual`
    /// most recent ones, and never again. See [`decode`].
    Decode { residual: usize, chunk: usize },
}

/// The protocols of a run: at least one of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Protocols {
    Prefix,
    Decode {
        residual: usize,
        chunk: usize,
    },
    /// `prefix`, and `decode` with these.
    Both {
        residual: usize,
        chunk: usize,
    },
}

impl Protocols {
    /// One by one, `prefix` first.
    pub fn each(self) -> Vec<Protocol> {
        match self {
            Self::Prefix => vec![Protocol::Prefix],
            Self::Decode { residual, chunk } => vec![Protocol::Decode { residual, chunk }],
            Self::Both { residual, chunk } => {
                vec![Protocol::Prefix, Protocol::Decode { residual, chunk }]
            }
        }
    }
}

/// Tokens before the one that predicts the first scored target; with `prefix`, those that get
/// compressed.
pub fn prefix_len(context: usize) -> usize {
    context / 2
}

/// Targets scored in a window of `context` tokens: `prefix + 1 … context − 1`.
pub fn scored_len(context: usize) -> usize {
    (context - prefix_len(context)).saturating_sub(1)
}

/// For people.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => f.write_str("prefix"),
            Self::Decode { residual, chunk } => {
                write!(f, "decode, residual {residual}, chunk {chunk}")
            }
        }
    }
}

impl Protocol {
    /// What its figures tell, in a sentence for people.
    pub fn tells(self) -> &'static str {
        match self {
            Self::Prefix => {
                "prefix: what a prompt's cache costs that is stored once and reused; new tokens stay exact"
            }
            Self::Decode { .. } => {
                "decode: what a server pays that stores every token this way, as it is written"
            }
        }
    }

    /// The name every output carries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Decode { .. } => "decode",
        }
    }

    /// Tokens that go through the model for one window, which is what progress counts.
    pub fn model_tokens(self, context: usize, codecs: usize) -> usize {
        match self {
            Self::Prefix => prefix_len(context) + (1 + codecs) * scored_len(context),
            Self::Decode { .. } => (1 + codecs) * (context - 1),
        }
    }

    /// Scored targets of a window whose prediction can feel a codec: those predicted from a token
    /// that attends to a stored one.
    pub fn targets_affected(self, head_dim: usize, context: usize, codec: &Codec) -> Result<usize> {
        let scored = prefix_len(context)..context - 1;
        let first = match self {
            // Each of them attends to the whole prefix.
            Self::Prefix => {
                let exact = |side: &TensorCodec| side.packing().map_or(0, Packing::sink);
                let stored = codec.lossy_sides().iter().any(|side| exact(side) < scored.start);
                if stored { scored.start } else { scored.end }
            }
            Self::Decode { residual, chunk } => {
                decode::first_affected(codec, head_dim, context, residual, chunk)?
            }
        };
        Ok(scored.end - first.clamp(scored.start, scored.end))
    }

    /// Whether a codec can be evaluated. Needs no weights, so that it can be asked before they are
    /// read.
    pub fn check(self, config: &ModelConfig, context: usize, codec: &Codec) -> Result<()> {
        let of_codec = |e: Error| e.within(format!("codec {codec}"));
        let rope = Rope::new(&vec![0.0; config.head_dim / 2], 0);
        for side in [codec.key, codec.value] {
            side.check_head(config.head_dim, &rope).map_err(of_codec)?;
        }
        match self {
            // A group larger than one layer's keys would be a scale for values that are not there.
            Self::Prefix => {
                let values =
                    (config.kv_heads * config.head_dim).saturating_mul(prefix_len(context));
                let groups = [codec.key, codec.value].into_iter().filter_map(|c| c.group());
                if let Some(group) = groups.max().filter(|group| *group > values) {
                    return Err(Error::input(format!(
                        "codec {codec}: expected a group of at most {values} values, which one \
                         layer's keys have, found {group}"
                    ))
                    .hint("choose a smaller group or a longer context"));
                }
            }
            Self::Decode { .. } => {
                let stream = |side: TensorCodec| side.block_tokens(config.head_dim);
                let (key, value) =
                    (stream(codec.key).map_err(of_codec)?, stream(codec.value).map_err(of_codec)?);
                let block = key.max(value);
                if block > context {
                    return Err(of_codec(
                        Error::input(format!(
                            "expected blocks of at most {context} tokens, a window's, found {block}"
                        ))
                        .hint("choose a smaller group or a longer context"),
                    ));
                }
            }
        }
        match self.targets_affected(config.head_dim, context, codec)? {
            0 => Err(of_codec(self.unfelt(config.head_dim, context, codec))),
            _ => Ok(()),
        }
    }

    /// The error for a codec that no scored target of a window can feel, with what would do.
    fn unfelt(self, head_dim: usize, context: usize, codec: &Codec) -> Error {
        let targets = scored_len(context);
        let felt = |protocol: Protocol, context: usize| {
            protocol.targets_affected(head_dim, context, codec).is_ok_and(|affected| affected > 0)
        };
        // More of it never helps, or never hurts: the first that does is found by halving.
        let longer = || {
            let mut above = context;
            while !felt(self, above) {
                above = above.checked_mul(2).filter(|above| *above <= LONGEST_HINT)?;
            }
            Some(first_of(context, above, |context| felt(self, context)))
        };
        let context_hint =
            longer().map(|context| format!("--context {context} or more")).into_iter();
        match self {
            Self::Prefix => Error::input(format!(
                "expected a cache that is compressed, found all {} tokens of the prefix kept exact: \
                 none of the {targets} scored targets would feel the codec",
                prefix_len(context)
            ))
            .hint(["fewer sink tokens".into()].into_iter().chain(context_hint).collect::<Vec<_>>().join(", or ") + " would do"),
            Self::Decode { residual, chunk } => {
                let with = |residual| felt(Self::Decode { residual, chunk }, context);
                let smaller = (residual > 0 && with(0)).then(|| {
                    // The largest that is felt.
                    let too_large = first_of(0, residual, |residual| !with(residual));
                    match too_large - 1 {
                        0 => "--residual 0".to_string(),
                        largest => format!("--residual {largest} or less"),
                    }
                });
                let block = codec.lossy_sides().iter().filter_map(|c| c.block_tokens(head_dim).ok()).max();
                let blocks = block.filter(|block| *block > 1 && smaller.is_none()).map(|block| {
                    format!("a codec with groups of fewer than {block} tokens")
                });
                let ways: Vec<String> = smaller.into_iter().chain(context_hint).chain(blocks).collect();
                let hint = match ways.is_empty() {
                    true => "choose a shorter residual and a longer context".into(),
                    false => ways.join(", or ") + " would do",
                };
                Error::input(format!(
                    "expected stored tokens before the end of a window of {context}, found none with \
                     residual {residual}, chunks of {chunk} and blocks of {}: none of the {targets} \
                     scored targets would feel the codec",
                    block.unwrap_or(1)
                ))
                .hint(hint)
            }
        }
    }
}

/// Contexts that hints look among.
const LONGEST_HINT: usize = 1 << 20;

/// The first number in `from + 1 ..= to` for which `holds`, which holds for `to` and from some
/// number on.
fn first_of(from: usize, to: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (from, to);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle }
    }
    high
}

/// A protocol on a model, ready for windows of one length.
pub struct Evaluator<'m> {
    pub model: &'m Llama,
    pub protocol: Protocol,
    pub(super) context: CodecContext,
}

impl<'m> Evaluator<'m> {
    /// `context`: the longest window; `seed`: of what codecs draw at random.
    pub fn new(model: &'m Llama, protocol: Protocol, context: usize, seed: u64) -> Self {
        let rope = Rope::new(model.rope_frequencies(), context);
        Self { model, protocol, context: CodecContext { rope, seed } }
    }

    /// Evaluates all arms on all windows. Every window has the same length, at least 4.
    pub fn evaluate(
        &self,
        windows: &[Vec<u32>],
        arms: &[Arm],
        observer: &mut dyn Observer,
    ) -> Result<Evaluation> {
        let context = windows.first().map_or(0, Vec::len);
        for arm in arms {
            self.protocol.check(self.model.config(), context, &arm.codec)?;
        }
        let outcome = |arm: &Arm| CodecOutcome { codec: arm.codec, windows: Vec::new() };
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
        window: &[u32],
        arms: &[Arm],
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<WindowOutcome> {
        match self.protocol {
            Protocol::Prefix => {
                let mut passes = prefix::Passes::prefill(self, window, observer, timings)?;
                window::evaluate(self, window, arms, &mut passes, observer, timings)
            }
            Protocol::Decode { residual, chunk } => {
                let mut passes = decode::Passes { evaluator: self, window, residual, chunk };
                window::evaluate(self, window, arms, &mut passes, observer, timings)
            }
        }
    }
}
