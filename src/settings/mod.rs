//! What was meant: the checked settings of a run, with defaults filled in.
//!
//! [`RawSettings`] is what was typed, on the command line or in a TOML file (`file`: the same
//! keys, with underscores), each value with its place; flags override the file key by key.
//! [`Settings::resolve_all`] checks what the values mean and makes one [`Settings`] of each model,
//! text and context; [`Settings::resolve`] is for commands that take one of each.

mod file;
mod grid;
mod place;
mod typed;
mod values;

pub use file::{ConfigFile, distinct};
pub use place::{Place, Said};
pub use values::{Bos, DeviceKind, FloatType, WindowCount};

use crate::corpus::TextSource;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::eval::protocol::{DEFAULT_CHUNK, Protocol, ProtocolName, Protocols};
use crate::eval::verdict::Limits;
use crate::model::Longest;
use crate::model::source::ModelSource;
use serde::Serialize;

pub const DEFAULT_MODEL: &str = "TinyLlama/TinyLlama-1.1B-Chat-v1.0";
const DEFAULT_CODEC: &str = "int4-g64";
const DEFAULT_CONTEXT: usize = 2048;
const DEFAULT_WINDOWS: usize = 20;
/// Far more threads than cores only wait for each other; 100 000 of them stop a machine.
const MAX_THREADS: usize = 1024;
/// The shortest window with a prefix and a scored target that depends on it.
const MIN_CONTEXT: usize = 4;

/// Whether `--threads` can be meant.
pub fn check_threads(threads: Option<&Said<usize>>) -> Result<()> {
    match threads {
        Some(said) if !(1..=MAX_THREADS).contains(&said.value) => Err(said.place.refuse(
            Error::input(format!("expected 1 to {MAX_THREADS}, found {}", said.value))
                .hint("leave it out to use every core"),
        )),
        _ => Ok(()),
    }
}

/// Settings as typed; `None` or empty where nothing was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawSettings {
    pub model: Vec<Said<String>>,
    pub text: Vec<Said<TextSource>>,
    pub context: Vec<Said<usize>>,
    pub windows: Option<Said<WindowCount>>,
    pub first_window: Option<Said<usize>>,
    /// Those of a file's grid included.
    pub codec: Vec<Said<Treatment>>,
    pub protocol: Option<Said<ProtocolName>>,
    pub residual: Option<Said<usize>>,
    pub chunk: Option<Said<usize>>,
    pub bos: Option<Said<Bos>>,
    pub parse_special: Option<Said<bool>>,
    pub dtype: Option<Said<FloatType>>,
    pub device: Option<Said<DeviceKind>>,
    pub threads: Option<Said<usize>>,
    pub seed: Option<Said<u64>>,
    /// Percent.
    pub max_ppl_change: Option<Said<f64>>,
    /// Nats a token.
    pub max_kld: Option<Said<f64>>,
    /// 0…1.
    pub min_top1: Option<Said<f64>>,
    pub strict: Option<Said<bool>>,
    pub offline: Option<Said<bool>>,
    pub cross_check: Option<Said<bool>>,
    pub attribute: Option<Said<bool>>,
}

/// Settings with every question answered; echoed in the result.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub model: String,
    pub text: TextSource,
    /// `None`: 2048, or the model's maximum if smaller.
    pub context: Option<usize>,
    /// For errors that need the model to be found.
    #[serde(skip)]
    pub context_place: Place,
    pub windows: WindowCount,
    pub first_window: usize,
    #[serde(serialize_with = "names")]
    pub codec: Vec<Said<Treatment>>,
    #[serde(flatten)]
    pub protocols: Protocols,
    pub bos: Bos,
    /// Whether control tokens that the text spells out are the model's own.
    pub parse_special: bool,
    pub dtype: FloatType,
    pub device: DeviceKind,
    pub threads: Option<usize>,
    pub seed: u64,
    #[serde(flatten)]
    pub limits: Limits,
    pub strict: bool,
    pub offline: bool,
    pub cross_check: bool,
    /// Whether each part of the cache is compressed alone, too.
    pub attribute: bool,
    #[serde(skip)]
    pub source: ModelSource,
}

