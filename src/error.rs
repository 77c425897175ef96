//! The one error type: what went wrong, what to do about it, and which exit status it maps to.
//!
//! A message says where, what, expected and found, in one line. The hint is kept apart so that
//! `cli` can print it as a line of its own.

use std::fmt;

/// Whose fault it is, hence the exit status (docs/errors.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request or the input is wrong: exit status 2.
    Input,
    /// Anything else (I/O, network, out of memory): exit status 3.
    System,
}

#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn input(message: impl Into<String>) -> Self {
        Self { kind: Kind::Input, message: message.into(), hint: None }
    }

    pub fn system(message: impl Into<String>) -> Self {
        Self { kind: Kind::System, message: message.into(), hint: None }
    }

    /// An I/O error on `path`: a missing file is the request's fault, the rest the system's.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Self::input(format!("{}: no such file or folder", path.display()))
            }
            std::io::ErrorKind::IsADirectory | std::io::ErrorKind::NotADirectory => {
                Self::input(message)
            }
            _ => Self::system(message),
        }
    }

    /// Adds the line that says what to do. The first hint given stays.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Puts "where" in front of the message.
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A tensor operation that failed on input that was already checked: a device or memory problem.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // candle appends a backtrace when RUST_BACKTRACE is set: the first line is the message.
        let text = error.to_string();
        Self::system(text.lines().next().unwrap_or_default().to_string())
    }
}
