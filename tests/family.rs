//! The codec family against witnesses from outside: golden values that numpy worked out from the
//! definitions (`data/make_family_golden.py`), and candle's own blocks and 8-bit floats. And what
//! holds for any codec: any number of threads, shapes and names made to break it, any magnitude.

#[path = "common/random.rs"]
mod random;

use base64::Engine;
use candle_core::quantized::k_quants::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};
use candle_core::quantized::k_quants::{GgmlType, QK4_0};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use kvgauge::codec::{Codec, DistortionSum, Element, Geometry, Payload, RotaryTable, TensorCodec};
use random::roughly_normal;
use serde_json::Value;
use std::collections::HashMap;

fn key(name: &str) -> TensorCodec {
    name.parse::<Codec>().expect(name).key
}

fn packed<T: Element>(codec: TensorCodec, values: &[T], geometry: &Geometry) -> Payload {
    codec.compress_measured(values, geometry).unwrap().0
}

fn decoded<T: Element>(payload: &Payload, geometry: &Geometry) -> Vec<T> {
    let mut out = vec![T::default(); payload.len()];
    payload.decompress(geometry, &mut out);
    out
}

#[test]
fn golden_values_bit_for_bit() {
    let golden: Value = serde_json::from_str(include_str!("data/family_golden.json")).unwrap();
    let floats = |text: &Value| -> Vec<f32> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap());
        bytes.unwrap().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let rope = RotaryTable::new(&floats(&golden["rope"]), 16);
    let inputs: HashMap<&str, (Vec<usize>, Vec<f32>)> = (golden["inputs"].as_object().unwrap())
        .iter()
        .map(|(name, input)| {
            let shape = serde_json::from_value(input["shape"].clone()).unwrap();
            (name.as_str(), (shape, floats(&input["values"])))
        })
        .collect();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let (name, input) = (case["codec"].as_str().unwrap(), case["input"].as_str().unwrap());
        let (shape, values) = &inputs[input];
        let geometry = Geometry { rope: Some(&rope), ..Geometry::of_shape(shape) };
        let expected = floats(&case["decoded"]);
        // Symmetric INT4 alone is not of this kind.
        let payload = packed(key(name), values, &geometry);
        assert_eq!(i64::from(payload.exponent()), case["exponent"], "{name} of {input}");
        let found: Vec<f32> = decoded(&payload, &geometry);
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // The sign of zero is not kept.
            let same = found.to_bits() == expected.to_bits() || (*found == 0.0 && *expected == 0.0);
            assert!(
                same,
                "{name} of {input}: index {index}: expected {expected:e}, found {found:e}"
            );
        }
    }
}

/// candle's blocks are ggml's reference quantisers in Rust. On 64-bit Arm candle quantises Q8_0
/// with vector instructions of another rounding, which is no witness.
///
/// They have no exponent: where a scale would be below 2⁻¹⁴ ours is, on purpose, of more digits.
fn assert_like_ggml<B: GgmlType>(name: &str) {
    let each = |f: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        roughly_normal(64 * QK4_0, 5).iter().enumerate().map(|(index, x)| f(index, *x)).collect()
    };
    for (what, values) in [
        ("random", each(&|_, x| x)),
        ("of f16", each(&|_, x| f16::from_f32(x).to_f32())),
        ("large", each(&|_, x| x * 10_000.0)),
        ("small", each(&|_, x| x * 0.05)),
        ("offset", each(&|i, x| x * 0.25 + (i / 32 % 7) as f32 - 3.0)),
        ("zero", each(&|_, _| 0.0)),
        ("zero in places", each(&|i, x| if i / 32 % 2 == 0 { x } else { 0.0 })),
        ("one value a block", each(&|i, _| if i % 32 == i / 32 % 32 { -2.5 } else { 0.0 })),
        ("constant", each(&|i, _| if i % 64 < 32 { -0.3 } else { 7.0 })),
        ("ties of 4 bits", each(&|i, _| (i * 7 % 33) as f32 / 4.0 - 4.0)),
        ("ties of 5 bits", each(&|i, _| (i * 11 % 65) as f32 / 8.0 - 4.0)),
        ("ties of 8 bits", each(&|i, _| (i * 37 % 509) as f32 / 2.0 - 127.0)),
        ("two extremes", each(&|i, x| [x, 3.5, -3.5, x][i % 4].clamp(-3.5, 3.5))),
        ("outliers", each(&|i, x| if i % 150 == 17 { 300.0 } else { x })),
    ] {
        let mut blocks = vec![B::zeros(); values.len() / B::BLCK_SIZE];
        let mut expected = vec![0f32; values.len()];
        B::from_float(&values, &mut blocks);
        B::to_float(&blocks, &mut expected);
        let geometry = Geometry::rows(values.len() / 64, 64);
        let payload = packed(key(name), &values, &geometry);
        assert_eq!(payload.exponent(), 0, "{name}, {what}");
        assert_eq!(payload.stored_bytes(), size_of_val(&blocks[..]), "{name}");
        let found: Vec<f32> = decoded(&payload, &geometry);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{name}, {what}: index {index} of {}", values[index]);
        }
    }
}

