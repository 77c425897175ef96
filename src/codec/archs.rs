//! Every instruction set beside the scalar one, bit for bit: what is stored and what is decoded.

use super::packing::{PackedTensor, Packing};
use super::payload::SchemePayload;
use super::two_centre::TwoCentrePayload;
use super::{Codec, Geometry, Rope};
use half::f16;
use pulp::Arch;

fn stored_and_decoded(
    arch: Arch,
    packing: Packing,
    geometry: &Geometry,
    values: &[f16],
) -> (PackedTensor, Vec<f16>) {
    let mut out = vec![f16::ZERO; values.len()];
    let packed = match packing {
        Packing::Scheme(scheme) => {
            let packed = SchemePayload::compress_on(arch, values, scheme, geometry).unwrap();
            packed.decompress_on(arch, geometry, &mut out);
            PackedTensor::Scheme(packed)
        }
        Packing::TwoCentre(codec) => {
            let packed = TwoCentrePayload::compress_on(arch, values, codec, geometry).unwrap();
            packed.decompress_on(arch, geometry, &mut out);
            PackedTensor::TwoCentre(packed)
        }
    };
    (packed, out)
}

/// Roughly normal; now and then a row of zeros, and values far from the others.
fn values(count: usize, dim: usize) -> Vec<f16> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let value = |index: usize| {
        let size = if index / dim % 17 == 3 { 0.0 } else { 1.0 + (index % 13) as f32 };
        f16::from_f32(size * (uniform() + uniform() + uniform()))
    };
    (0..count).map(value).collect()
}

#[test]
fn instruction_sets_agree() {
    let names = [
        "kvgauge4",
        "kivi4",
        "q4_0",
        "q4_1",
        "q8_0",
        "iq4_nl",
        "turbo4",
        "fp8-e4m3",
        "fp8-e5m2",
        "int3-g64-had-mse",
        "int5-g48-asym-mse",
        "int4-g24-ext-mse",
        "int4-g64-lm-mse",
        "int4-g64-mid-prerope-ctr-had-mse-s8-sink4",
    ];
    let mut archs = vec![Arch::new()];
    #[cfg(target_arch = "x86_64")]
    archs.extend(pulp::x86::V3::try_new().map(Arch::V3));
    for dim in [64, 128, 96, 80, 72] {
        let tokens = 53;
        let rope = Rope::new(&Rope::frequencies_of(1e4, dim), tokens);
        let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(tokens, dim) };
        let values = values(2 * tokens * dim, dim);
        for name in names {
            let codec: Codec = name.parse().unwrap();
            for codec in [codec.key, codec.value] {
                let packing = *codec.packing().unwrap();
                let scalar = stored_and_decoded(Arch::Scalar, packing, &geometry, &values);
                for arch in &archs {
                    let other = stored_and_decoded(*arch, packing, &geometry, &values);
                    assert!(other == scalar, "{name}, head vectors of {dim}, {arch:?}");
                }
            }
        }
    }
}
