//! The INT4 codec against golden values that numpy worked out from the definition
//! (`data/make_int4_golden.py`), and its contract on other types and lengths.

#[path = "common/random.rs"]
mod random;

use half::{bf16, f16};
use kvgauge::codec::{Codec, DistortionSum, Element, Geometry, TensorCodec};
use serde_json::Value;

fn floats(hex: &str) -> Vec<f32> {
    let chunks = hex.as_bytes().as_chunks::<8>().0.iter();
    chunks
        .map(|c| f32::from_bits(u32::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap()))
        .collect()
}

fn round_trip<T: Element>(values: &[T], group: usize) -> (Vec<T>, usize) {
    let (payload, _) =
        TensorCodec::int4(group).compress_measured(values, &Geometry::rows(1, group)).unwrap();
    assert_eq!(payload.len(), values.len());
    let mut out = vec![T::default(); values.len()];
    payload.decompress(&Geometry::rows(1, group), &mut out);
    (out, payload.stored_bytes())
}

#[test]
fn golden_values_bit_for_bit() {
    let golden: Value = serde_json::from_str(include_str!("data/int4_golden.json")).unwrap();
    let cases = golden.as_array().unwrap();
    assert!(cases.len() >= 16);
    for case in cases {
        let (name, group) =
            (case["name"].as_str().unwrap(), case["group"].as_u64().unwrap() as usize);
        let values = floats(case["values"].as_str().unwrap());
        let expected = floats(case["decoded"].as_str().unwrap());
        let (found, stored) = round_trip(&values, group);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // The sign of zero is not kept.
            let same = found.to_bits() == expected.to_bits() || (*found == 0.0 && *expected == 0.0);
            assert!(same, "{name}: index {index}: expected {expected:e}, found {found:e}");
        }
        let exponent = usize::from(case["exponent"] != 0) * 2;
        assert_eq!(
            stored,
            values.len().div_ceil(2) + 2 * values.len().div_ceil(group) + exponent,
            "{name}"
        );
    }
}

fn noise(count: usize) -> Vec<f32> {
    let mut uniform = random::uniform(0);
    (0..count).map(|_| uniform()).collect()
}

/// Long tensors go through many parallel tasks; each group must come out as it does alone.
#[test]
fn a_group_does_not_depend_on_its_place() {
    for group in [8, 9, 31, 64, 1000, 40_000] {
        let values = noise(100_001);
        let (whole, _) = round_trip(&values, group);
        for (index, part) in values.chunks(group).enumerate() {
            let (alone, _) = round_trip(part, group);
            assert_eq!(
                whole[index * group..][..part.len()],
                alone,
                "group {group}, number {index}"
            );
        }
    }
}

#[test]
fn half_types_round_once_from_the_same_numbers() {
    let values = noise(4096);
    let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
    let widened: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
    let (from_half, _) = round_trip(&halves, 64);
    let (from_wide, _) = round_trip(&widened, 64);
    assert_eq!(from_half, from_wide.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>());

    let brain: Vec<bf16> = values.iter().map(|v| bf16::from_f32(v * 1e30)).collect();
    let (decoded, _) = round_trip(&brain, 64);
    let snr = DistortionSum::measure(&brain, &decoded, 64).finish().snr_db.unwrap();
    let (decoded, _) = round_trip(&values, 64);
    let usual = DistortionSum::measure(&values, &decoded, 64).finish().snr_db.unwrap();
    assert!(snr > usual - 1.0, "huge values: {snr} dB, usual ones {usual} dB");
}

/// 7 · f16(65504 / 7) is 65520, which f16 would round to infinity.
#[test]
fn the_largest_values_stay_finite() {
    let (decoded, _) = round_trip(&[f16::MAX, f16::MIN].repeat(8), 16);
    assert_eq!(decoded[..2], [f16::MAX, f16::MIN]);
    let (decoded, _) = round_trip(&[bf16::MAX, bf16::MIN].repeat(8), 16);
    assert!(decoded.iter().all(|v| v.is_finite()));
    let (decoded, _) = round_trip(&[f32::MAX, f32::MIN].repeat(8), 16);
    assert!(decoded.iter().all(|v| v.is_finite()));
}

#[test]
fn values_that_are_no_numbers_are_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = noise(100);
        values[63] = bad;
        for codec in ["int4-g64", "f16"] {
            let codec: Codec = codec.parse().unwrap();
            let error = codec
                .key
                .compress_measured(&values, &Geometry::rows(1, 10))
                .unwrap_err()
                .to_string();
            assert!(error.contains("63"), "{error}");
        }
    }
}

#[test]
fn distortion_by_hand() {
    // Two head vectors: (3, 4) → (3, 3) and (1, 0) → (1, 0).
    let sum = DistortionSum::measure(&[3f32, 4.0, 1.0, 0.0], &[3f32, 3.0, 1.0, 0.0], 2).finish();
    assert!((sum.rmse.unwrap() - 0.5).abs() < 1e-12);
    assert!((sum.snr_db.unwrap() - 10.0 * 26f64.log10()).abs() < 1e-12);
    let cosine = 21.0 / (5.0 * 18f64.sqrt());
    assert!((sum.cosine.unwrap() - (cosine + 1.0) / 2.0).abs() < 1e-12);
    let exact = DistortionSum::measure(&[1f32, 2.0], &[1f32, 2.0], 2).finish();
    assert_eq!((exact.snr_db, exact.rmse), (None, Some(0.0)));
}

/// A head vector whose range is beyond f32 once it is rotated: its scale takes an exponent.
#[test]
fn a_range_beyond_f32_comes_back_finite() {
    for name in ["int4-per-token-head", "int8-per-token-head", "fp8-per-token-head", "mlx4", "q4_1"]
    {
        let codec: Codec = name.parse().unwrap();
        let mut values = vec![0f32; 128];
        values[5] = 2e38;
        values[70] = -3e38;
        let geometry = Geometry::rows(2, 64);
        let (payload, _) = codec.key.compress_measured(&values, &geometry).unwrap();
        let mut decoded = vec![0f32; values.len()];
        payload.decompress(&geometry, &mut decoded);
        for (value, decoded) in values.iter().zip(&decoded) {
            assert!((value - decoded).abs() < 6e37, "{name}: {value} came back as {decoded}");
        }
    }
}
