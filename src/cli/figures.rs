//! `kvgauge figures`.

use super::flags::LimitFlags;
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::report::{self, table};
use crate::results::measurement::Measurement;
use crate::results::validation::FiguresReport;
use crate::settings::Settings;
use clap::Args;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The arguments of `kvgauge figures`.
#[derive(Args)]
#[command(after_help = "Example:
  kvgauge figures measurement.json --max-kld 0.01")]
pub struct Arguments {
    /// Measurement of the other program, JSON of schema kvgauge.measurement/1; `-`: from standard input
    #[arg(value_name = "FILE")]
    measurement: PathBuf,
    #[command(flatten)]
    limits: LimitFlags,
    /// Exit with status 1 unless every codec passes all limits, for CI
    #[arg(long)]
    strict: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<Outcome> {
        let settings = Settings::resolve(self.limits.into_raw()?)?;
        let within = |e: Error| e.within(self.measurement.display());
        let measurement = Measurement::read(&read(&self.measurement)?).map_err(within)?;
        let figures = FiguresReport::new(measurement, settings.limits(), settings.batch);
        match self.json {
            true => output::print(&report::json(&figures)?)?,
            false => output::print_text(&table::render_figures(&figures, output::stdout_width()))?,
        }
        Ok(match self.strict && figures.misses_limit() {
            true => Outcome::LimitMissed,
            false => Outcome::Done,
        })
    }
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    match path == Path::new("-") {
        true => {
            let mut input = std::io::stdin().lock();
            input
                .read_to_end(&mut bytes)
                .map_err(|e| Error::system(format!("standard input: {e}")))?;
        }
        false => {
            bytes = std::fs::read(path).map_err(|e| {
                Error::io(path, &e)
                    .hint("name the measurement's file; docs/python.md says what is in it")
            })?
        }
    }
    String::from_utf8(bytes).map_err(|_| {
        Error::input(format!("{}: expected JSON, found bytes that are not UTF-8", path.display()))
    })
}
