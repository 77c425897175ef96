//! The hub against a stand-in server: what ends up in the cache, what is asked for, and what is
//! said when it goes wrong.

#[path = "common/hub_server.rs"]
mod hub_server;
#[path = "common/skip.rs"]
mod skip;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hub_server::{Fault, HubServer, etag};
use kvgauge::Error;
use kvgauge::error::Kind;
use kvgauge::hub::{DownloadProgress, Hub, HubOptions, HubRepo, RepoId, RepoKind};
use skip::skip;
use tempfile::TempDir;

const REPO: &str = "owner/tiny";
const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";
/// config.json, a small file.
const CONFIG: &[u8] = br#"{"hidden_size": 64}"#;

/// model.bin, a large file: 200 000 bytes.
fn weights() -> Vec<u8> {
    let word = |i: u32| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes();
    (0..50_000).flat_map(word).collect()
}

fn contents(file: &str) -> Vec<u8> {
    match file {
        "config.json" => CONFIG.to_vec(),
        _ => weights(),
    }
}

/// A server with one repository, and an empty cache.
struct Setup {
    server: HubServer,
    folder: TempDir,
    progress: Arc<Recorder>,
}

impl Setup {
    fn new() -> Self {
        let server = HubServer::start();
        let config = ("config.json", CONFIG, false);
        server.push(REPO, FIRST, &[config, ("model.bin", &weights(), true)]);
        Self {
            server,
            folder: TempDir::new().expect("a temporary folder"),
            progress: Arc::default(),
        }
    }

    fn hub(&self, change: impl FnOnce(&mut HubOptions)) -> Result<Hub, Error> {
        let mut options = HubOptions {
            offline: false,
            cache: self.cache(),
            endpoint: self.server.endpoint(),
            token: None,
            timeout: Duration::from_secs(20),
        };
        change(&mut options);
        Hub::new(options, self.progress.clone())
    }

    /// A run of the program, so to speak.
    fn run_with(&self, spec: &str, change: impl FnOnce(&mut HubOptions)) -> HubRepo {
        ok(self.hub(change)).repo(ok(RepoId::model(spec)))
    }

    fn run(&self) -> HubRepo {
        self.run_with(REPO, |_| {})
    }

    fn offline(&self, spec: &str) -> HubRepo {
        self.run_with(spec, |options| options.offline = true)
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("hub")
    }

    /// A file or folder in the repository's part of the cache.
    fn cached(&self, path: &str) -> PathBuf {
        self.cache().join("models--owner--tiny").join(path)
    }

    fn blob(&self, file: &str, extension: &str) -> PathBuf {
        let name = etag(&contents(file), file == "model.bin");
        self.cached("blobs").join(name + extension)
    }

    /// Leaves a part of model.bin behind, as an interrupted run would.
    fn leave_part(&self, bytes: &[u8]) {
        fs::create_dir_all(self.cached("blobs")).expect("a folder");
        fs::write(self.blob("model.bin", ".part"), bytes).expect("a file");
    }

    /// First bytes of the requests for files, in order.
    fn starts(&self) -> Vec<usize> {
        let requests = self.server.requests();
        let bodies = requests.iter().filter(|request| request.body);
        bodies.filter_map(|request| request.from).collect()
    }

    /// Nothing is there that a later run would take for a file.
    fn assert_nothing_trusted(&self) {
        for file in ["config.json", "model.bin"] {
            let link = self.cached("snapshots").join(FIRST).join(file);
            assert!(link.symlink_metadata().is_err(), "{}", link.display());
            assert!(self.offline(REPO).get(file).is_err());
            assert!(!self.blob(file, "").exists());
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Start(String, u64),
    Advance(u64),
    Finish,
}

#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    fn push(&self, event: Event) {
        self.events.lock().expect("not poisoned").push(event);
    }

    /// The downloads so far: file, size, sum of the bytes that were reported. Fails if calls came
    /// out of order or a download was not finished.
    fn downloads(&self) -> Vec<(String, u64, u64)> {
        let mut downloads: Vec<(String, u64, u64)> = Vec::new();
        let mut open = false;
        for event in self.events.lock().expect("not poisoned").iter() {
            assert_eq!(open, !matches!(event, Event::Start(..)), "{event:?}");
            open = *event != Event::Finish;
            match event {
                Event::Start(file, bytes) => downloads.push((file.clone(), *bytes, 0)),
                Event::Advance(bytes) => downloads.last_mut().expect("started").2 += bytes,
                Event::Finish => {}
            }
        }
        assert!(!open, "a download was not finished");
        downloads
    }
}

