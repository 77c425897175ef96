//! One file from the hub into the cache. The only file that knows hf-hub.
//!
//! hf-hub's client has no timeouts, so its blocking calls run on a thread that is watched for
//! signs of life, and abandoned when there are none. An abandoned thread can do no harm: until the
//! process ends, all it may still do is complete a file that passes every check.
//!
//! hf-hub takes whatever arrives for the file. So [`PartCheck`] looks at the part file when the
//! last byte is there, before hf-hub renames it to `blobs/ETAG` and links it into the snapshot.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::DownloadProgress;
use super::options::{HubOptions, RepoId, RepoKind, is_hex, is_plain_path};
use super::watch::{Stage, Watch, watched};
use crate::hash::hex;
use crate::{Error, Result};

/// The longest wait for another process that downloads the same file.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The hint for a hub that gives no or a strange answer.
pub(super) const NETWORK_HINT: &str =
    "check the network and HF_ENDPOINT; --offline makes do with what is in the cache";
const CACHE_HINT: &str = "HF_HUB_CACHE or HF_HOME puts the cache elsewhere";
/// The hint for a download that broke off.
pub(super) const RESUME_HINT: &str = "run it again: the download resumes";
const ACCESS_HINT: &str =
    "accept the licence on the model's page, then set HF_TOKEN or run `hf auth login`";

/// The hub's answer to a request for a file.
pub(super) enum Answer {
    File {
        path: PathBuf,
        commit: String,
    },
    /// The repository is there, the file is not.
    Absent {
        commit: Option<String>,
    },
}

/// The client of one hub with one cache.
#[derive(Clone)]
pub(super) struct Downloader {
    options: Arc<HubOptions>,
    api: Api,
    progress: Arc<dyn DownloadProgress>,
}

impl Downloader {
    /// Makes no request.
    pub(super) fn new(
        options: Arc<HubOptions>,
        progress: Arc<dyn DownloadProgress>,
    ) -> Result<Self> {
        let endpoint = &options.endpoint;
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            let message = format!("HF_ENDPOINT: expected http:// or https://, found {endpoint:?}");
            return Err(Error::input(message).hint(
                "unset HF_ENDPOINT for huggingface.co, or name a mirror, https:// included",
            ));
        }
        let api = ApiBuilder::from_cache(Cache::new(options.cache.clone()))
            .with_endpoint(endpoint.clone())
            .with_token(options.token.clone())
            .with_user_agent("kvgauge", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| broken(error).within(endpoint))?;
        Ok(Self { options, api, progress })
    }

    /// Downloads `file`, of `commit` if that is settled, else of whatever `id.revision` is now.
    pub(super) fn fetch(&self, id: &RepoId, file: &str, commit: Option<String>) -> Result<Answer> {
        let watch = Arc::new(Watch::new(self.progress.clone()));
        let download = Download {
            hub: self.clone(),
            id: id.clone(),
            file: file.to_string(),
            commit,
            watch: watch.clone(),
        };
        let outcome = watched(self.options.timeout, &watch, move || download.run());
        watch.close();
        outcome
            .map_err(|error| error.within(format!("{id}: {file} from {}", self.options.endpoint)))
    }
}

/// One file on its way into the cache.
struct Download {
    hub: Downloader,
    id: RepoId,
    file: String,
    commit: Option<String>,
    watch: Arc<Watch>,
}

impl Download {
    fn run(self) -> Result<Answer> {
        let asked = self.repo_at(self.commit.as_ref().unwrap_or(&self.id.revision));
        let url = self.hub.api.repo(asked.clone()).url(&self.file);
        let meta = match self.hub.api.metadata(&url) {
            Ok(meta) => meta,
            Err(error) => return self.explain(error, asked, &url),
        };
        self.watch.beat();
        let commit = meta.commit_hash();
        // Both become parts of paths in the cache.
        if !is_plain_path(commit) || !is_plain_path(meta.etag()) {
            return Err(not_a_hub("a commit and an etag"));
        }
        if let Some(wanted) = self.commit.as_ref().filter(|wanted| *wanted != commit) {
            let message = format!("expected the file of commit {wanted}, found that of {commit}");
            return Err(Error::network(message).hint(NETWORK_HINT));
        }
        let path = self.download(commit, meta.etag(), meta.size() as u64)?;
        let commit = commit.to_string();
        Ok(Answer::File { path, commit })
    }

