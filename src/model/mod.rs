//! Decoder-only models in candle whose KV cache is a value.
//!
//! candle-transformers' models keep their caches private and return the last position only, so
//! they cannot be wrapped; they are the oracle instead ([`oracle`]). An architecture
//! ([`architectures`]) says which parts a model has ([`ModelConfig`]); the pass over them is here
//! and reads top down. Shapes stand beside the lines that have them.

mod architectures;
mod attention;
pub(crate) mod bf16;
mod cache;
mod causal;
mod config;
mod gguf;
mod json;
mod kernels;
mod loader;
mod matrix;
pub mod oracle;
mod parts;
mod places;
mod product;
mod random;
mod rope;
mod rounding;
pub mod source;
mod weights;

pub use cache::{KvCache, LayerKv};
pub use config::{
    Activation, AttentionBias, AttentionConfig, BlockConfig, ExpertNames, Experts, GatedMlp,
    LayerConfig, MlpConfig, ModelConfig, NormConfig, NormKind, QkNorm, RopeScaling, RotaryConfig,
    Temperature,
};
pub use gguf::{Gguf, WeightType};
pub use matrix::PackedRows;
pub(crate) use parts::MLP_ROWS;
pub use random::RandomWeights;
pub use rounding::Rounding;
pub use weights::{KvScales, Safetensors, Unread, Weights};

use crate::codec::RotaryEmbedding;
use crate::error::{Error, Result};
use attention::Attention;
use candle_core::{DType, Device, Tensor};
use loader::Loader;
use matrix::Matrix;
use parts::{Mlp, Norm, scaled, softcapped};
use places::Places;
use rope::{Angles, Rope};

/// [`Model::caches_at_once`] of a model that is not loaded. `has_places`: it is on another device than the
/// CPU, and this the most that there are; once it is loaded, its places may turn out to differ, and then
/// there is one.
pub(crate) fn caches_at_once(
    config: &ModelConfig,
    dtype: DType,
    has_places: bool,
    is_packed: bool,
    tokens: usize,
) -> usize {
    // More rows are hardly faster, and take memory, of which who packs weights has little.
    let enough_rows = if is_packed { 512 } else { 1024 };
    let experts = |layer: &LayerConfig| matches!(layer.mlp, MlpConfig::Experts(_));
    let any_rows = dtype == DType::BF16 && bf16::is_native();
    let same_bits = (has_places || any_rows || sums_are_the_same(config, tokens))
        && !config.layers.iter().any(experts);
    let most = (enough_rows / tokens.max(1)).max(1);
    match same_bits {
        true if has_places => most.min(places::MOST),
        true => most,
        false => 1,
    }
}

/// See [`product::sums_are_the_same`].
fn sums_are_the_same(config: &ModelConfig, rows: usize) -> bool {
    let narrowest = config.layers.iter().map(|layer| {
        let AttentionConfig { heads, kv_heads, head_dim, .. } = layer.attention;
        ((heads + 2 * kv_heads) * head_dim).min(2 * layer.mlp.widths().used)
    });
    let narrowest = narrowest.min().unwrap_or(0).min(config.hidden_size);
    product::sums_are_the_same(rows, narrowest)
}

/// See [`Model::forward_attending`].
pub type Attended<'a> = &'a mut dyn FnMut(usize, usize, LayerKv) -> Result<LayerKv>;

/// A decoder-only model, its weights in memory. Clones share them.
#[derive(Clone)]
pub struct Model {
    config: ModelConfig,
    embeddings: Matrix, // [vocab, hidden]
    layers: Vec<Layer>,
    norm: Norm,
    /// `None`: tied to the embeddings.
    head: Option<Matrix>,
    /// As the config lists them.
    ropes: Vec<Rope>,
    /// Of activations.
    dtype: DType,
    /// What is multiplied, and what is kept of keys and values, is rounded to.
    rounding: Option<Rounding>,
    device: Device,
    /// Where products' shapes have to be the same whatever runs together: on other devices than the CPU.
    places: Option<Places>,
}

