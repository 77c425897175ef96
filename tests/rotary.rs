//! Keys that went through several rotary embeddings: the file says which, tensor by tensor, and
//! what comes back is what the codec makes of each with its own.

#[path = "common/architectures.rs"]
mod architectures;
#[path = "common/cli.rs"]
#[allow(dead_code)]
mod cli;
#[path = "common/golden_files.rs"]
mod golden_files;
#[path = "common/random_model.rs"]
mod random_model;
#[path = "common/zoo.rs"]
#[allow(dead_code)]
mod zoo;

use candle_core::{DType, Device};
use golden_files::GoldenFiles;
use half::{bf16, f16};
use kvgauge::codec::{
    Codec, Element, Geometry, RotaryEmbedding, RotaryPairs, RotaryTable, TensorCodec,
};
use kvgauge::container::{
    AxisOrder, Layout, Plan, RopeParameters, Summary, Target, TensorData, TextMap, compress,
    decompress, inspect, read_file, write_file,
};
use kvgauge::error::Result;
use kvgauge::whole_file::Existing;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pack(&self, tensors: &[TensorData], metadata: TextMap, plan: &Plan) -> Result<Summary> {
        write_file(&self.path("source"), tensors, Some(metadata)).unwrap();
        compress(&self.path("source"), Some(target(&self.path("packed"))), plan, &())
    }

    fn unpack(&self) -> PathBuf {
        let restored = self.path("restored");
        decompress(&self.path("packed"), target(&restored), &()).unwrap();
        restored
    }

    /// Runs `kv-compress` in the folder.
    fn run(&self, words: &str) -> cli::Answer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv-compress"));
        command.current_dir(self.0.path()).args(words.split_whitespace());
        cli::run_command(command)
    }

    /// Runs `kvgauge` in the folder.
    fn kvgauge(&self, words: &str) -> cli::Answer {
        let mut command = cli::kvgauge();
        command.current_dir(self.0.path()).args(words.split_whitespace());
        cli::run_command(command)
    }
}

fn target(path: &Path) -> Target<'_> {
    Target { path, existing: Existing::Replace, sync: false }
}

fn plan(codec: &str) -> Plan {
    Plan::all(codec.parse().unwrap())
}

/// `count` frequencies from 1 down, each exact on every machine.
fn frequencies(count: usize, ratio: f32) -> Vec<f32> {
    std::iter::successors(Some(1.0), |frequency| Some(frequency * ratio)).take(count).collect()
}

fn embedding(head_dim: usize, channels: usize, ratio: f32, pairs: RotaryPairs) -> RotaryEmbedding {
    RotaryEmbedding { frequencies: frequencies(channels / 2, ratio), pairs, head_dim }
}

/// Of layers of a model that has one of each: another base, a part of the head, neighbours, none.
fn of_layers(head_dim: usize) -> Vec<RotaryEmbedding> {
    use RotaryPairs::*;
    let whole = embedding(head_dim, head_dim, 0.5, Halves);
    vec![
        whole.clone(),
        embedding(head_dim, head_dim, 0.8125, Halves),
        embedding(head_dim, head_dim / 4 * 2, 0.5, Halves),
        RotaryEmbedding::none(head_dim),
        embedding(head_dim, head_dim, 0.5, Neighbours),
        embedding(head_dim, head_dim / 4 * 2, 0.8125, Neighbours),
        whole,
    ]
}

