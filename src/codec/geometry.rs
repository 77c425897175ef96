//! Shape and position of a tensor, as codecs are told.

use super::rotary::RotaryTable;
use crate::error::{Error, Result};

/// The shape and position of a tensor whose values are flattened row-major from
/// [heads, tokens, head_dim]: all that a codec is told beside them.
#[derive(Debug, Clone, Copy)]
pub struct Geometry<'a> {
    /// Tokens of each head.
    pub tokens: usize,
    /// Values of a head vector.
    pub head_dim: usize,
    /// Position of the first token in its sequence.
    pub first: usize,
    /// The rotations of the keys; needed for `prerope` only.
    pub rope: Option<&'a RotaryTable>,
}

impl Geometry<'_> {
    /// Vectors of `head_dim` values that follow each other from position 0.
    pub fn rows(tokens: usize, head_dim: usize) -> Self {
        Self { tokens, head_dim, first: 0, rope: None }
    }

    /// Of a tensor of any shape: the last dimension is a head vector, the one before it the
    /// tokens. A tensor without values has no tokens, whatever its shape says.
    pub fn of_shape(shape: &[usize]) -> Self {
        let back = |n: usize| shape.len().checked_sub(n).map_or(1, |index| shape[index]);
        Self::rows(if shape.contains(&0) { 0 } else { back(2) }, back(1))
    }

    /// Heads of a tensor of so many values; 0 without values.
    pub fn heads(&self, values: usize) -> usize {
        match values {
            0 => 0,
            _ => values.checked_div(self.tokens * self.head_dim).unwrap_or(0),
        }
    }

    /// Whether the rotations of the keys are known, and fit.
    pub(super) fn check_rope(&self) -> Result<()> {
        match self.rope.map(|rope| (rope.head_dim(), rope.positions())) {
            None => Err(Error::input(
                "prerope: expected what the keys were rotated by, found none",
            )
            .hint("say --rope-theta, as the model's config has it; `kvgauge extract` writes it to its files")),
            Some((rotated, _)) if rotated != self.head_dim => Err(Error::input(format!(
                "prerope: expected a rotation of {rotated} values, found head vectors of {}",
                self.head_dim
            ))
            .hint("the file's keys have another head size than the model whose rotation it names")),
            Some((_, positions)) if positions < self.first + self.tokens => {
                Err(Error::system("prerope: positions beyond those worked out"))
            }
            Some(_) => Ok(()),
        }
    }
}
