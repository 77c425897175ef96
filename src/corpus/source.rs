//! The place of a text, as `--text` names it.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The hint where a text is not there.
pub const TEXT_TAKES: &str = "--text takes builtin, wikitext-2 or the path of a UTF-8 file";

/// A text by one of two names, or by its path, which need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TextSource {
    /// The embedded novel.
    Builtin,
    /// WikiText-2's raw test split, from the hub.
    Wikitext2,
    /// A UTF-8 file.
    File(PathBuf),
}

impl From<OsString> for TextSource {
    fn from(typed: OsString) -> Self {
        match typed.to_str() {
            Some("builtin") => Self::Builtin,
            Some("wikitext-2") => Self::Wikitext2,
            _ => Self::File(typed.into()),
        }
    }
}

impl From<&str> for TextSource {
    fn from(typed: &str) -> Self {
        OsString::from(typed).into()
    }
}

/// A path that is not UTF-8 is shown as far as it is.
impl fmt::Display for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin => f.write_str("builtin"),
            Self::Wikitext2 => f.write_str("wikitext-2"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl serde::Serialize for TextSource {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TextSource {
    /// The path of a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Builtin | Self::Wikitext2 => None,
            Self::File(path) => Some(path),
        }
    }

    /// Refuses a file that is not there, or is a folder; reading it is for later.
    pub fn check(&self) -> Result<()> {
        let Some(path) = self.path() else { return Ok(()) };
        match path.metadata() {
            Ok(there) if there.is_dir() => Err(Error::input(format!(
                "{}: expected a UTF-8 file, found a folder",
                path.display()
            ))
            .hint("name one file of it; several texts are a list in a file for kvgauge sweep")),
            Ok(_) => Ok(()),
            Err(error) => Err(absent(path, &error)),
        }
    }
}

/// The error for a text that cannot be opened.
pub(super) fn absent(path: &Path, error: &std::io::Error) -> Error {
    if path.as_os_str().is_empty() {
        return Error::input("expected a text, found an empty name").hint(TEXT_TAKES);
    }
    let typed = path.to_string_lossy();
    let error = Error::io(path, error);
    if typed == "-" {
        return error.hint("what comes through a pipe is --text /dev/stdin");
    }
    if typed.contains("://") {
        return error.hint(format!("{TEXT_TAKES}: fetch it first, for example with curl -LO"));
    }
    let plain: String = typed.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    if plain.starts_with("wikitext") || plain.starts_with("wiki2") || plain == "wikitest" {
        return error.hint("did you mean wikitext-2, the raw test split? else the path of a file");
    }
    error.hint(TEXT_TAKES)
}
