//! The INT4 block functions: every instruction set of this machine beside the scalar definition,
//! blocks beside one piece, and the distortion measured on the way beside the one measured
//! afterwards.

#[path = "common/random.rs"]
mod random;
#[path = "common/skip.rs"]
mod skip;

use half::{bf16, f16};
use kvgauge::codec::int4::{
    BlockLayout, BlockOutcome, Isa, block_len, compress_block, compress_block_with,
    decompress_block, decompress_block_with, exponent_for,
};
use kvgauge::codec::{Distortion, DistortionRun, DistortionSum, Element, Geometry, TensorCodec};
use random::roughly_normal;
use safetensors::{Dtype, SafeTensors};
use skip::skip;
use std::fmt::Debug;
use std::path::PathBuf;

trait Float: Element + Debug {
    fn of(value: f32) -> Self;
    fn bits(self) -> u32;
}

impl Float for f16 {
    fn of(value: f32) -> Self {
        f16::from_f32(value.clamp(-65_504.0, 65_504.0))
    }
    fn bits(self) -> u32 {
        self.to_bits().into()
    }
}

impl Float for bf16 {
    fn of(value: f32) -> Self {
        bf16::from_f32(value.clamp(bf16::MIN.to_f32(), bf16::MAX.to_f32()))
    }
    fn bits(self) -> u32 {
        self.to_bits().into()
    }
}

impl Float for f32 {
    fn of(value: f32) -> Self {
        value
    }
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

/// Values that a path could get wrong, by name.
fn patterns(count: usize) -> Vec<(&'static str, Vec<f32>)> {
    let noise = roughly_normal(count, 1);
    let each = |f: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        noise.iter().enumerate().map(|(index, x)| f(index, *x)).collect()
    };
    vec![
        ("random", noise.clone()),
        // Scales 1 and 0.25: every half code is a tie.
        ("ties", each(&|i, _| if i % 8 == 0 { 7.0 } else { (i % 29) as f32 / 2.0 - 7.0 })),
        ("small ties", each(&|i, _| if i % 8 == 0 { 1.75 } else { (i % 15) as f32 / 8.0 - 0.875 })),
        ("zeros", each(&|i, _| if i % 3 == 0 { -0.0 } else { 0.0 })),
        ("zeros in places", each(&|i, x| if i / 96 % 2 == 0 { x } else { x * 0.0 })),
        ("mostly zeros", each(&|i, x| if i % 37 == 5 { x } else { 0.0 })),
        ("constant", each(&|i, _| if i < count / 2 { -0.3 } else { 65_504.0 })),
        ("one outlier a while", each(&|i, x| if i % 150 == 17 { 300.0 } else { x * 0.1 })),
        ("f16's largest", each(&|i, x| if i % 50 == 0 { 65_504.0 } else { x * 20_000.0 })),
        ("scales about 2^-14", each(&|i, x| x * 1e-4 * ((i / 64 % 9) as f32 + 1.0))),
        ("f16 subnormals", each(&|_, x| x * 1e-6)),
        ("huge", each(&|_, x| x * 1e36)),
        ("largest", each(&|i, _| if i % 2 == 0 { f32::MAX } else { f32::MIN })),
        ("tiny", each(&|_, x| x * 1e-36)),
        ("f32 subnormals", each(&|_, x| x * 1e-43)),
        ("all magnitudes", each(&|i, x| x * 10f32.powi((i / 64 % 70) as i32 - 37))),
        ("magnitudes in a group", each(&|i, x| x * 10f32.powi((i % 64) as i32 - 45))),
    ]
}

const GROUPS: [usize; 12] = [8, 9, 16, 31, 32, 48, 64, 80, 96, 128, 256, 1000];
const HEAD_DIMS: [usize; 8] = [1, 7, 64, 80, 96, 128, 320, 576];
const LENS: [usize; 26] = [
    0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 79, 80, 127, 128, 129, 255, 256, 257, 1000, 2047,
    2049, 4095, 4096, 4097,
];

/// The outcome of a block by one instruction set, over memory that must not show through.
fn compressed<T: Element>(
    isa: Isa,
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
) -> (BlockOutcome, Vec<u8>, Vec<f16>) {
    let mut codes = vec![0xa5; values.len().div_ceil(2)];
    let mut scales = vec![f16::NAN; values.len().div_ceil(layout.group)];
    let outcome = compress_block_with(isa, values, layout, exponent, &mut codes, &mut scales);
    (outcome, codes, scales)
}

fn decompressed<T: Float>(
    isa: Isa,
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    len: usize,
) -> Vec<u32> {
    let mut out = vec![T::of(123.0); len];
    decompress_block_with(isa, codes, scales, group, exponent, &mut out);
    // NaN is NaN, whatever its bits.
    let bits = |x: &T| if x.to_f32().is_nan() { u32::MAX } else { x.bits() };
    out.iter().map(bits).collect()
}

