//! The `prefix` protocol against plain forward passes, on the embedded model and its text.

#[path = "common/shapes.rs"]
mod shapes;

use candle_core::{DType, Device, Tensor};
use kvgauge::corpus::{Text, Window, WindowPlan, WindowShape};
use kvgauge::error::Result;
use kvgauge::eval::scores::Logits;
use kvgauge::eval::{Arm, CodecWindow, Evaluation, Evaluator, Protocol, Treatment};
use kvgauge::hub::{Hub, HubOptions};
use kvgauge::model::Model;
use kvgauge::model::RandomWeights;
use kvgauge::model::source::ModelSource;
use shapes::llama;
use std::sync::Arc;

fn builtin(context: usize, count: usize) -> (Model, Vec<Window>) {
    let hub = Hub::new(HubOptions::from_env(true), Arc::new(())).unwrap();
    let open = ModelSource::Builtin.open("builtin", &hub).unwrap();
    let tokens = Text::builtin().tokenize(&open.tokenizer, true).unwrap();
    let plan = WindowPlan { context, first: 3, count: Some(count), bos: None };
    let windows = plan.cut(&tokens, "builtin").unwrap();
    (open.load(DType::F32, &Device::Cpu).unwrap(), windows)
}

/// Codecs for all of the cache, under the prefix protocol.
fn evaluate(model: &Model, windows: &[Window], codecs: &[Treatment]) -> Result<Evaluation> {
    let arms: Vec<Arm> = codecs.iter().cloned().map(Arm::of).collect();
    let context = windows.first().map_or(0, |window| window.tokens().len());
    Evaluator::new(model, Protocol::PREFIX, context, 0).evaluate(windows, &arms, &mut ())
}

/// The baseline arm takes the cache out and puts it back; one plain pass must say the same.
#[test]
fn baseline_equals_one_plain_pass() {
    for context in [512, 131, 4] {
        let (model, windows) = builtin(context, 2);
        let evaluation = evaluate(&model, &windows, &[]).unwrap();
        for (window, nll) in windows.iter().zip(&evaluation.baseline) {
            let first = context / 2;
            let (targets, window) = (&window.targets(), window.tokens());
            let hidden = model.forward(&window[..context - 1], &mut model.empty_cache()).unwrap();
            let scored = hidden.narrow(0, first, targets.len()).unwrap();
            let plain = Logits::new(&model.logits(&scored).unwrap()).unwrap();
            let plain_rows = plain.base_rows(targets).unwrap();
            assert_eq!(nll.len(), targets.len());
            for (row, nll) in plain_rows.iter().zip(nll) {
                assert!((row.nll - nll).abs() < 1e-4, "{} {nll}", row.nll);
            }

            let mut cache = model.empty_cache();
            model.forward(&window[..first], &mut cache).unwrap();
            let layers = cache.layers().cloned().collect();
            let mut cache = kvgauge::model::KvCache::from_layers(layers).unwrap();
            let hidden = model.forward(&window[first..context - 1], &mut cache).unwrap();
            let split = Logits::new(&model.logits(&hidden).unwrap()).unwrap();
            let scores = split.score(&plain, &plain_rows, targets).unwrap();
            let mean = scores.iter().map(|score| score.kld).sum::<f64>() / scores.len() as f64;
            assert!(mean < 1e-8, "context {context}: mean KLD {mean}");
        }
    }
}

