//! The types of settings that are neither numbers nor names.

use super::value::{ReadText, Value, Words, whole_number};
use crate::error::{Error, Result};
use crate::eval::Treatment;
use candle_core::{DType, Device};
use clap::builder::ValueParser;
use clap::value_parser;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::fmt;
use std::str::FromStr;
use toml::de::DeValue;

/// Whether a beginning-of-sequence token stands first in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bos {
    /// As the model's tokenizer does.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Type of floating-point numbers, of arithmetic or of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// 32 bits, IEEE 754.
    F32,
    /// 16 bits, 8 of them exponent.
    Bf16,
    /// 16 bits, IEEE 754.
    F16,
}

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightForm {
    /// Packed where f32 would not fit into the free memory, else in f32.
    Auto,
    /// As numbers that are multiplied at once.
    F32,
    /// As a GGUF file has them, dequantised whenever they are multiplied.
    Packed,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// The first CUDA device.
    Cuda,
    /// The first Metal device.
    Metal,
}

/// A number of windows, or all that the text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowCount {
    /// So many, or fewer if the text is shorter.
    AtMost(usize),
    /// All.
    All,
}

/// A number of percent; a flag takes it with or without the sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

/// The protocols of a run, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolName {
    /// One after the other.
    Both,
    /// [`Protocol::Prefix`](crate::eval::protocol::Protocol::Prefix) alone.
    Prefix,
    /// [`Protocol::Decode`](crate::eval::protocol::Protocol::Decode) alone.
    Decode,
}

/// The word of a closed list.
fn write_word<T: Words + PartialEq>(value: &T, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    T::WORDS.iter().filter(|(_, other)| other == value).try_for_each(|(word, _)| f.write_str(word))
}

impl fmt::Display for Bos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_word(self, f)
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_word(self, f)
    }
}

impl fmt::Display for WeightForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_word(self, f)
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_word(self, f)
    }
}

impl fmt::Display for WindowCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WindowCount::AtMost(n) => n.fmt(f),
            WindowCount::All => f.write_str("all"),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = text.trim_end().strip_suffix('%').unwrap_or(text).trim();
        number.parse().map(Self).map_err(|_| "expected a number of percent".into())
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProtocolName::Both => "both",
            ProtocolName::Prefix => "prefix",
            ProtocolName::Decode => "decode",
        })
    }
}

impl FromStr for ProtocolName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "both" => Ok(Self::Both),
            "prefix" => Ok(Self::Prefix),
            "decode" => Ok(Self::Decode),
            _ => {
                Err(Error::input(format!("expected `both`, `prefix` or `decode`, found {name:?}"))
                    .hint("both is the default"))
            }
        }
    }
}

impl WindowCount {
    /// The number, where there is one.
    pub fn limit(self) -> Option<usize> {
        match self {
            WindowCount::AtMost(n) => Some(n),
            WindowCount::All => None,
        }
    }
}

impl FromStr for WindowCount {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "all" => Ok(WindowCount::All),
            _ => text
                .parse()
                .map(WindowCount::AtMost)
                .map_err(|_| "expected a number or `all`".to_string()),
        }
    }
}

impl FloatType {
    /// candle's type of that name.
    pub fn dtype(self) -> DType {
        match self {
            FloatType::F32 => DType::F32,
            FloatType::Bf16 => DType::BF16,
            FloatType::F16 => DType::F16,
        }
    }

    /// The control that measures what rounding makes in a run of 16 bits.
    pub fn floor(self) -> Option<Treatment> {
        (self != FloatType::F32).then(Treatment::floor)
    }
}

impl DeviceKind {
    /// The device, if this build and this machine have it.
    pub fn open(self) -> Result<Device> {
        let (name, built) = match self {
            DeviceKind::Cpu => return Ok(Device::Cpu),
            DeviceKind::Cuda => ("cuda", candle_core::utils::cuda_is_available()),
            DeviceKind::Metal => ("metal", candle_core::utils::metal_is_available()),
        };
        if !built {
            return Err(Error::input(format!("--device {name}: this build has no {name} support"))
                .hint(format!(
                    "build with --features {name} where its toolkit exists, or use --device cpu"
                )));
        }
        let device = match self {
            DeviceKind::Metal => Device::new_metal(0),
            _ => Device::new_cuda(0),
        };
        device.map_err(|e| {
            Error::from(e)
                .within(format!("--device {name}"))
                .hint("is a device there, and its driver?")
        })
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

impl Value for ProtocolName {
    const FROM_TEXT: Option<ReadText<Self>> = Some(|name| Ok(vec![name.parse()?]));

    fn expected() -> String {
        "`both`, `prefix` or `decode`".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        String::from_toml(value)?.parse()
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

impl Words for WeightForm {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", WeightForm::Auto), ("f32", WeightForm::F32), ("packed", WeightForm::Packed)];
}

impl Words for DeviceKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("cpu", DeviceKind::Cpu), ("cuda", DeviceKind::Cuda), ("metal", DeviceKind::Metal)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_count_is_a_number_or_all() {
        for (text, expected) in [("7", Some(7)), ("all", None)] {
            assert_eq!(text.parse::<WindowCount>().unwrap().limit(), expected);
        }
        for text in ["", "ALL", "-1", "1.5", "7 "] {
            assert!(text.parse::<WindowCount>().is_err(), "{text:?}");
        }
    }
}
