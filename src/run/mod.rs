//! Runs: the steps of each command, in order.

pub(crate) mod estimate;
pub mod extract;
pub mod listing;
pub(crate) mod load;
pub mod subject;
pub mod sweep;
pub mod tune;
pub mod validate;
