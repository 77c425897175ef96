//! Results in, bytes out: pure functions.

pub mod charts;
mod csv;
pub mod dry_run_table;
pub mod figures;
#[cfg(test)]
pub mod fixture;
mod folder;
mod html;
mod markdown;
pub mod sweep;
pub mod sweep_table;
pub mod table;
pub(crate) mod text;
pub mod validation;

pub use folder::{ReportFile, files};
