//! Several sequences in one pass of a device whose products may add up in another order with another
//! number of rows: a GPU's library chooses a kernel by the product's shape.
//!
//! What a sequence gives must not depend on what runs beside it. So every product there has as many rows
//! as if every place were taken: those that no sequence takes are filled up, and a sequence alone is
//! computed with the same shapes as one in company. A kernel that computes places apart, in orders of
//! their own, would still tell them from each other: a pass with one sequence in every place shows
//! whether it does, and then each sequence goes alone.

use crate::error::Result;
use candle_core::{DType, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most places of a pass: there are seldom more sequences to fill them, and what fills up is computed in
/// vain.
pub const MOST: usize = 16;

/// How many sequences a pass has places for, by the tokens of each. Clones share what they have found.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<usize, usize>>>);

impl Places {
    /// Places for sequences of so many tokens: `most`, if what `run` gives for one sequence in each of
    /// them is the same bits in all, else one. `run` gives hidden states below each other,
    /// [most·tokens, hidden], and is asked once.
    ///
    /// # Errors
    /// Those of `run`: one place in its stead would make figures depend on what else takes memory.
    pub fn of(
        &self,
        tokens: usize,
        most: usize,
        run: impl FnOnce() -> Result<Tensor>,
    ) -> Result<usize> {
        if most < 2 || tokens == 0 {
            return Ok(1);
        }
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = found.get(&tokens) {
            return Ok(*places);
        }
        let places = if all_are_the_same(&run()?, most)? { most } else { 1 };
        found.insert(tokens, places);
        Ok(places)
    }
}

/// Whether so many equal parts of [rows, hidden] have the same bits.
fn all_are_the_same(hidden: &Tensor, parts: usize) -> Result<bool> {
    let values = hidden.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let bits: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
    let mut parts = bits.chunks(bits.len() / parts.max(1));
    Ok(parts.next().is_none_or(|first| parts.all(|part| part == first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::model::{KvCache, Model, ModelConfig, RandomWeights};
    use candle_core::Device;

    /// On the CPU, where products of so few rows and columns add up in an order that depends on their
    /// number: the shape that keeps a model's caches apart there.
    fn small() -> Model {
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 500,
            "hidden_size": 128,
            "intermediate_size": 2048,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": false,
        });
        let config = ModelConfig::from_hf(config.to_string().as_bytes()).unwrap();
        Model::load(&config, &RandomWeights, DType::F32, &Device::Cpu).unwrap()
    }

    fn bits(hidden: &Tensor) -> Vec<u32> {
        let values = hidden.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn a_sequence_in_company_gives_the_bits_of_one_alone() {
        let plain = small();
        let model = Model { places: Some(Places::default()), ..plain.clone() };
        let ids: Vec<u32> = (0..200).map(|i| i * 37 % 500).collect();
        for tokens in [3, 20, 32, 64] {
            assert_eq!(plain.caches_at_once(tokens).unwrap(), 1);
            assert_eq!(model.caches_at_once(tokens).unwrap(), MOST);
            let sequences: Vec<&[u32]> = (0..5).map(|first| &ids[7 * first..][..tokens]).collect();
            let alone: Vec<_> = sequences
                .iter()
                .map(|ids| bits(&model.forward(ids, &mut model.empty_cache()).unwrap()))
                .collect();
            for count in 1..=5 {
                let mut caches: Vec<KvCache> = (0..count).map(|_| model.empty_cache()).collect();
                let found = model.forward_each(&sequences[..count], &mut caches).unwrap();
                for (found, alone) in found.iter().zip(&alone) {
                    assert!(bits(found) == *alone, "{count} of {tokens} tokens");
                }
            }
            // What fills up changes nothing but the order of sums.
            let without = plain.forward(sequences[0], &mut plain.empty_cache()).unwrap();
            let with = model.forward(sequences[0], &mut model.empty_cache()).unwrap();
            assert_eq!(with.dims(), without.dims());
            let off = (with - without).unwrap().abs().unwrap().flatten_all().unwrap();
            assert!(off.max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-4);
        }
    }

    #[test]
    fn places_that_differ_are_not_used() {
        let run = |off: f32| {
            let mut values: Vec<f32> = (0..12).map(|i| (i % 4) as f32).collect();
            values[9] += off;
            move || Ok(Tensor::from_vec(values, (6, 2), &Device::Cpu)?)
        };
        let places = Places::default();
        assert_eq!(places.of(2, 3, run(0.0)).unwrap(), 3);
        assert_eq!(places.of(3, 3, run(f32::EPSILON)).unwrap(), 1);
        assert!(places.of(5, 3, || Err(Error::input("no memory"))).is_err());
        // Found once.
        assert_eq!(places.clone().of(2, 3, run(1.0)).unwrap(), 3);
        assert_eq!(places.of(400, 1, run(0.0)).unwrap(), 1);
        assert_eq!(places.of(0, 3, run(0.0)).unwrap(), 1);
    }
}