    fn download(&self, commit: &str, etag: &str, size: u64) -> Result<PathBuf> {
        // The commit is asked for, not the branch: a push cannot change the file under us.
        let pinned = self.repo_at(commit);
        let cache = Cache::new(self.hub.options.cache.clone()).repo(pinned.clone());
        let blob = cache.blob_path(etag);
        let part = blob.with_extension("part");
        let path = cache.pointer_path(commit).join(&self.file);

        let lock = self.lock(&blob)?;
        if path.is_file() {
            return Ok(path); // another process was quicker
        }
        let mut resumes =
            prepare_part(&part, size, is_hex(etag, 64)).map_err(|error| local(&part, &error))?;
        drop(lock); // hf-hub takes it itself

        loop {
            let (refuse, refusal) = mpsc::channel();
            let check = PartCheck {
                part: part.clone(),
                size,
                etag: etag.to_string(),
                watch: self.watch.clone(),
                refuse,
            };
            let repo = self.hub.api.repo(pinned.clone());
            let outcome = repo.download_with_progress(&self.file, check);
            let Ok(reason) = refusal.try_recv() else {
                return outcome.map_err(broken);
            };
            // Only if the part could not be taken away from it:
            if let Ok(path) = outcome {
                let _ = fs::remove_file(path);
            }
            if !resumes {
                return Err(reason);
            }
            resumes = false; // what was here already was something else: once more, from nothing
        }
    }

    fn repo_at(&self, revision: &str) -> Repo {
        let kind = match self.id.kind {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.id.name.clone(), kind, revision.to_string())
    }

    /// Takes hf-hub's lock on a blob.
    fn lock(&self, blob: &Path) -> Result<File> {
        let path = blob.with_extension("lock");
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let file =
            folder.and_then(|()| File::create(&path)).map_err(|error| local(&path, &error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(local(&path, &error)),
                Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_WAIT => {
                    return Err(locked(&path));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(50)),
            }
            self.watch.beat();
        }
    }

    /// The meaning of a failed request for `url`. hf-hub drops the headers of such an answer,
    /// so where the hub's error code matters, the question is put again.
    fn explain(&self, error: ApiError, asked: Repo, url: &str) -> Result<Answer> {
        let Some(status @ (401 | 403 | 404)) = http_status(&error) else {
            return Err(broken(error));
        };
        self.watch.beat();
        let revision = asked.revision().to_string();
        let again = self.hub.api.repo(asked).info_request().uri(url).config();
        let answer = match again.http_status_as_error(false).build().call() {
            Ok(answer) if answer.status() == status => answer,
            _ => return Err(broken(error)),
        };
        let header = |name| answer.headers().get(name)?.to_str().ok();
        let commit = header("x-repo-commit").filter(|commit| is_plain_path(commit));
        let commit = self.commit.clone().or(commit.map(str::to_string));
        let spelling = "check the spelling of OWNER/NAME and of the file";
        match header("x-error-code") {
            Some("EntryNotFound") => Ok(Answer::Absent { commit }),
            // A settled commit is proof enough that the repository exists.
            None if status == 404 && self.commit.is_some() => Ok(Answer::Absent { commit }),
            Some("RevisionNotFound") => {
                let hint = "after the @ goes a branch, a tag or a full commit hash";
                Err(Error::input(format!("no revision {revision}")).hint(hint))
            }
            Some("GatedRepo") => {
                let message = format!("access to this repository is restricted (status {status})");
                Err(Error::input(message).hint(ACCESS_HINT))
            }
            _ if status == 404 => {
                Err(Error::input("no such repository or file (status 404)").hint(spelling))
            }
            _ => {
                let token = match self.hub.options.token {
                    Some(_) => "; the token in use may be wrong or out of date",
                    None => "",
                };
                let message = format!("no such repository, or no access to it (status {status})");
                let hint = format!("{spelling}; if it is right, {ACCESS_HINT}{token}");
                Err(Error::input(message).hint(hint))
            }
        }
    }
}

/// Follows hf-hub through one download and has the last word on it.
struct PartCheck {
    part: PathBuf,
    size: u64,
    etag: String,
    watch: Arc<Watch>,
    /// Why what was downloaded is not the file.
    refuse: Sender<Error>,
}

