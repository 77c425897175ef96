//! Models in several GGUF files, as llama.cpp's gguf-split and gguf-py write them.

#[path = "common/random_model.rs"]
mod random_model;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use kvgauge::error::Kind;
use kvgauge::model::Model;
use random_model::{GgufFile, Random, RandomModel, Spec};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn model() -> GgufFile {
    RandomModel::new(3, Spec::default()).gguf(GgmlDType::Q8_0)
}

/// `lengths`: tensors of each part.
fn split(mut whole: GgufFile, lengths: &[usize]) -> Vec<GgufFile> {
    let total = whole.tensors.len();
    let mut parts = Vec::new();
    for (index, length) in lengths.iter().enumerate() {
        let last = index + 1 == lengths.len();
        let rest = whole.tensors.split_off(if last { whole.tensors.len() } else { *length });
        let mut part = GgufFile { metadata: Vec::new(), tensors: whole.tensors };
        whole.tensors = rest;
        if index == 0 {
            part.metadata.append(&mut whole.metadata);
        }
        part.set("split.no", Value::U16(index as u16));
        part.set("split.count", Value::U16(lengths.len() as u16));
        part.set("split.tensors.count", Value::I32(total as i32));
        parts.push(part);
    }
    parts
}

struct Folder(TempDir);

impl Folder {
    /// Parts of 7, 4 and the remaining tensors.
    fn new() -> Self {
        Self::of(&split(model(), &[7, 4, 0]))
    }

