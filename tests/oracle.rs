//! Outside witness: candle-transformers' own models on the same small random weights.
//!
//! They return the last position's logits only, so a pass of every length stands for all
//! positions.

#[path = "common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use kvgauge::Error;
use kvgauge::model::oracle::{Oracle, supported};
use kvgauge::model::{
    AttentionBias, KvCache, Model, ModelConfig, RandomWeights, RopeScaling, Unread, Weights,
};
use serde_json::{Value, json};
use shapes::llama;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Largest difference, as a share of the largest logit, that f32 summation order explains in
/// two or three layers; the largest seen is 1e-6.
const ROUNDING: f32 = 5e-6;

/// Beyond the kernels' blocks of 64 queries.
const CONTEXT: usize = 130;

fn tokens(config: &ModelConfig, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 13) % config.vocab_size) as u32).collect()
}

fn small(heads: usize, kv_heads: usize, tied: bool) -> ModelConfig {
    ModelConfig {
        vocab_size: 101,
        max_position_embeddings: 256,
        tie_word_embeddings: tied,
        ..llama(16 * heads, 40, 3, heads, kv_heads)
    }
}

/// A config.json of three layers with four query heads on two key heads of 16 channels, and more
/// keys or others.
fn of(class: &str, model_type: &str, keys: &Value) -> ModelConfig {
    let mut config = json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": 101,
        "hidden_size": 64,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
    });
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    shapes::of_json(&config)
}

/// Llama 3's scaling, with all three bands of frequencies inside a head of 16.
fn llama3() -> RopeScaling {
    RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 64,
    }
}

/// Logits at the positions of `tokens`, each [vocab].
fn logits(model: &Model, tokens: &[u32], cache: &mut KvCache) -> Vec<Vec<f32>> {
    let hidden = model.forward(tokens, cache).unwrap();
    model.logits(&hidden).unwrap().to_vec2().unwrap()
}

fn last_logits(model: &Model, tokens: &[u32], cache: &mut KvCache) -> Vec<f32> {
    logits(model, tokens, cache).pop().unwrap()
}

/// The largest difference as a share of the largest logit.
fn difference(ours: &[f32], theirs: &[f32], what: &str) -> f32 {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    // max passes over NaN.
    assert!(ours.iter().chain(theirs).all(|logit| logit.is_finite()), "{what}");
    let largest = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.1, "{what}: logits too small to compare");
    ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn assert_close(ours: &[Vec<f32>], theirs: &[Vec<f32>], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (position, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let found = difference(ours, theirs, what);
        assert!(found <= ROUNDING, "{what}, row {position}: {found} of the largest");
    }
}

/// All positions: in passes of several lengths, and in two parts with the cache taken out and put
/// back at every position.
fn compare(config: &ModelConfig, module: &str) {
    let oracle = Oracle::load(config, Arc::new(RandomWeights), CONTEXT).unwrap();
    assert_eq!(oracle.module(), module);
    let model = load(config);
    let ids = tokens(config, CONTEXT);
    let theirs: Vec<Vec<f32>> =
        (1..=CONTEXT).map(|count| oracle.last_logits(&ids[..count]).unwrap()).collect();
    // Around the kernels' block of 64 queries, and one token.
    for count in [1, 2, 37, 63, 64, 65, CONTEXT] {
        let ours = logits(&model, &ids[..count], &mut model.empty_cache());
        assert_close(&ours, &theirs[..count], &format!("{module}: {count} in one pass"));
    }
    for count in [2, 65, CONTEXT] {
        for split in 1..count {
            let mut first = model.empty_cache();
            model.forward(&ids[..split], &mut first).unwrap();
            let taken_out = first.layers().cloned().collect();
            let mut put_back = KvCache::from_layers(taken_out).unwrap();
            let ours = logits(&model, &ids[split..count], &mut put_back);
            let what = format!("{module}: {count} split at {split}");
            assert_close(&ours, &theirs[split..count], &what);
            assert_eq!(put_back.tokens(), count);
        }
    }
}

