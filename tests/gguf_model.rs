//! Models from GGUF files: the same numbers as from a Hugging Face folder, and damaged files of
//! both kinds are errors, never panics.

#[path = "common/random_model.rs"]
mod random_model;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use candle_core::{DType, Device, Tensor};
use kvgauge::Result;
use kvgauge::error::Kind;
use kvgauge::model::{KvCache, Model, ModelConfig, RopeScaling, Safetensors, Weights};
use random_model::{Random, RandomModel, Spec};
use safetensors::Dtype;
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Every value of a forward pass: logits, then keys and values of each layer.
fn numbers(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut cache: KvCache = model.empty_cache();
    let hidden = model.forward(tokens, &mut cache).unwrap();
    let logits = model.logits(&hidden).unwrap();
    let layers = cache.layers().flat_map(|kv| [&kv.key, &kv.value]);
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    std::iter::once(&logits).chain(layers).map(flat).collect()
}

/// As `kvgauge` does with `--model`.
fn load(path: &Path) -> Result<(ModelConfig, Model)> {
    let open = random_model::open(path)?;
    let model = open.load(DType::F32, &Device::Cpu)?;
    Ok((open.config, model))
}

fn folder(model: &RandomModel) -> (ModelConfig, Model) {
    let folder = tempfile::tempdir().unwrap();
    model.write_folder(folder.path(), Dtype::F32);
    load(folder.path()).unwrap()
}

fn gguf(model: &RandomModel, dtype: GgmlDType) -> (ModelConfig, Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    model.write_gguf(&path, dtype);
    load(&path).unwrap()
}

fn tokens(count: usize) -> Vec<u32> {
    Random::new(1).tokens(count, Spec::default().vocab)
}

/// Every value to the bit.
#[track_caller]
fn assert_same(found: &Model, expected: &Model, count: usize, what: &str) {
    let (found, expected) = (numbers(found, &tokens(count)), numbers(expected, &tokens(count)));
    assert!(found == expected, "{what}: {} of the largest", distance(&found, &expected));
}

/// Where a file keeps a shorter form than f32, the folder holds what that form stands for: the
/// same weights, hence the same bits.
#[test]
fn a_gguf_file_gives_the_bits_of_its_folder() {
    let multi_head = Spec { heads: 2, kv_heads: 2, head_dim: 32, ..Spec::default() };
    let one_key_head = Spec { kv_heads: 1, head_dim: 16, tied: true, ..Spec::default() };
    let biases = Spec { attention_bias: true, mlp_bias: true, ..Spec::default() };
    let attention_bias = Spec { attention_bias: true, ..Spec::default() };
    let specs = [Spec::default(), multi_head, one_key_head, biases, attention_bias];
    for (seed, spec) in (0..).zip(specs) {
        let model = RandomModel::new(seed, spec);
        for dtype in [
            GgmlDType::F32,
            GgmlDType::F16,
            GgmlDType::BF16,
            GgmlDType::Q8_0,
            GgmlDType::Q5_1,
            GgmlDType::Q4_1,
            GgmlDType::Q4_0,
        ] {
            let (expected_config, expected) = folder(&model.rounded(dtype));
            let (config, found) = gguf(&model, dtype);
            assert_eq!(config, expected_config, "{seed} {dtype:?}");
            assert_same(&found, &expected, 70, &format!("{seed} {dtype:?}"));
        }
    }
}

/// The comparison above can fail: rounding and the order of rows are visible in the numbers.
#[test]
fn rounding_and_the_order_of_rows_are_visible() {
    let model = RandomModel::new(0, Spec::default());
    let expected = numbers(&folder(&model).1, &tokens(20));
    assert_ne!(numbers(&gguf(&model, GgmlDType::Q8_0).1, &tokens(20)), expected);

    let mut file = model.gguf(GgmlDType::F32);
    let (shape, values) = &model.tensors["model.layers.1.self_attn.k_proj.weight"];
    file.set_tensor("blk.1.attn_k.weight", shape, values);
    let written = Written::new(&file);
    assert_ne!(numbers(&load(&written.path).unwrap().1, &tokens(20)), expected);
}

