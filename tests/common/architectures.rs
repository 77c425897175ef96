//! Golden models of every architecture: `tests/data/make_architectures.py` writes them and says
//! what they hold. Their weights are computed here, from their names.

// Every test crate that includes this file uses its own part of it.
#![allow(dead_code)]

use candle_core::{Device, Tensor};
use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A tensor on disk, without its values.
#[derive(Deserialize, Clone)]
pub struct Weight(pub String, pub Vec<usize>, pub f64, pub f64);

/// Old and new prefixes of tensors' names.
pub type Renaming = Vec<(String, String)>;

#[derive(Deserialize)]
pub struct Golden {
    #[serde(skip)]
    pub name: String,
    pub tokens: Vec<u32>,
    pub tensors: Vec<Weight>,
    /// Further spellings of the tensors' names.
    pub renamed: Vec<Renaming>,
    /// By whom, and `config.json`.
    pub configs: Vec<(String, Json)>,
    /// `logits` [tokens, vocab]; `keys.N`, `values.N` [kv_heads, tokens, head_dim].
    #[serde(skip)]
    pub expected: HashMap<String, Tensor>,
}

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

/// All of them, by name.
pub fn all() -> Vec<Golden> {
    let entries = std::fs::read_dir(data("architectures")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".safetensors").map(str::to_string))
        .collect();
    names.sort();
    assert!(names.len() > 50, "{} golden files", names.len());
    names.iter().map(|name| Golden::read(name)).collect()
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let path = data("architectures").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = &header.metadata().as_ref().unwrap()["golden"];
        let mut golden: Self = serde_json::from_str(text).unwrap();
        golden.name = name.into();
        golden.expected = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        golden
    }

    pub fn architecture(&self) -> &str {
        self.configs[0].1["architectures"][0].as_str().unwrap()
    }

    pub fn layers(&self) -> usize {
        self.expected.keys().filter(|name| name.starts_with("keys.")).count()
    }

    fn vocab(&self) -> usize {
        self.expected["logits"].dims()[1]
    }

    /// A Hugging Face folder in an existing one. `shards`: into how many files the weights go.
    pub fn write(&self, folder: &Path, config: &Json, renaming: &Renaming, shards: usize) {
        self.write_with(folder, config, renaming, shards, Weight::values);
    }

    /// With other values than the golden ones.
    pub fn write_with(
        &self,
        folder: &Path,
        config: &Json,
        renaming: &Renaming,
        shards: usize,
        values: impl Fn(&Weight) -> Vec<f32>,
    ) {
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let tokenizer = super::random_model::tokenizer(self.vocab()).to_string();
        std::fs::write(folder.join("tokenizer.json"), tokenizer).unwrap();
        let named: Vec<(String, &Weight)> = self
            .tensors
            .iter()
            .map(|weight| {
                let rename = |(old, new): &(String, String)| {
                    weight.0.strip_prefix(old.as_str()).map(|rest| format!("{new}{rest}"))
                };
                (renaming.iter().find_map(rename).unwrap_or(weight.0.clone()), weight)
            })
            .collect();
        let mut map = serde_json::Map::new();
        for shard in 0..shards {
            let file = match shards {
                1 => "model.safetensors".to_string(),
                _ => format!("model-{:05}-of-{shards:05}.safetensors", shard + 1),
            };
            let part: Vec<_> = named
                .iter()
                .skip(shard)
                .step_by(shards)
                .map(|(name, weight)| (name.clone(), weight.1.clone(), bytes(&values(weight))))
                .collect();
            map.extend(part.iter().map(|(name, ..)| (name.clone(), json!(file))));
            let views = part.iter().map(|(name, shape, bytes)| {
                (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
            });
            safetensors::serialize_to_file(views, None, &folder.join(file)).unwrap();
        }
        if shards > 1 {
            let index = json!({"metadata": {}, "weight_map": map}).to_string();
            std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        }
    }
}

impl Weight {
    /// centre + spread · u: the recipe's `weight`.
    pub fn values(&self) -> Vec<f32> {
        let Self(name, shape, centre, spread) = self;
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let value = |index: usize| {
            let z = hash.wrapping_add(index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let z = z ^ (z >> 31);
            let u = (z >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            *centre as f32 + *spread as f32 * u
        };
        (0..shape.iter().product()).map(value).collect()
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
