//! The `decode` protocol: what a server does. Every token's keys and values go through the codec
//! once, when the token leaves the `residual` most recent ones; later tokens attend to the stored
//! form.
//!
//! With a residual of 0 and codecs that work token by token in all layers, a token attends to its
//! own stored keys and values too (as in llama.cpp), and all of it is one pass over the window with
//! keys and values round-tripped as they are written. Else the window runs in chunks: tokens of a
//! chunk see each other exactly, and after each chunk what has left the residual is stored, each
//! layer's in whole blocks of as many tokens as its codec's groups span.

use super::protocol::{is_one_pass, stored_of};
use super::round_trip::{CodecContext, noise_of, round_trip_tensor, with_range};
use super::window::{ArmPass, Clock, Pass, RunPasses, predicting, without_hidden};
use super::{CodecWindow, LayerDistortion, ModelArm, Observer, Side, StageTimings, StoredSize};
use crate::codec::{Codec, DistortionSum};
use crate::corpus::Window;
use crate::error::{Error, Result};
use crate::model::{KvCache, LayerKv, Model};
use candle_core::Tensor;

pub struct DecodePasses<'a> {
    pub model: &'a Model,
    pub context: &'a CodecContext,
    pub residual: usize,
    pub chunk: usize,
}

impl RunPasses for DecodePasses<'_> {
    fn run(
        &mut self,
        passes: &[Pass],
        clock: &mut Clock,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let tokens = passes.first().map_or(0, |pass| pass.window.inputs().len());
        let mut done: Vec<Option<Result<ArmPass>>> = passes.iter().map(|_| None).collect();
        let (whole, chunked): (Vec<usize>, Vec<usize>) =
            (0..passes.len()).partition(|index| self.is_one_pass(passes[*index].arm));
        let streams = |some: &[usize]| -> Vec<Stream> {
            some.iter().map(|index| Stream::new(self.model, self.context, passes[*index])).collect()
        };
        for some in whole.chunks(self.model.caches_at_once(tokens)?) {
            let passes = self.one_pass(streams(some), clock, timings)?;
            for (index, pass) in some.iter().zip(passes) {
                done[*index] = Some(pass);
            }
            observer.advanced(some.len() * tokens);
        }
        let at_once = self.model.caches_at_once(self.chunk)?.min(streams_in_memory(tokens));
        for some in chunked.chunks(at_once) {
            let passes = self.in_chunks(streams(some), clock, observer, timings)?;
            for (index, pass) in some.iter().zip(passes) {
                done[*index] = Some(pass);
            }
        }
        done.into_iter().map(|pass| pass.ok_or_else(without_hidden)).collect()
    }
}

impl DecodePasses<'_> {
    fn is_one_pass(&self, arm: Option<&ModelArm>) -> bool {
        let head_dim = self.model.config().head_dim();
        arm.is_none_or(|arm| {
            is_one_pass(&arm.codecs().collect::<Vec<Codec>>(), head_dim, self.residual)
        })
    }

    /// Keys and values are stored as they are written.
    fn one_pass(
        &self,
        mut streams: Vec<Stream>,
        clock: &mut Clock,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let mut in_codecs = std::time::Duration::ZERO;
        let inputs: Vec<&[u32]> = streams.iter().map(|stream| stream.window.inputs()).collect();
        let mut stored = |stream: usize, layer: usize, kv: LayerKv| {
            let clock = std::time::Instant::now();
            let stored = streams[stream].store_all(layer, kv);
            in_codecs += clock.elapsed();
            stored
        };
        let hidden = self.model.forward_attending(&inputs, 0, &mut stored)?;
        clock.lap_apart(&mut timings.continuation, (in_codecs, &mut timings.codec));
        Ok(streams.into_iter().zip(hidden).map(|(stream, hidden)| stream.done(&hidden)).collect())
    }

    /// Chunk by chunk. A stream that failed goes on with its cache as it is, and ends in its error.
    fn in_chunks(
        &self,
        mut streams: Vec<Stream>,
        clock: &mut Clock,
        observer: &mut dyn Observer,
        timings: &mut StageTimings,
    ) -> Result<Vec<Result<ArmPass>>> {
        let mut caches: Vec<KvCache> = streams.iter().map(|_| self.model.empty_cache()).collect();
        let mut hidden: Vec<Vec<Tensor>> = streams.iter().map(|_| Vec::new()).collect();
        let tokens = streams.first().map_or(0, |stream| stream.window.inputs().len());
        for first in (0..tokens).step_by(self.chunk) {
            let chunk = first..tokens.min(first + self.chunk);
            let inputs: Vec<&[u32]> =
                streams.iter().map(|stream| &stream.window.inputs()[chunk.clone()]).collect();
            // The last may be one token, whose product with a matrix is another.
            let at_once = self.model.caches_at_once(chunk.len())?;
            let together = caches.chunks_mut(at_once).zip(hidden.chunks_mut(at_once));
            for ((caches, hidden), inputs) in together.zip(inputs.chunks(at_once)) {
                let of_chunk = self.model.forward_each(inputs, caches)?;
                hidden.iter_mut().zip(of_chunk).for_each(|(all, new)| all.push(new));
            }
            clock.lap(&mut timings.continuation);
            for (stream, cache) in streams.iter_mut().zip(&mut caches) {
                stream.store_what_left(cache, self.residual);
            }
            clock.lap(&mut timings.codec);
            observer.advanced(streams.len() * chunk.len());
        }
        let done = streams.into_iter().zip(hidden);
        Ok(done.map(|(stream, hidden)| stream.done(&Tensor::cat(&hidden, 0)?)).collect())
    }
}

