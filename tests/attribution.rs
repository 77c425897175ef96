//! `--attribute`: each part of the cache compressed alone, against the same done by hand with the
//! model and the codec; and what users get of it.

#[allow(dead_code)]
#[path = "common/cli.rs"]
mod cli;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use cli::{good_with, run, validate};
use folder::names_in;
use kvgauge::codec::{Codec, Geometry, TensorCodec};
use kvgauge::corpus::Window;
use kvgauge::eval::attribution::CacheParts;
use kvgauge::eval::scores::{Logits, TokenScore};
use kvgauge::eval::{Arm, Evaluation, Evaluator, Protocol, Scope, Side};
use kvgauge::model::{KvCache, LayerKv, Model, RandomWeights};
use serde_json::Value;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

fn model(layers: usize, heads: usize, kv_heads: usize) -> Model {
    let config = shapes::llama(32 * heads, 64, layers, heads, kv_heads);
    Model::load(&config, &RandomWeights, DType::F32, &Device::Cpu).unwrap()
}

fn window(seed: u32, tokens: u32) -> Window {
    Window::halves((0..tokens).map(|i| (seed + i) * 7919 % 32_000).collect())
}

fn evaluate(model: &Model, protocol: Protocol, windows: &[Window], arms: &[Arm]) -> Evaluation {
    let evaluator = Evaluator::new(model, protocol, windows[0].tokens().len(), 0);
    evaluator.evaluate(windows, arms, &mut ()).unwrap()
}

/// A tensor [kv_heads, tokens, head_dim] through the codec, all of it or the rows of one head.
fn through(codec: &TensorCodec, tensor: &Tensor, head: Option<usize>) -> Tensor {
    let (_, tokens, head_dim) = tensor.dims3().unwrap();
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let geometry = Geometry::rows(tokens, head_dim);
    let (payload, _) = codec.compress_measured(&values, &geometry).unwrap();
    let mut decoded = vec![0f32; values.len()];
    payload.decompress(&geometry, &mut decoded);
    if let Some(head) = head {
        let own = head * tokens * head_dim..(head + 1) * tokens * head_dim;
        let all = std::mem::replace(&mut decoded, values);
        decoded[own.clone()].copy_from_slice(&all[own]);
    }
    Tensor::from_vec(decoded, tensor.shape(), tensor.device()).unwrap()
}

/// One layer's cache with only `scope` compressed.
fn layer_through(codec: &Codec, scope: Scope, layer: usize, kv: &LayerKv) -> LayerKv {
    let mut kv = kv.clone();
    if scope.layer.is_none_or(|own| own == layer) {
        if scope.side != Some(Side::Value) {
            kv.key = through(&codec.key, &kv.key, scope.head);
        }
        if scope.side != Some(Side::Key) {
            kv.value = through(&codec.value, &kv.value, scope.head);
        }
    }
    kv
}

/// By the definition of each protocol; of decode, that with a residual of 0.
fn by_hand(
    model: &Model,
    protocol: Protocol,
    window: &[u32],
    codec: &Codec,
    scope: Scope,
) -> Vec<TokenScore> {
    let prefix = window.len() / 2;
    let targets = &window[prefix + 1..];
    let rows = |scope: Option<Scope>| -> Logits {
        let kept = |layer: usize, kv: &LayerKv| match scope {
            Some(scope) => layer_through(codec, scope, layer, kv),
            None => kv.clone(),
        };
        let mut cache = model.empty_cache();
        let hidden = match protocol {
            Protocol::Prefix { .. } => {
                model.forward(&window[..prefix], &mut cache).unwrap();
                let layers = cache.layers().enumerate().map(|(i, kv)| kept(i, kv)).collect();
                let mut cache = KvCache::from_layers(layers).unwrap();
                model.forward(&window[prefix..window.len() - 1], &mut cache).unwrap()
            }
            Protocol::Decode { .. } => {
                let tokens = &window[..window.len() - 1];
                let mut write = |_: usize, layer: usize, kv: LayerKv| Ok(kept(layer, &kv));
                let all = model.forward_attending(&[tokens], 0, &mut write).unwrap();
                all[0].narrow(0, prefix, targets.len()).unwrap()
            }
        };
        Logits::new(&model.logits(&hidden).unwrap()).unwrap()
    };
    let base = rows(None);
    let base_rows = base.base_rows(targets).unwrap();
    rows(Some(scope)).score(&base, &base_rows, targets).unwrap()
}