#[test]
fn presets_of_ggml_give_candles_numbers() {
    assert_like_ggml::<BlockQ4_0>("q4_0");
    assert_like_ggml::<BlockQ4_1>("q4_1");
    assert_like_ggml::<BlockQ5_0>("q5_0");
    assert_like_ggml::<BlockQ5_1>("q5_1");
    if cfg!(not(target_arch = "aarch64")) {
        assert_like_ggml::<BlockQ8_0>("q8_0");
    }
}

/// With a largest magnitude of 448 a tensor's scale is 1: what is left is the conversion.
#[test]
fn eight_bit_floats_are_candles() {
    let halves = (0..0x7c00).map(|bits| f16::from_bits(bits).to_f32());
    let mut values: Vec<f32> = halves.filter(|x| *x < 448.0).flat_map(|x| [x, -x]).collect();
    values.extend(roughly_normal(4096, 6));
    values.push(448.0);
    let tensor = Tensor::from_slice(&values, values.len(), &Device::Cpu).unwrap();
    let eight = tensor.to_dtype(DType::F8E4M3).unwrap().to_dtype(DType::F32).unwrap();
    let expected: Vec<f32> = eight.to_vec1().unwrap();
    let geometry = Geometry::rows(1, values.len());
    for name in ["fp8-e4m3", "fp8-e4m3-per-tensor"] {
        let found: Vec<f32> = decoded(&packed(key(name), &values, &geometry), &geometry);
        for ((value, found), expected) in values.iter().zip(&found).zip(&expected) {
            assert_eq!(found, expected, "{name} of {value:e}");
        }
    }
}

/// Every kind of unit that work is cut into: rows, heads, everything.
const ALL_KINDS: [&str; 23] = [
    "int3-g64",
    "int3-g8",
    "int5-g48-asym",
    "int2-g128-mid",
    "int5-g16-lm",
    "int4-g32-lm-mse",
    "int4-g64-asym-ch",
    "int3-g9-asym-ch-ctr-s8-sink3",
    "int4-g64-prerope-ctr-had-sink4",
    "int6-g1000-ext-ch-had-mse-sink1",
    "turbo4",
    "iq4_nl",
    "fp8-e5m2-per-tensor",
    "mxfp4",
    "nvfp4-per-tensor",
    "fp8-e4m3",
    "int8-per-token-head",
    "mlx4",
    "kvarn3",
    "hqq4",
    "turboquant-v3",
    "q3_1",
    "int4-g4294967295-sink4294967295",
];

