//! Every type of weights in GGUF files against gguf-py's values, bit for bit.

#[path = "common/random_model.rs"]
mod random_model;
#[path = "common/raw_gguf.rs"]
mod raw_gguf;

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use kvgauge::error::Kind;
use kvgauge::model::{Gguf, WeightType, Weights};
use random_model::{Random, RandomModel, Spec};
use raw_gguf::RawTensor;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::Path;

/// `tests/data/make_gguf_types.py` says what is in it.
const GOLDEN: &str = include_str!("data/gguf_types.json");

/// Of the larger blocks.
const WIDTH: usize = 256;

struct Golden {
    name: String,
    kind: WeightType,
    number: u32,
    blocks: Vec<u8>,
    first: Vec<u32>,
    sha256: String,
}

impl Golden {
    fn all() -> Vec<Self> {
        let golden: Json = serde_json::from_str(GOLDEN).unwrap();
        let values = golden["values"].as_u64().unwrap() as usize;
        let types = golden["types"].as_object().unwrap();
        types.iter().map(|(name, entry)| Self::new(name, entry, values)).collect()
    }

    fn new(name: &str, entry: &Json, values: usize) -> Self {
        let integer = |value: &Json| value.as_u64().unwrap() as usize;
        let number = integer(&entry["number"]) as u32;
        let (block, bytes) = (integer(&entry["block"]), integer(&entry["bytes"]));
        let kind = WeightType::of(number).unwrap();
        assert_eq!((kind.name, kind.block, kind.bytes), (name, block as u64, bytes as u64));
        let mut random = Random::new(number.into());
        let length = values / block * bytes;
        let bits = (0..length.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes());
        let mut blocks: Vec<u8> = bits.take(length).collect();
        for (index, block) in blocks.chunks_mut(bytes).enumerate() {
            for scale in entry["scales"].as_array().unwrap() {
                let (at, length) = (integer(&scale[0]), integer(&scale[1]));
                block[at + length - 1] &= 0xbf;
                if index % 16 == 3 {
                    block[at..at + length].fill(0);
                }
            }
            if name == "F64" {
                block[7] = block[7] & 0xbf | 0x38;
            }
        }
        let bits = |text: &Json| u32::from_str_radix(text.as_str().unwrap(), 16).unwrap();
        Self {
            name: name.into(),
            kind,
            number,
            blocks,
            first: entry["first"].as_array().unwrap().iter().map(bits).collect(),
            sha256: entry["sha256"].as_str().unwrap().into(),
        }
    }

    fn values(&self) -> usize {
        self.blocks.len() / self.kind.bytes as usize * self.kind.block as usize
    }

    #[track_caller]
    fn assert_equal(&self, values: &[f32]) {
        let bits: Vec<u32> = values.iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits[..self.first.len()], self.first, "{}", self.name);
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, self.sha256, "{}: not among the first values", self.name);
    }
}

/// A file with one tensor a layer and no other: those a model asks for are not all needed to open it.
fn write(path: &Path, tensors: Vec<(u32, Vec<usize>, Vec<u8>)>) {
    let spec = Spec { hidden: WIDTH, layers: tensors.len(), ..Spec::default() };
    let file = RandomModel::new(0, Spec { layers: 0, ..spec.clone() }).gguf(GgmlDType::F32);
    let mut metadata = file.metadata;
    metadata.retain(|(key, _)| key != "llama.block_count");
    metadata.push(("llama.block_count".into(), Value::U32(spec.layers as u32)));
    let tensors: Vec<RawTensor> = (0..)
        .zip(tensors)
        .map(|(layer, (kind, shape, bytes))| RawTensor {
            name: format!("blk.{layer}.ffn_up.weight"),
            shape,
            kind,
            bytes,
        })
        .collect();
    raw_gguf::write(path, &metadata, &tensors);
}

fn up_proj(layer: usize) -> String {
    format!("model.layers.{layer}.mlp.up_proj.weight")
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_type_has_gguf_pys_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("types.gguf");
    let golden = Golden::all();
    // All that have a number and are read.
    let numbers = (0..1000).filter(|n| WeightType::of(*n).is_some_and(|kind| kind.is_read()));
    assert_eq!(golden.len(), numbers.count());
    let rows = |golden: &Golden| golden.values() / WIDTH;
    write(
        &path,
        golden.iter().map(|g| (g.number, vec![rows(g), WIDTH], g.blocks.clone())).collect(),
    );
    let gguf = Gguf::open(&path).unwrap();
    for (layer, golden) in golden.iter().enumerate() {
        let shape = [rows(golden), WIDTH];
        golden.assert_equal(&flat(&gguf.tensor(&up_proj(layer), &shape).unwrap()));
    }
}

