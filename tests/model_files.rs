//! Files that people have in place of a model that can be computed: tensors and keys that make it
//! another model, and healthy files of other kinds. Each is refused by name, with a hint that
//! sends nobody to fetch a healthy file again.

#[path = "common/random_model.rs"]
mod random_model;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use candle_core::{DType, Device};
use kvgauge::error::{Error, Kind};
use kvgauge::model::Model;
use random_model::{GgufFile, RandomModel, Spec};
use safetensors::Dtype;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn spec() -> Spec {
    Spec {
        vocab: 32,
        hidden: 32,
        intermediate: 32,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        ..Spec::default()
    }
}

fn model() -> RandomModel {
    RandomModel::new(3, spec())
}

fn load(path: &Path) -> kvgauge::Result<Model> {
    random_model::open(path)?.load(DType::F32, &Device::Cpu)
}

/// The last logits, to the bit.
fn logits(model: &Model) -> Vec<f32> {
    let hidden = model.forward(&[1, 5, 2, 9], &mut model.empty_cache()).unwrap();
    model.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_words(error: &Error, mentions: &[&str], hints: &[&str]) {
    assert_eq!(error.kind(), Kind::Input, "{error}");
    let message = error.to_string();
    let hint = error.hint_text().unwrap_or_else(|| panic!("no hint: {message}"));
    for text in mentions {
        assert!(message.contains(text), "expected {text:?} in: {message}");
    }
    for text in hints {
        assert!(hint.contains(text), "expected {text:?} in the hint of {message}: {hint}");
    }
    for text in [&message, hint] {
        assert!(!text.contains('\n') && !text.contains("again"), "{text}");
    }
}

#[track_caller]
fn assert_refused(path: &Path, mentions: &[&str], hints: &[&str]) {
    let error = load(path).err().unwrap_or_else(|| panic!("{mentions:?}: loads"));
    assert_words(&error, mentions, hints);
}

/// A folder of a model, to be bent.
struct Folder(TempDir);

impl Folder {
    fn new(model: &RandomModel) -> Self {
        let folder = tempfile::tempdir().unwrap();
        model.write_folder(folder.path(), Dtype::F32);
        Self(folder)
    }

    fn plain() -> Self {
        Self::new(&model())
    }

    fn with_config(edit: impl FnOnce(&mut Json)) -> Self {
        let folder = Self::plain();
        folder.config(edit);
        folder
    }

    fn config(&self, edit: impl FnOnce(&mut Json)) {
        let mut config: Json = serde_json::from_slice(&self.read("config.json")).unwrap();
        edit(&mut config);
        self.write("config.json", config.to_string());
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).unwrap();
    }

    fn gguf(&self, file: &GgufFile) -> PathBuf {
        let path = self.path().join("model.gguf");
        file.write(&path);
        path
    }

    /// `model.safetensors` as two shards and an index; `twice` is in both.
    fn shard(model: &RandomModel, twice: &str) -> Self {
        let folder = Self::new(model);
        folder.remove("model.safetensors");
        let names: Vec<&String> = model.tensors.keys().collect();
        let mut map = serde_json::Map::new();
        for (part, of) in names.chunks(names.len().div_ceil(2)).zip(1..) {
            let file = format!("model-0000{of}-of-00002.safetensors");
            let mut shard = model.clone();
            shard.tensors.retain(|name, _| part.contains(&name) || name == twice);
            let scratch = Self::new(&shard);
            folder.write(&file, scratch.read("model.safetensors"));
            map.extend(part.iter().map(|name| (name.to_string(), json!(file))));
        }
        folder.write(INDEX, json!({"weight_map": map}).to_string());
        folder
    }
}

const INDEX: &str = "model.safetensors.index.json";

// --- Tensors that the model does not use

