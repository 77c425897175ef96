//! kvgauge: what does compressing the KV cache cost this model on this text?
//!
//! Data flows one way: text → tokens → windows ([`corpus`]) → model → KV cache ([`model`]) →
//! codec ([`codec`]) → cache → model → logits → scores → statistics ([`eval`]) → [`report`].
//! [`validate`] is that line in one function; only `cli` prints.

#![deny(unsafe_code)]

mod builtin;
pub mod cli;
pub mod codec;
pub mod corpus;
pub mod error;
pub mod eval;
mod hash;
pub mod hub;
mod lanes;
pub mod model;
mod platform;
pub mod report;
pub mod settings;
mod tensor;
pub mod validate;

pub use error::{Error, Result};