#[test]
fn half_precision_folders_hold_what_they_were_rounded_to() {
    let model = RandomModel::new(0, Spec::default());
    for (dtype, rounded) in [(Dtype::F16, GgmlDType::F16), (Dtype::BF16, GgmlDType::BF16)] {
        let mut rounded = model.rounded(rounded);
        // `rounded` leaves vectors alone, as GGUF does; a half-precision folder does not.
        for (_, values) in rounded.tensors.values_mut() {
            for value in values {
                *value = match dtype {
                    Dtype::F16 => half::f16::from_f32(*value).to_f32(),
                    _ => half::bf16::from_f32(*value).to_f32(),
                };
            }
        }
        let folder_path = tempfile::tempdir().unwrap();
        model.write_folder(folder_path.path(), dtype);
        let (_, found) = load(folder_path.path()).unwrap();
        let (_, expected) = folder(&rounded);
        assert_same(&found, &expected, 20, &format!("{dtype:?}"));
    }
}

/// Llama 3's scaling reaches GGUF as one divisor a frequency.
#[test]
fn rope_freqs_stand_for_llama3_scaling() {
    let (factor, low, high, context) = (8.0f64, 1.0, 4.0, 60.0);
    let scaling = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low,
        "high_freq_factor": high, "original_max_position_embeddings": context as u64});
    let spec = Spec { rope_scaling: scaling, ..Spec::default() };
    let half = spec.head_dim / 2;
    let divisors: Vec<f32> = (0..half)
        .map(|i| {
            let frequency = f64::from(random_model::ROPE_THETA).powf(-(i as f64) / half as f64);
            // How often a wave turns within the original context.
            let turns = context * frequency / std::f64::consts::TAU;
            let blend = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - blend) / factor + blend)) as f32
        })
        .collect();
    // All three bands occur, or the test shows less than it says.
    assert!(divisors.contains(&1.0) && divisors.contains(&8.0));
    assert!(divisors.iter().any(|d| *d > 1.0 && *d < 8.0));

    let model = RandomModel::new(3, spec);
    let expected = numbers(&folder(&model).1, &tokens(200));
    let mut file = model.gguf(GgmlDType::F32);
    let plain = Written::new(&file);
    file.set_tensor("rope_freqs.weight", &[half], &divisors);
    let scaled = Written::new(&file);

    let (config, found) = load(&scaled.path).unwrap();
    assert_eq!(config.rotary[0].scaling, RopeScaling::Divisors(divisors));
    let distance = self::distance(&numbers(&found, &tokens(200)), &expected);
    // The last bit of a frequency, times 200 positions, is in the angles. Observed: 2e-6.
    assert!(distance < 3e-5, "{distance}");

    let (_, found) = load(&plain.path).unwrap();
    let distance = self::distance(&numbers(&found, &tokens(200)), &expected);
    assert!(distance > 1e-2, "the scaling makes no difference here: {distance}");
}

/// The largest; NaN if there is one, which `f32::max` would lose.
fn largest_of(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |m, x| if m.is_nan() || x <= m { m } else { x })
}

/// The largest difference, relative to the largest value of its tensor.
fn distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let relative = |(found, expected): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        largest_of(found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest))
    };
    largest_of(found.iter().zip(expected).map(relative))
}

#[test]
fn linear_scaling_is_read_under_both_its_names() {
    let scaling = json!({"rope_type": "linear", "factor": 4.0});
    let model = RandomModel::new(4, Spec { rope_scaling: scaling, ..Spec::default() });
    let (expected_config, expected) = folder(&model);
    let mut new = model.gguf(GgmlDType::F32);
    new.set("llama.rope.scaling.type", Value::String("linear".into()));
    new.set("llama.rope.scaling.factor", Value::F32(4.0));
    let mut old = model.gguf(GgmlDType::F32);
    old.set("llama.rope.scale_linear", Value::F32(4.0));
    for file in [new, old] {
        let written = Written::new(&file);
        let (config, found) = load(&written.path).unwrap();
        assert_eq!(config, expected_config);
        assert_same(&found, &expected, 40, "linear scaling");
    }
}

