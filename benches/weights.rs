//! Dequantising GGUF's types of weights on one thread: f32 bytes written a second beside
//! `copy_from_slice` of as many, in the processor's cache and out of it, and beside candle where
//! candle has the type.
//!
//! `cargo bench --bench weights [-- TYPE…]`, by llama.cpp's names. One line a type: GB/s, and medians
//! of the paired ratios.

#[allow(dead_code)]
#[path = "common/timing.rs"]
mod timing;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QTensor, ggml_file::qtensor_from_ggml};
use kvgauge::model::WeightType;
use std::time::Instant;
use timing::median;

const ROUNDS: usize = 9;
/// Values: 256 KiB and 64 MiB of f32.
const SIZES: [usize; 2] = [1 << 16, 1 << 24];

fn main() -> kvgauge::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!("type      GB/s in cache  of a copy  GB/s of 64 MiB  of a copy  of candle's");
    for (number, kind) in (0..64).filter_map(|n| Some((n, WeightType::of(n)?))) {
        let named = wanted.is_empty() || wanted.iter().any(|name| name == kind.name);
        if kind.is_read() && named {
            measure(number, kind)?;
        }
    }
    Ok(())
}

fn measure(number: u32, kind: WeightType) -> kvgauge::Result<()> {
    print!("{:<8}", kind.name);
    for values in SIZES {
        let bytes = bytes(values / kind.block as usize * kind.bytes as usize);
        let (ones, mut out) = (vec![1f32; values], vec![0f32; values]);
        let repeats = SIZES[1] / values;
        let mut ours = Vec::new();
        let mut copies = Vec::new();
        let mut candles = Vec::new();
        let theirs = (values == SIZES[1]).then(|| candle(number, &bytes, values)).flatten();
        for round in 0..=ROUNDS {
            let decoding = seconds(repeats, || kind.dequantise(&bytes, &mut out))?;
            let copying = seconds(repeats, || {
                std::hint::black_box(&mut out).copy_from_slice(&ones);
                Ok(())
            })?;
            let candling = match &theirs {
                Some(tensor) => seconds(1, || {
                    std::hint::black_box(tensor.dequantize(&Device::Cpu)?);
                    Ok(())
                })?,
                None => f64::NAN,
            };
            // The first round warms caches and the allocator.
            if round > 0 {
                ours.push((4 * values * repeats) as f64 / decoding / 1e9);
                copies.push(copying / decoding);
                candles.push(candling / decoding);
            }
        }
        print!("  {:>13.1}  {:>9.2}", median(ours), median(copies));
        if values == SIZES[1] {
            match theirs {
                Some(_) => print!("  {:>10.2}", median(candles)),
                None => print!("           -"),
            }
        }
    }
    println!();
    Ok(())
}

/// The same blocks in candle, where it has them.
fn candle(number: u32, bytes: &[u8], values: usize) -> Option<QTensor> {
    let kind = match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    };
    qtensor_from_ggml(kind, bytes, vec![values / 4096, 4096], &Device::Cpu).ok()
}

/// Random, with exponents that leave every value finite and few subnormal.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8 & 0xbf
    };
    (0..count).map(|_| next()).collect()
}

fn seconds(repeats: usize, mut work: impl FnMut() -> kvgauge::Result<()>) -> kvgauge::Result<f64> {
    let clock = Instant::now();
    for _ in 0..repeats {
        work()?;
    }
    Ok(clock.elapsed().as_secs_f64())
}