fn assert_paths_agree<T: Float>(what: &str, values: &[T], layout: BlockLayout) {
    let len = values.len();
    let mut exponent = 0;
    loop {
        let expected = compressed(Isa::Scalar, values, layout, exponent);
        let (outcome, codes, scales) = &expected;
        assert!(outcome.finite, "{what}");
        let decoded = decompressed::<T>(Isa::Scalar, codes, scales, layout.group, exponent, len);
        for isa in Isa::available() {
            let what = format!(
                "{what}, {isa:?}, {}, {layout:?}, {len} values, exponent {exponent}",
                std::any::type_name::<T>()
            );
            let found = compressed(isa, values, layout, exponent);
            assert_eq!(found.2, *scales, "{what}: scales");
            assert_eq!(found.1, *codes, "{what}: codes");
            let flags = |outcome: &BlockOutcome| (outcome.finite, outcome.in_range);
            assert_eq!(flags(&found.0), flags(outcome), "{what}: finite, in range");
            // An infinite scale decodes to NaN, and nobody measures that.
            if scales.iter().all(|scale| scale.is_finite()) {
                // As text, which tells zeros apart.
                let text = |outcome: &BlockOutcome| format!("{:?}", outcome.distortion);
                assert_eq!(text(&found.0), text(outcome), "{what}: distortion");
            }
            let found = decompressed::<T>(isa, codes, scales, layout.group, exponent, len);
            assert!(found == decoded, "{what}: decoded values");
        }
        if outcome.in_range || exponent != 0 {
            return;
        }
        exponent = exponent_for(T::absmax(values));
    }
}

fn assert_paths_agree_on<T: Float>(what: &str, values: &[f32], layout: BlockLayout) {
    let values: Vec<T> = values.iter().map(|x| T::of(*x)).collect();
    assert_paths_agree(what, &values, layout);
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let all = patterns(4097 + 128);
    for group in GROUPS {
        for head_dim in HEAD_DIMS {
            for start in [0, 2 * group, 10 * group] {
                let layout = BlockLayout { group, head_dim, start };
                for (name, values) in &all {
                    let lens: &[usize] = if *name == "random" { &LENS } else { &[4096 + 75] };
                    for len in lens {
                        let values = &values[..*len];
                        assert_paths_agree_on::<f16>(name, values, layout);
                        assert_paths_agree_on::<bf16>(name, values, layout);
                        assert_paths_agree_on::<f32>(name, values, layout);
                    }
                }
            }
        }
    }
}

/// Long enough for every loop to go round many times, and for a group of many strips.
#[test]
fn long_blocks_give_the_same_bits() {
    let noise = roughly_normal(100_001, 2);
    for (group, head_dim) in
        [(64, 64), (64, 80), (32, 128), (128, 64), (20_000, 64), (50_000, 16), (64, 10_000)]
    {
        let layout = BlockLayout { group, head_dim, start: 4 * group };
        assert_paths_agree_on::<f16>("noise", &noise, layout);
        assert_paths_agree_on::<bf16>("noise", &noise, layout);
        assert_paths_agree_on::<f32>("noise", &noise, layout);
    }
}

/// Any bytes are codes, and any 16 bits a scale: a damaged file may hold them.
#[test]
fn any_codes_and_scales_decode_the_same() {
    let mut next = random::bits(3);
    for group in GROUPS {
        for len in [1_usize, 63, 64, 4096, 5000] {
            let codes: Vec<u8> = (0..len.div_ceil(2)).map(|_| next() as u8).collect();
            let count = len.div_ceil(group);
            let wild: Vec<f16> = (0..count).map(|_| f16::from_bits(next() as u16)).collect();
            let finite: Vec<f16> =
                wild.iter().map(|s| if s.is_finite() { *s } else { f16::MAX }).collect();
            for scales in [wild, finite] {
                for exponent in [0, 1, -1, 5, 30, -30, 110, -140, 252, -252, 253, -253, 1000] {
                    for isa in Isa::available() {
                        let same = |decoded: &dyn Fn(Isa) -> Vec<u32>| {
                            let what = format!("{isa:?}, group {group}, exponent {exponent}");
                            assert!(decoded(isa) == decoded(Isa::Scalar), "{what}, {len} values");
                        };
                        same(&|i| decompressed::<f16>(i, &codes, &scales, group, exponent, len));
                        same(&|i| decompressed::<bf16>(i, &codes, &scales, group, exponent, len));
                        same(&|i| decompressed::<f32>(i, &codes, &scales, group, exponent, len));
                    }
                }
            }
        }
    }
}

