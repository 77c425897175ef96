//! text → tokens → windows.

pub mod gguf_tokenizer;

use crate::error::{Error, Result};
use crate::hash;
use crate::hub::{Hub, RepoId};
use std::io::Read;
use std::path::Path;
use tokenizers::Tokenizer;

/// The standard text of perplexity figures, as llama.cpp's scripts fetch it.
const WIKITEXT_REPO: &str = "ggml-org/ci";
const WIKITEXT_ZIP: &str = "wikitext-2-raw-v1.zip";
const WIKITEXT_MEMBER: &str = "wiki.test.raw";
const WIKITEXT_SHA256: &str = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08";

/// The hint where a text is not there.
pub const TEXT_TAKES: &str = "--text takes builtin, wikitext-2 or the path of a UTF-8 file";

/// A text and where it came from.
pub struct Text {
    /// `builtin`, `wikitext-2` or the path.
    pub source: String,
    pub sha256: String,
    pub content: String,
}

impl Text {
    /// The embedded novel, which the embedded model was not trained on.
    pub fn builtin() -> Self {
        Self {
            source: "builtin".into(),
            sha256: hash::sha256(crate::builtin::TEXT.as_bytes()),
            content: crate::builtin::TEXT.into(),
        }
    }

    /// WikiText-2's raw test split, through the hub; its hash is checked.
    pub fn wikitext2(hub: &Hub) -> Result<Self> {
        let path = hub.repo(RepoId::dataset(WIKITEXT_REPO)?).get(WIKITEXT_ZIP)?;
        let damaged = |what: String| {
            Error::system(format!("{}: {what}", path.display()))
                .hint("delete this file and run again to download it anew")
        };
        let file = std::fs::File::open(&path).map_err(|e| Error::io(&path, &e))?;
        let mut archive =
            zip::ZipArchive::new(file).map_err(|e| damaged(format!("not a zip archive: {e}")))?;
        // In the archive's one folder, whatever that is called.
        let name = archive
            .file_names()
            .flatten()
            .find(|name| name.rsplit('/').next() == Some(WIKITEXT_MEMBER))
            .map(|name| name.into_owned())
            .ok_or_else(|| damaged(format!("holds no {WIKITEXT_MEMBER}")))?;
        let mut member =
            archive.by_name(&name).map_err(|e| damaged(format!("{WIKITEXT_MEMBER}: {e}")))?;
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|e| damaged(format!("{WIKITEXT_MEMBER}: {e}")))?;
        let found = hash::sha256(&bytes);
        if found != WIKITEXT_SHA256 {
            return Err(damaged(format!(
                "{WIKITEXT_MEMBER}: expected sha256 {WIKITEXT_SHA256}, found {found}"
            )));
        }
        Self::new("wikitext-2".into(), bytes)
    }

    pub fn file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e).hint(TEXT_TAKES))?;
        Self::new(path.display().to_string(), bytes)
    }

    fn new(source: String, bytes: Vec<u8>) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::input(format!("{source}: expected text, found an empty file"))
                .hint("a text of at least one window of tokens is needed"));
        }
        let sha256 = hash::sha256(&bytes);
        let content = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::input(format!(
                "{source}: expected UTF-8, found the byte 0x{:02x} at offset {at}",
                e.as_bytes()[at]
            ))
            .hint("convert the text to UTF-8, for example with iconv")
        })?;
        Ok(Self { source, sha256, content })
    }

    /// Token ids of the whole text, without special tokens.
    pub fn tokenize(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let encoding = tokenizer
            .encode_fast(self.content.as_str(), false)
            .map_err(|e| Error::input(format!("{}: cannot be tokenised: {e}", self.source)))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Which windows of a text to take.
#[derive(Debug, Clone, Copy)]
pub struct WindowPlan {
    pub context: usize,
    /// Index of the first window.
    pub first: usize,
    /// At most this many; `None`: all.
    pub count: Option<usize>,
    /// Replaces the first token of every window, as llama-perplexity does.
    pub bos: Option<u32>,
}

impl WindowPlan {
    /// Cuts non-overlapping windows; fewer than asked for when the text is shorter, never none.
    pub fn cut(&self, tokens: &[u32], source: &str) -> Result<Vec<Vec<u32>>> {
        let available = tokens.len() / self.context;
        if available == 0 {
            return Err(Error::input(format!(
                "{source}: expected at least {} tokens, one window, found {}",
                self.context,
                tokens.len()
            ))
            .hint("use a longer text or a smaller --context"));
        }
        if self.first >= available {
            return Err(Error::input(format!(
                "--first-window: expected at most {}, the last of the text's {available} windows, found {}",
                available - 1,
                self.first
            ))
            .hint("windows are counted from 0"));
        }
        Ok(tokens
            .chunks_exact(self.context)
            .skip(self.first)
            .take(self.count.unwrap_or(usize::MAX))
            .map(|window| {
                let mut window = window.to_vec();
                if let (Some(bos), Some(first)) = (self.bos, window.first_mut()) {
                    *first = bos;
                }
                window
            })
            .collect())
    }
}
