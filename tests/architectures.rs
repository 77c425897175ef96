//! Every architecture against PyTorch transformers: logits of all positions, keys and values of
//! all layers, on tiny random models whose options are not their defaults.
//! `tests/data/make_architectures.py` makes them and says what they hold.

#[path = "common/architectures.rs"]
mod architectures;
#[path = "common/random_model.rs"]
mod random_model;

use architectures::{Golden, Renaming};
use candle_core::{DType, Device, Tensor};
use kvgauge::Result;
use kvgauge::error::Kind;
use kvgauge::model::{KvCache, Model};
use serde_json::{Value as Json, json};

/// Of the largest value of each tensor. Two f32 programs that sum in different orders.
const TOLERANCE: f32 = 1e-5;

fn load(golden: &Golden, config: &Json, renaming: &Renaming, shards: usize) -> Result<Model> {
    let folder = tempfile::tempdir().unwrap();
    golden.write(folder.path(), config, renaming, shards);
    let model = random_model::open(folder.path())?.load(DType::F32, &Device::Cpu)?;
    Ok(model.for_context(golden.tokens.len()))
}

/// Runs the tokens in pieces that end at `ends`, taking the cache out and putting it back between.
fn run(model: &Model, tokens: &[u32], ends: &[usize]) -> Result<(Tensor, KvCache)> {
    let mut cache = model.empty_cache();
    let mut logits = Vec::new();
    let mut start = 0;
    for end in ends.iter().copied().chain([tokens.len()]) {
        if start > 0 {
            cache = KvCache::from_layers(cache.layers().cloned().collect())?;
        }
        let hidden = model.forward(&tokens[start..end], &mut cache)?;
        logits.push(model.logits(&hidden)?);
        start = end;
    }
    Ok((Tensor::cat(&logits, 0)?, cache))
}

/// The tensor that is farthest from transformers', and how far, of its largest value.
fn farthest(golden: &Golden, logits: Tensor, cache: &KvCache) -> (f32, String) {
    assert_eq!(cache.layers().count(), golden.layers(), "{}", golden.name);
    let layers = cache.layers().enumerate().flat_map(|(layer, kv)| {
        [(format!("keys.{layer}"), kv.key.clone()), (format!("values.{layer}"), kv.value.clone())]
    });
    let all = layers.chain([("logits".to_string(), logits)]);
    let distances = all.map(|(name, found)| {
        let expected = &golden.expected[&name];
        let distance = if found.dims() == expected.dims() {
            relative(&found, expected)
        } else {
            f32::INFINITY
        };
        (distance, name)
    });
    // A NaN is farthest.
    distances.fold((0f32, String::new()), |most, one| if one.0 <= most.0 { most } else { one })
}

fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, |m, x| if m.is_nan() || x <= m { m } else { x }) / largest
}

/// What is wrong with one model, a line each; and its largest distance.
fn compare(golden: &Golden, failures: &mut Vec<String>) -> f32 {
    let count = golden.tokens.len();
    let mut most = 0f32;
    let plain = Renaming::new();
    let spellings: Vec<&Renaming> = [&plain].into_iter().chain(&golden.renamed).collect();
    for (index, (by, config)) in golden.configs.iter().enumerate() {
        for (spelling, renaming) in spellings.iter().enumerate() {
            let name = format!("{}, {by}'s config, names {spelling}", golden.name);
            // In one file and in two.
            let model = match load(golden, config, renaming, 1 + index % 2) {
                Ok(model) => model,
                Err(error) => {
                    failures.push(format!("{name}: {error}"));
                    continue;
                }
            };
            let singles: Vec<usize> = (1..count).collect();
            let splits = singles.chunks(1);
            for ends in [&[][..], &[1, 5, 6, 11], &singles].into_iter().chain(splits) {
                let (distance, tensor) = match run(&model, &golden.tokens, ends) {
                    Ok((logits, cache)) => farthest(golden, logits, &cache),
                    Err(error) => (f32::INFINITY, error.to_string()),
                };
                if distance.is_nan() || distance > TOLERANCE {
                    let ends = format!("pieces that end at {ends:?}");
                    failures.push(format!("{name}, {ends}: {tensor}: {distance:e}"));
                    break;
                }
                most = most.max(distance);
            }
        }
    }
    most
}

#[test]
fn logits_and_cache_are_those_of_transformers() {
    let mut failures = Vec::new();
    for golden in architectures::all() {
        let most = compare(&golden, &mut failures);
        println!("{}: at most {most:.1e}", golden.name);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Else a mistake of both would look like agreement. The values are numpy's.
#[test]
fn weights_are_the_recipes() {
    let golden = Golden::read("llama");
    let values = |name: &str| {
        let weight = golden.tensors.iter().find(|weight| weight.0 == name).unwrap();
        weight.values()
    };
    let down = values("model.layers.1.mlp.down_proj.weight");
    assert_eq!([down[0], down[1], down[2047]], [-0.07499471, -0.04734017, 0.2512828]);
    let norm = values("model.norm.weight");
    assert_eq!([norm[0], norm[1], norm[31]], [0.5486878, 0.82130164, 1.0596461]);
}

/// What is not understood is refused, by whichever architecture.
#[test]
fn what_nobody_reads_is_refused() {
    for name in ["llama", "mistral", "qwen3", "gemma3", "phi3", "glm4", "cohere", "qwen2_moe"] {
        let golden = Golden::read(name);
        let refused = |golden: &Golden, config: &Json, word: &str| {
            let error = load(golden, config, &Renaming::new(), 1).err();
            let error = error.unwrap_or_else(|| panic!("{name} with {word} loads"));
            assert!(error.to_string().contains(word), "{name} with {word}: {error}");
            assert!(matches!(error.kind(), Kind::Input), "{error}");
        };
        for (by, config) in golden.configs.iter().filter(|(by, _)| !by.contains("minimal")) {
            let mut config = config.clone();
            let rope =
                if by.starts_with("transformers 5") { "rope_parameters" } else { "rope_scaling" };
            let dict = &mut config[rope];
            let dict = if dict.get("full_attention").is_some() {
                &mut dict["full_attention"]
            } else {
                dict
            };
            if dict.is_null() {
                *dict = json!({"rope_type": "default"});
            }
            dict["unheard_of"] = json!(2.0);
            refused(&golden, &config, "unheard_of");
        }
        for (key, value) in [("kv_lora_rank", json!(8)), ("attention_sinks", json!(true))] {
            let mut config = golden.configs[0].1.clone();
            config[key] = value;
            refused(&golden, &config, key);
        }
        let mut more = Golden::read(name);
        let extra = "model.layers.1.self_attn.unheard_of.weight";
        let shape = vec![4, 32];
        more.tensors.push(architectures::Weight(extra.into(), shape, 0.0, 1.0));
        refused(&more, &golden.configs[0].1, extra);
    }
}
