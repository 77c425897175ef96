//! From what was given to the settings of runs.

use super::engine::EngineCodecs;
use super::entry::distinct;
use super::kv_scale::KvScale;
use super::list::{DEFAULT_CONTEXT, DEFAULT_MODEL, RawSettings, Settings, Visitor};
use super::location::Given;
use super::setting::Setting;
use super::types::{DeviceKind, ProtocolName};
use super::value::Value;
use crate::corpus::TextSource;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::eval::protocol::Protocols;
use crate::eval::verdict::Limits;
use crate::model::source::ModelSource;
use candle_core::DType;

impl Settings {
    /// The instruction set that this processor computes with: of a GPU's run, what the rest of it takes.
    pub fn instruction_set(&self) -> &'static str {
        crate::instruction_set(match self.device {
            DeviceKind::Cpu => self.dtype.dtype(),
            _ => DType::F32,
        })
    }

    /// For a command that takes one model, one text and one context.
    pub fn resolve(mut raw: RawSettings) -> Result<Self> {
        raw.visit(&mut OneRun)?;
        let first = Self::each(raw)?.into_iter().next();
        first.ok_or_else(|| Error::system("settings: nothing to run"))
    }

    /// For each model each text, and for each of these each context; all with all codecs, and in 16 bits
    /// with the control that says what rounding makes.
    pub fn resolve_all(raw: RawSettings) -> Result<Vec<Self>> {
        let mut all = Self::each(raw)?;
        for run in &mut all {
            let floor = run.dtype.floor().filter(|floor| !run.codecs().contains(floor));
            run.codec.extend(floor.map(|floor| Given::flag("--codec", floor)));
        }
        Ok(all)
    }

    fn each(mut raw: RawSettings) -> Result<Vec<Self>> {
        raw.check()?;
        EngineCodecs::add_to(&raw.engine, &mut raw.codec);
        KvScale::give_to(&raw.kv_scale, &mut raw.codec)?;
        raw.codec = distinct(raw.codec)?;
        let models = match raw.model.is_empty() {
            true => vec![Given::flag("--model", DEFAULT_MODEL.to_string())],
            false => std::mem::take(&mut raw.model),
        };
        let contexts: Vec<_> = match raw.context.is_empty() {
            true => vec![None],
            false => std::mem::take(&mut raw.context).into_iter().map(Some).collect(),
        };
        let mut all = Vec::new();
        for model in &models {
            let source = ModelSource::parse(&model.value).map_err(|e| model.location.locate(e))?;
            let texts = match (raw.text.is_empty(), &source) {
                (false, _) => raw.text.clone(),
                // The embedded model is meant to be tried with no network: its text comes with it.
                (true, ModelSource::Builtin) => vec![Given::flag("--text", TextSource::Builtin)],
                (true, _) => vec![Given::flag("--text", TextSource::Wikitext2)],
            };
            for text in texts {
                text.value.check().map_err(|e| text.location.locate(e))?;
                for context in &contexts {
                    let run = RawSettings {
                        model: vec![model.clone()],
                        text: vec![text.clone()],
                        context: context.iter().cloned().collect(),
                        ..raw.clone()
                    };
                    all.push(Self::of(&run, source.clone())?);
                }
            }
        }
        Ok(all)
    }

    /// How the cache is compressed.
    pub fn protocols(&self) -> Protocols {
        let (residual, chunk) = (self.residual, self.chunk);
        match self.protocol {
            ProtocolName::Both => Protocols::Both { residual, chunk },
            ProtocolName::Decode => Protocols::Decode { residual, chunk },
            ProtocolName::Prefix => Protocols::Prefix { residual },
        }
    }

    /// The limits that a codec must keep to.
    pub fn limits(&self) -> Limits {
        Limits {
            max_ppl_change: self.max_ppl_change.0,
            max_kld: self.max_kld,
            min_top1: self.min_top1,
            max_bytes_per_token: self.max_bytes_per_token,
        }
    }

    /// The codecs without the locations where they were given.
    pub fn codecs(&self) -> Vec<Treatment> {
        self.codec.iter().map(|given| given.value.clone()).collect()
    }

    /// The window length, tokens, for a model that computes no longer one than `longest`.
    pub fn context_for(&self, longest: usize) -> Result<usize> {
        match self.context {
            None => Ok(DEFAULT_CONTEXT.min(longest)),
            Some(context) if context <= longest => Ok(context),
            Some(context) => Err(self.context_location.locate(
                Error::input(format!(
                    "expected at most {longest}, the model's longest context, found {context}"
                ))
                .hint(format!("use --context {longest} or less, or leave it out")),
            )),
        }
    }
}

impl RawSettings {
    /// Whether every value makes sense, whatever model and text come with it.
    pub fn check(&mut self) -> Result<()> {
        self.visit(&mut InBounds)?;
        match self.protocol.first().map(|given| given.value) {
            Some(ProtocolName::Prefix) => self.visit(&mut NoneOfDecode),
            _ => Ok(()),
        }
    }
}

/// Refuses a number out of its bounds.
struct InBounds;

impl Visitor for InBounds {
    fn setting<T: Value>(&mut self, setting: &Setting, given: &mut Vec<Given<T>>) -> Result<()> {
        setting.check(given)
    }
}

/// Refuses a second value where each makes a run of its own.
struct OneRun;

impl Visitor for OneRun {
    fn setting<T: Value>(&mut self, setting: &Setting, given: &mut Vec<Given<T>>) -> Result<()> {
        let Some(location) = setting.second(given) else { return Ok(()) };
        let error = Error::input("expected one value here, found a second one");
        let hint = format!("`kvgauge sweep` runs them all; {} chooses one", setting.flag);
        Err(location.locate(error.hint(hint)))
    }
}

/// Refuses settings of the decode protocol alone.
struct NoneOfDecode;

impl Visitor for NoneOfDecode {
    fn setting<T: Value>(&mut self, setting: &Setting, given: &mut Vec<Given<T>>) -> Result<()> {
        match given.first().filter(|_| setting.decode_only) {
            Some(given) => Err(given.location.locate(
                Error::input("means nothing to the prefix protocol")
                    .hint("it belongs to --protocol decode, or to both"),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Bos, ConfigFile, FloatType, WindowCount};
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
            context: vec![Given::flag("--context", 8)],
            codec: vec![Given::flag("--codec", "f16".parse().unwrap())],
            strict: vec![Given::flag("--strict", true)],
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
            (settings.protocols(), settings.bos, settings.dtype),
            (Protocols::Both { residual: 0, chunk: 32 }, Bos::Auto, FloatType::F32)
        );
        assert_eq!((settings.limits(), settings.strict), (Limits::default(), false));
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
        let flag = RawSettings { context: vec![Given::flag("--context", 2)], ..Default::default() };
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
}
