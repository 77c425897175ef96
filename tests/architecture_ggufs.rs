//! A GGUF file of each family gives what its folder gives: to the bit where the file says everything
//! in full precision, F32, and Q8_0 against a folder of what its blocks stand for.
//!
//! `tests/data/make_architecture_ggufs.py` says what llama.cpp's converter does with each family. It
//! leaves the files without their data, which are put together here and held to the hash of what
//! the `gguf` package wrote.

#[path = "common/architectures.rs"]
mod architectures;
#[path = "common/random_model.rs"]
mod random_model;

use architectures::{Golden, Renaming, Weight};
use candle_core::{DType, Device, Tensor};
use half::f16;
use kvgauge::Result;
use kvgauge::model::Model;
use serde::Deserialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Where a file stores factors that a folder's numbers are computed into: of the largest value.
const TOLERANCE: f32 = 1e-5;

#[derive(Deserialize)]
struct Plan {
    config: Json,
    exact: bool,
    /// SHA-256 by type.
    files: HashMap<String, String>,
    /// In the file's order.
    tensors: Vec<Made>,
}

/// How a tensor is made, from which of the folder's, and with what number or numbers.
#[derive(Deserialize)]
struct Made(String, Vec<String>, Json);

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/architecture_ggufs")
}

fn plans() -> Vec<(String, Plan)> {
    let entries = std::fs::read_dir(data()).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_string))
        .collect();
    names.sort();
    assert!(names.len() > 20, "{} plans", names.len());
    let read = |name: &String| {
        let bytes = std::fs::read(data().join(format!("{name}.json"))).unwrap();
        (name.clone(), serde_json::from_slice(&bytes).unwrap())
    };
    names.iter().map(read).collect()
}

/// How a file of type Q8_0 or F32 stores a tensor.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    F32,
    F16,
    Q8,
}

/// GGUF's numbers of the types, in the order of the file's tensors, and their names.
fn stored(head: &[u8]) -> Vec<(String, Stored)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.gguf");
    std::fs::write(&path, head).unwrap();
    let mut file = std::fs::File::open(path).unwrap();
    let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
    let mut tensors: Vec<_> = content.tensor_infos.iter().collect();
    tensors.sort_by_key(|(_, info)| info.offset);
    let kind = |dtype| match dtype {
        candle_core::quantized::GgmlDType::F32 => Stored::F32,
        candle_core::quantized::GgmlDType::F16 => Stored::F16,
        candle_core::quantized::GgmlDType::Q8_0 => Stored::Q8,
        other => panic!("{other:?}"),
    };
    tensors.iter().map(|(name, info)| ((*name).clone(), kind(info.ggml_dtype))).collect()
}

/// gguf-py's Q8_0: the scale is absmax / 127 in f32, rounded to f16 only to be stored.
fn q8_0(values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut meant) = (Vec::new(), Vec::new());
    for block in values.chunks(32) {
        let scale = block.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let rounded = f16::from_f32(scale);
        bytes.extend(rounded.to_le_bytes());
        for value in block {
            // Away from zero at halves, as f32::round.
            let code = (value * inverse).round();
            bytes.push(code as i8 as u8);
            meant.push(code * rounded.to_f32());
        }
    }
    (bytes, meant)
}

/// Bytes in the file, and the values that they stand for.
fn store(values: &[f32], stored: Stored) -> (Vec<u8>, Vec<f32>) {
    match stored {
        Stored::F32 => (values.iter().flat_map(|x| x.to_le_bytes()).collect(), values.to_vec()),
        Stored::F16 => {
            let halves: Vec<f16> = values.iter().map(|x| f16::from_f32(*x)).collect();
            let bytes = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
            (bytes, halves.iter().map(|x| x.to_f32()).collect())
        }
        Stored::Q8 => q8_0(values),
    }
}

/// The row of the folder's tensor that each row of the file's is.
fn permutation(rows: usize, heads: usize) -> Vec<usize> {
    let half = rows / heads / 2;
    let row = |to: usize| {
        let (head, within) = (to / (2 * half), to % (2 * half));
        head * 2 * half + within % 2 * half + within / 2
    };
    (0..rows).map(row).collect()
}

