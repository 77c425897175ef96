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
        assert_eq!(tensor["codec"], if compressed { "int4-g64".into() } else { Value::Null });
        assert_eq!(tensor["rmse"].is_f64(), compressed && !made.data.is_empty(), "{tensor}");
    }
    let zeros = tensors.iter().find(|tensor| tensor["name"] == "zero.value").unwrap();
    assert_eq!((&zeros["snr_db"], &zeros["rmse"]), (&Value::Null, &0.0.into()));
    assert_eq!(metrics["tensors_unchanged"], 6);
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
