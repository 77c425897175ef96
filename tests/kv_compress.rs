//! `kv-compress` as a user and as another program meet it: command lines, JSON, exit status,
//! and what is left of files when a run is killed, a disk is full or others write too.

#[path = "common/cli.rs"]
#[allow(dead_code)]
mod cli;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/zoo.rs"]
#[allow(dead_code)]
mod zoo;

use cli::{Answer, run_command};
use folder::names_in;
use kvgauge::container::{self, TensorData, read_file, write_file};
use safetensors::Dtype;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv-compress"));
    command.env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    command
}

/// A folder with `cache.safetensors`: real-looking f16 keys and values.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.write_cache("cache.safetensors", 2, 1);
        folder
    }

    fn write_cache(&self, name: &str, layers: usize, seed: u64) {
        let tensor = |index: usize| {
            let part = if index.is_multiple_of(2) { "key" } else { "value" };
            let values = zoo::numbers(2 * 64 * 64, seed * 1000 + index as u64);
            zoo::tensor(&format!("layer.{}.{part}", index / 2), Dtype::F16, &[2, 64, 64], &values)
        };
        let tensors: Vec<TensorData> = (0..2 * layers).map(tensor).collect();
        write_file(&self.path(name), &tensors, None).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs in the folder.
    fn run(&self, words: &str) -> Answer {
        let mut command = binary();
        command.current_dir(self.0.path()).args(words.split_whitespace());
        run_command(command)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        names_in(self.0.path())
    }
}

const SEVEN: [&str; 7] = [
    "compression_ratio",
    "original_size_bytes",
    "compressed_size_bytes",
    "rmse",
    "snr_db",
    "cosine_similarity",
    "quality_passed",
];

fn assert_seven(metrics: &Value) {
    for key in SEVEN {
        let value = &metrics[key];
        match key {
            "quality_passed" => assert!(value.is_boolean(), "{key}: {metrics}"),
            "original_size_bytes" | "compressed_size_bytes" => assert!(value.is_u64(), "{metrics}"),
            _ => assert!(value.is_f64(), "{key}: {metrics}"),
        }
    }
}

#[test]
fn the_three_command_lines_of_the_decision_record() {
    let folder = Folder::new();
    let made = folder
        .run("-input cache.safetensors -output compressed.safetensors -group-size 64")
        .succeeds()
        .json();
    assert_seven(&made);
    let size = |name: &str| folder.read(name).len() as f64;
    let (before, after) = (size("cache.safetensors"), size("compressed.safetensors"));
    assert_eq!(made["original_size_bytes"], before as u64);
    assert_eq!(made["compressed_size_bytes"], after as u64);
    assert_eq!(made["compression_ratio"].as_f64(), Some(before / after));
    // Nothing is written for metrics only, and they are the same.
    let metrics = folder.run("-input cache.safetensors -metrics-only").succeeds().json();
    assert_eq!(metrics, made);
    assert_eq!(folder.names(), ["cache.safetensors", "compressed.safetensors"]);
    // Decompression reports what was measured when the file was made.
    let read = folder
        .run("-decompress -input compressed.safetensors -output decompressed.safetensors")
        .succeeds()
        .json();
    assert_eq!(read, made);
    assert_eq!(folder.read("decompressed.safetensors").len(), before as usize);
    // The distortion of the file that came out, worked out here.
    let (source, restored) =
        (folder.path("cache.safetensors"), folder.path("decompressed.safetensors"));
    let (source, restored) = (read_file(&source).unwrap(), read_file(&restored).unwrap());
    let (mut energy, mut error, mut values) = (0.0, 0.0, 0.0);
    for name in source.names() {
        let (x, y) = (source.get_tensor_f32(name).unwrap(), restored.get_tensor_f32(name).unwrap());
        for (x, y) in x.into_iter().zip(y) {
            energy += f64::from(x).powi(2);
            error += f64::from(x - y).powi(2);
            values += 1.0;
        }
    }
    let close = |key: &str, expected: f64| {
        let found = made[key].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-6, "{key}: {found} {expected}");
    };
    close("rmse", (error / values).sqrt());
    close("snr_db", 10.0 * (energy / error).log10());
}

#[test]
fn one_dash_two_dashes_and_the_subcommand_are_one() {
    let folder = Folder::new();
    let made =
        folder.run("-input cache.safetensors -metrics-only -group-size=32").succeeds().stdout;
    for words in [
        "--input cache.safetensors --metrics-only --group-size 32",
        "--input=cache.safetensors --metrics-only --codec int4-g32",
        "-metrics-only -codec=int4-g32 -input=cache.safetensors --threads 1",
    ] {
        assert_eq!(folder.run(words).succeeds().stdout, made, "{words}");
        let mut command = cli::kvgauge();
        command.current_dir(folder.0.path()).arg("kv-compress").args(words.split(' '));
        assert_eq!(run_command(command).succeeds().stdout, made, "{words}");
    }
}

