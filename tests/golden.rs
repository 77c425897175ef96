//! The model against PyTorch transformers: logits of all positions and the cache of all layers,
//! on tiny random models. `tests/data/make_golden_models.py` writes them and says what they hold.

#[path = "common/random_model.rs"]
mod random_model;

#[path = "common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use kvgauge::error::Kind;
use kvgauge::model::{
    AttentionBias, KvCache, MlpConfig, Model, ModelConfig, RopeScaling, Safetensors,
};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const NAMES: [&str; 5] = [
    "llama_grouped_llama3_rope",
    "llama_tied_linear_rope",
    "llama_biases",
    "mistral",
    "llama_sharded_bf16",
];

/// Of the largest value of each tensor. Two f32 programs that sum in different orders; observed:
/// 1.2e-6, and 2.5e-6 for one model token by token.
const TOLERANCE: f32 = 2e-5;

struct Golden {
    folder: PathBuf,
    config: ModelConfig,
    tokens: Vec<u32>,
    expected: HashMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
        let config =
            ModelConfig::from_hf(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let path = folder.join("expected.safetensors");
        let expected = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let tokens = expected["tokens"].to_vec1::<i64>().unwrap();
        let tokens = tokens.into_iter().map(|id| id as u32).collect();
        Self { folder, config, tokens, expected }
    }

    fn weights(&self) -> Safetensors {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let is_weights = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("model") && name.ends_with(".safetensors")
        };
        files.retain(is_weights);
        Safetensors::open(&files).unwrap()
    }

    fn load(&self, config: &ModelConfig, dtype: DType) -> Model {
        Model::load(config, &self.weights(), dtype, &Device::Cpu).unwrap()
    }

    /// The largest difference from transformers over logits, keys and values of the first
    /// `positions`, each relative to the largest value of its tensor.
    fn distance(&self, logits: &Tensor, cache: &KvCache, positions: usize) -> f32 {
        assert_eq!(cache.tokens(), positions);
        assert_eq!(cache.layers().count(), self.config.layers.len());
        let expected = &self.expected;
        let logits = [(logits.clone(), expected["logits"].narrow(0, 0, positions).unwrap())];
        let layers = cache.layers().enumerate().flat_map(|(layer, kv)| {
            [("keys", &kv.key), ("values", &kv.value)].map(|(what, found)| {
                let expected = &expected[&format!("{what}.{layer}")];
                (found.clone(), expected.narrow(1, 0, positions).unwrap())
            })
        });
        largest_of(layers.chain(logits).map(|(found, expected)| relative(&found, &expected)))
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    largest_of(difference) / largest
}

/// The largest; NaN if there is one, which `f32::max` would lose.
fn largest_of(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |m, x| if m.is_nan() || x <= m { m } else { x })
}

/// Runs `tokens` in pieces that end at `ends`, taking the cache out and putting it back between.
fn run_in_pieces(model: &Model, tokens: &[u32], ends: &[usize]) -> (Tensor, KvCache) {
    let mut cache = model.empty_cache();
    let mut logits = Vec::new();
    let mut start = 0;
    for end in ends.iter().copied().chain([tokens.len()]) {
        if start > 0 {
            cache = KvCache::from_layers(cache.layers().cloned().collect()).unwrap();
        }
        let hidden = model.forward(&tokens[start..end], &mut cache).unwrap();
        logits.push(model.logits(&hidden).unwrap());
        start = end;
    }
    (Tensor::cat(&logits, 0).unwrap(), cache)
}

#[test]
fn logits_and_cache_are_those_of_transformers() {
    for name in NAMES {
        let golden = Golden::read(name);
        let model = golden.load(&golden.config, DType::F32);
        let all = golden.tokens.len();
        // One pass; halves; uneven pieces; every token on its own.
        let singles: Vec<usize> = (1..all).collect();
        for ends in [&[][..], &[all / 2], &[1, 7, 8, 31], &[all - 1], &singles] {
            let (logits, cache) = run_in_pieces(&model, &golden.tokens, ends);
            let distance = golden.distance(&logits, &cache, all);
            assert!(distance <= TOLERANCE, "{name}, pieces that end at {ends:?}: {distance}");
        }
    }
}

/// Other dtypes take the path of other devices, in candle's own operations. Observed: 4e-3 in F16,
/// 4e-2 in BF16.
#[test]
fn half_precision_is_near_transformers() {
    for name in NAMES {
        let golden = Golden::read(name);
        let all = golden.tokens.len();
        for (dtype, tolerance) in [(DType::F16, 1e-2), (DType::BF16, 8e-2)] {
            let model = golden.load(&golden.config, dtype);
            for ends in [&[][..], &[all / 2], &[1, 7, 8, 31]] {
                let (logits, cache) = run_in_pieces(&model, &golden.tokens, ends);
                let distance = golden.distance(&logits, &cache, all);
                assert!(distance <= tolerance, "{name} {dtype:?} {ends:?}: {distance}");
                assert!(distance > TOLERANCE, "{name} {dtype:?}: computed in f32");
            }
        }
    }
}

