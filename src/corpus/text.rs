//! A text: found to be UTF-8, hashed, and read from its beginning as far as it is needed.

use super::source;
use super::survey::{Survey, Surveyed};
use super::tokens::TextTokens;
use crate::container::source::Source;
use crate::error::{Error, Result};
use crate::hash;
use crate::hub::{Hub, RepoId};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tokenizers::Tokenizer;

/// The standard text of perplexity figures, as llama.cpp's scripts fetch it.
const WIKITEXT_REPO: &str = "ggml-org/ci";
const WIKITEXT_ZIP: &str = "wikitext-2-raw-v1.zip";
const WIKITEXT_MEMBER: &str = "wiki.test.raw";
const WIKITEXT_SHA256: &str = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08";

/// Files up to this size are held in memory.
const HELD: u64 = super::COUNTED;

/// A text and where it came from.
pub struct Text {
    /// `builtin`, `wikitext-2` or the path.
    pub source: String,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    note: Option<String>,
    content: Content,
}

/// Where its characters are.
enum Content {
    Held(Cow<'static, str>),
    /// A file that was UTF-8 when it was hashed.
    File(Source),
}

impl Text {
    /// The embedded novel, which the embedded model was not trained on.
    pub fn builtin() -> Self {
        let content = crate::builtin::TEXT;
        Self {
            source: "builtin".into(),
            sha256: hash::sha256(content.as_bytes()),
            bytes: content.len() as u64,
            note: None,
            content: Content::Held(content.into()),
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

    /// A UTF-8 file, or what comes through a pipe, which is held in memory.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no UTF-8 text from its beginning to its end.
    pub fn file(path: &Path) -> Result<Self> {
        let absent = |e: std::io::Error| source::absent(path, &e);
        let mut file = File::open(path).map_err(absent)?;
        let state = file.metadata().map_err(absent)?;
        let source = path.display().to_string();
        if !state.is_file() || state.len() <= HELD {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(absent)?;
            return Self::new(source, bytes);
        }
        let file = Source::of(path, file).map_err(absent)?;
        let mut survey = Survey::default();
        file.read_through(|bytes| survey.take(bytes))?;
        let surveyed = survey.finish(&source)?;
        Ok(Self::surveyed(source, surveyed, Content::File(file)))
    }

    pub(super) fn new(source: String, bytes: Vec<u8>) -> Result<Self> {
        let mut survey = Survey::default();
        survey.take(&bytes);
        let surveyed = survey.finish(&source)?;
        let content = String::from_utf8(bytes).map_err(|e| Error::system(e.to_string()))?;
        Ok(Self::surveyed(source, surveyed, Content::Held(content.into())))
    }

    fn surveyed(source: String, surveyed: Surveyed, content: Content) -> Self {
        let Surveyed { sha256, bytes, note } = surveyed;
        Self { source, sha256, bytes, note, content }
    }

    /// A note of unusual characters, which become tokens of their own and so change the perplexity.
    /// The text is taken as it is.
    pub fn note(&self) -> Option<String> {
        self.note.as_ref().map(|note| format!("{} {note}", self.source))
    }

    /// Token ids of the whole text, without special tokens around it. Where the text spells out a
    /// control token, as in `<|endoftext|>`, that token is what it is taken for, unless
    /// `parse_special` is off: then it is text like any other.
    pub fn tokenize(&self, tokenizer: &Tokenizer, parse_special: bool) -> Result<Vec<u32>> {
        let mut tokens = TextTokens::new(tokenizer, parse_special);
        tokens.read(self, tokenizer, usize::MAX)?;
        Ok(tokens.into_ids())
    }

    /// Appends the characters from byte `at` on, about `limit` bytes of them, at least one character
    /// and at most what there is. Gives the number of bytes.
    pub(super) fn read(&self, at: u64, limit: usize, into: &mut String) -> Result<u64> {
        // The longest character.
        let limit = limit.max(4) as u64;
        let length = limit.min(self.bytes - at) as usize;
        let before = into.len();
        match &self.content {
            Content::Held(text) => {
                let rest = &text[at as usize..];
                let end = (0..=length).rev().find(|end| rest.is_char_boundary(*end));
                into.push_str(&rest[..end.unwrap_or(0)]);
            }
            Content::File(file) => {
                let mut bytes = vec![0; length];
                file.read_at(&mut bytes, at)?;
                file.check_unchanged()?;
                let valid = match std::str::from_utf8(&bytes) {
                    Ok(text) => text.len(),
                    Err(error) => error.valid_up_to(),
                };
                bytes.truncate(valid);
                into.push_str(&String::from_utf8(bytes).map_err(|_| file.changed())?);
                if into.len() == before && length > 0 {
                    return Err(file.changed());
                }
            }
        }
        Ok((into.len() - before) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: impl AsRef<[u8]>) -> Result<Text> {
        Text::new("x.txt".into(), bytes.as_ref().into())
    }

    fn whole(text: &Text) -> String {
        let mut content = String::new();
        text.read(0, usize::MAX, &mut content).unwrap();
        content
    }

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    const NOVEL: &str = "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man";

    #[track_caller]
    fn refused(bytes: impl AsRef<[u8]>, found: &str, hint: &str) {
        let Err(error) = text(bytes) else { panic!("taken: {found}") };
        assert!(error.to_string().contains(found), "{error}");
        let told = error.hint_text().unwrap_or_default();
        assert!(told.contains(hint), "{found}: {told}");
    }

    #[test]
    fn what_is_no_text_says_what_it_is() {
        refused("", "an empty file", "one window");
        refused([0; 5000], "nothing but zeros", "was not finished");
        refused(utf16(NOVEL, u16::to_le_bytes), "found UTF-16", "iconv -f UTF-16");
        refused(utf16(NOVEL, u16::to_be_bytes), "found UTF-16", "iconv -f UTF-16");
        let marked = [&b"\xff\xfe"[..], &utf16(NOVEL, u16::to_le_bytes)].concat();
        refused(marked, "found UTF-16", "iconv -f UTF-16");
        let wide: Vec<u8> = NOVEL.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        refused(wide, "control characters in", "UTF-8");
        let cyrillic = "Мой дядя самых честных правил, когда не в шутку занемог";
        assert!(String::from_utf8(utf16(cyrillic, u16::to_le_bytes)).is_ok());
        refused(utf16(cyrillic, u16::to_le_bytes), "control characters in", "UTF-16");
        refused(utf16(cyrillic, u16::to_be_bytes), "control characters in", "UTF-16");
        // Two texts in one file, the second in UTF-16.
        let glued = [NOVEL.as_bytes(), &utf16(NOVEL, u16::to_le_bytes)].concat();
        refused(glued, "control characters in", "UTF-16");
        refused(b"\x1f\x8b\x08\0\0\0", "a gzip file", "gunzip");
        refused(b"PK\x03\x04\x14\0\0", "a zip archive", "unpack");
        refused(b"PAR1\x15\x04\xff\0", "a Parquet table", "column of text");
        refused(b"%PDF-1.7\n1 0 obj", "a PDF document", "UTF-8");
        refused(b"GGUF\x03\0\0\0", "a GGUF file", "--model");
        refused(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS",
            "git lfs pull",
        );
        refused(b"caf\xe9 au lait, a la carte", "0xe9 at offset 3", "WINDOWS-1252");
        refused(b"caf\xc3", "0xc3 at offset 3", "ends inside a character");
        refused(b"abc \xed\xa0\x80 def", "0xed at offset 4", "surrogate");
        refused(b"\x83\x65\x83\x58\x83\x67", "0x83 at offset 0", "ENCODING");
        let binary: Vec<u8> = (1..=255).collect();
        refused(binary.repeat(3), "control characters in", "a binary file");
        let few = [&b"a text of some words "[..]; 20].concat();
        refused([&few[..], &[1, 2, 3, 4, 5, 6, 7, 0x80]].concat(), "0x80 at offset 427", "binary");
    }

    #[test]
    fn a_text_that_begins_like_something_else_is_a_text() {
        for content in [
            "PAR1 is what Parquet files begin with",
            "BZh is what bzip2 files begin with",
            "GGUF is a file format",
            "Entry not found",
            "{curly} and [square]",
            "one\0NUL in a text of some length",
            "\u{feff}with a mark",
            "\u{1F600} naïve ﬁ Ａ",
        ] {
            // A hub's refusal is short; a text that quotes one is not.
            let content = match content {
                "Entry not found" => content.repeat(200),
                _ => content.to_string(),
            };
            assert_eq!(whole(&text(&content).map_err(|e| e.to_string()).unwrap()), content);
        }
        refused("Entry not found", "a server's refusal", "/resolve/");
    }

    #[test]
    fn what_changes_the_perplexity_is_noted_and_left_as_it_is() {
        let note = |content: &str| {
            let text = text(content).map_err(|e| e.to_string()).unwrap();
            assert_eq!(whole(&text), content);
            text.note()
        };
        assert_eq!(note("plain\ntext\ttabs\n"), None);
        for (content, noted) in [
            ("a\r\nb\r\n", "has 2 Windows line ends (CRLF): they change"),
            ("a\r\nb", "has one Windows line end (CRLF): it changes"),
            ("\u{feff}a", "has one byte order mark: it changes"),
            ("a text of a\0 word", "has one NUL character: it changes"),
            ("a\rb\rc", "has 2 lone carriage returns: they change"),
            ("caf\u{fffd} au lait", "has one replacement character (U+FFFD): it changes"),
            (
                "\u{feff}a text\r\nof \r\nwords\0",
                "has one byte order mark, 2 Windows line ends (CRLF) and one NUL character: they \
                 change",
            ),
        ] {
            let expected = format!("x.txt {noted} the perplexity");
            assert_eq!(note(content), Some(expected), "{content:?}");
        }
        let json = note("{\"messages\": []}\n{\"messages\": []}\n").unwrap();
        assert_eq!(json, "x.txt looks like JSON, whose braces, quotes and keys are scored too");
        let both = note("<!DOCTYPE html>\r\n").unwrap();
        assert!(both.contains("CRLF") && both.contains("; it looks like an HTML page"), "{both}");
    }

    #[test]
    fn control_tokens_in_a_text_are_the_models_own_unless_told_otherwise() {
        let tokenizer = Tokenizer::from_bytes(crate::builtin::TOKENIZER).unwrap();
        const END: u32 = 0;
        let tokens = |content: &str, parse_special: bool| {
            text(content)
                .map_err(|e| e.to_string())
                .unwrap()
                .tokenize(&tokenizer, parse_special)
                .unwrap()
        };
        // As Hugging Face's tokenizers has them, with encode_special_tokens off and on.
        let spelt = [28, 92, 449, 570, 84, 894, 84, 92, 30];
        let two = "a <|endoftext|>\n<|endoftext|>b";
        assert_eq!(tokens(two, true), [65, 221, END, 199, END, 66]);
        let plain = [&[65, 221][..], &spelt, &[199], &spelt, &[66]].concat();
        assert_eq!(tokens(two, false), plain);
        let content = "Anne<|endoftext|>Elliot";
        let (own, plain) = (tokens(content, true), tokens(content, false));
        let around = [tokens("Anne", true), vec![END], tokens("Elliot", true)].concat();
        assert_eq!(own, around);
        assert!(!plain.contains(&END) && plain.len() > own.len(), "{plain:?}");
        // Spelt out, not lost.
        assert_eq!(tokenizer.decode(&plain, false).unwrap(), content);
        // Text without any is the same either way, and the tokenizer stays as it was.
        assert_eq!(tokens("Anne Elliot", true), tokens("Anne Elliot", false));
        assert_eq!(tokens(content, true), own);
    }
}