/// The metadata that says so, as `kvgauge extract` writes it.
fn metadata(layers: &[RotaryEmbedding]) -> TextMap {
    let entry = |(layer, embedding): (usize, &RotaryEmbedding)| {
        let json = serde_json::to_string(embedding).unwrap();
        format!(r#"{{"layers":[{layer}],{}"#, &json[1..])
    };
    let entries: Vec<String> = layers.iter().enumerate().map(entry).collect();
    said(&format!(r#"{{"rotary":[{}]}}"#, entries.join(",")))
}

fn said(json: &str) -> TextMap {
    [("kvgauge.extract".to_string(), json.to_string())].into()
}

/// Keys and values [2, tokens, head_dim] of each layer, keys around offsets of their own.
fn cache(layers: usize, tokens: usize, head_dim: usize, dtype: Dtype) -> Vec<TensorData<'static>> {
    let tensor = |index: usize| {
        let part = if index.is_multiple_of(2) { "key" } else { "value" };
        let values = zoo::numbers(2 * tokens * head_dim, 40 + index as u64);
        let of_channel = zoo::numbers(head_dim, 400 + index as u64);
        let values: Vec<f32> =
            values.iter().enumerate().map(|(i, x)| x + 3.0 * of_channel[i % head_dim]).collect();
        zoo::tensor(&format!("layer.{}.{part}", index / 2), dtype, &[2, tokens, head_dim], &values)
    };
    (0..2 * layers).map(tensor).collect()
}

/// A tensor through a codec in memory.
fn through(codec: TensorCodec, tensor: &TensorData, embedding: &RotaryEmbedding) -> Vec<u8> {
    fn typed<T: Element>(codec: TensorCodec, bytes: &[u8], geometry: &Geometry) -> Vec<u8> {
        let mut values = vec![T::default(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut::<T, u8>(&mut values).copy_from_slice(bytes);
        let (payload, _) = codec.compress_measured(&values, geometry).unwrap();
        payload.decompress(geometry, &mut values);
        bytemuck::cast_slice(&values).to_vec()
    }
    let geometry = Geometry::of_shape(&tensor.shape);
    let table = RotaryTable::of(embedding.clone(), geometry.tokens);
    let geometry = &Geometry { rope: Some(&table), ..geometry };
    match tensor.dtype {
        Dtype::F16 => typed::<f16>(codec, &tensor.data, geometry),
        Dtype::BF16 => typed::<bf16>(codec, &tensor.data, geometry),
        _ => typed::<f32>(codec, &tensor.data, geometry),
    }
}

fn bytes_of(path: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
}

const FIELDS: &str = "k:int3-g8-asym-ch-prerope-ctr-had-s8-sink2/v:int5-g24-lm-had-mse-sink1";

#[test]
fn each_layer_has_its_own_embedding() {
    let folder = Folder::new();
    for (codec, head_dim, dtype) in [
        ("kvgauge4", 16, Dtype::F16),
        ("kvgauge4", 80, Dtype::F32),
        ("kvgauge4", 96, Dtype::BF16),
        ("kvgauge4", 100, Dtype::F16),
        ("int4-g64-prerope", 100, Dtype::F16),
        ("int4-g64-prerope", 20, Dtype::F32),
        (FIELDS, 100, Dtype::BF16),
        (FIELDS, 64, Dtype::F32),
    ] {
        let layers = of_layers(head_dim);
        let tensors = cache(layers.len(), 21, head_dim, dtype);
        let made = folder.pack(&tensors, metadata(&layers), &plan(codec)).unwrap();
        let restored = folder.unpack();
        let of_file: Codec = codec.parse().unwrap();
        for (index, tensor) in tensors.iter().enumerate() {
            let own = if index % 2 == 0 { of_file.key } else { of_file.value };
            let expected = through(own, tensor, &layers[index / 2]);
            assert!(bytes_of(&restored, &tensor.name) == expected, "{codec}: {}", tensor.name);
            // Another layer's would be seen.
            let other = through(own, tensor, &layers[(index / 2 + 1) % 6]);
            assert_eq!(other == expected, index % 2 == 1, "{codec}: {}", tensor.name);
        }
        // One by one, and in the figures.
        let (packed, whole) =
            (read_file(&folder.path("packed")).unwrap(), read_file(&restored).unwrap());
        for name in whole.names() {
            assert_eq!(packed.get_tensor_f32(name).unwrap(), whole.get_tensor_f32(name).unwrap());
        }
        assert_eq!(compress(&folder.path("source"), None, &plan(codec), &()).unwrap(), made);
        // The manifest says each once, in order; the source's metadata comes back as it was.
        let contents = inspect(&folder.path("packed"), true, &()).unwrap();
        // Two centres have blocks of their own where heads are no power of two.
        let version = if codec == "kvgauge4" && head_dim != 16 { 5 } else { 4 };
        assert_eq!(contents.format, format!("kvgauge-kv {version}"));
        assert_eq!(contents.metadata.unwrap(), metadata(&layers));
        assert_eq!(contents.compression.unwrap().rotary, layers[..6]);
        let found: Vec<Option<usize>> = contents.tensors.iter().map(|item| item.rotary).collect();
        let expected: Vec<Option<usize>> =
            (0..14).map(|index| (index % 2 == 0).then_some(index / 2 % 6)).collect();
        assert_eq!(found, expected);
    }
}

/// What the first versions can say is said as they did, whatever the file said it with.
#[test]
fn one_whole_embedding_in_halves_needs_no_new_version() {
    let folder = Folder::new();
    let tensors = cache(3, 9, 16, Dtype::F16);
    let one = embedding(16, 16, 0.5, RotaryPairs::Halves);
    let parts = |packed: &[u8]| {
        let (_, header) = SafeTensors::read_metadata(packed).unwrap();
        let manifest = header.metadata().as_ref().unwrap()["kvgauge"].clone();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        (packed[packed.len() - header.data_len()..].to_vec(), manifest)
    };
    let list = format!("{:?}", one.frequencies);
    let by_layer = metadata(&vec![one.clone(); 3]);
    let former = said(&format!(r#"{{"rope_frequencies":{list}}}"#));
    let rest =
        said(&format!(r#"{{"rotary":[{{"frequencies":{list},"pairs":"halves","head_dim":16}}]}}"#));
    let mut made = Vec::new();
    for metadata in [former, by_layer, rest] {
        folder.pack(&tensors, metadata, &plan("kvgauge4")).unwrap();
        let (data, manifest) = parts(&fs::read(folder.path("packed")).unwrap());
        assert_eq!(manifest["version"], 2);
        assert_eq!(serde_json::to_string(&manifest["rope"]).unwrap(), list.replace(' ', ""));
        assert!(manifest.get("rotary").is_none() && manifest["tensors"][0].get("rotary").is_none());
        made.push(data);
    }
    assert!(made[0] == made[1] && made[0] == made[2]);
    // Of several the file names one alone is needed; and none by codecs that take keys as they are.
    let mut layers = of_layers(16);
    layers.truncate(3);
    let exclude = ["layer.1.*", "layer.2.*"].map(|name| glob::Pattern::new(name).unwrap()).into();
    let plan_of_one = Plan { exclude, ..plan("kvgauge4") };
    folder.pack(&tensors, metadata(&layers), &plan_of_one).unwrap();
    assert_eq!(inspect(&folder.path("packed"), true, &()).unwrap().format, "kvgauge-kv 2");
    for (codec, format) in [("int4-g64", "kvgauge-kv 1"), ("kivi4", "kvgauge-kv 2")] {
        folder.pack(&tensors, said("no JSON"), &plan(codec)).unwrap();
        assert_eq!(inspect(&folder.path("packed"), true, &()).unwrap().format, format);
    }
}

#[test]
fn what_is_not_said_is_an_error() {
    let folder = Folder::new();
    let tensors = cache(2, 9, 16, Dtype::F16);
    let layers = of_layers(16);
    for (metadata, words) in [
        (
            metadata(&layers[..1]),
            "tensor layer.1.key: prerope: expected the rotary embedding of layer 1, found none of this layer",
        ),
        (
            said("{}"),
            "tensor layer.0.key: prerope: expected what the keys were rotated by, found none",
        ),
        (said("{"), "metadata kvgauge.extract: EOF"),
        (
            metadata(&of_layers(32)),
            "tensor layer.0.key: prerope: expected a rotation of 32 values, found head vectors of 16",
        ),
        (
            said(
                r#"{"rotary":[{"frequencies":[1,1,1,1,1,1,1,1,1],"pairs":"halves","head_dim":16}]}"#,
            ),
            "expected at most 8 frequencies, one a pair of 16 channels, found 9",
        ),
        (
            said(r#"{"rotary":[{"frequencies":[65537],"pairs":"halves","head_dim":16}]}"#),
            "expected at most 65536 radians a position",
        ),
        (said(r#"{"rope_frequencies":[1e39,1,1,1,1,1,1,1]}"#), "number out of range"),
        (said(r#"{"rope_frequencies":[-65537,1,1,1,1,1,1,1]}"#), "expected at most 65536"),
    ] {
        let error = folder.pack(&tensors, metadata, &plan("kvgauge4")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("source: ") && text.contains(words), "{text}");
        assert!(!folder.path("packed").exists());
    }
    let named = |name: &str| TensorData { name: name.into(), ..tensors[0].clone() };
    let codec = &plan("int4-g64-prerope");
    let error = folder.pack(&[named("0.key")], metadata(&layers), codec).unwrap_err();
    assert!(error.to_string().contains("expected a layer in the tensor's name"), "{error}");
    assert!(error.hint_text().unwrap().contains("--rope-theta"), "{error}");
    // Of no layer's name where one holds for all others.
    let rest = said(r#"{"rotary":[{"frequencies":[1,0.5],"pairs":"neighbours","head_dim":16}]}"#);
    folder.pack(&[named("0.key")], rest, codec).unwrap();
    let found = inspect(&folder.path("packed"), true, &()).unwrap().compression.unwrap().rotary;
    assert_eq!(found, [embedding(16, 4, 0.5, RotaryPairs::Neighbours)]);
}

/// One for all keys, by its base; heads of several sizes have their own frequencies.
#[test]
fn parameters_of_a_config() {
    let folder = Folder::new();
    let mut tensors = cache(1, 9, 16, Dtype::F32);
    let wide = cache(1, 7, 100, Dtype::F32).swap_remove(0);
    tensors.push(TensorData { name: "layer.1.key".into(), ..wide });
    let codec: Codec = "int4-g64-prerope".parse().unwrap();
    let pairs = RotaryPairs::Neighbours;
    let whole = RopeParameters::of_theta(1e4);
    for rope in [
        whole,
        RopeParameters { pairs, ..whole },
        RopeParameters { channels: Some(12), ..whole },
        RopeParameters { theta: 5e5, channels: Some(4), pairs },
        RopeParameters { channels: Some(0), ..whole },
    ] {
        let plan = Plan { rope: Some(rope), ..Plan::all(codec.into()) };
        // Before what the file says.
        folder.pack(&tensors, metadata(&of_layers(16)), &plan).unwrap();
        let restored = folder.unpack();
        for (name, index, head_dim) in [("layer.0.key", 0, 16), ("layer.1.key", 2, 100)] {
            let frequencies =
                RotaryTable::frequencies_of(rope.theta, rope.channels.unwrap_or(head_dim));
            let own = RotaryEmbedding { frequencies, pairs: rope.pairs, head_dim };
            let expected = through(codec.key, &tensors[index], &own);
            assert!(bytes_of(&restored, name) == expected, "{rope:?}: {name}");
        }
        assert_eq!(inspect(&folder.path("packed"), true, &()).unwrap().format, "kvgauge-kv 4");
    }
    // By flags.
    for (words, rotary) in [
        ("", "100 of 100 channels in halves, 1e0 to "),
        (" -rope-pairs neighbours", "100 of 100 channels in neighbours, 1e0 to "),
        (" -rope-channels 12", "12 of 100 channels in halves, 1e0 to "),
        (" --rope-channels 0 --rope-pairs halves", "none of 100 channels rotates"),
    ] {
        let arguments =
            "-input source -output flags -codec int4-g64-prerope --force -rope-theta 1e4";
        folder.run(&format!("{arguments}{words}")).succeeds();
        let table = folder.run("inspect flags").succeeds().stdout;
        assert!(table.contains(&format!("rotary embedding 1: {rotary}")), "{table}");
        let row = table.lines().find(|line| line.starts_with("layer.1.key")).unwrap();
        assert!(row.contains("int4-g64-prerope · rotary 1"), "{table}");
        let row = table.lines().find(|line| line.starts_with("layer.0.value")).unwrap();
        assert!(!row.contains("rotary"), "{table}");
        let json = folder.run("inspect flags --json").succeeds().json();
        assert_eq!(json["compression"]["rotary"][1]["head_dim"], 100);
        assert_eq!(
            (&json["tensors"][2]["rotary"], &json["tensors"][1]["rotary"]),
            (&1.into(), &Value::Null)
        );
    }
    for (words, expected) in [
        ("--rope-theta 1e4 --rope-channels 18", "tensor layer.0.key: prerope: expected at most 16"),
        ("--rope-theta 1e4 --rope-channels 3", "--rope-channels: expected an even number, found 3"),
        ("--rope-channels 4", "--rope-channels: expected --rope-theta too"),
        ("--rope-pairs halves", "--rope-pairs: expected --rope-theta too"),
        ("--rope-theta 1e4 --rope-pairs neox", "--rope-pairs: expected halves or neighbours"),
        ("--decompress --rope-channels 4", "cannot be used with"),
    ] {
        let words = format!("-input source -output no {words} -codec int4-g64-prerope");
        folder
            .run(&words.replace(
                "--decompress --rope-channels 4 -codec int4-g64-prerope",
                "--decompress --rope-channels 4",
            ))
            .is_refused(&[expected]);
    }
}

/// Golden files of version 4. Every later version must read them.
#[test]
fn golden_files() {
    let folder = Folder::new();
    let mask = TensorData {
        name: "mask".into(),
        dtype: Dtype::BOOL,
        shape: vec![3],
        data: vec![1, 0, 1].into(),
    };
    let with_mask = |mut tensors: Vec<TensorData<'static>>| {
        tensors.push(mask.clone());
        tensors
    };
    let vllm = zoo::tensor("kv_cache", Dtype::F16, &[2, 9, 3, 16], &zoo::numbers(864, 11));
    let layout = Layout { order: AxisOrder::TokensHeadsDim, kv_axis: Some(0), head_dim: None };
    let neighbours = r#"{"rotary":[{"frequencies":[1,0.25],"pairs":"neighbours","head_dim":16}]}"#;
    // Heads of several sizes beside each other.
    let mut sizes = cache(2, 5, 100, Dtype::F32);
    for (tensor, small) in sizes.iter_mut().zip(cache(1, 12, 8, Dtype::F32)) {
        *tensor = small;
    }
    let of_sizes = [of_layers(8).swap_remove(0), of_layers(100).swap_remove(5)];
    let mut golden = GoldenFiles::default();
    for (name, tensors, metadata, plan) in [
        (
            "v4-shaped-kvgauge4",
            with_mask(cache(7, 7, 16, Dtype::F16)),
            metadata(&of_layers(16)),
            plan("kvgauge4"),
        ),
        (
            "v4-fields",
            with_mask(cache(6, 12, 20, Dtype::BF16)),
            metadata(&of_layers(20)),
            plan(FIELDS),
        ),
        ("v4-sizes", with_mask(sizes), metadata(&of_sizes), plan("int7-g16-mid-prerope-mse")),
        (
            "v4-layout",
            with_mask(vec![vllm]),
            said(neighbours),
            Plan { layout, ..plan("k:int4-g64-ch-prerope/v:int4-g64") },
        ),
    ] {
        folder.pack(&tensors, metadata, &plan).unwrap();
        assert_eq!(inspect(&folder.path("packed"), true, &()).unwrap().format, "kvgauge-kv 4");
        golden.is_written(name, &folder.path("packed"));
    }
    // Of a writer that shaped errors of heads of 64 and 128 only.
    golden.is_read("v4-kvgauge4");
    golden.were_there();
}

/// A model's cache by way of `kvgauge extract` and `kv-compress`: value for value what the codec
/// makes of each layer with the model's own embedding, and the figures that `kvgauge validate` has.
#[test]
fn what_extract_writes_comes_back_as_the_evaluation_has_it() {
    for (model, head_dim, embeddings) in [
        // Sliding layers of one base, full ones of another and scaled.
        ("gemma3_layers", 16, 2),
        // Neighbours, in half of the head.
        ("glm4", 16, 1),
        // Neighbours.
        ("cohere", 8, 1),
        // Three quarters of the head.
        ("phi3_partial", 16, 1),
        // Layers without RoPE.
        ("smollm3", 8, 2),
    ] {
        let folder = Folder::new();
        let golden = architectures::Golden::read(model);
        fs::create_dir(folder.path("model")).unwrap();
        golden.write(&folder.path("model"), &golden.configs[0].1, &Vec::new(), 1);
        fs::write(folder.path("text"), "the cat sat on a mat and saw a rat go by ".repeat(3))
            .unwrap();
        let subject = "--model model --text text --context 40 --bos never";
        folder
            .kvgauge(&format!("extract {subject} --tokens 20 --dtype f32 --output cache"))
            .succeeds();
        let loaded = random_model::open(&folder.path("model")).unwrap();
        let layers = loaded.load(DType::F32, &Device::Cpu).unwrap().rotary_embeddings();
        let source = read_file(&folder.path("cache")).unwrap();
        let origin: Value =
            serde_json::from_str(&source.metadata().unwrap()["kvgauge.extract"]).unwrap();
        let entries = origin["rotary"].as_array().unwrap();
        assert_eq!(entries.len(), embeddings, "{model}: {origin}");
        for codec in ["kvgauge4", "int4-g64-prerope"] {
            let what = format!("{model}, {codec}");
            folder.run(&format!("-input cache -output packed -codec {codec} --force")).succeeds();
            folder.run("-decompress -input packed -output restored --force").succeeds();
            let contents = inspect(&folder.path("packed"), true, &()).unwrap();
            assert_eq!(contents.format, "kvgauge-kv 4", "{what}");
            let of_file: Codec = codec.parse().unwrap();
            for (layer, own) in layers.iter().enumerate() {
                assert_eq!(own.head_dim, head_dim, "{what}");
                for (part, codec) in [("key", of_file.key), ("value", of_file.value)] {
                    let name = format!("layer.{layer}.{part}");
                    let (dtype, shape) = source.info(&name).unwrap();
                    let data = bytes_of(&folder.path("cache"), &name);
                    let shape = shape.to_vec();
                    let tensor = TensorData { name: name.clone(), dtype, shape, data: data.into() };
                    let expected = through(codec, &tensor, own);
                    assert!(
                        bytes_of(&folder.path("restored"), &name) == expected,
                        "{what}: {name}"
                    );
                }
            }
            let validated = folder
                .kvgauge(&format!(
                    "validate {subject} --windows 1 --protocol prefix --codec {codec} --json"
                ))
                .succeeds()
                .json();
            let metrics = folder
                .run(&format!("-input cache -metrics-only -per-tensor -codec {codec}"))
                .succeeds()
                .json();
            for layer in validated["codecs"][0]["layers"].as_array().unwrap() {
                for part in ["key", "value"] {
                    let name = format!("layer.{}.{part}", layer["layer"]);
                    let mut tensors = metrics["tensors"].as_array().unwrap().iter();
                    let tensor = tensors.find(|tensor| tensor["name"] == name.as_str()).unwrap();
                    for (ours, theirs) in
                        [("rmse", "rmse"), ("snr_db", "snr_db"), ("cosine_similarity", "cosine")]
                    {
                        let (a, b) =
                            (tensor[ours].as_f64().unwrap(), layer[part][theirs].as_f64().unwrap());
                        assert!((a / b - 1.0).abs() < 1e-9, "{what}: {name} {ours}: {a} {b}");
                    }
                }
            }
        }
    }
}
