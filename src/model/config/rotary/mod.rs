//! Rotary embeddings of a config (`rope_parameters`, `rope_scaling`) or a GGUF header
//! (`rope.*`): every key there must be understood, or the keys that go into the cache are other
//! keys than the model's.

mod gguf;
mod hf;

use super::keys::{Format, Key, Keys, gguf, hf};
use super::{AS_PUBLISHED, RopeScaling, RotaryConfig};
use crate::codec::RotaryPairs;
use crate::error::{Error, Result};

/// What an architecture says of its rotary embedding.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct RotaryRules {
    /// Base where none is given.
    pub theta: f64,
    /// Share of a head that rotates where none is given.
    pub part: f64,
    /// Whether the config may say another share.
    pub any_part: bool,
    pub pairs: RotaryPairs,
    /// Kinds of scaling that transformers computes under another name (Phi-3's "su" and "yarn").
    pub long_rope_names: &'static [&'static str],
    /// `original_max_position_embeddings` where none is given.
    pub original_context: Option<usize>,
    /// Keys that this architecture has among RoPE's and reads elsewhere.
    pub more_keys: &'static [&'static str],
}

impl RotaryRules {
    /// Llama's: base 10,000, the whole head in halves.
    pub const PLAIN: Self = Self {
        theta: 10_000.0,
        part: 1.0,
        any_part: false,
        pairs: RotaryPairs::Halves,
        long_rope_names: &[],
        original_context: None,
        more_keys: &[],
    };
}

/// The layers a rotary embedding is for, where a config may have several.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct OfLayers {
    /// Name of the layers' kind under `rope_parameters`.
    pub kind: &'static str,
    /// Key of the base where `rope_parameters` is not there.
    pub theta: Key,
    /// Whether `rope_scaling` is for them.
    pub scaled: bool,
    /// GGUF's key of the base.
    pub gguf_theta: Key,
}

impl OfLayers {
    /// Those of full attention, which have the base and scaling of old configs.
    pub const FULL: Self = Self {
        kind: "full_attention",
        theta: hf("rope_theta"),
        scaled: true,
        gguf_theta: gguf("rope.freq_base"),
    };
}

impl Keys<'_> {
    /// The one rotary embedding of all layers, whose heads have `head_dim` channels.
    pub fn rotary(
        &self,
        head_dim: usize,
        max_position_embeddings: usize,
        rules: RotaryRules,
    ) -> Result<RotaryConfig> {
        self.rotary_of(head_dim, max_position_embeddings, rules, None)
    }

    /// That of some layers.
    pub fn rotary_of(
        &self,
        head_dim: usize,
        max_position_embeddings: usize,
        rules: RotaryRules,
        layers: Option<OfLayers>,
    ) -> Result<RotaryConfig> {
        match self.format {
            Format::Gguf { .. } => {
                self.gguf_rotary(head_dim, max_position_embeddings, rules, layers)
            }
            Format::Hf { .. } => self.hf_rotary(head_dim, max_position_embeddings, rules, layers),
        }
    }

    /// Whatever the scaling lists has one value a pair.
    fn check_rotary(&self, rotary: RotaryConfig, head_dim: usize) -> Result<RotaryConfig> {
        let wrong = |what: String| {
            Err(Error::input(format!("{}: {what}", self.whole_place())).hint(AS_PUBLISHED))
        };
        if rotary.channels == 0 || rotary.channels > head_dim || !rotary.channels.is_multiple_of(2)
        {
            return wrong(format!(
                "head_dim: expected an even number of channels that rotate, up to {head_dim}, found {}",
                rotary.channels
            ));
        }
        let pairs = rotary.channels / 2;
        if let RopeScaling::LongRope { short, long, .. } = &rotary.scaling {
            for (name, list) in [("short_factor", short), ("long_factor", long)] {
                // A GGUF file has them as tensors.
                if !self.is_gguf() && list.len() != pairs {
                    return wrong(format!(
                        "{name}: expected {pairs} divisors, one a pair of channels, found {}",
                        list.len()
                    ));
                }
            }
        }
        Ok(rotary)
    }
}

/// What YaRN multiplies cosines and sines by, for a stretch of the context by `factor`.
fn yarn_attention(factor: f64, scale: f64) -> f64 {
    if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 }
}
