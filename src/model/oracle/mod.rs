//! The proof for `--cross-check`: candle-transformers' own model of an architecture on the same
//! weights, in f32 on the CPU.
//!
//! What a module of candle-transformers computes is written down ([`Abilities`]) and compared with
//! the parts of the model before a weight is read, so that a difference is never one that was to
//! be expected: what a module lacks, or computes otherwise than transformers, is refused by name.
//! The abilities are those of candle-transformers 0.11.

mod abilities;
mod experts;
mod gemma;
mod llama;
mod others;
mod weights;

pub use weights::{WeightsRef, var_builder};

use super::ModelConfig;
use crate::error::{Error, Result};
use abilities::{Abilities, Parts};
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

/// Ids [1, tokens], at positions from 0 on, to the logits after the last.
type Pass = Box<dyn Fn(&Tensor) -> candle_core::Result<Tensor>>;

/// A model of candle-transformers.
struct Module {
    /// In `candle_transformers::models`.
    name: &'static str,
    abilities: Abilities,
    /// Of parts within its abilities.
    build: fn(&Parts, VarBuilder<'static>) -> candle_core::Result<Pass>,
    /// Why it cannot be used at all, as it is built.
    unusable: Option<&'static str>,
}

/// A model of candle-transformers in f32 on the CPU.
pub struct Oracle {
    module: &'static str,
    pass: Pass,
}

impl Oracle {
    /// `context`: tokens of the longest pass.
    ///
    /// # Errors
    /// Those of [`supported`], and what reading the weights gives.
    pub fn load(config: &ModelConfig, weights: WeightsRef, context: usize) -> Result<Self> {
        let parts = Parts { config, context };
        let module = module(&parts)?;
        let pass = (module.build)(&parts, var_builder(config, weights))?;
        Ok(Self { module: module.name, pass })
    }

    /// Its module in candle-transformers, as `llama`.
    pub fn module(&self) -> &'static str {
        self.module
    }

    /// Logits `[vocab]` after the last of `tokens`, which start at position 0.
    pub fn last_logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let ids = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        Ok((self.pass)(&ids)?.flatten_all()?.to_vec1()?)
    }
}

/// The module that computes such a model at windows of `context` tokens.
///
/// # Errors
/// There is none ([`Error::Unsupported`]): candle-transformers does not have the architecture, or
/// not all of its parts.
pub fn supported(config: &ModelConfig, context: usize) -> Result<&'static str> {
    Ok(module(&Parts { config, context })?.name)
}

/// The first of the architecture's modules that has all parts of the model.
fn module(parts: &Parts) -> Result<&'static Module> {
    const WITHOUT: &str = "run without --cross-check";
    let class = &parts.config.architecture;
    let mut why = None;
    for module in modules(class) {
        let lack = match module.unusable {
            Some(reason) => Err(reason.to_string()),
            None => module.abilities.check(parts),
        };
        match lack {
            Ok(()) => return Ok(module),
            // The architecture's own is the one to name.
            Err(lack) => why = why.or(Some((module.name, lack))),
        }
    }
    let error = match why {
        Some((name, lack)) => {
            Error::unsupported(format!("--cross-check: candle-transformers' {name} {lack}"))
        }
        None => Error::unsupported(format!(
            "--cross-check: there is no second implementation of {class} here: \
             candle-transformers does not have it"
        )),
    };
    Err(error.hint(WITHOUT))
}

/// An architecture's own module, then others that compute the same parts.
fn modules(class: &str) -> &'static [&'static Module] {
    match class {
        "LlamaForCausalLM" => &[&llama::LLAMA, &llama::MISTRAL, &llama::QWEN2, &llama::SMOLLM3],
        // Ministral is Mistral whose layers may differ.
        "MistralForCausalLM"
        | "MinistralForCausalLM"
        | "Ministral3ForCausalLM"
        | "Mistral3ForConditionalGeneration" => &[&llama::MISTRAL],
        "MixtralForCausalLM" => &[&experts::MIXTRAL],
        "Qwen2ForCausalLM" => &[&llama::QWEN2, &llama::MISTRAL],
        "Qwen2MoeForCausalLM" => &[&experts::QWEN2_MOE],
        "Qwen3ForCausalLM" => &[&llama::QWEN3],
        "Qwen3MoeForCausalLM" => &[&experts::QWEN3_MOE],
        "Gemma2ForCausalLM" => &[&gemma::GEMMA2],
        "Gemma3ForCausalLM" | "Gemma3ForConditionalGeneration" => &[&gemma::GEMMA3],
        "Phi3ForCausalLM" => &[&others::PHI3],
        "SmolLM3ForCausalLM" => &[&llama::SMOLLM3],
        "GraniteForCausalLM" => &[&others::GRANITE_HYBRID, &others::GRANITE],
        // OLMo 3 is OLMo 2 with windows.
        "Olmo2ForCausalLM" | "Olmo3ForCausalLM" => &[&others::OLMO2],
        "Glm4ForCausalLM" => &[&others::GLM4],
        _ => &[],
    }
}
