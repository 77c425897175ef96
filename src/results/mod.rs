//! Results: measurements as they are logged, and the figures that follow from them.
//!
//! [`subject`] says what was measured on, [`measurement`] and [`record`] what was measured, in a
//! [`log`] that outlives a version. From these follow [`figures`], a verdict, and what `validate`
//! ([`validation`]), a sweep ([`sweep`]; of several models [`comparison`]) and `tune` ([`tuning`]) say of several codecs. `columns` lists the figures that
//! every table shows.

pub mod answers;
pub mod attribution;
pub mod cache_size;
pub(crate) mod columns;
pub mod comparison;
pub mod figures;
#[cfg(test)]
pub(crate) mod fixture;
pub mod log;
pub mod measurement;
pub(crate) mod names;
pub(crate) mod plain_words;
pub mod plan;
pub(crate) mod print;
mod recommendation;
pub mod record;
pub mod subject;
pub mod sweep;
pub mod timings;
pub mod tuning;
pub mod validation;
pub(crate) mod verdict_words;
