//! Which rotary embedding the keys of each tensor went through, for codecs that take them back.

use super::geometry;
use super::manifest::Coded;
use crate::codec::{RotaryEmbedding, RotaryPairs, RotaryTable};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// The rotary embedding of all keys of a file, as a model's config says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParameters {
    /// The base: pair i turns by theta^(−2i / channels) radians a position.
    pub theta: f32,
    /// How many channels of a head rotate, from the first on; `None`: all.
    pub channels: Option<usize>,
    /// How their pairs lie.
    pub pairs: RotaryPairs,
}

impl RopeParameters {
    /// Over the whole head, in halves.
    pub fn of_theta(theta: f32) -> Self {
        Self { theta, channels: None, pairs: RotaryPairs::Halves }
    }

    /// That of heads of `head_dim` channels.
    pub(super) fn embedding(&self, head_dim: usize) -> Result<RotaryEmbedding> {
        let channels = self.channels.unwrap_or(head_dim);
        if channels > head_dim {
            return Err(Error::input(format!(
                "prerope: expected at most {head_dim} channels that rotate, those of a head, found \
                 {channels}"
            ))
            .hint(
                "--rope-channels is how many rotate; --head-dim is for heads that share an axis",
            ));
        }
        if !channels.is_multiple_of(2) {
            return Err(Error::input(format!(
                "prerope: expected an even number of channels that rotate, found {channels}"
            ))
            .hint("they rotate in pairs; --rope-channels says how many of a head's do"));
        }
        let frequencies = RotaryTable::frequencies_of(self.theta, channels);
        Ok(RotaryEmbedding { frequencies, pairs: self.pairs, head_dim })
    }
}

/// The rotary embeddings of a file's keys, and which tensor has which.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rotations {
    /// Each once, in the order of the first tensor that has it.
    pub embeddings: Vec<RotaryEmbedding>,
    /// Of each tensor the index of its own; `None`: it needs none, or none is known.
    pub of_tensor: Vec<Option<usize>>,
}

impl Rotations {
    /// From those of all tensors, in their order.
    pub fn new(of_tensors: impl Iterator<Item = Option<RotaryEmbedding>>) -> Self {
        let mut known: HashMap<Identity, usize> = HashMap::new();
        let mut all = Self::default();
        for embedding in of_tensors {
            let index = embedding.map(|mut embedding| {
                if embedding.frequencies.is_empty() {
                    // Nothing lies in pairs: one spelling.
                    embedding.pairs = RotaryPairs::Halves;
                }
                *known.entry(identity(&embedding)).or_insert_with(|| {
                    all.embeddings.push(embedding);
                    all.embeddings.len() - 1
                })
            });
            all.of_tensor.push(index);
        }
        all
    }

    /// What files before version 4 can say: the frequencies of one embedding for all, over the
    /// whole head in halves.
    pub fn only_frequencies(&self) -> Option<&[f32]> {
        match self.embeddings.as_slice() {
            [only] if is_whole_in_halves(only) => Some(&only.frequencies),
            _ => None,
        }
    }

    /// The rotations themselves, for as many tokens as the tensors of each have.
    pub fn tables<'a>(&self, coded: impl Iterator<Item = Option<&'a Coded>>) -> RotaryTables {
        let mut tokens = vec![0; self.embeddings.len()];
        for (index, coded) in self.of_tensor.iter().zip(coded) {
            let (Some(index), Some(coded)) = (*index, coded) else { continue };
            let geometry = geometry(coded, None);
            // Head vectors of another length are refused later; no table is made of their shapes'
            // size.
            if geometry.head_dim == self.embeddings[index].head_dim {
                tokens[index] = geometry.tokens.max(tokens[index]);
            }
        }
        let tables = self.embeddings.iter().cloned().zip(tokens);
        RotaryTables {
            tables: tables.map(|(embedding, tokens)| RotaryTable::of(embedding, tokens)).collect(),
            of_tensor: self.of_tensor.clone(),
        }
    }
}

/// The rotations of a file's keys.
pub(super) struct RotaryTables {
    tables: Vec<RotaryTable>,
    of_tensor: Vec<Option<usize>>,
}

impl RotaryTables {
    /// That of a tensor, where it needs one and it is known.
    pub fn of(&self, tensor: usize) -> Option<&RotaryTable> {
        let index = (*self.of_tensor.get(tensor)?)?;
        self.tables.get(index)
    }
}

/// Whether all channels rotate, i and i + head_dim / 2 together.
pub(super) fn is_whole_in_halves(embedding: &RotaryEmbedding) -> bool {
    embedding.pairs == RotaryPairs::Halves && 2 * embedding.frequencies.len() == embedding.head_dim
}

/// Equal of two embeddings only if they are the same bit for bit.
pub(super) type Identity = (Vec<u32>, RotaryPairs, usize);

pub(super) fn identity(embedding: &RotaryEmbedding) -> Identity {
    let bits = embedding.frequencies.iter().map(|frequency| frequency.to_bits());
    (bits.collect(), embedding.pairs, embedding.head_dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_embedding_once_in_the_order_of_tensors() {
        let halves = RotaryEmbedding::halves(&[1.0, 0.5]);
        let partial = RotaryEmbedding { head_dim: 8, ..halves.clone() };
        let still = RotaryEmbedding::none(8);
        let spelt = RotaryEmbedding { pairs: RotaryPairs::Neighbours, ..still.clone() };
        let own = [None, Some(&partial), Some(&still), Some(&halves), Some(&spelt), Some(&partial)];
        let all = Rotations::new(own.into_iter().map(Option::<&RotaryEmbedding>::cloned));
        assert_eq!(all.embeddings, [partial.clone(), still, halves.clone()]);
        assert_eq!(all.of_tensor, [None, Some(0), Some(1), Some(2), Some(1), Some(0)]);
        assert_eq!(all.only_frequencies(), None);
        let one = |embedding: RotaryEmbedding| Rotations::new([None, Some(embedding)].into_iter());
        assert_eq!(one(halves).only_frequencies(), Some(&[1.0, 0.5][..]));
        assert_eq!(one(partial).only_frequencies(), None);
        // Not a number that equals another: 0 and −0 are two files.
        let zeros = [0.0, -0.0].map(|zero| Some(RotaryEmbedding::halves(&[zero])));
        assert_eq!(Rotations::new(zeros.into_iter()).embeddings.len(), 2);
    }

    #[test]
    fn embeddings_by_parameters() {
        let whole = RopeParameters::of_theta(100.0);
        assert_eq!(whole.embedding(4).unwrap(), RotaryEmbedding::halves(&[1.0, 0.1]));
        let part = RopeParameters { channels: Some(4), pairs: RotaryPairs::Neighbours, ..whole };
        let found = part.embedding(100).unwrap();
        assert_eq!((found.frequencies, found.head_dim), (vec![1.0, 0.1], 100));
        assert_eq!(found.pairs, RotaryPairs::Neighbours);
        let none = RopeParameters { channels: Some(0), ..whole };
        assert_eq!(none.embedding(7).unwrap(), RotaryEmbedding::none(7));
        for (channels, head_dim, words) in [
            (None, 7, "an even number of channels that rotate, found 7"),
            (Some(3), 8, "an even number of channels that rotate, found 3"),
            (Some(10), 8, "at most 8 channels that rotate, those of a head, found 10"),
        ] {
            let error = RopeParameters { channels, ..whole }.embedding(head_dim).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
