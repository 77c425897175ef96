//! Where something was said, so that an error can point there.

use crate::error::Error;
use std::fmt;
use std::sync::Arc;

/// `--context`, or `configs/x.toml: line 3, column 11: context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Flag(&'static str),
    /// Lines and columns count from 1, columns in characters.
    File {
        path: Arc<str>,
        line: usize,
        column: usize,
        /// With its tables, as in `grid.group`; empty where there is none to name.
        key: Arc<str>,
    },
}

/// A value and where it was said; for a default, the flag that would change it.
#[derive(Debug, Clone, PartialEq)]
pub struct Said<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Said<T> {
    pub fn flag(flag: &'static str, value: T) -> Self {
        Self { value, place: Place::Flag(flag) }
    }
}

impl Place {
    /// `error`, at this place.
    pub fn refuse(&self, error: Error) -> Error {
        error.within(self)
    }

    /// Within its file: `line 3, column 11`.
    pub fn position(&self) -> String {
        match self {
            Place::Flag(flag) => flag.to_string(),
            Place::File { line, column, .. } => format!("line {line}, column {column}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Flag(flag) => f.write_str(flag),
            Place::File { path, key, .. } => {
                write!(f, "{path}: {}", self.position())?;
                if key.is_empty() { Ok(()) } else { write!(f, ": {key}") }
            }
        }
    }
}