#[test]
fn real_keys_and_values_give_the_same_bits() {
    let shared = std::env::var_os("KVGAUGE_SHARED").map_or("../shared".into(), PathBuf::from);
    let path = shared.join("reference/smollm2_kv_first64.safetensors");
    let Ok(bytes) = std::fs::read(&path) else {
        return skip("block functions on a real cache", &format!("no {}", path.display()));
    };
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert!(!tensors.is_empty());
    for (name, tensor) in tensors.tensors() {
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => {
                let chunks = tensor.data().as_chunks::<4>().0.iter();
                chunks.map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Dtype::F16 => {
                let chunks = tensor.data().as_chunks::<2>().0.iter();
                chunks.map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
            }
            other => panic!("{name}: {other:?}"),
        };
        let head_dim = *tensor.shape().last().unwrap();
        for group in [32, 64, 128] {
            let layout = BlockLayout { group, head_dim, start: 0 };
            assert_paths_agree_on::<f16>(&name, &values, layout);
            assert_paths_agree_on::<bf16>(&name, &values, layout);
            assert_paths_agree_on::<f32>(&name, &values, layout);
            assert_measured(&name, &values, group, head_dim);
        }
    }
}

#[test]
fn values_that_are_not_finite_are_found_anywhere() {
    let values: Vec<f16> = roughly_normal(4100, 4).into_iter().map(f16::from_f32).collect();
    for (group, head_dim) in [(64, 64), (32, 80), (9, 7), (1000, 64), (16, 16)] {
        for position in [0, 1, 15, 16, 17, 31, 32, 63, 64, 1023, 1024, 2048, 4095, 4096, 4099] {
            for bad in [f16::NAN, -f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
                let mut halves = values.clone();
                halves[position] = bad;
                let brain: Vec<bf16> = halves.iter().map(|x| bf16::from_f32(x.to_f32())).collect();
                let wide: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
                let layout = BlockLayout { group, head_dim, start: 0 };
                for isa in Isa::available() {
                    for exponent in [0, -20] {
                        let what = format!("{bad} at {position}, {isa:?}, group {group}");
                        assert!(!compressed(isa, &halves, layout, exponent).0.finite, "{what}");
                        assert!(!compressed(isa, &brain, layout, exponent).0.finite, "{what}");
                        assert!(!compressed(isa, &wide, layout, exponent).0.finite, "{what}");
                    }
                }
                let codec = TensorCodec::int4(group);
                let error = codec
                    .compress_measured(&halves, &Geometry::rows(1, head_dim))
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(&format!("index {position}:")), "{error}");
            }
        }
    }
}

fn assert_close(what: &str, found: Option<f64>, expected: Option<f64>) {
    let close = match (found, expected) {
        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-6 * expected.abs(),
        _ => found == expected,
    };
    assert!(close, "{what}: expected {expected:?}, found {found:?}");
}

/// Fused figures beside those measured afterwards in f64.
fn assert_measured<T: Element>(what: &str, values: &[T], group: usize, head_dim: usize) -> f64 {
    let codec = TensorCodec::int4(group);
    let (payload, fused) = codec.compress_measured(values, &Geometry::rows(1, head_dim)).unwrap();
    let mut decoded = vec![T::default(); values.len()];
    payload.decompress(&Geometry::rows(1, head_dim), &mut decoded);
    let expected: Distortion = DistortionSum::measure(values, &decoded, head_dim).finish();
    let found = fused.finish();
    let what = format!("{what}, group {group}, head_dim {head_dim}, {} values", values.len());
    assert_close(&format!("{what}: rmse"), found.rmse, expected.rmse);
    // 1e-6 of the ratio of energies.
    let ratio = |d: Distortion| d.snr_db.map(|db| 10f64.powf(db / 10.0));
    assert_close(&format!("{what}: SNR"), ratio(found), ratio(expected));
    assert_close(&format!("{what}: cosine"), found.cosine, expected.cosine);
    found.snr_db.unwrap_or(f64::INFINITY)
}

fn assert_measured_as<T: Float>(what: &str, values: &[f32], group: usize, head_dim: usize) {
    let values: Vec<T> = values.iter().map(|x| T::of(*x)).collect();
    assert_measured(what, &values, group, head_dim);
}

#[test]
fn distortion_on_the_way_equals_the_one_measured_afterwards() {
    let all = patterns(100_001);
    for (group, head_dim) in
        [(64, 64), (64, 80), (9, 7), (128, 64), (32, 128), (1000, 96), (64, 1), (4096, 4096)]
    {
        for (name, values) in &all {
            for len in [1, 63, 64, 65, 8192, 100_001] {
                assert_measured_as::<f32>(name, &values[..len], group, head_dim);
                assert_measured_as::<bf16>(name, &values[..len], group, head_dim);
                assert_measured_as::<f16>(name, &values[..len], group, head_dim);
            }
        }
        assert_measured_as::<f32>("nothing", &[], group, head_dim);
    }
}

