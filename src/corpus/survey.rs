//! One pass over a text's bytes, piece by piece: its hash, whether it is UTF-8 text at all, and what in
//! it is unusual.

use crate::error::{Error, Result};
use crate::hash;
use crate::sniff::{self, Kind};
use sha2::{Digest, Sha256};

/// A text with more control characters than one in so many bytes is no text: UTF-16 of Greek or
/// Cyrillic letters is UTF-8 too, with a control character for every second byte.
const TEXT_BYTES_A_CONTROL: u64 = 10;

/// Counts of bytes and characters so far.
#[derive(Default)]
pub(super) struct Survey {
    hasher: Sha256,
    bytes: u64,
    /// The first bytes, [`sniff::ENOUGH`] of them.
    start: Vec<u8>,
    nul: u64,
    controls: u64,
    /// Those that are part of a character beyond ASCII.
    high: u64,
    /// A character's first bytes, whose rest is still to come.
    unfinished: Vec<u8>,
    invalid: Option<Invalid>,
    returns: u64,
    line_ends: u64,
    lost: u64,
    /// Whether the last character was a carriage return.
    returned: bool,
}

/// The first byte that is not UTF-8.
struct Invalid {
    offset: u64,
    byte: u8,
    next: Option<u8>,
}

/// A text that is one.
pub(super) struct Surveyed {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    /// What is unusual, to follow the text's name.
    pub(super) note: Option<String>,
}

