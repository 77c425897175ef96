//! Results in, bytes out: pure functions.

pub(crate) mod align;
mod attribution_table;
pub mod badge;
pub mod charts;
mod csv;
pub mod dry_run_table;
mod folder;
mod html;
mod markdown;
pub mod model_card;
mod models;
pub mod summary;
pub mod sweep_table;
pub mod table;
pub(crate) mod text;
pub mod tuning_table;

pub use folder::{MODELS, ReportFile, files};

use crate::error::{Error, Result};

/// One JSON object, indented, with its newline.
pub fn json(value: &impl serde::Serialize) -> Result<String> {
    let object = serde_json::to_string_pretty(value);
    Ok(object.map_err(|e| Error::system(format!("JSON: {e}")))? + "\n")
}
