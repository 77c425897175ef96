//! What fits into memory: weights that stay packed, estimates beforehand, and refusals of what does
//! not fit, before a weight is read.

#[path = "common/cli.rs"]
#[allow(dead_code)]
mod cli;
#[path = "common/random_model.rs"]
mod random_model;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device};
use cli::{ModelFolder, good_with, validate};
use kvgauge::model::Model;
use random_model::{Random, RandomModel, Spec};
use serde_json::Value;

/// Nothing about a run but its time and memory depends on how the weights are kept.
#[test]
fn packed_weights_give_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // More ids than characters, so that any text encodes.
    let spec = Spec { vocab: 300, ..Spec::default() };
    RandomModel::new(3, spec).write_gguf(&path, GgmlDType::Q8_0);
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "the quick brown fox jumps over the lazy dog ".repeat(40)).unwrap();
    let result = |form: &str| -> Value {
        let mut result = validate(&[
            "--model",
            path.to_str().unwrap(),
            "--text",
            text.to_str().unwrap(),
            "--context",
            "128",
            "--windows",
            "3",
            "--codec",
            "int4-g64,q8_0",
            "--weights",
            form,
            "--json",
        ])
        .succeeds()
        .json();
        let object = result.as_object_mut().unwrap();
        for own in ["timings_s", "peak_rss_bytes"] {
            assert!(object.remove(own).is_some(), "{own}");
        }
        assert_eq!(object["config"]["weights"], form);
        object["config"].as_object_mut().unwrap().remove("weights");
        result
    };
    let packed = result("packed");
    assert!(packed["codecs"][0]["kld_mean"].as_f64().unwrap() > 0.0);
    assert_eq!(packed, result("f32"));
}

#[test]
fn packed_weights_are_a_gguf_files_in_f32_on_the_cpu() {
    let folder = ModelFolder::new();
    folder.validate(&["--weights", "packed"]).is_refused(&["--weights packed", "GGUF"]);
    good_with(&["--weights", "int4"]).hints("auto, f32, packed");
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    RandomModel::new(3, Spec::default()).write_gguf(&path, GgmlDType::Q8_0);
    let (path, text) = (path.to_str().unwrap(), folder.text.to_str().unwrap());
    let request = ["--model", path, "--text", text, "--context", "64", "--windows", "1"];
    let with = |dtype| [&request[..], &["--weights", "packed", "--dtype", dtype]].concat();
    validate(&with("f16")).is_refused(&["--dtype f32 or bf16", "f16"]);
    validate(&with("bf16")).succeeds();
}

#[test]
fn a_dry_run_of_validate_tells_time_and_memory_and_runs_nothing() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("result.json");
    let request = ["--dry-run", "--codec", "int4-g64,q8_0", "--output", file.to_str().unwrap()];
    let told = good_with(&[&request[..], &["--json"]].concat()).succeeds().json();
    assert!(!file.exists());
    let subjects = told["subjects"].as_array().unwrap();
    let of = |key: &str| -> Vec<&Value> { subjects.iter().map(|subject| &subject[key]).collect() };
    assert_eq!(of("protocol"), ["prefix", "decode"]);
    assert_eq!(of("weights"), ["f32", "f32"]);
    let result = good_with(&["--codec", "int4-g64,q8_0", "--json"]).succeeds().json();
    for (at, codec) in result["codecs"].as_array().unwrap().iter().enumerate() {
        assert_eq!(subjects[0]["cells"][at]["bits_per_value"], codec["bits_per_value"]);
    }
    let [estimated, taken] = [&told["memory_bytes"], &result["peak_rss_bytes"]];
    if let (Some(estimated), Some(taken)) = (estimated.as_f64(), taken.as_f64()) {
        assert!((0.3..3.0).contains(&(estimated / taken)), "{estimated} for {taken}");
    }
    let text = good_with(&request).succeeds().stdout;
    assert!(text.contains("4 measurements: about") && text.contains("weights f32"), "{text}");
}

/// Centring needs whole tensors, which `decode` has not: nothing is left to estimate there.
#[test]
fn a_dry_run_leaves_out_a_protocol_that_takes_no_codec() {
    let told = good_with(&["--dry-run", "--json", "--codec", "int4-g64-ctr"]).succeeds().json();
    let subjects = told["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), 1);
    assert_eq!(subjects[0]["protocol"], "prefix");
}

/// Each part of the cache alone is a pass of its own.
#[test]
fn a_dry_run_counts_the_passes_of_attribution() {
    let cell = |args: &[&str]| -> f64 {
        let told = good_with(&[&["--dry-run", "--json", "--protocol", "prefix"], args].concat());
        told.succeeds().json()["subjects"][0]["cells"][0]["seconds"].as_f64().unwrap()
    };
    assert!(cell(&["--attribute"]) > 2.0 * cell(&[]));
}

/// Its MLPs alone would take TB.
#[cfg(target_os = "linux")]
#[test]
fn what_does_not_fit_is_refused_before_a_weight_is_read() {
    let folder = ModelFolder::new();
    folder.edit_config(|config| config["intermediate_size"] = (1 << 28).into());
    let words = ["memory", "GB", "expected at most", "f32"];
    let dry = folder.validate(&["--dry-run"]);
    dry.fails(3, &words);
    dry.hints("smaller model");
    // The tensors have other shapes, which is not what is told.
    folder.validate(&[]).fails(3, &words);
}

/// An MLP widens some thousand tokens at a time, which changes no bit.
#[test]
fn a_long_window_has_the_bits_of_its_pieces() {
    let spec = Spec { layers: 1, heads: 1, kv_heads: 1, context: 16_384, ..Spec::default() };
    let tokens = Random::new(5).tokens(9_000, spec.vocab);
    let folder = tempfile::tempdir().unwrap();
    RandomModel::new(5, spec).write_folder(folder.path(), safetensors::Dtype::F32);
    let model: Model =
        random_model::open(folder.path()).unwrap().load(DType::F32, &Device::Cpu).unwrap();
    let rows = |hidden: candle_core::Tensor| hidden.to_vec2::<f32>().unwrap();
    let whole = rows(model.forward(&tokens, &mut model.empty_cache()).unwrap());
    let mut cache = model.empty_cache();
    let pieces =
        tokens.chunks(1_500).flat_map(|some| rows(model.forward(some, &mut cache).unwrap()));
    assert!(whole == pieces.collect::<Vec<_>>());
}
