//! The values that settings take, besides numbers and names.

use crate::error::{Error, Result};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bos {
    /// As the model's tokenizer does.
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    F32,
    Bf16,
    F16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    Cpu,
    Cuda,
    Metal,
}

/// A number of windows, or all that the text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowCount {
    AtMost(usize),
    All,
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FloatType::F32 => "f32",
            FloatType::Bf16 => "bf16",
            FloatType::F16 => "f16",
        })
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
            DeviceKind::Metal => "metal",
        })
    }
}

impl WindowCount {
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

impl Serialize for WindowCount {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        match self {
            WindowCount::AtMost(n) => serializer.serialize_u64(*n as u64),
            WindowCount::All => serializer.serialize_str("all"),
        }
    }
}

impl FloatType {
    pub fn dtype(self) -> DType {
        match self {
            FloatType::F32 => DType::F32,
            FloatType::Bf16 => DType::BF16,
            FloatType::F16 => DType::F16,
        }
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