fn kinds() -> impl Iterator<Item = (&'static str, TensorCodec)> {
    ALL_KINDS.map(|name| (name, key(name))).into_iter()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    fn all<T: Element + PartialEq + std::fmt::Debug>(of: impl Fn(f32) -> T) {
        for shape in [&[3, 131, 64][..], &[2, 5, 80], &[1, 257, 24]] {
            let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, shape[2]), shape[1]);
            let geometry = Geometry { rope: Some(&rope), ..Geometry::of_shape(shape) };
            let count = shape.iter().product();
            let values: Vec<T> = roughly_normal(count, 7).into_iter().map(&of).collect();
            for (name, codec) in kinds() {
                let run = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                    pool.build().unwrap().install(|| {
                        let payload = packed(codec, &values, &geometry);
                        let out = decoded::<T>(&payload, &geometry);
                        (payload, out)
                    })
                };
                let expected = run(1);
                for threads in [2, 3, 8] {
                    assert!(run(threads) == expected, "{name} on {threads} threads, {shape:?}");
                }
            }
        }
    }
    all(|x| x);
    all(f16::from_f32);
    all(bf16::from_f32);
}

/// A head does not depend on the others where groups do not cross its border.
#[test]
fn heads_stand_for_themselves() {
    let (tokens, dim) = (37, 64);
    let values = roughly_normal(4 * tokens * dim, 8);
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, dim), tokens);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(tokens, dim) };
    for name in ["int3-g32-asym", "int5-g9-ch-ctr-sink5", "int4-g64-prerope-ctr-had", "turbo4"] {
        let whole: Vec<f32> = decoded(&packed(key(name), &values, &geometry), &geometry);
        for (head, expected) in values.chunks(tokens * dim).zip(whole.chunks(tokens * dim)) {
            let alone: Vec<f32> = decoded(&packed(key(name), head, &geometry), &geometry);
            assert!(alone == expected, "{name}");
        }
    }
}

#[test]
fn sinks_are_kept_as_they_are() {
    let geometry = Geometry::rows(9, 16);
    let values: Vec<bf16> = roughly_normal(2 * 9 * 16, 9).into_iter().map(bf16::from_f32).collect();
    for (name, kept) in [("int2-g16-sink3", 3), ("int2-g16-mid-ch-had-sink9", 9), ("q4_0", 0)] {
        let out: Vec<bf16> = decoded(&packed(key(name), &values, &geometry), &geometry);
        for (out, values) in out.chunks(9 * 16).zip(values.chunks(9 * 16)) {
            let same = out.chunks(16).zip(values.chunks(16)).map(|(a, b)| a == b);
            assert_eq!(same.collect::<Vec<_>>(), (0..9).map(|row| row < kept).collect::<Vec<_>>());
        }
    }
}

/// Shapes at the ends of what there is, and codecs that fit none: what is stored comes back with
/// the same length, or an error says why not.
#[test]
fn shapes_and_names_made_to_break_it() {
    let huge = usize::MAX / 64;
    for shape in [
        &[][..],
        &[0],
        &[1],
        &[7],
        &[2],
        &[0, 0],
        &[1, 1],
        &[5, 0],
        &[0, 5],
        &[3, 0, 64],
        &[0, 3, 64],
        &[0, huge, 64],
        &[huge, 0, 2],
        &[2, 3, 1],
        &[2, 1, 2],
        &[3, 5, 7],
        &[1, 1, 1, 1, 4],
        &[1, 300, 2],
    ] {
        let geometry = Geometry::of_shape(shape);
        let count: usize = shape.iter().fold(1, |n: usize, d| n.saturating_mul(*d));
        let values = roughly_normal(count, 10);
        let rope =
            RotaryTable::new(&RotaryTable::frequencies_of(1e4, geometry.head_dim), geometry.tokens);
        for rope in [None, Some(&rope)] {
            let geometry = Geometry { rope, ..geometry };
            for (name, codec) in kinds() {
                let odd = !geometry.head_dim.is_multiple_of(2);
                let rotates = name.contains("had") || ["turbo4", "kvarn3"].contains(&name);
                let turns = name.contains("prerope");
                let result = codec.compress_measured(&values, &geometry);
                if (odd && (rotates || turns)) || (turns && rope.is_none()) {
                    assert!(result.is_err(), "{name} of {shape:?}");
                    continue;
                }
                let (payload, _) = result.unwrap();
                let mut out = vec![f32::NAN; count];
                payload.decompress(&geometry, &mut out);
                assert!(out.iter().all(|x| x.is_finite()), "{name} of {shape:?}");
            }
        }
    }
    // Turned by another model's frequencies.
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, 64), 5);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(5, 32) };
    let error =
        key("int4-prerope").compress_measured(&roughly_normal(160, 1), &geometry).unwrap_err();
    assert!(error.to_string().contains("a rotation of 64 values"), "{error}");
}