#[derive(Clone)]
struct Layer {
    before_attention: Option<Norm>,
    attention: Attention,
    after_attention: Option<Norm>,
    before_mlp: Option<Norm>,
    mlp: Mlp,
    after_mlp: Option<Norm>,
}

impl Model {
    /// Puts the model together twice, first from the files' headers alone: what is missing, of
    /// another shape or not used at all is an error before a weight is read.
    ///
    /// `dtype`: of weights, keys and values, and of what is multiplied. On the CPU sums are f32
    /// whatever it is, and so are norms, softmax, the residual stream and logits; elsewhere all but
    /// scores and logits are of that type.
    pub fn load(
        config: &ModelConfig,
        weights: &dyn Weights,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let headers = Loader::headers(weights);
        Self::build(config, &headers)?;
        headers.finish(config)?;
        Self::build(config, &Loader::values(weights, dtype, device))
    }

    /// [`Model::load`] on the CPU with matrices as the file has them, dequantised a tile at a time
    /// whenever they are multiplied: the file's size of memory, and the same results to the last bit.
    pub fn load_packed(config: &ModelConfig, weights: &dyn Weights, dtype: DType) -> Result<Self> {
        let headers = Loader::headers(weights);
        Self::build(config, &headers)?;
        headers.finish(config)?;
        Self::build(config, &Loader::packed(weights, dtype))
    }