/// A tensor without head dimension has no values.
#[test]
fn nothing_has_no_distortion() {
    for codec in [TensorCodec::F16, TensorCodec::int4(64)] {
        let (payload, sum) = codec.compress_measured::<f16>(&[], &Geometry::rows(0, 0)).unwrap();
        assert!(payload.is_empty());
        let distortion = sum.finish();
        assert_eq!((distortion.rmse, distortion.snr_db, distortion.cosine), (None, None, None));
    }
}

#[test]
fn the_magnitude_of_a_tensor_does_not_matter() {
    let values = roughly_normal(64 * 1024, 5);
    for group in [32, 64, 128] {
        let usual = assert_measured("usual", &values, group, 64);
        for unit in [1e30, 1e-30] {
            let scaled: Vec<f32> = values.iter().map(|x| x * unit).collect();
            let brain: Vec<bf16> = scaled.iter().map(|x| bf16::from_f32(*x)).collect();
            let wide = assert_measured("scaled", &scaled, group, 64);
            assert!(wide > usual - 1.0, "{unit}: {wide} dB, usual ones {usual} dB");
            let brain = assert_measured("scaled", &brain, group, 64);
            assert!(brain > usual - 1.0, "{unit}: {brain} dB, usual ones {usual} dB");
        }
    }
}

#[test]
fn blocks_give_what_one_call_gives() {
    for (group, head_dim) in [(64, 64), (9, 7), (31, 80), (32, 4096), (1000, 64), (64, 96)] {
        let values = roughly_normal(70_001, 6);
        let layout = BlockLayout { group, head_dim, start: 0 };
        let (whole, codes, scales) = compressed(Isa::best(), &values, layout, 0);
        assert!(whole.finite && whole.in_range);
        let mut decoded = vec![0f32; values.len()];
        decompress_block(&codes, &scales, group, 0, &mut decoded);
        for target in [1, 1000, 4096, 65536] {
            let block = block_len(group, target);
            assert!(block.is_multiple_of(2 * group));
            let (mut all_codes, mut all_scales, mut all_decoded) = (vec![], vec![], vec![]);
            let mut run = DistortionRun::default();
            for (index, values) in values.chunks(block).enumerate() {
                let layout = BlockLayout { start: index * block, ..layout };
                let (outcome, codes, scales) = compressed(Isa::best(), values, layout, 0);
                run = run.then(outcome.distortion);
                let mut decoded = vec![0f32; values.len()];
                decompress_block(&codes, &scales, group, 0, &mut decoded);
                all_codes.extend(codes);
                all_scales.extend(scales);
                all_decoded.extend(decoded);
            }
            assert_eq!(all_codes, codes, "group {group}, blocks of {block}");
            assert_eq!(all_scales, scales, "group {group}, blocks of {block}");
            assert_eq!(all_decoded, decoded, "group {group}, blocks of {block}");
            let afterwards = DistortionSum::measure(&values, &decoded, head_dim).finish();
            for found in [run.finish().finish(), whole.distortion.finish().finish()] {
                assert_close("rmse", found.rmse, afterwards.rmse);
                assert_close("cosine", found.cosine, afterwards.cosine);
            }
        }
    }
}

/// The same bits at any number of threads.
#[test]
fn threads_do_not_change_a_bit() {
    let values = roughly_normal(300_001, 7);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            TensorCodec::int4(64).compress_measured(&values, &Geometry::rows(1, 80)).unwrap()
        })
    };
    let (payload, sum) = with(1);
    for threads in [2, 5] {
        assert_eq!(with(threads), (payload.clone(), sum), "{threads} threads");
    }
}

#[test]
fn a_block_of_another_exponent() {
    let values: Vec<f32> = roughly_normal(4096, 8).iter().map(|x| x * 1e-20).collect();
    let exponent = exponent_for(f32::absmax(&values));
    let layout = BlockLayout { group: 64, head_dim: 64, start: 0 };
    let (mut codes, mut scales) = (vec![0; 2048], vec![f16::ZERO; 64]);
    let outcome = compress_block(&values, layout, 0, &mut codes, &mut scales);
    assert!(outcome.finite && !outcome.in_range);
    let outcome = compress_block(&values, layout, exponent, &mut codes, &mut scales);
    assert!(outcome.finite && outcome.in_range);
    let mut decoded = vec![0f32; 4096];
    decompress_block(&codes, &scales, 64, exponent, &mut decoded);
    let (payload, sum) =
        TensorCodec::int4(64).compress_measured(&values, &Geometry::rows(1, 64)).unwrap();
    let mut expected = vec![0f32; 4096];
    payload.decompress(&Geometry::rows(1, 64), &mut expected);
    assert_eq!(decoded, expected);
    assert_eq!(sum, outcome.distortion.finish());
}
