//! Every instruction set beside the scalar one, bit for bit: what is stored and what is decoded.

use super::kvarn::KvarnPayload;
use super::scheme::SchemePayload;
use super::two_centre::TwoCentrePayload;
use super::{Codec, Element, Geometry, Packing, Part, RotaryTable};
use crate::random;
use half::f16;
use pulp::Arch;

/// All of it as bytes, to tell zeros from each other: parts, exponent, and what is decoded.
fn stored_and_decoded<T: Element>(
    arch: Arch,
    packing: Packing,
    geometry: &Geometry,
    values: &[T],
) -> (Vec<u8>, i32, Vec<T>) {
    let mut out = vec![T::default(); values.len()];
    let (parts, exponent) = match packing {
        Packing::Scheme(scheme) => {
            let packed = SchemePayload::compress_on(arch, values, scheme, geometry).unwrap();
            packed.decompress_on(arch, geometry, &mut out);
            (bytes(packed.parts()), packed.exponent)
        }
        Packing::TwoCentre(codec) => {
            let packed = TwoCentrePayload::compress_on(arch, values, codec, geometry).unwrap();
            packed.decompress_on(arch, geometry, &mut out);
            (bytes(packed.parts()), packed.exponent)
        }
        Packing::Kvarn(codec) => {
            let packed = KvarnPayload::compress_on(arch, values, codec, geometry).unwrap();
            packed.decompress_on(arch, &mut out);
            (bytes(packed.parts()), packed.exponent)
        }
    };
    (parts, exponent, out)
}

fn bytes(parts: Vec<Part<&[u8]>>) -> Vec<u8> {
    parts.iter().flat_map(|part| part.content).copied().collect()
}

fn bytes_of<T: Element>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

fn archs() -> Vec<Arch> {
    let mut archs = vec![Arch::new()];
    #[cfg(target_arch = "x86_64")]
    archs.extend(pulp::x86::V3::try_new().map(Arch::V3));
    archs
}

/// With every codec of `names`; gives what was decoded.
fn agree<T: Element>(names: &[&str], values: &[T], tokens: usize, dim: usize) -> Vec<Vec<T>> {
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, dim), tokens);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(tokens, dim) };
    let mut all = Vec::new();
    for name in names {
        let codec: Codec = name.parse().unwrap();
        for codec in [codec.key, codec.value] {
            let packing = *codec.packing().unwrap();
            // Rotations of engines are not of every head vector.
            if packing.check(&geometry).is_err() {
                assert!(!dim.is_multiple_of(64) || !dim.is_power_of_two(), "{name} of {dim}");
                continue;
            }
            let scalar = stored_and_decoded(Arch::Scalar, packing, &geometry, values);
            for arch in archs() {
                let other = stored_and_decoded(arch, packing, &geometry, values);
                let [found, expected] = [&other.2, &scalar.2].map(|out| bytes_of(out));
                let same = (&other.0, other.1, found) == (&scalar.0, scalar.1, expected);
                assert!(same, "{name}, {tokens} head vectors of {dim}, {arch:?}");
            }
            all.push(scalar.2);
        }
    }
    all
}

const NAMES: [&str; 47] = [
    "kvgauge4",
    "kvgauge3",
    "kvgauge2",
    "kivi4",
    "q4_0",
    "q4_1",
    "q8_0",
    "iq4_nl",
    "turbo4",
    "fp8-e4m3",
    "fp8-e5m2",
    "fp8-e4m3-per-tensor",
    "fp8-e5m2-per-tensor",
    "fp8-per-token-head",
    "int8-per-token-head",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "nvfp4-per-tensor",
    "quanto2",
    "mlx2",
    "mlx3",
    "mlx8",
    "q5_1-had",
    "iq4_nl-had",
    "exllamav3-3",
    "exllamav3-8",
    "int4-per-token-head",
    "turboquant-k4-nc",
    "turboquant-k3-nc",
    "turboquant-v4",
    "turboquant-v3",
    "q2_1-had",
    "int3-g64-had-mse",
    "int5-g48-asym-mse",
    "int4-g24-ext-mse",
    "int4-g64-lm-mse",
    "int4-g64-had",
    "int4-g64-asym-had",
    "tc16",
    "k:te24-prerope-shape/v:te26",
    "k:te13-prerope-shape/v:te20",
    "int4-g64-mid-prerope-ctr-had-mse-s8-sink4",
    "kvarn3",
    "kvarn-k4v2",
    "hqq4",
    "hqq2",
];

/// Those that need 128 tokens.
const TILED: [&str; 2] = ["kvarn3", "kvarn-k4v2"];

/// Roughly normal; now and then a row of zeros, and values far from the others.
fn values(count: usize, dim: usize) -> Vec<f16> {
    let mut uniform = random::uniform(0);
    let mut value = |index: usize| {
        let size = if index / dim % 17 == 3 { 0.0 } else { 1.0 + (index % 13) as f32 };
        f16::from_f32(size * (uniform() + uniform() + uniform()))
    };
    (0..count).map(&mut value).collect()
}

#[test]
fn instruction_sets_agree() {
    for dim in [64, 128, 256, 192, 100, 96, 80, 72, 24, 16, 8] {
        agree(&TILED, &values(2 * 131 * dim, dim), 131, dim);
        for tokens in [53, 2, 1] {
            let values = values(2 * tokens * dim, dim);
            agree(&NAMES, &values, tokens, dim);
            let wide: Vec<f32> = values.iter().map(|half| half.to_f32() * 1e-3).collect();
            agree(&NAMES, &wide, tokens, dim);
        }
    }
}

/// Groups whose smallest and largest value is a zero, of either sign.
#[test]
fn zeros_agree() {
    for place in 0..64 {
        for rest in [1.0, -1.0, 0.0, -0.0] {
            let mut values = vec![rest; 128];
            values[64 + place] = -0.0f32;
            values[64 + (place + 8) % 64] = 0.0;
            agree(&NAMES, &values, 2, 64);
        }
    }
}

/// Butterflies of these overflow to infinities, and those to what is not a number.
#[test]
fn what_overflows_on_the_way_is_kept() {
    let large = 3e38f32;
    let mut apart = vec![0f32; 128];
    (0..4).for_each(|index| apart[64 + 16 * index] = large);
    let mut together = vec![0f32; 128];
    for (index, x) in together[64..80].iter_mut().enumerate() {
        let sign = if (index % 4 == 3) == (index < 12) { -1.0 } else { 1.0 };
        *x = sign * large;
    }
    let names = ["tc16", "tc19", "int4-g64-had", "int4-g64-asym-had", "int4-g64-had-mse"];
    for values in [apart, together] {
        for decoded in agree(&names, &values, 2, 64) {
            for (x, y) in values.iter().zip(&decoded) {
                assert!((x / large - y / large).abs() < 0.25, "{x:e} became {y:e}");
            }
        }
    }
}