    fn build(config: &ModelConfig, loader: &Loader) -> Result<Self> {
        let hidden = config.hidden_size;
        let norm = |name: &str| Norm::load(loader, name, &[hidden], config.norm);
        let layers = (0..).zip(&config.layers).map(|(index, layer): (usize, &LayerConfig)| {
            let name = |part: &str| format!("model.layers.{index}.{part}");
            let norm = |part: Option<&str>| -> Result<Option<Norm>> {
                part.map(|part| norm(&name(&format!("{part}.weight")))).transpose()
            };
            Ok(Layer {
                before_attention: norm(config.block.before_attention)?,
                attention: Attention::load(loader, &layer.attention, config.norm, hidden, &name)?,
                after_attention: norm(config.block.after_attention)?,
                before_mlp: norm(config.block.before_mlp)?,
                mlp: Mlp::load(loader, &layer.mlp, hidden, &name)?,
                after_mlp: norm(config.block.after_mlp)?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let vocabulary = [config.vocab_size, hidden];
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(loader.matrix("lm_head.weight", vocabulary)?)
        };
        Ok(Self {
            embeddings: loader.matrix("model.embed_tokens.weight", vocabulary)?,
            layers,
            norm: norm("model.norm.weight")?,
            head,
            ropes: ropes(config, 0),
            config: config.clone(),
            dtype: loader.dtype(),
            rounding: loader.rounding(),
            device: loader.device().clone(),
            places: (!loader.device().is_cpu()).then(Places::default),
        })
    }

    /// The same model for windows of so many tokens, whose rotary angles it works out once. Some
    /// rotary embeddings depend on that length (LongRoPE, dynamic NTK), and have one set of frequencies
    /// for all of a window; as loaded, a model has those of short windows.
    pub fn for_context(&self, tokens: usize) -> Self {
        let ropes = ropes(&self.config, tokens).into_iter();
        let ropes = ropes.map(|rope| rope.with_table(tokens, self.dtype, &self.device)).collect();
        Self { ropes, ..self.clone() }
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Type of its weights, keys and values.
    pub fn dtype(&self) -> DType {
        self.rounding.map_or(self.dtype, Rounding::dtype)
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The rotary embedding of each layer's keys.
    pub fn rotary_embeddings(&self) -> Vec<RotaryEmbedding> {
        let of_layer = |layer: &LayerConfig| {
            let AttentionConfig { rotary, head_dim, .. } = layer.attention;
            match rotary {
                Some(index) => self.ropes[index].embedding(head_dim),
                None => RotaryEmbedding::none(head_dim),
            }
        };
        self.config.layers.iter().map(of_layer).collect()
    }

    /// A cache of its layers that holds no token yet.
    pub fn empty_cache(&self) -> KvCache {
        KvCache::empty(self.config.layers.len())
    }

    /// Runs `tokens` at the positions after those in `cache`, appends their keys and values to
    /// it, and returns the hidden states after the last norm, [tokens, hidden].
    pub fn forward(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Tensor> {
        let start = self.start_after(std::slice::from_ref(cache))?;
        let mut extend = |_, layer, kv| cache.extend(layer, kv);
        let hidden = self.forward_stacked(&[tokens], start, &mut extend)?;
        cache.advance(tokens.len());
        Ok(hidden)
    }

    /// [`Model::forward`] of as many tokens of each of several sequences over its own cache, all of one
    /// length, which is faster than one after the other: each weight is read once.
    pub fn forward_each(
        &self,
        sequences: &[&[u32]],
        caches: &mut [KvCache],
    ) -> Result<Vec<Tensor>> {
        let start = self.start_after(caches)?;
        if sequences.len() != caches.len() {
            let (expected, found) = (sequences.len(), caches.len());
            return Err(Error::input(format!("caches: expected {expected}, found {found}")));
        }
        let mut extend = |cache: usize, layer, kv| caches[cache].extend(layer, kv);
        let hidden = self.forward_attending(sequences, start, &mut extend)?;
        for (cache, tokens) in caches.iter_mut().zip(sequences) {
            cache.advance(tokens.len());
        }
        Ok(hidden)
    }

    /// Runs as many tokens of each of several sequences at the positions from `start` on, and keeps no
    /// cache. `attended` has it: it gets the index of the sequence, that of the layer and the keys and
    /// values of the new tokens, and gives those that they attend to, [kv_heads, start + tokens, head_dim].
    pub fn forward_attending(
        &self,
        sequences: &[&[u32]],
        start: usize,
        attended: Attended,
    ) -> Result<Vec<Tensor>> {
        let Some(first) = sequences.first() else { return Ok(Vec::new()) };
        let stacked = self.forward_stacked(sequences, start, attended)?;
        let rows = |sequence| stacked.narrow(0, sequence * first.len(), first.len());
        (0..sequences.len()).map(|sequence| Ok(rows(sequence)?)).collect()
    }

    /// The position after caches of one length.
    fn start_after(&self, caches: &[KvCache]) -> Result<usize> {
        let start = caches.first().map_or(0, KvCache::tokens);
        for cache in caches {
            let (found, expected) =
                ((cache.layer_count(), cache.tokens()), (self.layers.len(), start));
            if found != expected {
                return Err(Error::input(format!(
                    "cache: expected (layers, tokens) {expected:?}, found {found:?}"
                )));
            }
        }
        Ok(start)
    }

    /// How many caches [`Model::forward_each`] should get at once. What it gives for one is the
    /// same bits whatever the others are, so products that may add up in another order with more
    /// rows get them one by one: on the CPU those of single rows and of small models' few, everywhere
    /// those of experts. On other devices than the CPU every product has as many rows as with so many
    /// caches, however many there are.
    ///
    /// # Errors
    /// There, those of a first pass with so many.
    pub fn caches_at_once(&self, tokens: usize) -> Result<usize> {
        let (dtype, is_packed) = (self.dtype(), self.embeddings.is_packed());
        let has_places = self.places.is_some();
        let most = caches_at_once(&self.config, dtype, has_places, is_packed, tokens);
        let Some(places) = &self.places else { return Ok(most) };
        places.of(tokens, most, || {
            let vocabulary = self.config.vocab_size as u32;
            let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 7919 % vocabulary).collect();
            self.forward_in_places(&vec![ids.as_slice(); most], most, 0, &mut |_, _, kv| Ok(kv))
        })
    }

    /// Hidden states of all sequences below each other, [sequences·tokens, hidden].
    fn forward_stacked(
        &self,
        sequences: &[&[u32]],
        start: usize,
        attended: Attended,
    ) -> Result<Tensor> {
        let tokens = sequences.first().map_or(0, |first| first.len());
        let places = self.places.as_ref().map_or(Ok(0), |_| self.caches_at_once(tokens))?;
        let hidden = self.forward_in_places(sequences, places, start, attended)?;
        Ok(hidden.narrow(0, 0, sequences.len() * tokens)?)
    }

    /// The same with at least so many places, of which those that no sequence takes are filled up,
    /// [places·tokens, hidden].
    fn forward_in_places(
        &self,
        sequences: &[&[u32]],
        places: usize,
        start: usize,
        attended: Attended,
    ) -> Result<Tensor> {
        let tokens = sequences.first().map_or(0, |first| first.len());
        if let Some(other) = sequences.iter().find(|other| other.len() != tokens) {
            return Err(Error::input(format!(
                "sequences: expected {tokens} tokens of each, as of the first, found {}",
                other.len()
            )));
        }
        let longest = self.config.max_context();
        if start + tokens > longest {
            return Err(Error::input(format!(
                "position {}: expected at most {longest}, the model's longest context",
                start + tokens,
            ))
            .hint("use a smaller --context"));
        }
        let angles = self.ropes.iter().map(|rope| rope.at(start, tokens, self.dtype, &self.device));
        let angles = angles.collect::<Result<Vec<Angles>>>()?;
        let ids = filled(sequences.to_vec(), places).concat();
        let x = self.embeddings.select(&ids, &self.device)?; // [rows = places·tokens, hidden]
        let mut x = scaled(x, self.config.embedding_scale)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = normed(&layer.before_attention, &x)?;
            let attention = &layer.attention;
            let angles = self.config.layers[index].attention.rotary.map(|index| &angles[index]);
            let qkv = attention.qkv.forward(&normed)?; // [rows, (heads + 2·kv_heads)·head_dim]
            let mixed = (0..sequences.len())
                .map(|sequence| {
                    let qkv = qkv.narrow(0, sequence * tokens, tokens)?;
                    let (query, key, value) = attention.split(&qkv, angles, start)?;
                    let new = LayerKv { key: self.kept(key)?, value: self.kept(value)? };
                    let kv = attended(sequence, index, new)?;
                    attention.attend(&query, &kv.key, &kv.value) // [tokens, heads·head_dim]
                })
                .collect::<Result<Vec<_>>>()?;
            let mixed = match filled(mixed, places).as_slice() {
                [one] => one.clone(),
                several => Tensor::cat(several, 0)?,
            };
            let attended = attention.output.forward(&mixed)?;
            let attended = self.addend(&layer.after_attention, attended)?;
            if self.config.block.parallel {
                let computed = self.addend(&layer.after_mlp, layer.mlp.forward(&normed)?)?;
                x = ((attended + x)? + computed)?;
                continue;
            }
            x = (attended + x)?;
            let computed = layer.mlp.forward(&self::normed(&layer.before_mlp, &x)?)?;
            x = (self.addend(&layer.after_mlp, computed)? + x)?;
        }
        self.norm.forward(&x)
    }

    /// Keys or values, as a cache has them.
    fn kept(&self, x: Tensor) -> Result<Tensor> {
        match self.rounding {
            None => Ok(x),
            Some(rounding) => Ok(x.to_dtype(rounding.dtype())?),
        }
    }

    /// What a layer adds to the residual stream.
    fn addend(&self, norm: &Option<Norm>, x: Tensor) -> Result<Tensor> {
        scaled(normed(norm, &x)?, self.config.residual_scale)
    }

    /// Logits of hidden states, [rows, hidden] → [rows, vocab], f32 on the model's device.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let weight = self.head.as_ref().unwrap_or(&self.embeddings);
        let logits = weight.product(&hidden.contiguous()?)?;
        let logits = scaled(logits.to_dtype(DType::F32)?, self.config.logit_scale)?;
        softcapped(logits, self.config.logit_softcap)
    }
}

fn ropes(config: &ModelConfig, context: usize) -> Vec<Rope> {
    config.rotary.iter().map(|rotary| Rope::new(rotary, context)).collect()
}

/// With the last one again until there are so many.
fn filled<T: Clone>(mut all: Vec<T>, count: usize) -> Vec<T> {
    if let Some(last) = all.last().cloned() {
        all.resize(count.max(all.len()), last);
    }
    all
}

fn normed(norm: &Option<Norm>, x: &Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(x),
        None => Ok(x.clone()),
    }
}