/// llama.cpp's rules: linear unless the type says otherwise, the newer name first, 0 for none.
#[test]
fn linear_scaling_follows_llama_cpp() {
    let model = RandomModel::new(4, Spec::default());
    let read = |keys: &[(&str, Value)]| {
        let mut file = model.gguf(GgmlDType::F32);
        for (key, value) in keys {
            file.set(&format!("llama.rope.{key}"), value.clone());
        }
        load(&Written::new(&file).path).map(|(config, _)| config.rotary[0].scaling.clone())
    };
    let (kind, number) = (|kind: &str| Value::String(kind.into()), Value::F32);
    let linear = |factor| RopeScaling::Linear { factor };
    for (keys, expected) in [
        (vec![("scaling.factor", number(4.0))], linear(4.0)),
        (vec![("scaling.factor", number(4.0)), ("scale_linear", number(2.0))], linear(4.0)),
        (vec![("scaling.type", kind("linear")), ("scale_linear", number(2.0))], linear(2.0)),
        (vec![("scaling.type", kind("linear"))], RopeScaling::None),
        (vec![("scaling.factor", number(0.0))], RopeScaling::None),
        (vec![("scaling.type", kind("none")), ("scale_linear", number(2.0))], RopeScaling::None),
    ] {
        assert_eq!(read(&keys).unwrap(), expected, "{keys:?}");
    }
    for factor in [-1.0, f32::NAN, f32::INFINITY] {
        let error = read(&[("scaling.factor", number(factor))]).unwrap_err();
        assert!(error.to_string().contains("llama.rope.scaling.factor"), "{error}");
    }
}

#[test]
fn a_sliding_window_in_the_header_is_every_layers() {
    let mut file = RandomModel::new(4, Spec::default()).gguf(GgmlDType::F32);
    file.set("llama.attention.sliding_window", Value::U32(24));
    let (config, _) = load(&Written::new(&file).path).unwrap();
    assert!(config.layers.iter().all(|layer| layer.attention.window == Some(24)));
}

/// Keys that a header may leave out: everything that follows from the rest.
#[test]
fn a_sparse_header_means_the_same() {
    let spec = Spec { heads: 4, kv_heads: 4, head_dim: 16, tied: true, ..Spec::default() };
    let model = RandomModel::new(5, spec);
    let mut file = model.gguf(GgmlDType::F32);
    let optional = [
        "llama.vocab_size",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.attention.value_length",
        "llama.rope.dimension_count",
    ];
    file.metadata.retain(|(key, _)| !optional.contains(&key.as_str()));
    let written = Written::new(&file);
    let (config, found) = load(&written.path).unwrap();
    let (expected_config, expected) = folder(&model);
    assert_eq!(config, expected_config);
    assert_same(&found, &expected, 20, "sparse header");
}

#[test]
fn folder_and_file_have_the_same_tokenizer() {
    let model = RandomModel::new(6, Spec::default());
    let (directory, written) =
        (tempfile::tempdir().unwrap(), Written::new(&model.gguf(GgmlDType::F32)));
    model.write_folder(directory.path(), Dtype::F32);
    let from_folder = random_model::open(directory.path()).unwrap();
    let from_file = random_model::open(&written.path).unwrap();
    for (text, expected) in [("ab z\n", vec![3, 4, 1, 28, 2]), ("", vec![])] {
        for open in [&from_folder, &from_file] {
            let ids = open.tokenizer.encode_fast(text, false).unwrap();
            assert_eq!(ids.get_ids(), expected);
        }
    }
    let ids = from_folder.tokenizer.encode_fast("é😀\u{0}", false).unwrap();
    assert_eq!(ids.get_ids(), [0, 0, 0]);
    for open in [from_folder, from_file] {
        assert_eq!((open.bos_id, open.adds_bos), (None, false));
        assert_eq!(open.weights().unwrap().provenance.revision, None);
    }
}

/// A file in a folder of its own.
struct Written {
    path: PathBuf,
    _folder: TempDir,
}

impl Written {
    fn new(file: &random_model::GgufFile) -> Self {
        let written = Self::gguf(&[]);
        file.write(&written.path);
        written
    }

    fn gguf(bytes: &[u8]) -> Self {
        Self::named("model.gguf", bytes)
    }

    fn safetensors(bytes: &[u8]) -> Self {
        Self::named("model.safetensors", bytes)
    }

    fn named(name: &str, bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self { path, _folder: folder }
    }
}