/// The fixtures hold what their names say: a wrong config would make the test above compare
/// less than it claims.
#[test]
fn configs_say_what_the_fixtures_are_for() {
    let config = |name| Golden::read(name).config;
    let grouped = config("llama_grouped_llama3_rope");
    assert_eq!((grouped.heads(), grouped.kv_heads(), grouped.tie_word_embeddings), (4, 2, false));
    assert_eq!(
        grouped.rotary[0].scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 48
        }
    );
    let tied = config("llama_tied_linear_rope");
    assert_eq!((tied.heads(), tied.kv_heads(), tied.tie_word_embeddings), (4, 4, true));
    let rotary = &tied.rotary[0];
    assert_eq!((rotary.theta, &rotary.scaling), (5e5, &RopeScaling::Linear { factor: 4.0 }));
    let biases = config("llama_biases");
    let both = AttentionBias { qkv: true, output: true };
    assert_eq!(biases.layers[0].attention.bias, both);
    assert!(mlp_bias(&biases) && biases.head_dim() * biases.heads() != biases.hidden_size);
    let mistral = config("mistral");
    assert_eq!((mistral.architecture.as_str(), mistral.head_dim()), ("MistralForCausalLM", 16));
    assert_eq!(mistral.layers[0].attention.window, Some(64));
}

#[test]
fn transformers_5_configs_mean_the_same() {
    for name in NAMES {
        let golden = Golden::read(name);
        let json = std::fs::read(golden.folder.join("config.transformers5.json")).unwrap();
        assert!(String::from_utf8_lossy(&json).contains("rope_parameters"), "{name}");
        assert_eq!(ModelConfig::from_hf(&json).unwrap(), golden.config, "{name}");
    }
}

/// Llama's configs may carry the key; its attention has no window.
#[test]
fn a_window_in_a_llamas_config_changes_nothing() {
    let json = changed("llama_biases", "sliding_window", json!(16));
    assert_eq!(ModelConfig::from_hf(&json).unwrap(), Golden::read("llama_biases").config);
}

/// Of the first layer.
fn mlp_bias(config: &ModelConfig) -> bool {
    matches!(&config.layers[0].mlp, MlpConfig::Gated(mlp) if mlp.bias)
}

/// As a user has it: a folder with an index, through the same door as `--model`.
#[test]
fn a_sharded_folder_opens_through_its_index() {
    let golden = Golden::read("llama_sharded_bf16");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&golden.folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let tokenizer = random_model::tokenizer(golden.config.vocab_size).to_string();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();

    let open = random_model::open(folder.path()).unwrap();
    assert_eq!(open.config, golden.config);
    // config.json, tokenizer.json, the index and two shards: not expected.safetensors beside them.
    assert_eq!(open.weights().unwrap().provenance.files_sha256.len(), 5);
    let model = open.load(DType::F32, &Device::Cpu).unwrap();
    let (logits, cache) = run_in_pieces(&model, &golden.tokens, &[]);
    assert!(golden.distance(&logits, &cache, golden.tokens.len()) <= TOLERANCE);

    drop(open); // Windows keeps a file that is mapped.
    let shard = folder.path().join("model-00002-of-00002.safetensors");
    std::fs::remove_file(&shard).unwrap();
    let error = random_model::open(folder.path()).unwrap().weights().err().expect("missing");
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.to_string().contains("model-00002-of-00002.safetensors"), "{error}");
}

/// A fixture's config.json with one key changed; `null` takes it away.
fn changed(name: &str, key: &str, value: Json) -> Vec<u8> {
    let path = Golden::read(name).folder.join("config.json");
    let mut config: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    match value {
        Json::Null => drop(config.as_object_mut().unwrap().remove(key)),
        value => config[key] = value,
    }
    config.to_string().into_bytes()
}

#[track_caller]
fn assert_refused(json: &[u8], mentions: &[&str]) {
    let error = ModelConfig::from_hf(json).expect_err("should be refused");
    assert_eq!(error.kind(), Kind::Input);
    for text in mentions {
        assert!(error.to_string().contains(text), "expected {text:?} in: {error}");
    }
}