/// A tile depends on no other token of its head, and what is behind the last one stays as it is.
#[test]
fn tiles_stand_for_themselves() {
    let (tokens, dim) = (2 * 128 + 5, 32);
    let values: Vec<f32> =
        roughly_normal(2 * tokens * dim, 9).iter().map(|x| f16::from_f32(*x).to_f32()).collect();
    let geometry = Geometry::rows(tokens, dim);
    for name in ["kvarn4", "kvarn3-by-token", "kvarn2"] {
        let payload = packed(key(name), &values, &geometry);
        let whole: Vec<f32> = decoded(&payload, &geometry);
        for (head, whole) in values.chunks(tokens * dim).zip(whole.chunks(tokens * dim)) {
            let (last, whole_last) = (&head[256 * dim..], &whole[256 * dim..]);
            assert!(last == whole_last, "{name}: tail");
            for (tile, whole) in head.chunks(128 * dim).zip(whole.chunks(128 * dim)).take(2) {
                let geometry = Geometry::rows(128, dim);
                let alone: Vec<f32> = decoded(&packed(key(name), tile, &geometry), &geometry);
                assert!(alone == whole, "{name}");
            }
        }
        // Bits, scale and minimum of a row, and the scale of a column, as the method counts them.
        let bits = usize::from(name.as_bytes()[5] - b'0');
        let (rows, columns) = if name.ends_with("by-token") { (128, dim) } else { (dim, 128) };
        let tile = 128 * dim * bits / 8 + 2 * (2 * rows + columns);
        assert_eq!(payload.stored_bytes(), 4 * tile + 2 * 2 * 5 * dim, "{name}");
    }
}

/// Multiplied by a power of two the values are worth as much as before, whatever it is.
#[test]
fn the_magnitude_of_a_tensor_does_not_matter() {
    let (tokens, dim) = (70, 64);
    let values = roughly_normal(2 * tokens * dim, 11);
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, dim), tokens);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(tokens, dim) };
    let snr = |codec: TensorCodec, by: f32| {
        let values: Vec<f32> = values.iter().map(|x| x * by).collect();
        let out: Vec<f32> = decoded(&packed(codec, &values, &geometry), &geometry);
        DistortionSum::measure(&values, &out, dim).finish().snr_db.unwrap()
    };
    let more =
        ["int2-g64-s8", "int3-g64-asym-s8", "int2-g64-lm-s8", "int8-g64-s8", "int3-g64-mse-s8"];
    for (name, codec) in kinds().chain(more.map(|name| (name, key(name)))) {
        // Scales of these are absolute, or at least some number.
        let fixed = ["fp8-e4m3", "int8-per-token-head", "kvarn3", "hqq4"];
        if fixed.contains(&name) || name.ends_with("sink4294967295") {
            continue;
        }
        let usual = snr(codec, 1.0);
        for power in [-110, -60, -20, -9, -5, -2, -1, 1, 2, 4, 7, 13, 40, 90, 120] {
            let found = snr(codec, 2f32.powi(power));
            // 8-bit scales are up to 3 % off, more or less by chance.
            assert!((found - usual).abs() < 0.3, "{name}: {usual} dB, {found} dB at 2^{power}");
        }
    }
    // A rotation of very long vectors adds up to more than f16 holds.
    let geometry = Geometry::rows(1, 1 << 20);
    let ones = vec![100f32; 1 << 20];
    for name in ["int2-g64-had", "int4-g64-asym-had", "int2-g64-had-s8"] {
        let payload = packed(key(name), &ones, &geometry);
        assert!(payload.is_finite(), "{name}");
        let out: Vec<f32> = decoded(&payload, &geometry);
        let worst = out.iter().fold(0f32, |worst, x| worst.max((x - 100.0).abs()));
        assert!(worst < 5.0, "{name}: {worst}");
    }
}

