//! What was meant: the checked settings of a validation, with defaults filled in.
//!
//! [`RawSettings`] is what was typed, on the command line or in a TOML file (the same keys,
//! with underscores); flags override the file, and [`Settings::resolve`] checks the rest.

use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::model::source::ModelSource;
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub const DEFAULT_MODEL: &str = "TinyLlama/TinyLlama-1.1B-Chat-v1.0";
const DEFAULT_CONTEXT: usize = 2048;
const DEFAULT_WINDOWS: usize = 20;
/// Far more threads than cores only wait for each other; 100 000 of them stop a machine.
const MAX_THREADS: usize = 1024;
/// The shortest window with a prefix and a scored target that depends on it.
const MIN_CONTEXT: usize = 4;

/// Whether `--threads` can be meant.
pub fn check_threads(threads: Option<usize>) -> Result<()> {
    match threads {
        Some(found) if !(1..=MAX_THREADS).contains(&found) => {
            Err(Error::input(format!("--threads: expected 1 to {MAX_THREADS}, found {found}"))
                .hint("leave --threads out to use every core"))
        }
        _ => Ok(()),
    }
}

/// Settings as typed; `None` where nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSettings {
    pub model: Option<String>,
    pub text: Option<String>,
    pub context: Option<usize>,
    pub windows: Option<WindowCount>,
    pub first_window: Option<usize>,
    pub codec: Option<Vec<String>>,
    pub bos: Option<Bos>,
    pub dtype: Option<FloatType>,
    pub device: Option<DeviceKind>,
    pub threads: Option<usize>,
    pub seed: Option<u64>,
    pub max_ppl_increase: Option<f64>,
    pub strict: Option<bool>,
    pub offline: Option<bool>,
    pub cross_check: Option<bool>,
}

/// Settings with every question answered; echoed in the result.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub model: String,
    pub text: String,
    /// `None`: 2048, or the model's maximum if smaller.
    pub context: Option<usize>,
    pub windows: WindowCount,
    pub first_window: usize,
    #[serde(serialize_with = "names")]
    pub codec: Vec<Codec>,
    pub bos: Bos,
    pub dtype: FloatType,
    pub device: DeviceKind,
    pub threads: Option<usize>,
    pub seed: u64,
    /// Percent.
    pub max_ppl_increase: f64,
    pub strict: bool,
    pub offline: bool,
    pub cross_check: bool,
    #[serde(skip)]
    pub source: ModelSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bos {
    /// As the model's tokenizer does.
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    F32,
    Bf16,
    F16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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

impl RawSettings {
    /// From the text of a TOML file.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            Error::input(format!("{}: {}", path.display(), one_line(&e, text)))
                .hint("configs/ holds commented examples; keys are the long flags with underscores")
        })
    }

    /// What `self` leaves open, `other` decides.
    pub fn or(self, other: Self) -> Self {
        Self {
            model: self.model.or(other.model),
            text: self.text.or(other.text),
            context: self.context.or(other.context),
            windows: self.windows.or(other.windows),
            first_window: self.first_window.or(other.first_window),
            codec: self.codec.or(other.codec),
            bos: self.bos.or(other.bos),
            dtype: self.dtype.or(other.dtype),
            device: self.device.or(other.device),
            threads: self.threads.or(other.threads),
            seed: self.seed.or(other.seed),
            max_ppl_increase: self.max_ppl_increase.or(other.max_ppl_increase),
            strict: self.strict.or(other.strict),
            offline: self.offline.or(other.offline),
            cross_check: self.cross_check.or(other.cross_check),
        }
    }
}

/// toml's message with line and column, without its drawing of the source.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = &text.as_bytes()[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    // serde names Rust's types; a TOML file has none of them.
    let message = error
        .message()
        .replace('\n', " ")
        .replace("expected usize", "expected a whole number, 0 or more")
        .replace("expected u64", "expected a whole number, 0 or more")
        .replace("expected f64", "expected a number")
        .replace("expected a sequence", "expected a list such as [\"int4-g64\"]");
    format!("line {line}, column {column}: {message}")
}

