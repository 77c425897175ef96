//! A stand-in for huggingface.co on a local port: std only, one thread per connection, every
//! request written down, faults on demand.
//!
//! It answers what the hub answers: `/REPO/resolve/REVISION/FILE` redirects to a relative address
//! for a small file and to an absolute one, with the file's hash, for a large one; both of these
//! serve byte ranges.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Close the connection after this many bytes of a body that was announced as longer.
    CutBody(usize),
    /// Stop sending after this many bytes of a body, and keep the connection open.
    StallBody(usize),
    /// Send only this many bytes and announce no more than that, but the file's size as the total.
    ShortBody(usize),
    /// Send the right number of wrong bytes.
    FlipBody,
    /// Answer a request for a range with the whole file.
    IgnoreRange,
    /// Send bodies in six pieces, each after this many milliseconds.
    SlowBody(u64),
    /// Accept, and never answer.
    Hang,
    /// Answer one request only after this many milliseconds, the others as always.
    LateOnce(u64),
    /// Answer every request with this status and nothing else.
    Status(u16),
    /// Answer with this status, and the error code the hub has for it.
    Coded(u16, &'static str),
    /// Redirect to nowhere.
    NoLocation,
    /// Answer as some other web server would.
    NotAHub,
    /// Give no reasons for errors.
    NoCodes,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// First byte asked for, if a range was.
    pub from: Option<usize>,
    /// Asks for the file, not only for its first byte.
    pub body: bool,
    pub authorization: Option<String>,
}

struct StoredFile {
    bytes: Vec<u8>,
    large: bool,
    etag: String,
}

#[derive(Default)]
struct Repository {
    main: String,
    commits: BTreeMap<String, BTreeMap<String, StoredFile>>,
}

#[derive(Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    fault: Option<Fault>,
    log: Vec<Request>,
    /// Connections that are kept open without an answer.
    parked: Vec<TcpStream>,
    stopped: bool,
}

pub struct HubServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl HubServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&shared).stopped {
                    break;
                }
                let shared = shared.clone();
                // A client that goes away in the middle is part of what is tested.
                thread::spawn(move || stream.map(|stream| serve(stream, address, &shared)));
            }
        });
        Self { address, state, acceptor: Some(acceptor) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes `commit` the head of main, with these files: name, bytes, large (stored by hash).
    pub fn push(&self, repo: &str, commit: &str, files: &[(&str, &[u8], bool)]) {
        let mut state = lock(&self.state);
        let repository = state.repositories.entry(repo.to_string()).or_default();
        repository.main = commit.to_string();
        let stored = |&(name, bytes, large): &(&str, &[u8], bool)| {
            let (bytes, etag) = (bytes.to_vec(), etag(bytes, large));
            (name.to_string(), StoredFile { bytes, large, etag })
        };
        let files = files.iter().map(stored);
        repository.commits.insert(commit.to_string(), files.collect());
    }

    pub fn set_fault(&self, fault: impl Into<Option<Fault>>) {
        let mut state = lock(&self.state);
        state.fault = fault.into();
        state.parked.clear();
    }

    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).log.clone()
    }

    /// Refuses connections from here on.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else {
            return;
        };
        let mut state = lock(&self.state);
        state.stopped = true;
        state.parked.clear();
        drop(state);
        let _ = TcpStream::connect(self.address);
        acceptor.join().expect("the acceptor ends");
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Works on after a panic: a test that fails should say why, not abort in a destructor.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hash that names a file: SHA-256 for large ones; for small ones just as long as git's.
pub fn etag(bytes: &[u8], large: bool) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    hash[..if large { 64 } else { 40 }].to_string()
}