#[test]
fn tensors_of_a_folder_that_nothing_reads_are_named() {
    let attention = "model.layers.0.self_attn.";
    for (name, hint) in [
        ("model.layers.0.self_attn.q_norm.weight", "more than its architecture"),
        ("model.layers.1.self_attn.attn_sub_norm.weight", "more than its architecture"),
        ("lm_head.bias", "more than its architecture"),
        ("model.layers.0.self_attn.k_proj.bias", "belong together"),
        ("model.layers.1.mlp.down_proj.bias", "belong together"),
        ("model.layers.0.self_attn.q_proj.weight_scale", "quantised"),
        ("model.layers.0.self_attn.q_proj.weight_scale_inv", "quantised"),
        ("model.layers.1.mlp.up_proj.SCB", "quantised"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "merge"),
        ("model.layers.0.self_attn.sinks", "more than its architecture"),
        ("model.layers.0.post_feedforward_layernorm.weight", "more than its architecture"),
        ("model.layers.2.input_layernorm.weight", "belong together"),
        ("model.layers.x.input_layernorm.weight", "more than its architecture"),
        ("model.norm.bias", "more than its architecture"),
        ("model.embed_positions.weight", "more than its architecture"),
        ("vision.x", "more than its architecture"),
        ("", "more than its architecture"),
    ] {
        let mut model = model();
        model.tensors.insert(name.into(), (vec![32], vec![0.5; 32]));
        let folder = Folder::new(&model);
        assert_refused(folder.path(), &["model.safetensors: tensor ", name], &[hint]);
    }
    let mut model = model();
    for part in ["q_norm", "k_norm", "v_norm"] {
        model.tensors.insert(format!("{attention}{part}.weight"), (vec![16], vec![1.0; 16]));
    }
    let folder = Folder::new(&model);
    assert_refused(folder.path(), &["_norm.weight", "and 2 more"], &[]);
    // Headers go first: no value is read, or the NaN would be named.
    model.tensors.get_mut("model.norm.weight").unwrap().1[0] = f32::NAN;
    assert_refused(Folder::new(&model).path(), &["_norm.weight", "and 2 more"], &[]);
}

#[test]
fn tensors_of_a_gguf_file_that_nothing_reads_are_named() {
    for (name, hint) in [
        ("output.bias", "more than its architecture"),
        ("blk.0.post_attention_norm.weight", "more than its architecture"),
        ("blk.0.attn_q_norm.weight", "more than its architecture"),
        ("blk.1.attn_sub_norm.weight", "more than its architecture"),
        ("blk.0.attn_q.scale", "quantised"),
        ("blk.0.attn_k.bias", "biases"),
        ("blk.1.attn_q.bias", "biases"),
        ("blk.0.ffn_down.bias", "biases"),
        ("blk.0.attn_sinks.weight", "more than its architecture"),
        ("blk.2.attn_norm.weight", "belong together"),
        ("blk.0.ffn_gate_inp.weight", "more than its architecture"),
        ("token_embd_norm.weight", "more than its architecture"),
        ("output_norm.bias", "more than its architecture"),
        ("something", "more than its architecture"),
    ] {
        let folder = Folder::plain();
        let mut file = model().gguf(GgmlDType::F32);
        file.set_tensor(name, &[32], &[0.5; 32]);
        assert_refused(&folder.gguf(&file), &["model.gguf", name], &[hint]);
    }
    // LongRoPE has two sets.
    let mut file = model().gguf(GgmlDType::F32);
    file.set_tensor("rope_factors_long.weight", &[8], &[0.5; 8]);
    let folder = Folder::plain();
    assert_refused(&folder.gguf(&file), &["rope_factors_short.weight", "missing"], &[]);
    let mut file = model().gguf(GgmlDType::F32);
    file.set_tensor("blk.0.attn_output.bias", &[32], &[0.5; 32]);
    let folder = Folder::plain();
    assert_refused(&folder.gguf(&file), &["blk.1.attn_output.bias", "missing"], &["every layer"]);
}

/// Tensors that older programs saved beside the weights, and those that say the same twice.
#[test]
fn harmless_tensors_change_nothing() {
    let tied = RandomModel::new(4, Spec { tied: true, ..spec() });
    let embeddings = tied.tensors["model.embed_tokens.weight"].clone();
    for base in [&model(), &tied] {
        let expected = logits(&load(Folder::new(base).path()).unwrap());
        let mut more = base.clone();
        for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"] {
            more.tensors.insert(name.into(), (vec![8], vec![1.0; 8]));
        }
        if base.spec.tied {
            more.tensors.insert("lm_head.weight".into(), embeddings.clone());
        }
        assert_eq!(logits(&load(Folder::new(&more).path()).unwrap()), expected);
        let folder = Folder::plain();
        let mut file = base.gguf(GgmlDType::F32);
        file.set_tensor("blk.0.attn_rot_embd.weight", &[8], &[1.0; 8]);
        assert_eq!(logits(&load(&folder.gguf(&file)).unwrap()), expected);
    }
    // One value of the head another.
    for at in [0, embeddings.1.len() - 1] {
        let mut head = embeddings.clone();
        head.1[at] += 0.5;
        let mut other = tied.clone();
        other.tensors.insert("lm_head.weight".into(), head);
        let folder = Folder::new(&other);
        let mentions = ["model.safetensors", "lm_head.weight", "tie_word_embeddings"];
        assert_refused(folder.path(), &mentions, &["tie_word_embeddings"]);
    }
    let mut other = tied.clone();
    other.tensors.insert("lm_head.weight".into(), (vec![8, 32], vec![0.5; 256]));
    assert_refused(Folder::new(&other).path(), &["lm_head.weight", "shape"], &[]);
}