#[test]
fn an_output_is_replaced_only_by_force() {
    let folder = Folder::new();
    fs::write(folder.path("out"), "precious").unwrap();
    for words in ["-input cache.safetensors -output out", "-input cache.safetensors -output ./out"]
    {
        let answer = folder.run(words);
        answer.is_refused(&["out", "exists already"]);
        answer.hints("--force");
    }
    assert_eq!(folder.read("out"), b"precious");
    folder.run("-input cache.safetensors -output out --force").succeeds();
    assert!(folder.read("out").len() > 100);
    folder
        .run("-input cache.safetensors -output cache.safetensors -force")
        .is_refused(&["another file"]);
    folder.run("-decompress -input out -output cache.safetensors").is_refused(&["exists already"]);
    // A link is followed: what it leads to is replaced, the link stays.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("out", folder.path("link")).unwrap();
        folder.run("-input cache.safetensors -output link").is_refused(&["exists already"]);
        fs::write(folder.path("out"), "precious").unwrap();
        folder.run("-input cache.safetensors -output link --force --no-sync").succeeds();
        assert!(folder.path("link").is_symlink() && folder.read("out").len() > 100);
    }
}

#[test]
fn quality_passed_and_strict() {
    let folder = Folder::new();
    let passed = |words: &str, status: i32| {
        let answer = folder.run(&format!("-input cache.safetensors -metrics-only {words}"));
        answer.ends_with_result(status).json()["quality_passed"].as_bool().unwrap()
    };
    assert!(passed("--min-snr-db 10 --min-cosine 0.9", 0));
    assert!(!passed("--min-snr-db 100", 0));
    assert!(!passed("--min-cosine 1", 0));
    assert!(!passed("--min-snr-db 100 --strict", 1));
    assert!(passed("--min-snr-db -5 --min-cosine -1 --strict", 0));
    assert!(passed("--codec f16 --min-snr-db 1000 --strict", 0), "f16 as f16 has no error");
    // The result of a run that missed a limit is there all the same.
    let words = "-input cache.safetensors -output out -strict -min-snr-db 99";
    folder.run(words).ends_with_result(1);
    folder.run("-decompress -input out -output back -strict -min-snr-db 99").ends_with_result(1);
    assert!(folder.path("back").exists());
}

/// A result on stdout, this status, and one note on stderr with these words.
#[track_caller]
fn notes(answer: &Answer, status: i32, words: &[&str]) -> Value {
    assert_eq!(answer.status, Some(status), "{}", answer.stderr);
    let lines: Vec<&str> = answer.stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("note: "), "{}", answer.stderr);
    for word in words {
        assert!(lines[0].contains(word), "no {word:?}: {}", answer.stderr);
    }
    answer.json()
}

/// A cache of which nothing was compressed has passed nothing.
#[test]
fn nothing_measured_is_nothing_passed() {
    let folder = Folder::new();
    let bytes = |name: &str, dtype, shape: &[usize], width: usize| TensorData {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
        data: vec![0x3c; shape.iter().product::<usize>() * width].into(),
    };
    let scale = |name: &str| zoo::tensor(name, Dtype::F32, &[], &[0.05]);
    let shape = &[2, 8, 16][..];
    let fp8 = |name: &str| bytes(name, Dtype::F8_E4M3, shape, 1);
    let cases = [
        (
            "fp8",
            vec![fp8("a.key"), fp8("a.value"), scale("k_scale"), scale("v_scale")],
            vec!["2 F8_E4M3", "2 F32 of one value", "nothing was compressed"],
        ),
        ("fp8-e5m2", vec![bytes("a.key", Dtype::F8_E5M2, shape, 1)], vec!["1 F8_E5M2"]),
        ("bytes", vec![bytes("tensor_bytes", Dtype::U8, &[3, 2, 96, 128], 1)], vec!["1 U8"]),
        (
            "double",
            vec![bytes("a.key", Dtype::F64, shape, 8), bytes("a.value", Dtype::F64, shape, 8)],
            vec!["2 F64", "F16, BF16 and F32 are compressed"],
        ),
        (
            "int8",
            vec![bytes("a.key", Dtype::I8, shape, 1), scale("s")],
            vec!["1 I8", "1 F32 of one value"],
        ),
        ("scalars", vec![scale("a"), scale("b"), scale("c")], vec!["3 F32 of one value"]),
        ("empty", vec![], vec!["no tensors"]),
    ];
    for (name, tensors, words) in cases {
        write_file(&folder.path(name), &tensors, None).unwrap();
        for flags in ["", "--min-snr-db -99 --min-cosine -1", "--codec f16", "--codec q4_0"] {
            let words_of = |more: &str| format!("-input {name} {more} {flags}");
            let json = notes(&folder.run(&words_of("-metrics-only")), 0, &words);
            assert_eq!(json["quality_passed"], false, "{name} {flags}");
            for key in ["rmse", "snr_db", "cosine_similarity", "bits_per_value"] {
                assert_eq!(json[key], Value::Null, "{name} {key}");
            }
            let json = notes(&folder.run(&words_of("-metrics-only --strict")), 1, &words);
            assert_eq!(json["tensors_compressed"], 0);
        }
        // The file is there and holds what was put in; taken out, it has passed nothing either.
        notes(&folder.run(&format!("-input {name} -output {name}.kvc")), 0, &words);
        let back = format!("-decompress -input {name}.kvc -output {name}.back");
        notes(&folder.run(&format!("{back} --strict")), 1, &["nothing was compressed"]);
        assert_eq!(folder.read(&format!("{name}.back")), folder.read(name));
    }
    // Empty tensors have no values to measure, and need no word.
    let tensors = [zoo::tensor("a.key", Dtype::F16, &[2, 0, 64], &[])];
    write_file(&folder.path("hollow"), &tensors, None).unwrap();
    let json = folder.run("-input hollow -metrics-only --strict").ends_with_result(1).json();
    assert_eq!((&json["quality_passed"], &json["rmse"]), (&false.into(), &Value::Null));
    // All left out by name.
    let words = "-input cache.safetensors -metrics-only --exclude * --strict";
    notes(&folder.run(words), 1, &["4 F16 left out by name"]);
}

