//! A GGUF header's `rope.*`.

use super::{OfLayers, RotaryRules, yarn_attention};
use crate::error::{Error, Result};
use crate::model::config::keys::{AS_CONVERTED, Key, Keys, gguf};
use crate::model::config::unknown::other_numbers;
use crate::model::config::{IN_PYTHON, RopeScaling, RotaryConfig};

impl Keys<'_> {
    /// As llama.cpp reads it: linear unless the type says `none`, the factor under either name, no
    /// factor or 0 for no scaling. Divisors by frequency come as tensors, which
    /// [`crate::model::Gguf`] reads.
    pub(super) fn gguf_rotary(
        &self,
        head_dim: usize,
        max_position_embeddings: usize,
        rules: RotaryRules,
        layers: Option<OfLayers>,
    ) -> Result<RotaryConfig> {
        let full = layers.is_none_or(|layers| layers.scaled);
        let theta_key = layers.map_or(OfLayers::FULL.gguf_theta, |layers| layers.gguf_theta);
        let channels = self.count(gguf("rope.dimension_count"))?.or(head_dim);
        if !rules.any_part && channels != head_dim {
            return Err(Error::unsupported(format!(
                "{}: expected {head_dim} (RoPE over the whole head), found {channels}",
                self.place(gguf("rope.dimension_count"))
            ))
            .hint(other_numbers()));
        }
        let scaling = self.gguf_scaling(max_position_embeddings)?;
        let theta = self.number(theta_key)?.or(rules.theta) as f32;
        let scaling = if full { scaling } else { RopeScaling::None };
        self.check_rotary(RotaryConfig { theta, channels, pairs: rules.pairs, scaling }, head_dim)
    }

    fn gguf_scaling(&self, max_position_embeddings: usize) -> Result<RopeScaling> {
        const TYPE: Key = gguf("rope.scaling.type");
        let kind = self.text(TYPE)?.or("linear".into());
        let factors = [gguf("rope.scaling.factor"), gguf("rope.scale_linear")];
        let mut factor = None;
        for key in factors {
            let value = self.number(key)?.value();
            if let Some(wrong) = value.filter(|f| !(f.is_finite() && *f >= 0.0)) {
                return Err(Error::input(format!(
                    "{}: expected a positive number, found {wrong}",
                    self.place(key)
                ))
                .hint(AS_CONVERTED));
            }
            factor = factor.or(value);
        }
        let factor = factor.filter(|factor| *factor != 0.0).unwrap_or(1.0);
        let long = self.has_tensor("rope_factors_long.weight");
        let original = || -> Result<usize> {
            let given = self.count(gguf("rope.scaling.original_context_length"))?;
            Ok(given.or(max_position_embeddings).max(2))
        };
        // Not asked for where it would not be used: then it is refused.
        let attention_factor =
            || -> Result<f64> { Ok(self.number(gguf("rope.scaling.attn_factor"))?.or(1.0)) };
        match kind.as_str() {
            _ if long => Ok(RopeScaling::LongRope {
                short: Vec::new(),
                long: Vec::new(),
                attention_factor: attention_factor()? as f32,
                original_context: original()?,
            }),
            "none" => Ok(RopeScaling::None),
            "linear" if factor == 1.0 => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: factor as f32 }),
            "yarn" => self.gguf_yarn(factor, original()?, attention_factor()?),
            other => Err(Error::unsupported(format!(
                "{}: expected none, linear or yarn, found {other}",
                self.place(TYPE)
            ))
            .hint(format!(
                "kvgauge does not compute this scaling without tensors of divisors (Llama 3's \
                 comes as rope_freqs.weight, Phi-3's as rope_factors_long.weight); {IN_PYTHON} \
                 measures the model's Hugging Face folder"
            ))),
        }
    }

    /// The converter writes transformers' `attention_factor`, β and `mscale_all_dim`. llama.cpp
    /// looks at some of them for some architectures only; the model is what transformers computes.
    fn gguf_yarn(
        &self,
        factor: f64,
        original_context: usize,
        more_attention: f64,
    ) -> Result<RopeScaling> {
        let given = |key: Key| -> Result<Option<f64>> {
            Ok(self.number(key)?.value().filter(|value| *value != 0.0))
        };
        let extrapolation = gguf("rope.scaling.yarn_ext_factor");
        if let Some(found) = given(extrapolation)?.filter(|found| *found != 1.0) {
            return Err(Error::unsupported(format!(
                "{}: expected 1, found {found}",
                self.place(extrapolation)
            ))
            .hint(other_numbers()));
        }
        let stretch = |scale: f64| yarn_attention(factor, scale);
        let all = given(gguf("rope.scaling.yarn_log_multiplier"))?.map_or(1.0, stretch);
        let computed = stretch(1.0) / all;
        let is_computed = |found: f64| (found / computed - 1.0).abs() < 1e-3;
        let named = gguf("rope.scaling.yarn_attn_factor");
        let attention_factor = match given(named)? {
            Some(found) if is_computed(found) => found * more_attention,
            // The converter writes transformers' attention_factor there, which is the whole, or
            // attn_factor, which others multiply with it and transformers leaves out.
            Some(found) => {
                return Err(Error::unsupported(format!(
                    "{}: expected {computed}, which follows from the factor, found {found}",
                    self.place(named)
                ))
                .hint(format!(
                    "the file does not say whether it is the whole factor of the attention or \
                     multiplies it: {IN_PYTHON} measures the model's Hugging Face folder"
                )));
            }
            // The first converters of OLMo 3 wrote the whole there.
            None if is_computed(more_attention) => more_attention,
            None => computed * more_attention,
        };
        Ok(RopeScaling::Yarn {
            factor: factor as f32,
            beta_fast: given(gguf("rope.scaling.yarn_beta_fast"))?.unwrap_or(32.0) as f32,
            beta_slow: given(gguf("rope.scaling.yarn_beta_slow"))?.unwrap_or(1.0) as f32,
            attention_factor: attention_factor as f32,
            original_context,
            truncate: true,
        })
    }
}