#[test]
fn the_f16_control_shows_the_floor_and_int4_stands_above_it() {
    let (model, windows) = builtin(512, 3);
    let codecs: Vec<Treatment> =
        ["f16", "int4-g64", "k:f16/v:int4-g64"].map(|n| n.parse().unwrap()).into();
    let evaluation = evaluate(&model, &windows, &codecs).unwrap();
    let kld = |index: usize| {
        let scores = evaluation.codecs[index].scores().concat();
        scores.iter().map(|score| score.kld).sum::<f64>() / scores.len() as f64
    };
    assert!(kld(0) > 0.0 && kld(0) < 1e-5, "f16 {}", kld(0));
    assert!(kld(1) > 100.0 * kld(0), "int4 {}", kld(1));
    assert!(kld(2) > kld(0) && kld(2) < kld(1), "values alone {}", kld(2));
    // Bits come from the payload: 4 + 16/64, and half of that plus half of 16.
    let bits = |index: usize| {
        let sum = |of: fn(&CodecWindow) -> u64| -> f64 {
            evaluation.codecs[index].windows.iter().map(of).sum::<u64>() as f64
        };
        8.0 * sum(|w| w.stored_bytes) / sum(|w| w.values)
    };
    assert_eq!(bits(0), 16.0);
    assert!((bits(1) - 4.25).abs() < 1e-3, "{}", bits(1));
    assert!((bits(2) - 10.125).abs() < 1e-3, "{}", bits(2));
}

/// A codec's numbers are the same bits whichever others share the run, and its passes.
#[test]
fn company_changes_no_bit() {
    let crowd = ["f16", "int4-g64", "int4-g8", "int4-g16", "k:f16/v:int4-g64", "int4-g128"];
    let crowd = [&crowd[..], &crowd[..], &["int4-g32"]].concat();
    for context in [512, 300, 128, 8] {
        let (model, windows) = builtin(context, 2);
        let run = |names: &[&str]| {
            let codecs: Vec<Treatment> = names.iter().map(|name| name.parse().unwrap()).collect();
            evaluate(&model, &windows, &codecs).unwrap()
        };
        let (alone, together) = (run(&["int4-g32"]), run(&crowd));
        assert_eq!(alone.baseline, together.baseline, "context {context}");
        let last = together.codecs.last().unwrap();
        assert_eq!(alone.codecs[0].windows, last.windows, "context {context}");
    }
}

/// Several caches in one pass give what each gives alone, to the bit, where the inner dimension
/// of the products is long enough to be split, and in chunks of few tokens.
#[test]
fn a_shared_pass_gives_the_bits_of_single_ones() {
    let of_type =
        |config, dtype| Model::load(&config, &RandomWeights, dtype, &Device::Cpu).unwrap();
    let load = |config| of_type(config, DType::F32);
    // One that is wide, and one whose matrices have hardly more rows than it takes.
    for config in [llama(1024, 5632, 2, 16, 4), llama(288, 2048, 1, 9, 1)] {
        check_shared_passes(&load(config));
    }
    for dtype in [DType::BF16, DType::F16] {
        check_shared_passes(&of_type(llama(288, 2048, 1, 9, 1), dtype));
    }
    // Single tokens, and matrices of few rows, are multiplied in another way.
    assert_eq!(load(llama(288, 2048, 1, 9, 1)).caches_at_once(1).unwrap(), 1);
    assert_eq!(load(llama(128, 2048, 1, 4, 1)).caches_at_once(32).unwrap(), 1);
}

fn check_shared_passes(model: &Model) {
    let tokens: Vec<u32> = (0..200).map(|i| i * 7919 % 32_000).collect();
    for continuation in [2, 3, 31, 32, 64, 65, 66, 100] {
        assert!(model.caches_at_once(continuation).unwrap() > 4);
        let mut caches: Vec<_> = (0..5)
            .map(|first| {
                let mut cache = model.empty_cache();
                model.forward(&tokens[first..first + 40], &mut cache).unwrap();
                cache
            })
            .collect();
        let continuation = &tokens[100..100 + continuation];
        let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let singles: Vec<_> = caches
            .iter()
            .map(|cache| bits(&model.forward(continuation, &mut cache.clone()).unwrap()))
            .collect();
        let shared = model.forward_each(&[continuation; 5], &mut caches).unwrap();
        for (single, shared) in singles.iter().zip(&shared) {
            assert!(*single == bits(shared), "{} tokens", continuation.len());
        }
    }
}

