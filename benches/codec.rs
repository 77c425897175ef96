//! The INT4 block functions beside a plain copy of the same values, one thread and two.
//!
//! `cargo bench --bench codec`. Ratios are bytes of input a second over those of
//! `copy_from_slice` (of the same input, on one thread, in the same round); medians of rounds.
//! Compression measures distortion on the way. `in memory` is
//! [`TensorCodec::compress_measured`] and [`Payload::decompress`], which allocate their output;
//! the others work block by block into memory that is there already.
//!
//! [`Payload::decompress`]: kvgauge::codec::Payload::decompress

#[allow(dead_code)]
#[path = "common/timing.rs"]
mod timing;

use half::{bf16, f16};
use kvgauge::codec::int4::{
    BlockLayout, Isa, block_len, compress_block_with, decompress_block_with,
};
use kvgauge::codec::{Element, Geometry, TensorCodec};
use rayon::prelude::*;
use timing::seconds;

/// Well beyond the caches.
const BYTES: usize = 64 << 20;
const ROUNDS: usize = 9;
/// Values in a block: it and its output fit a core's cache.
const BLOCK: usize = 1 << 15;

fn main() {
    println!("isa     threads  dtype  group  head_dim  GB/s copy  compress  decompress");
    let noise = noise(BYTES / 2);
    let halves: Vec<f16> = noise.iter().map(|x| f16::from_f32(*x)).collect();
    let brain: Vec<bf16> = noise.iter().map(|x| bf16::from_f32(*x)).collect();
    let floats = &noise[..BYTES / 4];
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            for isa in Isa::available() {
                for (group, head_dim) in [(64, 64), (64, 128), (64, 80), (32, 64), (128, 128)] {
                    blocks(isa, threads, "f16", &halves, group, head_dim);
                }
                blocks(isa, threads, "bf16", &brain, 64, 64);
                blocks(isa, threads, "f32", floats, 64, 64);
            }
            in_memory(threads, &halves);
        });
    }
}

fn blocks<T: Element>(
    isa: Isa,
    threads: usize,
    dtype: &str,
    values: &[T],
    group: usize,
    head_dim: usize,
) {
    let block = block_len(group, BLOCK);
    let mut codes = vec![0x88; values.len().div_ceil(2)];
    let mut scales = vec![f16::ONE; values.len().div_ceil(group)];
    let mut out = values.to_vec();
    let mut ratios = Ratios::default();
    for _ in 0..ROUNDS {
        let copy = seconds(|| out.copy_from_slice(values));
        let compress = seconds(|| {
            let run = values
                .par_chunks(block)
                .zip(codes.par_chunks_mut(block / 2))
                .zip(scales.par_chunks_mut(block / group))
                .enumerate()
                .map(|(index, ((values, codes), scales))| {
                    let layout = BlockLayout { group, head_dim, start: index * block };
                    compress_block_with(isa, values, layout, 0, codes, scales).distortion
                })
                .collect::<Vec<_>>();
            let sum = run.into_iter().reduce(|all, next| all.then(next));
            std::hint::black_box(sum);
        });
        let decompress = seconds(|| {
            out.par_chunks_mut(block)
                .zip(codes.par_chunks(block / 2))
                .zip(scales.par_chunks(block / group))
                .for_each(|((out, codes), scales)| {
                    decompress_block_with(isa, codes, scales, group, 0, out);
                });
        });
        ratios.push(copy, compress, decompress);
    }
    let isa = format!("{isa:?}");
    print!("{isa:<7} {threads:>7}  {dtype:<5}  {group:>5}  {head_dim:>8}  ");
    ratios.print(size_of_val(values));
}

fn in_memory(threads: usize, values: &[f16]) {
    let codec = TensorCodec::int4(64);
    let mut out = values.to_vec();
    let mut ratios = Ratios::default();
    for _ in 0..ROUNDS {
        let copy = seconds(|| out.copy_from_slice(values));
        let mut payload = None;
        let compress =
            seconds(|| payload = codec.compress_measured(values, &Geometry::rows(1, 64)).ok());
        let (payload, _) = payload.expect("finite values");
        let decompress = seconds(|| payload.decompress(&Geometry::rows(1, 64), &mut out));
        ratios.push(copy, compress, decompress);
    }
    print!("in memory {threads:>5}  f16       64        64  ");
    ratios.print(size_of_val(values));
}

/// Seconds of the copy, and what the others take less, round by round.
#[derive(Default)]
struct Ratios([Vec<f64>; 3]);

impl Ratios {
    fn push(&mut self, copy: f64, compress: f64, decompress: f64) {
        for (ratios, new) in self.0.iter_mut().zip([copy, copy / compress, copy / decompress]) {
            ratios.push(new);
        }
    }

    fn print(mut self, bytes: usize) {
        let [copy, compress, decompress] = self.0.each_mut().map(|ratios| {
            ratios.sort_by(f64::total_cmp);
            ratios[ratios.len() / 2]
        });
        println!("{:>9.1}  {compress:>8.3}  {decompress:>10.3}", bytes as f64 / copy / 1e9);
    }
}

/// Roughly normal, mean 0 and deviation 1.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| uniform() + uniform() + uniform()).collect()
}