impl RawSettings {
    /// What `self` leaves open, `other` decides.
    pub fn or(self, other: Self) -> Self {
        fn first<T>(ours: Vec<T>, theirs: Vec<T>) -> Vec<T> {
            if ours.is_empty() { theirs } else { ours }
        }
        Self {
            model: first(self.model, other.model),
            text: first(self.text, other.text),
            context: first(self.context, other.context),
            windows: self.windows.or(other.windows),
            first_window: self.first_window.or(other.first_window),
            codec: first(self.codec, other.codec),
            protocol: self.protocol.or(other.protocol),
            residual: self.residual.or(other.residual),
            chunk: self.chunk.or(other.chunk),
            bos: self.bos.or(other.bos),
            parse_special: self.parse_special.or(other.parse_special),
            dtype: self.dtype.or(other.dtype),
            device: self.device.or(other.device),
            threads: self.threads.or(other.threads),
            seed: self.seed.or(other.seed),
            max_ppl_change: self.max_ppl_change.or(other.max_ppl_change),
            max_kld: self.max_kld.or(other.max_kld),
            min_top1: self.min_top1.or(other.min_top1),
            strict: self.strict.or(other.strict),
            offline: self.offline.or(other.offline),
            cross_check: self.cross_check.or(other.cross_check),
            attribute: self.attribute.or(other.attribute),
        }
    }

    /// Whether every number can be meant, whatever model and text come with it.
    fn check_numbers(&self) -> Result<()> {
        let at_least = |least: usize, found: usize, place: &Place| match found < least {
            true => Err(place.refuse(
                Error::input(format!("expected at least {least}, found {found}"))
                    .hint("leave it out for its default"),
            )),
            false => Ok(()),
        };
        for Said { value, place } in &self.context {
            at_least(MIN_CONTEXT, *value, place)?;
        }
        if let Some(Said { value: WindowCount::AtMost(count), place }) = &self.windows {
            at_least(1, *count, place)?;
        }
        if let Some(Said { value, place }) = &self.chunk {
            at_least(1, *value, place)?;
        }
        check_threads(self.threads.as_ref())?;
        let limit = |said: &Option<Said<f64>>, most: f64, expected: &str, hint: &str| match said {
            Some(Said { value, place }) if !(0.0..=most).contains(value) => {
                let error = Error::input(format!("expected {expected}, found {value}"));
                Err(place.refuse(error.hint(hint)))
            }
            _ => Ok(()),
        };
        limit(
            &self.max_ppl_change,
            f64::MAX,
            "a percentage, 0 or more",
            "1 accepts a perplexity that is up to 1 % higher or lower",
        )?;
        limit(
            &self.max_kld,
            f64::MAX,
            "nats a token, 0 or more",
            "0.01 accepts a mean KL divergence of up to 0.01",
        )?;
        limit(
            &self.min_top1,
            1.0,
            "a share from 0 to 1",
            "0.95 asks that 95 % of targets keep their likeliest token",
        )
    }
}

impl RawSettings {
    fn protocols(&self) -> Result<Protocols> {
        let (residual, chunk) = (value(&self.residual, 0), value(&self.chunk, DEFAULT_CHUNK));
        match value(&self.protocol, ProtocolName::Both) {
            ProtocolName::Both => Ok(Protocols::Both { residual, chunk }),
            ProtocolName::Decode => Ok(Protocols::Decode { residual, chunk }),
            ProtocolName::Prefix => {
                match [&self.residual, &self.chunk].into_iter().flatten().next() {
                    Some(said) => Err(said.place.refuse(
                        Error::input("means nothing to the prefix protocol")
                            .hint("it belongs to --protocol decode, or to both"),
                    )),
                    None => Ok(Protocols::Prefix),
                }
            }
        }
    }
}