/// Windows go through the model together, and score what each does alone.
#[test]
fn windows_that_go_together_score_as_they_do_alone() {
    let model = |dtype| {
        Model::load(&llama(288, 2048, 1, 9, 1), &RandomWeights, dtype, &Device::Cpu).unwrap()
    };
    let window = |first: u32| (0..40u32).map(|i| (first + i * i) * 7919 % 32_000).collect();
    let mut windows: Vec<Window> = (0..7).map(|first| Window::halves(window(first))).collect();
    // Of another shape: not together with the others.
    windows.insert(4, Window::halves(window(90)[..31].to_vec()));
    let arms = ["int4-g64", "int4-g8-asym-ch"].map(|name| Arm::of(name.parse().unwrap()));
    for dtype in [DType::F32, DType::BF16] {
        let model = model(dtype);
        for protocol in [
            Protocol::Prefix { residual: 0 },
            Protocol::Decode { residual: 0, chunk: 8 },
            Protocol::Decode { residual: 3, chunk: 7 },
        ] {
            let evaluator = Evaluator::new(&model, protocol, 40, 0);
            assert_eq!(evaluator.windows_at_once(&windows, &arms).unwrap(), 4);
            let together = evaluator.evaluate(&windows, &arms, &mut ()).unwrap();
            for (index, window) in windows.iter().enumerate() {
                let one = std::slice::from_ref(window);
                let alone = evaluator.evaluate(one, &arms, &mut ()).unwrap();
                assert!(alone.baseline[0] == together.baseline[index], "{protocol}");
                for (alone, together) in alone.codecs.iter().zip(&together.codecs) {
                    assert!(alone.windows[0] == together.windows[index], "{protocol} {index}");
                }
            }
        }
    }
}

#[test]
fn a_group_beyond_the_layer_is_refused_before_any_pass() {
    let (model, windows) = builtin(16, 1);
    // 2 heads · 8 tokens · 64 channels
    let run = |name: &str| evaluate(&model, &windows, &[name.parse().unwrap()]);
    assert!(run("int4-g1024").is_ok());
    let error = run("int4-g1025").unwrap_err();
    assert_eq!(error.kind(), kvgauge::error::Kind::Input);
    assert!(error.to_string().contains("1024"), "{error}");
}

/// A window's own shape: another prefix, and targets in several runs.
#[test]
#[allow(clippy::single_range_in_vec_init, reason = "runs, not their numbers")]
fn a_window_is_scored_where_its_shape_says() {
    let (model, windows) = builtin(64, 1);
    let tokens = windows[0].tokens();
    let codecs: Vec<Treatment> = vec!["int4-g64".parse().unwrap()];
    for protocol in [Protocol::PREFIX, Protocol::Decode { residual: 0, chunk: 8 }] {
        let score = |prefix: usize, scored: Vec<std::ops::Range<usize>>| {
            let shape = WindowShape::new(64, prefix, scored).unwrap();
            let window = Window::new(tokens.to_vec(), shape).unwrap();
            let arms: Vec<Arm> = codecs.iter().cloned().map(Arm::of).collect();
            let found = Evaluator::new(&model, protocol, 64, 0);
            let mut found = found.evaluate(&[window], &arms, &mut ()).unwrap();
            (found.baseline.remove(0), found.codecs.remove(0).windows.remove(0))
        };
        let (all_nll, all) = score(20, vec![21..64]);
        let (nll, some) = score(20, vec![23..30, 40..41, 60..64]);
        assert_eq!(some.cached_tokens, all.cached_tokens);
        let kept = [2..9, 19..20, 39..43].into_iter().flatten();
        assert_eq!((nll.len(), some.scores.len()), (12, 12));
        for ((index, nll), score) in kept.zip(nll).zip(&some.scores) {
            let expected = &all.scores[index];
            assert!((nll - all_nll[index]).abs() < 1e-5, "{protocol}: target {index}");
            assert!((score.nll - expected.nll).abs() < 1e-5, "{protocol}: target {index}");
            assert!((score.kld - expected.kld).abs() < 1e-6, "{protocol}: target {index}");
        }
        // The prefix is what it says, not half a window.
        if protocol == Protocol::PREFIX {
            assert_eq!(all.cached_tokens, 20);
            assert_ne!(score(32, vec![40..41]).1.scores[0], all.scores[19]);
        }
    }
}
