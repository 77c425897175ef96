//! The codecs of an engine as a setting: all that it has, or the one that its flag has a word for.

use super::location::Given;
use super::value::{ReadText, Value, mismatch};
use crate::codec::{CacheCodec, Codec, ENGINES, Engine};
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::nearest_word::nearest;
use std::fmt;
use std::str::FromStr;
use toml::de::DeValue;

/// Codecs of an engine, in its own words: `vllm`, `llama.cpp:q4_0`, or with a word for keys and one for
/// values `llama.cpp:q8_0/q4_0`.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineCodecs {
    /// With the words that were said.
    name: String,
    codecs: Vec<CacheCodec>,
}

impl EngineCodecs {
    /// Adds them to the codecs asked for, less those that are there.
    pub fn add_to(asked: &[Given<Self>], codecs: &mut Vec<Given<Treatment>>) {
        for Given { value, location } in asked {
            for codec in &value.codecs {
                let value = Treatment::from(codec);
                if codecs.iter().all(|there| there.value != value) {
                    codecs.push(Given { value, location: location.clone() });
                }
            }
        }
    }
}

impl FromStr for EngineCodecs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, words) = match text.trim().split_once(':') {
            Some((name, words)) => (name, Some(words)),
            None => (text.trim(), None),
        };
        let Some(engine) = Engine::find(name) else {
            let known = ENGINES.iter().map(|engine| engine.name).collect::<Vec<_>>().join(", ");
            let lower = known.to_ascii_lowercase();
            let hint = match nearest(&name.to_ascii_lowercase(), lower.split(", ")) {
                Some(near) => format!("did you mean {near}? Known are {known}"),
                None => format!("known are {known}"),
            };
            let name = name.escape_debug();
            return Err(Error::input(format!("expected an engine, found `{name}`")).hint(hint));
        };
        let codec = |word: &str| {
            engine.codec(word).ok_or_else(|| {
                let words: Vec<&str> = engine.words().collect();
                let error = format!(
                    "expected a word of {}'s, found `{}`",
                    engine.name,
                    word.escape_debug()
                );
                Error::input(error).hint(format!(
                    "it has {}; other codecs go by kvgauge's names, in --codec",
                    words.join(", ")
                ))
            })
        };
        let codecs = match words {
            None => engine.words().map(codec).collect::<Result<_>>()?,
            Some(words) => {
                vec![match words.split_once('/') {
                    Some((key, value)) => sides(&codec(key)?, &codec(value)?)?,
                    None => codec(words)?,
                }]
            }
        };
        let name = words.map_or(engine.name.into(), |words| format!("{}:{words}", engine.name));
        Ok(Self { name, codecs })
    }
}

/// The keys of one and the values of the other.
fn sides(key: &CacheCodec, value: &CacheCodec) -> Result<CacheCodec> {
    if let Some(by_layer) = [key, value].into_iter().find(|codec| !codec.is_uniform()) {
        let error = format!("expected a word for keys and one for values, found one of {by_layer}");
        return Err(Error::input(error).hint("it is for both, and leaves some layers alone"));
    }
    Ok(Codec { key: key.base().key, value: value.base().value }.into())
}

impl fmt::Display for EngineCodecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Value for EngineCodecs {
    const FROM_TEXT: Option<ReadText<Self>> =
        Some(|list| list.split(',').map(str::parse).collect());

    fn expected() -> String {
        "an engine".into()
    }

    fn from_toml(value: &DeValue) -> Result<Self> {
        match value {
            DeValue::String(name) => name.parse(),
            other => Err(mismatch(&Self::expected(), other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let asked: EngineCodecs = text.parse().expect(text);
        asked.codecs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_are_the_engines_own() {
        assert_eq!(names("llama.cpp:q4_0"), ["q4_0-had"]);
        assert_eq!(names("LLAMA.CPP:q8_0/q4_0"), ["k:q8_0-had/v:q4_0-had64"]);
        assert_eq!(names("ik_llama.cpp:q6_0"), ["int6-g32-ext"]);
        assert_eq!(names("exllamav3:8/4"), ["k:exllamav3-8/v:exllamav3-4"]);
        assert_eq!(names("vllm:fp8"), ["fp8-e4m3"]);
        let layers = "turboquant-4bit-nc+f16@0-1,-2--1";
        assert_eq!(names("vllm:turboquant_4bit_nc"), [layers]);
        assert_eq!(names("beellama:q3_0/q2_0"), ["k:q3_0-had/v:q2_0-had64"]);
        assert_eq!(names("sglang"), ["fp8-e4m3", "fp8-e5m2"]);
        for (text, hint) in [
            ("vlm", "did you mean vllm? Known are llama.cpp, llama.cpp-unrotated"),
            ("ollama", "llama.cpp"),
            ("", "nown are llama.cpp"),
            ("vllm:q4_0", "it has fp8_e4m3, fp8, fp8_e5m2"),
            ("llama.cpp:q4_0/", "it has q8_0"),
            ("vllm:turboquant_k8v4/fp8", "leaves some layers alone"),
        ] {
            let error = text.parse::<EngineCodecs>().unwrap_err();
            assert!(error.hint_text().unwrap().contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn the_help_names_every_engine() {
        let setting = crate::settings::SETTINGS.iter().find(|setting| setting.key == "engine");
        let names: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
        let end = format!("Engines: {}", names.join(", "));
        assert!(setting.unwrap().more.ends_with(&end), "{end}");
    }

    #[test]
    fn codecs_are_there_once() {
        let asked = ["vllm:fp8", "SGLang", "mlx:4"];
        let asked: Vec<_> = asked.map(|name| Given::flag("--engine", name.parse().unwrap())).into();
        let mut codecs = vec![Given::flag("--codec", "mlx4".parse().unwrap())];
        EngineCodecs::add_to(&asked, &mut codecs);
        let names: Vec<String> = codecs.iter().map(|given| given.value.to_string()).collect();
        assert_eq!(names, ["mlx4", "fp8-e4m3", "fp8-e5m2"]);
    }
}
