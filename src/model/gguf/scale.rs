//! A tensor's second scale, beside the scales of its blocks.
//!
//! NVFP4 weights that were quantised with NVIDIA's tools have one more factor a tensor, or one an
//! expert. llama.cpp keeps it as `NAME.scale` beside `NAME.weight` and multiplies the product with
//! it; here the weights are multiplied. `NAME.input_scale` is for activations of four bits, which
//! are not computed here nor in llama.cpp with the CPU.

use super::Gguf;
use crate::error::{Error, Result};
use rayon::prelude::*;

/// The weights that llama.cpp looks for one of.
const SCALED: [&str; 15] = [
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_qkv",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
    "ffn_gate_exps",
    "ffn_up_exps",
    "ffn_down_exps",
    "ffn_gate_shexp",
    "ffn_up_shexp",
    "ffn_down_shexp",
    "output",
];

/// `blk.0.attn_q` of `blk.0.attn_q.weight`.
fn stem<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let stem = name.strip_suffix(ending)?;
    let part = stem.rsplit('.').next()?;
    SCALED.contains(&part).then_some(stem)
}

/// The weight that a tensor belongs to as a scale of either kind.
pub fn scaled_weight(name: &str) -> Option<String> {
    let stem = stem(name, ".scale").or_else(|| stem(name, ".input_scale"))?;
    Some(format!("{stem}.weight"))
}

impl Gguf {
    /// Multiplies a tensor's values with its second scale, if it has one. `expert`: whose values
    /// they are, by index and number.
    pub(super) fn apply_scale(
        &self,
        name: &str,
        expert: Option<(usize, usize)>,
        values: &mut [f32],
    ) -> Result<()> {
        let Some(scale) = stem(name, ".weight").map(|stem| format!("{stem}.scale")) else {
            return Ok(());
        };
        let Some((part, info)) = self.tensor_info(&scale) else { return Ok(()) };
        let (place, count) = (self.place(&scale), info.shape.iter().product::<usize>());
        let (index, experts) = expert.unwrap_or((0, 1));
        if count != 1 && count != experts {
            let error = format!("{place}: expected one scale or one an expert, found {count}");
            return Err(Error::input(error).hint(
                "the file was quantised by another program than llama.cpp's: use the model in one of \
                 llama.cpp's types of weights, or its Hugging Face folder",
            ));
        }
        let scales = part.read(info, 0, count).map_err(|e| e.within(&place))?;
        if let Some(scale) = scales.iter().find(|scale| !scale.is_finite()) {
            return Err(Error::not_finite(format!(
                "{place}: expected a finite number, found {scale}"
            )));
        }
        let scale = if count == 1 { scales[0] } else { scales[index] };
        values.par_chunks_mut(1 << 16).for_each(|values| {
            values.iter_mut().for_each(|value| *value *= scale);
        });
        Ok(())
    }
}
