//! Where a setting was given, so that an error can point there.

use crate::error::Error;
use std::fmt;
use std::sync::Arc;

/// Where a value was given: `--context`, or `configs/x.toml: line 3, column 11: context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// On the command line, behind this flag.
    Flag(&'static str),
    /// In a settings file.
    File {
        /// As it was typed.
        path: Arc<str>,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// With its tables, as in `grid.group`; empty where there is none to name.
        key: Arc<str>,
    },
}

/// A value and where it was given; for a default, the flag that would change it.
#[derive(Debug, Clone, PartialEq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where an error about it should point.
    pub location: Location,
}

impl<T> Given<T> {
    /// A value given by a flag.
    pub fn flag(flag: &'static str, value: T) -> Self {
        Self { value, location: Location::Flag(flag) }
    }
}

impl Location {
    /// `error`, preceded by this location.
    pub fn locate(&self, error: Error) -> Error {
        error.within(self)
    }

    /// The location within its file: `line 3, column 11`.
    pub fn position(&self) -> String {
        match self {
            Location::Flag(flag) => flag.to_string(),
            Location::File { line, column, .. } => format!("line {line}, column {column}"),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Flag(flag) => f.write_str(flag),
            Location::File { path, key, .. } => {
                write!(f, "{path}: {}", self.position())?;
                if key.is_empty() { Ok(()) } else { write!(f, ": {key}") }
            }
        }
    }
}
