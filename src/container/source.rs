//! A file being read, from several threads, in pieces.

use crate::error::{Error, Result};
use crate::platform;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// An open file. Read, not mapped: a file that shrinks is an error, not a signal.
pub struct Source {
    path: PathBuf,
    file: File,
    /// As they were when it was opened.
    len: u64,
    modified: Option<SystemTime>,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::io(path, &e).hint("a safetensors file is expected: check the path");
        // Before it is opened: opening a pipe waits for a writer.
        let found = std::fs::metadata(path).map_err(failed)?;
        if !found.is_file() {
            let kind = if found.is_dir() { "a folder" } else { "a device or pipe" };
            return Err(Error::input(format!("{}: expected a file, found {kind}", path.display()))
                .hint("tensors are read at random places: write them to a file first"));
        }
        Self::of(path, File::open(path).map_err(failed)?).map_err(failed)
    }

    /// Of a file that is open already, at `path`.
    pub fn of(path: &Path, file: File) -> std::io::Result<Self> {
        let state = file.metadata()?;
        let (len, modified) = (state.len(), state.modified().ok());
        Ok(Self { path: path.to_path_buf(), file, len, modified })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        platform::read_exact_at(&self.file, bytes, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => self.changed(),
            _ => Error::io(&self.path, &e),
        })
    }

    /// Reads it from its first byte to its last, piece by piece.
    pub fn read_through(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.len {
            let length = (self.len - at).min(buffer.len() as u64) as usize;
            self.read_at(&mut buffer[..length], at)?;
            take(&buffer[..length]);
            at += length as u64;
        }
        Ok(())
    }

    /// An error if the file was written to since it was opened, as far as the system tells.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|e| Error::io(&self.path, &e))?;
        if now.len() != self.len || now.modified().ok() != self.modified {
            return Err(self.changed());
        }
        Ok(())
    }

    /// The error for a file that is not what it was.
    pub fn changed(&self) -> Error {
        Error::input(format!("{}: the file changed while it was read", self.path.display()))
            .hint("run again when whatever writes it is done")
    }
}
