//! The INT4 block functions: in blocks as in one piece, and the distortion they measure on the
//! way beside the one measured afterwards.

use half::{bf16, f16};
use kvgauge::codec::int4::{
    BlockLayout, absmax, block_len, compress_block, decompress_block, exponent_for,
};
use kvgauge::codec::{Distortion, DistortionRun, DistortionSum, Element, TensorCodec};

fn assert_close(what: &str, found: Option<f64>, expected: Option<f64>) {
    let close = match (found, expected) {
        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-6 * expected.abs(),
        _ => found == expected,
    };
    assert!(close, "{what}: expected {expected:?}, found {found:?}");
}

/// Fused figures beside those measured afterwards in f64.
fn assert_measured<T: Element>(what: &str, values: &[T], group: usize, head_dim: usize) {
    let codec = TensorCodec::Int4 { group };
    let (payload, fused) = codec.compress_measured(values, head_dim).unwrap();
    let mut decoded = vec![T::default(); values.len()];
    payload.decompress(&mut decoded);
    let expected: Distortion = DistortionSum::measure(values, &decoded, head_dim).finish();
    let found = fused.finish();
    let what = format!("{what}, group {group}, head_dim {head_dim}");
    assert_close(&format!("{what}: rmse"), found.rmse, expected.rmse);
    // 1e-6 of the ratio of energies.
    let ratio = |d: Distortion| d.snr_db.map(|db| 10f64.powf(db / 10.0));
    assert_close(&format!("{what}: SNR"), ratio(found), ratio(expected));
    assert_close(&format!("{what}: cosine"), found.cosine, expected.cosine);
}

/// Roughly normal, mean 0 and deviation 1.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = 88_172_645_463_325_252_u64 ^ seed << 32;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| uniform() + uniform() + uniform()).collect()
}

#[test]
fn fused_distortion_equals_the_one_measured_afterwards() {
    for (group, head_dim) in
        [(64, 64), (64, 80), (9, 7), (128, 64), (32, 128), (1000, 96), (64, 1), (4096, 4096)]
    {
        for len in [0, 1, 63, 64, 65, 8192, 100_001] {
            let values = noise(len, 1);
            let scaled = |unit: f32| values.iter().map(move |x| x * unit);
            for unit in [1.0, 1e-3, 1e30, 1e-30, 1e-40] {
                let wide: Vec<f32> = scaled(unit).collect();
                assert_measured("f32", &wide, group, head_dim);
                let brain: Vec<bf16> = scaled(unit).map(bf16::from_f32).collect();
                assert_measured("bf16", &brain, group, head_dim);
            }
            for unit in [1.0, 1e4, 1e-3, 1e-6] {
                let halves: Vec<f16> = scaled(unit).map(f16::from_f32).collect();
                assert_measured("f16", &halves, group, head_dim);
            }
        }
    }
}

#[test]
fn blocks_give_what_one_call_gives() {
    for (group, head_dim) in [(64, 64), (9, 7), (31, 80), (32, 4096), (1000, 64), (64, 96)] {
        let values = noise(70_001, 2);
        let exponent = 0;
        let mut codes = vec![0; values.len().div_ceil(2)];
        let mut scales = vec![f16::ZERO; values.len().div_ceil(group)];
        let layout = BlockLayout { group, head_dim, start: 0 };
        let whole = compress_block(&values, layout, exponent, &mut codes, &mut scales);
        assert!(whole.finite && whole.in_range);
        let mut decoded = vec![0f32; values.len()];
        decompress_block(&codes, &scales, group, exponent, &mut decoded);
        for target in [1, 1000, 4096, 65536] {
            let block = block_len(group, target);
            let (mut all_codes, mut all_scales, mut all_decoded) = (vec![], vec![], vec![]);
            let mut run = DistortionRun::default();
            for (index, values) in values.chunks(block).enumerate() {
                let mut codes = vec![0; values.len().div_ceil(2)];
                let mut scales = vec![f16::ZERO; values.len().div_ceil(group)];
                let layout = BlockLayout { group, head_dim, start: index * block };
                let outcome = compress_block(values, layout, exponent, &mut codes, &mut scales);
                run = run.then(outcome.distortion);
                let mut decoded = vec![0f32; values.len()];
                decompress_block(&codes, &scales, group, exponent, &mut decoded);
                all_codes.extend(codes);
                all_scales.extend(scales);
                all_decoded.extend(decoded);
            }
            assert_eq!(all_codes, codes, "group {group}, blocks of {block}");
            assert_eq!(all_scales, scales, "group {group}, blocks of {block}");
            assert_eq!(all_decoded, decoded, "group {group}, blocks of {block}");
            let (found, expected) = (run.finish().finish(), whole.distortion.finish().finish());
            assert_close("rmse", found.rmse, expected.rmse);
            assert_close("cosine", found.cosine, expected.cosine);
            let afterwards = DistortionSum::measure(&values, &decoded, head_dim).finish();
            assert_close("cosine afterwards", found.cosine, afterwards.cosine);
        }
    }
}

#[test]
fn a_block_of_another_exponent() {
    let values: Vec<f32> = noise(4096, 3).iter().map(|x| x * 1e-20).collect();
    let exponent = exponent_for(absmax(&values));
    let layout = BlockLayout { group: 64, head_dim: 64, start: 0 };
    let (mut codes, mut scales) = (vec![0; 2048], vec![f16::ZERO; 64]);
    let outcome = compress_block(&values, layout, 0, &mut codes, &mut scales);
    assert!(outcome.finite && !outcome.in_range);
    let outcome = compress_block(&values, layout, exponent, &mut codes, &mut scales);
    assert!(outcome.finite && outcome.in_range);
    let mut decoded = vec![0f32; 4096];
    decompress_block(&codes, &scales, 64, exponent, &mut decoded);
    let (payload, sum) = TensorCodec::Int4 { group: 64 }.compress_measured(&values, 64).unwrap();
    let mut expected = vec![0f32; 4096];
    payload.decompress(&mut expected);
    assert_eq!(decoded, expected);
    assert_eq!(sum, outcome.distortion.finish());
}
