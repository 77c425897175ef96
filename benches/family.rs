//! The codec family beside a plain copy of the same values, on one thread.
//!
//! `cargo bench --bench family [NAME …]`: for keys and for values of [8 heads, 32768 tokens, 64 and 128],
//! f16 and f32, each codec's quantising (to all parts of a payload, nothing measured) and dequantising.
//! Ratios are bytes of input a second over those of `copy_from_slice` of the same input in the same
//! round; medians of rounds.

#[path = "common/timing.rs"]
mod timing;

use half::f16;
use kvgauge::codec::{Codec, Element, Geometry, Packing, Payload, RotaryTable, TensorCodec};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use timing::{median, seconds};

const HEADS: usize = 8;
const TOKENS: usize = 32768;
const ROUNDS: usize = 7;
const CODECS: [&str; 38] = [
    "kvgauge4",
    "kvgauge3",
    "kvgauge2",
    "kivi4",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "iq4_nl",
    "quanto4",
    "turbo4",
    "fp8-e4m3",
    "fp8-e5m2",
    "fp8-e4m3-per-tensor",
    "fp8-per-token-head",
    "int8-per-token-head",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "int4-per-token-head",
    "q4_0-had",
    "exllamav3-4",
    "mlx4",
    "mlx3",
    "int2-g64",
    "int3-g64",
    "int5-g64-asym",
    "int6-g64",
    "int8-g64",
    "int4-g64-mid-had",
    "int5-g64-lm-had",
    "int4-g64-had-mse",
    "int4-g64-asym-mse",
    "int4-g64-lm-mse",
    "int4-g64-mid-prerope-ctr-had-mse-s8-sink4",
    "int4-g64-asym-ch-mse",
    "int4-g48-asym",
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|name| name != "--bench").collect();
    let names: Vec<&str> = match asked.is_empty() {
        true => CODECS.to_vec(),
        false => asked.iter().map(String::as_str).collect(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    for head_dim in [64, 128] {
        println!("head_dim {head_dim}; copy in GB/s, the others as its multiples");
        let [copy, quantise, dequantise] = ["copy", "quantise", "dequantise"];
        print!("{:44}", "codec");
        for name in ["f16", "f32"] {
            print!("  {name}: {copy:>5} {quantise:>9} {dequantise:>11}");
        }
        println!();
        let halves = values(head_dim);
        let floats: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        for name in &names {
            let codec: Codec = name.parse().expect("a codec");
            for (side, codec) in [("keys", codec.key), ("values", codec.value)] {
                if side == "keys" || codec != name.parse::<Codec>().expect("a codec").key {
                    print!("{:44}", format!("{name}, {side}"));
                    pool.install(|| measure(codec, &halves, head_dim));
                    pool.install(|| measure(codec, &floats, head_dim));
                    println!();
                }
            }
        }
    }
}

/// Gaussian, around a mean of each channel.
fn values(head_dim: usize) -> Vec<f16> {
    let mut draw = StdRng::seed_from_u64(1);
    let mean: Vec<f32> = (0..head_dim).map(|_| StandardNormal.sample(&mut draw)).collect();
    let mut value = |index: usize| -> f32 {
        let noise: f32 = StandardNormal.sample(&mut draw);
        mean[index % head_dim] + noise
    };
    (0..HEADS * TOKENS * head_dim).map(|index| f16::from_f32(value(index))).collect()
}

fn measure<T: Element>(codec: TensorCodec, values: &[T], head_dim: usize) {
    let Some(packing) = codec.packing().copied() else { return };
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, head_dim), TOKENS);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(TOKENS, head_dim) };
    let mut out = values.to_vec();
    let [mut copies, mut quantising, mut dequantising] = [const { Vec::new() }; 3];
    let mut packed = pack(values, packing, &geometry);
    for _ in 0..ROUNDS {
        let copy = seconds(|| out.copy_from_slice(values));
        std::hint::black_box(&out);
        let quantise = seconds(|| packed = pack(values, packing, &geometry));
        let dequantise = seconds(|| packed.decompress(&geometry, &mut out));
        copies.push(size_of_val(values) as f64 / copy / 1e9);
        quantising.push(copy / quantise);
        dequantising.push(copy / dequantise);
    }
    let [copy, quantise, dequantise] = [copies, quantising, dequantising].map(median);
    print!("  {copy:10.1} {quantise:9.3} {dequantise:11.3}");
}

fn pack<T: Element>(values: &[T], packing: Packing, geometry: &Geometry) -> Payload {
    Payload::pack(values, packing, geometry).expect("finite values")
}
