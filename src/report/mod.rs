//! Results in, bytes out: pure functions.

pub mod figures;
pub mod sweep;
pub mod table;
pub mod validation;