/// A small model: damage is tried at thousands of places.
fn small() -> RandomModel {
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

#[track_caller]
fn assert_input_error<T>(result: Result<T>, mentions: &[&str]) {
    let error = result.err().expect("should be refused");
    assert_eq!(error.kind(), Kind::Input, "{error}");
    for text in mentions {
        assert!(error.to_string().contains(text), "expected {text:?} in: {error}");
    }
}

#[test]
fn headers_of_other_models_are_refused_by_name() {
    let text = |s: &str| Value::String(s.into());
    for (key, value, mentions) in [
        ("general.architecture", text("qwen35"), &["general.architecture", "qwen35"][..]),
        ("general.architecture", text("gemma"), &["general.architecture", "gemma"]),
        ("general.architecture", text("qwen2"), &["qwen2.embedding_length", "missing"]),
        ("general.architecture", Value::U32(1), &["general.architecture"]),
        ("llama.expert_count", Value::U32(8), &["blk.0.ffn_gate_inp.weight", "missing"]),
        ("llama.rope.scaling.type", text("ntk"), &["llama.rope.scaling.type", "ntk"]),
        ("llama.rope.dimension_count", Value::U32(8), &["llama.rope.dimension_count", "found 8"]),
        ("llama.attention.value_length", Value::U32(8), &["llama.attention.value_length"]),
        ("llama.attention.head_count_kv", Value::U32(3), &["num_key_value_heads", "found 3"]),
        ("llama.attention.head_count", Value::U32(0), &["num_attention_heads", "found 0"]),
        ("llama.attention.head_count", Value::I32(-2), &["llama.attention.head_count"]),
        ("llama.attention.head_count", Value::F32(2.0), &["llama.attention.head_count"]),
        ("llama.block_count", Value::U64(1 << 40), &["block_count"]),
        ("llama.context_length", text("long"), &["llama.context_length"]),
        ("llama.rope.freq_base", Value::F32(f32::NAN), &["rope_theta", "NaN"]),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0), &["rms_norm_eps"]),
    ] {
        let mut file = small().gguf(GgmlDType::F32);
        file.set(key, value);
        let written = Written::new(&file);
        assert_input_error(load(&written.path), mentions);
        assert_input_error(load(&written.path), &["model.gguf"]);
    }
    let plain = small().gguf(GgmlDType::F32);
    for key in [
        "general.architecture",
        "llama.context_length",
        "llama.embedding_length",
        "llama.block_count",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
    ] {
        let mut file = small().gguf(GgmlDType::F32);
        file.metadata.retain(|(name, _)| name != key);
        assert_eq!(file.metadata.len() + 1, plain.metadata.len());
        assert_input_error(load(&Written::new(&file).path), &["model.gguf", key]);
    }
}

#[test]
fn wrong_tensors_are_named() {
    let names: Vec<String> =
        small().gguf(GgmlDType::F32).tensors.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 12);
    for name in &names {
        let refused = |change: &dyn Fn(&mut random_model::GgufFile), mentions: &[&str]| {
            let mut file = small().gguf(GgmlDType::F32);
            change(&mut file);
            let mentions: Vec<_> = mentions.iter().copied().chain(["model.gguf", name]).collect();
            assert_input_error(load(&Written::new(&file).path), &mentions);
        };
        // Without output.weight the embeddings are the head.
        if name != "output.weight" {
            refused(&|file| file.remove_tensor(name), &["missing"]);
        }
        refused(&|file| file.set_tensor(name, &[7], &[0.5; 7]), &["shape", "[7]"]);
        for bad in [f32::NAN, f32::INFINITY] {
            let change = |file: &mut random_model::GgufFile| {
                let (_, tensor) = file.tensors.iter().find(|(other, _)| other == name).unwrap();
                let shape = tensor.shape().dims().to_vec();
                let mut values = vec![0.5; shape.iter().product()];
                *values.last_mut().unwrap() = bad;
                file.set_tensor(name, &shape, &values);
            };
            refused(&change, &["expected a finite number", &bad.to_string()]);
        }
    }
    for divisors in [vec![1.0; 7], vec![0.0; 8], vec![-1.0; 8], vec![f32::NAN; 8]] {
        let mut file = small().gguf(GgmlDType::F32);
        file.set_tensor("rope_freqs.weight", &[divisors.len()], &divisors);
        assert_input_error(load(&Written::new(&file).path), &["model.gguf", "rope_freqs.weight"]);
    }
    let biased = RandomModel::new(8, Spec { attention_bias: true, ..small().spec });
    let mut file = biased.gguf(GgmlDType::F32);
    file.remove_tensor("blk.0.attn_k.bias");
    assert_input_error(load(&Written::new(&file).path), &["blk.0.attn_k.bias", "missing"]);
}

