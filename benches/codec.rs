//! The in-memory codec beside a plain copy of the same f16 values, one thread and two.
//!
//! `cargo bench --bench codec`. Ratios are bytes of f16 input a second over those of
//! `copy_from_slice` in the same round; medians of rounds.

use half::f16;
use kvgauge::codec::{DistortionSum, TensorCodec};
use std::time::Instant;

/// 64 MiB of f16: well beyond the caches.
const VALUES: usize = 32 << 20;
const ROUNDS: usize = 9;

fn main() {
    let mut state = 1u64;
    let values: Vec<f16> = (0..VALUES)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f16::from_f32((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        })
        .collect();
    println!("threads  operation             ratio to copy_from_slice");
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| measure(threads, &values));
    }
}

fn measure(threads: usize, values: &[f16]) {
    let codec = TensorCodec::Int4 { group: 64 };
    let mut out = vec![f16::ZERO; values.len()];
    let mut ratios = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let copy = seconds(|| out.copy_from_slice(values));
        let mut payload = None;
        let compress = seconds(|| payload = codec.compress_measured(values, 64).ok());
        let (payload, _) = payload.expect("finite values");
        let decompress = seconds(|| payload.decompress(&mut out));
        let distortion = seconds(|| {
            std::hint::black_box(DistortionSum::measure(values, &out, 64));
        });
        for (ratios, time) in ratios.iter_mut().zip([compress, decompress, distortion]) {
            ratios.push(copy / time);
        }
    }
    for (name, mut ratios) in
        ["compress int4-g64", "decompress int4-g64", "distortion"].into_iter().zip(ratios)
    {
        ratios.sort_by(f64::total_cmp);
        println!("{threads:>7}  {name:<20}  {:.3}", ratios[ROUNDS / 2]);
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let clock = Instant::now();
    work();
    clock.elapsed().as_secs_f64()
}
