//! `kvgauge validate`.

use super::flags::{EvaluationFlags, OUTPUT, SubjectFlags, ValidateFlags};
use super::progress::{DownloadBars, TerminalProgress};
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::hub::{Hub, HubOptions};
use crate::report::badge::Badge;
use crate::report::{self, charts, table};
use crate::results::validation::Validation;
use crate::run::validate;
use crate::settings::{ConfigFile, RawSettings, Settings};
use crate::whole_file::{self, Existing, Kind, NewFile};
use clap::Args;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

/// The arguments of `kvgauge validate`.
#[derive(Args)]
#[command(after_help = "Examples:
  kvgauge validate --model builtin
  kvgauge validate --model OWNER/NAME --context 1024 --codec kvgauge4,q8_0
  kvgauge validate --model model.gguf --text my-prompts.txt --engine llama.cpp
  kvgauge validate --model OWNER/NAME --max-kld 0.01 --strict --summary")]
pub struct Arguments {
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
    /// Measure nothing: estimate time and memory, and refuse what does not fit into memory
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object instead of the table
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Print one line instead of the table, for a CI log
    #[arg(long, conflicts_with = "json", help_heading = OUTPUT)]
    summary: bool,
    /// Also write the JSON object of --json to a file
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    output: Option<PathBuf>,
    /// Also write a badge with codec, verdict and KLD: a picture (.svg), or what a badge service
    /// reads (.json)
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    badge: Option<PathBuf>,
    /// Also write the results as `model-index`, YAML for a Hugging Face model card
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    model_card: Option<PathBuf>,
    #[command(flatten)]
    own: ValidateFlags,
    /// Also write a picture of what --attribute found (.svg)
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    picture: Option<PathBuf>,
    /// Replace files that kvgauge did not write; its own are replaced without
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Read settings from a TOML file: keys are long flags with underscores; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The text of a file, from the result and from the same with the names that people are shown; `None`: there
/// is nothing to write.
type Render = fn(&Validation, &Validation) -> Result<Option<String>>;

/// A file to write beside what is printed.
struct OutputFile {
    flag: &'static str,
    path: PathBuf,
    kind: Kind,
    render: Render,
}

fn badge_picture(_: &Validation, shown: &Validation) -> Result<Option<String>> {
    Ok(Some(Badge::of_validation(shown).svg()))
}

fn badge_endpoint(_: &Validation, shown: &Validation) -> Result<Option<String>> {
    Badge::of_validation(shown).endpoint().map(Some)
}

impl Arguments {
    /// Evaluates, writes and prints.
    pub fn run(self) -> Result<Outcome> {
        let dry_run = self.dry_run;
        let (json, summary, force) = (self.json, self.summary, self.force);
        let files = self.files()?;
        let (config, picture) = (self.config.clone(), self.picture.clone());
        let settings = Settings::resolve(self.into_raw()?)?;
        if let Some(path) =
            picture.as_ref().filter(|path| path.extension() != Some(OsStr::new("svg")))
        {
            return Err(Error::input(format!(
                "--picture: expected a name that ends in .svg, found {}",
                path.display()
            ))
            .hint("a browser and most editors show .svg, and convert it"));
        }
        if picture.is_some() && !settings.attribute {
            return Err(Error::input("--picture: expected --attribute beside it, found none")
                .hint("the picture shows what --attribute finds"));
        }
        let written: Vec<_> = files.iter().map(|file| (file.flag, file.path.as_path())).collect();
        output::check_apart(&written, std::slice::from_ref(&settings), config.as_deref())?;
        for OutputFile { flag, path, kind, .. } in &files {
            let writable = NewFile::create(path, Existing::own(*kind, force));
            writable.map_err(|e| e.within(flag))?;
        }
        if !dry_run {
            output::on_interrupt(
                "validate keeps nothing of a run that has not ended: the same command starts anew. \
                 kvgauge sweep keeps every window"
                    .into(),
            );
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

        let (shown, mut written) = (result.for_people(), Ok(()));
        for OutputFile { path, kind, render, .. } in &files {
            let text = render(&result, &shown);
            let write = |text: Option<String>| match text {
                Some(text) => whole_file::write(path, text.as_bytes(), Existing::own(*kind, force)),
                None => Ok(()),
            };
            written = written.and(text.and_then(write));
        }
        // A long run is told even where its file cannot be written any more.
        match (json, summary) {
            (true, _) => output::print(&report::json(&result)?)?,
            (_, true) => output::print(&report::summary::of_validation(&shown))?,
            _ => output::print_text(&table::render(&shown, output::stdout_width()))?,
        }
        written?;
        Ok(if settings.strict && result.misses_limit() {
            Outcome::LimitMissed
        } else {
            Outcome::Done
        })
    }

    /// The files to write beside what is printed.
    fn files(&self) -> Result<Vec<OutputFile>> {
        let badge = match self.badge.as_deref().map(|path| path.extension().and_then(OsStr::to_str))
        {
            None | Some(Some("svg")) => (Kind::Picture, badge_picture as Render),
            Some(Some("json")) => (Kind::Badge, badge_endpoint as Render),
            Some(_) => {
                return Err(Error::input("--badge: expected a name that ends in .svg or .json")
                    .hint(".svg is a picture, .json what a badge service reads"));
            }
        };
        let card: Render = |_, shown| Ok(Some(report::model_card::render(shown)));
        let chart: Render = |_, shown| Ok(charts::attribution(shown).map(|c| c.standalone()));
        let all: [(_, _, _, Render); 4] = [
            ("--output", &self.output, Kind::Validation, |result, _| {
                report::json(result).map(Some)
            }),
            ("--picture", &self.picture, Kind::Picture, chart),
            ("--badge", &self.badge, badge.0, badge.1),
            ("--model-card", &self.model_card, Kind::Card, card),
        ];
        let asked = all.into_iter().filter_map(|(flag, path, kind, render)| {
            Some(OutputFile { flag, path: path.clone()?, kind, render })
        });
        Ok(asked.collect())
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
