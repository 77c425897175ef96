//! A model's JSON files, with words for what stands in their place.

use crate::error::{Error, Result};
use crate::sniff::{self, Kind};
use serde_json::Value;

/// `place`: the file, for messages.
pub fn parse(place: &str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(without_mark(bytes)).map_err(|e| {
        match sniff::sniff(bytes).filter(|kind| *kind != Kind::Json) {
            Some(kind) => Error::input(format!("{place}: expected JSON, found {}", kind.name()))
                .hint(kind.hint()),
            None => Error::input(format!("{place}: not valid JSON: {e}")).hint(
                "look at that place: JSON has no comments and no trailing commas, and a file cut \
                 short ends too early",
            ),
        }
    })
}

/// Editors put a UTF-8 byte order mark before the text, which JSON does not have.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}
