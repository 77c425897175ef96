//! Applicability of codecs: which a protocol can take, and how many targets feel them. Needs no
//! weights, so that it can be asked before they are read.
//!
//! `codecs` are those that a model's layers have, each once or more.

use super::Protocol;
use crate::codec::{Codec, Packing, RotaryEmbedding, RotaryTable, TensorCodec};
use crate::corpus::WindowShape;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::model::ModelConfig;

impl Protocol {
    /// Whether windows go through the model in chunks, with a cache that is kept from one to the next.
    pub(crate) fn runs_in_chunks(self, codecs: &[Codec], head_dim: usize) -> bool {
        match self {
            Self::Prefix { .. } => false,
            Self::Decode { residual, .. } => !is_one_pass(codecs, head_dim, residual),
        }
    }

    /// The codecs of those layers, one a layer, in which a token can attend to a stored one: in a
    /// sliding window no longer than the residual and the token itself, all that is seen is exact. A layer
    /// of `f16` beside others is one that is left as it is. `windows`: of each layer; none where no layer
    /// has one.
    pub fn seen(
        self,
        codecs: impl Iterator<Item = Codec>,
        windows: &[Option<usize>],
    ) -> Vec<Codec> {
        let residual = self.residual();
        let is_seen = |layer: usize| {
            let window = windows.get(layer).copied().flatten();
            residual == 0 || window.is_none_or(|window| window > residual + 1)
        };
        let codecs: Vec<Codec> = codecs.collect();
        let is_control = codecs.iter().all(Codec::is_f16);
        let seen = codecs.into_iter().enumerate();
        let seen = seen.filter(|(layer, codec)| is_seen(*layer) && (is_control || !codec.is_f16()));
        seen.map(|(_, codec)| codec).collect()
    }

    /// Of a treatment on a model of so many layers.
    ///
    /// # Errors
    /// A layer that is named and not there.
    pub fn seen_of(
        self,
        treatment: &Treatment,
        layers: usize,
        windows: &[Option<usize>],
    ) -> Result<Vec<Codec>> {
        let of_layers = treatment.of_layers(layers)?;
        Ok(self.seen(of_layers.iter().map(|layer| layer.codec), windows))
    }

    /// Scored targets of a window whose prediction can feel a codec: those predicted from a token
    /// that attends to a stored one, in any layer.
    pub fn targets_affected(
        self,
        head_dim: usize,
        shape: &WindowShape,
        codecs: &[Codec],
    ) -> Result<usize> {
        let first = match self {
            // Every predictor attends to the whole prefix.
            Self::Prefix { residual } => {
                let is_felt = |side: &TensorCodec| {
                    let stored = stored_of_prefix(side, head_dim, shape.prefix(), residual);
                    let exact = |packing: &Packing| packing.exact_tokens(0, stored);
                    side.packing().map_or(0, exact) < stored
                };
                if lossy_sides(codecs).iter().any(is_felt) { 0 } else { shape.tokens() }
            }
            Self::Decode { residual, chunk } => {
                first_affected(codecs, head_dim, shape.tokens(), residual, chunk)?
            }
        };
        Ok(shape.predictors_from(first))
    }