/// The scales of a cache in 8 bits are compressed; the cache is not, and has passed nothing.
#[test]
fn scales_are_not_the_cache() {
    let folder = Folder::new();
    let bytes = |name: &str, dtype| TensorData {
        name: name.into(),
        dtype,
        shape: vec![2, 64, 64],
        data: vec![0x3c; 2 * 64 * 64].into(),
    };
    let ones = |name: &str, shape: &[usize]| {
        zoo::tensor(name, Dtype::F32, shape, &vec![0.5; shape.iter().product()])
    };
    for (shape, dtype, words) in [
        (&[2][..], Dtype::F8_E4M3, "2 F8_E4M3"),
        (&[2, 1, 1], Dtype::U8, "2 U8"),
        (&[2, 64, 1], Dtype::I8, "2 I8"),
        (&[2, 64], Dtype::F8_E5M2, "2 F8_E5M2"),
    ] {
        let cache = [bytes("a.key", dtype), bytes("a.value", dtype)];
        let scales = [ones("k_scale", shape), ones("v_scale", shape)];
        write_file(&folder.path("cache"), &[&cache[..], &scales].concat(), None).unwrap();
        let words = ["most was not compressed", words];
        let json = notes(&folder.run("-input cache -output out -force -strict"), 1, &words);
        assert_eq!(
            (&json["quality_passed"], &json["tensors_compressed"]),
            (&false.into(), &2.into())
        );
        notes(&folder.run("-decompress -input out -output back -force -strict"), 1, &words);
        assert_eq!(folder.read("back").len(), folder.read("cache").len());
    }
    // A mask of bytes beside a cache is not most of it.
    let mask = TensorData { shape: vec![64], data: vec![1; 64].into(), ..bytes("mask", Dtype::U8) };
    let cache = zoo::tensor("a.key", Dtype::F16, &[2, 64, 64], &zoo::numbers(8192, 3));
    write_file(&folder.path("cache"), &[mask, cache], None).unwrap();
    let words = "-input cache -metrics-only -min-snr-db 5 -min-cosine 0.5 -strict";
    assert_eq!(folder.run(words).succeeds().json()["quality_passed"], true);
}

/// A tensor that nobody asked to leave, and that may be a part of the cache, is named though others passed.
#[test]
fn what_was_left_is_named() {
    let folder = Folder::new();
    let cache = |name: &str, dtype, shape: &[usize]| {
        let values = zoo::numbers(shape.iter().product(), 5);
        zoo::tensor(name, dtype, shape, &values)
    };
    let double = |name: &str| TensorData {
        name: name.into(),
        dtype: Dtype::F64,
        shape: vec![2, 4],
        data: vec![0; 64].into(),
    };
    let ids = TensorData {
        name: "ids".into(),
        dtype: Dtype::U8,
        shape: vec![3],
        data: vec![1; 3].into(),
    };
    let fine = [cache("a.key", Dtype::F16, &[2, 9, 32]), cache("scale", Dtype::F32, &[]), ids];
    write_file(&folder.path("fine"), &fine, None).unwrap();
    folder.run("-input fine -metrics-only").succeeds();
    let mixed = [&fine[..], &[double("b.key"), double("b.value")]].concat();
    write_file(&folder.path("mixed"), &mixed, None).unwrap();
    notes(&folder.run("-input mixed -metrics-only"), 0, &["stored as they are: 2 F64"]);
    folder.run("-input mixed -metrics-only --exclude b.*").succeeds();
    // One token would take more than it has.
    let grown = [&fine[..1], &[cache("b.key", Dtype::BF16, &[4, 1, 32])]].concat();
    write_file(&folder.path("grown"), &grown, None).unwrap();
    let words = "-input grown -metrics-only --codec int8-g8-asym-ch";
    let json = notes(&folder.run(words), 0, &["1 BF16 that would grow"]);
    assert_eq!((&json["tensors_compressed"], &json["tensors_unchanged"]), (&1.into(), &1.into()));
}

/// Fewer tokens than heads: most likely another engine's order, read as the usual one.
#[test]
fn a_doubtful_order_is_noted() {
    let folder = Folder::new();
    let file = |name: &str, shape: &[usize]| {
        let values = zoo::numbers(shape.iter().product(), 5);
        write_file(&folder.path(name), &[zoo::tensor("x.key", Dtype::F16, shape, &values)], None)
            .unwrap();
    };
    file("nhd", &[96, 4, 64]);
    file("kv", &[2, 96, 4, 64]);
    file("hnd", &[4, 96, 64]);
    file("rows", &[96, 64]);
    let run = |name: &str, flags: &str| {
        folder.run(&format!("-input {name} -metrics-only -rope-theta 10000 {flags}"))
    };
    let doubt = ["tensor x.key of shape [96, 4, 64] was read as 96 heads of 4 tokens", "--layout"];
    for codec in ["kivi4", "kvgauge4", "int4-g64-ctr", "int4-g64-sink1", "int4-g64-prerope"] {
        notes(&run("nhd", &format!("-codec {codec}")), 0, &doubt);
        run("nhd", &format!("-codec {codec} -layout tokens-heads-dim")).succeeds();
        run("nhd", &format!("-codec {codec} -layout heads-tokens-dim")).succeeds();
        run("hnd", &format!("-codec {codec}")).succeeds();
        run("rows", &format!("-codec {codec}")).succeeds();
    }
    notes(&run("kv", "-codec kivi4 -kv-axis 0"), 0, &["was read as 96 heads of 4 tokens"]);
    // The stored bytes do not depend on it.
    for codec in ["int4-g64", "q4_0", "turbo4", "f16"] {
        run("nhd", &format!("-codec {codec}")).succeeds();
    }
}

