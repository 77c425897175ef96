//! Results: measurements as they are logged, and the figures that follow from them.

pub mod attribution;
pub(crate) mod columns;
pub mod figures;
#[cfg(test)]
pub(crate) mod fixture;
pub mod log;
pub mod measurement;
pub(crate) mod print;
pub mod record;
pub mod subject;
pub mod sweep;
pub mod timings;
pub mod validation;
pub(crate) mod verdict_words;