    /// Whether a codec can be evaluated. Needs no weights, so that it can be asked before they are
    /// read.
    pub fn check(
        self,
        config: &ModelConfig,
        shape: &WindowShape,
        treatment: &Treatment,
    ) -> Result<()> {
        let of_codec = |e: Error| e.within(format!("codec {treatment}"));
        let codecs = &treatment.codecs(config.layers.len()).map_err(of_codec)?;
        let sides = || codecs.iter().flat_map(|codec| [codec.key, codec.value]);
        let head_dim = config.head_dim();
        let rope = RotaryTable::of(RotaryEmbedding::none(head_dim), 0);
        for side in sides() {
            side.check_head(head_dim, &rope).map_err(of_codec)?;
        }
        match self {
            // A group larger than one layer's keys would be a scale for values that are not there.
            Self::Prefix { .. } => {
                let values = (config.kv_heads() * head_dim).saturating_mul(shape.prefix());
                let group = sides().filter_map(|side| side.group()).max();
                if let Some(group) = group.filter(|group| *group > values) {
                    return Err(Error::input(format!(
                        "codec {treatment}: expected a group of at most {values} values, which one \
                         layer's keys have, found {group}"
                    ))
                    .hint("choose a smaller group or a longer context"));
                }
            }
            Self::Decode { .. } => {
                let blocks = sides().map(|side| side.block_tokens(head_dim));
                let blocks = blocks.collect::<Result<Vec<_>>>().map_err(of_codec)?;
                let block = blocks.into_iter().max().unwrap_or(1);
                let context = shape.tokens();
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
        let seen = self.seen_of(treatment, config.layers.len(), &config.sliding_windows())?;
        if self.targets_affected(head_dim, shape, &seen)? > 0 {
            return Ok(());
        }
        Err(of_codec(match self.targets_affected(head_dim, shape, codecs)? {
            0 => self.unfelt(head_dim, shape, codecs),
            _ => self.unseen(shape, config),
        }))
    }

    /// The error for a codec of layers only whose sliding window is no longer than the residual.
    fn unseen(self, shape: &WindowShape, config: &ModelConfig) -> Error {
        let residual = self.residual();
        let longest = config.sliding_windows().into_iter().flatten().max().unwrap_or(0);
        let error = Error::input(format!(
            "expected stored tokens within the sliding windows of its layers, of at most {longest} tokens, \
             found none with residual {residual}: none of the {} scored targets would feel the codec",
            shape.scored_len()
        ));
        match longest.checked_sub(2) {
            Some(residual) => error.hint(format!("--residual {residual} or less would do")),
            None => error.hint("name layers without a sliding window"),
        }
    }

    /// The error for a codec that no scored target of a window can feel, with what would do.
    fn unfelt(self, head_dim: usize, shape: &WindowShape, codecs: &[Codec]) -> Error {
        let (targets, context) = (shape.scored_len(), shape.tokens());
        let is_felt = |protocol: Protocol, shape: &WindowShape| {
            protocol.targets_affected(head_dim, shape, codecs).is_ok_and(|affected| affected > 0)
        };
        let is_felt_at = |context| is_felt(self, &WindowShape::halves(context));
        // More of it never helps, or never hurts: the first that does is found by halving.
        let longer = || {
            let mut above = context;
            while !is_felt_at(above) {
                above = above.checked_mul(2).filter(|above| *above <= LONGEST_HINT)?;
            }
            Some(first_of(context, above, is_felt_at))
        };
        let context_hint =
            longer().map(|context| format!("--context {context} or more")).into_iter();
        let residual = self.residual();
        let with = |residual| match self {
            Self::Prefix { .. } => is_felt(Self::Prefix { residual }, shape),
            Self::Decode { chunk, .. } => is_felt(Self::Decode { residual, chunk }, shape),
        };
        let smaller = (residual > 0 && with(0)).then(|| {
            // The largest that is felt.
            let too_large = first_of(0, residual, |residual| !with(residual));
            match too_large - 1 {
                0 => "--residual 0".to_string(),
                largest => format!("--residual {largest} or less"),
            }
        });
        match self {
            Self::Prefix { .. } => {
                let has_sink = |side: TensorCodec| side.packing().is_some_and(|p| p.sink() > 0);
                let sinks = smaller.is_none() && lossy_sides(codecs).into_iter().any(has_sink);
                let sinks = sinks.then(|| "fewer sink tokens".to_string());
                let ways: Vec<String> =
                    smaller.into_iter().chain(sinks).chain(context_hint).collect();
                Error::input(format!(
                    "expected a cache that is compressed, found all {} tokens of the prefix kept \
                     exact: none of the {targets} scored targets would feel the codec",
                    shape.prefix()
                ))
                .hint(ways.join(", or ") + " would do")
            }
            Self::Decode { chunk, .. } => {
                let blocks = lossy_sides(codecs);
                let block = blocks.iter().filter_map(|c| c.block_tokens(head_dim).ok()).max();
                let blocks = block
                    .filter(|block| *block > 1 && smaller.is_none())
                    .map(|block| format!("a codec with groups of fewer than {block} tokens"));
                let ways: Vec<String> =
                    smaller.into_iter().chain(context_hint).chain(blocks).collect();
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

/// Keys and values of all layers, each codec once, but those of which only a control is made: a plain
/// f16 round trip beside a codec stands for a side or a layer that is left as it is.
fn lossy_sides(codecs: &[Codec]) -> Vec<TensorCodec> {
    let mut sides = Vec::new();
    for side in codecs.iter().flat_map(|codec| [codec.key, codec.value]) {
        if !sides.contains(&side) {
            sides.push(side);
        }
    }
    if sides.len() > 1 {
        sides.retain(|side| *side != TensorCodec::F16);
    }
    sides
}

/// Whether what is stored of a window is stored as it is written, in all layers, so that one pass
/// over the window does what a server's loop does.
pub(in crate::eval) fn is_one_pass(codecs: &[Codec], head_dim: usize, residual: usize) -> bool {
    let token_wise = |side: &TensorCodec| matches!(side.block_tokens(head_dim), Ok(1));
    let both = |codec: &Codec| token_wise(&codec.key) && token_wise(&codec.value);
    residual == 0 && codecs.iter().all(both)
}

/// Tokens that are stored once `left` have left the residual: those that stay exact, and behind
/// them whole blocks.
pub(in crate::eval) fn stored_of(
    side: &TensorCodec,
    head_dim: usize,
    left: usize,
) -> Result<usize> {
    let block = side.block_tokens(head_dim)?;
    let sink = side.packing().map_or(0, Packing::sink);
    Ok(if left <= sink { left } else { sink + (left - sink) / block * block })
}

/// Tokens of a prefix that are stored where its last `residual` stay exact: by the same rule, but that
/// all there is can be stored at once, and is where none stays.
pub(in crate::eval) fn stored_of_prefix(
    side: &TensorCodec,
    head_dim: usize,
    prefix: usize,
    residual: usize,
) -> usize {
    let left = prefix.saturating_sub(residual);
    match residual {
        0 => prefix,
        _ => stored_of(side, head_dim, left).unwrap_or(left),
    }
}

/// The first position of a window that attends to a token in its stored form; the window's length
/// where none does. Later ones do too.
fn first_affected(
    codecs: &[Codec],
    head_dim: usize,
    context: usize,
    residual: usize,
    chunk: usize,
) -> Result<usize> {
    let exact = |side: &TensorCodec| side.packing().map_or(0, Packing::sink);
    let one_pass = is_one_pass(codecs, head_dim, residual);
    let mut first = context;
    for side in lossy_sides(codecs) {
        // A token attends to its own stored form, or to what was stored before its chunk.
        let of_side = match one_pass {
            true => exact(&side),
            false => {
                let mut starts = (0..context).step_by(chunk.max(1));
                loop {
                    let Some(start) = starts.next() else { break context };
                    let left = start.saturating_sub(residual);
                    if stored_of(&side, head_dim, left)? > exact(&side) {
                        break start;
                    }
                }
            }
        };
        first = first.min(of_side);
    }
    Ok(first)
}
