//! `kv-compress` as a process beside `cp` of the same bytes.
//!
//! `cargo bench --bench files`. A file of 1 GiB of f16 in the page cache; runs in pairs, medians of
//! the ratios. `cp` writes as many bytes as its partner reads (compression) or writes
//! (decompression), packed or not. Peak resident memory is polled. Then a tiny file, in milliseconds.
//! Files go to `KVGAUGE_BENCH_FOLDER`, or the system's temporary folder.

#[allow(dead_code)]
#[path = "common/timing.rs"]
mod timing;

use half::f16;
use kvgauge::container::{TensorData, write_file};
use safetensors::Dtype;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use timing::seconds;

/// 1 GiB: 16 layers' keys and values.
const TENSORS: usize = 32;
const SHAPE: [usize; 3] = [8, 16384, 128];
const ROUNDS: usize = 7;
const TINY_ROUNDS: usize = 101;

fn main() {
    let folder = match std::env::var_os("KVGAUGE_BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .expect("a folder");
    std::env::set_current_dir(&folder).expect("the folder");
    make_inputs();
    println!("median of {ROUNDS} pairs: time beside `cp` of 1 GiB, range; seconds; peak memory");
    for sync in [true, false] {
        let flags: &[&str] = if sync { &["--force"] } else { &["--force", "--no-sync"] };
        let compress = [&["--input", "cache", "--output", "packed"], flags].concat();
        compare("compress", "cache", "packed", &compress, sync);
        let decompress = [&["--decompress", "--input", "packed", "--output", "restored"], flags];
        compare("decompress", "restored", "restored", &decompress.concat(), sync);
    }
    // Both ways, and what packing adds.
    let flags = &["--force", "--no-sync"][..];
    let compress = [&["--input", "cache", "--output", "packed", "--pack"], flags].concat();
    compare("compress --pack", "cache", "packed", &compress, false);
    let decompress = [&["--decompress", "--input", "packed", "--output", "restored"], flags];
    compare("decompress packed parts", "restored", "restored", &decompress.concat(), false);
    let mut times: Vec<f64> =
        (0..TINY_ROUNDS).map(|_| seconds(|| tiny(env!("CARGO_BIN_EXE_kv-compress")))).collect();
    times.sort_by(f64::total_cmp);
    println!("--metrics-only on a tiny file: {:.2} ms", 1e3 * times[TINY_ROUNDS / 2]);
}

fn tiny(program: &str) {
    let mut command = Command::new(program);
    command.args(["--input", "tiny", "--metrics-only"]).stdout(Stdio::null());
    assert!(command.status().expect("it starts").success());
}

/// Normal numbers, near enough: sums of four uniform ones.
fn make_inputs() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (0..4).map(|i| ((state >> (16 * i)) & 0xffff) as f32).sum::<f32>() / 65536.0 - 2.0
    };
    let values: Vec<u8> =
        (0..SHAPE.iter().product()).flat_map(|_| f16::from_f32(next()).to_le_bytes()).collect();
    let tensor = |name: String, shape: &[usize], data: &[u8]| TensorData {
        name,
        dtype: Dtype::F16,
        shape: shape.to_vec(),
        data: data.to_vec().into(),
    };
    let name = |i: usize| format!("layer.{}.{}", i / 2, ["key", "value"][i % 2]);
    let tensors: Vec<TensorData> = (0..TENSORS).map(|i| tensor(name(i), &SHAPE, &values)).collect();
    write_file(Path::new("cache"), &tensors, None).expect("written");
    let tiny = tensor("x.key".into(), &[1, 64, 64], &values[..2 * 64 * 64]);
    write_file(Path::new("tiny"), &[tiny], None).expect("written");
}

/// Peak resident memory, bytes.
fn run(arguments: &[&str]) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv-compress"));
    let mut child = command.args(arguments).stdout(Stdio::null()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Ok(text) = fs::read_to_string(&status)
            && let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:"))
        {
            let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
            peak = kib.unwrap_or(0) * 1024;
        }
        match child.try_wait().expect("it ends") {
            None => std::thread::sleep(Duration::from_micros(200)),
            Some(status) => {
                assert!(status.success());
                return peak;
            }
        }
    }
}

fn settle() {
    _ = Command::new("sync").arg("-f").arg(".").status();
}

/// Against `cp` of `copied`, alone and with the wait for the disk.
fn compare(name: &str, copied: &str, output: &str, arguments: &[&str], sync: bool) {
    // Inputs and outputs exist before the first round, and are in the page cache.
    run(arguments);
    let (mut alone, mut synced, mut times, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        // Neither replaces a file, which takes time, nor writes while another still waits for
        // the disk.
        _ = fs::remove_file("copy");
        settle();
        let copy = seconds(|| {
            let status = Command::new("cp").args([copied, "copy"]).status().expect("cp");
            assert!(status.success());
        });
        let wait = seconds(|| File::open("copy").and_then(|f| f.sync_all()).expect("synced"));
        _ = fs::remove_file(output);
        settle();
        let ours = seconds(|| peak = peak.max(run(arguments)));
        alone.push(ours / copy);
        synced.push(ours / (copy + wait));
        times.push(ours);
    }
    let show = |of: &str, ratios: &mut Vec<f64>| {
        ratios.sort_by(f64::total_cmp);
        let (low, mid, high) = (ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]);
        println!("  {of:<22} {mid:.2} ({low:.2} … {high:.2})");
    };
    times.sort_by(f64::total_cmp);
    let how = if sync { "synced" } else { "--no-sync" };
    println!("{name}, {how}: {:.3} s, {} MB", times[ROUNDS / 2], peak / 1_000_000);
    show("of cp", &mut alone);
    show("of cp and its sync", &mut synced);
}
