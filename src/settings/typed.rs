//! One TOML value as the type that a setting has.

use super::file::EXAMPLES;
use super::values::{Bos, DeviceKind, FloatType, WindowCount};
use crate::corpus::TextSource;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::eval::protocol::ProtocolName;
use toml::de::{DeInteger, DeValue};

/// What can be the value of a key.
pub(super) trait Value: Sized {
    /// An error says what was expected and found, but not where.
    fn read(value: &DeValue) -> Result<Self>;
}

impl Value for String {
    fn read(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(text) => Ok(text.to_string()),
            other => Err(mismatch("a string", other)),
        }
    }
}

impl Value for TextSource {
    fn read(value: &DeValue) -> Result<Self> {
        Ok(String::read(value)?.as_str().into())
    }
}

impl Value for u64 {
    fn read(value: &DeValue) -> Result<Self> {
        whole_number(value, "a whole number, 0 or more")
    }
}

impl Value for usize {
    fn read(value: &DeValue) -> Result<Self> {
        whole_number(value, "a whole number, 0 or more")
    }
}

impl Value for f64 {
    fn read(value: &DeValue) -> Result<Self> {
        let number = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
            }
            _ => None,
        };
        number.ok_or_else(|| mismatch("a number", value))
    }
}

impl Value for bool {
    fn read(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(mismatch("a boolean, true or false", other)),
        }
    }
}

impl Value for WindowCount {
    fn read(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(word) if word == "all" => Ok(WindowCount::All),
            _ => whole_number(value, "a whole number or \"all\"").map(WindowCount::AtMost),
        }
    }
}

impl Value for Treatment {
    fn read(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(name) => name.parse(),
            other => Err(mismatch("a codec's name", other)),
        }
    }
}

impl Value for ProtocolName {
    fn read(value: &DeValue) -> Result<Self> {
        String::read(value)?.parse()
    }
}

impl Value for Bos {
    fn read(value: &DeValue) -> Result<Self> {
        word(value, &[("auto", Bos::Auto), ("always", Bos::Always), ("never", Bos::Never)])
    }
}

impl Value for FloatType {
    fn read(value: &DeValue) -> Result<Self> {
        use FloatType::{Bf16, F16, F32};
        word(value, &[("f32", F32), ("bf16", Bf16), ("f16", F16)])
    }
}

impl Value for DeviceKind {
    fn read(value: &DeValue) -> Result<Self> {
        use DeviceKind::{Cpu, Cuda, Metal};
        word(value, &[("cpu", Cpu), ("cuda", Cuda), ("metal", Metal)])
    }
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
    meant.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let (last, rest) = words.split_last().map_or(("", &[][..]), |(a, b)| (a, b));
        mismatch(&format!("{} or {last}", rest.join(", ")), value)
    })
}

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
