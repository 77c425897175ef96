//! Files that appear whole or not at all.
//!
//! Bytes go to a file in the target's folder that has no name, where the system has such files
//! (Linux, on most file systems), or a hidden one; [`NewFile::commit`] syncs it and gives it the
//! target's name in one step. Until then the old file stays as it was. A run that is killed
//! leaves nothing behind where the file had no name, but for the moment in which a whole one is
//! about to replace another; elsewhere it leaves the hidden file.

mod kind;
mod target;

pub use kind::{CARD_MARK, Kind, MANUAL_MARK, MARKDOWN_MARK, PAGE_MARK, PICTURE_MARK};
pub use target::{check_apart, same_target};

use crate::error::{Error, Result};
use crate::platform;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf, is_separator};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tempfile::TempPath;

/// The fate of a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Replaced, whatever it is.
    Replace,
    /// An error, also when another process was faster.
    Keep,
    /// Replaced where kvgauge wrote it and it is of this kind, or where it is empty; an error else.
    Own(Kind),
}

impl Existing {
    /// Replaced where it is of the kind that is written again, run by run.
    pub fn own(kind: Kind, force: bool) -> Self {
        if force { Self::Replace } else { Self::Own(kind) }
    }
}

/// A file being written. Dropped without [`NewFile::commit`], it is gone.
pub struct NewFile {
    target: PathBuf,
    folder: PathBuf,
    existing: Existing,
    file: File,
    /// `None`: the file has no name.
    hidden: Option<TempPath>,
}

impl NewFile {
    /// Finds out at once that `target` cannot be written: no such folder, no permission, not an
    /// ordinary file, or there already and to be kept.
    pub fn create(target: &Path, existing: Existing) -> Result<Self> {
        let refuse = |found: &str| {
            Err(Error::input(format!(
                "{}: expected a file to write, found {found}",
                target.display()
            ))
            .hint("name a file in a folder that exists"))
        };
        let ends_in_name = target.as_os_str().to_string_lossy().ends_with(|c| !is_separator(c));
        if target.is_dir() || !ends_in_name {
            return refuse("a folder");
        }
        // A rename would put an ordinary file in the place of /dev/null.
        if target.exists() && !target.is_file() {
            return refuse("a device or pipe");
        }
        if existing == Existing::Keep && target.symlink_metadata().is_ok() {
            return Err(taken(target));
        }
        if target.is_symlink() && !target.exists() {
            return refuse("a link that leads nowhere");
        }
        check_own(target, existing)?;
        // A link stays a link: what it leads to is replaced.
        let target = target.canonicalize().unwrap_or_else(|_| target.to_path_buf());
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let (file, hidden) = open(&folder).map_err(|e| {
            Error::io(&folder, &e)
                .within(format!("cannot write {}", target.display()))
                .hint("choose a folder that exists and can be written to")
        })?;
        // Who could not read the old file cannot read the new one.
        if let Ok(old) = target.metadata() {
            let kept = file.set_permissions(old.permissions());
            kept.map_err(|e| Error::system(format!("{}: {e}", target.display())))?;
        }
        Ok(Self { target, folder, existing, file, hidden })
    }

    /// Writes `bytes` from `offset` on; several threads may.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        platform::write_all_at(&self.file, bytes, offset).map_err(|e| self.failed(&e))
    }

    /// Reads what was written.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        platform::read_exact_at(&self.file, bytes, offset).map_err(|e| self.failed(&e))
    }

    /// Ends it after so many bytes.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|e| self.failed(&e))
    }

    /// Does `work`, which writes, and has what is written go to the disk meanwhile: the wait of
    /// [`NewFile::commit`] becomes short. The thread sleeps nearly always.
    pub fn syncing<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        const PAUSE: Duration = Duration::from_millis(10);
        std::thread::scope(|scope| {
            let (done, ended) = mpsc::channel::<()>();
            let early = scope.spawn(move || {
                while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    // An error is told once: a later sync would not know of it.
                    self.file.sync_data()?;
                }
                Ok(())
            });
            let result = work();
            drop(done);
            match early.join() {
                Ok(Err(e)) => Err(self.failed(&e)),
                _ => result,
            }
        })
    }

    /// Gives the file its name; with `sync`, nothing is lost in a power cut from then on.
    pub fn commit(self, sync: bool) -> Result<()> {
        if sync {
            self.file.sync_all().map_err(|e| self.failed(&e))?;
        }
        let target = self.target;
        // Somebody may have written there meanwhile.
        check_own(&target, self.existing)?;
        let named = match (self.existing, self.hidden) {
            (Existing::Keep, Some(hidden)) => {
                hidden.persist_noclobber(&target).map_err(|e| e.error)
            }
            (Existing::Keep, None) => platform::name_file(&self.file, &target),
            (_, Some(hidden)) => hidden.persist(&target).map_err(|e| e.error),
            // A name cannot be taken over without a file of another name to rename.
            (_, None) => hidden_name()
                .make_in(&self.folder, |path| platform::name_file(&self.file, path))
                .and_then(|named| named.into_temp_path().persist(&target).map_err(|e| e.error)),
        };
        named.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => taken(&target),
            _ => Error::system(format!("{}: {e}", target.display())),
        })?;
        if sync {
            let failed = |e| Error::system(format!("{}: {e}", self.folder.display()));
            platform::sync_folder(&self.folder).map_err(failed)?;
        }
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::system(format!("{}: {error}", self.target.display()))
            .hint("nothing was written; is the disk full?")
    }
}

/// A whole file from bytes, synced.
pub fn write(path: &Path, bytes: &[u8], existing: Existing) -> Result<()> {
    let file = NewFile::create(path, existing)?;
    file.write_at(bytes, 0)?;
    file.commit(true)
}

const TAKEN: &str = "--force replaces it; or choose another name";

fn taken(target: &Path) -> Error {
    Error::input(format!("{}: exists already", target.display())).hint(TAKEN)
}

/// [`Existing::Own`] at a file that is there.
fn check_own(target: &Path, existing: Existing) -> Result<()> {
    let Existing::Own(kind) = existing else { return Ok(()) };
    let found = || match kind::is_empty(target)? {
        true => Ok(Some(kind)),
        false => Kind::at(target),
    };
    match found().map_err(|e| Error::io(target, &e))? {
        Some(found) if found == kind => Ok(()),
        found => Err(Error::input(format!(
            "{}: exists already; expected {} to replace, found {}",
            target.display(),
            kind.name(),
            found.map_or("a file that kvgauge did not write", Kind::name)
        ))
        .hint(TAKEN)),
    }
}

fn open(folder: &Path) -> std::io::Result<(File, Option<TempPath>)> {
    match platform::unnamed_file(folder) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            let (file, path) = hidden_name().tempfile_in(folder)?.into_parts();
            Ok((file, Some(path)))
        }
        file => Ok((file?, None)),
    }
}

fn hidden_name() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kvgauge-");
    // A result is an ordinary file: readable as the umask says, not by its owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}
