//! `kvgauge validate`.

use super::flags::{EvaluationFlags, SubjectFlags, ValidateFlags};
use super::progress::{DownloadBars, TerminalProgress};
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::hub::{Hub, HubOptions};
use crate::report::{self, charts, table};
use crate::run::validate;
use crate::settings::{ConfigFile, RawSettings, Settings};
use crate::whole_file::{self, Existing, Kind, NewFile};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

/// The arguments of `kvgauge validate`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
    /// Only estimate time and memory; refuse what does not fit into memory
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Also write the JSON object to a file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    own: ValidateFlags,
    /// Draw what --attribute found, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Replace files of --output and --picture that kvgauge did not write
    #[arg(long)]
    force: bool,
    /// Read settings from a TOML file; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Arguments {
    /// Evaluates, writes and prints.
    pub fn run(self) -> Result<Outcome> {
        let dry_run = self.dry_run;
        let (json, path, picture) = (self.json, self.output.clone(), self.picture.clone());
        let (force, config) = (self.force, self.config.clone());
        let settings = Settings::resolve(self.into_raw()?)?;
        if picture.is_some() && !settings.attribute {
            return Err(Error::input("--picture: expected --attribute beside it, found none")
                .hint("the picture shows what --attribute finds"));
        }
        let files = [("--output", &path, Kind::Validation), ("--picture", &picture, Kind::Picture)];
        let files = files.map(|(flag, path, kind)| Some((flag, path.as_deref()?, kind)));
        let files: Vec<_> = files.into_iter().flatten().collect();
        let written: Vec<_> = files.iter().map(|(flag, path, _)| (*flag, *path)).collect();
        output::check_apart(&written, std::slice::from_ref(&settings), config.as_deref())?;
        for (flag, path, kind) in files {
            let writable = NewFile::create(path, Existing::own(kind, force));
            writable.map_err(|e| e.within(flag))?;
        }
        super::use_threads(settings.threads)?;
        let hub = Hub::new(HubOptions::from_env(settings.offline), Arc::new(DownloadBars::new()))?;
        let mut progress = TerminalProgress::new();
        if dry_run {
            let estimate = validate::dry_run(&settings, &hub, &mut progress);
            progress.clear();
            output::print_estimate(&estimate?, json, "measurement")?;
            return Ok(Outcome::Done);
        }
        let result = validate::run(&settings, &hub, &mut progress);
        progress.clear();
        let result = result?;

        let object = report::json(&result)?;
        let write = |path: &Option<PathBuf>, text: Option<&str>, kind| match (path, text) {
            (Some(path), Some(text)) => {
                whole_file::write(path, text.as_bytes(), Existing::own(kind, force))
            }
            _ => Ok(()),
        };
        let chart = charts::attribution(&result).map(|chart| chart.standalone());
        let written = write(&path, Some(&object), Kind::Validation).and(write(
            &picture,
            chart.as_deref(),
            Kind::Picture,
        ));
        // A long run is told even where its file cannot be written any more.
        match json {
            true => output::print(&object)?,
            false => output::print_text(&table::render(&result, output::stdout_width()))?,
        }
        written?;
        Ok(if settings.strict && result.misses_limit() {
            Outcome::LimitMissed
        } else {
            Outcome::Done
        })
    }

    /// Flags over file.
    fn into_raw(self) -> Result<RawSettings> {
        let flags = self.own.into_raw()?.or(self.subject.into_raw()?);
        let flags = flags.or(self.evaluation.into_raw()?);
        let Some(path) = &self.config else { return Ok(flags) };
        let file = ConfigFile::read(path)
            .map_err(|e| e.hint("--config takes a TOML file; see configs/"))?;
        Ok(flags.or(file.raw))
    }
}