#[test]
fn other_architectures_are_refused_by_name() {
    for name in [
        "Qwen3_5ForCausalLM",
        "GptOssForCausalLM",
        "GemmaForCausalLM",
        "Gemma4ForConditionalGeneration",
        "DeepseekV3ForCausalLM",
        "Cohere2ForCausalLM",
        "GPT2LMHeadModel",
        "LlamaForSequenceClassification",
    ] {
        let json = changed("llama_biases", "architectures", json!([name]));
        assert_refused(&json, &["architectures", name]);
        // Another family's config need not have any of Llama's fields.
        let bare = json!({"architectures": [name]}).to_string();
        assert_refused(bare.as_bytes(), &["architectures", name]);
    }
    // With what can run it, or why nothing can.
    for (name, what, hint) in [
        ("Qwen3_5ForCausalLM", "recurrent states", "kvgauge.perplexity"),
        ("Qwen3NextForCausalLM", "recurrent states", "kvgauge.perplexity"),
        ("GptOssForCausalLM", "sinks", "kvgauge.perplexity"),
        ("Gemma4ForCausalLM", "share keys", "kvgauge.perplexity"),
        ("DeepseekV3ForCausalLM", "latent", "kvgauge.perplexity"),
        ("Llama4ForCausalLM", "chunks", "kvgauge.perplexity"),
        ("MambaForCausalLM", "no keys and values", "no KV cache"),
        ("LlamaModel", "LlamaModel", "without a head"),
        ("GPT2LMHeadModel", "GPT2LMHeadModel", "kvgauge.perplexity"),
    ] {
        let json = json!({"architectures": [name]}).to_string();
        let error = ModelConfig::from_hf(json.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        let hint_text = error.hint_text().unwrap();
        assert!(hint_text.contains(hint), "{error}: {hint_text}");
    }
    for none in [json!([]), json!("LlamaForCausalLM"), Json::Null] {
        assert_refused(&changed("llama_biases", "architectures", none), &["architectures"]);
    }
    for json in ["", "{", "[]", "7", "null", "\"LlamaForCausalLM\""] {
        assert_refused(json.as_bytes(), &["config.json"]);
    }
}

#[test]
fn what_would_change_the_numbers_is_refused() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 48});
    let without = |key: &str| {
        let mut scaling = llama3.clone();
        scaling.as_object_mut().unwrap().remove(key);
        scaling
    };
    for (key, value, mentions) in [
        ("rope_scaling", json!({"rope_type": "yarn", "factor": -2.0}), &["factor", "found -2"][..]),
        ("rope_scaling", json!({"type": "dynamic"}), &["factor", "missing"]),
        ("rope_scaling", json!({"rope_type": "longrope"}), &["short_factor", "missing"]),
        ("rope_parameters", json!({"rope_type": "xpos", "rope_theta": 1e4}), &["xpos"]),
        ("rope_scaling", json!({"rope_type": "linear"}), &["factor", "missing"]),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0}), &["factor", "found 0"]),
        ("rope_scaling", json!({"type": "linear", "factor": -2}), &["factor", "found -2"]),
        ("rope_scaling", without("factor"), &["factor", "missing"]),
        ("rope_scaling", without("low_freq_factor"), &["low_freq_factor", "missing"]),
        ("rope_scaling", without("high_freq_factor"), &["high_freq_factor", "missing"]),
        ("rope_theta", json!(0), &["rope_theta", "found 0"]),
        ("rope_theta", json!(-10000.0), &["rope_theta"]),
        ("quantization_config", json!({"quant_method": "gptq"}), &["quantization_config"]),
        ("hidden_act", json!("quick_gelu"), &["hidden_act", "quick_gelu"]),
        ("partial_rotary_factor", json!(0.5), &["partial_rotary_factor", "0.5"]),
        ("num_key_value_heads", json!(3), &["num_key_value_heads", "found 3"]),
        ("num_key_value_heads", json!(0), &["num_key_value_heads", "found 0"]),
        ("num_attention_heads", json!(0), &["num_attention_heads", "found 0"]),
        ("num_hidden_layers", json!(0), &["num_hidden_layers", "found 0"]),
        ("head_dim", json!(7), &["head_dim", "found 7"]),
        ("vocab_size", json!(0), &["vocab_size", "found 0"]),
        ("hidden_size", json!(1u64 << 40), &["hidden_size"]),
        ("rms_norm_eps", json!(-1.0), &["rms_norm_eps", "found -1"]),
    ] {
        assert_refused(&changed("llama_biases", key, value), mentions);
    }
}

#[test]
fn missing_fields_are_named() {
    for key in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    ] {
        assert_refused(&changed("llama_biases", key, Json::Null), &["config.json", key]);
        assert_refused(&changed("llama_biases", key, json!("many")), &["config.json"]);
    }
}

