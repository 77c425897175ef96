//! The `decode` protocol against tokens taken one by one, on a small random model and the embedded
//! one.

#[path = "common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use kvgauge::codec::{CacheCodec, Codec, Geometry, RotaryTable};
use kvgauge::corpus::{Window, WindowShape};
use kvgauge::error::Result;
use kvgauge::eval::scores::Logits;
use kvgauge::eval::{Arm, Evaluation, Evaluator, Protocol, Treatment, layer_sums};
use kvgauge::model::{LayerKv, Model, RandomWeights};
use shapes::llama;

fn model() -> Model {
    Model::load(&llama(256, 512, 3, 4, 2), &RandomWeights, DType::F32, &Device::Cpu).unwrap()
}

fn window(tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| (i * 7919 + i * i * 31) as u32 % 32_000).collect()
}

fn evaluate(
    model: &Model,
    tokens: &[u32],
    protocol: Protocol,
    codecs: &[&str],
) -> Result<Evaluation> {
    let arms: Vec<Arm> = codecs.iter().map(|name| Arm::of(name.parse().unwrap())).collect();
    let evaluator = Evaluator::new(model, protocol, tokens.len(), 0);
    evaluator.evaluate(&[Window::halves(tokens.to_vec())], &arms, &mut ())
}

fn kld(evaluation: &Evaluation, codec: usize) -> f64 {
    let scores = evaluation.codecs[codec].scores().concat();
    scores.iter().map(|score| score.kld).sum::<f64>() / scores.len() as f64
}

fn bits(evaluation: &Evaluation, codec: usize) -> f64 {
    let outcome = &evaluation.codecs[codec];
    8.0 * outcome.windows.iter().map(|w| w.stored_bytes).sum::<u64>() as f64
        / outcome.windows.iter().map(|w| w.values).sum::<u64>() as f64
}

/// Keys or values of one layer through a codec, as rows of the whole window so far: no code of the
/// protocol has a part in it.
fn through(tensor: &Tensor, side: kvgauge::codec::TensorCodec, rope: &RotaryTable) -> Tensor {
    let (_, tokens, head_dim) = tensor.dims3().unwrap();
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let geometry = Geometry { rope: Some(rope), ..Geometry::rows(tokens, head_dim) };
    let (payload, _) = side.compress_measured(&values, &geometry).unwrap();
    let mut decoded = vec![0f32; values.len()];
    payload.decompress(&geometry, &mut decoded);
    Tensor::from_vec(decoded, tensor.shape(), tensor.device()).unwrap()
}

/// A server's loop: one token at a time, its keys and values stored before it attends to them.
/// Everything written is kept, and gone through its layer's codec from the first token on at every
/// step.
fn token_by_token(model: &Model, tokens: &[u32], codecs: &[Codec]) -> Tensor {
    let rope = RotaryTable::of(model.rotary_embeddings().remove(0), tokens.len());
    let none: Vec<Option<LayerKv>> = vec![None; model.config().layers.len()];
    let (mut written, mut stored) = (none.clone(), none);
    let mut hidden = Vec::new();
    let behind = |past: &Option<LayerKv>, new: LayerKv| -> kvgauge::Result<LayerKv> {
        let Some(past) = past else { return Ok(new) };
        let key = Tensor::cat(&[&past.key, &new.key], 1)?;
        Ok(LayerKv { key, value: Tensor::cat(&[&past.value, &new.value], 1)? })
    };
    for (position, token) in tokens.iter().enumerate() {
        let mut attended = |_: usize, layer: usize, new: LayerKv| {
            let all = behind(&written[layer], new)?;
            let last = all.key.dim(1)? - 1;
            let new = LayerKv {
                key: through(&all.key, codecs[layer].key, &rope).narrow(1, last, 1)?,
                value: through(&all.value, codecs[layer].value, &rope).narrow(1, last, 1)?,
            };
            written[layer] = Some(all);
            let attended = behind(&stored[layer], new)?;
            stored[layer] = Some(attended.clone());
            Ok(attended)
        };
        let of_token = model.forward_attending(&[&[*token]], position, &mut attended);
        hidden.extend(of_token.unwrap());
    }
    Tensor::cat(&hidden, 0).unwrap()
}