fn load(config: &ModelConfig) -> Model {
    let model = Model::load(config, &RandomWeights, DType::F32, &Device::Cpu).unwrap();
    model.for_context(CONTEXT)
}

// --- Llama's family

#[test]
fn llama_grouped_query_untied() {
    compare(&small(6, 2, false), "llama");
}

#[test]
fn llama_multi_head_tied() {
    compare(&small(4, 4, true), "llama");
}

#[test]
fn llama_one_key_head_with_llama3_scaling() {
    compare(&shapes::with_scaling(small(4, 1, true), llama3()), "llama");
}

#[test]
fn llama_grouped_query_untied_with_llama3_scaling() {
    compare(&shapes::with_scaling(small(8, 2, false), llama3()), "llama");
}

/// What candle-transformers' Llama lacks, others have.
#[test]
fn llama_with_biases_windows_and_head_sizes_of_its_own() {
    let bias = AttentionBias { qkv: true, output: false };
    compare(&shapes::with_attention_bias(small(6, 2, false), bias), "qwen2");
    let bias = AttentionBias { qkv: true, output: true };
    let biased = shapes::with_attention_bias(small(6, 2, true), bias);
    compare(&shapes::with_mlp_bias(biased, true), "smol::smollm3");
    compare(&shapes::with_window(small(4, 2, true), Some(9)), "mistral");
    compare(&of("LlamaForCausalLM", "llama", &json!({ "head_dim": 24 })), "mistral");
}

#[test]
fn mistral() {
    let keys = json!({ "sliding_window": 17, "head_dim": 24, "hidden_act": "gelu" });
    compare(&of("MistralForCausalLM", "mistral", &keys), "mistral");
    let keys = json!({ "sliding_window": null, "tie_word_embeddings": true });
    compare(&of("MistralForCausalLM", "mistral", &keys), "mistral");
    let keys = json!({ "sliding_window": 1 });
    compare(&of("MinistralForCausalLM", "ministral", &keys), "mistral");
}

#[test]
fn qwen2() {
    compare(&of("Qwen2ForCausalLM", "qwen2", &json!({ "tie_word_embeddings": true })), "qwen2");
    let keys = json!({ "use_sliding_window": true, "sliding_window": 40, "max_window_layers": 0 });
    compare(&of("Qwen2ForCausalLM", "qwen2", &keys), "qwen2");
}

#[test]
fn qwen3() {
    let keys = json!({ "head_dim": 24, "tie_word_embeddings": true });
    compare(&of("Qwen3ForCausalLM", "qwen3", &keys), "qwen3");
    let keys = json!({ "head_dim": 16, "attention_bias": true, "rope_theta": 1e6 });
    compare(&of("Qwen3ForCausalLM", "qwen3", &keys), "qwen3");
}

#[test]
fn smollm3_with_layers_without_rope() {
    let keys = json!({ "no_rope_layers": [1, 0, 1], "tie_word_embeddings": true });
    compare(&of("SmolLM3ForCausalLM", "smollm3", &keys), "smol::smollm3");
    let keys = json!({ "no_rope_layer_interval": 2, "attention_bias": true, "mlp_bias": true });
    compare(&of("SmolLM3ForCausalLM", "smollm3", &keys), "smol::smollm3");
}

// --- Mixtures of experts