/// The defaults of transformers' LlamaConfig.
#[test]
fn optional_fields_have_the_defaults_of_transformers() {
    let without = |key| ModelConfig::from_hf(&changed("llama_biases", key, Json::Null)).unwrap();
    assert_eq!(without("num_key_value_heads").kv_heads(), 4);
    assert_eq!(without("head_dim").head_dim(), 8);
    assert_eq!(without("rope_theta").rotary[0].theta, 10_000.0);
    assert!(!without("tie_word_embeddings").tie_word_embeddings);
    assert_eq!(
        without("attention_bias").layers[0].attention.bias,
        AttentionBias { qkv: false, output: false }
    );
    assert!(!mlp_bias(&without("mlp_bias")));
    assert_eq!(without("hidden_act"), Golden::read("llama_biases").config);
}

/// MistralConfig's own defaults, where they differ from LlamaConfig's.
#[test]
fn absent_mistral_keys_have_the_defaults_of_transformers() {
    let mut config: serde_json::Value = serde_json::json!({
        "architectures": ["MistralForCausalLM"],
        "vocab_size": 64,
        "hidden_size": 256,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 16,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
    });
    let parse =
        |config: &serde_json::Value| ModelConfig::from_hf(config.to_string().as_bytes()).unwrap();
    let absent = parse(&config);
    assert_eq!((absent.kv_heads(), absent.layers[0].attention.window), (8, Some(4096)));
    config["sliding_window"] = serde_json::Value::Null;
    assert_eq!(parse(&config).layers[0].attention.window, None);
}

/// A config that does not know all of its weights would give a wrong number without a word.
#[test]
fn weights_beyond_the_config_are_refused() {
    let golden = Golden::read("llama_biases");
    let refusal = |config: ModelConfig, dtype: DType| {
        let error = Model::load(&config, &golden.weights(), dtype, &Device::Cpu).err().unwrap();
        assert_eq!(error.kind(), Kind::Input);
        error.to_string()
    };
    let config = || golden.config.clone();
    let none = AttentionBias { qkv: false, output: false };
    for (config, key) in [
        (ModelConfig { layers: config().layers[..1].to_vec(), ..config() }, "num_hidden_layers"),
        (shapes::with_attention_bias(config(), none), "attention_bias"),
        (shapes::with_mlp_bias(config(), false), "mlp_bias"),
    ] {
        let error = refusal(config, DType::F32);
        assert!(error.contains(key) && error.contains("model.layers."), "{error}");
    }
}

/// The smallest config of a class, with more keys.
fn small_config(class: &str, kind: &str, more: Json) -> Json {
    let mut config = json!({
        "architectures": [class], "model_type": kind, "vocab_size": 32, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn parsed(config: &Json) -> kvgauge::Result<ModelConfig> {
    ModelConfig::from_hf(config.to_string().as_bytes())
}

/// Mistral Small 3.1's text half is a Mistral, Ministral 3's is its own; the outer config ties.
#[test]
fn the_text_half_of_a_mistral_that_sees_is_of_its_kind() {
    let text = small_config("MistralForCausalLM", "mistral", json!({"sliding_window": null}));
    let whole = |text: &Json| {
        json!({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
            "text_config": text, "tie_word_embeddings": true})
    };
    let half = parsed(&whole(&text)).unwrap();
    assert!(half.tie_word_embeddings);
    let alone = parsed(&text).unwrap();
    assert_eq!((&half.layers, &half.rotary), (&alone.layers, &alone.rotary));
    assert_eq!(half.layers[0].attention.temperature, None);
    let rope = json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6,
        "original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.1});
    let text =
        small_config("Ministral3ForCausalLM", "ministral3", json!({"rope_parameters": rope}));
    let half = parsed(&whole(&text)).unwrap();
    let temperature = half.layers[0].attention.temperature.unwrap();
    assert_eq!((temperature.beta, temperature.period), (0.1, 16));
    let text = small_config("LlamaForCausalLM", "llama", json!({}));
    assert_refused(whole(&text).to_string().as_bytes(), &["text_config", "mistral or ministral3"]);
}

#[test]
fn keys_that_say_what_is_always_so_may_stand() {
    let qwen = |said: bool| {
        let more = json!({"use_qk_norm": said, "num_experts": 4, "num_experts_per_tok": 2,
            "moe_intermediate_size": 8});
        parsed(&small_config("Qwen3MoeForCausalLM", "qwen3_moe", more))
    };
    assert!(qwen(true).is_ok());
    assert!(qwen(false).unwrap_err().to_string().contains("use_qk_norm"));
    let smollm3 = |rotates: Json| {
        let more = json!({"no_rope_layers": rotates});
        parsed(&small_config("SmolLM3ForCausalLM", "smollm3", more)).unwrap()
    };
    assert_eq!(smollm3(json!([true, false])), smollm3(json!([1, 0])));
}