/// One pass over the window with keys and values stored as they are written is what a server does
/// token by token: also for a codec whose tokens depend on earlier ones.
#[test]
fn one_pass_equals_a_servers_loop() {
    let model = model();
    let tokens = window(40);
    for name in [
        "int4-g64",
        "int4-g64-had",
        "q4_0",
        "k:f16/v:int4-g32",
        "int6-g64-asym-prerope",
        "kvgauge4",
        "int4-g64+q8_0@-1",
        "kvgauge4+k:f16/v:int4-g32@0+int6-g64-asym-prerope@2",
    ] {
        let protocol = Protocol::Decode { residual: 0, chunk: 7 };
        let found = evaluate(&model, &tokens, protocol, &[name]).unwrap();
        let codecs = name.parse::<CacheCodec>().unwrap().of_layers(3).unwrap();
        let hidden = token_by_token(&model, &tokens[..39], &codecs);
        let targets = &tokens[21..];
        let scored = hidden.narrow(0, 20, 19).unwrap();
        let rows = Logits::new(&model.logits(&scored).unwrap()).unwrap();
        let rows = rows.base_rows(targets).unwrap();
        for (row, score) in rows.iter().zip(&found.codecs[0].windows[0].scores) {
            // One rounding of a code that goes the other way is all that is allowed for.
            assert!((row.nll - score.nll).abs() < 2e-2, "{name}: {} {}", row.nll, score.nll);
        }
        let mean = |nll: &mut dyn Iterator<Item = f64>| nll.sum::<f64>() / 19.0;
        let one_pass = mean(&mut found.codecs[0].windows[0].scores.iter().map(|s| s.nll));
        let looped = mean(&mut rows.iter().map(|row| row.nll));
        assert!((one_pass - looped).abs() < 2e-3, "{name}: {one_pass} {looped}");
    }
}

/// Targets that feel a codec are those whose prediction changes, no more and no fewer.
#[test]
fn targets_affected_are_those_that_change() {
    let model = model();
    let tokens = window(96);
    let decode = |residual, chunk| Protocol::Decode { residual, chunk };
    for (protocol, name, expected) in [
        (Protocol::PREFIX, "int4-g64", 47),
        (Protocol::PREFIX, "kvgauge4", 47),
        (Protocol::PREFIX, "int4-g64-sink47", 47),
        (decode(0, 32), "int4-g64", 47),
        // In one pass a token attends to its own stored form.
        (decode(0, 32), "int4-g64-sink60", 35),
        (decode(0, 32), "k:f16/v:int4-g64-sink90", 5),
        // Position 56 begins the first chunk with a stored token before it.
        (decode(55, 8), "int4-g64", 39),
        (decode(55, 8), "kvgauge4", 31),
        (decode(88, 1), "int4-g64", 6),
        // Blocks of 64 tokens: stored after 64, felt from the chunk that begins there on.
        (decode(0, 32), "int4-g64-ch", 31),
        (decode(8, 32), "k:int4-g64-ch/v:f16", 0),
        (decode(8, 24), "k:int4-g64-ch/v:f16", 23),
        (decode(8, 24), "kivi4", 23 + 24),
        // The first layer that feels it, and chunks for all where one layer's groups span tokens.
        (Protocol::PREFIX, "int4-g64-sink48+int4-g64@-1", 47),
        (decode(0, 32), "int4-g64-sink60+f16@0,2", 35),
        (decode(0, 32), "int4-g64-sink60+int4-g64-sink90@0", 35),
        (decode(0, 32), "int4-g64-sink60+int4-g64-ch@1", 31),
        (decode(0, 32), "f16+int4-g64-ch@1", 31),
    ] {
        let codecs = name.parse::<Treatment>().unwrap().codecs(3).unwrap();
        let head_dim = model.config().head_dim();
        let told = protocol
            .targets_affected(head_dim, &WindowShape::halves(tokens.len()), &codecs)
            .unwrap();
        assert_eq!(told, expected, "{protocol} {name}");
        let found = match evaluate(&model, &tokens, protocol, &[name]) {
            Err(error) if expected == 0 => {
                assert!(error.to_string().contains("none of the 47 scored targets"), "{error}");
                continue;
            }
            found => found.unwrap(),
        };
        // Order of summation alone leaves 1e-12, a token kept in 16 bits 2e-7, a codec 5e-5.
        let scores = &found.codecs[0].windows[0].scores;
        let changed: Vec<bool> = scores.iter().map(|score| score.kld > 1e-6).collect();
        let first = changed.iter().position(|changed| *changed).unwrap_or(changed.len());
        assert_eq!(changed.len() - first, expected, "{protocol} {name}");
        assert!(changed[first..].iter().all(|changed| *changed), "{protocol} {name}");
    }
}