impl DownloadProgress for Recorder {
    fn start(&self, file: &str, bytes: u64) {
        self.push(Event::Start(file.to_string(), bytes));
    }

    fn advance(&self, bytes: u64) {
        self.push(Event::Advance(bytes));
    }

    fn finish(&self) {
        self.push(Event::Finish);
    }
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).expect("a readable file")
}

#[track_caller]
fn ok<T>(outcome: Result<T, Error>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Checks the kind of an error and words of its message and its hint.
#[track_caller]
fn assert_error<T>(outcome: Result<T, Error>, kind: Kind, words: &[&str], hint: &str) {
    let Err(error) = outcome else {
        panic!("expected an error with {words:?}, found success");
    };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
    let found = error.hint_text().unwrap_or_default();
    assert!(found.contains(hint), "no {hint:?} in {found:?} of {text:?}");
    assert!(!text.contains('\n'), "more than one line: {text:?}");
}

#[track_caller]
fn assert_input<T>(outcome: Result<T, Error>, words: &[&str], hint: &str) {
    assert_error(outcome, Kind::Input, words, hint);
}

#[track_caller]
fn assert_system<T>(outcome: Result<T, Error>, words: &[&str], hint: &str) {
    assert_error(outcome, Kind::System, words, hint);
}

#[test]
fn first_run_downloads_and_the_second_asks_nothing() {
    let mut setup = Setup::new();
    let repo = setup.run();
    assert_eq!(repo.commit(), None);
    let paths = ["config.json", "model.bin"].map(|file| ok(repo.get(file)));
    assert_eq!(repo.commit().as_deref(), Some(FIRST));

    let snapshot = setup.cached("snapshots").join(FIRST);
    for (file, path) in ["config.json", "model.bin"].iter().zip(&paths) {
        assert_eq!(path, &snapshot.join(file));
        assert_eq!(read(path), contents(file));
        assert_eq!(read(setup.blob(file, "")), contents(file));
        assert!(!setup.blob(file, ".part").exists());
    }
    assert_eq!(read(setup.cached("refs/main")), FIRST.as_bytes());
    let small = ("config.json".to_string(), 19, 19);
    let large = ("model.bin".to_string(), 200_000, 200_000);
    assert_eq!(setup.progress.downloads(), [small, large]);

    let asked = setup.server.requests().len();
    let repo = setup.run();
    assert_eq!(ok(repo.get("config.json")), paths[0]);
    assert_eq!(repo.commit().as_deref(), Some(FIRST));
    assert_eq!(setup.server.requests().len(), asked);
    setup.server.stop();
    assert_eq!(ok(setup.run().get("model.bin")), paths[1]);
    assert_eq!(ok(setup.offline(REPO).get("model.bin")), paths[1]);
    assert_eq!(setup.progress.downloads().len(), 2);
}

#[test]
fn datasets_and_folders_work_alike() {
    let setup = Setup::new();
    let file = ("raw/test.txt", &b"some words"[..], false);
    setup.server.push("owner/texts", FIRST, &[file]);
    let repo = ok(setup.hub(|_| {})).repo(ok(RepoId::dataset("owner/texts")));
    let path = ok(repo.get("raw/test.txt"));
    let place = format!("datasets--owner--texts/snapshots/{FIRST}/raw/test.txt");
    assert_eq!(path, setup.cache().join(place));
    assert_eq!(read(&path), b"some words");
    let first = &setup.server.requests()[0].path;
    assert_eq!(first, "/datasets/owner/texts/resolve/main/raw/test.txt");
}

#[test]
fn all_files_come_from_one_commit() {
    let setup = Setup::new();
    let repo = setup.run();
    let config = ok(repo.get("config.json"));
    setup.server.push(REPO, SECOND, &[("model.bin", b"new", true)]);
    // Another process has even written it down.
    fs::write(setup.cached("refs/main"), SECOND).expect("written");
    let model = ok(repo.get("model.bin"));
    assert_eq!(read(&model), weights());
    assert_eq!(config.parent(), model.parent());

    // Another cache gets the newer commit.
    let other = TempDir::new().expect("a temporary folder");
    let repo = setup.run_with(REPO, |options| options.cache = other.path().to_path_buf());
    assert_eq!(read(ok(repo.get("model.bin"))), b"new");
    assert_eq!(repo.commit().as_deref(), Some(SECOND));

    // A half-filled cache is filled up from the commit that it has.
    fs::remove_file(&model).expect("removed");
    let repo = setup.run();
    assert_eq!(read(ok(repo.get("model.bin"))), weights());
    assert_eq!(repo.commit().as_deref(), Some(FIRST));
}

#[test]
fn a_push_during_a_download_changes_nothing() {
    let setup = Setup::new();
    setup.server.set_fault(Fault::SlowBody(50));
    thread::scope(|scope| {
        let run = scope.spawn(|| setup.run().get("model.bin"));
        while setup.starts().is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        setup.server.push(REPO, SECOND, &[("model.bin", b"new", true)]);
        assert_eq!(read(ok(run.join().expect("no panic"))), weights());
    });
    assert_eq!(read(setup.cached("refs/main")), FIRST.as_bytes());
    // The branch is looked up once; everything else asks for the commit.
    let requests = setup.server.requests();
    let on_main = |path: &str| path.contains("/resolve/main/");
    assert_eq!(requests.iter().filter(|r| on_main(&r.path)).count(), 1);
}

#[test]
fn a_commit_hash_is_a_revision() {
    let mut setup = Setup::new();
    setup.server.push(REPO, SECOND, &[("config.json", b"{}", false)]);
    let spec = |commit: &str| format!("{REPO}@{commit}");
    let older = ok(setup.run_with(&spec(FIRST), |_| {}).get("config.json"));
    assert_eq!(read(&older), CONFIG);
    assert!(!setup.cached("refs/main").exists());
    let newer = ok(setup.run().get("config.json"));
    assert_eq!(read(&newer), b"{}");

    setup.server.stop();
    // Other tools write down what main is, not what a commit is.
    fs::remove_file(setup.cached("refs").join(FIRST)).expect("removed");
    fs::remove_file(setup.cached("refs").join(SECOND)).expect("removed");
    assert_eq!(ok(setup.offline(&spec(FIRST)).get("config.json")), older);
    // This one was cached as main, and works without --offline as well.
    let by_hash = setup.run_with(&spec(SECOND), |_| {});
    assert_eq!(ok(by_hash.get("config.json")), newer);
    assert_eq!(by_hash.commit().as_deref(), Some(SECOND));
}

#[test]
fn an_absent_file_is_remembered() {
    let mut setup = Setup::new();
    // Asked for first, before anything is known about the repository.
    assert_eq!(ok(setup.run().get_optional("absent.json")), None);
    assert!(setup.cached(".no_exist").join(FIRST).join("absent.json").exists());
    let asked = setup.server.requests().len();
    assert_eq!(ok(setup.run().get_optional("absent.json")), None);
    let words = ["owner/tiny", "no file absent.json"];
    assert_input(setup.run().get("absent.json"), &words, "page");
    assert_eq!(setup.server.requests().len(), asked);
    let config = ok(setup.run().get_optional("config.json"));
    assert_eq!(config, Some(ok(setup.run().get("config.json"))));

    setup.server.stop();
    assert_eq!(ok(setup.run().get_optional("absent.json")), None);
    // Never asked for. Offline, what the snapshot has not is taken to be absent; online, nobody
    // has said so.
    assert_eq!(ok(setup.offline(REPO).get_optional("model.bin")), None);
    assert_system(setup.run().get_optional("model.bin"), &["model.bin"], "");
}

#[test]
fn an_absent_file_without_an_error_code() {
    let setup = Setup::new();
    let repo = setup.run();
    ok(repo.get("config.json"));
    setup.server.set_fault(Fault::NoCodes);
    assert_eq!(ok(repo.get_optional("absent.json")), None);
    // With an empty cache it could be either.
    let other = TempDir::new().expect("a temporary folder");
    let fresh = setup.run_with(REPO, |options| options.cache = other.path().to_path_buf());
    let either = fresh.get_optional("absent.json");
    assert_input(either, &["no such repository or file"], "spelling");
}

#[test]
fn an_interrupted_download_resumes() {
    let setup = Setup::new();
    setup.server.set_fault(Fault::CutBody(150_000));
    let hint = "run it again: the download resumes";
    let words = ["owner/tiny", "model.bin", "broke off"];
    assert_system(setup.run().get("model.bin"), &words, hint);
    setup.assert_nothing_trusted();
    assert_eq!(setup.progress.downloads().len(), 1);

    setup.server.set_fault(None);
    assert_eq!(read(ok(setup.run().get("model.bin"))), weights());
    assert_eq!(setup.starts(), [0, 150_000]);
    // Bytes that were here already count as progress.
    let whole = ("model.bin".to_string(), 200_000, 200_000);
    assert_eq!(setup.progress.downloads().last(), Some(&whole));
}

#[test]
fn an_interrupted_small_file_starts_over() {
    let setup = Setup::new();
    setup.server.set_fault(Fault::CutBody(7));
    assert_system(setup.run().get("config.json"), &["config.json"], "again");
    setup.assert_nothing_trusted();
    setup.server.set_fault(None);
    assert_eq!(read(ok(setup.run().get("config.json"))), CONFIG);
    // The whole cannot be checked by its hash, so what was here already is not trusted.
    assert_eq!(setup.starts(), [0, 0]);
}

#[test]
fn a_short_or_altered_file_is_refused() {
    let cases = [
        (Fault::ShortBody(1234), "model.bin", "expected 200000 bytes, found 1234"),
        (Fault::ShortBody(5), "config.json", "expected 19 bytes, found 5"),
        (Fault::FlipBody, "model.bin", "expected sha256"),
    ];
    for (fault, file, words) in cases {
        let setup = Setup::new();
        setup.server.set_fault(fault);
        assert_system(setup.run().get(file), &[file, words], "run it again");
        setup.assert_nothing_trusted();
        assert!(!setup.blob(file, ".part").exists());
        setup.server.set_fault(None);
        assert_eq!(read(ok(setup.run().get(file))), contents(file));
        assert_eq!(setup.starts(), [0, 0], "{fault:?}");
        assert_eq!(setup.progress.downloads().len(), 2);
    }
}

#[test]
fn leftover_parts_are_resumed_or_replaced() {
    let whole = weights();
    let too_long = [&whole[..], b"and more"].concat();
    let (garbage, long_garbage) = (vec![7; 1000], vec![7; 200_005]);
    // Bytes that were left, the server's behaviour, where the requests start.
    let cases: [(&[u8], Option<Fault>, &[usize]); 6] = [
        (&whole[..5000], None, &[5000]),
        (&whole, None, &[199_999]),
        (&too_long, None, &[199_999]),
        (&garbage, None, &[1000, 0]),
        (&long_garbage, None, &[199_999, 0]),
        (&whole[..5000], Some(Fault::IgnoreRange), &[5000, 0]),
    ];
    for (left, fault, starts) in cases {
        let setup = Setup::new();
        setup.server.set_fault(fault);
        setup.leave_part(left);
        assert_eq!(read(ok(setup.run().get("model.bin"))), whole);
        assert_eq!(setup.starts(), starts, "{} bytes left", left.len());
        assert_eq!(setup.progress.downloads().len(), starts.len());
    }
}

#[test]
fn a_link_to_a_deleted_blob_is_replaced() {
    let setup = Setup::new();
    let path = ok(setup.run().get("model.bin"));
    fs::remove_file(setup.blob("model.bin", "")).expect("removed");
    assert_eq!(ok(setup.run().get("model.bin")), path);
    assert_eq!(read(&path), weights());
}

#[test]
fn unknown_names_are_the_requests_fault() {
    let setup = Setup::new();
    let run = |spec: &str, file: &str| setup.run_with(spec, |_| {}).get(file);
    let words = ["owner/typo", "no such repository"];
    assert_input(run("owner/typo", "config.json"), &words, "OWNER/NAME");
    let words = ["owner/tiny@v9", "no revision v9"];
    assert_input(run("owner/tiny@v9", "config.json"), &words, "after the @");
    assert_input(run(REPO, "absent.json"), &["no file absent.json"], "");
    let asked = setup.server.requests().len();
    assert_input(run(REPO, "../secret"), &["expected a file's name", "../secret"], "");
    assert_eq!(setup.server.requests().len(), asked);
}

#[test]
fn no_access_says_how_to_get_it() {
    let setup = Setup::new();
    let login = "HF_TOKEN or run `hf auth login`";
    for fault in [Fault::Coded(401, "GatedRepo"), Fault::Coded(403, "GatedRepo")] {
        setup.server.set_fault(fault);
        assert_input(setup.run().get("config.json"), &["restricted"], "accept the licence");
        assert_input(setup.run().get("config.json"), &["config.json"], login);
    }
    // The hub's answer to who is not logged in about a repository that is private or unknown.
    for fault in [Fault::Status(401), Fault::Coded(401, "RepoNotFound"), Fault::Status(403)] {
        setup.server.set_fault(fault);
        let words = ["no such repository, or no access"];
        assert_input(setup.run().get("config.json"), &words, "spelling");
        assert_input(setup.run().get("config.json"), &words, login);
    }
}

#[test]
fn a_server_in_trouble_is_not_the_requests_fault() {
    let mut setup = Setup::new();
    for (fault, words, hint) in [
        (Fault::Status(503), "status 503", "HF_ENDPOINT"),
        (Fault::Status(500), "status 500", "--offline"),
        (Fault::Status(429), "status 429", "HF_TOKEN"),
        (Fault::NotAHub, "expected a hub's answer", "HF_ENDPOINT"),
    ] {
        setup.server.set_fault(fault);
        assert_system(setup.run().get("config.json"), &[words], hint);
    }
    let endpoint = |endpoint: String| {
        let change = |options: &mut HubOptions| {
            options.endpoint = endpoint;
            options.timeout = Duration::from_secs(2);
        };
        setup.run_with(REPO, change).get("config.json")
    };
    let unknown_host = "http://no-such-host.invalid".to_string();
    assert_system(endpoint(unknown_host), &["no-such-host.invalid"], "");
    let tls = setup.server.endpoint().replace("http:", "https:");
    assert_system(endpoint(tls), &["https://127.0.0.1"], "--offline");
    setup.server.stop();
    let words = ["127.0.0.1", "refused"];
    assert_system(setup.run().get("config.json"), &words, "--offline");
}

#[test]
fn a_silent_server_is_given_up() {
    for (fault, file) in [(Fault::Hang, "config.json"), (Fault::StallBody(5000), "model.bin")] {
        let setup = Setup::new();
        setup.server.set_fault(fault);
        let start = Instant::now();
        let second = |options: &mut HubOptions| options.timeout = Duration::from_secs(1);
        let outcome = setup.run_with(REPO, second).get(file);
        let words = [file, "no byte for 1 s"];
        assert_system(outcome, &words, "HF_HUB_DOWNLOAD_TIMEOUT");
        assert!(start.elapsed() < Duration::from_secs(10));
        setup.assert_nothing_trusted();
        // The caller hears no more of it, also when the server comes back to life.
        let seen = setup.progress.downloads();
        assert_eq!(seen.len(), usize::from(fault != Fault::Hang));
        setup.server.set_fault(None);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(setup.progress.downloads(), seen);
        assert_eq!(read(ok(setup.run().get(file))), contents(file));
        assert_eq!(setup.progress.downloads().len(), seen.len() + 1);
    }
}

#[test]
fn a_download_that_was_given_up_does_no_harm() {
    let setup = Setup::new();
    setup.server.set_fault(Fault::LateOnce(900));
    let timeout = Duration::from_millis(400);
    let outcome = setup.run_with(REPO, |options| options.timeout = timeout).get("model.bin");
    assert_system(outcome, &["no byte for 0.4 s"], "");
    // Its thread goes on when the server answers after all; the caller hears nothing of it.
    let blob = setup.blob("model.bin", "");
    let start = Instant::now();
    while !blob.exists() {
        assert!(start.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(read(&blob), weights());
    assert!(setup.progress.downloads().is_empty());
    assert_eq!(read(ok(setup.run().get("model.bin"))), weights());
}

#[test]
fn slow_is_not_silent() {
    let setup = Setup::new();
    setup.server.set_fault(Fault::SlowBody(300));
    let (start, timeout) = (Instant::now(), Duration::from_millis(1500));
    let repo = setup.run_with(REPO, |options| options.timeout = timeout);
    assert_eq!(read(ok(repo.get("model.bin"))), weights());
    assert!(start.elapsed() > timeout);
}

#[test]
fn offline_makes_no_request() {
    let setup = Setup::new();
    let cache = setup.cache().display().to_string();
    let by_hash = format!("{REPO}@{FIRST}");
    for outcome in [
        setup.offline(REPO).get("config.json"),
        setup.offline(&by_hash).get("config.json"),
        setup.offline(REPO).get_optional("config.json").map(Option::unwrap_or_default),
        setup.offline(&by_hash).get_optional("config.json").map(Option::unwrap_or_default),
    ] {
        let words = ["owner/tiny", "config.json", &cache];
        assert_input(outcome, &words, "run once without --offline (HF_HUB_OFFLINE)");
    }
    assert!(setup.server.requests().is_empty());
    ok(setup.run().get("config.json"));
    let asked = setup.server.requests().len();
    assert_eq!(read(ok(setup.offline(REPO).get("config.json"))), CONFIG);
    assert_input(setup.offline(REPO).get("model.bin"), &["model.bin"], "--offline");
    assert_eq!(setup.server.requests().len(), asked);
}

#[test]
fn the_token_reaches_the_hub_and_no_message() {
    let setup = Setup::new();
    let run = |file: &str| {
        let token = Some("hf_secret".to_string());
        setup.run_with(REPO, |options| options.token = token).get(file)
    };
    ok(run("config.json"));
    for request in setup.server.requests() {
        assert_eq!(request.authorization.as_deref(), Some("Bearer hf_secret"));
    }
    for fault in [
        Fault::Status(401),
        Fault::Coded(403, "GatedRepo"),
        Fault::Status(500),
        Fault::NotAHub,
        Fault::CutBody(10),
    ] {
        setup.server.set_fault(fault);
        let error = run("model.bin").expect_err("a fault");
        let text = format!("{error} {error:?} {:?}", error.hint_text());
        assert!(!text.contains("hf_secret"), "{text}");
    }
    setup.server.set_fault(Fault::Status(401));
    assert_input(run("model.bin"), &[], "the token in use may be wrong");

    // Without one, nothing is sent.
    setup.server.set_fault(None);
    ok(setup.run().get("model.bin"));
    let requests = setup.server.requests();
    assert_eq!(requests.last().map(|last| &last.authorization), Some(&None));
}

#[test]
fn a_panic_inside_hf_hub_is_an_error() {
    let setup = Setup::new();
    setup.server.set_fault(Fault::NoLocation);
    let words = ["model.bin", "hf-hub gave up", "location header"];
    assert_system(setup.run().get("model.bin"), &words, "HF_ENDPOINT");
    setup.server.set_fault(None);
    assert_eq!(read(ok(setup.run().get("model.bin"))), weights());
}

#[test]
fn another_process_that_downloads_is_waited_for() {
    let setup = Setup::new();
    setup.leave_part(b"somebody else's");
    let lock = File::create(setup.blob("model.bin", ".lock")).expect("a file");
    lock.lock().expect("a lock");
    // Waiting is not silence: the timeout is shorter than the wait.
    let run = || {
        let timeout = Duration::from_secs(3);
        setup.run_with(REPO, |options| options.timeout = timeout).get("model.bin")
    };
    assert_system(run(), &["another process", ".lock"], "wait until that is done");
    assert_eq!(read(setup.blob("model.bin", ".part")), b"somebody else's");

    thread::scope(|scope| {
        let waiting = scope.spawn(run);
        thread::sleep(Duration::from_millis(300));
        // The other one is done.
        let snapshot = setup.cached("snapshots").join(FIRST);
        fs::create_dir_all(&snapshot).expect("a folder");
        fs::write(snapshot.join("model.bin"), weights()).expect("a file");
        drop(lock);
        assert_eq!(read(ok(waiting.join().expect("no panic"))), weights());
    });
    assert!(setup.starts().is_empty());
}

#[test]
fn two_at_once_get_the_same_file() {
    let setup = Setup::new();
    setup.server.set_fault(Fault::SlowBody(50));
    thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| setup.run().get("model.bin")));
        for run in both {
            assert_eq!(read(ok(run.join().expect("no panic"))), weights());
        }
    });
}

