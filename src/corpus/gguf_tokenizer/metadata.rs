//! Typed reading of GGUF metadata: whatever is not as expected is an input error that names the
//! key, what was expected and what was found.

use std::collections::HashMap;
use std::fmt::Display;

use candle_core::quantized::gguf_file::Value;

use crate::error::{Error, Result};
use crate::gguf_value::{self, string};

pub(super) struct Metadata<'a>(pub(super) &'a HashMap<String, Value>);

impl<'a> Metadata<'a> {
    fn require(&self, key: &str, expected: &str) -> Result<&'a Value> {
        let value = self.0.get(key);
        value.ok_or_else(|| mismatch(key, "missing key", expected, "none"))
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str> {
        let value = self.require(key, "a string")?;
        string(value).ok_or_else(|| mismatch(key, "wrong type", "a string", described(value)))
    }

    fn array(&self, key: &str, expected: &str) -> Result<&'a [Value]> {
        match self.require(key, expected)? {
            Value::Array(values) => Ok(values),
            other => Err(mismatch(key, "wrong type", expected, described(other))),
        }
    }

    pub(super) fn strings(&self, key: &str) -> Result<Vec<&'a str>> {
        let values = self.array(key, "an array of strings")?;
        each(key, values, "a string", string)
    }

    /// One value for each of `count` tokens; `read` says `None` to a value that is not `expected`.
    pub(super) fn per_token<T>(
        &self,
        key: &str,
        count: usize,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Vec<T>> {
        let length = format!("{count} values, one for each token");
        let values = self.array(key, &length)?;
        if values.len() != count {
            return Err(mismatch(key, "wrong length", length, values.len()));
        }
        each(key, values, expected, read)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => {
                let found = described(other);
                Err(mismatch(key, "wrong type", "true or false", found))
            }
        }
    }

    /// The id of one of `count` tokens.
    pub(super) fn id(&self, key: &str, count: usize) -> Result<Option<u32>> {
        let Some(value) = self.0.get(key) else {
            return Ok(None);
        };
        let id = integer(value).and_then(|id| u32::try_from(id).ok());
        match id.filter(|id| (*id as usize) < count) {
            Some(id) => Ok(Some(id)),
            None => {
                let expected = format!("an id below {count}, the number of tokens");
                Err(mismatch(key, "invalid token id", expected, described(value)))
            }
        }
    }
}

fn each<'a, T>(
    key: &str,
    values: &'a [Value],
    expected: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Vec<T>> {
    let read = |(i, value)| {
        let found = read(value);
        found.ok_or_else(|| {
            let place = format!("{key}[{i}]");
            mismatch(place, "invalid value", expected, described(value))
        })
    };
    values.iter().enumerate().map(read).collect()
}

/// A whole number.
pub(super) fn integer(value: &Value) -> Option<i64> {
    gguf_value::integer(value).and_then(|number| i64::try_from(number).ok())
}

fn described(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(values) => format!("an array of {}", values.len()),
        Value::Bool(flag) => flag.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        other => gguf_value::integer(other).unwrap_or_default().to_string(),
    }
}

/// Short enough for a one-line message, whatever the file holds.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

pub(super) fn mismatch(
    place: impl Display,
    what: &str,
    expected: impl Display,
    found: impl Display,
) -> Error {
    Error::input(format!("{place}: {what}, expected {expected}, found {found}"))
}
