//! Outside witness: candle-transformers' own models on the same small random weights.
//!
//! Its Llama has no biases; its Qwen2 is a Llama with biases on q, k and v, so it is the oracle
//! for those. Both return the last position's logits only, so passes of every length are compared.

#[path = "common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use candle_nn::Activation;
use candle_transformers::models::qwen2;
use kvgauge::model::RandomWeights;
use kvgauge::model::oracle::{Oracle, var_builder};
use kvgauge::model::{AttentionBias, KvCache, Model, ModelConfig, RopeScaling};
use shapes::llama;
use std::sync::Arc;

/// Largest difference, as a share of the largest logit, that f32 summation order explains in
/// two or three layers; the largest seen is 1e-6.
const ROUNDING: f32 = 5e-6;

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

/// Llama 3's scaling, with all three bands of frequencies inside a head of 16.
fn llama3() -> RopeScaling {
    RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 64,
    }
}

fn last_logits(model: &Model, tokens: &[u32], cache: &mut KvCache) -> Vec<f32> {
    let hidden = model.forward(tokens, cache).unwrap();
    let last = hidden.narrow(0, tokens.len() - 1, 1).unwrap();
    model.logits(&last).unwrap().squeeze(0).unwrap().to_vec1().unwrap()
}

fn assert_close(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    // max passes over NaN.
    assert!(ours.iter().chain(theirs).all(|logit| logit.is_finite()), "{what}");
    let largest = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference = ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(difference <= ROUNDING * largest, "{what}: {difference} of {largest}");
    assert!(largest > 0.1, "{what}: logits too small to compare");
}

/// One pass, and a pass in two parts with the cache taken out and put back at every position.
fn compare_with(config: &ModelConfig, oracle: impl Fn(&[u32]) -> Vec<f32>) {
    let model = Model::load(config, &RandomWeights, DType::F32, &Device::Cpu).unwrap();
    // Around the kernels' block of 64 queries, and one token.
    for count in [1, 2, 37, 63, 64, 65, 130] {
        let ids = tokens(config, count);
        let theirs = oracle(&ids);
        let mut whole = model.empty_cache();
        assert_close(
            &last_logits(&model, &ids, &mut whole),
            &theirs,
            &format!("{count} in one pass"),
        );
        for split in 1..count {
            let mut first = model.empty_cache();
            model.forward(&ids[..split], &mut first).unwrap();
            let taken_out = first.layers().cloned().collect();
            let mut put_back = KvCache::from_layers(taken_out).unwrap();
            let ours = last_logits(&model, &ids[split..], &mut put_back);
            assert_close(&ours, &theirs, &format!("{count} split at {split}"));
            assert_eq!(put_back.tokens(), count);
        }
    }
}

fn compare_with_llama(config: &ModelConfig) {
    let oracle = Oracle::load(config, Arc::new(RandomWeights)).unwrap();
    compare_with(config, |ids| oracle.last_logits(ids).unwrap());
}

#[test]
fn grouped_query_untied() {
    compare_with_llama(&small(6, 2, false));
}

#[test]
fn multi_head_tied() {
    compare_with_llama(&small(4, 4, true));
}

#[test]
fn one_key_head_with_llama3_scaling() {
    let config = shapes::with_scaling(small(4, 1, true), llama3());
    compare_with_llama(&config);
}

#[test]
fn grouped_query_untied_with_llama3_scaling() {
    let config = shapes::with_scaling(small(8, 2, false), llama3());
    compare_with_llama(&config);
}

#[test]
fn biases_on_queries_keys_and_values() {
    let bias = AttentionBias { qkv: true, output: false };
    let config = shapes::with_attention_bias(small(6, 2, false), bias);
    let theirs = qwen2::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: 40,
        num_hidden_layers: config.layers.len(),
        num_attention_heads: config.heads(),
        num_key_value_heads: config.kv_heads(),
        max_position_embeddings: config.max_position_embeddings,
        sliding_window: config.max_position_embeddings,
        max_window_layers: config.layers.len(),
        tie_word_embeddings: false,
        rope_theta: f64::from(config.rotary[0].theta),
        rms_norm_eps: config.norm.eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    compare_with(&config, |ids| {
        let builder = var_builder(Arc::new(RandomWeights));
        let mut oracle = qwen2::ModelForCausalLM::new(&theirs, builder).unwrap();
        let ids = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        oracle.forward(&ids, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    });
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
