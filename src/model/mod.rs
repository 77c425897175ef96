//! A Llama in candle whose KV cache is a value.
//!
//! candle-transformers' own Llama keeps its cache private and returns the last position only,
//! so it cannot be wrapped; it is the oracle instead ([`oracle`]). The forward pass reads top
//! down as in Touvron et al. 2023; shapes stand beside the lines that have them.

mod attention;
mod cache;
mod config;
mod gguf;
mod json;
mod kernels;
mod loader;
pub mod oracle;
mod random;
mod rope;
pub mod source;
mod weights;

pub use cache::{KvCache, LayerKv};
pub use config::{AttentionBias, Bound, Longest, ModelConfig, RopeScaling};
pub use gguf::{Gguf, WeightType};
pub use random::RandomWeights;
pub use weights::{Safetensors, Unread, Weights};

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use loader::Loader;
use rope::Rope;

/// See [`Llama::forward_written`].
pub type Write<'a> = &'a mut dyn FnMut(usize, usize, LayerKv) -> Result<LayerKv>;

/// A model of the Llama family, its weights in memory.
pub struct Llama {
    config: ModelConfig,
    embeddings: Tensor, // [vocab, hidden]
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `None`: tied to the embeddings.
    head: Option<Linear>,
    rope: Rope,
    dtype: DType,
    device: Device,
}

struct Layer {
    attention_norm: RmsNorm,
    /// Queries, keys and values in one product: [(heads + 2·kv_heads)·head_dim, hidden].
    qkv: Linear,
    output: Linear,
    mlp_norm: RmsNorm,
    /// Gate and up in one product: [2·intermediate, hidden].
    gate_up: Linear,
    down: Linear,
}

struct Linear {
    weight: Tensor, // [out, in]
    bias: Option<Tensor>,
}

struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl Llama {
    /// Puts the model together twice, first from the files' headers alone: what is missing, of
    /// another shape or not used at all is an error before a weight is read.
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

    fn build(config: &ModelConfig, loader: &Loader) -> Result<Self> {
        let (hidden, head_dim) = (config.hidden_size, config.head_dim);
        let (q, kv) = (config.heads * head_dim, config.kv_heads * head_dim);
        let intermediate = config.intermediate_size;
        let norm = |name: &str| -> Result<RmsNorm> {
            Ok(RmsNorm { weight: loader.tensor(name, &[hidden])?, eps: config.rms_norm_eps })
        };
        let layers = (0..config.layers)
            .map(|index| {
                let name = |part: &str| format!("model.layers.{index}.{part}");
                let attention =
                    |part: &str, out: usize| (name(&format!("self_attn.{part}_proj")), out);
                let mlp = |part: &str, out: usize| (name(&format!("mlp.{part}_proj")), out);
                let bias = config.attention_bias;
                Ok(Layer {
                    attention_norm: norm(&name("input_layernorm.weight"))?,
                    qkv: loader.linear(
                        &[attention("q", q), attention("k", kv), attention("v", kv)],
                        hidden,
                        bias.qkv,
                    )?,
                    output: loader.linear(&[attention("o", hidden)], q, bias.output)?,
                    mlp_norm: norm(&name("post_attention_layernorm.weight"))?,
                    gate_up: loader.linear(
                        &[mlp("gate", intermediate), mlp("up", intermediate)],
                        hidden,
                        config.mlp_bias,
                    )?,
                    down: loader.linear(&[mlp("down", hidden)], intermediate, config.mlp_bias)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let vocabulary = [config.vocab_size, hidden];
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(Linear { weight: loader.tensor("lm_head.weight", &vocabulary)?, bias: None })
        };
        Ok(Self {
            embeddings: loader.tensor("model.embed_tokens.weight", &vocabulary)?,
            layers,
            norm: norm("model.norm.weight")?,
            head,
            rope: Rope::new(config),
            config: config.clone(),
            dtype: loader.dtype(),
            device: loader.device().clone(),
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Type of its weights and activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rotary frequencies of the keys: radians a position, one for channels i and i + head_dim / 2.
    pub fn rope_frequencies(&self) -> &[f32] {
        self.rope.frequencies()
    }

    /// A cache of its layers that holds no token yet.
    pub fn empty_cache(&self) -> KvCache {
        KvCache::empty(self.config.layers)
    }

    /// Runs `tokens` at the positions after those in `cache`, appends their keys and values to
    /// it, and returns the hidden states after the last norm, [tokens, hidden].
    pub fn forward(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Tensor> {
        self.forward_stacked(tokens, std::slice::from_mut(cache), &mut |_, _, kv| Ok(kv))
    }

    /// [`Llama::forward`] over each of several caches of one length, which is faster than one
    /// after the other: each weight is read once.
    pub fn forward_each(&self, tokens: &[u32], caches: &mut [KvCache]) -> Result<Vec<Tensor>> {
        self.forward_written(tokens, caches, &mut |_, _, kv| Ok(kv))
    }

    /// [`Llama::forward_each`] with keys and values of the new tokens as `write` gives them back:
    /// it gets the index of the cache, that of the layer, and both.
    pub fn forward_written(
        &self,
        tokens: &[u32],
        caches: &mut [KvCache],
        write: Write,
    ) -> Result<Vec<Tensor>> {
        if caches.is_empty() {
            return Ok(Vec::new());
        }
        let stacked = self.forward_stacked(tokens, caches, write)?;
        let rows = |cache| stacked.narrow(0, cache * tokens.len(), tokens.len());
        (0..caches.len()).map(|cache| Ok(rows(cache)?)).collect()
    }

    /// How many caches [`Llama::forward_each`] should get at once. What it gives for one is the
    /// same bits whatever the others are, so products that may add up in another order with more
    /// rows get them one by one: those of few rows, and all but gemm's f32.
    pub fn caches_at_once(&self, tokens: usize) -> usize {
        /// Above it gemm splits the inner dimension by that alone.
        const FEW_ROWS: usize = 64;
        /// More rows are no faster, and take memory.
        const ENOUGH_ROWS: usize = 1024;
        let in_gemm = self.dtype == DType::F32 && self.device.is_cpu();
        if in_gemm && tokens > FEW_ROWS { (ENOUGH_ROWS / tokens).max(1) } else { 1 }
    }

    /// Hidden states of all caches below each other, [caches·tokens, hidden].
    fn forward_stacked(
        &self,
        tokens: &[u32],
        caches: &mut [KvCache],
        write: Write,
    ) -> Result<Tensor> {
        let start = caches.first().map_or(0, KvCache::tokens);
        let longest = self.config.longest();
        if start + tokens.len() > longest.tokens {
            return Err(Error::input(format!(
                "position {}: expected at most {}, {}",
                start + tokens.len(),
                longest.tokens,
                longest.bound
            ))
            .hint("use a smaller --context"));
        }
        for cache in caches.iter() {
            let (found, expected) =
                ((cache.layer_count(), cache.tokens()), (self.layers.len(), start));
            if found != expected {
                return Err(Error::input(format!(
                    "cache: expected (layers, tokens) {expected:?}, found {found:?}"
                )));
            }
        }
        let rope = self.rope.at(start, tokens.len(), self.dtype, &self.device)?;
        let ids = Tensor::new(tokens.repeat(caches.len()), &self.device)?;
        let mut x = self.embeddings.index_select(&ids, 0)?; // [rows = caches·tokens, hidden]
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = layer.attention_norm.forward(&x)?;
            let qkv = layer.qkv.forward(&normed)?; // [rows, (heads + 2·kv_heads)·head_dim]
            let mixed = caches
                .iter_mut()
                .enumerate()
                .map(|(cache, kv)| {
                    let qkv = qkv.narrow(0, cache * tokens.len(), tokens.len())?;
                    let (query, key, value) =
                        attention::split_and_rotate(&qkv, &rope, &self.config)?;
                    let new = write(cache, index, LayerKv { key, value })?;
                    let kv = kv.extend(index, new)?;
                    attention::causal(&query, &kv.key, &kv.value) // [tokens, heads·head_dim]
                })
                .collect::<Result<Vec<_>>>()?;
            let mixed = match mixed.as_slice() {
                [one] => one.clone(),
                several => Tensor::cat(several, 0)?,
            };
            x = (layer.output.forward(&mixed)? + x)?;
            let normed = layer.mlp_norm.forward(&x)?;
            let gate_up = layer.gate_up.forward(&normed)?; // [rows, 2·intermediate]
            x = (layer.down.forward(&swiglu(&gate_up)?)? + x)?;
        }
        caches.iter_mut().for_each(|cache| cache.advance(tokens.len()));
        self.norm.forward(&x)
    }

    /// Logits of hidden states, [rows, hidden] → [rows, vocab], f32 on the CPU.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let weight = self.head.as_ref().map_or(&self.embeddings, |head| &head.weight);
        let logits = product(&hidden.contiguous()?, weight)?;
        Ok(logits.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
    }
}

/// x [rows, in] · weightᵀ, weight [out, in] → [rows, out]
fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match kernels::product(x, weight)? {
        Some(product) => Ok(product),
        None => Ok(x.matmul(&weight.t()?)?),
    }
}

impl Linear {
    /// [rows, in] → [rows, out]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = product(x, &self.weight)?;
        match &self.bias {
            None => Ok(product),
            Some(bias) => Ok(product.broadcast_add(bias)?),
        }
    }
}

impl RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(candle_nn::ops::rms_norm(x, &self.weight, self.eps as f32)?)
    }
}

/// silu(gate) · up for [gate | up], [rows, 2·width] → [rows, width].
fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    if let Some(fused) = kernels::swiglu(gate_up)? {
        return Ok(fused);
    }
    let halves = gate_up.chunk(2, 1)?;
    Ok((halves[0].contiguous()?.silu()? * halves[1].contiguous()?)?)
}
