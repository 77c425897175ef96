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

/// One JSON object, indented, with its newline.
pub fn json(value: &impl serde::Serialize) -> Result<String> {
    let object = serde_json::to_string_pretty(value);
    Ok(object.map_err(|e| Error::system(format!("JSON: {e}")))? + "\n")
}
