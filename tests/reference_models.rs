//! Outside witness: Qwen2.5-Coder-0.5B and Gemma 3 270M on WikiText-2 against PyTorch and
//! transformers in f32, under both protocols.
//!
//! Needs the GGUF files that `.ci/run` fetches (`KVGAUGE_QWEN2`, `KVGAUGE_GEMMA3`, paths) and the
//! folder of reference numbers (`KVGAUGE_SHARED`, default `../shared`). Where one is missing the
//! test says so in one line; with `KVGAUGE_NO_SKIP=1` that is a failure.

#[path = "common/skip.rs"]
mod skip;

use candle_core::{DType, Device, Tensor};
use kvgauge::codec::DistortionSum;
use kvgauge::corpus::{Text, WindowPlan};
use kvgauge::eval::{Arm, Evaluator, Protocol, layer_sums};
use kvgauge::hub::{Hub, HubOptions};
use kvgauge::model::Model;
use kvgauge::model::source::ModelSource;
use serde_json::Value;
use skip::skip;
use std::path::PathBuf;
use std::sync::Arc;

struct Witness {
    name: &'static str,
    model: Model,
    tokens: Vec<u32>,
    shared: PathBuf,
}

fn witness(name: &'static str, variable: &str) -> Option<Witness> {
    let shared = std::env::var_os("KVGAUGE_SHARED").map_or("../shared".into(), PathBuf::from);
    let gguf = std::env::var_os(variable).map(PathBuf::from);
    let missing = match &gguf {
        None => Some(format!("{variable} does not name the GGUF file of {name}")),
        Some(path) if !path.is_file() => Some(format!("{} is no file", path.display())),
        Some(_) if !shared.join("reference").is_dir() => {
            Some(format!("no reference numbers in {}", shared.display()))
        }
        Some(_) => None,
    };
    if let Some(why) = missing {
        skip("the reference numbers", &why);
        return None;
    }
    let hub = Hub::new(HubOptions::from_env(true), Arc::new(())).unwrap();
    let open = ModelSource::Gguf(gguf?).open(name, &hub).unwrap();
    let text = Text::file(&shared.join("data/wiki.test.raw")).unwrap();
    let tokens = text.tokenize(&open.tokenizer, true).unwrap();
    let model = open.load(DType::F32, &Device::Cpu).unwrap();
    Some(Witness { name, model, tokens, shared })
}

#[test]
fn qwen_equals_the_reference() {
    let name = "qwen2.5-coder-0.5b";
    let Some(witness) = witness(name, "KVGAUGE_QWEN2") else { return };
    witness.keys_and_values(512, None);
    witness.scores("wikitext2_512", Protocol::PREFIX);
    witness.scores("decode_512", Protocol::Decode { residual: 0, chunk: 32 });
}

/// Layers that slide by 512 tokens, at 1024.
#[test]
fn gemma_equals_the_reference() {
    let name = "gemma-3-270m";
    let Some(witness) = witness(name, "KVGAUGE_GEMMA3") else { return };
    witness.keys_and_values(1024, Some(2));
    witness.scores("wikitext2_1024", Protocol::PREFIX);
    witness.scores("decode_512", Protocol::Decode { residual: 0, chunk: 32 });
}

impl Witness {
    /// The first 64 tokens of the first window's prefix.
    fn keys_and_values(&self, context: usize, bos: Option<u32>) {
        let sample = format!("reference/{}_kv_first64.safetensors", self.name);
        let sample =
            candle_core::safetensors::load(self.shared.join(sample), &Device::Cpu).unwrap();
        let mut tokens = self.tokens[..context / 2].to_vec();
        tokens[0] = bos.unwrap_or(tokens[0]);
        let model = self.model.for_context(context);
        let mut cache = model.empty_cache();
        model.forward(&tokens, &mut cache).unwrap();
        let cache = cache.truncated(64).unwrap();
        let layers: Vec<_> = cache.layers().collect();
        assert_eq!(sample.len(), 6, "keys and values of three layers");
        for (name, expected) in &sample {
            // layer.{i}.key
            let index: usize = name.split('.').nth(1).unwrap().parse().unwrap();
            let layer = layers[index];
            let found = if name.ends_with("key") { &layer.key } else { &layer.value };
            let largest = |tensor: &Tensor| {
                let flat = tensor.abs().unwrap().flatten_all().unwrap();
                flat.max(0).unwrap().to_scalar::<f32>().unwrap()
            };
            let difference = largest(&(found - expected).unwrap()) / largest(expected);
            println!("{}: {name}: largest difference {difference:.1e} of the largest", self.name);
            assert!(difference <= 2e-3, "{name}: {difference}");
        }
    }

