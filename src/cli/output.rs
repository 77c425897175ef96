//! Results to stdout.

use crate::error::{Error, Result};
use std::io::{ErrorKind, Write};

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
