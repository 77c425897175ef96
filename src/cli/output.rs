//! Results to stdout and to files.

use crate::error::{Error, Result};
use std::io::{ErrorKind, Write};
use std::path::{Path, is_separator};

/// Prints to stdout. A reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::system(format!("standard output: {e}")).hint("is the disk full?"))
        }
        _ => Ok(()),
    }
}

/// Finds out now, rather than after an hour's work, that `path` cannot be written.
pub fn check_writable(path: &Path) -> Result<()> {
    let refuse = |found: &str| {
        Err(Error::input(format!("--output {}: expected a file, found {found}", path.display()))
            .hint("--output takes the name of the file to write, in a folder that exists"))
    };
    let ends_in_name = path.as_os_str().to_string_lossy().ends_with(|c| !is_separator(c));
    if path.is_dir() || !ends_in_name {
        return refuse("a folder");
    }
    // A rename would put an ordinary file in the place of /dev/null.
    if path.exists() && !path.is_file() {
        return refuse("a device or pipe");
    }
    temporary(path).map(drop)
}

/// Writes a whole file or nothing: to a temporary file in the same folder, synced, renamed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| Error::system(format!("{}: {e}", path.display()));
    let mut file = temporary(path)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn temporary(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kvgauge-");
    // A result is an ordinary file: readable as the umask says, not by its owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(|e| {
        Error::io(folder, &e)
            .within(format!("cannot write {}", path.display()))
            .hint("choose a folder that exists and can be written to")
    })
}
