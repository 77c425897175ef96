//! Weights of any shape out of nothing: no trained model and no file is needed to measure speed
//! or memory, or to compare two implementations.

use super::{Unread, Weights};
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::collections::BTreeSet;

/// Uniform values of the usual size for a layer's width, norms' weights around 1; the same for the
/// same name.
pub struct RandomWeights;

impl Weights for RandomWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let width = *shape.last().unwrap_or(&1) as f32;
        let (centre, spread) = match name.contains("norm") {
            true => (1.0, 0.1),
            false => (0.0, (3.0 / width).sqrt()),
        };
        let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
            (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                // xorshift64* (Vigna 2016)
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
                centre + spread * (bits as f32 / (1 << 23) as f32 - 1.0)
            })
            .collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// Around 1, as a GGUF file would have it: w is around 0.
    fn tensor_plus_one(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.tensor(name, shape)
    }

    fn check(&self, _: &str, _: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Nothing beyond what is asked for.
    fn contains(&self, _: &str) -> bool {
        false
    }

    fn unread(&self, _: &BTreeSet<String>) -> Vec<Unread> {
        Vec::new()
    }
}