#[test]
fn biases_of_some_layers_are_refused() {
    let biased = || RandomModel::new(5, Spec { attention_bias: true, mlp_bias: true, ..spec() });
    load(Folder::new(&biased()).path()).unwrap();
    for part in ["self_attn.k", "self_attn.o", "mlp.down"] {
        let name = format!("model.layers.1.{part}_proj.bias");
        let mut model = biased();
        model.tensors.remove(&name);
        assert_refused(Folder::new(&model).path(), &[&name, "missing"], &[]);
        let folder = Folder::plain();
        let ours = if part == "mlp.down" { "blk.1.ffn_down.bias" } else { "blk.1.attn_" };
        assert_refused(&folder.gguf(&model.gguf(GgmlDType::F32)), &[ours, "missing"], &["biases"]);
    }
}

// --- Keys that make it another model

#[test]
fn rope_keys_that_are_not_understood_are_refused() {
    let llama3 = |extra: Json| {
        let mut rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 48});
        rope.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        rope
    };
    let linear = |key: &str, value: Json| json!({"type": "linear", "factor": 2.0, key: value});
    for (rope, mentions, hint) in [
        (json!({"rope_type": "yarn", "factor": 4.0, "alpha": 1.0}), &["alpha"][..], "perplexity"),
        (json!({"type": "su"}), &["su"], "perplexity"),
        (json!({"type": "xpos"}), &["xpos"], "perplexity"),
        (linear("attention_factor", json!(1.2)), &["attention_factor", "1.2"], "perplexity"),
        (linear("mscale", json!(0.7)), &["mscale"], "perplexity"),
        (linear("beta_fast", json!(32)), &["beta_fast"], "perplexity"),
        (linear("low_freq_factor", json!(1.0)), &["low_freq_factor", "linear"], "perplexity"),
        (llama3(json!({"short_factor": [1.0, 2.0]})), &["short_factor"], "perplexity"),
        (llama3(json!({"mystery": true})), &["mystery", "llama3"], "perplexity"),
        (json!({"factor": 8.0}), &["factor", "default"], "perplexity"),
        (json!({"full_attention": {"rope_type": "linear"}}), &["full_attention"], "perplexity"),
        (json!({"rope_type": "linear", "factor": {"a": 1}}), &["factor", "a number"], "author"),
        (json!({"rope_type": ["linear"]}), &["rope_type", "a name"], "author"),
        (json!({"rope_type": "linear", "type": "yarn", "factor": 2}), &["yarn"], "trained"),
        (json!("linear"), &["an object"], "author"),
        (json!([1]), &["an object"], "author"),
    ] {
        for place in ["rope_scaling", "rope_parameters"] {
            let folder = Folder::with_config(|config| config[place] = rope.clone());
            let mentions: Vec<&str> = mentions.iter().copied().chain([place]).collect();
            assert_refused(folder.path(), &mentions, &[hint]);
        }
    }
    // Two scalings, and a context of training that contradicts itself.
    let both = Folder::with_config(|config| {
        config["rope_scaling"] = llama3(json!({}));
        config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 1e4});
    });
    assert_refused(both.path(), &["rope_scaling", "rope_parameters"], &["trained"]);
    let context = Folder::with_config(|config| {
        config["rope_scaling"] = llama3(json!({}));
        config["original_max_position_embeddings"] = json!(96);
    });
    assert_refused(context.path(), &["original_max_position_embeddings", "96", "48"], &[]);
    // Keys that say nothing may stay.
    let plain = logits(&load(Folder::plain().path()).unwrap());
    for rope in [
        json!({}),
        json!({"rope_type": "default", "factor": 1.0, "mscale": null}),
        json!({"rope_type": "default", "original_max_position_embeddings": 48}),
    ] {
        let folder = Folder::with_config(|config| config["rope_scaling"] = rope);
        assert_eq!(logits(&load(folder.path()).unwrap()), plain);
    }
}