#[test]
fn layouts_by_flags() {
    let folder = Folder::new();
    let tensor = |name: &str, shape: &[usize]| {
        zoo::tensor(name, Dtype::F16, shape, &zoo::numbers(shape.iter().product(), 5))
    };
    write_file(&folder.path("vllm"), &[tensor("kv_cache", &[2, 40, 2, 64])], None).unwrap();
    write_file(&folder.path("lmcache"), &[tensor("tensor_bytes", &[3, 2, 40, 128])], None).unwrap();
    // Names that say neither: the axis does.
    folder
        .run("-input vllm -metrics-only --codec k:int4-g64/v:f16")
        .is_refused(&["`key` or `value`"]);
    folder.run("-input vllm -metrics-only --codec k:int4-g64/v:f16").hints("--kv-axis");
    let flags = "--layout tokens-heads-dim --kv-axis 0 --codec kvgauge4 --rope-theta 10000";
    let json = folder.run(&format!("-input vllm -output vllm.kvc {flags}")).succeeds().json();
    assert_eq!((&json["codec"], &json["tensors_compressed"]), (&"kvgauge4".into(), &1.into()));
    let table = folder.run("inspect vllm.kvc").succeeds().stdout;
    for part in
        ["kvgauge-kv 3, ", "layout tokens-heads-dim, keys and values along axis 0\n", "kvgauge4"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    let json = folder.run("inspect vllm.kvc --json --verify").succeeds().json();
    assert_eq!(json["compression"]["layout"], "tokens-heads-dim");
    assert_eq!(json["compression"]["kv_axis"], 0);
    folder.run("-decompress -input vllm.kvc -output vllm.back").succeeds();
    let (source, back) =
        (read_file(&folder.path("vllm")).unwrap(), read_file(&folder.path("vllm.back")).unwrap());
    assert_eq!(source.info("kv_cache"), back.info("kv_cache"));
    let flags = "-layout=tokens-heads-dim -kv-axis=1 -head-dim=64 -codec k:q8_0/v:q4_0 -per-tensor";
    let json = folder.run(&format!("-input lmcache -output lmcache.kvc {flags}")).succeeds().json();
    assert_eq!(json["tensors"][0]["codec"], "k:q8_0/v:q4_0");
    let bits = json["bits_per_value"].as_f64().unwrap();
    assert!((bits - 6.5).abs() < 1e-9, "half of it at 8.5, half at 4.5: {bits}");
    let table = folder.run("inspect lmcache.kvc").succeeds().stdout;
    assert!(table.contains("along axis 1, heads of 64\n"), "{table}");
    // The usual layout, said aloud, is the same file.
    for (name, flags) in [("a", ""), ("b", "--layout heads-tokens-dim")] {
        for codec in ["int4-g64", "kivi4"] {
            folder
                .run(&format!(
                    "-input cache.safetensors -output {name}.{codec} -codec {codec} {flags}"
                ))
                .succeeds();
        }
    }
    assert_eq!(folder.read("a.int4-g64"), folder.read("b.int4-g64"));
    assert_eq!(folder.read("a.kivi4"), folder.read("b.kivi4"));
    assert!(folder.run("inspect a.kivi4").succeeds().stdout.contains("layout heads-tokens-dim\n"));
    for (flags, error, hint) in [
        (
            "--layout nhd",
            "--layout: expected heads-tokens-dim or tokens-heads-dim, found \"nhd\"",
            "did you mean tokens-heads-dim?",
        ),
        ("--layout x", "found \"x\"", "vLLM"),
        (
            "--kv-axis 1",
            "tensor kv_cache: axis 1, counted from 0: expected one of size 2, keys and values, found size 40 in shape [2, 40, 2, 64]",
            "--exclude",
        ),
        ("--kv-axis 4", "found shape [2, 40, 2, 64] of 4 axes", "--exclude"),
        ("--head-dim 64", "head_dim 64: expected layout tokens-heads-dim", "--layout"),
        (
            "--layout tokens-heads-dim --head-dim 48",
            "heads of 48: expected a multiple",
            "--exclude",
        ),
        ("--layout tokens-heads-dim --head-dim 0", "expected 1 or more, found 0", "64"),
        ("--kv-axis -1", "--kv-axis: expected 0 or more, found -1", "counted from 0"),
    ] {
        let answer = folder.run(&format!("-input vllm -output x {flags}"));
        answer.is_refused(&[error]);
        answer.hints(hint);
    }
    folder
        .run("-decompress -input vllm.kvc -output x --layout tokens-heads-dim")
        .is_refused(&["cannot be used with"]);
    assert!(!folder.path("x").exists());
}

/// Names, and hints, are those of `kvgauge validate`.
#[test]
fn codec_names_are_hinted_at() {
    let folder = Folder::new();
    for name in [
        "int4_g64",
        "int4-64",
        "hadamard_int4_sym_g64",
        "q40",
        "nonsense",
        "int4-g7",
        "k:f16",
        "int9",
    ] {
        let validated = cli::validate(&["--model", "builtin", "--codec", name]);
        let answer = folder.run(&format!("-input cache.safetensors -metrics-only --codec {name}"));
        answer.is_refused(&["--codec: codec"]);
        assert_eq!(answer.stderr, validated.stderr, "{name}");
    }
}

/// No error about a file ends in what the command line could be.
#[test]
fn files_of_other_kinds_are_called_by_their_name() {
    let folder = Folder::new();
    for (name, bytes, error, hint) in [
        (
            "lfs",
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"[..],
            "a Git LFS pointer",
            "git lfs pull",
        ),
        ("page", b"<!DOCTYPE html><html>404</html>", "an HTML page", "server"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "a gzip file", "gunzip"),
        ("torch", b"PK\x03\x04\0\0\0\0\0\0", "a zip archive", "safetensors"),
        ("pickle", b"\x80\x02}q\0X\x03\0\0\0key", "a Python pickle", "safetensors"),
        ("numpy", b"\x93NUMPY\x01\0v\0{'descr'", "a NumPy array", "safetensors"),
        ("model.gguf", b"GGUF\x03\0\0\0\0\0\0\0", "a GGUF file", "--model"),
        ("parquet", b"PAR1\x15\x04\x15\x10", "a Parquet table", "table"),
        ("json", b"{\"layer.0.key\": [0.5]}", "JSON", "meant"),
        ("zeros", &[0; 64], "nothing but zeros", "finish"),
        ("none", b"", "an empty file", "no bytes"),
    ] {
        fs::write(folder.path(name), bytes).unwrap();
        for words in [
            format!("-input {name} -output x"),
            format!("-decompress -input {name} -output x"),
            format!("inspect {name}"),
        ] {
            let answer = folder.run(&words);
            answer.is_refused(&[name, "not a safetensors file, but", error]);
            answer.hints(hint);
        }
    }
    // Those that are nothing known, and those that are wrong within.
    let whole = folder.read("cache.safetensors");
    fs::write(folder.path("cut"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.path("text"), "no tensors at all").unwrap();
    folder.run("-input cache.safetensors -output whole.kvc").succeeds();
    let packed = folder.read("whole.kvc");
    fs::write(folder.path("cut.kvc"), &packed[..packed.len() - 9]).unwrap();
    let two = [("x.key", 8), ("y.key", 16)]
        .map(|(name, dim)| zoo::tensor(name, Dtype::F16, &[1, 9, dim], &zoo::numbers(9 * dim, 1)));
    write_file(&folder.path("two"), &two, None).unwrap();
    for words in [
        "-input cut -output x",
        "-input text -output x",
        "-input absent -output x",
        "-input . -output x",
        "-decompress -input cut.kvc -output x",
        "-decompress -input cache.safetensors -output x",
        "-input whole.kvc -output x",
        "-input two -output x -codec int4-g8-prerope -rope-theta 10000 -rope-channels 12",
        "-input two -output x -codec int4-g8-prerope",
        "-input two -output x -codec k:int4-g64/v:f16 -include [",
        "-input two -output no/x",
        "-input two -output two",
        "inspect cut.kvc",
        "inspect absent",
    ] {
        let answer = folder.run(words);
        answer.is_refused(&[]);
        assert!(!answer.stderr.contains("--help"), "{words}: {}", answer.stderr);
    }
    assert!(!folder.path("x").exists());
}

/// Input and output by other ways to one file.
#[cfg(unix)]
#[test]
fn one_file_by_two_names() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    fs::create_dir(folder.path("sub")).unwrap();
    symlink(".", folder.path("here")).unwrap();
    symlink("cache.safetensors", folder.path("link")).unwrap();
    fs::hard_link(folder.path("cache.safetensors"), folder.path("hard")).unwrap();
    let before = folder.read("cache.safetensors");
    for name in [
        "cache.safetensors",
        "./cache.safetensors",
        "sub/../cache.safetensors",
        "here/cache.safetensors",
        "link",
        "here/link",
        "hard",
    ] {
        for (from, to) in [("cache.safetensors", name), (name, "cache.safetensors"), (name, name)] {
            folder
                .run(&format!("-input {from} -output {to} -force"))
                .is_refused(&["another file than the input"]);
            folder.run(&format!("-decompress -input {from} -output {to} -force")).fails(2, &[]);
        }
    }
    assert!(folder.read("cache.safetensors") == before);
    // One that is not there yet, by any way.
    for name in ["a", "./b", "here/c", "sub/../d"] {
        folder.run(&format!("-input cache.safetensors -output {name}")).succeeds();
        folder.run(&format!("-decompress -input {name} -output {name}.back")).succeeds();
    }
    // Its own output is not its input.
    folder
        .run("-decompress -input a -output here/a -force")
        .is_refused(&["another file than the input"]);
}

#[test]
fn every_tensor_on_demand() {
    let folder = Folder::new();
    write_file(&folder.path("zoo"), &zoo::tensors(), Some(zoo::metadata())).unwrap();
    let metrics =
        folder.run("-input zoo -metrics-only --per-tensor --exclude huge*").succeeds().json();
    let tensors = metrics["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), zoo::tensors().len());
    for (tensor, made) in tensors.iter().zip(zoo::tensors()) {
        assert_eq!(tensor["name"], made.name.as_str());
        let compressed = matches!(made.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32)
            && !made.name.starts_with("huge");
        let compressed = compressed && !made.shape.is_empty();
        assert_eq!(tensor["codec"], if compressed { "int4-g64".into() } else { Value::Null });
        assert_eq!(tensor["rmse"].is_f64(), compressed && !made.data.is_empty(), "{tensor}");
    }
    let zeros = tensors.iter().find(|tensor| tensor["name"] == "zero.value").unwrap();
    assert_eq!((&zeros["snr_db"], &zeros["rmse"]), (&Value::Null, &0.0.into()));
    assert_eq!(metrics["tensors_unchanged"], 7);
}

#[test]
fn inspect_shows_what_is_inside() {
    let folder = Folder::new();
    write_file(&folder.path("zoo"), &zoo::tensors(), Some(zoo::metadata())).unwrap();
    folder.run("-input zoo -output zoo.kvc -codec k:int4-g32/v:f16 -exclude layer.1.*").succeeds();
    let plain = folder.run("inspect zoo").succeeds().stdout;
    assert!(plain.starts_with("safetensors, ") && plain.contains("größe"), "{plain}");
    let table = folder.run("inspect zoo.kvc").succeeds().stdout;
    for part in ["kvgauge-kv 1, ", "codec k:int4-g32/v:f16", "int4-g32 · 2^", "[2, 5, 24]", "none"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(table.lines().filter(|line| line.contains("layer.1.key")).all(|l| l.contains("none")));
    let json = folder.run("inspect zoo.kvc --json --verify").succeeds().json();
    assert_eq!(json["tensors"].as_array().unwrap().len(), zoo::tensors().len());
    assert_eq!((&json["verified"], &json["format"]), (&true.into(), &"kvgauge-kv 1".into()));
    assert_eq!(json["metadata"]["format"], "pt");
    // Damage in a tensor: the header alone does not show it.
    let mut bytes = folder.read("zoo.kvc");
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(folder.path("zoo.kvc"), bytes).unwrap();
    folder.run("inspect zoo.kvc").succeeds();
    folder.run("inspect zoo.kvc --verify").is_refused(&["zoo.kvc", "damaged", "checksum"]);
    folder.run("inspect absent").is_refused(&["absent", "no such file"]);
}

#[test]
fn requests_that_cannot_be_meant() {
    let folder = Folder::new();
    fs::write(folder.path("text"), "no tensors").unwrap();
    fs::write(folder.path("none"), "").unwrap();
    for (words, expected) in [
        ("-input cache.safetensors", "--output"),
        ("-output x", "--input"),
        ("-input absent -output x", "absent: no such file"),
        ("-input text -output x", "not a safetensors file"),
        ("-input none -output x", "not a safetensors file"),
        ("-input . -output x", "found a folder"),
        ("-input cache.safetensors -output .", "found a folder"),
        ("-input cache.safetensors -output no/x", "no such file or folder"),
        ("-input cache.safetensors -output /dev/null", "found a device"),
        ("-input cache.safetensors -output x -group-size 7", "at least 8, found 7"),
        ("-input cache.safetensors -output x -group-size many", "--group-size"),
        ("-input cache.safetensors -output x -group-size 32 -codec int4", "cannot be used with"),
        (
            "-input cache.safetensors -output x -codec int4-g64-prerope",
            "what the keys were rotated by",
        ),
        ("-input cache.safetensors -output x -rope-theta 0", "--rope-theta: expected 1 or more"),
        ("-input cache.safetensors -output x -codec noise", "stores nothing"),
        ("-input cache.safetensors -output x -codec nonsense", "no codec of that name"),
        ("-input cache.safetensors -output x -metrics-only", "cannot be used with"),
        ("-input cache.safetensors -output x -decompress", "not a file made by kv-compress"),
        ("-input cache.safetensors -output x -decompress -group-size 64", "cannot be used with"),
        ("-input cache.safetensors -output x -include [", "--include"),
        ("-input cache.safetensors -output x -include nosuch", "no tensor of such a name"),
        ("-input cache.safetensors -output x -threads 0", "--threads: expected 1 to 1024"),
        ("-input cache.safetensors -output x -min-cosine NaN", "--min-cosine"),
        ("-input cache.safetensors -output x -min-snr-db inf", "--min-snr-db"),
        ("-inptu cache.safetensors -output x", "--inptu"),
        ("inspect", "<FILE>"),
        ("inspect text", "not a safetensors file"),
    ] {
        folder.run(words).is_refused(&[expected]);
    }
    assert_eq!(folder.names(), ["cache.safetensors", "none", "text"]);
    folder.run("-inptu cache.safetensors -output x").hints("--input");
}

#[test]
fn help_names_every_flag_and_the_exit_status() {
    let folder = Folder::new();
    let help = folder.run("--help").succeeds().stdout;
    for flag in
        ["--input", "--decompress", "--metrics-only", "--group-size", "--no-sync", "inspect"]
    {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    assert!(help.contains("Exit status") && help.contains("-group-size"), "{help}");
    assert!(folder.run("--version").succeeds().stdout.starts_with("kv-compress "));
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let folder = Folder::new();
    let values = zoo::numbers(2_400_000, 3);
    let tensors = [
        zoo::tensor("a.key", Dtype::F16, &[30_000, 80], &values),
        zoo::tensor("b.key", Dtype::F32, &[1_100_001], &values[..1_100_001]),
    ];
    write_file(&folder.path("long"), &tensors, None).unwrap();
    folder.run("-input long -output one -threads 1 -per-tensor").succeeds();
    for threads in [2, 3, 8] {
        folder.run(&format!("-input long -output more -threads {threads} -force")).succeeds();
        assert_eq!(folder.read("more"), folder.read("one"), "{threads} threads");
    }
}

#[cfg(unix)]
#[test]
fn permissions_links_and_folders() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new();
    fs::write(folder.path("private"), "old").unwrap();
    fs::set_permissions(folder.path("private"), fs::Permissions::from_mode(0o600)).unwrap();
    folder.run("-input cache.safetensors -output private -force").succeeds();
    let mode = fs::metadata(folder.path("private")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    symlink("nowhere", folder.path("dangling")).unwrap();
    folder.run("-input cache.safetensors -output dangling -force").is_refused(&["leads nowhere"]);
    assert!(folder.path("dangling").is_symlink());
    // Names that look like flags.
    fs::copy(folder.path("private"), folder.path("-packed")).unwrap();
    folder.run("inspect -- -packed").succeeds();
    folder.run("-input ./-packed -decompress -output out").succeeds();
}

/// A file of 24 MB, for runs long enough to be disturbed.
fn large(folder: &Folder) {
    folder.write_cache("large", 750, 9);
}

#[test]
fn a_killed_run_leaves_the_old_file_and_nothing_else() {
    let folder = Folder::new();
    large(&folder);
    folder.run("-input large -output expected").succeeds();
    fs::write(folder.path("out"), "old").unwrap();
    let whole = folder.read("expected");
    let (mut old, mut new) = (0, 0);
    for round in 0..40 {
        let mut command = binary();
        command.current_dir(folder.0.path()).stdout(Stdio::null());
        let words = ["-input", "large", "-output", "out", "-force"];
        let mut child = command.args(words).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(1000 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        match folder.read("out") {
            bytes if bytes == b"old" => old += 1,
            bytes if bytes == whole => {
                new += 1;
                fs::write(folder.path("out"), "old").unwrap();
            }
            bytes => panic!("half a file: {} bytes", bytes.len()),
        }
        // Between the new file's naming and its rename, a hidden name is all there can be.
        let rest: Vec<String> =
            folder.names().into_iter().filter(|name| !name.starts_with(".kvgauge-")).collect();
        assert_eq!(rest, ["cache.safetensors", "expected", "large", "out"]);
        if cfg!(target_os = "linux") && folder.names().len() > rest.len() {
            let hidden = folder.names().swap_remove(0);
            assert_eq!(folder.read(&hidden), whole, "half a file of a hidden name");
            fs::remove_file(folder.path(&hidden)).unwrap();
        }
    }
    assert!(old > 0, "no run was killed in time ({new} were not)");
}

#[test]
fn eight_writers_of_one_file() {
    let folder = Folder::new();
    let names: Vec<String> = (0..8).map(|i| format!("in{i}")).collect();
    let mut results = Vec::new();
    for (seed, name) in names.iter().enumerate() {
        folder.write_cache(name, 8, 50 + seed as u64);
        folder.run(&format!("-input {name} -output {name}.kvc")).succeeds();
        results.push(folder.read(&format!("{name}.kvc")));
    }
    let race = |force: &[&str]| -> Vec<i32> {
        let children: Vec<_> = names
            .iter()
            .map(|name| {
                let mut command = binary();
                command.current_dir(folder.0.path()).stdout(Stdio::null()).stderr(Stdio::null());
                command.args(["-input", name, "-output", "shared"]).args(force).spawn().unwrap()
            })
            .collect();
        children.into_iter().map(|mut child| child.wait().unwrap().code().unwrap()).collect()
    };
    assert_eq!(race(&["-force"]), [0; 8]);
    assert!(results.contains(&folder.read("shared")));
    fs::remove_file(folder.path("shared")).unwrap();
    let mut codes = race(&[]);
    codes.sort_unstable();
    assert_eq!(codes, [0, 2, 2, 2, 2, 2, 2, 2]);
    assert!(results.contains(&folder.read("shared")));
    assert!(folder.names().iter().all(|name| !name.starts_with('.')), "{:?}", folder.names());
}

/// On a file system of one megabyte, where the system lets this user make one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let folder = Folder::new();
    large(&folder);
    fs::create_dir(folder.path("disk")).unwrap();
    let script = r#"mount -t tmpfs -o size=1m tmpfs disk || exit 99
        echo old > disk/out
        "$0" -input large -output disk/out -force; status=$?
        [ "$(cat disk/out)" = old ] && [ "$(ls -A disk)" = out ] || exit 98
        exit $status"#;
    let mut command = Command::new("unshare");
    command.current_dir(folder.0.path()).args(["--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_kv-compress")).stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.code() != Some(99) && output.status.code() != Some(1) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{stderr}");
            assert!(stderr.starts_with("error: ") && stderr.contains("No space left"), "{stderr}");
            assert!(stderr.contains("hint: ") && output.stdout.is_empty(), "{stderr}");
        }
        Ok(output) => skip::skip(
            "the full disk",
            &format!("no file system can be mounted: {}", String::from_utf8_lossy(&output.stderr)),
        ),
        Err(e) => skip::skip("the full disk", &format!("unshare: {e}")),
    }
}

#[cfg(target_os = "linux")]
#[path = "common/skip.rs"]
mod skip;

/// Three gigabytes, none of which is on the disk: a hole. The peak of resident memory stays far
/// below the file's size.
#[cfg(target_os = "linux")]
#[test]
fn one_tensor_larger_than_memory_would_be() {
    use std::io::Write;
    let folder = Folder::new();
    let bytes = 3u64 << 30;
    let header = format!(
        r#"{{"layer.0.key":{{"dtype":"F16","shape":[8,{},128],"data_offsets":[0,{bytes}]}}}}"#,
        bytes / 2 / 8 / 128
    );
    let mut file = fs::File::create(folder.path("hole")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + bytes).unwrap();
    let script = r#"ulimit -v 1000000; exec "$0" -input hole -metrics-only"#;
    let mut command = Command::new("sh");
    command.current_dir(folder.0.path()).args(["-c", script]);
    let metrics = run_command({
        command.arg(env!("CARGO_BIN_EXE_kv-compress"));
        command
    })
    .succeeds()
    .json();
    assert_eq!(metrics["original_size_bytes"], 8 + header.len() as u64 + bytes);
    assert_eq!((&metrics["rmse"], &metrics["snr_db"]), (&0.0.into(), &Value::Null));
}

#[test]
fn extract_writes_the_cache_that_validate_compresses() {
    let folder = Folder::new();
    let extract = |words: &str| {
        let mut command = cli::kvgauge();
        command.current_dir(folder.0.path()).arg("extract").args(words.split_whitespace());
        run_command(command)
    };
    let words = "--model builtin --context 64 --first-window 3 --tokens 32 --output";
    let line = extract(&format!("{words} f16.safetensors")).succeeds().stdout;
    assert!(line.contains("[") && line.contains("F16, window 3 of 64 tokens"), "{line}");
    for dtype in ["f32", "bf16"] {
        let json = extract(&format!("{words} {dtype}.safetensors --dtype {dtype} --json"));
        assert_eq!(json.succeeds().json()["dtype"], dtype.to_uppercase());
    }
    let wide = read_file(&folder.path("f32.safetensors")).unwrap();
    let half = read_file(&folder.path("f16.safetensors")).unwrap();
    let names: Vec<&str> = wide.names().collect();
    assert_eq!(&names[..3], ["layer.0.key", "layer.0.value", "layer.1.key"]);
    for name in names {
        let (dtype, shape) = wide.info(name).unwrap();
        assert_eq!((dtype, shape[1]), (Dtype::F32, 32));
        let (wide, half) = (wide.get_tensor_f32(name).unwrap(), half.get_tensor_f32(name).unwrap());
        for (wide, half) in wide.into_iter().zip(half) {
            assert_eq!(half::f16::from_f32(wide).to_f32(), half, "{name}");
        }
    }
    // The same windows, codec and figures as validate's, layer by layer.
    let mut command = cli::kvgauge();
    command.args(
        "validate --model builtin --context 64 --windows 1 --first-window 3 --json".split(' '),
    );
    let validated = run_command(command).succeeds().json();
    let metrics = folder.run("-input f32.safetensors -metrics-only -per-tensor").succeeds().json();
    for layer in validated["codecs"][0]["layers"].as_array().unwrap() {
        for part in ["key", "value"] {
            let name = format!("layer.{}.{part}", layer["layer"]);
            let tensors = metrics["tensors"].as_array().unwrap();
            let tensor = tensors.iter().find(|tensor| tensor["name"] == name.as_str()).unwrap();
            for (ours, theirs) in [("snr_db", "snr_db"), ("cosine_similarity", "cosine")] {
                let (a, b) =
                    (tensor[ours].as_f64().unwrap(), layer[part][theirs].as_f64().unwrap());
                assert!((a / b - 1.0).abs() < 1e-6, "{name} {ours}: {a} {b}");
            }
        }
    }
    // And so with codecs by layer, of which the metadata says how many there are.
    let layered = folder.run("-input f32.safetensors -metrics-only -per-tensor -codec q8_0+f16@-1");
    let layered = layered.succeeds().json();
    let of = |tensor: &Value| tensor["codec"].as_str().unwrap().to_string();
    let codecs: Vec<String> = layered["tensors"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(codecs[4..], ["q8_0", "q8_0", "f16", "f16"]);
    folder
        .run("-input f32.safetensors -metrics-only -codec q8_0+f16@4")
        .is_refused(&["codec q8_0+f16@4", "layer 4: expected one of 4 layers, 0 to 3"]);
    let origin: &str = &half.metadata().unwrap()["kvgauge.extract"];
    let origin: Value = serde_json::from_str(origin).unwrap();
    assert_eq!((&origin["window"], &origin["tokens"]), (&3.into(), &32.into()));
    extract(&format!("{words} f16.safetensors")).is_refused(&["exists already"]);
    extract(&format!("{words} x --tokens 65").replacen("--tokens 32 ", "", 1))
        .is_refused(&["--tokens: expected 1 to 64"]);
    extract("--model builtin").is_refused(&["--output"]);
}

/// The file API keeps its word on what it is given.
#[test]
fn files_that_cannot_be_written() {
    let folder = Folder::new();
    let path: &Path = &folder.path("new");
    let tensor = |shape: &[usize]| zoo::tensor("x", Dtype::F32, shape, &[1.0, 2.0]);
    for (tensors, words) in [
        (vec![tensor(&[3])], "expected F32 of shape [3], found 8 bytes"),
        (vec![tensor(&[2]), tensor(&[2])], "the name is taken"),
        (vec![tensor(&[usize::MAX, usize::MAX])], "found 8 bytes"),
    ] {
        let error = container::write_file(path, &tensors, None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(!path.exists());
}