/// Streams of so many tokens whose caches are in memory at once, at most.
pub fn streams_in_memory(tokens: usize) -> usize {
    const CACHED_TOKENS: usize = 8192;
    (CACHED_TOKENS / tokens.max(1)).max(1)
}

/// One layer's keys or values, as far as they are stored.
#[derive(Clone, Copy, Default)]
struct StoredSide {
    /// The first tokens, so many of them.
    tokens: usize,
    size: StoredSize,
    distortion: DistortionSum,
}

/// One arm's cache on its way through a window.
struct Stream<'a> {
    model: &'a Model,
    context: &'a CodecContext,
    window: &'a Window,
    /// `None`: nothing is compressed.
    arm: Option<&'a ModelArm>,
    /// Of keys and of values, by layer: not all need leave the residual in the same blocks.
    stored: Vec<[StoredSide; 2]>,
    /// Every layer as it was written: a codec whose tokens depend on earlier ones starts anew from
    /// here, and gives those the bits they had. Empty where no layer has such a codec.
    written: Vec<LayerKv>,
    /// The first error of the codec, which ends this arm and no other.
    failed: Option<Error>,
}

impl<'a> Stream<'a> {
    fn new(model: &'a Model, context: &'a CodecContext, pass: Pass<'a>) -> Self {
        let Pass { window, arm, .. } = pass;
        let layers = arm.map_or(0, |arm| arm.layers.len());
        let stored = vec![Default::default(); layers];
        Self { model, context, window, arm, stored, written: Vec::new(), failed: None }
    }

    /// All tokens of one layer, as they are written.
    fn store_all(&mut self, layer: usize, kv: LayerKv) -> Result<LayerKv> {
        let mut store = |side: Side, tensor: &Tensor| -> Result<Tensor> {
            let tokens = tensor.dim(1)?;
            self.store(layer, side, tensor, 0..tokens)
        };
        let stored = store(Side::Key, &kv.key)
            .and_then(|key| Ok(LayerKv { key, value: store(Side::Value, &kv.value)? }));
        match stored {
            Ok(kv) => Ok(kv),
            Err(error) => {
                self.failed.get_or_insert(error);
                Ok(kv)
            }
        }
    }

    /// Stores what has left the residual, in whole blocks. A codec that fails ends this stream: its
    /// cache stays as it is.
    fn store_what_left(&mut self, cache: &mut KvCache, residual: usize) {
        if self.failed.is_some() {
            return;
        }
        match self.with_what_left(cache, residual) {
            Ok(stored) => *cache = stored,
            Err(error) => self.failed = Some(error),
        }
    }