#[test]
fn keys_of_other_architectures_are_refused() {
    for (key, value) in [
        ("attention_multiplier", json!(0.5)),
        ("logits_scaling", json!(8.0)),
        ("residual_multiplier", json!(0.22)),
        ("embedding_multiplier", json!(12)),
        ("logit_scale", json!(0.0625)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("use_sliding_window", json!(true)),
        ("no_rope_layers", json!([1, 0])),
        ("query_pre_attn_scalar", json!(256)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("use_qk_norm", json!(true)),
        ("num_local_experts", json!(8)),
        ("is_causal", json!(false)),
        ("clip_qkv", json!(8.0)),
        ("scale_emb", json!(12)),
        ("attention_chunk_size", json!(8192)),
        ("position_embedding_type", json!("alibi")),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
        ("model_type", json!("qwen2")),
        ("rotary_pct", json!(0.25)),
        ("kv_lora_rank", json!(512)),
    ] {
        let folder = Folder::with_config(|config| config[key] = value);
        assert_refused(folder.path(), &["config.json", key], &["kvgauge.perplexity"]);
    }
    let plain = logits(&load(Folder::plain().path()).unwrap());
    let neutral = Folder::with_config(|config| {
        let more = json!({"attention_multiplier": 0.25, "logits_scaling": 1.0, "clip_qkv": null,
            "residual_multiplier": 1, "use_sliding_window": false, "no_rope_layers": [1, 1],
            "query_pre_attn_scalar": 16, "layer_types": ["full_attention", "full_attention"],
            "attn_logit_softcapping": null, "num_local_experts": 0, "is_causal": true,
            "model_type": "llama", "position_embedding_type": "rope", "pretraining_tp": 4,
            "transformers_version": "5.1", "my_own_note": {"anything": [1, 2]}});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    });
    assert_eq!(logits(&load(neutral.path()).unwrap()), plain);
}

#[test]
fn gguf_keys_that_are_not_understood_are_refused() {
    let text = |text: &str| Value::String(text.into());
    let folder = Folder::plain();
    for (key, value) in [
        ("rope.scaling.type", text("ntk")),
        ("rope.scaling.type", text("longrope")),
        ("rope.scaling.attn_factor", Value::F32(1.2)),
        ("rope.scaling.yarn_log_multiplier", Value::F32(0.1)),
        ("rope.scaling.yarn_ext_factor", Value::F32(1.0)),
        ("rope.scaling.yarn_beta_fast", Value::F32(32.0)),
        ("rope.scaling.alpha", Value::F32(1000.0)),
        ("rope.freq_base_swa", Value::F32(1e4)),
        ("rope.dimension_sections", Value::Array(vec![Value::I32(4); 4])),
        ("rope.mystery", Value::U32(0)),
        ("attention.scale", Value::F32(0.5)),
        ("attention.clamp_kqv", Value::F32(8.0)),
        ("attention.max_alibi_bias", Value::F32(8.0)),
        ("attention.causal", Value::Bool(false)),
        ("attention.key_length_mla", Value::U32(8)),
        ("attention.head_count_kv", Value::Array(vec![Value::U32(1), Value::U32(2)])),
        ("logit_scale", Value::F32(0.0625)),
        ("embedding_scale", Value::F32(12.0)),
        ("residual_scale", Value::F32(0.22)),
        ("expert_used_count", Value::U32(2)),
        ("attn_logit_softcapping", Value::F32(50.0)),
        ("final_logit_softcapping", Value::F32(30.0)),
        ("use_parallel_residual", Value::Bool(true)),
        ("mystery", text("yes")),
    ] {
        let mut file = model().gguf(GgmlDType::F32);
        file.set(&format!("llama.{key}"), value);
        assert_refused(&folder.gguf(&file), &["model.gguf", key], &["kvgauge.perplexity"]);
    }
    let mut file = model().gguf(GgmlDType::F32);
    let plain = logits(&load(&folder.gguf(&file)).unwrap());
    for (key, value) in [
        ("rope.scaling.type", text("none")),
        ("rope.scaling.attn_factor", Value::F32(1.0)),
        ("rope.scaling.yarn_log_multiplier", Value::F32(0.0)),
        ("rope.scaling.finetuned", Value::Bool(true)),
        ("rope.scaling.original_context_length", Value::U32(64)),
        ("attention.scale", Value::F32(0.25)),
        ("attention.causal", Value::Bool(true)),
        ("logit_scale", Value::F32(1.0)),
        ("expert_used_count", Value::U32(0)),
        ("final_logit_softcapping", Value::F32(0.0)),
    ] {
        file.set(&format!("llama.{key}"), value);
    }
    file.set("general.mystery", text("anything"));
    file.set("general.type", text("model"));
    assert_eq!(logits(&load(&folder.gguf(&file)).unwrap()), plain);
}

/// What the factor itself gives, or what the file does not say: the converter writes two different
/// keys of transformers under one name.
#[test]
fn yarns_factor_of_the_attention_is_read_where_it_is_certain() {
    let folder = Folder::plain();
    let with = |keys: &[(&str, f32)]| {
        let mut file = model().gguf(GgmlDType::F32);
        file.set("llama.rope.scaling.type", Value::String("yarn".into()));
        file.set("llama.rope.scaling.factor", Value::F32(4.0));
        file.set("llama.rope.scaling.original_context_length", Value::U32(16));
        for (key, value) in keys {
            file.set(&format!("llama.rope.scaling.{key}"), Value::F32(*value));
        }
        folder.gguf(&file)
    };
    // 0.1 · ln 4 + 1
    let whole = 1.138_629_4;
    let plain = logits(&load(&with(&[])).unwrap());
    assert_eq!(logits(&load(&with(&[("yarn_attn_factor", whole)])).unwrap()), plain);
    assert_eq!(logits(&load(&with(&[("attn_factor", whole)])).unwrap()), plain);
    assert_ne!(logits(&load(&with(&[("attn_factor", 1.2)])).unwrap()), plain);
    let certain = with(&[("yarn_attn_factor", 0.878_248_9)]);
    assert_refused(&certain, &["yarn_attn_factor", "1.13"], &["kvgauge.perplexity"]);
}

#[test]
fn keys_of_the_half_that_sees_are_not_the_language_models() {
    let mut file = model().gguf(GgmlDType::F32);
    file.set("llama.vision.block_count", Value::U32(27));
    file.set("llama.mm.tokens_per_image", Value::U32(256));
    let folder = Folder::plain();
    assert!(load(&folder.gguf(&file)).is_ok());
}

// --- Healthy files of other kinds

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:3b3b\nsize 6955480\n";
const HTML: &[u8] = b"<!DOCTYPE html><html><title>Access to this model is restricted</title>";

#[test]
fn files_of_other_kinds_are_called_what_they_are() {
    let kinds: [(&[u8], &str, &str); 8] = [
        (LFS, "Git LFS pointer", "git lfs pull"),
        (HTML, "HTML page", "server"),
        (b"Entry not found", "refusal", "server"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip", "gunzip"),
        (b"PK\x03\x04\x14\0\0\0", "zip archive", "PyTorch"),
        (b"PAR1\x15\x04\x15\x10", "Parquet", "table"),
        (&[0; 4096], "zeros", "finish"),
        (b"", "an empty file", "no bytes"),
    ];
    for (bytes, found, hint) in kinds {
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
        {
            let folder = Folder::plain();
            folder.write(name, bytes);
            if found == "zeros" {
                // Its hint does say to run again.
                let error = load(folder.path()).err().unwrap();
                assert!(error.to_string().contains("nothing but zeros"), "{error}");
                continue;
            }
            assert_refused(folder.path(), &[name, found], &[hint]);
        }
        if found != "zeros" {
            let folder = Folder::shard(&model(), "");
            folder.write(INDEX, bytes);
            assert_refused(folder.path(), &[INDEX, found], &[hint]);
            let path = folder.write("model.gguf", bytes);
            assert_refused(&path, &["model.gguf", found], &[hint]);
        }
    }
    let folder = Folder::plain();
    for (bytes, found, hint) in [
        (&b"GGUF\0\0\0\x03\0\0\0\0\0\0\0\x01"[..], "big-endian", "convert_endian"),
        (b"GGUF\x04\0\0\0\0\0\0\0", "version: expected 1 to 3, found 4", "SHA-256"),
        (b"tjgg\x03\0\0\0\0\0\0\0", "format before GGUF", "llama.cpp"),
        (b"\x80\x02}q\0", "pickle", "safetensors"),
        (&folder.read("model.safetensors"), "safetensors file", "folder"),
        (b"anything", "something else", "meant"),
    ] {
        assert_refused(&folder.write("other.gguf", bytes), &["other.gguf", found], &[hint]);
    }
    let gguf = fs::read(folder.gguf(&model().gguf(GgmlDType::F32))).unwrap();
    assert_refused(&folder.write("blob", gguf), &["blob", "a GGUF file"], &[".gguf"]);
    let shard = folder.path().join("model.safetensors");
    assert_refused(&shard, &["a safetensors file"], &["folder"]);
    assert_refused(&folder.write("notes.txt", "words"), &["another file"], &["--model takes"]);
    // A mark that editors write is no reason to refuse.
    for name in ["config.json", "tokenizer.json"] {
        let marked = [b"\xef\xbb\xbf", folder.read(name).as_slice()].concat();
        folder.write(name, marked);
    }
    load(folder.path()).unwrap();
}

/// The number of a tensor's type in the bytes of a GGUF file.
fn set_type(bytes: &mut [u8], name: &str, number: u32) {
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
    let dimensions = at + name.len();
    let count = u32::from_le_bytes(bytes[dimensions..dimensions + 4].try_into().unwrap());
    let kind = dimensions + 4 + 8 * count as usize;
    bytes[kind..kind + 4].copy_from_slice(&number.to_le_bytes());
}

#[test]
fn types_of_weights_are_named() {
    let wide = RandomModel::new(6, Spec { hidden: 256, ..spec() });
    let folder = Folder::plain();
    let path = folder.gguf(&wide.gguf(GgmlDType::Q4_0));
    let bytes = fs::read(&path).unwrap();
    for (number, name, hint) in [
        (24, "I8", "no weights"),
        (31, "Q4_0_4_4", "the model in Q4_0"),
        (36, "IQ4_NL_4_4", "I2_S"),
    ] {
        let mut other = bytes.clone();
        set_type(&mut other, "blk.0.ffn_up.weight", number);
        fs::write(&path, &other).unwrap();
        assert_refused(&path, &["blk.0.ffn_up.weight", name], &[hint]);
        set_type(&mut other, "blk.1.ffn_up.weight", number);
        fs::write(&path, &other).unwrap();
        assert_refused(&path, &["and 1 more", name], &[]);
    }
    for (number, hint) in [(5, "took this type out"), (139, "ik_llama.cpp")] {
        let mut other = bytes.clone();
        set_type(&mut other, "blk.0.ffn_up.weight", number);
        fs::write(&path, &other).unwrap();
        assert_refused(&path, &["which is unknown here"], &[hint]);
    }
    let mut other = bytes.clone();
    set_type(&mut other, "blk.0.ffn_up.weight", 4711);
    fs::write(&path, &other).unwrap();
    assert_refused(&path, &["type 4711"], &["header is damaged"]);
    // The same width of a block, so that only the layout tells.
    set_type(&mut other, "blk.0.ffn_up.weight", 8);
    fs::write(&path, &other).unwrap();
    assert_refused(&path, &["expected offset"], &["SHA-256"]);
    // Cut short: what to compare, not what to fetch.
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_refused(&path, &["model.gguf", "bytes"], &["size"]);
}

#[test]
fn files_that_are_no_whole_model_are_named() {
    let folder = Folder::plain();
    let first = folder.gguf(&model().gguf(GgmlDType::F32));
    let glued = [fs::read(&first).unwrap(), fs::read(&first).unwrap()].concat();
    assert_refused(
        &folder.write("cat.gguf", glued),
        &["several put together"],
        &["one of the parts", "--merge"],
    );
    let whole = fs::read(folder.gguf(&model().gguf(GgmlDType::Q8_0))).unwrap();
    let twice = [whole.clone(), whole.clone()].concat();
    assert_refused(&folder.write("twice.gguf", twice), &["several put together"], &["--merge"]);
    // One part of one is whole.
    let mut file = model().gguf(GgmlDType::F32);
    file.set("split.count", Value::U16(1));
    load(&folder.gguf(&file)).unwrap();
    for (kind, found) in [("adapter", "LoRA"), ("mmproj", "vision"), ("imatrix", "importance")] {
        file.set("general.type", Value::String(kind.into()));
        file.set("general.base_model.0.name", Value::String("Llama 7B".into()));
        let hint = if kind == "adapter" { "Llama 7B" } else { "name" };
        let hint = if kind == "mmproj" { "beside it" } else { hint };
        assert_refused(&folder.gguf(&file), &[found], &[hint]);
    }
}

#[test]
fn folders_that_hold_something_else_say_what() {
    type Bend = fn(&Folder);
    let cases: [(Bend, &[&str], &str); 10] = [
        (|f| f.remove("config.json"), &["config.json", "no such file"], "safetensors"),
        (
            |f| {
                f.remove("config.json");
                let adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "x/y"});
                f.write("adapter_config.json", adapter.to_string());
            },
            &["adapter of x/y"],
            "merge it into x/y",
        ),
        (
            |f| {
                f.remove("config.json");
                f.write("params.json", "{}");
            },
            &["params.json"],
            "Hugging Face layout",
        ),
        (
            |f| {
                f.remove("config.json");
                f.write("m.Q4_0.gguf", "GGUF");
            },
            &["found m.Q4_0.gguf"],
            "m.Q4_0.gguf",
        ),
        (
            |f| {
                f.remove("config.json");
                fs::create_dir_all(f.path().join("snapshots/0123")).unwrap();
            },
            &["hub's cache"],
            "snapshots/0123",
        ),
        (
            |f| {
                f.remove("tokenizer.json");
                f.write("tokenizer.model", "x");
            },
            &["only tokenizer.model"],
            "save_pretrained",
        ),
        (
            |f| {
                f.remove("tokenizer.json");
                f.write("vocab.json", "{}");
                f.write("merges.txt", "");
            },
            &["only vocab.json"],
            "save_pretrained",
        ),
        (
            |f| {
                f.remove("model.safetensors");
                f.write("pytorch_model.bin", "PK");
            },
            &["found pytorch_model.bin"],
            "save_pretrained",
        ),
        (
            |f| {
                f.remove("model.safetensors");
                f.write("model-00001-of-00002.safetensors", "x");
            },
            &["model-00001-of-00002.safetensors", "without their index"],
            INDEX,
        ),
        (|f| f.remove("model.safetensors"), &["found neither"], "incomplete"),
    ];
    for (bend, mentions, hint) in cases {
        let folder = Folder::plain();
        bend(&folder);
        assert_refused(folder.path(), mentions, &[hint]);
    }
}

#[test]
fn an_index_says_which_files_there_are() {
    let plain = logits(&load(Folder::plain().path()).unwrap());
    let norm = "model.norm.weight";
    for twice in ["", norm] {
        let folder = Folder::shard(&model(), twice);
        assert_eq!(logits(&load(folder.path()).unwrap()), plain);
    }
    // The same name with other values.
    let folder = Folder::shard(&model(), "");
    let mut other = model();
    other.tensors.retain(|name, _| name == norm || name == "model.layers.1.mlp.up_proj.weight");
    other.tensors.get_mut(norm).unwrap().1[5] += 1.0;
    let third = Folder::new(&other).read("model.safetensors");
    folder.write("model-00003-of-00003.safetensors", third);
    let mut index: Json = serde_json::from_slice(&folder.read(INDEX)).unwrap();
    index["weight_map"][norm] = json!("model-00003-of-00003.safetensors");
    folder.write(INDEX, index.to_string());
    assert_refused(folder.path(), &[norm, "model-00003-of-00003"], &["index"]);

    for (index, mentions) in [
        (json!({"weight_map": {"x": "../model.safetensors"}}), "plain file names"),
        (json!({"weight_map": {"x": ".."}}), "plain file names"),
        (json!({"weight_map": {"x": ""}}), "plain file names"),
        (json!({"weight_map": {"x": 7}}), "expected file names"),
        (json!({"weight_map": {}}), "found none"),
        (json!({"weight_map": []}), "missing"),
        (json!([]), "missing"),
        (json!({"weight_map": {"x": "model-00009-of-00009.safetensors"}}), "00009-of-00009"),
    ] {
        let folder = Folder::shard(&model(), "");
        folder.write(INDEX, index.to_string());
        assert_refused(folder.path(), &[INDEX, mentions], &["index"]);
    }
}

#[test]
fn weights_that_are_not_float_are_named() {
    for (name, hint) in [("F8_E4M3", "quantised"), ("I8", "quantised"), ("F64", "float32")] {
        let folder = Folder::plain();
        let text = folder.read("model.safetensors");
        // One tensor at the end, of as many bytes.
        let length = u64::from_le_bytes(text[..8].try_into().unwrap()) as usize;
        let mut header: Json = serde_json::from_slice(&text[8..8 + length]).unwrap();
        let tensor = &mut header["model.norm.weight"];
        tensor["dtype"] = json!(name);
        let bytes = 128 / if name == "F64" { 8 } else { 1 };
        tensor["shape"] = json!([bytes]);
        let header = header.to_string();
        let bytes =
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &text[8 + length..]];
        folder.write("model.safetensors", bytes.concat());
        assert_refused(folder.path(), &["model.norm.weight", name], &[hint]);
    }
    let mut awq = model();
    let (_, values) = awq.tensors.remove("model.layers.0.mlp.up_proj.weight").unwrap();
    awq.tensors.insert("model.layers.0.mlp.up_proj.qweight".into(), (vec![values.len()], values));
    assert_refused(Folder::new(&awq).path(), &["up_proj.weight: missing"], &["AWQ"]);
    let mut headless = model();
    headless.tensors.remove("lm_head.weight");
    assert_refused(Folder::new(&headless).path(), &["lm_head.weight"], &["tie_word_embeddings"]);
}