/// Block by block as in one pass, for whoever dequantises as he goes.
#[test]
fn blocks_are_independent() {
    for golden in Golden::all() {
        let mut values = vec![f32::NAN; golden.values()];
        let (bytes, block) = (golden.kind.bytes as usize, golden.kind.block as usize);
        for (blocks, values) in golden.blocks.chunks(bytes * 3).zip(values.chunks_mut(block * 3)) {
            golden.kind.dequantise(blocks, values).unwrap();
        }
        golden.assert_equal(&values);
    }
}

/// candle's dequantisers round as gguf-py's do.
#[test]
fn candle_has_the_same_values() {
    use GgmlDType::*;
    let types = [
        (F32, "F32"),
        (F16, "F16"),
        (BF16, "BF16"),
        (Q4_0, "Q4_0"),
        (Q4_1, "Q4_1"),
        (Q5_0, "Q5_0"),
        (Q5_1, "Q5_1"),
        (Q8_0, "Q8_0"),
        (Q2K, "Q2_K"),
        (Q3K, "Q3_K"),
        (Q4K, "Q4_K"),
        (Q5K, "Q5_K"),
        (Q6K, "Q6_K"),
    ];
    for (kind, name) in types {
        let golden = Golden::all().into_iter().find(|golden| golden.name == name).unwrap();
        let shape = vec![golden.values() / WIDTH, WIDTH];
        let tensor: QTensor = candle_core::quantized::ggml_file::qtensor_from_ggml(
            kind,
            &golden.blocks,
            shape,
            &Device::Cpu,
        )
        .unwrap();
        golden.assert_equal(&flat(&tensor.dequantize(&Device::Cpu).unwrap()));
    }
}

/// A block whose scale is infinite or no number, in every type that can have one.
#[test]
fn scales_that_are_no_numbers_name_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let golden: Json = serde_json::from_str(GOLDEN).unwrap();
    let mut tried = 0;
    for (name, entry) in golden["types"].as_object().unwrap() {
        let kind = WeightType::of(entry["number"].as_u64().unwrap() as u32).unwrap();
        let Some(scale) = entry["scales"][0].as_array() else { continue };
        let (at, length) = (scale[0].as_u64().unwrap(), scale[1].as_u64().unwrap());
        let mut blocks = vec![0x11; 2 * WIDTH / kind.block as usize * kind.bytes as usize];
        let last = blocks.len() - kind.bytes as usize;
        let scale = &mut blocks[last..][at as usize..(at + length) as usize];
        scale.fill(0xff);
        write(&path, vec![(entry["number"].as_u64().unwrap() as u32, vec![2, WIDTH], blocks)]);
        let error = Gguf::open(&path).unwrap().tensor(&up_proj(0), &[2, WIDTH]);
        // The NaN of MXFP4 is 2^128 in llama.cpp, and finite times the code 1.
        if name == "MXFP4" {
            assert!(error.is_ok());
            continue;
        }
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        let text = error.to_string();
        for expected in
            ["model.gguf: tensor blk.0.ffn_up.weight: index", "expected a finite number"]
        {
            assert!(text.contains(expected), "{name}: {text}");
        }
        tried += 1;
    }
    assert_eq!(tried, 28);
}

/// NVFP4's second scale, of the tensor.
#[test]
fn a_second_scale_multiplies_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let golden = Golden::all().into_iter().find(|golden| golden.name == "NVFP4").unwrap();
    let rows = golden.values() / WIDTH;
    let metadata = RandomModel::new(0, Spec { hidden: WIDTH, layers: 1, ..Spec::default() });
    let metadata = metadata.gguf(GgmlDType::F32).metadata;
    let read = |scales: &[f32]| {
        let f32s = |name: &str, values: &[f32]| RawTensor {
            name: format!("blk.0.ffn_up.{name}"),
            shape: vec![values.len()],
            kind: 0,
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let weight = RawTensor {
            name: "blk.0.ffn_up.weight".into(),
            shape: vec![rows, WIDTH],
            kind: golden.number,
            bytes: golden.blocks.clone(),
        };
        let mut tensors = vec![weight];
        if !scales.is_empty() {
            tensors.extend([f32s("scale", scales), f32s("input_scale", &[3.0])]);
        }
        raw_gguf::write(&path, &metadata, &tensors);
        let gguf = Gguf::open(&path)?;
        // Nor are they tensors that the model does not use.
        assert!(gguf.unread(&[up_proj(0)].into()).is_empty());
        assert_eq!(gguf.unread(&[].into()).len(), tensors.len());
        gguf.tensor(&up_proj(0), &[rows, WIDTH]).map(|tensor| flat(&tensor))
    };
    let plain = read(&[]).unwrap();
    golden.assert_equal(&plain);
    let expected: Vec<f32> = plain.iter().map(|x| x * 0.37).collect();
    assert_eq!(read(&[0.37]).unwrap(), expected);
    for (scales, mention) in [(&[1.0, 2.0][..], "found 2"), (&[f32::NAN], "finite")] {
        let error = read(scales).unwrap_err().to_string();
        assert!(error.contains("tensor blk.0.ffn_up.scale") && error.contains(mention), "{error}");
    }
}
