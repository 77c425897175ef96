//! The values of a TOML file, each with its location.
//!
//! The file is walked by hand and not through serde, so that every value keeps its location and
//! every mistake is one line that points at it.

use super::location::{EXAMPLES, Given, Location};
use super::value::{Value, mismatch, word};
use crate::error::{Error, Result};
use crate::nearest_word::nearest;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file being read.
pub(super) struct Source<'a> {
    path: Arc<str>,
    text: &'a str,
}

/// A key and its value.
pub(super) struct Entry<'a> {
    source: &'a Source<'a>,
    /// With its tables, as errors name it.
    key: String,
    /// The last part of the key.
    pub name: &'a str,
    /// Where the key stands, in bytes.
    at: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Source<'a> {
    /// `path` is only named in errors.
    pub fn new(path: &Path, text: &'a str) -> Self {
        Self { path: path.display().to_string().into(), text }
    }

    /// Its table, without a look at the keys.
    pub fn parse(&self) -> Result<Spanned<DeTable<'a>>> {
        DeTable::parse(self.text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            let error = Error::input(e.message().replace('\n', " ")).hint(EXAMPLES);
            self.location(at, "").locate(error)
        })
    }

    /// The location `at` bytes from the start.
    fn location(&self, at: usize, key: &str) -> Location {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let last = before.iter().rev().take_while(|byte| **byte != b'\n');
        // A character is as many bytes as it has, but only one of them is no continuation.
        let column = last.filter(|byte| **byte & 0xc0 != 0x80).count() + 1;
        Location::File { path: self.path.clone(), line, column, key: key.into() }
    }

    /// The keys of a table in the file's order, which the table does not keep.
    pub fn entries(&'a self, table: &'a DeTable<'a>, within: &str) -> Vec<Entry<'a>> {
        let entry = |(key, value): (&'a Spanned<_>, _)| {
            let name: &'a std::borrow::Cow<str> = key.get_ref();
            let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let shown = match !name.is_empty() && name.chars().all(bare) {
                true => name.to_string(),
                false => format!("{name:?}"),
            };
            let key_at = key.span().start;
            Entry { source: self, key: format!("{within}{shown}"), name, at: key_at, value }
        };
        let mut entries: Vec<Entry> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.at);
        entries
    }
}

impl<'a> Entry<'a> {
    /// The location of the key.
    pub fn location(&self) -> Location {
        self.source.location(self.at, &self.key)
    }

    /// The keys of a table.
    pub fn table(&self) -> Result<Vec<Entry<'a>>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(self.source.entries(table, &format!("{}.", self.key))),
            other => Err(self.value_location().locate(mismatch("a table", other))),
        }
    }

    fn value_location(&self) -> Location {
        self.source.location(self.value.span().start, &self.key)
    }

    /// One value.
    pub fn one<T: Value>(&self) -> Result<Given<T>> {
        self.read(self.value, T::from_toml)
    }

    /// One value or a list of at least one.
    pub fn list<T: Value>(&self) -> Result<Vec<Given<T>>> {
        self.list_of(T::from_toml)
    }

    /// One value or a list in which none is twice.
    pub fn distinct<T: Value + Display>(&self) -> Result<Vec<Given<T>>> {
        distinct(self.list()?)
    }

    /// One of these words or a list in which none is twice.
    pub fn distinct_words<'w>(&self, words: &[&'w str]) -> Result<Vec<Given<&'w str>>> {
        let words: Vec<(&str, &'w str)> = words.iter().map(|word| (*word, *word)).collect();
        distinct(self.list_of(|value| word(value, &words))?)
    }

    fn list_of<T>(&self, read: impl Fn(&DeValue) -> Result<T>) -> Result<Vec<Given<T>>> {
        match self.value.get_ref() {
            DeValue::Array(values) if values.is_empty() => {
                let error = Error::input("expected at least one value, found an empty list");
                Err(self.value_location().locate(error.hint("leave the key out for its default")))
            }
            DeValue::Array(values) => values.iter().map(|value| self.read(value, &read)).collect(),
            _ => Ok(vec![self.read(self.value, read)?]),
        }
    }

    fn read<T>(
        &self,
        value: &Spanned<DeValue>,
        read: impl Fn(&DeValue) -> Result<T>,
    ) -> Result<Given<T>> {
        let location = self.source.location(value.span().start, &self.key);
        match read(value.get_ref()) {
            Ok(value) => Ok(Given { value, location }),
            Err(error) => Err(location.locate(error)),
        }
    }

    /// The error for a key that is none of the `known` ones of its table. `belongs`: where else it
    /// is a key.
    pub fn unknown(&self, known: &[&str], belongs: Option<&str>) -> Error {
        let nearest = nearest(self.name, known.iter().copied());
        let hint = match (belongs, nearest) {
            (Some(place), _) => format!("{place}; configs/ holds commented examples"),
            (_, Some(key)) => {
                format!("did you mean `{key}`? configs/ holds commented examples")
            }
            _ => EXAMPLES.into(),
        };
        self.location().locate(Error::input("no key of that name").hint(hint))
    }
}

/// Refuses a value that was given before.
pub fn distinct<T: Display>(values: Vec<Given<T>>) -> Result<Vec<Given<T>>> {
    let mut seen = HashMap::new();
    for given in &values {
        match seen.entry(given.value.to_string()) {
            Slot::Vacant(slot) => _ = slot.insert(&given.location),
            Slot::Occupied(first) => {
                let value = first.key().escape_debug();
                let mut error = format!("expected every value once, found {value} twice");
                if let location @ Location::File { .. } = first.get() {
                    error += &format!(", first at {}", location.position());
                }
                return Err(given
                    .location
                    .locate(Error::input(error).hint("leave one of the two out")));
            }
        }
    }
    Ok(values)
}