/// The whole file, written, and the folder's tensors as the file has them, by their names in the folder.
fn write(name: &str, plan: &Plan, kind: &str) -> (NamedTempFile, HashMap<String, Vec<f32>>) {
    let golden = Golden::read(name);
    let weight = |name: &String| {
        golden.tensors.iter().find(|weight| &weight.0 == name).unwrap_or_else(|| panic!("{name}"))
    };
    let mut file = std::fs::read(data().join(format!("{name}.{kind}.head"))).unwrap();
    let mut folder = HashMap::new();
    let stored = stored(&file);
    assert_eq!(stored.len(), plan.tensors.len(), "{name}");
    for (Made(how, sources, number), (_, stored)) in plan.tensors.iter().zip(stored) {
        let values: Vec<Vec<f32>> = sources.iter().map(|name| weight(name).values()).collect();
        match how.as_str() {
            "values" => {
                let values: Vec<f32> = serde_json::from_value(number.clone()).unwrap();
                file.extend(store(&values, stored).0);
            }
            "same" | "stacked" => {
                for (source, values) in sources.iter().zip(&values) {
                    let (bytes, meant) = store(values, stored);
                    file.extend(bytes);
                    folder.insert(source.clone(), meant);
                }
            }
            "added" => {
                let shift = number.as_f64().unwrap() as f32;
                let shifted: Vec<f32> = values[0].iter().map(|x| x + shift).collect();
                file.extend(store(&shifted, stored).0);
                // 1 + w is not always exactly (1 + w) − 1 + 1: the folder keeps its own.
                folder.insert(sources[0].clone(), values[0].clone());
            }
            "permuted" => {
                let rows = weight(&sources[0]).1[0];
                let order = permutation(rows, number.as_u64().unwrap() as usize);
                let width = values[0].len() / rows;
                let row = |index: usize| values[0][index * width..][..width].to_vec();
                let permuted: Vec<f32> = order.iter().flat_map(|index| row(*index)).collect();
                let (bytes, meant) = store(&permuted, stored);
                file.extend(bytes);
                let mut back = vec![0f32; meant.len()];
                for (to, from) in order.iter().enumerate() {
                    back[from * width..][..width].copy_from_slice(&meant[to * width..][..width]);
                }
                folder.insert(sources[0].clone(), back);
            }
            other => panic!("{other}"),
        }
        file.resize(file.len().next_multiple_of(32), 0);
    }
    let hash = format!("{:x}", Sha256::digest(&file));
    assert_eq!(hash, plan.files[kind], "{name}.{kind}: not the file that the gguf package wrote");
    let written = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    std::fs::write(written.path(), file).unwrap();
    (written, folder)
}

fn load(path: &Path) -> Result<Model> {
    random_model::open(path)?.load(DType::F32, &Device::Cpu)
}

/// Logits, then keys and values of each layer.
fn numbers(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut cache = model.empty_cache();
    let hidden = model.forward(tokens, &mut cache).unwrap();
    let logits = model.logits(&hidden).unwrap();
    let layers = cache.layers().flat_map(|kv| [&kv.key, &kv.value]);
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
    let flat = |tensor: &Tensor| wide(tensor).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    std::iter::once(&logits).chain(layers).map(flat).collect()
}

/// The largest difference, of the largest value of its tensor; infinite for other shapes.
fn distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    if found.iter().map(Vec::len).ne(expected.iter().map(Vec::len)) {
        return f32::INFINITY;
    }
    let pairs = found.iter().zip(expected).map(|(found, expected)| {
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        differences.fold(0f32, |m, x| if m.is_nan() || x <= m { m } else { x }) / largest
    });
    pairs.fold(0f32, |m, x| if m.is_nan() || x <= m { m } else { x })
}

/// Weights that stay packed are the same weights: the same bits, in one pass and token by token.
#[test]
fn packed_weights_give_the_same_bits() {
    for (name, plan) in plans() {
        for kind in ["F32", "Q8_0"] {
            let (file, _) = write(&name, &plan, kind);
            let open = random_model::open(file.path()).unwrap();
            let weights = open.weights().unwrap().weights;
            for dtype in [DType::F32, DType::BF16] {
                let full = open.load(dtype, &Device::Cpu).unwrap();
                let packed = Model::load_packed(&open.config, weights.as_ref(), dtype).unwrap();
                let tokens = Golden::read(&name).tokens;
                let what = format!("{name}.{kind} in {dtype:?}");
                assert!(numbers(&packed, &tokens) == numbers(&full, &tokens), "{what}");
                let (mut a, mut b) = (full.empty_cache(), packed.empty_cache());
                for token in &tokens[..3] {
                    let full = full.forward(&[*token], &mut a).unwrap();
                    let packed = packed.forward(&[*token], &mut b).unwrap();
                    let bits = |hidden: Tensor| hidden.to_vec2::<f32>().unwrap();
                    assert!(bits(full) == bits(packed), "{what}: one token");
                }
            }
        }
    }
}

#[test]
fn files_give_what_their_folders_give() {
    let mut failures = Vec::new();
    for (name, plan) in plans() {
        for kind in ["F32", "Q8_0"] {
            let (file, values) = write(&name, &plan, kind);
            let from_file = load(file.path());
            let golden = Golden::read(&name);
            let folder = tempfile::tempdir().unwrap();
            golden.write_with(
                folder.path(),
                &plan.config,
                &Renaming::new(),
                1,
                |weight: &Weight| values[&weight.0].clone(),
            );
            let (file, folder) = match (from_file, load(folder.path())) {
                (Ok(file), Ok(folder)) => (file, folder),
                (Err(error), _) | (_, Err(error)) => {
                    failures.push(format!("{name}.{kind}: {error}"));
                    continue;
                }
            };
            let found = numbers(&file, &golden.tokens);
            let expected = numbers(&folder, &golden.tokens);
            let far = distance(&found, &expected);
            let same = found == expected;
            println!("{name}.{kind}: {}", if same { "equal".into() } else { format!("{far:.1e}") });
            if far.is_nan() || far > if plan.exact { 0.0 } else { TOLERANCE } {
                failures.push(format!("{name}.{kind}: {far:e} of the largest"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
