//! Random Llama models on disk: as a Hugging Face folder and as a GGUF file.
//!
//! The same seed and [`Spec`] give the same weights everywhere. Both forms are written from their
//! definitions, not through `kvgauge`, so that a test which loads them checks the loader.

// Every test crate that includes this file uses its own part of it.
#![allow(dead_code)]

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use kvgauge::hub::{Hub, HubOptions};
use kvgauge::model::source::{ModelSource, OpenModel};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// SplitMix64: enough for test data, and no dependency.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform, mean 0, variance 1.
    pub fn value(&mut self) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1u64 << 24) as f32;
        (unit * 2.0 - 1.0) * 3f32.sqrt()
    }

    pub fn tokens(&mut self, count: usize, vocab: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(vocab) as u32).collect()
    }
}

/// The shape of a model. Inner sizes are multiples of 32, so that GGUF's blocks fit.
#[derive(Clone)]
pub struct Spec {
    pub vocab: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub context: usize,
    pub tied: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    /// As in `config.json`; `null`: none.
    pub rope_scaling: Json,
}

impl Default for Spec {
    /// Grouped-query, untied, no biases, head_dim other than hidden / heads.
    fn default() -> Self {
        Self {
            vocab: 64,
            hidden: 64,
            intermediate: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 24,
            context: 512,
            tied: false,
            attention_bias: false,
            mlp_bias: false,
            rope_scaling: Json::Null,
        }
    }
}

pub const ROPE_THETA: f32 = 20_000.0;
pub const RMS_NORM_EPS: f32 = 1e-5;

