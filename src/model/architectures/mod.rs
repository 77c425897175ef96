//! One file an architecture: the parts it is made of ([`ModelConfig`]) from its hyperparameters,
//! and the names of both formats. The pass over those parts is [`super::Model`]'s.
//!
//! A new one is a file here and its line in [`ALL`].

mod cohere;
pub(super) mod gemma2;
mod gemma3;
pub(super) mod glm4;
mod granite;
mod llama;
mod ministral;
mod mistral;
pub(super) mod mixtral;
pub(super) mod olmo;
mod phi3;
mod qwen2;
mod qwen3;
pub(super) mod qwen_moe;
mod smollm3;

use super::config::keys::{Keys, gguf, hf};
use super::config::{IN_PYTHON, ModelConfig};
use crate::error::{Error, Result};

/// An architecture that is computed.
pub(in crate::model) struct Architecture {
    /// transformers' class.
    pub class: &'static str,
    /// transformers' kind of config.
    pub model_type: &'static str,
    /// The kinds of config under `text_config` that are the language model, the one first that an
    /// unnamed one is; empty: the whole is.
    pub text_half: &'static [&'static str],
    /// `general.architecture` of GGUF files; `None`: llama.cpp does not have it, or under the name
    /// of another entry that reads the same keys.
    pub gguf: Option<&'static str>,
    /// Whether it is the mixture of experts where another has the same name in GGUF.
    pub mixture: bool,
    /// Whether llama.cpp's converter stores the rows of q and k as the pairs that rotate together.
    pub permuted: bool,
    /// Its parts.
    pub read: fn(&Keys) -> Result<ModelConfig>,
}

impl Architecture {
    const fn new(
        class: &'static str,
        model_type: &'static str,
        read: fn(&Keys) -> Result<ModelConfig>,
    ) -> Self {
        let (text_half, gguf): (&'static [&'static str], _) = (&[], None);
        Self { class, model_type, text_half, gguf, mixture: false, permuted: false, read }
    }
}

const ALL: [&Architecture; 20] = [
    &llama::LLAMA,
    &mistral::MISTRAL,
    &ministral::MINISTRAL,
    &ministral::MINISTRAL3,
    &mixtral::MIXTRAL,
    &qwen2::QWEN2,
    &qwen_moe::QWEN2_MOE,
    &qwen3::QWEN3,
    &qwen_moe::QWEN3_MOE,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &gemma3::GEMMA3_TEXT_HALF,
    &phi3::PHI3,
    &smollm3::SMOLLM3,
    &granite::GRANITE,
    &olmo::OLMO2,
    &olmo::OLMO3,
    &glm4::GLM4,
    &cohere::COHERE,
    &ministral::MISTRAL3_TEXT_HALF,
];

pub(in crate::model) fn by_class(name: &str) -> Option<&'static Architecture> {
    ALL.into_iter().find(|architecture| architecture.class == name)
}

/// `mixture`: whether the header counts experts.
pub(in crate::model) fn by_gguf_name(name: &str, mixture: bool) -> Option<&'static Architecture> {
    let named = || ALL.into_iter().filter(|one| one.gguf == Some(name));
    named().find(|one| one.mixture == mixture).or_else(|| named().next())
}

/// For messages.
pub(in crate::model) fn classes() -> String {
    let classes: Vec<&str> = ALL.iter().map(|architecture| architecture.class).collect();
    format!("one of {}", classes.join(", "))
}

/// For messages.
pub(in crate::model) fn gguf_names() -> String {
    let mut names: Vec<&str> = ALL.iter().filter_map(|architecture| architecture.gguf).collect();
    names.dedup();
    format!("one of {}", names.join(", "))
}

