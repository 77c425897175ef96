//! Rotary position embedding (Su et al. 2021) of a layer's queries and keys.
//!
//! Frequencies and angles are computed in f32, step by step as transformers does: at position
//! 2000 the rounding of `position · frequency` is visible in the keys, and the reference's
//! rounding is the one to share.

use super::config::{RopeScaling, RotaryConfig};
use crate::codec::{RotaryEmbedding, RotaryPairs};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use std::f64::consts::TAU;

#[derive(Clone)]
pub struct Rope {
    /// Radians a position, one a pair of channels, fastest first.
    frequencies: Vec<f32>,
    /// Factor of cosines and sines.
    factor: f32,
    pairs: RotaryPairs,
    /// Of the first positions, where they are used.
    table: Option<Angles>,
}

/// Cosines and sines of some positions, each [tokens, pairs].
#[derive(Clone)]
pub struct Angles {
    pub cos: Tensor,
    pub sin: Tensor,
    pub pairs: RotaryPairs,
}

impl Rope {
    /// `context`: the window's length, on which some kinds of scaling depend.
    pub fn new(config: &RotaryConfig, context: usize) -> Self {
        let (frequencies, factor) = frequencies(config, context);
        Self { frequencies, factor, pairs: config.pairs, table: None }
    }

    /// With the angles of the first `tokens` positions, so that [`Rope::at`] takes them from there; as
    /// it was where the device has no room for them.
    pub fn with_table(self, tokens: usize, dtype: DType, device: &Device) -> Self {
        let table = self.angles(0, tokens, dtype, device).ok();
        Self { table, ..self }
    }

    /// As codecs are told it. Its factor is none of theirs: they see keys that have it.
    pub fn embedding(&self, head_dim: usize) -> RotaryEmbedding {
        RotaryEmbedding { frequencies: self.frequencies.clone(), pairs: self.pairs, head_dim }
    }

    /// The angles of `tokens` positions from `start` on.
    pub fn at(&self, start: usize, tokens: usize, dtype: DType, device: &Device) -> Result<Angles> {
        match &self.table {
            Some(Angles { cos, sin, pairs }) if start + tokens <= cos.dim(0)? => Ok(Angles {
                cos: cos.narrow(0, start, tokens)?,
                sin: sin.narrow(0, start, tokens)?,
                pairs: *pairs,
            }),
            _ => self.angles(start, tokens, dtype, device),
        }
    }

    fn angles(&self, start: usize, tokens: usize, dtype: DType, device: &Device) -> Result<Angles> {
        let angles: Vec<f32> = (start..start + tokens)
            .flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let table = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle) * self.factor).collect();
            let shape = (tokens, self.frequencies.len());
            Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
        };
        Ok(Angles { cos: table(f32::cos)?, sin: table(f32::sin)?, pairs: self.pairs })
    }
}

/// Frequencies, and the factor of cosines and sines.
fn frequencies(config: &RotaryConfig, context: usize) -> (Vec<f32>, f32) {
    let RotaryConfig { theta, channels, scaling, .. } = config;
    let theta = match scaling {
        RopeScaling::Dynamic { factor, original_context } => {
            let original = *original_context as f32;
            let length = context.max(*original_context) as f32;
            let exponent = *channels as f64 / (*channels as f64 - 2.0);
            let growth = factor * length / original - (factor - 1.0);
            theta * growth.powf(exponent as f32)
        }
        _ => *theta,
    };
    // The wavelengths' bases, one a pair.
    let powers = (0..*channels).step_by(2).map(|i| theta.powf(i as f32 / *channels as f32));
    let plain = powers.clone().map(|power| 1.0 / power);
    match scaling {
        RopeScaling::None | RopeScaling::Dynamic { .. } => (plain.collect(), 1.0),
        RopeScaling::Linear { factor } => (plain.map(|f| f / factor).collect(), 1.0),
        RopeScaling::Divisors(divisors) => {
            (plain.zip(divisors).map(|(f, divisor)| f / divisor).collect(), 1.0)
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let context = *original_context as f32;
            let stretched = plain.map(|frequency| {
                let wavelength = 2.0 * std::f32::consts::PI / frequency;
                if wavelength < context / high_freq_factor {
                    frequency
                } else if wavelength > context / low_freq_factor {
                    frequency / factor
                } else {
                    let smooth = (context / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            });
            (stretched.collect(), 1.0)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_context,
            truncate,
        } => {
            let width = *channels as f64;
            // The channel whose frequency turns so often over the original context.
            let channel = |turns: f32| {
                let original = *original_context as f64;
                width * (original / (f64::from(turns) * TAU)).ln() / (2.0 * f64::from(theta).ln())
            };
            let (mut low, mut high) = (channel(*beta_fast), channel(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(width - 1.0));
            if low == high {
                high += 0.001;
            }
            let stretched = powers.enumerate().map(|(index, power)| {
                let ramp = (index as f32 - low as f32) / (high - low) as f32;
                let kept = 1.0 - ramp.clamp(0.0, 1.0);
                1.0 / (factor * power) * (1.0 - kept) + 1.0 / power * kept
            });
            (stretched.collect(), *attention_factor)
        }
        RopeScaling::LongRope { short, long, attention_factor, original_context } => {
            let divisors = if context > *original_context { long } else { short };
            let stretched = powers.zip(divisors).map(|(power, divisor)| 1.0 / (divisor * power));
            (stretched.collect(), *attention_factor)
        }
    }
}
