//! Runs the built binary and holds its answers against the contract of the command line:
//! a result on stdout and nothing on stderr, or one `error:` and one `hint:` line on stderr and
//! nothing on stdout. Also makes model folders to break.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The request that works, in well under a second.
pub const GOOD: [&str; 6] = ["--model", "builtin", "--context", "64", "--windows", "2"];

/// The binary in a clean environment: no network, no cache, backtraces asked for (they must not
/// show).
pub fn kvgauge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvgauge"));
    for name in ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"] {
        command.env_remove(name);
    }
    command
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "/nonexistent/huggingface")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null());
    command
}

/// The outcome of a run.
pub struct Answer {
    pub request: String,
    /// `None`: killed by a signal.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

pub fn run(args: &[&str]) -> Answer {
    let mut command = kvgauge();
    command.args(args);
    run_command(command)
}

pub fn run_command(mut command: Command) -> Answer {
    let clock = Instant::now();
    let output = command.output().expect("the binary starts");
    Answer::new(format!("{command:?}"), output, clock.elapsed())
}

/// `validate` with `args` after the good request, whose flags they must not repeat.
pub fn good_with(args: &[&str]) -> Answer {
    run(&[&["validate"], &GOOD[..], args].concat())
}

/// `validate` with exactly these arguments.
pub fn validate(args: &[&str]) -> Answer {
    run(&[&["validate"], args].concat())
}

impl Answer {
    fn new(request: String, output: Output, took: Duration) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        // How long a run takes depends on the machine: whether it is worth a word, too.
        let timed = |line: &&str| {
            line.starts_with("note: this takes about ") || line.contains(" % done, about ")
        };
        let stderr = text(output.stderr);
        let stderr = stderr.split_inclusive('\n').filter(|line| !timed(line)).collect();
        let answer = Self {
            request,
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr,
            took,
        };
        let all = format!("{}{}", answer.stdout, answer.stderr);
        for trace in ["panicked", "bug in kvgauge", "stack backtrace", "RUST_BACKTRACE", "src/"] {
            assert!(!all.contains(trace), "{trace:?} in {}", answer.told());
        }
        answer
    }

    fn told(&self) -> String {
        format!(
            "{}\nstatus {:?}\nstdout: {}\nstderr: {}",
            self.request, self.status, self.stdout, self.stderr
        )
    }

    /// Exit 0, a result and nothing else.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.ends_with_result(0)
    }

    /// A result on stdout, silence on stderr, and this status.
    #[track_caller]
    pub fn ends_with_result(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}", self.told());
        assert!(!self.stdout.is_empty(), "no result: {}", self.told());
        assert_eq!(self.stderr, "", "{}", self.told());
        self
    }

    /// Exit 2, silence on stdout, one `error:` line with all these words, one `hint:` line.
    #[track_caller]
    pub fn is_refused(&self, words: &[&str]) {
        self.fails(2, words);
    }

    #[track_caller]
    pub fn fails(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{}", self.told());
        assert_eq!(self.stdout, "", "{}", self.told());
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "expected two lines: {}", self.told());
        assert!(lines[0].starts_with("error: "), "{}", self.told());
        assert!(lines[1].starts_with("hint: "), "{}", self.told());
        assert!(lines.iter().all(|line| line.len() > "error: ".len() + 5), "{}", self.told());
        for word in words {
            assert!(lines[0].contains(word), "no {word:?} in the error: {}", self.told());
        }
    }

    #[track_caller]
    pub fn hints(&self, word: &str) {
        let hint = self.stderr.lines().find_map(|line| line.strip_prefix("hint: "));
        assert!(hint.unwrap_or_default().contains(word), "no hint {word:?}: {}", self.told());
    }

    /// stdout as one JSON object.
    #[track_caller]
    pub fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("not one JSON value ({e}): {}", self.told()));
        assert!(value.is_object(), "{}", self.told());
        value
    }
}

/// A text of a few hundred windows: tokenised in no time.
pub fn short_text(folder: &Path) -> PathBuf {
    let novel = fs::read_to_string("data/builtin/text.txt").expect("the embedded text");
    let path = folder.join("short.txt");
    fs::write(&path, novel.chars().take(20_000).collect::<String>()).expect("written");
    path
}

/// A copy of the embedded model in Hugging Face layout, with a short text beside it.
pub struct ModelFolder {
    pub folder: TempDir,
    pub text: PathBuf,
}

/// One tensor, to be changed and written back.
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub const WEIGHTS: &str = "model.safetensors";

impl ModelFolder {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for file in ["config.json", "tokenizer.json", WEIGHTS] {
            fs::copy(Path::new("data/builtin").join(file), folder.path().join(file))
                .expect("copied");
        }
        let text = short_text(folder.path());
        Self { folder, text }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path(file)).expect("removed");
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(file), bytes).expect("written");
    }

    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let text = fs::read(self.path("config.json")).expect("read");
        let mut config = serde_json::from_slice(&text).expect("JSON");
        edit(&mut config);
        self.write("config.json", config.to_string());
    }

    pub fn tensors(&self) -> Vec<Stored> {
        let bytes = fs::read(self.path(WEIGHTS)).expect("read");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        file.tensors()
            .into_iter()
            .map(|(name, view)| Stored {
                name,
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            })
            .collect()
    }

    pub fn write_tensors(&self, file: &str, tensors: &[Stored]) {
        let views = tensors.iter().map(|t| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).expect("a view");
            (t.name.as_str(), view)
        });
        self.write(file, safetensors::serialize(views, None).expect("serialised"));
    }

    /// Changes the tensor of that name.
    pub fn edit_tensor(&self, name: &str, edit: impl FnOnce(&mut Stored)) {
        let mut tensors = self.tensors();
        edit(tensors.iter_mut().find(|tensor| tensor.name == name).expect("a tensor"));
        self.write_tensors(WEIGHTS, &tensors);
    }

    /// The good request on this folder.
    pub fn validate(&self, args: &[&str]) -> Answer {
        let (model, text) = (self.folder.path().to_str(), self.text.to_str());
        let (model, text) = (model.expect("UTF-8"), text.expect("UTF-8"));
        let request = ["--model", model, "--text", text, "--context", "64", "--windows", "2"];
        validate(&[&request, args].concat())
    }
}
