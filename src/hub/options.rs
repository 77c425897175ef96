//! Repositories by name, and the hub and cache of a run: parsed and checked, without a request.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Result};

/// The kind of a repository, which is part of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

/// One repository at one revision. Shown as `OWNER/NAME@REVISION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    /// Whether it holds a model or a dataset.
    pub kind: RepoKind,
    /// `OWNER/NAME`.
    pub name: String,
    /// A branch, a tag or a commit hash.
    pub revision: String,
}

impl RepoId {
    /// `OWNER/NAME`, which means its branch `main`, or `OWNER/NAME@REVISION`.
    pub fn model(spec: &str) -> Result<Self> {
        Self::parse(RepoKind::Model, spec)
    }

    /// The same for a dataset.
    pub fn dataset(spec: &str) -> Result<Self> {
        Self::parse(RepoKind::Dataset, spec)
    }

    fn parse(kind: RepoKind, spec: &str) -> Result<Self> {
        let (name, revision) = spec.split_once('@').unwrap_or((spec, "main"));
        // The cache writes "/" as "--", so the hub has no names with "--" in them.
        let two_parts = name.matches('/').count() == 1 && !name.contains("--");
        if !(two_parts && is_plain_path(name) && is_plain_path(revision)) {
            let expected = "OWNER/NAME or OWNER/NAME@REVISION";
            let error = Error::input(format!("repository: expected {expected}, found {spec:?}"));
            return Err(error.hint("copy the name from the repository's page"));
        }
        Ok(Self { kind, name: name.to_string(), revision: revision.to_string() })
    }

    /// Its folder in the cache.
    pub(super) fn folder_name(&self) -> String {
        let kind = match self.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        format!("{kind}--{}", self.name.replace('/', "--"))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

/// The hub that files come from and the cache that keeps them. No `Debug`: it holds the token.
#[derive(Clone)]
pub struct HubOptions {
    /// Make no request at all.
    pub offline: bool,
    /// The folder that holds `models--OWNER--NAME`.
    pub cache: PathBuf,
    /// `https://huggingface.co` or a mirror, without a slash at the end.
    pub endpoint: String,
    /// The user's token, for repositories that are restricted.
    pub token: Option<String>,
    /// A server that sends nothing for this long is given up.
    pub timeout: Duration,
}

impl HubOptions {
    /// From the environment variables that Hugging Face's own tools read.
    pub fn from_env(offline: bool) -> Self {
        Self::from_lookup(offline, |name| std::env::var(name).ok())
    }

    /// The same for any environment: `lookup` gives a variable's value. An empty one counts as
    /// not set.
    pub fn from_lookup(offline: bool, lookup: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| {
            let value = lookup(name)?.trim().to_string();
            (!value.is_empty()).then_some(value)
        };
        let path = |name: &str| text(name).map(PathBuf::from);
        let home = path("HF_HOME").unwrap_or_else(|| {
            let user = path("HOME").or_else(|| path("USERPROFILE"));
            path("XDG_CACHE_HOME")
                .unwrap_or_else(|| user.unwrap_or_default().join(".cache"))
                .join("huggingface")
        });
        let saved_token = || {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            let token = fs::read_to_string(file).ok()?.trim().to_string();
            (!token.is_empty()).then_some(token)
        };
        let is_yes = |value: String| {
            ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
        };
        let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.parse().ok());
        let endpoint = text("HF_ENDPOINT");
        let endpoint = endpoint.as_deref().unwrap_or("https://huggingface.co");
        Self {
            offline: offline || text("HF_HUB_OFFLINE").is_some_and(is_yes),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: text("HF_TOKEN").or_else(saved_token),
            timeout: Duration::from_secs(seconds.filter(|&s| s > 0).unwrap_or(30)),
        }
    }
}

/// Fit to be part of a path and of an address, and stays inside the folder it is joined to.
pub(super) fn is_plain_path(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+=".contains(&byte);
    text.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(is_plain))
}

/// Whether a text is so many hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
