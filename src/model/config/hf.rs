//! Hugging Face's `config.json`.

use super::keys::{Format, Keys};
use super::{IN_PYTHON, ModelConfig, unknown};
use crate::error::{Error, Result};
use crate::model::architectures::{self, Architecture};
use crate::model::json;
use serde_json::Value;

const PLACE: &str = "config.json";
const TIED: &str = "tie_word_embeddings";
const TEXT_HALF: &str = "config.json: text_config";

impl ModelConfig {
    /// From the bytes of a Hugging Face `config.json`.
    pub fn from_hf(bytes: &[u8]) -> Result<Self> {
        // The architecture first: another one's config need not even have these fields.
        let any = json::parse(PLACE, bytes)?;
        let name = any["architectures"][0].as_str().unwrap_or("none");
        let architecture = supported(name, &any["model_type"])?;
        let mut config = any.clone();
        let mut place = PLACE;
        if !architecture.text_half.is_empty() {
            place = TEXT_HALF;
            config = any["text_config"].clone();
            check_kind(name, TEXT_HALF, architecture.text_half, &config["model_type"])?;
            // transformers goes by the outer one.
            if let (Some(tied), Some(text)) = (any.get(TIED), config.as_object_mut()) {
                text.insert(TIED.into(), tied.clone());
            }
        }
        let config = config.as_object().ok_or_else(|| {
            Error::input(format!("{place}: expected an object"))
                .hint("the fields of the architecture's config.json are needed, as transformers writes it")
        })?;
        let quantised = any.get("quantization_config").or(config.get("quantization_config"));
        if quantised.is_some_and(|value| !value.is_null()) {
            return Err(Error::input(format!(
                "{place}: quantization_config: expected float weights, found quantised ones"
            ))
            .hint("use the unquantised repository, or a GGUF file"));
        }
        let keys = Keys::new(Format::Hf { place, config });
        let mut config = (architecture.read)(&keys)?.checked(place)?;
        config.architecture = name.into();
        unknown::refuse(&keys, &config)?;
        Ok(config)
    }
}

fn supported(name: &str, model_type: &Value) -> Result<&'static Architecture> {
    let Some(architecture) = architectures::by_class(name) else {
        let (why, hint) = architectures::not_computed(name);
        return Err(Error::unsupported(format!(
            "config.json: architectures: expected {}, found {name}{why}",
            architectures::classes()
        ))
        .hint(hint));
    };
    check_kind(name, PLACE, &[architecture.model_type], model_type)?;
    Ok(architecture)
}

/// transformers goes by it, whatever the architecture says.
fn check_kind(name: &str, place: &str, expected: &[&str], found: &Value) -> Result<()> {
    match found.as_str() {
        Some(found) if !expected.contains(&found) => Err(Error::unsupported(format!(
            "{place}: model_type: expected {} for {name}, found {found}",
            expected.join(" or ")
        ))
        .hint(format!(
            "the two contradict each other; if it is a {found} model, {IN_PYTHON} may run it"
        ))),
        _ => Ok(()),
    }
}
