//! Runs: the steps of each command, in order.

pub mod extract;
pub mod listing;
pub mod subject;
pub mod sweep;
pub mod validate;