/// The bytes of a GGUF file, and how many of them are header.
fn gguf_bytes() -> (Vec<u8>, usize) {
    let mut file = small().gguf(GgmlDType::Q8_0);
    file.set("general.alignment", Value::U32(32));
    let written = Written::new(&file);
    let bytes = std::fs::read(&written.path).unwrap();
    let header = gguf_header(&bytes);
    (bytes, header)
}

/// Where the tensor data begins: the sum of the tensors, each padded to 32 bytes, before the end.
fn gguf_header(bytes: &[u8]) -> usize {
    let file = small().gguf(GgmlDType::Q8_0);
    let padded = |size: usize| size.next_multiple_of(32);
    let data: usize = file.tensors.iter().map(|(_, t)| padded(t.storage_size_in_bytes())).sum();
    bytes.len() - data
}

/// The fuzzer's corpus (fuzz/README.md), where a folder for it is named.
#[test]
fn small_files_for_the_fuzzer() {
    let Some(folder) = std::env::var_os("KVGAUGE_GGUF_CORPUS") else { return };
    std::fs::create_dir_all(&folder).unwrap();
    let tied = RandomModel::new(8, Spec { tied: true, ..small().spec });
    let biased = RandomModel::new(9, Spec { attention_bias: true, ..small().spec });
    for (name, model) in [("plain", small()), ("tied", tied), ("biased", biased)] {
        let mut file = model.gguf(GgmlDType::Q4_0);
        file.set_tensor("rope_freqs.weight", &[8], &[2.0; 8]);
        file.write(&Path::new(&folder).join(name));
        file.set("llama.rope.scaling.factor", Value::F32(2.0));
        file.set("split.count", Value::U16(1));
        file.write(&Path::new(&folder).join(format!("{name}-more")));
    }
}

fn every_cut(length: usize, header: usize) -> impl Iterator<Item = usize> {
    let near = |at: usize| at.saturating_sub(9)..(at + 9).min(length);
    let steps = (0..64).map(move |i| i * length / 64);
    steps.chain(near(0)).chain(near(header)).chain(near(length))
}

#[test]
fn a_gguf_file_cut_short_is_an_input_error() {
    let (bytes, header) = gguf_bytes();
    // The last tensor ends at the last byte, so that no cut removes padding only.
    assert!(load(&Written::gguf(&bytes).path).is_ok());
    for cut in every_cut(bytes.len(), header) {
        let written = Written::gguf(&bytes[..cut]);
        let error = load(&written.path).err().unwrap_or_else(|| panic!("cut at {cut} loads"));
        assert_eq!(error.kind(), Kind::Input, "cut at {cut}: {error}");
        assert!(error.to_string().contains("model.gguf"), "cut at {cut}: {error}");
    }
}

/// A count or a length that the file cannot hold must not be believed: 2^62 bytes are more than
/// any machine grants, so believing it aborts this test. (Some files make candle divide by an
/// alignment of 0; the panic is caught, its line stays on stderr.)
#[test]
fn a_damaged_gguf_header_neither_panics_nor_exhausts_memory() {
    let (bytes, header) = gguf_bytes();
    let mut random = Random::new(9);
    let mut refused = 0;
    for at in 0..header {
        let mut damaged = bytes.clone();
        damaged[at] = match random.below(4) {
            0 => 0,
            _ => random.bits() as u8,
        };
        refused += usize::from(load(&Written::gguf(&damaged).path).is_err());
    }
    for _ in 0..300 {
        let at = random.below(header - 8);
        let mut damaged = bytes.clone();
        let large = 1u64 << (31 + random.below(32));
        damaged[at..at + 8].copy_from_slice(&large.to_le_bytes());
        refused += usize::from(load(&Written::gguf(&damaged).path).is_err());
    }
    // Names and unused keys may change without harm, most of the rest not.
    assert!(refused > header / 4, "{refused} of {header}");
}

#[test]
fn absurd_alignments_are_input_errors() {
    for alignment in [Value::U32(0), Value::U8(0), Value::I16(0), Value::U32(u32::MAX)] {
        let mut file = small().gguf(GgmlDType::F32);
        file.set("general.alignment", alignment);
        assert_input_error(load(&Written::new(&file).path), &["model.gguf"]);
    }
}