#[test]
fn mixtral() {
    let keys = json!({ "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 33 });
    compare(&of("MixtralForCausalLM", "mixtral", &keys), "mixtral");
}

#[test]
fn qwen2_moe_with_every_second_layer_dense() {
    let keys = json!({
        "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 56, "decoder_sparse_step": 2,
    });
    compare(&of("Qwen2MoeForCausalLM", "qwen2_moe", &keys), "qwen2_moe");
    let keys = json!({
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 8, "norm_topk_prob": true, "tie_word_embeddings": true,
    });
    compare(&of("Qwen2MoeForCausalLM", "qwen2_moe", &keys), "qwen2_moe");
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "candle-transformers' own does not run on the CPU then")]
fn qwen3_moe() {
    for normalised in [false, true] {
        let keys = json!({
            "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
            "head_dim": 24, "norm_topk_prob": normalised, "tie_word_embeddings": normalised,
        });
        compare(&of("Qwen3MoeForCausalLM", "qwen3_moe", &keys), "qwen3_moe");
    }
}

// --- Gemma

/// Its sliding window is every layer's in candle-transformers, so the context stays within it.
#[test]
fn gemma2() {
    let keys = json!({
        "head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": true,
        "sliding_window": CONTEXT, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    });
    compare(&of("Gemma2ForCausalLM", "gemma2", &keys), "gemma2");
    let keys = json!({
        "head_dim": 24, "query_pre_attn_scalar": 24, "tie_word_embeddings": true,
        "sliding_window": 21, "layer_types": vec!["sliding_attention"; 3],
        "attn_logit_softcapping": null, "attention_bias": true,
    });
    compare(&of("Gemma2ForCausalLM", "gemma2", &keys), "gemma2");
}

#[test]
fn gemma3_with_sliding_layers() {
    for (window, pattern) in [(20, 2), (70, 3), (5, 6), (500, 1)] {
        let keys = json!({
            "head_dim": 24, "query_pre_attn_scalar": 24, "tie_word_embeddings": true,
            "num_key_value_heads": 1, "sliding_window": window, "sliding_window_pattern": pattern,
            "rope_theta": 1e6, "rope_local_base_freq": 1e4, "final_logit_softcapping": null,
            "attn_logit_softcapping": null,
        });
        compare(&of("Gemma3ForCausalLM", "gemma3_text", &keys), "gemma3");
    }
}

/// Hugging Face's files hold w where GGUF's hold 1 + w, and candle adds 1 to what it gets.
struct WithoutOne;

impl Weights for WithoutOne {
    fn tensor(&self, name: &str, shape: &[usize]) -> kvgauge::Result<Tensor> {
        let tensor = RandomWeights.tensor(name, shape)?;
        Ok(if name.ends_with("norm.weight") { (tensor - 1.0)? } else { tensor })
    }

    fn check(&self, _: &str, _: &[usize]) -> kvgauge::Result<()> {
        Ok(())
    }

    fn contains(&self, _: &str) -> bool {
        false
    }

    fn unread(&self, _: &BTreeSet<String>) -> Vec<Unread> {
        Vec::new()
    }
}

#[test]
fn norms_with_the_one_and_without_are_the_same_bits() {
    let keys = json!({
        "head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": true,
        "num_key_value_heads": 1, "sliding_window": 20, "sliding_window_pattern": 2,
        "rope_local_base_freq": 1e4,
    });
    let config = of("Gemma3ForCausalLM", "gemma3_text", &keys);
    let ids = tokens(&config, 40);
    let of_gguf = Oracle::load(&config, Arc::new(RandomWeights), 40).unwrap();
    let of_folder = Oracle::load(&config, Arc::new(WithoutOne), 40).unwrap();
    assert_eq!(of_gguf.last_logits(&ids).unwrap(), of_folder.last_logits(&ids).unwrap());
    let ours = Model::load(&config, &WithoutOne, DType::F32, &Device::Cpu).unwrap();
    let again = load(&config);
    assert_eq!(
        last_logits(&ours, &ids, &mut ours.empty_cache()),
        last_logits(&again, &ids, &mut again.empty_cache())
    );
}

// --- Others

#[test]
fn phi3() {
    let keys = json!({ "tie_word_embeddings": true, "sliding_window": null });
    compare(&of("Phi3ForCausalLM", "phi3", &keys), "phi3");
    let keys = json!({ "partial_rotary_factor": 0.75, "sliding_window": CONTEXT });
    compare(&of("Phi3ForCausalLM", "phi3", &keys), "phi3");
}

#[test]
fn glm4() {
    for (bias, part) in [(true, 0.5), (false, 0.25), (true, 1.0)] {
        let keys = json!({
            "head_dim": 24, "attention_bias": bias, "partial_rotary_factor": part,
            "tie_word_embeddings": !bias,
        });
        compare(&of("Glm4ForCausalLM", "glm4", &keys), "glm4_new");
    }
}

#[test]
fn olmo2_and_olmo3_within_its_window() {
    compare(&of("Olmo2ForCausalLM", "olmo2", &json!({ "attention_bias": true })), "olmo2");
    let keys = json!({ "sliding_window": CONTEXT, "tie_word_embeddings": true });
    compare(&of("Olmo3ForCausalLM", "olmo3", &keys), "olmo2");
}

#[test]
fn granite_with_all_factors_and_without() {
    let keys = json!({
        "embedding_multiplier": 6.0, "attention_multiplier": 0.4, "residual_multiplier": 0.3,
        "logits_scaling": 4.0, "tie_word_embeddings": true,
    });
    compare(&of("GraniteForCausalLM", "granite", &keys), "granitemoehybrid");
    compare(
        &of("GraniteForCausalLM", "granite", &json!({ "attention_multiplier": 0.25 })),
        "granite",
    );
}

// --- What is refused

#[test]
fn what_candle_lacks_is_refused_by_name() {
    let gemma = json!({
        "head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": true,
        "num_key_value_heads": 1, "sliding_window": 20, "sliding_window_pattern": 2,
        "rope_local_base_freq": 1e4,
    });
    let with = |keys: &Value, key: &str, value: Value| {
        let mut keys = keys.clone();
        keys[key] = value;
        keys
    };
    let yarn =
        json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64 });
    let linear = json!({ "rope_type": "linear", "factor": 2.0 });
    let long = json!({
        "type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![2.0; 8],
    });
    let cases = [
        (of("CohereForCausalLM", "cohere", &json!({})), "no second implementation of CohereFor"),
        (
            of("LlamaForCausalLM", "llama", &json!({ "rope_scaling": linear })),
            "llama has no linear RoPE scaling",
        ),
        (
            of("MistralForCausalLM", "mistral", &json!({ "rope_scaling": yarn })),
            "mistral has no YaRN",
        ),
        (
            of(
                "Qwen2ForCausalLM",
                "qwen2",
                &json!({ "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 1 }),
            ),
            "qwen2 has the same sliding window in all layers",
        ),
        (
            of(
                "Qwen3ForCausalLM",
                "qwen3",
                &json!({ "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 0 }),
            ),
            "qwen3 has no sliding window: the model's is 9 tokens",
        ),
        (
            of(
                "Gemma2ForCausalLM",
                "gemma2",
                &json!({
                    "head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": true,
                    "sliding_window": 20,
                }),
            ),
            "gemma2 has the same sliding window",
        ),
        (
            of("Gemma3ForCausalLM", "gemma3_text", &with(&gemma, "num_key_value_heads", json!(2))),
            "gemma3 fails with more than one key and value head",
        ),
        (
            of(
                "Gemma3ForCausalLM",
                "gemma3_text",
                &with(&gemma, "query_pre_attn_scalar", json!(9)),
            ),
            "gemma3 has no scale but 1/√head_dim",
        ),
        (
            of(
                "Gemma3ForCausalLM",
                "gemma3_text",
                &with(
                    &gemma,
                    "layer_types",
                    json!(["full_attention", "sliding_attention", "sliding_attention"]),
                ),
            ),
            "gemma3 has no such order of sliding layers",
        ),
        (
            of("Gemma3ForCausalLM", "gemma3_text", &with(&gemma, "rope_scaling", linear.clone())),
            "gemma3 has no linear RoPE scaling",
        ),
        (
            of(
                "Gemma3ForCausalLM",
                "gemma3_text",
                &with(&gemma, "tie_word_embeddings", json!(false)),
            ),
            "gemma3 has no output head of its own",
        ),
        (
            of("Phi3ForCausalLM", "phi3", &json!({ "sliding_window": 129 })),
            "phi3 has no sliding window: the model's is 129 tokens, fewer than the context's 130",
        ),
        (
            of(
                "Phi3ForCausalLM",
                "phi3",
                &json!({ "rope_scaling": long, "original_max_position_embeddings": 64 }),
            ),
            "phi3 computes LongRoPE otherwise",
        ),
        (
            of("GraniteForCausalLM", "granite", &json!({ "residual_multiplier": 0.3 })),
            "granitemoehybrid has no output head of its own",
        ),
        (
            of("Olmo3ForCausalLM", "olmo3", &json!({ "sliding_window": 64 })),
            "olmo2 has no sliding window",
        ),
        (
            of(
                "Qwen2MoeForCausalLM",
                "qwen2_moe",
                &json!({
                    "num_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": [1],
                    "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8,
                }),
            ),
            "qwen2_moe has experts in each n-th layer only",
        ),
    ];
    for (config, expected) in cases {
        let error = supported(&config, CONTEXT).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{expected}");
        assert!(error.hint_text().is_some(), "{expected}");
        let text = error.to_string();
        assert!(text.starts_with("--cross-check: "), "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

/// One number off shows: the comparison cannot pass by itself.
#[test]
fn a_mistake_is_noticed() {
    let gemma = json!({
        "head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": true,
        "num_key_value_heads": 1, "sliding_window": 20, "sliding_window_pattern": 2,
        "rope_local_base_freq": 1e4,
        "rope_theta": 1e6, "final_logit_softcapping": 3.0,
    });
    let config = of("Gemma3ForCausalLM", "gemma3_text", &gemma);
    let ids = tokens(&config, CONTEXT);
    let theirs = Oracle::load(&config, Arc::new(RandomWeights), CONTEXT).unwrap();
    let theirs = theirs.last_logits(&ids).unwrap();
    type Mistake = fn(&mut ModelConfig);
    let mistakes: [(&str, Mistake); 7] = [
        ("window", |config| config.layers[2].attention.window = Some(19)),
        ("rotary embedding", |config| config.layers[1].attention.rotary = Some(1)),
        ("softcap", |config| config.logit_softcap = None),
        ("factor", |config| config.embedding_scale = 1.0),
        ("scale", |config| config.layers[1].attention.scale = 0.2),
        ("norm", |config| config.block.after_mlp = config.block.after_attention),
        ("theta", |config| config.rotary[1].theta = 9e3),
    ];
    for (what, mistake) in mistakes {
        let mut wrong = config.clone();
        mistake(&mut wrong);
        let model = load(&wrong);
        let ours = last_logits(&model, &ids, &mut model.empty_cache());
        let found = difference(&ours, &theirs, what);
        assert!(found > 10.0 * ROUNDING, "{what}: {found}");
    }
}

/// The candle-operation path that half types and GPUs take computes the same as the kernels.
#[test]
fn half_types_agree_with_f32_to_their_rounding() {
    let config = small(6, 2, false);
    let ids = tokens(&config, 130);
    let pass = |dtype: DType| {
        let model = Model::load(&config, &RandomWeights, dtype, &Device::Cpu).unwrap();
        last_logits(&model, &ids, &mut model.empty_cache())
    };
    let exact = pass(DType::F32);
    let largest = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (dtype, bound) in [(DType::F16, 5e-3), (DType::BF16, 4e-2)] {
        let found = pass(dtype);
        assert!(found.iter().all(|logit| logit.is_finite()), "{dtype:?}");
        let difference = exact.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(difference <= bound * largest, "{dtype:?}: {difference} of {largest}");
        assert!(difference > 0.0, "{dtype:?}: rounding must show");
    }
}

#[test]
fn positions_beyond_the_longest_context_are_refused() {
    let config = ModelConfig { max_position_embeddings: 32, ..small(4, 2, false) };
    let model = Model::load(&config, &RandomWeights, DType::F32, &Device::Cpu).unwrap();
    let mut cache = model.empty_cache();
    model.forward(&tokens(&config, 32), &mut cache).unwrap();
    let error = model.forward(&[1], &mut cache).unwrap_err().to_string();
    assert!(error.contains("32"), "{error}");
}
