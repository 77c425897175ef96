//! `kvgauge validate`.

use super::flags::{EvaluationFlags, SubjectFlags};
use super::progress::{DownloadBars, TerminalProgress};
use super::{Outcome, output};
use crate::error::Result;
use crate::hub::{Hub, HubOptions};
use crate::report::{self, table};
use crate::settings::{ConfigFile, RawSettings, Settings};
use crate::validate;
use crate::whole_file::{self, Existing, NewFile};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Also write the JSON object to a file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read settings from a TOML file; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Arguments {
    pub fn run(self) -> Result<Outcome> {
        let (json, path) = (self.json, self.output.clone());
        let settings = Settings::resolve(self.into_raw()?)?;
        if let Some(path) = &path {
            let writable = NewFile::create(path, Existing::Replace);
            writable.map_err(|e| e.within("--output"))?;
        }
        super::use_threads(settings.threads)?;
        let hub = Hub::new(HubOptions::from_env(settings.offline), Arc::new(DownloadBars::new()))?;
        let mut progress = TerminalProgress::new();
        let result = validate::run(&settings, &hub, &mut progress);
        progress.clear();
        let result = result?;

        let object = report::json(&result)?;
        if let Some(path) = &path {
            whole_file::write(path, object.as_bytes())?;
        }
        output::print(&if json { object } else { table::render(&result) })?;
        Ok(if settings.strict && result.misses_limit() {
            Outcome::LimitMissed
        } else {
            Outcome::Done
        })
    }

    /// Flags over file.
    fn into_raw(self) -> Result<RawSettings> {
        let flags = self.subject.into_raw().or(self.evaluation.into_raw()?);
        let Some(path) = &self.config else { return Ok(flags) };
        let file = ConfigFile::read(path)
            .map_err(|e| e.hint("--config takes a TOML file; see configs/"))?;
        Ok(flags.or(file.raw))
    }
}
