//! Words that flags take, and what they mean.

use crate::settings::{Bos, DeviceKind, FloatType};
use clap::ValueEnum;

#[derive(Clone, Copy, ValueEnum)]
pub enum BosArgument {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum FloatArgument {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum DeviceArgument {
    Cpu,
    Cuda,
    Metal,
}

impl From<BosArgument> for Bos {
    fn from(bos: BosArgument) -> Self {
        match bos {
            BosArgument::Auto => Bos::Auto,
            BosArgument::Always => Bos::Always,
            BosArgument::Never => Bos::Never,
        }
    }
}

impl From<FloatArgument> for FloatType {
    fn from(dtype: FloatArgument) -> Self {
        match dtype {
            FloatArgument::F32 => FloatType::F32,
            FloatArgument::Bf16 => FloatType::Bf16,
            FloatArgument::F16 => FloatType::F16,
        }
    }
}

impl From<DeviceArgument> for DeviceKind {
    fn from(device: DeviceArgument) -> Self {
        match device {
            DeviceArgument::Cpu => DeviceKind::Cpu,
            DeviceArgument::Cuda => DeviceKind::Cuda,
            DeviceArgument::Metal => DeviceKind::Metal,
        }
    }
}

/// A number of percent, with or without the sign.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end().strip_suffix('%').unwrap_or(text).trim();
    number.parse().map_err(|_| "expected a number of percent".into())
}