impl Progress for PartCheck {
    /// Comes twice in one download.
    fn init(&mut self, size: usize, file: &str) {
        let tell = |progress: &dyn DownloadProgress| progress.start(file, size as u64);
        self.watch.step(Stage::Hidden, Stage::Shown, tell);
    }

    fn update(&mut self, bytes: usize) {
        let tell = |progress: &dyn DownloadProgress| progress.advance(bytes as u64);
        self.watch.step(Stage::Shown, Stage::Shown, tell);
    }

    /// The server has no more to send. The way to keep hf-hub from taking the part for the file is
    /// to take it away.
    fn finish(&mut self) {
        if let Err(reason) = verify(&self.part, self.size, &self.etag, &self.watch) {
            let _ = self.refuse.send(reason);
            let _ = fs::remove_file(&self.part);
        }
        let tell = |progress: &dyn DownloadProgress| progress.finish();
        self.watch.step(Stage::Shown, Stage::Hidden, tell);
    }
}

/// hf-hub appends what the server sends to a part that an earlier run left. Makes that part fit
/// for it; says whether there is one.
fn prepare_part(part: &Path, size: u64, checkable: bool) -> io::Result<bool> {
    let length = match fs::metadata(part) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !checkable || size == 0 {
        fs::remove_file(part)?;
        return Ok(false);
    }
    if length >= size {
        // To ask for what follows the last byte is an error, so the last byte is fetched again.
        File::options().write(true).open(part)?.set_len(size - 1)?;
    }
    Ok(true)
}

/// Large files are named by their SHA-256, small ones by git's hash, where the size must do.
fn verify(part: &Path, size: u64, etag: &str, watch: &Watch) -> Result<()> {
    let wrong = |message: String| {
        let hint = "run it again: the file starts over; if that does not help, suspect a proxy";
        Error::network(format!("not what the hub announced: {message}")).hint(hint)
    };
    let mut file = File::open(part).map_err(|error| local(part, &error))?;
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk).map_err(|error| local(part, &error))?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        length += read as u64;
        watch.beat();
    }
    if length != size {
        return Err(wrong(format!("expected {size} bytes, found {length}")));
    }
    let found = hex(&hash.finalize());
    if is_hex(etag, 64) && found != etag {
        return Err(wrong(format!("expected sha256 {etag}, found {found}")));
    }
    Ok(())
}

/// ureq is not a dependency of ours, so its error can be shown but not matched.
fn http_status(error: &ApiError) -> Option<u16> {
    let ApiError::RequestError(error) = error else {
        return None;
    };
    error.to_string().strip_prefix("http status: ")?.parse().ok()
}

/// hf-hub's error in our words.
fn broken(error: ApiError) -> Error {
    use ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match (http_status(&error), error) {
        (Some(429), _) => Error::network("answered with status 429: too many requests")
            .hint("wait a little, or set HF_TOKEN"),
        (Some(status), _) => {
            Error::network(format!("answered with status {status}")).hint(NETWORK_HINT)
        }
        (_, ApiError::MissingHeader(name) | ApiError::InvalidHeader(name)) => not_a_hub(name),
        (_, ApiError::ParseIntError(_)) => not_a_hub("the size of the file"),
        (_, ApiError::LockAcquisition(path)) => locked(&path),
        (_, ApiError::IoError(error)) => match error.kind() {
            StorageFull | QuotaExceeded | PermissionDenied | ReadOnlyFilesystem => {
                Error::system(format!("the cache cannot be written: {error}")).hint(CACHE_HINT)
            }
            _ => Error::network(format!("the download broke off: {error}")).hint(RESUME_HINT),
        },
        (_, error) => Error::network(error.to_string()).hint(NETWORK_HINT),
    }
}

fn local(path: &Path, error: &io::Error) -> Error {
    Error::system(format!("{}: {error}", path.display())).hint(CACHE_HINT)
}

fn locked(lock: &Path) -> Error {
    let message = format!("{}: another process is downloading it", lock.display());
    Error::system(message).hint("wait until that is done, then run this again")
}

fn not_a_hub(expected: &str) -> Error {
    let hint = "HF_ENDPOINT must name a Hugging Face hub; or is it a proxy or a login page?";
    Error::network(format!("expected a hub's answer with {expected}, found none")).hint(hint)
}