// --- The first token

/// transformers 5.24 on a tokenizer.json, with and without a template that adds `<s>`: the
/// classes of CodeLlama add it either way, the others as the template says. The key is followed
/// where the class is a Llama's, as transformers 4 did.
#[test]
fn the_tokenizers_class_decides_about_bos() {
    let template = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [31], "tokens": ["<s>"]}}});
    let adds = |class: &str, with_template: bool, key: Option<bool>| {
        let folder = Folder::plain();
        let mut tokenizer = random_model::tokenizer(31);
        tokenizer["model"]["vocab"]["<s>"] = json!(31);
        if with_template {
            tokenizer["post_processor"] = template.clone();
        }
        folder.write("tokenizer.json", tokenizer.to_string());
        let mut settings = json!({"tokenizer_class": class});
        if let Some(key) = key {
            settings["add_bos_token"] = json!(key);
        }
        folder.write("tokenizer_config.json", settings.to_string());
        let open = random_model::open(folder.path()).unwrap();
        assert!(open.bos_id == Some(31) || !open.adds_bos, "{class}");
        open.adds_bos
    };
    for (class, without, with) in [
        ("CodeLlamaTokenizer", true, true),
        ("CodeLlamaTokenizerFast", true, true),
        ("LlamaTokenizer", false, true),
        ("LlamaTokenizerFast", false, true),
        ("PreTrainedTokenizerFast", false, true),
        ("GPT2Tokenizer", false, true),
        ("", false, true),
    ] {
        assert_eq!(adds(class, false, None), without, "{class} without a template");
        assert_eq!(adds(class, true, None), with, "{class} with a template");
        for key in [true, false] {
            let llama = class.contains("LlamaTokenizer");
            assert_eq!(adds(class, true, Some(key)), if llama { key } else { with }, "{class}");
            assert_eq!(adds(class, false, Some(key)), llama && key, "{class}");
        }
    }
}