/// To the bit, under both protocols, keys and values by codecs of their own.
#[test]
fn a_part_alone_is_what_it_is_by_hand() {
    let model = model(3, 4, 2);
    let windows = [window(1, 40), window(500, 40)];
    let codec: Codec = "k:int4-g32/v:int4-g8".parse().unwrap();
    let parts = CacheParts::of(3, 2);
    let arms = parts.arms(&codec.into());
    for protocol in [Protocol::PREFIX, Protocol::Decode { residual: 0, chunk: 32 }] {
        let evaluation = evaluate(&model, protocol, &windows, &arms);
        assert_eq!(evaluation.codecs.len(), parts.count());
        for (arm, outcome) in arms.iter().zip(&evaluation.codecs) {
            for (window, found) in windows.iter().zip(&outcome.windows) {
                let expected = by_hand(&model, protocol, window.tokens(), &codec, arm.scope);
                assert!(expected.iter().any(|score| score.kld > 0.0), "{:?}", arm.scope);
                assert!(found.scores == expected, "{protocol:?} {:?}", arm.scope);
            }
        }
    }
}

/// With one layer and one head, the layer's keys are all keys, and the head is the whole cache.
#[test]
fn the_only_part_is_the_whole() {
    let model = model(1, 1, 1);
    let windows = [window(3, 24)];
    let codec: Codec = "int4-g8".parse().unwrap();
    let parts = CacheParts::of(1, 1);
    let arms = [vec![Arm::of(codec.into())], parts.arms(&codec.into())].concat();
    for protocol in [Protocol::PREFIX, Protocol::Decode { residual: 4, chunk: 4 }] {
        let evaluation = evaluate(&model, protocol, &windows, &arms);
        let mut next = 1..;
        let scores = |index: usize| &evaluation.codecs[index].windows[0].scores;
        let of = parts.map(|_| scores(next.next().unwrap()));
        assert_eq!((of.layers[0].key, of.layers[0].value), (of.key, of.value));
        assert_eq!((of.heads[0].key, of.heads[0].value), (of.key, of.value));
        assert_eq!(of.heads[0].both, scores(0));
        assert_ne!(of.key, of.value);
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("expected a number, found {value}"))
}

const PART: [&str; 6] = [
    "kld_mean",
    "kld_mean_ci95",
    "kld_share",
    "perplexity_change_percent",
    "perplexity_change_percent_ci95",
    "kld_per_window",
];

#[test]
fn json_has_every_part_of_every_codec() {
    let codecs = ["--codec", "int4-g64", "--codec", "f16"];
    let plain = good_with(&[&codecs[..], &["--json"]].concat()).succeeds().json();
    let result = good_with(&[&codecs[..], &["--json", "--attribute"]].concat()).succeeds().json();
    assert_eq!(
        (&plain["config"]["attribute"], &result["config"]["attribute"]),
        (&false.into(), &true.into())
    );
    assert_eq!(plain["baseline"], result["baseline"]);
    assert_eq!(result["codecs"].as_array().unwrap().len(), 2);
    for (codec, plain) in
        result["codecs"].as_array().unwrap().iter().zip(plain["codecs"].as_array().unwrap())
    {
        // All else is what it is without, to the bit.
        let mut rest = codec.clone();
        let found = rest.as_object_mut().unwrap().remove("attribution").unwrap();
        assert!(&rest == plain && plain.get("attribution").is_none());

        let (layers, heads) = (&found["layers"], &found["heads"]);
        assert_eq!((layers.as_array().unwrap().len(), heads.as_array().unwrap().len()), (4, 2));
        assert_eq!((&layers[3]["layer"], &heads[1]["head"]), (&3.into(), &1.into()));
        let [of_layers, of_heads] = [layers, heads].map(|list| list.as_array().unwrap());
        let of = |list: &[Value], side: &str| -> Vec<Value> {
            list.iter().map(|of| of[side].clone()).collect()
        };
        let mut parts = vec![found["key"].clone(), found["value"].clone()];
        for (list, sides) in
            [(of_layers, &["key", "value"][..]), (of_heads, &["both", "key", "value"])]
        {
            parts.extend(sides.iter().flat_map(|side| of(list, side)));
        }
        assert_eq!(parts.len(), CacheParts::of(4, 2).count());
        for part in &parts {
            let keys: Vec<&str> = part.as_object().unwrap().keys().map(String::as_str).collect();
            assert!(PART.iter().all(|key| keys.contains(key)) && keys.len() == PART.len());
            let windows = part["kld_per_window"].as_array().unwrap();
            let mean = windows.iter().map(number).sum::<f64>() / windows.len() as f64;
            assert!((mean - number(&part["kld_mean"])).abs() <= 1e-12 * mean);
            let share = number(&part["kld_mean"]) / number(&codec["kld_mean"]);
            assert!((share - number(&part["kld_share"])).abs() < 1e-9, "{share}");
            assert!(part["kld_mean_ci95"].is_array(), "two windows have one");
        }

        // Sums, from the parts' own figures.
        let sum = |list: Vec<Value>| list.iter().map(|part| number(&part["kld_mean"])).sum::<f64>();
        let (keys, values) = (sum(of(of_layers, "key")), sum(of(of_layers, "value")));
        let (key, value) = (number(&found["key"]["kld_mean"]), number(&found["value"]["kld_mean"]));
        let whole = number(&codec["kld_mean"]);
        for (name, sum, joint) in [
            ("layers", keys + values, whole),
            ("layer_keys", keys, key),
            ("layer_values", values, value),
            ("key_and_value", key + value, whole),
            ("heads", sum(of(of_heads, "both")), whole),
        ] {
            let found = &found["sums"][name];
            let near = |key: &str, expected: f64| {
                assert!((number(&found[key]) - expected).abs() < 1e-9 * (1.0 + expected), "{name}");
            };
            near("kld_mean", sum);
            near("kld_minus_joint", sum - joint);
            near("kld_over_joint", sum / joint);
            let ends = found["kld_minus_joint_ci95"].as_array().unwrap();
            assert!((number(&ends[0])..=number(&ends[1])).contains(&(sum - joint)), "{name}");
        }
    }
}