#[test]
fn repository_names() {
    let id = ok(RepoId::model("owner/na.me-1_x"));
    assert_eq!((id.kind, id.name.as_str()), (RepoKind::Model, "owner/na.me-1_x"));
    assert_eq!(id.to_string(), "owner/na.me-1_x@main");
    let id = ok(RepoId::dataset("owner/name@refs/pr/1"));
    assert_eq!((id.kind, id.name.as_str()), (RepoKind::Dataset, "owner/name"));
    assert_eq!(id.revision, "refs/pr/1");
    for bad in ["", "name", "/name", "owner/", "a/b/c", "owner/na me", "a--b/c"] {
        assert_input(RepoId::model(bad), &["OWNER/NAME", bad], "");
    }
    for bad in ["../name", "owner/..", "owner/name?x", "C:x/y", "öwner/name"] {
        assert_input(RepoId::model(bad), &["OWNER/NAME", bad], "");
    }
    for bad in ["owner/name@", "owner/name@../x", "owner/name@a//b"] {
        assert_input(RepoId::model(bad), &["OWNER/NAME", bad], "");
    }
}

#[test]
fn options_follow_the_environment() {
    let options = |variables: &[(&str, &str)]| {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        HubOptions::from_lookup(false, |name| Some(variables.get(name)?.to_string()))
    };
    let defaults = options(&[("HOME", "/home/me")]);
    assert_eq!(defaults.endpoint, "https://huggingface.co");
    assert_eq!((defaults.offline, defaults.token), (false, None));
    assert_eq!(defaults.timeout, Duration::from_secs(30));

    // The cache: each of these wins over those before it; an empty one counts for nothing.
    let all = [
        ("HOME", "/home/me", "/home/me/.cache/huggingface/hub"),
        ("XDG_CACHE_HOME", "/caches", "/caches/huggingface/hub"),
        ("HF_HOME", "/hf", "/hf/hub"),
        ("HF_HUB_CACHE", "/cache", "/cache"),
    ];
    let mut variables = Vec::new();
    for (name, value, expected) in all {
        variables.push((name, value));
        assert_eq!(options(&variables).cache, Path::new(expected));
    }
    variables.push(("HF_HUB_CACHE", " "));
    assert_eq!(options(&variables).cache, Path::new("/hf/hub"));

    for yes in ["1", "true", "YES", "on"] {
        assert!(options(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
    }
    for no in ["0", "false", "", "no"] {
        assert!(!options(&[("HF_HUB_OFFLINE", no)]).offline, "{no}");
    }
    assert!(HubOptions::from_lookup(true, |_| None).offline);
    let endpoint = options(&[("HF_ENDPOINT", "http://mirror:8080/")]).endpoint;
    assert_eq!(endpoint, "http://mirror:8080");
    for (text, seconds) in [("7", 7), ("soon", 30), ("0", 30)] {
        let timeout = options(&[("HF_HUB_DOWNLOAD_TIMEOUT", text)]).timeout;
        assert_eq!(timeout, Duration::from_secs(seconds), "{text}");
    }

    // The token: each of these wins over those before it.
    let folder = TempDir::new().expect("a temporary folder");
    let (home, other) = (folder.path(), folder.path().join("other"));
    fs::write(home.join("token"), "from-home\n").expect("a file");
    fs::write(&other, " from-path ").expect("a file");
    let all = [
        ("HF_HOME", home.display().to_string(), "from-home"),
        ("HF_TOKEN_PATH", other.display().to_string(), "from-path"),
        ("HF_TOKEN", "from-variable ".to_string(), "from-variable"),
    ];
    let mut variables = Vec::new();
    for (name, value, expected) in &all {
        variables.push((*name, value.as_str()));
        assert_eq!(options(&variables).token.as_deref(), Some(*expected));
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let setup = Setup::new();
    fs::write(setup.cache(), b"a file, not a folder").expect("a file");
    let cache = setup.cache().display().to_string();
    assert_system(setup.run().get("config.json"), &[&cache], "HF_HUB_CACHE");
}

#[test]
fn a_bad_endpoint_is_the_requests_fault() {
    let setup = Setup::new();
    let outcome = setup.hub(|options| options.endpoint = "huggingface.co".to_string());
    assert_input(outcome, &["HF_ENDPOINT", "huggingface.co"], "");
}

/// `kvgauge validate` through the hub: the embedded model's files served as a repository.
struct CommandLine {
    server: HubServer,
    home: TempDir,
}

impl CommandLine {
    fn new() -> Self {
        let server = HubServer::start();
        let file = |name: &str| read(Path::new("data/builtin").join(name));
        let (config, tokenizer, weights) =
            (file("config.json"), file("tokenizer.json"), file("model.safetensors"));
        let files = [
            ("config.json", &config[..], false),
            ("tokenizer.json", &tokenizer[..], false),
            ("model.safetensors", &weights[..], true),
        ];
        server.push("owner/tiny-llama", FIRST, &files);
        Self { server, home: TempDir::new().expect("a folder") }
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        std::process::Command::new(env!("CARGO_BIN_EXE_kvgauge"))
            .args(["validate", "--context", "64", "--windows", "2", "--json"])
            .args(arguments)
            .env("HF_ENDPOINT", self.server.endpoint())
            .env("HF_HOME", self.home.path())
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("HF_TOKEN")
            .output()
            .expect("kvgauge runs")
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    fn error(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{errors}");
        assert!(output.stdout.is_empty());
        assert_eq!(errors.matches("error: ").count(), 1, "{errors}");
        assert_eq!(errors.matches("hint: ").count(), 1, "{errors}");
        errors
    }
}

#[test]
fn validate_downloads_once_and_reports_the_commit() {
    let mut command = CommandLine::new();
    let arguments = ["--model", "owner/tiny-llama", "--text", "builtin"];
    let first = command.json(&arguments);
    assert_eq!(first["model"]["source"], "owner/tiny-llama");
    assert_eq!(first["model"]["revision"], FIRST);
    command.server.stop();
    let again = command.json(&arguments);
    let offline = command.json(&[&arguments[..], &["--offline"]].concat());
    let builtin = command.json(&["--model", "builtin", "--text", "builtin"]);
    for other in [again, offline, builtin] {
        assert_eq!(other["baseline"], first["baseline"]);
        assert_eq!(other["codecs"], first["codecs"]);
    }
    let missing = command.error(&["--model", "owner/other", "--offline"], 2);
    assert!(missing.contains("owner/other"), "{missing}");
}

#[test]
fn validate_takes_wikitext_from_its_zip_and_checks_it() {
    let command = CommandLine::new();
    let serve = |text: &[u8]| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let method = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        zip.start_file("wikitext-2-raw/wiki.test.raw", method).expect("a member");
        std::io::Write::write_all(&mut zip, text).expect("zipped");
        let zip = zip.finish().expect("a zip").into_inner();
        command.server.push("ggml-org/ci", SECOND, &[("wikitext-2-raw-v1.zip", &zip, true)]);
    };
    let arguments = ["--model", "owner/tiny-llama", "--text", "wikitext-2"];
    serve(b"some other text");
    let error = command.error(&arguments, 3);
    assert!(error.contains("expected sha256 173c87a5"), "{error}");

    let shared = std::env::var_os("KVGAUGE_SHARED").map_or("../shared".into(), PathBuf::from);
    let Ok(text) = std::fs::read(shared.join("data/wiki.test.raw")) else {
        skip("WikiText-2 from its zip", &format!("no wiki.test.raw in {}", shared.display()));
        return;
    };
    std::fs::remove_dir_all(command.home.path().join("hub/datasets--ggml-org--ci")).expect("gone");
    serve(&text);
    let result = command.json(&arguments);
    assert_eq!(result["text"]["source"], "wikitext-2");
    assert_eq!(result["text"]["bytes"], text.len());
}
