//! A GGUF header's keys of the architecture.

use super::keys::{Format, GgufMetadata, Keys};
use super::{IN_PYTHON, ModelConfig, unknown};
use crate::error::{Error, Result};
use crate::gguf_value::{integer, string};
use crate::model::architectures::{self, Architecture};

impl ModelConfig {
    /// From a GGUF header. `has_tensor` tells what only the tensor list knows: tied embeddings,
    /// biases, norms and divisors of frequencies (the values are read with the weights).
    pub fn from_gguf(metadata: &GgufMetadata, has_tensor: impl Fn(&str) -> bool) -> Result<Self> {
        const KEY: &str = "general.architecture";
        let name = metadata.get(KEY).and_then(string).ok_or_else(|| {
            Error::input(format!("GGUF header: {KEY}: expected a name")).hint(
                "is it a language model? vocabularies, adapters and vision parts are GGUF files \
                 too",
            )
        })?;
        let architecture = of_gguf(metadata)?;
        let format = Format::Gguf { architecture: name, metadata, has_tensor: &has_tensor };
        let keys = Keys::new(format);
        let config = (architecture.read)(&keys)?.checked("GGUF header")?;
        unknown::refuse(&keys, &config)?;
        Ok(config)
    }
}

/// The architecture that a header names.
pub(in crate::model) fn of_gguf(metadata: &GgufMetadata) -> Result<&'static Architecture> {
    let name = metadata.get("general.architecture").and_then(string).unwrap_or_default();
    // Mixtral's and Llama's share a name.
    let experts = metadata.get(&format!("{name}.expert_count")).and_then(integer);
    let mixture = experts.is_some_and(|count| count > 0);
    architectures::by_gguf_name(name, mixture).ok_or_else(|| {
        let (why, _) = architectures::not_computed(name);
        Error::unsupported(format!(
            "general.architecture: expected {}, found {name}{why}",
            architectures::gguf_names()
        ))
        .hint(format!(
            "{IN_PYTHON} measures the model's Hugging Face folder, where transformers can run it"
        ))
    })
}