/// Opens a safetensors file and reads all of the model's tensors.
fn read_all(path: &Path) -> Result<()> {
    let weights = Safetensors::open(&[path.to_path_buf()])?;
    for (name, (shape, _)) in &small().tensors {
        weights.tensor(name, shape)?;
    }
    Ok(())
}

fn safetensors_bytes() -> (Vec<u8>, usize) {
    let folder = tempfile::tempdir().unwrap();
    small().write_folder(folder.path(), Dtype::BF16);
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (bytes, header)
}

#[test]
fn a_safetensors_file_cut_short_is_an_input_error() {
    let (bytes, header) = safetensors_bytes();
    assert!(read_all(&Written::safetensors(&bytes).path).is_ok());
    for cut in every_cut(bytes.len(), header) {
        let written = Written::safetensors(&bytes[..cut]);
        let error = read_all(&written.path).expect_err("cut short");
        assert_eq!(error.kind(), Kind::Input, "cut at {cut}: {error}");
        assert!(error.to_string().contains("model.safetensors"), "cut at {cut}: {error}");
    }
    // Bytes too many are as wrong as bytes too few.
    let longer = [bytes, vec![0; 8]].concat();
    assert_input_error(read_all(&Written::safetensors(&longer).path), &["model.safetensors"]);
}

#[test]
fn a_damaged_safetensors_header_neither_panics_nor_exhausts_memory() {
    let (bytes, header) = safetensors_bytes();
    let mut random = Random::new(10);
    let mut refused = 0;
    for at in 0..header {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 + random.below(255) as u8;
        refused += usize::from(read_all(&Written::safetensors(&damaged).path).is_err());
    }
    for length in [0, 1, 7, 1 << 31, 1 << 44, u64::MAX - 7, u64::MAX] {
        let mut damaged = bytes.clone();
        damaged[..8].copy_from_slice(&length.to_le_bytes());
        assert_input_error(read_all(&Written::safetensors(&damaged).path), &["model.safetensors"]);
    }
    assert!(refused > header * 9 / 10, "{refused} of {header}");
}

#[test]
fn wrong_tensors_of_a_folder_are_named() {
    let name = "model.layers.0.self_attn.k_proj.weight";
    let refused = |model: &RandomModel, mentions: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        model.write_folder(folder.path(), Dtype::F32);
        assert_input_error(load(folder.path()), &["model.safetensors", name]);
        assert_input_error(load(folder.path()), mentions);
    };
    let mut model = small();
    model.tensors.remove(name);
    refused(&model, &["missing"]);
    let mut model = small();
    model.tensors.insert(name.into(), (vec![32, 16], vec![0.5; 512]));
    refused(&model, &["expected shape [16, 32]", "found [32, 16]"]);
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let mut model = small();
        model.tensors.get_mut(name).unwrap().1[77] = bad;
        refused(&model, &["index 77", &bad.to_string()]);
    }
}

/// More positions than a block of queries holds, over caches of odd lengths, in the path that
/// other devices take. Observed: 6e-7 and 7e-3.
#[test]
fn long_sequences_in_pieces_equal_one_pass() {
    let (_, f32_model) = folder(&RandomModel::new(11, Spec::default()));
    let directory = tempfile::tempdir().unwrap();
    RandomModel::new(11, Spec::default()).write_folder(directory.path(), Dtype::F32);
    let open = random_model::open(directory.path()).unwrap();
    let f16_model = open.load(DType::F16, &Device::Cpu).unwrap();
    let tokens = tokens(300);
    let pieces = |model: &Model, cut: usize| {
        let mut cache = model.empty_cache();
        let first = model.forward(&tokens[..cut], &mut cache).unwrap();
        let second = model.forward(&tokens[cut..], &mut cache).unwrap();
        let hidden = Tensor::cat(&[first, second], 0).unwrap();
        vec![model.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()]
    };
    let whole = numbers(&f32_model, &tokens)[..1].to_vec();
    for (model, tolerance) in [(&f32_model, 2e-5), (&f16_model, 2e-2)] {
        for cut in [1, 63, 65, 150, 299] {
            let distance = self::distance(&pieces(model, cut), &whole);
            assert!(distance < tolerance, "{:?} cut at {cut}: {distance}", model.dtype());
        }
    }
}
