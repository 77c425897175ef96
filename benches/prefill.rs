//! Prefill speed beside candle-transformers' own Llama: f32, the same random weights, the same
//! threads, in turn. A pass runs all tokens and ends with the last position's logits.
//!
//! `cargo bench --bench prefill [-- NAME…]`, names: smollm2, tinyllama. One line a case:
//! medians of tokens/s and of the paired ratio ours/theirs.

#[path = "../tests/common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device};
use kvgauge::model::RandomWeights;
use kvgauge::model::oracle::{Oracle, WeightsRef};
use kvgauge::model::{Model, ModelConfig};
use std::sync::Arc;
use std::time::Instant;

fn main() -> kvgauge::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let cases: [(&str, ModelConfig, usize); 2] =
        [("smollm2", shapes::smollm2(), 7), ("tinyllama", shapes::tinyllama(), 3)];
    println!("model      tokens  ours tok/s  candle tok/s  ratio (median of pairs; least, most)");
    for (name, config, rounds) in cases {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        let weights: WeightsRef = Arc::new(RandomWeights);
        let ours = Model::load(&config, weights.as_ref(), DType::F32, &Device::Cpu)?;
        let theirs = Oracle::load(&config, weights)?;
        for tokens in [512, 2048] {
            compare(name, &ours, &theirs, tokens, rounds)?;
        }
    }
    Ok(())
}

fn compare(
    name: &str,
    ours: &Model,
    theirs: &Oracle,
    tokens: usize,
    rounds: usize,
) -> kvgauge::Result<()> {
    let vocab = ours.config().vocab_size;
    let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % vocab) as u32).collect();
    let our_pass = || -> kvgauge::Result<f64> {
        let clock = Instant::now();
        let hidden = ours.forward(&ids, &mut ours.empty_cache())?;
        std::hint::black_box(ours.logits(&hidden.narrow(0, tokens - 1, 1)?)?);
        Ok(tokens as f64 / clock.elapsed().as_secs_f64())
    };
    let their_pass = || -> kvgauge::Result<f64> {
        let clock = Instant::now();
        std::hint::black_box(theirs.last_logits(&ids)?);
        Ok(tokens as f64 / clock.elapsed().as_secs_f64())
    };
    let (mut our_speed, mut their_speed, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (a, b) = (our_pass()?, their_pass()?);
        // The first round warms caches and the allocator.
        if round > 0 {
            our_speed.push(a);
            their_speed.push(b);
            ratio.push(a / b);
        }
    }
    let sorted = |mut v: Vec<f64>| {
        v.sort_by(f64::total_cmp);
        v
    };
    let (ours, theirs, ratio) = (sorted(our_speed), sorted(their_speed), sorted(ratio));
    println!(
        "{name:<10} {tokens:>6} {:>11.0} {:>13.0}  {:.2} ({:.2}, {:.2})",
        ours[rounds / 2],
        theirs[rounds / 2],
        ratio[rounds / 2],
        ratio[0],
        ratio[rounds - 1]
    );
    Ok(())
}
