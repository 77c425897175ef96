//! Results in, bytes out: pure functions.

pub mod dry_run_table;
pub mod figures;
pub mod folder;
pub mod sweep;
pub mod sweep_table;
pub mod table;
pub mod validation;
