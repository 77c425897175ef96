//! The rotary embeddings of keys that are stored as they were before RoPE: how a manifest says them.

use super::super::rotary::{Rotations, identity, is_whole_in_halves};
use super::{Coded, Manifest};
use crate::codec::RotaryEmbedding;
use crate::error::{Error, Result};
use std::collections::HashSet;

/// Radians a position, at most: no angle of them is infinite.
const MOST_FREQUENT: f32 = 65536.0;

fn needs_rope(coded: Option<&Coded>) -> bool {
    coded.is_some_and(|coded| coded.coding.needs_rope())
}

impl Manifest {
    /// Says them as the first version that can.
    pub(super) fn set_rotations(&mut self, rotations: &Rotations) {
        if let Some(frequencies) = rotations.only_frequencies() {
            self.rope = Some(frequencies.to_vec());
        } else if !rotations.embeddings.is_empty() {
            self.rotary = Some(rotations.embeddings.clone());
            for (record, index) in self.tensors.iter_mut().zip(&rotations.of_tensor) {
                record.rotary = *index;
            }
        }
    }

    /// Those of a manifest that was checked; `coded`: of each tensor.
    pub fn rotations<'a>(&self, coded: impl Iterator<Item = Option<&'a Coded>>) -> Rotations {
        match (&self.rope, &self.rotary) {
            (Some(frequencies), _) => Rotations {
                embeddings: vec![RotaryEmbedding::halves(frequencies)],
                of_tensor: coded.map(|coded| needs_rope(coded).then_some(0)).collect(),
            },
            (None, Some(embeddings)) => Rotations {
                embeddings: embeddings.clone(),
                of_tensor: self.tensors.iter().map(|record| record.rotary).collect(),
            },
            (None, None) => Rotations::default(),
        }
    }

    /// That each tensor which needs a rotary embedding has one, and nothing is said for nothing.
    pub(super) fn check_rotations(&self, coded: &[Option<Coded>]) -> Result<()> {
        let by_tensor = self.rotary.is_some();
        let needed = coded.iter().any(|coded| needs_rope(coded.as_ref()));
        if self.rope.is_some() != (needed && !by_tensor) {
            let found = match (needed, &self.rope) {
                (_, None) => "none",
                (true, Some(_)) => "rotary too",
                (false, Some(_)) => "one that no tensor needs",
            };
            return Err(Error::input(format!(
                "rope: expected where a tensor has prerope and nowhere else, found {found}"
            )));
        }
        let mut seen = 0;
        for (record, coded) in self.tensors.iter().zip(coded) {
            if record.rotary.is_some() != (by_tensor && needs_rope(coded.as_ref())) {
                return Err(Error::input(format!(
                    "tensor {:?}: rotary: expected where a file has several and the tensor prerope",
                    record.name
                )));
            }
            match record.rotary {
                // In the order of the first tensor of each: so that all are used.
                Some(index) if index > seen => {
                    return Err(Error::input(format!(
                        "tensor {:?}: rotary: expected at most {seen}, found {index}",
                        record.name
                    )));
                }
                Some(index) if index == seen => seen += 1,
                Some(_) | None => {}
            }
        }
        if let Some(embeddings) = &self.rotary {
            check_embeddings(embeddings, seen)?;
        }
        check_frequencies(self.rope.iter().flatten())
    }
}

/// `used`: how many of them tensors have.
fn check_embeddings(embeddings: &[RotaryEmbedding], used: usize) -> Result<()> {
    if embeddings.is_empty() || embeddings.len() != used {
        let found = embeddings.len();
        return Err(Error::input(format!(
            "rotary: expected those of the tensors, {used}, found {found}"
        )));
    }
    if let [only] = embeddings
        && is_whole_in_halves(only)
    {
        return Err(Error::input("rotary: one over the whole head in halves, which is rope's"));
    }
    let mut known = HashSet::new();
    for (index, embedding) in embeddings.iter().enumerate() {
        let RotaryEmbedding { frequencies, head_dim, .. } = embedding;
        if frequencies.len() > head_dim / 2 {
            return Err(Error::input(format!(
                "rotary {index}: expected at most {} frequencies, one a pair of {head_dim} \
                 channels, found {}",
                head_dim / 2,
                frequencies.len()
            )));
        }
        check_frequencies(frequencies.iter())?;
        if !known.insert(identity(embedding)) {
            return Err(Error::input(format!("rotary {index}: an embedding that is there twice")));
        }
    }
    Ok(())
}

fn check_frequencies<'a>(mut frequencies: impl Iterator<Item = &'a f32>) -> Result<()> {
    // One that is no number is not within the limit.
    if frequencies.all(|frequency| frequency.abs() <= MOST_FREQUENT) {
        return Ok(());
    }
    Err(Error::input(format!("rope: expected at most {MOST_FREQUENT} radians a position")))
}
