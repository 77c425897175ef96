//! What a codec costs in a sweep, beside one plain forward pass over the same windows with logits
//! at all positions, which is what a tool that runs the model once a setting pays for each.
//!
//! `cargo bench --bench sweep`: SmolLM2's shape, random weights (the arithmetic is the same),
//! windows of 512, `prefix`. Each round times a plain pass, the baseline alone, and the baseline
//! with six codecs, in turn; the medians over rounds of the ratios within a round are printed.

#[path = "../tests/common/shapes.rs"]
mod shapes;
#[path = "common/timing.rs"]
mod timing;

use candle_core::{DType, Device};
use kvgauge::corpus::Window;
use kvgauge::eval::{Arm, Evaluator, Protocol, Treatment};
use kvgauge::model::Model;
use kvgauge::model::RandomWeights;
use timing::{median, seconds};

const CONTEXT: usize = 512;
const ROUNDS: usize = 7;
const CODECS: [&str; 6] =
    ["int4-g16", "int4-g32", "int4-g64", "int4-g128", "k:int4-g64/v:f16", "f16"];

fn main() {
    let config = shapes::smollm2();
    let model = Model::load(&config, &RandomWeights, DType::F32, &Device::Cpu).expect("a model");
    let window: Vec<u32> = (0..CONTEXT).map(|i| (i * 7919 % config.vocab_size) as u32).collect();
    let codecs: Vec<Treatment> = CODECS.iter().map(|name| name.parse().expect("a codec")).collect();

    let evaluator = Evaluator::new(&model, Protocol::PREFIX, CONTEXT, 0);
    let plain = || {
        let hidden = model.forward(&window, &mut model.empty_cache()).expect("a pass");
        std::hint::black_box(model.logits(&hidden).expect("logits"));
    };
    let evaluate = |codecs: &[Treatment]| {
        let windows = [Window::halves(window.clone())];
        let arms: Vec<Arm> = codecs.iter().cloned().map(Arm::of).collect();
        std::hint::black_box(evaluator.evaluate(&windows, &arms, &mut ()).expect("scores"));
    };
    plain();
    evaluate(&codecs[..1]);
    let (mut baseline, mut one, mut all, mut forward) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let pass = seconds(plain);
        let alone = seconds(|| evaluate(&[]));
        let six = seconds(|| evaluate(&codecs));
        forward.push(pass);
        baseline.push(alone / pass);
        one.push((six - alone) / codecs.len() as f64 / pass);
        all.push(six / pass);
    }
    println!("plain forward, logits at all positions: {:.3} s a window", median(forward));
    println!("baseline alone:       {:.2} of it", median(baseline));
    println!("each of six codecs:   {:.2} of it (at most 0.6 wanted)", median(one));
    println!("baseline, six codecs: {:.2} of it (a tool that reruns: 7)", median(all));
}
