//! Results in, bytes out: pure functions.

pub mod table;
pub mod validation;