    fn of(parts: &[GgufFile]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (index, part) in parts.iter().enumerate() {
            part.write(&folder.part(index + 1, parts.len()));
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn part(&self, number: usize, count: usize) -> PathBuf {
        self.path(&format!("m-{number:05}-of-{count:05}.gguf"))
    }

    /// Writes another part in place of one of three.
    fn replace(&self, number: usize, change: impl FnOnce(&mut GgufFile)) {
        let mut part = split(model(), &[7, 4, 0]).swap_remove(number - 1);
        change(&mut part);
        part.write(&self.part(number, 3));
    }
}

fn load(path: &Path) -> kvgauge::Result<(Model, BTreeMap<String, String>)> {
    let open = random_model::open(path)?;
    let weights = open.weights()?;
    let model = open.load(candle_core::DType::F32, &candle_core::Device::Cpu)?;
    Ok((model, weights.provenance.files_sha256))
}

fn logits(path: &Path) -> Vec<f32> {
    let (model, _) = load(path).unwrap();
    let tokens = Random::new(1).tokens(20, Spec::default().vocab);
    let hidden = model.forward(&tokens, &mut model.empty_cache()).unwrap();
    model.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_refused(path: &Path, mentions: &[&str], hint: &str) {
    let error = load(path).err().expect("should be refused");
    assert_eq!(error.kind(), Kind::Input, "{error}");
    for text in mentions {
        assert!(error.to_string().contains(text), "expected {text:?} in: {error}");
    }
    let found = error.hint_text().unwrap_or_default();
    assert!(found.contains(hint), "expected {hint:?} in: {found}");
}

#[test]
fn any_part_opens_the_whole_model() {
    let whole = tempfile::tempdir().unwrap();
    let path = whole.path().join("m.gguf");
    model().write(&path);
    let expected = logits(&path);
    // llama-gguf-split --no-tensor-first-split leaves the first without tensors.
    for lengths in [&[7, 4, 0][..], &[0, 11, 0], &[20, 0]] {
        let folder = Folder::of(&split(model(), lengths));
        let hashes = load(&folder.part(1, lengths.len())).unwrap().1;
        assert_eq!(hashes.len(), lengths.len());
        for number in 1..=lengths.len() {
            let part = folder.part(number, lengths.len());
            assert_eq!(logits(&part), expected, "{lengths:?} {number}");
            assert_eq!(load(&part).unwrap().1, hashes);
            let name = part.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = fs::read(&part).unwrap();
            assert_eq!(hashes[&name], sha256(&bytes), "{name}");
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// gguf-py writes the architecture into every part, and its numbers in other widths.
#[test]
fn parts_may_repeat_the_architecture() {
    let mut parts = split(model(), &[7, 4, 0]);
    for part in &mut parts {
        part.set("general.architecture", Value::String("llama".into()));
        part.set("split.count", Value::U64(3));
        part.set("general.alignment", Value::U32(32));
    }
    load(&Folder::of(&parts).part(2, 3)).unwrap();
}

#[test]
fn missing_parts_are_named() {
    let folder = Folder::new();
    fs::remove_file(folder.part(2, 3)).unwrap();
    let missing = "expected 3 parts beside each other, found 2: m-00002-of-00003.gguf missing";
    assert_refused(&folder.part(1, 3), &["m-00001-of-00003.gguf", missing], "one folder");
    assert_refused(&folder.part(3, 3), &["m-00003-of-00003.gguf", missing], "one folder");
    fs::remove_file(folder.part(1, 3)).unwrap();
    let missing = "found 1: m-00001-of-00003.gguf and 1 more missing";
    assert_refused(&folder.part(3, 3), &[missing], "one folder");
    // Never looked for under a count that nobody can mean.
    folder.replace(3, |part| part.set("split.count", Value::U64(1 << 40)));
    assert_refused(&folder.part(3, 3), &["split.count", "found 1099511627776"], "gguf-split");
}

#[test]
fn renamed_parts_say_what_they_were() {
    let folder = Folder::new();
    fs::rename(folder.part(2, 3), folder.path("other.gguf")).unwrap();
    let mentions = ["other.gguf: expected a name that ends in -00002-of-00003.gguf", "part 2 of 3"];
    assert_refused(&folder.path("other.gguf"), &mentions, "its own back");
    // The last one once more in place of the second.
    fs::copy(folder.part(3, 3), folder.part(2, 3)).unwrap();
    let mentions = ["m-00002-of-00003.gguf: expected part 2 of 3", "found part 3 of 3"];
    assert_refused(&folder.part(1, 3), &mentions, "where the others are from");
    assert_refused(&folder.part(2, 3), &["-00003-of-00003.gguf", "found m-00002"], "its own back");
    // A whole model under a part's name.
    model().write(&folder.part(2, 3));
    let mentions = ["m-00002-of-00003.gguf: expected part 2 of 3", "a model in one file"];
    assert_refused(&folder.part(3, 3), &mentions, "not of one model");
}

#[test]
fn parts_of_other_models_do_not_fit() {
    let refused = |change: fn(&mut GgufFile), mentions: &[&str], hint: &str| {
        let folder = Folder::new();
        folder.replace(2, change);
        assert_refused(&folder.part(1, 3), mentions, hint);
        assert_refused(&folder.part(3, 3), mentions, hint);
    };
    let second = "m-00002-of-00003.gguf: ";
    refused(
        |part| part.set("split.tensors.count", Value::I32(99)),
        &[second, "split.tensors.count: expected 21", "found 99"],
        "not of one model",
    );
    refused(
        |part| part.set("general.architecture", Value::String("qwen2".into())),
        &[second, "general.architecture: expected llama", "found qwen2"],
        "not of one model",
    );
    refused(
        |part| {
            let (name, _) = model().tensors.swap_remove(0);
            part.tensors.pop();
            part.set_tensor(&name, &[4], &[0.0; 4]);
        },
        &[second, "there already, in", "m-00001-of-00003.gguf"],
        "not of one model",
    );
    refused(
        |part| _ = part.tensors.pop(),
        &["m-00001-of-00003.gguf: split.tensors.count: expected 21 tensors in all parts, found 20"],
        "not of one model",
    );
    refused(
        |part| part.metadata.retain(|(key, _)| key != "split.no"),
        &[second, "split.no: missing"],
        "gguf-split",
    );
    refused(
        |part| part.set("split.no", Value::I32(-1)),
        &[second, "split.no: expected a whole number"],
        "",
    );
    refused(
        |part| part.set("split.no", Value::U16(3)),
        &[second, "split.no: expected less than split.count, 3, found 3"],
        "gguf-split",
    );
}

/// A damaged part is refused under its own name, whichever is named.
#[test]
fn damage_is_of_a_part() {
    let folder = Folder::new();
    let second = folder.part(2, 3);
    let whole = fs::read(&second).unwrap();
    for (bytes, mention) in [
        (whole[..whole.len() - 1].to_vec(), "expected a file of at least"),
        (whole[..100].to_vec(), "not a whole GGUF header"),
        (b"<!DOCTYPE html>".to_vec(), "expected a GGUF file"),
        (Vec::new(), "expected a GGUF file"),
        ([whole.clone(), fs::read(folder.part(3, 3)).unwrap()].concat(), "several put together"),
    ] {
        fs::write(&second, bytes).unwrap();
        assert_refused(&folder.part(1, 3), &["m-00002-of-00003.gguf: ", mention], "");
        assert_refused(&second, &["m-00002-of-00003.gguf: ", mention], "");
    }
    // A tensor that is wrong, and one that is not there.
    folder.replace(2, |part| {
        let name = part.tensors[1].0.clone();
        part.set_tensor(&name, &[3], &[1.0; 3]);
    });
    assert_refused(&folder.part(1, 3), &["m-00002-of-00003.gguf: tensor", "found [3]"], "");
}