/// Reads one request, answers it, closes the connection.
fn serve(mut stream: TcpStream, address: SocketAddr, shared: &Mutex<State>) -> Option<()> {
    let request = read_request(&stream)?;
    let mut state = lock(shared);
    state.log.push(request.clone());
    let fault = state.fault;
    if let Some(Fault::LateOnce(milliseconds)) = fault {
        state.fault = None;
        drop(state);
        thread::sleep(Duration::from_millis(milliseconds));
        state = lock(shared);
    }
    let plain = |status: u16, headers: &str| {
        format!("HTTP/1.1 {status} x\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
    };
    let send = |mut stream: TcpStream, text: String| stream.write_all(text.as_bytes()).ok();
    match fault {
        Some(Fault::Hang) => {
            state.parked.push(stream);
            return None;
        }
        Some(Fault::Status(status)) => return send(stream, plain(status, "")),
        Some(Fault::Coded(status, code)) => {
            return send(stream, plain(status, &format!("x-error-code: {code}\r\n")));
        }
        Some(Fault::NotAHub) => return send(stream, plain(200, "")),
        _ => {}
    }
    let coded = |status, code: &str, headers: &str| match fault {
        Some(Fault::NoCodes) => plain(status, ""),
        _ => plain(status, &format!("x-error-code: {code}\r\n{headers}")),
    };

    // /OWNER/NAME/resolve/REVISION/FILE, or where that redirects to.
    let path = request.path.trim_start_matches("/datasets");
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (owner, name, revision, file, redirects) = match parts.as_slice() {
        [owner, name, "resolve", revision, file @ ..] => (owner, name, revision, file, true),
        ["files", owner, name, commit, file @ ..] => (owner, name, commit, file, false),
        _ => return send(stream, plain(400, "")),
    };
    let (repo, file) = (format!("{owner}/{name}"), file.join("/"));
    let Some(repository) = state.repositories.get(&repo) else {
        return send(stream, coded(404, "RepoNotFound", ""));
    };
    let commit = if *revision == "main" { &repository.main } else { *revision };
    let Some(files) = repository.commits.get(commit) else {
        return send(stream, coded(404, "RevisionNotFound", ""));
    };
    let Some(stored) = files.get(&file) else {
        let headers = format!("x-repo-commit: {commit}\r\n");
        return send(stream, coded(404, "EntryNotFound", &headers));
    };
    let tag = &stored.etag;
    if redirects {
        let place = format!("/files/{repo}/{commit}/{file}");
        let location = match (fault, stored.large) {
            (Some(Fault::NoLocation), _) => String::new(),
            (_, true) => {
                format!("location: http://{address}{place}\r\nx-linked-etag: \"{tag}\"\r\n")
            }
            (_, false) => format!("location: {place}\r\n"),
        };
        let headers = format!("{location}x-repo-commit: {commit}\r\netag: \"resolve-{tag}\"\r\n");
        return send(stream, plain(302, &headers));
    }

    let total = stored.bytes.len();
    let (mut from, mut status) = (request.from.unwrap_or(0), 206);
    if request.from.is_none() || request.body && fault == Some(Fault::IgnoreRange) {
        (from, status) = (0, 200);
    }
    if from >= total {
        return send(stream, plain(416, &format!("content-range: bytes */{total}\r\n")));
    }
    let end = if request.body { total } else { 1 };
    let mut body = stored.bytes[from..end].to_vec();
    let (mut announced, mut sent) = (body.len(), body.len());
    if request.body {
        match fault {
            Some(Fault::CutBody(n) | Fault::StallBody(n)) => sent = sent.min(n),
            Some(Fault::ShortBody(n)) => (announced, sent) = (n.min(sent), n.min(sent)),
            Some(Fault::FlipBody) => body.iter_mut().for_each(|byte| *byte ^= 0x55),
            _ => {}
        }
    }
    let mut head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n");
    head +=
        &format!("x-repo-commit: {commit}\r\netag: \"{tag}\"\r\ncontent-length: {announced}\r\n");
    if status == 206 {
        head += &format!("content-range: bytes {from}-{}/{total}\r\n", end - 1);
    }
    if let (true, Some(Fault::SlowBody(milliseconds))) = (request.body, fault) {
        drop(state);
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        for piece in body.chunks(body.len().div_ceil(6)) {
            thread::sleep(Duration::from_millis(milliseconds));
            stream.write_all(piece).ok()?;
        }
        return Some(());
    }
    stream.write_all(&[format!("{head}\r\n").as_bytes(), &body[..sent]].concat()).ok()?;
    if request.body && matches!(fault, Some(Fault::StallBody(_))) {
        state.parked.push(stream);
    }
    Some(())
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_string();
    let mut request = Request { path, from: None, body: true, authorization: None };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.from = Some(from.parse().ok()?);
                request.body = to.is_empty();
            }
            "authorization" => request.authorization = Some(value.to_string()),
            _ => {}
        }
    }
    request.body &= request.path.starts_with("/files/");
    Some(request)
}