impl Survey {
    /// The text's next bytes, cut anywhere.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        let missing = sniff::ENOUGH.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend_from_slice(&bytes[..missing]);
        let count = |of: fn(u8) -> bool| bytes.iter().filter(|byte| of(**byte)).count() as u64;
        self.nul += count(|byte| byte == 0);
        self.controls += count(is_control);
        self.high += count(|byte| byte >= 0x80);
        if self.invalid.is_none() {
            self.decode(bytes);
        }
        self.bytes += bytes.len() as u64;
    }

    fn decode(&mut self, bytes: &[u8]) {
        let offset = self.bytes - self.unfinished.len() as u64;
        let joined;
        let bytes = match self.unfinished.is_empty() {
            true => bytes,
            false => {
                joined = [&self.unfinished, bytes].concat();
                &joined
            }
        };
        let (text, rest, is_cut) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, &[][..], true),
            Err(error) => {
                let (text, rest) = bytes.split_at(error.valid_up_to());
                let text = std::str::from_utf8(text).unwrap_or_default();
                (text, rest, error.error_len().is_none())
            }
        };
        self.lost += text.matches('\u{fffd}').count() as u64;
        self.returns += text.bytes().filter(|byte| *byte == b'\r').count() as u64;
        if self.returned && text.starts_with('\n') {
            self.line_ends += 1;
        }
        if text.contains('\r') {
            self.line_ends += text.matches("\r\n").count() as u64;
        }
        if !text.is_empty() {
            self.returned = text.ends_with('\r');
        }
        match rest {
            [byte, ..] if !is_cut => {
                let offset = offset + text.len() as u64;
                self.invalid = Some(Invalid { offset, byte: *byte, next: rest.get(1).copied() });
            }
            _ => self.unfinished = rest.to_vec(),
        }
    }

    /// Behind the last byte. `source`: the text's name, for errors.
    ///
    /// # Errors
    /// What is no text, by what it is; what is not UTF-8, by its first byte that is not.
    pub(super) fn finish(mut self, source: &str) -> Result<Surveyed> {
        let cut = self.invalid.is_none();
        if let ([byte, ..], true) = (&self.unfinished[..], cut) {
            let offset = self.bytes - self.unfinished.len() as u64;
            self.invalid = Some(Invalid { offset, byte: *byte, next: None });
        }
        if let Some(error) = self.no_text(source) {
            return Err(error);
        }
        if let Some(invalid) = &self.invalid {
            return Err(Error::input(format!(
                "{source}: expected UTF-8, found the byte 0x{:02x} at offset {}",
                invalid.byte, invalid.offset
            ))
            .hint(self.encoding_hint(invalid, cut)));
        }
        let note = self.note();
        Ok(Surveyed { sha256: hash::hex(&self.hasher.finalize()), bytes: self.bytes, note })
    }

    /// The error for bytes that are no text, whatever they decode to.
    fn no_text(&self, source: &str) -> Option<Error> {
        let error = |found: &str, hint: &str| {
            Error::input(format!("{source}: expected UTF-8 text, found {found}")).hint(hint)
        };
        if self.bytes == 0 {
            return Some(
                Error::input(format!("{source}: expected text, found an empty file"))
                    .hint("a text of at least one window of tokens is needed"),
            );
        }
        if self.nul == self.bytes {
            return Some(error(Kind::Zeros.name(), Kind::Zeros.hint()));
        }
        // A text may look like another kind by its first letters alone.
        let readable = self.nul == 0 && self.invalid.is_none();
        const SHORT: u64 = 2048;
        let kind = sniff::sniff(&self.start).filter(|kind| match kind {
            Kind::Html | Kind::Xml | Kind::Json | Kind::Zeros | Kind::Empty => false,
            Kind::LfsPointer | Kind::Refusal => self.bytes < SHORT,
            Kind::Pdf | Kind::Utf16 | Kind::Utf32 | Kind::Safetensors => true,
            _ => !readable,
        });
        if let Some(kind) = kind {
            return Some(error(kind.name(), kind.hint()));
        }
        (self.controls * TEXT_BYTES_A_CONTROL > self.bytes).then(|| {
            error(
                &format!("{} control characters in {} bytes", self.controls, self.bytes),
                "a text in UTF-16 or a binary file looks like that: convert it to UTF-8, for \
                 example with iconv",
            )
        })
    }

    /// `cut`: not UTF-8 for want of further bytes.
    fn encoding_hint(&self, invalid: &Invalid, cut: bool) -> &'static str {
        if cut {
            return "the file ends inside a character: is it whole?";
        }
        // Code points for pairs of UTF-16, each written as if it were a character.
        if let (0xed, Some(0xa0..=0xbf)) = (invalid.byte, invalid.next) {
            return "it holds half a UTF-16 pair (a surrogate), which is no character: write it \
                    anew from its source, with errors=\"replace\" in Python";
        }
        if self.controls * 100 > self.bytes {
            return "a binary file looks like that: a text has no such bytes";
        }
        // Letters with accents among plain ones.
        if self.high * 4 < self.bytes {
            return "convert the text to UTF-8: if it is Latin-1 or Windows-1252, with iconv -f \
                    WINDOWS-1252 -t UTF-8";
        }
        "convert the text to UTF-8 with iconv -f ENCODING -t UTF-8; `file` may tell its encoding"
    }

    /// Unusual characters, which become tokens of their own and so change the perplexity.
    fn note(&self) -> Option<String> {
        let several = |count: u64, one: &str, more: &str| match count {
            0 => None,
            1 => Some(format!("one {one}")),
            _ => Some(format!("{count} {more}")),
        };
        let marked = self.start.starts_with("\u{feff}".as_bytes());
        let alone = self.returns - self.line_ends;
        let found: Vec<String> = [
            several(marked.into(), "byte order mark", ""),
            several(self.line_ends, "Windows line end (CRLF)", "Windows line ends (CRLF)"),
            several(alone, "lone carriage return", "lone carriage returns"),
            several(self.nul, "NUL character", "NUL characters"),
            several(self.lost, "replacement character (U+FFFD)", "replacement characters (U+FFFD)"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let kind = match sniff::sniff(&self.start) {
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
        (!both.is_empty()).then(|| both.join("; it "))
    }
}

/// Of those that no text has; a terminal's log has escapes.
fn is_control(byte: u8) -> bool {
    // Without a branch: a gigabyte of them is looked at.
    let taken = (byte == b'\t') | (byte == b'\n') | (byte == b'\r') | (byte == 12) | (byte == 27);
    (byte < 32) & !taken
}