    fn with_what_left(&mut self, cache: &KvCache, residual: usize) -> Result<KvCache> {
        let left = cache.tokens().saturating_sub(residual);
        let mut layers: Vec<LayerKv> = cache.layers().cloned().collect();
        self.remember(&layers)?;
        let head_dim = self.model.config().head_dim();
        let Some(arm) = self.arm else { return KvCache::from_layers(layers) };
        for (index, layer) in layers.iter_mut().enumerate() {
            for side in [Side::Key, Side::Value] {
                let stored = self.stored[index][side as usize].tokens;
                let end = stored_of(&arm.side(index, side).codec, head_dim, left)?;
                if end <= stored {
                    continue;
                }
                let tensor = match side {
                    Side::Key => &mut layer.key,
                    Side::Value => &mut layer.value,
                };
                *tensor = self.store(index, side, tensor, stored..end)?;
            }
        }
        KvCache::from_layers(layers)
    }

    /// Keeps the tokens that are new in a cache, if a layer's codec has a memory.
    fn remember(&mut self, layers: &[LayerKv]) -> Result<()> {
        if !self.arm.is_some_and(|arm| arm.codecs().any(|codec| codec.has_memory())) {
            return Ok(());
        }
        if self.written.is_empty() {
            self.written = layers.to_vec();
            return Ok(());
        }
        for (written, layer) in self.written.iter_mut().zip(layers) {
            let known = written.key.dim(1)?;
            let new = |tensor: &Tensor| tensor.narrow(1, known, tensor.dim(1)? - known);
            let new = LayerKv { key: new(&layer.key)?, value: new(&layer.value)? };
            *written = written.followed_by(&new)?;
        }
        Ok(())
    }

    /// A tensor [kv_heads, tokens, head_dim] with a range of its tokens as the codec gives them
    /// back.
    fn store(
        &mut self,
        layer: usize,
        side: Side,
        tensor: &Tensor,
        tokens: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        let Some(arm) = self.arm else { return Ok(tensor.clone()) };
        let treatment = arm.side(layer, side);
        let has_memory = treatment.codec.has_memory();
        let written = self.written.get(layer).map(|layer| layer.side(side));
        // A codec with a memory is given earlier tokens again: it counts anew.
        let (source, first) = match written {
            Some(written) if has_memory => (written.narrow(1, 0, tokens.end)?, 0),
            _ => (tensor.narrow(1, tokens.start, tokens.len())?, tokens.start),
        };
        let heads = arm.scope.heads(layer, side);
        let context = &self.context.of_layer(layer);
        let within = |e: Error| e.within(format!("layer {layer} {side}"));
        let stored = &mut self.stored[layer][side as usize];
        let (new, done) = if treatment.noise && has_memory {
            // Drawn once for each token; the codec it is as large as is done anew, with the same
            // outcome for earlier tokens.
            let new = tokens.start - first..tokens.end - first;
            let done = noise_of(&source.contiguous()?, &treatment.codec, heads, new, context);
            let done = done.map_err(within)?;
            (done.tensor.clone(), done)
        } else {
            let done = round_trip_tensor(&source.contiguous()?, treatment, heads, first, context)
                .map_err(within)?;
            if first == 0 {
                *stored = StoredSide::default();
            }
            (done.tensor.narrow(1, tokens.start - first, tokens.len())?, done)
        };
        stored.tokens = tokens.end;
        stored.size = stored.size.plus(done.size);
        stored.distortion = stored.distortion.plus(done.distortion);
        with_range(tensor, 1, tokens, &new)
    }

    /// `hidden`: of all positions. What is not stored yet counts as a server keeps it, in 16 bits.
    fn done(self, hidden: &Tensor) -> Result<ArmPass> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let tokens = self.window.inputs().len();
        let mut outcome = CodecWindow::default();
        let layers = &self.model.config().layers;
        for (layer, [key, value]) in layers.iter().zip(&self.stored) {
            let size = |side: &StoredSide| {
                let exact = (tokens - side.tokens) * layer.key_width();
                side.size.plus(StoredSize::exact(exact as u64))
            };
            outcome.push_layer(LayerDistortion {
                key: key.distortion,
                value: value.distortion,
                key_size: size(key),
                value_size: size(value),
            });
        }
        outcome.cached_tokens = self.arm.map_or(0, |_| tokens as u64);
        Ok(ArmPass { hidden: predicting(hidden, self.window.shape(), 0)?, outcome })
    }
}