/// A codec that no target can feel is refused, and what the hint says would do does.
#[test]
fn a_codec_that_nothing_feels_is_refused() {
    let model = model();
    let decode = |residual, chunk| Protocol::Decode { residual, chunk };
    for (protocol, context, name, ways) in [
        (decode(5000, 32), 64, "int4-g64", vec!["--residual 31", "--context 5026"]),
        (decode(64, 16), 64, "int4-g64", vec!["--residual 47", "--context 82"]),
        (decode(64, 16), 64, "kivi4", vec!["--residual 47", "--context 82"]),
        (decode(63, 1), 64, "kvgauge4", vec!["--residual 60", "--context 67"]),
        (decode(0, 32), 64, "int4-g64-ch", vec!["--context 66", "fewer than 64 tokens"]),
        (decode(0, 32), 64, "int4-g64-sink64", vec!["--context 66"]),
        (Protocol::PREFIX, 64, "int4-g64-sink32", vec!["fewer sink tokens", "--context 66"]),
        // Tiles of 128 tokens, of which a prefix of fewer has none.
        (Protocol::PREFIX, 64, "kvarn4", vec!["--context 256"]),
    ] {
        let tokens = window(context);
        let error = evaluate(&model, &tokens, protocol, &[name]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("scored targets would feel the codec"), "{protocol} {name}: {text}");
        assert!(text.starts_with(&format!("codec {name}: expected")), "{text}");
        let hint = error.hint_text().unwrap();
        for way in &ways {
            assert!(hint.contains(way), "{protocol} {name}: {hint}");
        }
        // The number of the hint is the edge.
        let feels = |protocol: Protocol, context: usize| {
            let codecs = name.parse::<Treatment>().unwrap().codecs(3).unwrap();
            let (head_dim, shape) = (model.config().head_dim(), WindowShape::halves(context));
            protocol.targets_affected(head_dim, &shape, &codecs).unwrap() > 0
        };
        for way in ways {
            let number = |flag| way.strip_prefix(flag).and_then(|n: &str| n.trim().parse().ok());
            if let (Some(residual), Protocol::Decode { chunk, .. }) =
                (number("--residual"), protocol)
            {
                assert!(feels(decode(residual, chunk), context), "{name} {way}");
                assert!(!feels(decode(residual + 1, chunk), context), "{name} {way}");
            }
            if let Some(longer) = number("--context") {
                assert!(feels(protocol, longer), "{name} {way}");
                assert!(!feels(protocol, longer - 1), "{name} {way}");
            }
        }
    }
}

/// Noise is drawn once for each token, as large as the error that the codec makes in the tokens
/// that are stored together: what is reported is what is in the cache.
#[test]
fn noise_is_as_large_as_the_codecs_error_in_any_chunks() {
    let model = model();
    let tokens = window(80);
    for (residual, chunk) in [(3, 5), (0, 79), (20, 8)] {
        let protocol = Protocol::Decode { residual, chunk };
        for name in ["kvgauge4", "int4-g64"] {
            let noise = format!("noise-{name}");
            let found = evaluate(&model, &tokens, protocol, &[name, &noise]).unwrap();
            // Of the first layer, whose keys and values no codec has changed.
            let of = |codec: usize| {
                let layer = layer_sums(&found.codecs[codec].windows)[0];
                [layer.key, layer.value].map(|sum| sum.finish().rmse.unwrap())
            };
            for (packed, noisy) in of(0).into_iter().zip(of(1)) {
                let ratio = noisy / packed;
                assert!((ratio - 1.0).abs() < 2e-3, "{noise} {protocol}: {packed} {noisy}");
            }
            assert_eq!(bits(&found, 1), 16.0, "{noise} {protocol}");
            assert!(kld(&found, 1) > 1e-6, "{noise} {protocol}");
        }
    }
}

/// Bits are those of what is stored at the end of the window, in whole blocks, and of the rest.
#[test]
fn bits_count_blocks_and_the_rest() {
    let model = model();
    let tokens = window(65);
    let run = |residual, chunk, name: &str| {
        let found =
            evaluate(&model, &tokens, Protocol::Decode { residual, chunk }, &[name]).unwrap();
        bits(&found, 0)
    };
    // 64 tokens, of which 54 have left: 10 stay at 16 bits.
    let mixed = |stored: f64, bits: f64| (stored * bits + (64.0 - stored) * 16.0) / 64.0;
    assert_eq!(run(10, 16, "int4-g64"), mixed(54.0, 4.25));
    // Blocks of 32 tokens of a channel; values token by token.
    let both = (mixed(32.0, 4.5 + 0.5) + mixed(54.0, 4.5)) / 2.0;
    assert_eq!(run(10, 16, "k:int4-g32-asym-ch/v:int4-g64-asym"), both);
    // Two sinks, then blocks.
    let stored = |tokens: f64| tokens * 5.0 + 2.0 * 16.0 + (64.0 - tokens - 2.0) * 16.0;
    assert_eq!(run(0, 8, "k:int4-g32-asym-ch-sink2/v:f16"), (stored(32.0) / 64.0 + 16.0) / 2.0);
    // Blocks in one layer of three, the others token by token.
    let layers = (2.0 * mixed(54.0, 4.25) + mixed(32.0, 5.0)) / 3.0;
    let found = run(10, 16, "int4-g64+k:int4-g32-asym-ch/v:int4-g32-asym-ch@1");
    assert!((found - layers).abs() < 1e-12, "{found} {layers}");
    // A codec with a memory: what is stored once is counted once, in any chunks.
    assert_eq!(run(3, 5, "kvgauge4"), run(3, 40, "kvgauge4"));
}

