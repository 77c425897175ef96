//! A residual under `prefix`: the last tokens of the prefix stay exact.

#[path = "common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use kvgauge::codec::{Codec, Geometry, RotaryTable, TensorCodec};
use kvgauge::corpus::Window;
use kvgauge::error::Result;
use kvgauge::eval::scores::Logits;
use kvgauge::eval::{Arm, CodecWindow, Evaluator, Protocol};
use kvgauge::model::{KvCache, LayerKv, Model, RandomWeights};
use shapes::llama;

const CONTEXT: usize = 96;
const PREFIX: usize = CONTEXT / 2;

fn model() -> Model {
    Model::load(&llama(256, 512, 3, 4, 2), &RandomWeights, DType::F32, &Device::Cpu).unwrap()
}

fn tokens() -> Vec<u32> {
    (0..CONTEXT).map(|i| (i * 7919 + i * i * 31) as u32 % 32_000).collect()
}

fn evaluate(model: &Model, residual: usize, codec: &str) -> Result<CodecWindow> {
    let evaluator = Evaluator::new(model, Protocol::Prefix { residual }, CONTEXT, 0);
    let arms = [Arm::of(codec.parse().unwrap())];
    let mut found = evaluator.evaluate(&[Window::halves(tokens())], &arms, &mut ())?;
    Ok(found.codecs.remove(0).windows.remove(0))
}

fn kld(window: &CodecWindow) -> f64 {
    window.scores.iter().map(|score| score.kld).sum::<f64>() / window.scores.len() as f64
}

fn bits(window: &CodecWindow) -> f64 {
    8.0 * window.stored_bytes as f64 / window.values as f64
}

/// The first `stored` tokens of keys or values through a codec, the others as they are.
fn through(tensor: &Tensor, codec: TensorCodec, rope: &RotaryTable, stored: usize) -> Tensor {
    let first = tensor.narrow(1, 0, stored).unwrap();
    let (_, tokens, head_dim) = first.dims3().unwrap();
    let values = first.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let geometry = Geometry { rope: Some(rope), ..Geometry::rows(tokens, head_dim) };
    let (payload, _) = codec.compress_measured(&values, &geometry).unwrap();
    let mut decoded = vec![0f32; values.len()];
    payload.decompress(&geometry, &mut decoded);
    let decoded = Tensor::from_vec(decoded, first.shape(), first.device()).unwrap();
    let rest = tensor.narrow(1, stored, tensor.dim(1).unwrap() - stored).unwrap();
    Tensor::cat(&[decoded, rest], 1).unwrap()
}

/// What the protocol does, done here: no code of it has a part.
#[test]
fn the_rest_of_the_prefix_is_what_the_codec_gives() {
    let model = model().for_context(CONTEXT);
    let (all, rope) = (tokens(), RotaryTable::of(model.rotary_embeddings().remove(0), CONTEXT));
    // Of the groups of 16 tokens one is whole behind two sinks when 28 have left the residual.
    for (name, key, value) in [
        ("int4-g64", 28, 28),
        ("kvgauge4", 28, 28),
        ("k:int4-g16-ch-sink2/v:int4-g32-had", 18, 28),
        // What needs all tokens has them all at once, but for the residual.
        ("int4-g64-ctr", 28, 28),
    ] {
        let codec: Codec = name.parse().unwrap();
        let found = evaluate(&model, 20, name).unwrap();
        let mut cache = model.empty_cache();
        model.forward(&all[..PREFIX], &mut cache).unwrap();
        let restored = cache.layers().map(|layer| LayerKv {
            key: through(&layer.key, codec.key, &rope, key),
            value: through(&layer.value, codec.value, &rope, value),
        });
        let mut cache = KvCache::from_layers(restored.collect()).unwrap();
        let hidden = model.forward(&all[PREFIX..CONTEXT - 1], &mut cache).unwrap();
        let logits = Logits::new(&model.logits(&hidden).unwrap()).unwrap();
        let rows = logits.base_rows(&all[PREFIX + 1..]).unwrap();
        assert_eq!(rows.len(), found.scores.len());
        for (row, score) in rows.iter().zip(&found.scores) {
            assert!((row.nll - score.nll).abs() < 1e-4, "{name}: {} {}", row.nll, score.nll);
        }
        assert!(kld(&found) > 1e-6, "{name}");
    }
}

#[test]
fn exact_tokens_count_in_16_bits_and_are_told_apart() {
    let model = model();
    let of = |stored: f64, bits: f64| (stored * bits + (48.0 - stored) * 16.0) / 48.0;
    for (residual, codec, expected, exact) in [
        (0, "int4-g64", 4.25, 0.0),
        (8, "int4-g64", of(40.0, 4.25), 8.0),
        (8, "int4-g64-sink4", of(36.0, 4.25), 12.0),
        (8, "k:int4-g32-ch/v:f16", (of(32.0, 4.5) + 16.0) / 2.0, 16.0 / 2.0 + 8.0 / 2.0),
        (8, "int4-g64+f16@0", (2.0 * of(40.0, 4.25) + 16.0) / 3.0, 8.0),
    ] {
        let found = evaluate(&model, residual, codec).unwrap();
        assert!((bits(&found) - expected).abs() < 1e-12, "{codec}: {} {expected}", bits(&found));
        let sizes = found.layers.iter().flat_map(|layer| [layer.key_size, layer.value_size]);
        let share = sizes.map(|size| size.exact).sum::<u64>() as f64 / found.values as f64;
        assert!((share - exact / 48.0).abs() < 1e-12, "{codec}: {share}");
    }
}

#[test]
fn damage_falls_with_the_residual() {
    let model = model();
    let found = [0, 16, 40].map(|residual| kld(&evaluate(&model, residual, "int4-g64").unwrap()));
    assert!(found[0] > found[1] && found[1] > found[2], "{found:?}");
}

#[test]
fn a_residual_of_the_whole_prefix_is_refused() {
    let model = model();
    assert_eq!(evaluate(&model, 47, "int4-g64").unwrap().targets_affected, 47);
    for (residual, codec, most) in
        [(48, "int4-g64", 47), (100, "kvgauge4", 46), (20, "int4-g32-ch", 16)]
    {
        let error = evaluate(&model, residual, codec).unwrap_err();
        assert!(error.to_string().contains("all 48 tokens of the prefix kept exact"), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains(&format!("--residual {most} or less")), "{hint}");
    }
}

/// A codec in a layer whose sliding window is no longer than the residual is never read there: no pass
/// without having done anything.
#[test]
fn what_no_sliding_window_reaches_is_refused() {
    let mut config = llama(256, 512, 3, 4, 2);
    for layer in &mut config.layers[..2] {
        layer.attention.window = Some(10);
    }
    let model = Model::load(&config, &RandomWeights, DType::F32, &Device::Cpu).unwrap();
    // Two tokens further back than the first token that is not stored.
    for residual in [9, 20] {
        let error = evaluate(&model, residual, "f16+q4_0@0,1").unwrap_err();
        assert!(error.to_string().contains("sliding windows"), "{error}");
        assert!(error.hint_text().unwrap().contains("--residual 8 or less"), "{error}");
    }
    for (residual, codec) in [(8, "f16+q4_0@0,1"), (9, "f16+q4_0@2"), (9, "q4_0")] {
        let found = evaluate(&model, residual, codec).unwrap();
        assert!(kld(&found) > 0.0 && found.targets_affected > 0, "{residual} {codec}");
    }
}
