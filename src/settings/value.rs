//! The types of settings: how one value is read from a file and from a flag, and shown.

use super::entry::EXAMPLES;
use super::location::Given;
use super::types::{Bos, DeviceKind, FloatType, Percent, ProtocolName, WindowCount};
use crate::codec::split_names;
use crate::corpus::TextSource;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use clap::builder::{
    OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser,
};
use clap::value_parser;
use serde_json::Value as Json;
use std::ffi::OsStr;
use std::fmt::Display;
use std::marker::PhantomData;
use toml::de::{DeInteger, DeValue};

/// The reader of a flag's text for a type whose own error says more than clap's.
pub type ReadText<T> = fn(&str) -> Result<Vec<T>>;

/// A type of one value.
pub trait Value: Sized + Clone + Display + Send + Sync + 'static {
    /// `None`: clap's parser gives this type. Else it gives a `String`, for this.
    const FROM_TEXT: Option<ReadText<Self>> = None;
    /// Whether a flag without a value means `true`.
    const SWITCH: bool = false;
    /// Whether a flag's value may begin with a minus.
    const SIGNED: bool = false;

    /// The values it takes, for the error about one of another kind and for the documentation.
    fn expected() -> String;

    /// From a file. An error says what was expected and found, but not where.
    fn from_toml(value: &DeValue) -> Result<Self>;

    /// clap's parser of a flag's text.
    fn parser() -> ValueParser {
        ValueParser::string()
    }

    /// As the result echoes it; a settings file spells it alike.
    fn json(&self) -> Json {
        self.to_string().into()
    }

    /// As a number, for its bounds.
    fn number(&self) -> Option<f64> {
        self.json().as_f64()
    }
}

/// A default, as text.
pub struct DefaultText {
    /// For the help.
    pub words: String,
    /// As a settings file spells it.
    pub spelling: String,
}

/// The type of a setting in a run: a value, one that may be absent, or several.
pub trait Resolved: Sized {
    /// The type of each value given.
    type Value: Value;

    /// `None` where the default decides.
    fn from_given(given: &[Given<Self::Value>]) -> Option<Self>;

    /// For the result's echo.
    fn echo(&self) -> Json;

    /// For the help and the documentation, where it is a default.
    fn text(&self) -> Option<DefaultText>;
}

impl<T: Value> Resolved for T {
    type Value = T;

    fn from_given(given: &[Given<T>]) -> Option<Self> {
        given.first().map(|given| given.value.clone())
    }

    fn echo(&self) -> Json {
        self.json()
    }

    fn text(&self) -> Option<DefaultText> {
        Some(DefaultText { words: self.to_string(), spelling: self.json().to_string() })
    }
}

impl<T: Value> Resolved for Option<T> {
    type Value = T;

    fn from_given(given: &[Given<T>]) -> Option<Self> {
        given.first().map(|given| Some(given.value.clone()))
    }

    fn echo(&self) -> Json {
        self.as_ref().map_or(Json::Null, Value::json)
    }

    fn text(&self) -> Option<DefaultText> {
        self.as_ref().and_then(Resolved::text)
    }
}

impl<T: Value> Resolved for Vec<Given<T>> {
    type Value = T;

    fn from_given(given: &[Given<T>]) -> Option<Self> {
        Some(given.to_vec()).filter(|given| !given.is_empty())
    }

    fn echo(&self) -> Json {
        self.iter().map(|given| given.value.json()).collect()
    }

    fn text(&self) -> Option<DefaultText> {
        self.first().and_then(|given| given.value.text())
    }
}

impl Value for String {
    fn expected() -> String {
        "a string".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(text) => Ok(text.to_string()),
            other => Err(mismatch(&Self::expected(), other)),
        }
    }
}

impl Value for TextSource {
    fn expected() -> String {
        String::expected()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        Ok(String::from_toml(value)?.as_str().into())
    }

    fn parser() -> ValueParser {
        OsStringValueParser::new().map(Self::from).into()
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn expected() -> String {
                "a whole number, 0 or more".into()
            }

            fn from_toml(value: &DeValue) -> Result<Self> {
                whole_number(value, &Self::expected())
            }

            fn parser() -> ValueParser {
                value_parser!($type).into()
            }

            fn json(&self) -> Json {
                (*self).into()
            }
        }
    )*};
}

whole_numbers!(u64, usize);

impl Value for f64 {
    const SIGNED: bool = true;

    fn expected() -> String {
        "a number".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        let number = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
            }
            _ => None,
        };
        number.ok_or_else(|| mismatch(&Self::expected(), value))
    }

    fn parser() -> ValueParser {
        value_parser!(f64).into()
    }

    fn json(&self) -> Json {
        (*self).into()
    }

    /// Also where JSON has no number, as of NaN.
    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

impl Value for Percent {
    const SIGNED: bool = true;

    fn expected() -> String {
        f64::expected()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        f64::from_toml(value).map(Self)
    }

    fn parser() -> ValueParser {
        value_parser!(Percent).into()
    }

    fn json(&self) -> Json {
        self.0.into()
    }

    fn number(&self) -> Option<f64> {
        Some(self.0)
    }
}

impl Value for bool {
    const SWITCH: bool = true;