impl Settings {
    /// For a command that takes one model, one text and one context.
    pub fn resolve(raw: RawSettings) -> Result<Self> {
        let second = |flag: &str, place: Option<&Place>| match place {
            Some(place) => Err(place.refuse(
                Error::input("expected one value here, found a second one")
                    .hint(format!("`kvgauge sweep` runs them all; {flag} chooses one")),
            )),
            None => Ok(()),
        };
        second("--model", raw.model.get(1).map(|said| &said.place))?;
        second("--text", raw.text.get(1).map(|said| &said.place))?;
        second("--context", raw.context.get(1).map(|said| &said.place))?;
        let first = Self::resolve_all(raw)?.into_iter().next();
        first.ok_or_else(|| Error::system("settings: nothing to run"))
    }

    /// For each model each text, and for each of these each context; all with all codecs.
    pub fn resolve_all(raw: RawSettings) -> Result<Vec<Self>> {
        raw.check_numbers()?;
        let protocols = raw.protocols()?;
        let defaults = Limits::default();
        let limits = Limits {
            max_ppl_change: value(&raw.max_ppl_change, defaults.max_ppl_change),
            max_kld: raw.max_kld.as_ref().map(|said| said.value),
            min_top1: raw.min_top1.as_ref().map(|said| said.value),
        };
        let default = |text| vec![Said::flag("--text", text)];
        let models = match raw.model.is_empty() {
            true => vec![Said::flag("--model", DEFAULT_MODEL.to_string())],
            false => raw.model,
        };
        let contexts: Vec<Option<&Said<usize>>> = match raw.context.is_empty() {
            true => vec![None],
            false => raw.context.iter().map(Some).collect(),
        };
        let codec = match raw.codec.is_empty() {
            true => vec![Said::flag("--codec", DEFAULT_CODEC.parse()?)],
            false => raw.codec,
        };

        let mut all = Vec::new();
        for model in &models {
            let source = ModelSource::parse(&model.value).map_err(|e| model.place.refuse(e))?;
            let texts = match (raw.text.is_empty(), &source) {
                (false, _) => raw.text.clone(),
                // The embedded model is meant to be tried with no network: its text comes with it.
                (true, ModelSource::Builtin) => default(TextSource::Builtin),
                (true, _) => default(TextSource::Wikitext2),
            };
            for text in texts {
                text.value.check().map_err(|e| text.place.refuse(e))?;
                for context in &contexts {
                    all.push(Self {
                        model: model.value.clone(),
                        text: text.value.clone(),
                        context: context.map(|said| said.value),
                        context_place: context
                            .map_or(Place::Flag("--context"), |said| said.place.clone()),
                        windows: value(&raw.windows, WindowCount::AtMost(DEFAULT_WINDOWS)),
                        first_window: value(&raw.first_window, 0),
                        codec: codec.clone(),
                        protocols,
                        bos: value(&raw.bos, Bos::Auto),
                        parse_special: value(&raw.parse_special, true),
                        dtype: value(&raw.dtype, FloatType::F32),
                        device: value(&raw.device, DeviceKind::Cpu),
                        threads: raw.threads.as_ref().map(|said| said.value),
                        seed: value(&raw.seed, 0),
                        limits,
                        strict: value(&raw.strict, false),
                        offline: value(&raw.offline, false),
                        cross_check: value(&raw.cross_check, false),
                        attribute: value(&raw.attribute, false),
                        source: source.clone(),
                    });
                }
            }
        }
        Ok(all)
    }

    /// One by one, `prefix` first.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> + use<> {
        self.protocols.each().into_iter()
    }

    pub fn codecs(&self) -> Vec<Treatment> {
        self.codec.iter().map(|said| said.value).collect()
    }

    /// The window length for a model that computes no longer one than `longest`.
    pub fn context_for(&self, longest: impl Into<Longest>) -> Result<usize> {
        let Longest { tokens: longest, bound } = longest.into();
        match self.context {
            None => Ok(DEFAULT_CONTEXT.min(longest)),
            Some(context) if context <= longest => Ok(context),
            Some(context) => Err(self.context_place.refuse(
                Error::input(format!("expected at most {longest}, {bound}, found {context}"))
                    .hint(format!("use --context {longest} or less, or leave it out")),
            )),
        }
    }
}