#[test]
fn the_table_says_where_the_damage_comes_from() {
    let asked = ["--codec", "int4-g64", "--codec", "noise-int4-g64", "--attribute"];
    let table = good_with(&asked).succeeds().stdout;
    for line in table.lines() {
        assert!(line.chars().count() <= 110, "{} columns: {line}", line.chars().count());
    }
    assert_eq!(table.matches("parts of the cache compressed alone").count(), 2, "{table}");
    for line in ["\nkeys ", "\nvalues ", "\nlayer ", "\nKV head 1 ", "\nsum of the parts "] {
        assert!(table.matches(line).count() >= 2, "no {line:?} in\n{table}");
    }
    let one = ["--model", "builtin", "--context", "32", "--windows", "1", "--attribute"];
    let decode = [&one[..], &["--protocol", "decode", "--residual", "8", "--chunk", "8"]].concat();
    for request in [&one[..], &decode] {
        let table = validate(request).succeeds().stdout;
        assert!(table.contains("sum of the parts") && table.contains("one window"), "{table}");
    }
    assert!(!good_with(&["--attribute=false"]).succeeds().stdout.contains("sum of the parts"));
}

#[test]
fn the_picture_is_written_beside_everything_else() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (picture, output) = (path("parts.svg"), path("result.json"));
    let asked = ["--attribute", "--picture", &picture, "--output", &output, "--json"];
    let printed = good_with(&asked).succeeds().stdout;
    assert_eq!(fs::read_to_string(&output).unwrap(), printed);
    assert_eq!(names_in(folder.path()), ["parts.svg", "result.json"]);
    let svg = fs::read_to_string(&picture).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let marks =
        document.descendants().filter(|node| node.attribute("class") == Some("part")).count();
    // And the whole.
    assert_eq!(marks, CacheParts::of(4, 2).count() + 1);
}

#[test]
fn a_picture_that_cannot_be_is_refused_before_any_work() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (absent, good, png) = (path("absent/x.svg"), path("x.svg"), path("x.png"));
    let all = ["--model", "builtin", "--windows", "all"];
    for (flags, words) in [
        (&["--picture", &good][..], ["--picture", "--attribute"]),
        (&["--attribute=false", "--picture", &good], ["--picture", "--attribute"]),
        (&["--attribute", "--picture", &absent], ["--picture", "no such file or folder"]),
        (&["--attribute", "--picture", &png], ["--picture", "ends in .svg"]),
        (
            &["--attribute", "--picture", &good, "--output", &good],
            ["--picture", "other than --output's"],
        ),
    ] {
        let answer = validate(&[&all[..], flags].concat());
        answer.is_refused(&words);
        assert!(answer.took < Duration::from_secs(2), "{flags:?}: {:?}", answer.took);
    }
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn a_sweep_refuses_it_at_its_place() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sweep.toml");
    let config = path.to_str().unwrap();
    let content = "model = \"builtin\"\ncontext = 64\nwindows = 1\n";
    fs::write(&path, format!("{content}attribute = true\n")).unwrap();
    let answer = run(&["sweep", config, "--dry-run"]);
    answer.is_refused(&["sweep.toml: line 4, column 13: attribute: ", "found true"]);
    answer.hints("kvgauge validate");
    let validated = validate(&["--config", config, "--json"]).succeeds().json();
    assert!(validated["codecs"][0]["attribution"].is_object());
    fs::write(&path, format!("{content}attribute = false\n")).unwrap();
    run(&["sweep", config, "--dry-run"]).succeeds();
    run(&["sweep", config, "--attribute"]).is_refused(&["--attribute"]);
}
