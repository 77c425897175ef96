//! stub
use super::sweep::SweepReport;
use crate::error::{Error, Result};
use std::path::Path;
pub fn check(_: &Path) -> Result<()> {
    Ok(())
}
pub fn write(report: &SweepReport, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    let json = serde_json::to_string_pretty(report).unwrap();
    crate::whole_file::write(&folder.join("results.json"), (json + "\n").as_bytes())
}