impl Settings {
    pub fn resolve(raw: RawSettings) -> Result<Self> {
        let model = raw.model.unwrap_or_else(|| DEFAULT_MODEL.into());
        let source = ModelSource::parse(&model)?;
        // The embedded model is meant to be tried with no network: its text comes with it.
        let text = raw.text.unwrap_or_else(|| match source {
            ModelSource::Builtin => "builtin".into(),
            _ => "wikitext-2".into(),
        });
        let names = raw.codec.unwrap_or_else(|| vec!["int4-g64".into()]);
        if names.is_empty() {
            return Err(Error::input("codec: expected at least one, found none")
                .hint("int4-g64 is the default when the key is left out"));
        }
        let codec: Vec<Codec> = names.iter().map(|name| name.parse()).collect::<Result<_>>()?;
        let limit = raw.max_ppl_increase.unwrap_or(1.0);
        if !limit.is_finite() || limit <= -100.0 {
            return Err(Error::input(format!(
                "--max-ppl-increase: expected a percentage above -100, found {limit}"
            ))
            .hint("1 accepts a perplexity that is 1 % higher"));
        }
        for (flag, value, least) in [
            ("--context", raw.context, MIN_CONTEXT),
            ("--windows", raw.windows.and_then(WindowCount::limit), 1),
        ] {
            if let Some(found) = value.filter(|value| *value < least) {
                return Err(Error::input(format!(
                    "{flag}: expected at least {least}, found {found}"
                ))
                .hint(format!("leave {flag} out for its default")));
            }
        }
        check_threads(raw.threads)?;
        Ok(Self {
            model,
            text,
            context: raw.context,
            windows: raw.windows.unwrap_or(WindowCount::AtMost(DEFAULT_WINDOWS)),
            first_window: raw.first_window.unwrap_or(0),
            codec,
            bos: raw.bos.unwrap_or(Bos::Auto),
            dtype: raw.dtype.unwrap_or(FloatType::F32),
            device: raw.device.unwrap_or(DeviceKind::Cpu),
            threads: raw.threads,
            seed: raw.seed.unwrap_or(0),
            max_ppl_increase: limit,
            strict: raw.strict.unwrap_or(false),
            offline: raw.offline.unwrap_or(false),
            cross_check: raw.cross_check.unwrap_or(false),
            source,
        })
    }

    /// The window length for a model that computes at most `longest` positions.
    pub fn context_for(&self, longest: usize) -> Result<usize> {
        match self.context {
            None => Ok(DEFAULT_CONTEXT.min(longest)),
            Some(context) if context <= longest => Ok(context),
            Some(context) => Err(Error::input(format!(
                "--context: expected at most {longest}, the model's longest context, found {context}"
            ))
            .hint(format!("use --context {longest} or less, or leave it out"))),
        }
    }

    /// The text's file, unless it is one of the two names.
    pub fn text_path(&self) -> Option<PathBuf> {
        match self.text.as_str() {
            "builtin" | "wikitext-2" => None,
            path => Some(path.into()),
        }
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

impl std::str::FromStr for WindowCount {
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

impl<'de> Deserialize<'de> for WindowCount {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number or \"all\"")]
        enum Either {
            Number(usize),
            Word(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(n) => Ok(WindowCount::AtMost(n)),
            Either::Word(word) => word.parse().map_err(serde::de::Error::custom),
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

fn names<S: serde::Serializer>(
    codecs: &[Codec],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(codecs.iter().map(ToString::to_string))
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

    fn parse(text: &str) -> Result<RawSettings> {
        RawSettings::from_toml(Path::new("x.toml"), text)
    }

    #[test]
    fn flags_win_over_the_file_key_by_key() {
        let flags = RawSettings { context: Some(8), strict: Some(true), ..Default::default() };
        let file = parse("context = 16\nwindows = \"all\"\nstrict = false\nseed = 3").unwrap();
        let both = flags.or(file);
        assert_eq!((both.context, both.strict, both.seed), (Some(8), Some(true), Some(3)));
        assert_eq!(both.windows, Some(WindowCount::All));
        assert_eq!(both.model, None);
    }

    #[test]
    fn what_nobody_said_has_the_documented_default() {
        let settings = Settings::resolve(RawSettings::default()).unwrap();
        assert_eq!(
            (settings.model.as_str(), settings.text.as_str()),
            (DEFAULT_MODEL, "wikitext-2")
        );
        assert_eq!((settings.windows, settings.first_window), (WindowCount::AtMost(20), 0));
        assert_eq!(settings.codec[0].to_string(), "int4-g64");
        assert_eq!((settings.bos, settings.dtype), (Bos::Auto, FloatType::F32));
        assert_eq!((settings.max_ppl_increase, settings.strict), (1.0, false));
        assert_eq!(settings.context_for(4096).unwrap(), 2048);
        assert_eq!(settings.context_for(512).unwrap(), 512);
        let builtin = RawSettings { model: Some("builtin".into()), ..Default::default() };
        assert_eq!(Settings::resolve(builtin).unwrap().text, "builtin");
    }

    #[test]
    fn toml_errors_are_one_line_with_a_place() {
        let error = parse("# comment\nseed = 1\ncontext = 1.5").unwrap_err().to_string();
        assert!(error.starts_with("x.toml: line 3, column 11: "), "{error}");
        assert!(error.contains("expected a whole number"), "{error}");
        for text in ["[", "a = ", "x", "codec = [1]", "context = 99999999999999999999", "\u{0}"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains('\n') && !error.contains("usize"), "{error}");
        }
    }

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
