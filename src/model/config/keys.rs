//! A model's hyperparameters by name, from a Hugging Face config or a GGUF header. An architecture
//! asks once for each, under both names; what nobody asked for and would change the numbers is
//! refused ([`super::unknown`]).

use super::AS_PUBLISHED;
use crate::error::{Error, Result};
use crate::gguf_value::{self, float, integer, string};
use candle_core::quantized::gguf_file;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

pub(in crate::model) type GgufMetadata = HashMap<String, gguf_file::Value>;

/// The names of one hyperparameter; empty where a format does not have it. GGUF's stand behind
/// the architecture's name and a dot.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct Key {
    pub hf: &'static str,
    pub gguf: &'static str,
}

/// A hyperparameter of both formats.
pub(in crate::model) const fn key(hf: &'static str, gguf: &'static str) -> Key {
    Key { hf, gguf }
}

/// One that only Hugging Face's configs have.
pub(in crate::model) const fn hf(hf: &'static str) -> Key {
    Key { hf, gguf: "" }
}

/// One that only GGUF headers have.
pub(in crate::model) const fn gguf(gguf: &'static str) -> Key {
    Key { hf: "", gguf }
}

/// See the module.
pub(in crate::model) struct Keys<'a> {
    pub format: Format<'a>,
    read: RefCell<BTreeSet<String>>,
}

/// Where hyperparameters are read from.
pub(in crate::model) enum Format<'a> {
    /// `place`: how messages name the object.
    Hf {
        place: &'static str,
        config: &'a Map<String, Value>,
    },
    Gguf {
        architecture: &'a str,
        metadata: &'a GgufMetadata,
        has_tensor: &'a dyn Fn(&str) -> bool,
    },
}

/// The value of a key, if it is there.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model) enum Given<T> {
    /// With how messages name it.
    Absent(String),
    /// Hugging Face's `null`.
    Null(String),
    Value(T),
}

impl<T> Given<T> {
    /// An absent or empty key means `default`.
    pub fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }

    /// `None` for an absent or empty key.
    pub fn value(self) -> Option<T> {
        match self {
            Given::Value(value) => Some(value),
            _ => None,
        }
    }

    /// An absent key means `default`, an empty one that there is none.
    pub fn or_absent(self, default: Option<T>) -> Option<T> {
        match self {
            Given::Absent(_) => default,
            Given::Null(_) => None,
            Given::Value(value) => Some(value),
        }
    }

    /// An error for an absent or empty key.
    pub fn required(self) -> Result<T> {
        match self {
            Given::Value(value) => Ok(value),
            Given::Absent(place) | Given::Null(place) => {
                let hint = if place.starts_with(GGUF_HEADER) { NO_MODEL } else { AS_WRITTEN };
                Err(Error::input(format!("{place}: missing")).hint(hint))
            }
        }
    }
}

const GGUF_HEADER: &str = "GGUF header";
const NO_MODEL: &str = "is it a language model? vocabularies, adapters and vision parts are GGUF \
     files too; a language model's converter writes this key";
const AS_WRITTEN: &str = "the fields of the architecture's config.json are needed, as transformers \
     writes it";
pub(super) const AS_CONVERTED: &str =
    "no converter writes that: convert the model again with a current llama.cpp";

impl<'a> Keys<'a> {
    pub fn new(format: Format<'a>) -> Self {
        Self { format, read: RefCell::default() }
    }

    pub fn is_gguf(&self) -> bool {
        matches!(self.format, Format::Gguf { .. })
    }

    /// Whether a GGUF file has a tensor of that name; never true of a config.
    pub fn has_tensor(&self, name: &str) -> bool {
        match &self.format {
            Format::Gguf { has_tensor, .. } => has_tensor(name),
            Format::Hf { .. } => false,
        }
    }

    /// Whether an architecture asked for a key, by the format's own name.
    pub fn was_read(&self, name: &str) -> bool {
        self.read.borrow().contains(name)
    }

