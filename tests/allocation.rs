//! Bytes that claim to be much more than they are cost no more memory than they are.

#[path = "common/random_model.rs"]
mod random_model;
#[path = "common/zoo.rs"]
#[allow(dead_code)]
mod zoo;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device};
use kvgauge::container::{Plan, Target, compress, decompress, inspect, read_file, write_file};
use kvgauge::whole_file::Existing;
use random_model::{Random, RandomModel, Spec};
use safetensors::Dtype;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tempfile::TempDir;

/// Counts what is allocated, and the largest that it ever was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated at most while `run` runs, beyond what there was.
fn peak(run: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    PEAK.load(Relaxed) - before
}

/// One test: others in this process would be counted too.
#[test]
fn memory_is_bounded_by_the_file() {
    models();
    files();
}

/// Counts, lengths and sizes in a model's files, at random as large as can be.
fn models() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let spec = Spec {
        vocab: 32,
        hidden: 32,
        intermediate: 32,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        ..Spec::default()
    };
    let model = RandomModel::new(7, spec);
    model.write_gguf(&path("model.gguf"), GgmlDType::Q8_0);
    model.write_folder(folder.path(), Dtype::F32);
    let load = |path: &std::path::Path| {
        let open = random_model::open(path);
        _ = open.and_then(|open| open.load(DType::F32, &Device::Cpu));
    };
    let mut random = Random::new(1);
    for name in ["model.gguf", "config.json", "tokenizer.json"] {
        let subject = if name == "model.gguf" { path(name) } else { folder.path().into() };
        let whole = fs::read(path(name)).unwrap();
        // Threads and what libraries keep.
        load(&subject);
        let header = if name == "model.gguf" { whole.len() / 3 } else { whole.len() };
        for round in 0..600 {
            let mut bytes = whole.clone();
            let at = random.below(header - 8);
            if name == "model.gguf" {
                let large = 1u64 << random.below(64);
                bytes[at..at + 8].copy_from_slice(&large.to_le_bytes());
            } else {
                // Digits in a row become a large number.
                let digits = bytes[at..].iter_mut().skip_while(|b| !b.is_ascii_digit());
                digits.take_while(|b| b.is_ascii_digit()).for_each(|b| *b = b'9');
            }
            fs::write(path(name), &bytes).unwrap();
            let found = peak(|| load(&subject));
            let most = 64 * whole.len() + (4 << 20);
            assert!(found < most, "{name}, round {round}, byte {at}: {found} bytes");
        }
        fs::write(path(name), &whole).unwrap();
    }
    // A whole number where one digit was.
    for key in ["vocab_size", "hidden_size", "num_hidden_layers", "head_dim", "intermediate_size"] {
        let mut config = model.config();
        config[key] = (1u64 << 28).into();
        fs::write(path("config.json"), config.to_string()).unwrap();
        assert!(peak(|| load(folder.path())) < 4 << 20, "{key}");
    }
}

fn files() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (source, packed, output) = (path("source"), path("packed"), path("output"));
    let plan = Plan::all("int4-g64".parse().unwrap());
    let target = |path| Target { path, existing: Existing::Replace, sync: false };
    let read_all = |file: &std::path::Path| {
        _ = inspect(file, true, &());
        if let Ok(file) = read_file(file) {
            for name in file.names() {
                _ = file.get_tensor_f32(name);
            }
        }
        _ = decompress(file, target(&output), &());
        _ = compress(file, Some(target(&output)), &plan, &());
    };
    write_file(&source, &zoo::tensors(), Some(zoo::metadata())).unwrap();
    compress(&source, Some(target(&packed)), &plan, &()).unwrap();
    // Threads and what libraries keep.
    read_all(&packed);

    for file in [&source, &packed] {
        let whole = fs::read(file).unwrap();
        let mut state = 1u64;
        for _ in 0..2_000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % whole.len();
                let digit = bytes[at].is_ascii_digit();
                bytes[at] = if at < 8 {
                    (state >> 20) as u8
                } else if digit {
                    b'9'
                } else {
                    bytes[at]
                };
            }
            if file == &packed && bytes[..8] == whole[..8] {
                zoo::repair(&mut bytes);
            }
            let damaged = path("damaged");
            fs::write(&damaged, &bytes).unwrap();
            let found = peak(|| read_all(&damaged));
            assert!(found < 64 * whole.len() + (64 << 10), "{found} bytes for {}", whole.len());
        }
    }
    // A header that promises a hundred megabytes.
    let damaged = path("damaged");
    fs::write(&damaged, [&99_999_999u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    assert!(peak(|| read_all(&damaged)) < 64 << 10);
    let shape = format!(
        r#"{{"x":{{"dtype":"F16","shape":[{}],"data_offsets":[0,{}]}}}}"#,
        1u64 << 40,
        1u64 << 41
    );
    fs::write(&damaged, [&(shape.len() as u64).to_le_bytes()[..], shape.as_bytes()].concat())
        .unwrap();
    assert!(peak(|| read_all(&damaged)) < 64 << 10);

    // And a large file less than it is.
    let values = zoo::numbers(8 << 20, 1);
    let large = zoo::tensor("x.key", safetensors::Dtype::F32, &[8 << 20], &values);
    write_file(&source, &[large], None).unwrap();
    for (from, to) in [(&source, &packed), (&packed, &output)] {
        let found = peak(|| match from == &source {
            true => drop(compress(from, Some(target(to)), &plan, &()).unwrap()),
            false => drop(decompress(from, target(to), &()).unwrap()),
        });
        let threads = rayon::current_num_threads();
        assert!(found < (threads + 1) * (6 << 20), "{found} bytes on {threads} threads");
    }
}
