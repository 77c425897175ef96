//! Every cut and flip of what is read before the weights: a GGUF file's header, config.json,
//! tokenizer.json and the index. Each is an input error with a hint, or a model that is whole;
//! never a panic. How much memory damage can cost is in `allocation.rs`.

#[path = "common/random_model.rs"]
mod random_model;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device};
use kvgauge::error::Kind;
use random_model::{RandomModel, Spec};
use safetensors::Dtype;
use serde_json::json;
use std::fs;
use std::path::Path;

fn model() -> RandomModel {
    let spec = Spec {
        vocab: 32,
        hidden: 32,
        intermediate: 32,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        ..Spec::default()
    };
    RandomModel::new(7, spec)
}

/// Whether it loads; an error must be the input's and say what to do.
#[track_caller]
fn loads(path: &Path, what: &str) -> bool {
    let loaded = random_model::open(path).and_then(|open| open.load(DType::F32, &Device::Cpu));
    match loaded {
        Ok(model) => {
            // Whole: it computes.
            let hidden = model.forward(&[1, 2], &mut model.empty_cache()).unwrap();
            model.logits(&hidden).unwrap();
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::Input, "{what}: {error}");
            assert!(error.hint_text().is_some(), "{what}: no hint: {error}");
            false
        }
    }
}

/// The new value of a byte.
const FLIPS: [fn(u8) -> u8; 5] = [|b| b ^ 1, |b| b ^ 0x80, |b| !b, |_| 0, |b| b.wrapping_add(1)];

#[test]
fn every_cut_and_flip_of_a_gguf_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    model().gguf(GgmlDType::Q8_0).write(&path);
    let whole = fs::read(&path).unwrap();
    let place = |name: &str| {
        whole.windows(name.len()).position(|window| window == name.as_bytes()).unwrap()
    };
    // Tensors are listed by name; the last one's type and offset end the list.
    let list = place("output.weight").min(place("blk.0.")).min(place("token_embd.")) - 8;
    let names = model().gguf(GgmlDType::Q8_0).tensors;
    let ends = names.iter().map(|(name, tensor)| {
        let dimensions = tensor.shape().dims().len();
        place(name) + name.len() + 4 + 8 * dimensions + 4 + 8
    });
    let header = ends.max().unwrap();
    for cut in 0..header {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(!loads(&path, &format!("cut at {cut}")), "cut at {cut} loads");
    }
    let mut loaded = 0;
    for at in 0..header {
        for flip in FLIPS {
            let mut bytes = whole.clone();
            bytes[at] = flip(bytes[at]);
            if bytes == whole {
                continue;
            }
            fs::write(&path, &bytes).unwrap();
            let what = format!("byte {at} is {} instead of {}", bytes[at], whole[at]);
            let loads = loads(&path, &what);
            loaded += usize::from(loads);
            // Nothing in the list of tensors may be another and pass.
            assert!(!loads || at < list, "{what}, in the list of tensors: loads");
        }
    }
    // Values that have no second witness in the file: epsilon, a token's text.
    assert!(loaded < header * FLIPS.len() / 2, "{loaded} of {header}");
}

#[test]
fn every_cut_and_flip_of_a_folders_json() {
    const INDEX: &str = "model.safetensors.index.json";
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = model();
    model.write_folder(folder.path(), Dtype::F32);
    let shard = "model-00001-of-00001.safetensors";
    fs::rename(path("model.safetensors"), path(shard)).unwrap();
    let map: serde_json::Map<_, _> =
        model.tensors.keys().map(|name| (name.clone(), json!(shard))).collect();
    fs::write(path(INDEX), json!({"weight_map": map}).to_string()).unwrap();
    fs::write(path("tokenizer_config.json"), r#"{"bos_token": "a", "add_bos_token": true}"#)
        .unwrap();
    assert!(loads(folder.path(), "whole"));
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", INDEX] {
        let whole = fs::read(path(name)).unwrap();
        for cut in 0..whole.len() {
            fs::write(path(name), &whole[..cut]).unwrap();
            let what = format!("{name} cut at {cut}");
            assert!(!loads(folder.path(), &what), "{what} loads");
        }
        for at in 0..whole.len() {
            for flip in FLIPS {
                let mut bytes = whole.clone();
                bytes[at] = flip(bytes[at]);
                fs::write(path(name), &bytes).unwrap();
                loads(folder.path(), &format!("{name}: byte {at} is {}", bytes[at]));
            }
        }
        fs::write(path(name), &whole).unwrap();
    }
}
