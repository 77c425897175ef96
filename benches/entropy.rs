//! The entropy coder of packed files beside a plain copy of the same bytes, on one thread.
//!
//! `cargo bench --bench entropy [NAME …]`: for each codec the parts of the keys of [8 heads, 16384 tokens, 64],
//! Gaussian around a mean of each channel. Bytes after over before, and bytes before in GB/s and as a
//! multiple of `copy_from_slice` in the same round; medians of rounds. Where the program `zstd` is there, sizes
//! by its levels 1 and 19 beside it.

#[path = "common/timing.rs"]
mod timing;

use half::f16;
use kvgauge::codec::entropy::{BlockDecoder, encode_block};
use kvgauge::codec::{Codec, Geometry, RotaryTable};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use std::process::{Command, Stdio};
use timing::{median, seconds};

const SHAPE: [usize; 3] = [8, 16384, 64];
const ROUNDS: usize = 7;
/// Bytes of a block at most.
const BLOCK: usize = 1 << 16;
const CODECS: [&str; 8] =
    ["int4-g64", "q4_0", "q8_0", "kivi4", "kvgauge4", "int3-g64", "int2-g64", "f16"];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|name| name != "--bench").collect();
    let names: Vec<&str> = match asked.is_empty() {
        true => CODECS.to_vec(),
        false => asked.iter().map(String::as_str).collect(),
    };
    let [_, tokens, dim] = SHAPE;
    let values = values();
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, dim), tokens);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(tokens, dim) };
    println!(
        "codec, part                  bytes   size  zstd -1  -19   encode GB/s  copies   decode GB/s  copies"
    );
    for name in names {
        let codec = name.parse::<Codec>().expect("a codec").key;
        let (payload, _) = codec.compress_measured(&values, &geometry).expect("finite values");
        for part in payload.parts() {
            let symbols = codec.symbols(part.name, part.element, &geometry);
            let plain = part.content;
            // Whole head vectors, as files are packed.
            let block = BLOCK - BLOCK % symbols.row();
            if plain.is_empty() {
                continue;
            }
            let encode = || -> Vec<Vec<u8>> {
                let coded = |block: &[u8]| encode_block(block, symbols).unwrap_or(block.to_vec());
                plain.chunks(block).map(coded).collect()
            };
            let (mut out, mut decoder, mut coded) =
                (plain.to_vec(), BlockDecoder::default(), encode());
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..ROUNDS {
                let copy = seconds(|| out.copy_from_slice(plain));
                std::hint::black_box(&out);
                let encoding = seconds(|| coded = encode());
                let decoding = seconds(|| {
                    for (block, out) in coded.iter().zip(out.chunks_mut(block)) {
                        match block.len() == out.len() {
                            true => out.copy_from_slice(block),
                            false => decoder.decode(block, out).expect("an encoder's block"),
                        }
                    }
                });
                assert!(out == plain);
                times
                    .iter_mut()
                    .zip([copy, encoding, decoding])
                    .for_each(|(all, new)| all.push(new));
            }
            let [copy, encoding, decoding] = times.map(median);
            let size: usize = coded.iter().map(Vec::len).sum();
            let share = |bytes: usize| bytes as f64 / plain.len() as f64;
            let zstd = ["-1", "-19"].map(|level| zstd(level, plain).map_or(f64::NAN, share));
            let speed = |seconds: f64| plain.len() as f64 / seconds / 1e9;
            println!(
                "{:26} {:8}  {:.3}    {:.3}  {:.3}  {:12.3}  {:6.3}  {:12.3}  {:6.3}",
                format!("{name}, {}", part.name.as_str()),
                plain.len(),
                share(size),
                zstd[0],
                zstd[1],
                speed(encoding),
                copy / encoding,
                speed(decoding),
                copy / decoding,
            );
        }
    }
}

/// Bytes by the program of that name; `None`: it is not there.
fn zstd(level: &str, bytes: &[u8]) -> Option<usize> {
    let file = tempfile::NamedTempFile::new().ok()?;
    std::fs::write(file.path(), bytes).ok()?;
    let mut command = Command::new("zstd");
    command.args([level, "-q", "-c"]).arg(file.path()).stderr(Stdio::null());
    let output = command.output().ok()?;
    output.status.success().then_some(output.stdout.len())
}

fn values() -> Vec<f16> {
    let mut draw = StdRng::seed_from_u64(1);
    let mean: Vec<f32> = (0..SHAPE[2]).map(|_| StandardNormal.sample(&mut draw)).collect();
    let mut value = |index: usize| -> f32 {
        let noise: f32 = StandardNormal.sample(&mut draw);
        2.0 * mean[index % SHAPE[2]] + noise
    };
    (0..SHAPE.iter().product()).map(|index| f16::from_f32(value(index))).collect()
}
