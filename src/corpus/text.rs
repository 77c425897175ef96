//! A text: its bytes as UTF-8, what is unusual about them, and its tokens.

use super::source;
use crate::error::{Error, Result};
use crate::hash;
use crate::hub::{Hub, RepoId};
use crate::sniff::{self, Kind};
use std::io::Read;
use std::path::Path;
use tokenizers::Tokenizer;

/// The standard text of perplexity figures, as llama.cpp's scripts fetch it.
const WIKITEXT_REPO: &str = "ggml-org/ci";
const WIKITEXT_ZIP: &str = "wikitext-2-raw-v1.zip";
const WIKITEXT_MEMBER: &str = "wiki.test.raw";
const WIKITEXT_SHA256: &str = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08";

/// A text with more control characters than one in so many bytes is no text: UTF-16 of Greek or
/// Cyrillic letters is UTF-8 too, with a control character for every second byte.
const TEXT_BYTES_A_CONTROL: usize = 10;

/// A text and where it came from.
pub struct Text {
    /// `builtin`, `wikitext-2` or the path.
    pub source: String,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// Its characters, as they are.
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

    /// A UTF-8 file.
    pub fn file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| source::absent(path, &e))?;
        Self::new(path.display().to_string(), bytes)
    }

    fn new(source: String, bytes: Vec<u8>) -> Result<Self> {
        if let Some(error) = no_text(&source, &bytes) {
            return Err(error);
        }
        let sha256 = hash::sha256(&bytes);
        let content = String::from_utf8(bytes).map_err(|e| {
            let cut = e.utf8_error().error_len().is_none();
            let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
            Error::input(format!(
                "{source}: expected UTF-8, found the byte 0x{:02x} at offset {at}",
                bytes[at]
            ))
            .hint(encoding_hint(bytes, at, cut))
        })?;
        Ok(Self { source, sha256, content })
    }

    /// A note of unusual characters, which become tokens of their own and so change the perplexity.
    /// The text is taken as it is.
    pub fn note(&self) -> Option<String> {
        let content = &self.content;
        let lines = content.matches("\r\n").count();
        let alone = content.matches('\r').count() - lines;
        let several = |count: usize, one: &str, more: &str| match count {
            0 => None,
            1 => Some(format!("one {one}")),
            _ => Some(format!("{count} {more}")),
        };
        let nul = content.matches('\0').count();
        let lost = content.matches('\u{fffd}').count();
        let found: Vec<String> = [
            several(content.starts_with('\u{feff}').into(), "byte order mark", ""),
            several(lines, "Windows line end (CRLF)", "Windows line ends (CRLF)"),
            several(alone, "lone carriage return", "lone carriage returns"),
            several(nul, "NUL character", "NUL characters"),
            several(lost, "replacement character (U+FFFD)", "replacement characters (U+FFFD)"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let kind = match sniff::sniff(content.as_bytes()) {
            Some(Kind::Json) => {
                Some("looks like JSON, whose braces, quotes and keys are scored too")
            }
            Some(Kind::Html) => Some("looks like an HTML page, whose tags are scored too"),
            Some(Kind::Xml) => Some("looks like XML, whose tags are scored too"),
            _ => None,
        };
        let one = matches!(&found[..], [one] if one.starts_with("one "));
        let found = match &found[..] {
            [] => None,
            [one] => Some(one.clone()),
            [rest @ .., last] => Some(format!("{} and {last}", rest.join(", "))),
        };
        let changes = if one { "it changes" } else { "they change" };
        let found = found.map(|found| format!("has {found}: {changes} the perplexity"));
        let both: Vec<String> = found.into_iter().chain(kind.map(str::to_string)).collect();
        (!both.is_empty()).then(|| format!("{} {}", self.source, both.join("; it ")))
    }

    /// Token ids of the whole text, without special tokens around it. Where the text spells out a
    /// control token, as in `<|endoftext|>`, that token is what it is taken for, unless
    /// `parse_special` is off: then it is text like any other.
    pub fn tokenize(&self, tokenizer: &Tokenizer, parse_special: bool) -> Result<Vec<u32>> {
        let plain;
        let tokenizer = match parse_special {
            true => tokenizer,
            false => {
                let mut own = tokenizer.clone();
                own.set_encode_special_tokens(true);
                plain = own;
                &plain
            }
        };
        let encoding = tokenizer.encode_fast(self.content.as_str(), false).map_err(|e| {
            Error::input(format!("{}: cannot be tokenised: {e}", self.source))
                .hint("the model's tokenizer refuses it: do tokenizer and text belong together?")
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// The error for bytes that are no text, whatever they decode to.
fn no_text(source: &str, bytes: &[u8]) -> Option<Error> {
    let error = |found: &str, hint: &str| {
        Error::input(format!("{source}: expected UTF-8 text, found {found}")).hint(hint)
    };
    let nul = bytes.iter().filter(|byte| **byte == 0).count();
    if bytes.is_empty() {
        return Some(
            Error::input(format!("{source}: expected text, found an empty file"))
                .hint("a text of at least one window of tokens is needed"),
        );
    }
    if nul == bytes.len() {
        return Some(error(Kind::Zeros.name(), Kind::Zeros.hint()));
    }
    // A text may look like another kind by its first letters alone.
    let readable = nul == 0 && std::str::from_utf8(bytes).is_ok();
    const SHORT: usize = 2048;
    let kind = sniff::sniff(&bytes[..bytes.len().min(sniff::ENOUGH)]).filter(|kind| match kind {
        Kind::Html | Kind::Xml | Kind::Json | Kind::Zeros | Kind::Empty => false,
        Kind::LfsPointer | Kind::Refusal => bytes.len() < SHORT,
        Kind::Pdf | Kind::Utf16 | Kind::Utf32 | Kind::Safetensors => true,
        _ => !readable,
    });
    if let Some(kind) = kind {
        return Some(error(kind.name(), kind.hint()));
    }
    let controls = bytes.iter().filter(|byte| is_control(**byte)).count();
    (controls * TEXT_BYTES_A_CONTROL > bytes.len()).then(|| {
        error(
            &format!("{controls} control characters in {} bytes", bytes.len()),
            "a text in UTF-16 or a binary file looks like that: convert it to UTF-8, for example \
             with iconv",
        )
    })
}

/// Of those that no text has; a terminal's log has escapes.
fn is_control(byte: u8) -> bool {
    byte < 32 && !b"\t\n\r\x0c\x1b".contains(&byte)
}

/// The hint for bytes that are not UTF-8 from `at` on; `cut`: for want of further bytes.
fn encoding_hint(bytes: &[u8], at: usize, cut: bool) -> &'static str {
    if cut {
        return "the file ends inside a character: is it whole?";
    }
    // Code points for pairs of UTF-16, each written as if it were a character.
    if let [0xed, 0xa0..=0xbf, ..] = bytes[at..] {
        return "it holds half a UTF-16 pair (a surrogate), which is no character: write it anew \
                from its source, with errors=\"replace\" in Python";
    }
    let (high, odd) = bytes.iter().fold((0, 0), |(high, odd), byte| {
        (high + usize::from(*byte >= 0x80), odd + usize::from(is_control(*byte)))
    });
    if odd * 100 > bytes.len() {
        return "a binary file looks like that: a text has no such bytes";
    }
    // Letters with accents among plain ones.
    if high * 4 < bytes.len() {
        return "convert the text to UTF-8: if it is Latin-1 or Windows-1252, with iconv -f \
                WINDOWS-1252 -t UTF-8";
    }
    "convert the text to UTF-8 with iconv -f ENCODING -t UTF-8; `file` may tell its encoding"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: impl AsRef<[u8]>) -> Result<Text> {
        Text::new("x.txt".into(), bytes.as_ref().into())
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
            assert_eq!(text(&content).map_err(|e| e.to_string()).unwrap().content, content);
        }
        refused("Entry not found", "a server's refusal", "/resolve/");
    }

    #[test]
    fn what_changes_the_perplexity_is_noted_and_left_as_it_is() {
        let note = |content: &str| {
            let text = text(content).map_err(|e| e.to_string()).unwrap();
            assert_eq!(text.content, content);
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