/// Why a model is not computed, as far as its class or its name in GGUF tells, and the hint.
pub(in crate::model) fn not_computed(name: &str) -> (&'static str, String) {
    let lower = name.to_lowercase();
    let is = |starts: &[&str]| starts.iter().any(|start| lower.starts_with(start));
    let in_python = |what: &str| format!("{what}: {IN_PYTHON} measures what transformers can run");
    if name == "none" {
        let hint = "transformers writes the model's class there, for example \"architectures\": \
                    [\"LlamaForCausalLM\"]";
        return ("", hint.into());
    }
    if name.ends_with("Model") && !name.contains("LMHead") {
        let hint = "it is a model without a head that predicts tokens: use the repository it was \
                    made from";
        return ("", hint.into());
    }
    if is(&["mamba", "rwkv", "falconmamba", "falcon-mamba"]) {
        return (
            ", which keeps states and no keys and values",
            "there is no KV cache to compress".into(),
        );
    }
    let known: [(&[&str], &str, &str); 7] = [
        (
            &[
                "qwen3_5",
                "qwen35",
                "qwen3next",
                "qwen3-next",
                "jamba",
                "bamba",
                "nemotronh",
                "nemotron_h",
                "falconh1",
                "falcon-h1",
                "granitemoehybrid",
                "granitehybrid",
                "lfm2",
                "zamba",
            ],
            ", which keeps recurrent states besides keys and values",
            "states and keys of such models are not computed here",
        ),
        (
            &["deepseekv", "deepseek2", "deepseek_v", "glm4_moe_lite", "kimi"],
            ", whose cache holds latent vectors (multi-head latent attention)",
            "its cache is another kind than keys and values by head",
        ),
        (
            &["gptoss", "gpt-oss", "gpt_oss"],
            ", which has attention sinks",
            "sinks are not computed here",
        ),
        (
            &["gemma3n", "gemma4"],
            ", whose layers share keys and values",
            "shared keys and values are not computed here",
        ),
        (&["llama4"], ", which attends in chunks", "chunked attention is not computed here"),
        (&["cohere2"], "", "Cohere's second architecture is not computed here"),
        (&["gemmaforcausallm"], "", "the first Gemma is not computed here"),
    ];
    for (starts, why, hint) in known {
        if is(starts) {
            return (why, in_python(hint));
        }
    }
    ("", in_python("kvgauge computes the architectures named above only"))
}

impl Keys<'_> {
    /// The sliding window of each layer. `window`: that of layers that have one; `is_sliding`:
    /// which do, where neither `layer_types` nor GGUF's pattern says it.
    fn windows(
        &self,
        layers: usize,
        window: Option<usize>,
        is_sliding: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<usize>>> {
        let sliding = match self.sliding_by_key(layers)? {
            Some(sliding) => sliding,
            None => (0..layers).map(|layer| window.is_some() && is_sliding(layer)).collect(),
        };
        if window.is_none() && sliding.contains(&true) && !self.is_gguf() {
            return Err(Error::input(format!(
                "{}: expected the window of the layers that layer_types calls sliding_attention, \
                 found none",
                self.place(hf("sliding_window"))
            ))
            .hint("compare config.json with the one that the model's author published"));
        }
        Ok(sliding.into_iter().map(|sliding| window.filter(|_| sliding)).collect())
    }

    /// Which layers slide, where a key says it.
    fn sliding_by_key(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let pattern = gguf("attention.sliding_window_pattern");
        if self.is_gguf() {
            return match self.count(pattern) {
                Ok(every) => Ok(every.value().map(|every| {
                    (0..layers).map(|layer| every == 0 || layer % every < every - 1).collect()
                })),
                Err(_) => Ok(self.flags_by_layer(pattern, layers)?.value()),
            };
        }
        let types_key = hf("layer_types");
        let Some(types) = self.texts_by_layer(types_key, layers)?.value() else { return Ok(None) };
        let sliding = types.iter().map(|kind| match kind.as_str() {
            "full_attention" => Ok(false),
            "sliding_attention" => Ok(true),
            other => Err(Error::unsupported(format!(
                "{}: expected full_attention or sliding_attention, found {other}",
                self.place(types_key)
            ))
            .hint(super::config::unknown_hint())),
        });
        Ok(Some(sliding.collect::<Result<Vec<bool>>>()?))
    }
}
