//! The one error type: what went wrong, what to do about it, and whose fault it is.
//!
//! A message says where, what, expected and found, in one line. The hint is kept apart so that
//! `cli` can print it as a line of its own. `docs/errors.md` has the exit statuses.

use std::fmt;
use std::path::{Path, PathBuf};

/// Party at fault, hence the exit status of the command line: finer kinds are the variants of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request or the input is wrong: exit status 2.
    Input,
    /// Anything else (I/O, network, out of memory): exit status 3.
    System,
}

/// Text of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    text: String,
    hint: Option<String>,
}

/// Everything that can go wrong. More kinds may be added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A flag, a setting, a name or a file's contents is not what it has to be.
    Invalid(Message),
    /// A model, type or codec that is whole and known by name, and that this version cannot
    /// compute.
    Unsupported(Message),
    /// NaN or infinity where a number has to be finite: in weights, a cache, logits or a file.
    NotFinite(Message),
    /// A file or folder that was named is not there.
    NotFound(PathBuf, Message),
    /// A file or folder cannot be read or written.
    Io(PathBuf, std::io::ErrorKind, Message),
    /// The hub cannot be reached, or answers otherwise than hubs do.
    Network(Message),
    /// A tensor operation failed on input that was checked: a device or memory problem.
    Compute(Message),
    /// Anything else; a bug among them.
    System(Message),
}

/// A result with the library's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Message {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None }
    }
}

impl Error {
    /// An error of [`Error::Invalid`].
    pub fn input(message: impl Into<String>) -> Self {
        Self::Invalid(Message::new(message))
    }

    /// An error of [`Error::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(Message::new(message))
    }

    /// An error of [`Error::NotFinite`].
    pub fn not_finite(message: impl Into<String>) -> Self {
        Self::NotFinite(Message::new(message))
    }

    /// An error of [`Error::Network`].
    pub fn network(message: impl Into<String>) -> Self {
        Self::Network(Message::new(message))
    }

    /// An error of [`Error::System`].
    pub fn system(message: impl Into<String>) -> Self {
        Self::System(Message::new(message))
    }

    /// An error of the file system on `path`: [`Error::NotFound`] or [`Error::Io`]. A path that
    /// leads to nothing, or to a folder in the place of a file, is the request's fault.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        let place = path.display();
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound(
                path.into(),
                Message::new(format!("{place}: no such file or folder")),
            ),
            kind => Self::Io(path.into(), kind, Message::new(format!("{place}: {error}"))),
        }
    }

    /// Adds the line that says what to do. The first hint given stays.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.message_mut().hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Puts the place in front of the message.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        let message = self.message_mut();
        message.text = format!("{place}: {}", message.text);
        self
    }

    /// The party at fault.
    pub fn kind(&self) -> Kind {
        use std::io::ErrorKind::{IsADirectory, NotADirectory};
        match self {
            Self::Invalid(_) | Self::Unsupported(_) | Self::NotFinite(_) | Self::NotFound(..) => {
                Kind::Input
            }
            Self::Io(_, IsADirectory | NotADirectory, _) => Kind::Input,
            Self::Io(..) | Self::Network(_) | Self::Compute(_) | Self::System(_) => Kind::System,
        }
    }

    /// The line that says what to do, where there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.message().hint.as_deref()
    }

    fn message(&self) -> &Message {
        match self {
            Self::Invalid(message)
            | Self::Unsupported(message)
            | Self::NotFinite(message)
            | Self::NotFound(_, message)
            | Self::Io(_, _, message)
            | Self::Network(message)
            | Self::Compute(message)
            | Self::System(message) => message,
        }
    }

    fn message_mut(&mut self) -> &mut Message {
        match self {
            Self::Invalid(message)
            | Self::Unsupported(message)
            | Self::NotFinite(message)
            | Self::NotFound(_, message)
            | Self::Io(_, _, message)
            | Self::Network(message)
            | Self::Compute(message)
            | Self::System(message) => message,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message().text)
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // candle appends a backtrace when RUST_BACKTRACE is set: the first line is the message.
        let text = error.to_string();
        Self::Compute(Message::new(text.lines().next().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_caller_can_tell_errors_apart() {
        let path = Path::new("a/b");
        let io = |kind: ErrorKind| Error::io(path, &kind.into()).within("--text").hint("look");
        let found = io(ErrorKind::NotFound);
        assert!(matches!(&found, Error::NotFound(place, _) if place == path));
        assert_eq!(found.to_string(), "--text: a/b: no such file or folder");
        assert_eq!((found.kind(), found.hint_text()), (Kind::Input, Some("look")));
        let found = io(ErrorKind::PermissionDenied);
        assert!(matches!(found, Error::Io(_, ErrorKind::PermissionDenied, _)));
        assert_eq!(found.kind(), Kind::System);
        assert_eq!(io(ErrorKind::IsADirectory).kind(), Kind::Input);
        // The first hint stays: it is the nearest to the cause.
        assert_eq!(Error::network("x").hint("near").hint("far").hint_text(), Some("near"));
        assert_eq!(Error::not_finite("x").kind(), Kind::Input);
    }
}