fn snr(values: &[f32], out: &[f32], dim: usize) -> f64 {
    DistortionSum::measure(values, out, dim).finish().snr_db.unwrap()
}

/// Tiles whose magnitudes f16 does not hold, and whose rotation f32 does not.
#[test]
fn tiles_of_tiny_and_of_huge_values() {
    let dim = 64;
    let geometry = Geometry::rows(131, dim);
    let usual = roughly_normal(131 * dim, 5);
    for (name, least) in [("kvarn4", 19.0), ("kvarn3", 12.0)] {
        for power in [-110, -60, -24, -20, -17] {
            let values: Vec<f32> = usual.iter().map(|x| x * 2f32.powi(power)).collect();
            let out: Vec<f32> = decoded(&packed(key(name), &values, &geometry), &geometry);
            let found = snr(&values, &out, dim);
            assert!(found > least, "{name}: {found} dB at 2^{power}");
        }
        // Of one token among usual ones.
        for size in [2e38f32, 3.3e38] {
            let mut values = usual.clone();
            let huge = &mut values[7 * dim..8 * dim];
            huge.iter_mut().for_each(|x| *x = size.copysign(*x));
            let out: Vec<f32> = decoded(&packed(key(name), &values, &geometry), &geometry);
            let of_token = 7 * dim..8 * dim;
            let found = snr(&values[of_token.clone()], &out[of_token], dim);
            assert!(found > 9.0, "{name}: {found} dB of {size:e}");
        }
    }
}

/// A zero point stays within f16.
#[test]
fn a_small_range_far_from_zero_is_kept_by_hqq() {
    for center in [3.5f32, 10.0, -10.0, 100.0, 3e4] {
        let offsets = roughly_normal(64 * 64, 3);
        let width = center.abs() * 2e-5;
        let values: Vec<f32> = offsets.iter().map(|x| center + width * x).collect();
        let geometry = Geometry::rows(64, 64);
        for name in ["hqq4", "hqq2"] {
            let payload = packed(key(name), &values, &geometry);
            assert!(payload.is_finite(), "{name} at {center}");
            let out: Vec<f32> = decoded(&payload, &geometry);
            let worst =
                values.iter().zip(&out).fold(0f32, |worst, (x, y)| worst.max((x - y).abs()));
            assert!(worst < 2e-3 * center.abs(), "{name} at {center}: {worst}");
        }
    }
}

/// A search has the full range among what it tries: it never loses by more than rounding, however
/// small a range is beside its minimum.
#[test]
fn a_search_does_not_lose() {
    for (seed, center) in [0.0f32, 0.3, 4.0, -4.0, 60.0, 1000.0].into_iter().enumerate() {
        for width in [1e-3f32, 1.3e-3, 2e-3, 5e-3, 0.02, 0.3] {
            let offsets = roughly_normal(64 * 64, 7 + seed as u64);
            let width = width * center.abs().max(1.0);
            // A center of its own for each group, so that minima are rounded up and down.
            let values: Vec<f32> = offsets
                .iter()
                .enumerate()
                .map(|(index, x)| center + width * (index / 64) as f32 / 7.0 + width * 0.2 * x)
                .collect();
            let geometry = Geometry::rows(64, 64);
            for levels in ["sym", "asym", "mid", "lm"] {
                let field = if levels == "sym" { String::new() } else { format!("-{levels}") };
                let error = |name: String| {
                    let (payload, _) = key(&name).compress_measured(&values, &geometry).unwrap();
                    let mut decoded = vec![0f32; values.len()];
                    payload.decompress(&geometry, &mut decoded);
                    let groups = values.chunks(64).zip(decoded.chunks(64));
                    let error = groups.map(|(x, y)| {
                        x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>()
                    });
                    error.collect::<Vec<_>>()
                };
                let plain = error(format!("int4-g64{field}"));
                let searched = error(format!("int4-g64{field}-mse"));
                for (group, (plain, searched)) in plain.iter().zip(searched).enumerate() {
                    assert!(
                        searched <= plain * 1.001,
                        "{levels}, {center} ± {width}, group {group}: {searched:e}, {plain:e}"
                    );
                }
            }
        }
    }
}