    fn scores(&self, what: &str, protocol: Protocol) {
        let path = self.shared.join(format!("reference/{}_{what}.json", self.name));
        let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let count = |key: &str| reference[key].as_u64().unwrap() as usize;
        let (context, windows) = (count("context"), count("windows"));
        let ids: Vec<u32> = serde_json::from_value(reference["first_ids"].clone()).unwrap();
        assert_eq!(self.tokens[..ids.len()], ids, "token ids");
        let bos = reference["bos"].as_u64().map(|id| id as u32);
        let first = count("first_window");
        let plan = WindowPlan { context, first, count: Some(windows), bos };
        let windows = plan.cut(&self.tokens, "wikitext-2").unwrap();

        let known = CODECS.iter().filter_map(|(theirs, ours)| {
            let expected = reference["codecs"].get(*theirs)?;
            Some((*ours, expected))
        });
        let mut known: Vec<(&str, &Value)> = known.collect();
        assert_eq!(known.len(), reference["codecs"].as_object().unwrap().len());
        let decode = matches!(protocol, Protocol::Decode { .. });
        if decode {
            // Of larger damage, a rounding that goes the other way makes another number.
            known.retain(|(_, expected)| expected["kld_mean"].as_f64().unwrap() < 0.1);
            assert!(!known.is_empty());
        }
        let arms: Vec<Arm> = known.iter().map(|(ours, _)| Arm::of(ours.parse().unwrap())).collect();
        let evaluator = Evaluator::new(&self.model, protocol, context, 0);
        let evaluation = evaluator.evaluate(&windows, &arms, &mut ()).unwrap();

        let expected = floats(&reference["baseline"]["nll_per_window"]);
        assert_eq!(expected.len(), evaluation.baseline.len());
        for (found, expected) in evaluation.baseline.iter().zip(&expected) {
            let found: f64 = found.iter().sum();
            assert_within(&format!("{what}: baseline"), found, *expected, 5e-4 * expected);
        }
        for ((ours, expected), outcome) in known.iter().zip(&evaluation.codecs) {
            let what = format!("{} {what}: {ours}", self.name);
            let scores = outcome.scores().concat();
            let mean = |f: &dyn Fn(&kvgauge::eval::scores::TokenScore) -> f64| {
                scores.iter().map(f).sum::<f64>() / scores.len() as f64
            };
            let number = |key: &str| expected[key].as_f64().unwrap();
            let (kld, nll) = (mean(&|score| score.kld), mean(&|score| score.nll));
            let top1 = mean(&|score| f64::from(u8::from(score.same_top)));
            println!(
                "{what}: perplexity {:.4} (reference {:.4}), KLD {kld:.6} ({:.6}), top-1 {top1:.4} \
                 ({:.4})",
                nll.exp(),
                number("perplexity"),
                number("kld_mean"),
                number("top1")
            );
            if decode {
                let expected = floats(&expected["nll_per_window"]).iter().sum::<f64>();
                let found = nll * scores.len() as f64;
                assert_within(&what, found, expected, 0.02 * expected);
                continue;
            }
            let of_kld = if number("kld_mean") > 0.3 { 0.08 } else { 0.04 };
            // f16's is all rounding.
            assert_within(&what, kld, number("kld_mean"), of_kld * number("kld_mean") + 1e-7);
            let of_perplexity = if number("kld_mean") > 0.3 { 0.08 } else { 0.003 };
            assert_within(
                &what,
                nll.exp(),
                number("perplexity"),
                of_perplexity * number("perplexity"),
            );
            assert_within(&what, top1, number("top1"), 0.008);
            let sums = layer_sums(&outcome.windows);
            let total = |of: fn(&kvgauge::eval::LayerDistortion) -> DistortionSum| {
                sums.iter().map(of).fold(DistortionSum::default(), DistortionSum::plus)
            };
            let sides = [("K", total(|layer| layer.key)), ("V", total(|layer| layer.value))];
            for (side, sum) in sides {
                // Exact sides are f32 there and f16 here.
                let Some(expected) = expected["snr_db"][side].as_f64() else { continue };
                assert_within(
                    &format!("{what} {side}"),
                    sum.finish().snr_db.unwrap(),
                    expected,
                    0.05,
                );
            }
        }
    }
}

/// The reference's names and ours. Its `q8_0` rounds the scale before it divides by it, as `int8-g32` does;
/// llama.cpp, and `q8_0` here, afterwards.
const CODECS: [(&str, &str); 10] = [
    ("int4_sym_g64", "int4-g64"),
    ("int4_sym_g32", "int4-g32"),
    ("int4_asym_g64", "int4-g64-asym"),
    ("kivi4", "kivi4"),
    ("q4_0", "q4_0"),
    ("q8_0", "int8-g32"),
    ("k_int4_sym_g64", "k:int4-g64/v:f16"),
    ("v_int4_sym_g64", "k:f16/v:int4-g64"),
    ("hadamard_int4_sym_g64", "int4-g64-had"),
    ("f16", "f16"),
];

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn assert_within(what: &str, found: f64, expected: f64, bound: f64) {
    assert!(
        (found - expected).abs() <= bound,
        "{what}: expected {expected} ± {bound}, found {found}"
    );
}
