//! KVarN (Müller et al. 2026, arXiv 2606.03458): tiles of tokens, whose variance is made even along both
//! axes before they are rounded.
//!
//! Its steps, for 128 tokens of a head at a time, as the fork of vLLM that its authors publish has them:
//!
//! - **Hadamard** of each head vector, orthonormal.
//! - **Variance normalisation**: the columns of a tile, then its rows, are divided by their standard
//!   deviations, again and again; of all these the state is kept in which the deviations are most alike.
//! - **Rounding**, asymmetric, with a scale and a minimum for each row, into which the row's own factor
//!   goes. The factor of each column is stored apart.
//!
//! Rows of a tile are channels of keys, and tokens of values; columns are the other ones. Too few tokens
//! for a tile are kept in 16 bits. The fork keeps the first 128 tokens of a sequence in 16 bits as well, which
//! no name here does.
//!
//! Numbers are worked out in f64, those of a column one after the other, so that the registers' width
//! does not show: value = (code · scale + minimum) · column's scale, in f32.

mod definition;
mod normalisation;
mod payload;
mod tile;

pub use definition::{Kvarn, TileRows};
pub(super) use payload::KvarnPayload;
