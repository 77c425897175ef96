//! What is measured: which tokens go through the model, when their keys and values go through the
//! codec, and which targets are scored.

use super::round_trip::CodecContext;
use super::{Arm, window};
use super::{CodecOutcome, Evaluation, Observer, StageTimings, WindowOutcome, decode, prefix};
use crate::codec::{Codec, Rope, TensorCodec};
use crate::error::{Error, Result};
use crate::model::{Llama, ModelConfig};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

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

/// The name of a protocol, which is all that is typed in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolName {
    Prefix,
    Decode,
}

impl FromStr for ProtocolName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "prefix" => Ok(Self::Prefix),
            "decode" => Ok(Self::Decode),
            _ => Err(Error::input(format!("expected `prefix` or `decode`, found {name:?}"))
                .hint("prefix is the default")),
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

    /// Whether codecs can be evaluated. Needs no weights, so that it can be asked before they are
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
                match groups.max().filter(|group| *group > values) {
                    Some(group) => Err(Error::input(format!(
                        "codec {codec}: expected a group of at most {values} values, which one \
                         layer's keys have, found {group}"
                    ))
                    .hint("choose a smaller group or a longer context")),
                    None => Ok(()),
                }
            }
            Self::Decode { .. } => {
                let stream = |side: TensorCodec| side.block_tokens(config.head_dim);
                let (key, value) =
                    (stream(codec.key).map_err(of_codec)?, stream(codec.value).map_err(of_codec)?);
                match key.max(value) {
                    block if block > context => Err(of_codec(
                        Error::input(format!(
                            "expected blocks of at most {context} tokens, a window's, found {block}"
                        ))
                        .hint("choose a smaller group or a longer context"),
                    )),
                    _ => Ok(()),
                }
            }
        }
    }
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