    /// How messages name what the keys stand in.
    pub fn whole_place(&self) -> &'static str {
        match self.format {
            Format::Hf { place, .. } => place,
            Format::Gguf { .. } => GGUF_HEADER,
        }
    }

    /// How messages name a key.
    pub fn place(&self, key: Key) -> String {
        match &self.format {
            Format::Hf { place, .. } => format!("{place}: {}", key.hf),
            Format::Gguf { architecture, .. } => {
                format!("{GGUF_HEADER}: {architecture}.{}", key.gguf)
            }
        }
    }

    pub fn count(&self, key: Key) -> Result<Given<usize>> {
        self.get(
            key,
            "a whole number",
            |value| value.as_u64().and_then(|n| usize::try_from(n).ok()),
            |value| match value {
                // Converters write one for every layer where some architecture of a name needs it.
                gguf_file::Value::Array(values) => {
                    let first = integer(values.first()?)?;
                    let same = values.iter().all(|value| integer(value) == Some(first));
                    usize::try_from(first).ok().filter(|_| same)
                }
                one => integer(one).and_then(|n| usize::try_from(n).ok()),
            },
        )
    }

    pub fn number(&self, key: Key) -> Result<Given<f64>> {
        self.get(key, "a number", Value::as_f64, |value| float(value).or(gguf_value::number(value)))
    }

    pub fn flag(&self, key: Key) -> Result<Given<bool>> {
        self.get(key, "true or false", Value::as_bool, |value| match value {
            gguf_file::Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub fn text(&self, key: Key) -> Result<Given<String>> {
        let owned = |text: &str| text.to_string();
        self.get(
            key,
            "a string",
            |value| value.as_str().map(owned),
            |value| string(value).map(owned),
        )
    }

    /// A flag for every layer, as booleans or as 0 and 1.
    pub fn flags_by_layer(&self, key: Key, layers: usize) -> Result<Given<Vec<bool>>> {
        let given = self.get(
            key,
            "a list of 0 and 1, one for every layer",
            |value| {
                let flag = |v: &Value| v.as_bool().or_else(|| v.as_u64().map(|n| n != 0));
                value.as_array()?.iter().map(flag).collect()
            },
            |value| match value {
                gguf_file::Value::Array(values) => values
                    .iter()
                    .map(|value| match value {
                        gguf_file::Value::Bool(flag) => Some(*flag),
                        other => Some(integer(other)? != 0),
                    })
                    .collect(),
                _ => None,
            },
        )?;
        self.checked_length(key, layers, given)
    }

    /// Hugging Face's names of layers' kinds.
    pub fn texts_by_layer(&self, key: Key, layers: usize) -> Result<Given<Vec<String>>> {
        let given = self.get(
            key,
            "a list of names, one for every layer",
            |value| value.as_array()?.iter().map(|v| Some(v.as_str()?.to_string())).collect(),
            |_| None,
        )?;
        self.checked_length(key, layers, given)
    }

    /// Indices of layers.
    pub fn indices(&self, key: Key) -> Result<Given<Vec<usize>>> {
        let index = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.get(
            key,
            "a list of layers",
            |value| value.as_array()?.iter().map(index).collect(),
            |_| None,
        )
    }

    /// An object of a config, under any of its keys.
    pub fn object(&self, key: Key) -> Result<Given<Map<String, Value>>> {
        self.get(key, "an object", |value| value.as_object().cloned(), |_| None)
    }

    /// The length of an array of a GGUF header outside the architecture's keys.
    pub fn array_length(&self, name: &str) -> Option<usize> {
        match &self.format {
            Format::Gguf { metadata, .. } => match metadata.get(name) {
                Some(gguf_file::Value::Array(values)) => Some(values.len()),
                _ => None,
            },
            Format::Hf { .. } => None,
        }
    }

    fn checked_length<T>(
        &self,
        key: Key,
        layers: usize,
        given: Given<Vec<T>>,
    ) -> Result<Given<Vec<T>>> {
        match given {
            Given::Value(values) if values.len() < layers => Err(Error::input(format!(
                "{}: expected {layers} values, one for every layer, found {}",
                self.place(key),
                values.len()
            ))
            .hint(AS_PUBLISHED)),
            Given::Value(mut values) => {
                // transformers takes longer lists and never looks at their end.
                values.truncate(layers);
                Ok(Given::Value(values))
            }
            other => Ok(other),
        }
    }

    fn get<T>(
        &self,
        key: Key,
        expected: &str,
        from_json: impl Fn(&Value) -> Option<T>,
        from_gguf: impl Fn(&gguf_file::Value) -> Option<T>,
    ) -> Result<Given<T>> {
        let name = match &self.format {
            Format::Hf { .. } => key.hf,
            Format::Gguf { .. } => key.gguf,
        };
        if name.is_empty() {
            return Ok(Given::Absent(self.place(key)));
        }
        self.read.borrow_mut().insert(name.to_string());
        match &self.format {
            Format::Hf { config, .. } => match config.get(name) {
                None => Ok(Given::Absent(self.place(key))),
                Some(Value::Null) => Ok(Given::Null(self.place(key))),
                Some(value) => from_json(value).map(Given::Value).ok_or_else(|| {
                    let found = super::short(value);
                    let place = self.place(key);
                    Error::input(format!("{place}: expected {expected}, found {found}"))
                        .hint(AS_PUBLISHED)
                }),
            },
            Format::Gguf { architecture, metadata, .. } => {
                match metadata.get(&format!("{architecture}.{name}")) {
                    None => Ok(Given::Absent(self.place(key))),
                    Some(value) => from_gguf(value).map(Given::Value).ok_or_else(|| {
                        Error::input(format!(
                            "{}: expected {expected}, found {}",
                            self.place(key),
                            described(value)
                        ))
                        .hint(match value {
                            gguf_file::Value::Array(_) => super::unknown::other_numbers(),
                            _ => AS_CONVERTED.into(),
                        })
                    }),
                }
            }
        }
    }
}

/// A GGUF value, short enough for a line.
pub(super) fn described(value: &gguf_file::Value) -> String {
    match (gguf_value::number(value), value) {
        (_, gguf_file::Value::Bool(flag)) => flag.to_string(),
        (Some(number), _) => number.to_string(),
        (None, gguf_file::Value::String(text)) => text.chars().take(60).collect(),
        (None, gguf_file::Value::Array(values)) => format!("an array of {}", values.len()),
        (None, other) => format!("{:?}", other.value_type()),
    }
}