#[derive(Clone)]
pub struct RandomModel {
    pub spec: Spec,
    /// Shape and values by Hugging Face name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl RandomModel {
    /// Weights wide enough that attention is sharp, norms differ from 1 and biases from 0.
    pub fn new(seed: u64, spec: Spec) -> Self {
        let mut random = Random::new(seed);
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], mean: f32, spread: f32| {
            let count = shape.iter().product();
            let values = (0..count).map(|_| mean + spread * random.value()).collect();
            tensors.insert(name, (shape.to_vec(), values));
        };
        add("model.embed_tokens.weight".into(), &[spec.vocab, spec.hidden], 0.0, 1.0);
        add("model.norm.weight".into(), &[spec.hidden], 1.0, 0.25);
        let mut linear = |name: String, out: usize, input: usize, bias: bool| {
            add(format!("{name}.weight"), &[out, input], 0.0, 1.4 / (input as f32).sqrt());
            if bias {
                add(format!("{name}.bias"), &[out], 0.0, 0.3);
            }
        };
        if !spec.tied {
            linear("lm_head".into(), spec.vocab, spec.hidden, false);
        }
        let (q, kv) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        for layer in 0..spec.layers {
            for (part, out, input) in [
                ("q", q, spec.hidden),
                ("k", kv, spec.hidden),
                ("v", kv, spec.hidden),
                ("o", spec.hidden, q),
            ] {
                let name = format!("model.layers.{layer}.self_attn.{part}_proj");
                linear(name, out, input, spec.attention_bias);
            }
            for (part, out, input) in [
                ("gate", spec.intermediate, spec.hidden),
                ("up", spec.intermediate, spec.hidden),
                ("down", spec.hidden, spec.intermediate),
            ] {
                let name = format!("model.layers.{layer}.mlp.{part}_proj");
                linear(name, out, input, spec.mlp_bias);
            }
        }
        for layer in 0..spec.layers {
            for norm in ["input", "post_attention"] {
                let name = format!("model.layers.{layer}.{norm}_layernorm.weight");
                add(name, &[spec.hidden], 1.0, 0.25);
            }
        }
        Self { spec, tensors }
    }

    /// `config.json`
    pub fn config(&self) -> Json {
        let spec = &self.spec;
        json!({
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": spec.vocab,
            "hidden_size": spec.hidden,
            "intermediate_size": spec.intermediate,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "head_dim": spec.head_dim,
            "max_position_embeddings": spec.context,
            "rms_norm_eps": RMS_NORM_EPS,
            "rope_theta": ROPE_THETA,
            "rope_scaling": spec.rope_scaling,
            "tie_word_embeddings": spec.tied,
            "attention_bias": spec.attention_bias,
            "mlp_bias": spec.mlp_bias,
            "hidden_act": "silu",
        })
    }

    /// config.json, model.safetensors and tokenizer.json in an existing folder. `dtype`: F32, F16
    /// or BF16.
    pub fn write_folder(&self, folder: &Path, dtype: Dtype) {
        std::fs::write(folder.join("config.json"), self.config().to_string()).unwrap();
        let tokenizer = tokenizer(self.spec.vocab).to_string();
        std::fs::write(folder.join("tokenizer.json"), tokenizer).unwrap();
        let stored: Vec<(&String, &[usize], Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| (name, shape.as_slice(), bytes(values, dtype)))
            .collect();
        let views = stored
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.to_vec(), bytes)))
            .map(|(name, view)| (name, view.unwrap()));
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    }

    /// The model as llama.cpp's converter would lay it out: matrices as `dtype`, vectors as F32.
    pub fn gguf(&self, dtype: GgmlDType) -> GgufFile {
        let spec = &self.spec;
        let tensors = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let name = gguf_name(name);
                let values = match name.split('.').nth(2) {
                    Some("attn_q") => permuted(values, spec.heads, spec.head_dim),
                    Some("attn_k") => permuted(values, spec.kv_heads, spec.head_dim),
                    _ => values.clone(),
                };
                let dtype = if shape.len() == 2 { dtype } else { GgmlDType::F32 };
                (name, quantised(&values, shape, dtype))
            })
            .collect();
        GgufFile { metadata: spec.gguf_metadata(), tensors }
    }

    pub fn write_gguf(&self, path: &Path, dtype: GgmlDType) {
        self.gguf(dtype).write(path);
    }

    /// The model with its matrices rounded to what `dtype` stores. A block never spans two rows,
    /// so this does not depend on the order of the rows.
    pub fn rounded(&self, dtype: GgmlDType) -> Self {
        let mut rounded = self.clone();
        for (shape, values) in rounded.tensors.values_mut().filter(|(shape, _)| shape.len() == 2) {
            let tensor = quantised(values, shape, dtype).dequantize(&Device::Cpu).unwrap();
            *values = tensor.flatten_all().unwrap().to_vec1().unwrap();
        }
        rounded
    }
}

impl Spec {
    /// A GGUF file's metadata, tokenizer included.
    pub fn gguf_metadata(&self) -> Vec<(String, Value)> {
        let integer = |n: usize| Value::U32(n as u32);
        let text = |s: &str| Value::String(s.into());
        let tokens = tokens(self.vocab, &byte_level);
        let metadata = [
            ("general.architecture", text("llama")),
            ("llama.vocab_size", integer(self.vocab)),
            ("llama.context_length", integer(self.context)),
            ("llama.embedding_length", integer(self.hidden)),
            ("llama.block_count", integer(self.layers)),
            ("llama.feed_forward_length", integer(self.intermediate)),
            ("llama.attention.head_count", integer(self.heads)),
            ("llama.attention.head_count_kv", integer(self.kv_heads)),
            ("llama.attention.key_length", integer(self.head_dim)),
            ("llama.attention.value_length", integer(self.head_dim)),
            ("llama.rope.dimension_count", integer(self.head_dim)),
            ("llama.rope.freq_base", Value::F32(ROPE_THETA)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(RMS_NORM_EPS)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("gpt-2")),
            ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|t| text(t)).collect())),
            ("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); self.vocab])),
            ("tokenizer.ggml.merges", Value::Array(Vec::new())),
        ];
        metadata.map(|(key, value)| (key.to_string(), value)).into()
    }
}