fn value<T: Copy>(said: &Option<Said<T>>, default: T) -> T {
    said.as_ref().map_or(default, |said| said.value)
}

fn names<S: serde::Serializer>(
    codecs: &[Said<Treatment>],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(codecs.iter().map(|codec| codec.value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parse(text: &str) -> RawSettings {
        RawSettings::from_toml(Path::new("x.toml"), text).expect(text)
    }

    /// The error of one run, and of several.
    fn refusals(text: &str) -> [String; 2] {
        [
            Settings::resolve(parse(text)).expect_err(text).to_string(),
            Settings::resolve_all(parse(text)).expect_err(text).to_string(),
        ]
    }

    #[test]
    fn flags_win_over_the_file_key_by_key() {
        let flags = RawSettings {
            context: vec![Said::flag("--context", 8)],
            codec: vec![Said::flag("--codec", "f16".parse().unwrap())],
            strict: Some(Said::flag("--strict", true)),
            ..Default::default()
        };
        let file = "context = [16, 32]\nwindows = \"all\"\nstrict = false\nseed = 3\n\
            codec = \"int4\"\ngrid.group = [32, 128]";
        let settings = Settings::resolve(flags.or(parse(file))).unwrap();
        assert_eq!((settings.context, settings.strict, settings.seed), (Some(8), true, 3));
        assert_eq!(settings.windows, WindowCount::All);
        assert_eq!(settings.codecs(), ["f16".parse().unwrap()]);
        assert_eq!(settings.model, DEFAULT_MODEL);
    }

    #[test]
    fn what_nobody_said_has_the_documented_default() {
        let settings = Settings::resolve(RawSettings::default()).unwrap();
        assert_eq!(
            (settings.model.as_str(), &settings.text),
            (DEFAULT_MODEL, &TextSource::Wikitext2)
        );
        assert_eq!((settings.windows, settings.first_window), (WindowCount::AtMost(20), 0));
        assert_eq!(settings.codecs(), ["int4-g64".parse().unwrap()]);
        assert_eq!(
            (settings.protocols, settings.bos, settings.dtype),
            (Protocols::Both { residual: 0, chunk: 32 }, Bos::Auto, FloatType::F32)
        );
        assert_eq!((settings.limits, settings.strict), (Limits::default(), false));
        assert_eq!(settings.context_for(4096).unwrap(), 2048);
        assert_eq!(settings.context_for(512).unwrap(), 512);
        assert_eq!(Settings::resolve(parse("model = \"builtin\"")).unwrap().text, "builtin".into());
    }

    #[test]
    fn each_model_text_and_context_is_a_run_of_its_own() {
        let runs = |text| {
            let all = Settings::resolve_all(parse(text)).expect(text);
            let run = |s: Settings| (s.model, s.text, s.context);
            all.into_iter().map(run).collect::<Vec<_>>()
        };
        let run = |model: &str, text: &str, context| (model.into(), text.into(), context);
        assert_eq!(
            runs("model = [\"a/b\", \"builtin\"]\ncontext = [512, 256]"),
            [
                run("a/b", "wikitext-2", Some(512)),
                run("a/b", "wikitext-2", Some(256)),
                run("builtin", "builtin", Some(512)),
                run("builtin", "builtin", Some(256)),
            ]
        );
        assert_eq!(
            runs("text = [\"wikitext-2\", \"builtin\"]"),
            [run(DEFAULT_MODEL, "wikitext-2", None), run(DEFAULT_MODEL, "builtin", None)]
        );
    }

    #[test]
    fn one_run_takes_one_of_each() {
        for (text, place, flag) in [
            ("context = [256, 512]", "x.toml: line 1, column 17: context: ", "--context"),
            ("model = [\n  \"a/b\",\n  \"c/d\"]", "x.toml: line 3, column 3: model: ", "--model"),
            ("text = [\"builtin\", \"x\"]", "x.toml: line 1, column 20: text: ", "--text"),
        ] {
            let error = Settings::resolve(parse(text)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{place}expected one value here, found a second one")
            );
            let hint = error.hint_text().unwrap();
            assert!(hint.contains("kvgauge sweep") && hint.contains(flag), "{hint}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_at_its_place() {
        for (text, error) in [
            ("context = 3", "line 1, column 11: context: expected at least 4, found 3"),
            ("windows = 0", "line 1, column 11: windows: expected at least 1, found 0"),
            ("\nthreads = 0", "line 2, column 11: threads: expected 1 to 1024, found 0"),
            ("threads = 1025", "line 1, column 11: threads: expected 1 to 1024, found 1025"),
            (
                "max_ppl_change = -1",
                "line 1, column 18: max_ppl_change: expected a percentage, 0 or more, found -1",
            ),
            (
                "max_ppl_increase = nan",
                "line 1, column 20: max_ppl_increase: expected a percentage, 0 or more, found NaN",
            ),
            (
                "text = \"no/such.txt\"",
                "line 1, column 8: text: no/such.txt: no such file or folder",
            ),
            (
                "text = \"src\"",
                "line 1, column 8: text: src: expected a UTF-8 file, found a folder",
            ),
            (
                "model = \"no-such.gguf\"",
                "line 1, column 9: model: no-such.gguf: no such file or folder",
            ),
            (
                "model = [\"./no/such\"]",
                "line 1, column 10: model: ./no/such: no such file or folder",
            ),
            (
                "model = \"nonsense\"",
                "line 1, column 9: model: expected a repository's OWNER/NAME or an existing path, \
                 found `nonsense`",
            ),
        ] {
            assert_eq!(refusals(text), [(); 2].map(|()| format!("x.toml: {error}")));
        }
        let second = Settings::resolve_all(parse("context = [8, 2]")).unwrap_err().to_string();
        assert_eq!(second, "x.toml: line 1, column 15: context: expected at least 4, found 2");
        let flag = RawSettings { context: vec![Said::flag("--context", 2)], ..Default::default() };
        let error = Settings::resolve(flag).unwrap_err().to_string();
        assert_eq!(error, "--context: expected at least 4, found 2");
        // Known when the model is.
        let settings = Settings::resolve(parse("context = 4096")).unwrap();
        let error = settings.context_for(1024).unwrap_err().to_string();
        assert!(error.starts_with("x.toml: line 1, column 11: context: expected at most 1024"));
    }

    #[test]
    fn the_files_in_configs_are_settings() {
        for entry in std::fs::read_dir("configs").unwrap() {
            let file = ConfigFile::read(&entry.unwrap().path()).unwrap_or_else(|e| panic!("{e}"));
            Settings::resolve_all(file.raw).unwrap_or_else(|e| panic!("{e}"));
        }
        let quickstart = ConfigFile::read(Path::new("configs/quickstart.toml")).unwrap();
        let runs = Settings::resolve_all(quickstart.raw).unwrap();
        assert_eq!(runs.iter().map(|run| run.context).collect::<Vec<_>>(), [Some(256), Some(512)]);
        let names: Vec<String> = runs[0].codecs().iter().map(ToString::to_string).collect();
        assert_eq!(
            names.join(" "),
            "k:int4-g64/v:f16 k:f16/v:int4-g64 f16 \
             int4-g16 int4-g32 int4-g64 int4-g128 int4-g256"
        );
    }

    #[test]
    fn the_commented_example_names_every_key_with_its_default() {
        let example = ConfigFile::read(Path::new("configs/group-sizes.toml")).unwrap();
        for key in file::KEYS {
            let said = [format!("\n{key} = "), format!("\n# {key} = "), format!("\n[{key}]")];
            assert!(said.iter().any(|said| example.text.contains(said)), "no {key}");
        }
        let json = |raw| {
            let settings = Settings::resolve(raw).unwrap();
            let mut json = serde_json::to_value(settings).unwrap();
            json["codec"].take();
            json
        };
        let mut unasked = json(RawSettings::default());
        unasked["context"] = DEFAULT_CONTEXT.into();
        assert_eq!(json(example.raw), unasked);
    }
}
