//! kvgauge: what does compressing the KV cache cost this model on this text?
//!
//! Data flows one way: text → tokens → windows ([`corpus`]) → model → KV cache ([`model`]) →
//! codec ([`codec`]) → cache → model → logits → scores ([`eval`]) → measurements → figures
//! ([`results`]) → [`report`]. [`run::validate`] is that line in one function. Files of tensors,
//! compressed and not, are [`container`]. Only [`cli`] prints. `ARCHITECTURE.md` has the plan.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod builtin;
pub mod cli;
pub mod codec;
pub mod container;
pub mod corpus;
pub mod error;
pub mod eval;
mod gguf_value;
mod hash;
pub mod hub;
mod instruction_set;
mod lanes;
mod large_blocks;
pub mod model;
mod nearest_word;
mod platform;
#[cfg(test)]
#[path = "../tests/common/random.rs"]
mod random;
pub mod report;
pub mod results;
pub mod run;
pub mod settings;
mod sniff;
mod tensor;
pub mod whole_file;

pub use error::{Error, Result};
pub use instruction_set::instruction_set;
pub use large_blocks::LargeBlocks;
