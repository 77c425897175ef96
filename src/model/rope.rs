//! Rotary position embedding (Su et al. 2021) in Hugging Face's half-split order.
//!
//! Frequencies and angles are computed in f32, step by step as transformers does: at position
//! 2000 the rounding of `position · frequency` is visible in the keys, and the reference's
//! rounding is the one to share.

use super::config::{ModelConfig, RopeScaling};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};

pub struct Rope {
    /// Radians a position, head_dim / 2 of them, fastest first.
    frequencies: Vec<f32>,
}

impl Rope {
    pub fn new(config: &ModelConfig) -> Self {
        Self { frequencies: frequencies(config) }
    }

    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// cos and sin of `tokens` positions from `start` on, each [tokens, head_dim / 2].
    pub fn at(
        &self,
        start: usize,
        tokens: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let angles: Vec<f32> = (start..start + tokens)
            .flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let table = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle)).collect();
            let shape = (tokens, self.frequencies.len());
            Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
        };
        Ok((table(f32::cos)?, table(f32::sin)?))
    }
}

fn frequencies(config: &ModelConfig) -> Vec<f32> {
    let head_dim = config.head_dim as f32;
    (0..config.head_dim)
        .step_by(2)
        .map(|i| 1.0 / config.rope_theta.powf(i as f32 / head_dim))
        .enumerate()
        .map(|(index, frequency)| match &config.rope_scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Divisors(divisors) => frequency / divisors[index],
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let context = *original_context as f32;
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
            }
        })
        .collect()
}