/// The parts of a GGUF file, to be changed before it is written.
pub struct GgufFile {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<(String, QTensor)>,
}

impl GgufFile {
    /// Replaces or adds a metadata entry.
    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.retain(|(name, _)| name != key);
        self.metadata.push((key.into(), value));
    }

    /// Replaces or adds an F32 tensor.
    pub fn set_tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.tensors.retain(|(other, _)| other != name);
        self.tensors.push((name.into(), quantised(values, shape, GgmlDType::F32)));
    }

    pub fn remove_tensor(&mut self, name: &str) {
        self.tensors.retain(|(other, _)| other != name);
    }

    pub fn write(&self, path: &Path) {
        let metadata: Vec<_> = self.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors: Vec<_> = self.tensors.iter().map(|(k, t)| (k.as_str(), t)).collect();
        let mut file = std::fs::File::create(path).unwrap();
        gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    }
}

/// Opens a folder or a GGUF file as `--model` does, without a network.
pub fn open(path: &Path) -> kvgauge::Result<OpenModel> {
    let hub = Hub::new(HubOptions::from_lookup(true, |_| None), Arc::new(()))?;
    let typed = path.display().to_string();
    ModelSource::parse(&typed)?.open(&typed, &hub)
}

/// A tokenizer.json with one token a character. Every text encodes: id 0 stands for characters
/// that are no token.
pub fn tokenizer(vocab: usize) -> Json {
    let ids: BTreeMap<String, usize> = tokens(vocab, &|c| c).into_iter().zip(0..).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(?s)."},
            "behavior": "Isolated",
            "invert": false,
        },
        "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"},
    })
}

/// `<unk>`, blank, newline, small letters, the rest of ASCII, and fillers up to `vocab`.
fn tokens(vocab: usize, spelling: &dyn Fn(char) -> char) -> Vec<String> {
    let others = ('!'..='~').filter(|c| !c.is_ascii_lowercase());
    let characters = [' ', '\n'].into_iter().chain('a'..='z').chain(others);
    std::iter::once("<unk>".to_string())
        .chain(characters.map(|c| spelling(c).to_string()))
        .chain((0..).map(|n| format!("<extra_{n}>")))
        .take(vocab)
        .collect()
}

/// GPT-2's visible spelling of a byte.
fn byte_level(c: char) -> char {
    match c {
        ' ' => 'Ġ',
        '\n' => 'Ċ',
        visible => visible,
    }
}

/// The converter's `w.reshape(heads, 2, head_dim / 2, …).swapaxes(1, 2)` on the rows of a weight
/// or the values of a bias.
fn permuted(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * head_dim);
    let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for frequency in 0..head_dim / 2 {
            for half in 0..2 {
                let row = head * head_dim + half * head_dim / 2 + frequency;
                out.extend_from_slice(rows[row]);
            }
        }
    }
    out
}

fn quantised(values: &[f32], shape: &[usize], dtype: GgmlDType) -> QTensor {
    let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, dtype).unwrap()
}

fn gguf_name(name: &str) -> String {
    let mut name = name
        .replace("model.embed_tokens.", "token_embd.")
        .replace("model.norm.", "output_norm.")
        .replace("lm_head.", "output.")
        .replace("model.layers.", "blk.")
        .replace("input_layernorm", "attn_norm")
        .replace("post_attention_layernorm", "ffn_norm");
    for (theirs, ours) in [("q", "attn_q"), ("k", "attn_k"), ("v", "attn_v"), ("o", "attn_output")]
    {
        name = name.replace(&format!("self_attn.{theirs}_proj"), ours);
    }
    for part in ["gate", "up", "down"] {
        name = name.replace(&format!("mlp.{part}_proj"), &format!("ffn_{part}"));
    }
    name
}

fn bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        other => panic!("no float type of a model: {other:?}"),
    }
}