// --- Opened once

/// A file that shrinks or changes after it was opened is an error and no signal.
#[test]
fn a_file_that_changes_under_the_run_is_an_error() {
    let folder = Folder::plain();
    let gguf = folder.gguf(&model().gguf(GgmlDType::F32));
    let bytes = fs::read(&gguf).unwrap();
    let open = random_model::open(&gguf).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&gguf)
        .unwrap()
        .set_len(bytes.len() as u64 / 2)
        .unwrap();
    let error = open.load(DType::F32, &Device::Cpu).err().expect("half is gone");
    assert!(error.to_string().contains("changed"), "{error}");

    let weights = random_model::open(folder.path()).unwrap().weights().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let shape = [32];
    let error = weights.weights.tensor("model.norm.weight", &shape).unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");
}

/// The result names by its hash the file that was read, whoever renames another one there.
#[cfg(unix)]
#[test]
fn what_is_hashed_is_what_is_read() {
    let folder = Folder::plain();
    let other = RandomModel::new(99, spec());
    let gguf = folder.gguf(&model().gguf(GgmlDType::F32));
    let hash = |path: &Path| {
        let open = random_model::open(path).unwrap();
        open.weights().unwrap().provenance.files_sha256["model.gguf"].clone()
    };
    let (expected, numbers) = (hash(&gguf), logits(&load(&gguf).unwrap()));
    let open = random_model::open(&gguf).unwrap();
    let new = folder.path().join("new");
    other.gguf(GgmlDType::F32).write(&new);
    fs::rename(&new, &gguf).unwrap();
    assert_eq!(open.weights().unwrap().provenance.files_sha256["model.gguf"], expected);
    assert_eq!(logits(&open.load(DType::F32, &Device::Cpu).unwrap()), numbers);
    assert_ne!(hash(&gguf), expected);
}
