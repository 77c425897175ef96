//! Files of Hugging Face repositories: out of the ordinary cache, downloaded when not there.
//!
//! - The cache is the one that Hugging Face's own tools share: `models--OWNER--NAME/` with
//!   `blobs/`, `snapshots/COMMIT/FILE`, `refs/REVISION` and `.no_exist/COMMIT/FILE`. What it
//!   answers costs no request.
//! - All files of one [`HubRepo`] come from one commit, also when somebody pushes in between.
//! - A download enters the cache only once its size, and its SHA-256 where the hub tells it (large
//!   files), are right. What an interrupted one left is resumed if it can be checked afterwards.
//! - A server that sends nothing for [`HubOptions::timeout`] is given up.
//! - Nothing here prints; the caller's [`DownloadProgress`] shows what it likes. A panic inside
//!   hf-hub becomes an error.

mod download;
mod options;
mod watch;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::{Error, Result};
use download::{Answer, Downloader};
pub use options::{HubOptions, RepoId, RepoKind};

/// Follows the downloads: `start`, any number of `advance`, `finish`, in this order. Called from
/// the downloading thread; `finish` by the caller's own if that thread is given up.
pub trait DownloadProgress: Send + Sync {
    /// `bytes` is the size of the whole file. Comes again, after `finish`, if a file starts over.
    fn start(&self, file: &str, bytes: u64);
    /// `bytes` more are here. The first call of a resumed download counts what was here already.
    fn advance(&self, bytes: u64);
    /// The file is complete and checked, or the download failed.
    fn finish(&self);
}

impl DownloadProgress for () {
    fn start(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}

/// A hub and the cache in front of it.
#[derive(Clone)]
pub struct Hub {
    options: Arc<HubOptions>,
    downloader: Downloader,
}

impl Hub {
    /// Makes no request.
    pub fn new(options: HubOptions, progress: Arc<dyn DownloadProgress>) -> Result<Self> {
        let options = Arc::new(options);
        let downloader = Downloader::new(options.clone(), progress)?;
        Ok(Self { options, downloader })
    }

    /// A repository of the hub. Makes no request.
    pub fn repo(&self, id: RepoId) -> HubRepo {
        HubRepo { hub: self.clone(), id, commit: OnceLock::new() }
    }
}

/// The files of one repository, all of one commit.
pub struct HubRepo {
    hub: Hub,
    id: RepoId,
    commit: OnceLock<String>,
}

/// The state of one file.
enum FileState {
    /// In the cache, at this path.
    File(PathBuf),
    /// Not part of the repository.
    Absent,
    /// Not in the cache, and we are offline.
    NotCached,
}

impl HubRepo {
    /// The path of `file` in the cache, downloaded if it was not there.
    pub fn get(&self, file: &str) -> Result<PathBuf> {
        match self.find(file)? {
            FileState::File(path) => Ok(path),
            FileState::Absent => {
                let message = format!("{}: no file {file} in this repository", self.id);
                Err(Error::input(message).hint("see its page for the files that it has"))
            }
            FileState::NotCached => Err(self.not_cached(file)),
        }
    }

    /// The same, but `None` if the repository has no such file; offline, if the cached snapshot
    /// has none.
    pub fn get_optional(&self, file: &str) -> Result<Option<PathBuf>> {
        match self.find(file)? {
            FileState::File(path) => Ok(Some(path)),
            FileState::Absent => Ok(None),
            FileState::NotCached => match self.known_commit() {
                Some(commit) if self.cached("snapshots", &commit).is_dir() => Ok(None),
                _ => Err(self.not_cached(file)),
            },
        }
    }

    /// The repository and its revision, as asked for.
    pub fn id(&self) -> &RepoId {
        &self.id
    }

    /// The commit that the files are from, known after the first one.
    pub fn commit(&self) -> Option<String> {
        self.commit.get().cloned()
    }

    fn find(&self, file: &str) -> Result<FileState> {
        if !options::is_plain_path(file) {
            let message = format!("{}: expected a file's name, found {file:?}", self.id);
            return Err(Error::input(message).hint(
                "an index of shards names files of the repository, without folders above it",
            ));
        }
        let known = self.known_commit();
        if let Some(commit) = &known {
            let path = self.cached("snapshots", commit).join(file);
            let is_file = path.is_file();
            if is_file || self.cached(".no_exist", commit).join(file).is_file() {
                self.commit.get_or_init(|| commit.clone());
                return Ok(if is_file { FileState::File(path) } else { FileState::Absent });
            }
        }
        if self.hub.options.offline {
            return Ok(FileState::NotCached);
        }
        match self.hub.downloader.fetch(&self.id, file, known)? {
            Answer::File { path, commit } => {
                self.pin(commit)?;
                Ok(FileState::File(path))
            }
            Answer::Absent { commit } => {
                if let Some(commit) = commit {
                    // Only saves the next run a request: a cache that is read-only will do.
                    let marker = self.cached(".no_exist", &commit).join(file);
                    let _ = marker.parent().map(fs::create_dir_all);
                    let _ = File::create(marker);
                    self.pin(commit)?;
                }
                Ok(FileState::Absent)
            }
        }
    }

    /// The commit that files must come from, as far as that is settled without a request.
    fn known_commit(&self) -> Option<String> {
        let revision = &self.id.revision;
        if let Some(commit) = self.commit.get() {
            return Some(commit.clone());
        }
        if options::is_hex(revision, 40) {
            return Some(revision.clone());
        }
        let commit = fs::read_to_string(self.cached("refs", revision)).ok()?;
        let commit = commit.trim();
        options::is_plain_path(commit).then(|| commit.to_string())
    }

    /// Settles the commit for the files and the runs to come.
    fn pin(&self, commit: String) -> Result<()> {
        // hf-hub is asked for the commit, so it does not write down what the revision means.
        if self.id.revision != commit {
            let path = self.cached("refs", &self.id.revision);
            let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
            folder
                .and_then(|()| fs::write(&path, &commit))
                .map_err(|error| Error::io(&path, &error))?;
        }
        self.commit.get_or_init(|| commit);
        Ok(())
    }

    /// An entry of this repository's folder in the cache.
    fn cached(&self, folder: &str, entry: &str) -> PathBuf {
        let repository = self.hub.options.cache.join(self.id.folder_name());
        repository.join(folder).join(entry)
    }

    fn not_cached(&self, file: &str) -> Error {
        let cache = self.hub.options.cache.display();
        let id = &self.id;
        let message = format!("{id}: {file}: offline, and not in the cache {cache}");
        Error::input(message).hint("run once without --offline (HF_HUB_OFFLINE)")
    }
}