    fn expected() -> String {
        "a boolean, true or false".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(mismatch(&Self::expected(), other)),
        }
    }

    fn parser() -> ValueParser {
        ValueParser::bool()
    }

    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Value for WindowCount {
    fn expected() -> String {
        "a whole number or \"all\"".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(word) if word == "all" => Ok(WindowCount::All),
            _ => whole_number(value, &Self::expected()).map(WindowCount::AtMost),
        }
    }

    fn parser() -> ValueParser {
        value_parser!(WindowCount).into()
    }

    fn json(&self) -> Json {
        self.limit().map_or_else(|| self.to_string().into(), Json::from)
    }
}

impl Value for Treatment {
    const FROM_TEXT: Option<ReadText<Self>> =
        Some(|names| split_names(names).into_iter().map(str::parse).collect());

    fn expected() -> String {
        "a codec's name".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(name) => name.parse(),
            other => Err(mismatch(&Self::expected(), other)),
        }
    }
}

impl Value for ProtocolName {
    const FROM_TEXT: Option<ReadText<Self>> = Some(|name| Ok(vec![name.parse()?]));

    fn expected() -> String {
        "`both`, `prefix` or `decode`".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        String::from_toml(value)?.parse()
    }
}

/// A type whose values are a few words.
pub trait Words: Copy + Display + Send + Sync + 'static {
    /// Every word with its value.
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Words> Value for T {
    fn expected() -> String {
        one_of(T::WORDS)
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        word(value, T::WORDS)
    }

    fn parser() -> ValueParser {
        ValueParser::new(WordParser(PhantomData::<T>))
    }
}

/// clap's parser of a few words; a word that is not UTF-8 is none of them.
#[derive(Clone)]
struct WordParser<T>(PhantomData<T>);

impl<T: Words> WordParser<T> {
    fn words() -> PossibleValuesParser {
        PossibleValuesParser::new(T::WORDS.iter().map(|(word, _)| *word))
    }
}

impl<T: Words> TypedValueParser for WordParser<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        text: &OsStr,
    ) -> std::result::Result<T, clap::Error> {
        let text = text.to_string_lossy();
        let found = Self::words().parse_ref(command, argument, OsStr::new(&*text))?;
        let value = T::WORDS.iter().find(|(word, _)| *word == found).map(|(_, value)| *value);
        value.ok_or_else(|| clap::Error::new(clap::error::ErrorKind::InvalidValue))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| PossibleValue::new(*word)).collect();
        Some(Box::new(words.into_iter()))
    }
}

impl Words for Bos {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Bos::Auto), ("always", Bos::Always), ("never", Bos::Never)];
}

impl Words for FloatType {
    const WORDS: &'static [(&'static str, Self)] =
        &[("f32", FloatType::F32), ("bf16", FloatType::Bf16), ("f16", FloatType::F16)];
}

impl Words for DeviceKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("cpu", DeviceKind::Cpu), ("cuda", DeviceKind::Cuda), ("metal", DeviceKind::Metal)];
}

fn whole_number<T: TryFrom<u64>>(value: &DeValue, expected: &str) -> Result<T> {
    let number = |integer: &DeInteger| {
        T::try_from(u64::from_str_radix(integer.as_str(), integer.radix()).ok()?).ok()
    };
    match value {
        DeValue::Integer(integer) => match number(integer) {
            Some(number) => Ok(number),
            None if integer.as_str().starts_with('-') => Err(mismatch(expected, value)),
            None => Err(mismatch(&format!("{expected}, and of 64 bits at most"), value)),
        },
        other => Err(mismatch(expected, other)),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &DeValue, words: &[(&str, T)]) -> Result<T> {
    let meant = match value {
        DeValue::String(found) => words.iter().find(|(word, _)| word == found),
        _ => None,
    };
    meant.map(|(_, meaning)| *meaning).ok_or_else(|| mismatch(&one_of(words), value))
}

/// `` `f32`, `bf16` or `f16` ``
fn one_of<T>(words: &[(&str, T)]) -> String {
    let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let (last, rest) = words.split_last().map_or(("", &[][..]), |(a, b)| (a, b));
    format!("{} or {last}", rest.join(", "))
}

/// The error for a value of another kind.
pub(super) fn mismatch(expected: &str, found: &DeValue) -> Error {
    // A number in quotes, with a unit or not.
    let hint = match found {
        DeValue::String(text) if expected.contains("number") => {
            let digits = text.trim().trim_end_matches(['%', 'k', 'K']).trim();
            let number = digits.parse::<f64>().is_ok_and(f64::is_finite);
            number.then(|| format!("a number stands without quotes and unit, as in = {digits}; "))
        }
        DeValue::String(text) if expected.contains("boolean") => {
            let word = text.trim().to_ascii_lowercase();
            let boolean = matches!(word.as_str(), "true" | "false");
            boolean.then(|| format!("it stands without quotes, as in = {word}; "))
        }
        _ => None,
    };
    let hint = hint.unwrap_or_default() + EXAMPLES;
    let found = match found {
        DeValue::String(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
        DeValue::String(_) => "a string".into(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date or time".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    };
    Error::input(format!("expected {expected}, found {found}")).hint(hint)
}