/// Chunks of one token and no residual: a token sees itself exactly and all others stored. That is
/// less than seeing itself stored, and more than a residual.
#[test]
fn damage_falls_with_the_residual() {
    let model = model();
    let tokens = window(96);
    for name in ["int4-g64", "kvgauge4"] {
        let run = |residual| {
            let protocol = Protocol::Decode { residual, chunk: 8 };
            kld(&evaluate(&model, &tokens, protocol, &[name]).unwrap(), 0)
        };
        let found = [0, 16, 48].map(run);
        assert!(found[0] > found[1] && found[1] > found[2], "{name}: {found:?}");
    }
}

/// Company changes no bit under `decode` either.
#[test]
fn company_changes_no_bit() {
    let model = model();
    let tokens = window(80);
    for (residual, chunk) in [(0, 32), (8, 16)] {
        let protocol = Protocol::Decode { residual, chunk };
        let alone = evaluate(&model, &tokens, protocol, &["kvgauge4"]).unwrap();
        let layered = "kvgauge4+int4-g64@1";
        let crowd = ["int4-g64", "k:int4-g16-asym-ch/v:int4-g64", layered, "kvgauge4"];
        let together = evaluate(&model, &tokens, protocol, &crowd).unwrap();
        assert_eq!(alone.baseline, together.baseline);
        assert_eq!(alone.codecs[0].windows, together.codecs[3].windows);
    }
}

#[test]
fn what_needs_the_whole_prefix_is_refused() {
    let (model, tokens) = (model(), window(64));
    let protocol = Protocol::Decode { residual: 0, chunk: 32 };
    for (name, why) in [
        ("int4-g64-ctr", "the mean over all tokens"),
        ("fp8-e4m3-per-tensor", "one scale a tensor"),
        ("nvfp4-per-tensor", "one scale a tensor"),
        ("int4-g48", "a divisor or multiple of the head vector"),
        ("int4-g128-ch", "blocks of at most 64 tokens"),
    ] {
        let error = evaluate(&model, &tokens, protocol, &[name]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// The first layer's cache does not depend on other layers' codecs; what each takes is its own, and
/// all together the whole.
#[test]
fn layers_are_stored_each_by_its_own_codec() {
    let model = model();
    let tokens = window(80);
    for protocol in [
        Protocol::PREFIX,
        Protocol::Decode { residual: 0, chunk: 16 },
        Protocol::Decode { residual: 6, chunk: 16 },
    ] {
        let names = ["kvgauge4", "q8_0", "int4-g32-asym", "kvgauge4+q8_0@1+int4-g32-asym@-1"];
        let found = evaluate(&model, &tokens, protocol, &names).unwrap();
        let window = |codec: usize| &found.codecs[codec].windows[0];
        let mixed = window(3);
        for layer in 0..3 {
            let [plain, own] = [window(layer).layers[layer], mixed.layers[layer]];
            assert_eq!(plain.key_size, own.key_size, "{protocol} layer {layer}");
            assert_eq!(plain.value_size, own.value_size, "{protocol} layer {layer}");
            // What later layers hold follows from what earlier ones gave back, but for `prefix`.
            let is_equal = plain.key == own.key && plain.value == own.value;
            assert_eq!(is_equal, layer == 0 || protocol == Protocol::PREFIX, "{protocol} {layer}");
        }
        let sizes = mixed.layers.iter().flat_map(|layer| [layer.key_size, layer.value_size]);
        let all = sizes.fold(Default::default(), kvgauge::eval::StoredSize::plus);
        assert_eq!((all.bytes, all.values), (mixed.stored_bytes, mixed.values));
    }
}

#[test]
fn layers_that_the_model_has_not_are_refused() {
    let model = model();
    for protocol in [Protocol::PREFIX, Protocol::Decode { residual: 0, chunk: 16 }] {
        for name in ["int4-g64+q8_0@3", "int4-g64+q8_0@-4"] {
            let error = evaluate(&model, &window(80), protocol, &[name]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("one of 3 layers, 0 to 2"), "{error}");
        }
    }
}
