//! Prefill speed beside candle-transformers' own models: f32, the same random weights, the same
//! threads, in turn. A pass runs all tokens and ends with the last position's logits. Of `bf16`
//! beside f32. And what a sliding window saves: one layer with it and without.
//!
//! `cargo bench --bench prefill [-- NAME…]`, names: smollm2, tinyllama, gemma3, qwen3, bf16, window.
//! One line a case: medians of tokens/s and of the paired ratio first/second.

#[path = "common/paired.rs"]
mod paired;
#[path = "../tests/common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use kvgauge::model::oracle::{Oracle, WeightsRef};
use kvgauge::model::{Model, ModelConfig, RandomWeights, Unread, Weights};
use paired::paired;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

struct Case {
    name: &'static str,
    config: fn() -> ModelConfig,
    /// And in how many rounds.
    tokens: [(usize, usize); 2],
}

const CASES: [Case; 4] = [
    Case { name: "smollm2", config: shapes::smollm2, tokens: [(512, 7), (2048, 7)] },
    Case { name: "tinyllama", config: shapes::tinyllama, tokens: [(512, 3), (2048, 3)] },
    Case { name: "gemma3", config: shapes::gemma3_1b, tokens: [(512, 3), (4096, 3)] },
    Case { name: "qwen3", config: shapes::qwen3_06b, tokens: [(512, 3), (4096, 1)] },
];

/// As the programs have it.
#[global_allocator]
static ALLOCATOR: kvgauge::LargeBlocks = kvgauge::LargeBlocks;

fn main() -> kvgauge::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    println!("model      tokens  first tok/s  second tok/s  ratio (median of pairs; least, most)");
    for Case { name, config, tokens } in CASES {
        if !is_wanted(name) {
            continue;
        }
        let config = config();
        let weights: WeightsRef = Arc::new(Shared::default());
        let ours = Model::load(&config, weights.as_ref(), DType::F32, &Device::Cpu)?;
        let theirs = Oracle::load(&config, weights, tokens[1].0)?;
        for (tokens, rounds) in tokens {
            let ids = ids(&config, tokens);
            let theirs = || speed(tokens, || theirs.last_logits(&ids).map(drop));
            compare(name, tokens, rounds, || speed(tokens, || pass(&ours, &ids)), theirs)?;
        }
    }
    if is_wanted("bf16") {
        println!("bf16 beside f32, both ours, on {}", kvgauge::instruction_set(DType::BF16));
        for Case { name, config, tokens } in &CASES[..2] {
            let config = config();
            let load = |dtype| Model::load(&config, &RandomWeights, dtype, &Device::Cpu);
            let (halved, full) = (load(DType::BF16)?, load(DType::F32)?);
            for (tokens, rounds) in *tokens {
                let ids = ids(&config, tokens);
                let of = |model: &Model| speed(tokens, || pass(model, &ids));
                compare(name, tokens, rounds, || of(&halved), || of(&full))?;
            }
        }
    }
    if is_wanted("window") {
        window(4096, 3)?;
    }
    Ok(())
}

/// Random weights that both models hold once, where neither stacks them.
#[derive(Default)]
struct Shared(Mutex<HashMap<String, Tensor>>);

impl Weights for Shared {
    fn tensor(&self, name: &str, shape: &[usize]) -> kvgauge::Result<Tensor> {
        let mut tensors = match self.0.lock() {
            Ok(tensors) => tensors,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(tensor) = tensors.get(name) {
            return Ok(tensor.clone());
        }
        let tensor = RandomWeights.tensor(name, shape)?;
        tensors.insert(name.into(), tensor.clone());
        Ok(tensor)
    }

    fn tensor_plus_one(&self, name: &str, shape: &[usize]) -> kvgauge::Result<Tensor> {
        RandomWeights.tensor_plus_one(name, shape)
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

fn ids(config: &ModelConfig, tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| (i * 7919 % config.vocab_size) as u32).collect()
}

/// Tokens/s.
fn speed(tokens: usize, pass: impl FnOnce() -> kvgauge::Result<()>) -> kvgauge::Result<f64> {
    let clock = Instant::now();
    pass()?;
    Ok(tokens as f64 / clock.elapsed().as_secs_f64())
}

fn pass(model: &Model, ids: &[u32]) -> kvgauge::Result<()> {
    let hidden = model.forward(ids, &mut model.empty_cache())?;
    std::hint::black_box(model.logits(&hidden.narrow(0, ids.len() - 1, 1)?)?);
    Ok(())
}

fn compare(
    name: &str,
    tokens: usize,
    rounds: usize,
    first: impl FnMut() -> kvgauge::Result<f64>,
    second: impl FnMut() -> kvgauge::Result<f64>,
) -> kvgauge::Result<()> {
    let paired = paired(rounds, first, second)?;
    let (first, second) = paired.medians();
    println!("{name:<10} {tokens:>6} {first:>12.0} {second:>13.0}  {}", paired.ratio());
    Ok(())
}

/// One layer of Gemma 3 1B: a window of 512 beside none, whole and attention alone (the layer with
/// the narrowest MLP).
fn window(tokens: usize, rounds: usize) -> kvgauge::Result<()> {
    for (what, intermediate) in [("layer", None), ("layer without MLP", Some(1))] {
        let layer = |window: Option<usize>| {
            let config = shapes::with_window(shapes::gemma3_1b_layer(intermediate), window);
            Model::load(&config, &RandomWeights, DType::F32, &Device::Cpu)
        };
        let (sliding, full) = (layer(Some(512))?, layer(None)?);
        let ids = ids(full.config(), tokens);
        let pass = |model: &Model| -> kvgauge::Result<f64> {
            let clock = Instant::now();
            std::hint::black_box(model.forward(&ids, &mut model.empty_cache())?);
            Ok(clock.elapsed().as_secs_f64() * 1e3)
        };
        let paired = paired(rounds, || pass(&sliding), || pass(&full))?;
        let (of_sliding, of_full) = paired.medians();
        println!(
            "{what} at {tokens} tokens: window of 512 {of_sliding:.0} ms, none {of_full:.0} ms, ratio {}",
            paired.ratio()
        );
    }
    Ok(())
}
