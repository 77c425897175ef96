//! `kvgauge sweep` and `kvgauge report`.

use super::flags::{EvaluationFlags, SubjectFlags, said};
use super::live::SweepProgress;
use super::progress::{DownloadBars, TerminalProgress};
use super::words::percent;
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::hub::{Hub, HubOptions};
use crate::report::sweep::{SweepReport, SweepSource};
use crate::report::{self, dry_run_table, sweep_table};
use crate::settings::{ConfigFile, RawSettings, Settings};
use crate::subject::Stages;
use crate::sweep::{self, Cells, Request, Shard};
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
#[command(after_help = "What is not said here, CONFIG says; then the default holds.")]
pub struct SweepArguments {
    /// TOML file with models, texts, contexts and codecs; configs/ has examples
    config: PathBuf,
    /// Folder for the report and the log that a later run goes on from
    /// [default: results/NAME for NAME.toml]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Run the I-th of N parts, for a scheduler; `kvgauge report` puts them together
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Print the cells, their bits a value, and an estimate of time and memory; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
}

#[derive(Args)]
pub struct ReportArguments {
    /// Folders that kvgauge sweep wrote to
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Folder for the report
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Highest accepted perplexity increase [default: the sweep's]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true, value_parser = percent)]
    max_ppl_increase: Option<f64>,
    /// Exit with status 1 when no codec meets the limit
    #[arg(long)]
    strict: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl SweepArguments {
    pub fn run(self) -> Result<Outcome> {
        let file = ConfigFile::read(&self.config)
            .map_err(|e| e.hint("kvgauge sweep takes a TOML file; configs/ has examples"))?;
        let raw = self.subject.into_raw().or(self.evaluation.into_raw()?).or(file.raw);
        if let Some(said) = raw.attribute.as_ref().filter(|said| said.value) {
            return Err(said.place.refuse(
                Error::input("expected false in a sweep, found true")
                    .hint("`kvgauge validate` says which part of the cache carries the damage"),
            ));
        }
        let settings = Settings::resolve_all(raw)?;
        let Some(first) = settings.first() else { return Ok(Outcome::Done) };
        let (threads, offline, strict) = (first.threads, first.offline, first.strict);
        let limit = distance(first.max_ppl_increase)?;
        super::use_threads(threads)?;
        let hub = Hub::new(HubOptions::from_env(offline), Arc::new(DownloadBars::new()))?;
        let request = Request {
            settings,
            source: SweepSource {
                command: command_line(std::env::args_os()),
                config_path: file.path.display().to_string(),
                config: file.text,
            },
            output: self.output.unwrap_or_else(|| default_output(&file.path)),
            shard: self.shard.unwrap_or(Shard::WHOLE),
        };
        if self.dry_run {
            let mut progress = TerminalProgress::new();
            let estimate = sweep::dry_run(&request, &hub, &mut progress);
            progress.clear();
            let estimate = estimate?;
            output::print(&match self.json {
                true => report::json(&estimate)?,
                false => dry_run_table::render(&estimate),
            })?;
            return Ok(Outcome::Done);
        }
        let mut progress = SweepProgress::new();
        let outcome = sweep::run(&request, &hub, &mut progress);
        progress.clear();
        let outcome = outcome?;

        let report = outcome.cells.report(&[outcome.plan], limit);
        match request.shard.is_whole() {
            true => write_and_tell(&report, &request.output, self.json)?,
            false if self.json => output::print(&report::json(&report)?)?,
            false => output::print(&format!(
                "shard {}: {} of {} cells done\n\
                 kvgauge report {} --output DIR puts it together with the others\n",
                request.shard,
                outcome.total - outcome.failed,
                outcome.total,
                request.output.display()
            ))?,
        }
        match outcome.first_failure {
            Some(error) => Err(error.within(format!(
                "{} of {} cells failed, the first",
                outcome.failed, outcome.total
            ))),
            None if strict && request.shard.is_whole() && report.misses_limit() => {
                Ok(Outcome::LimitMissed)
            }
            None => Ok(Outcome::Done),
        }
    }
}

impl ReportArguments {
    pub fn run(self) -> Result<Outcome> {
        let mut plans = Vec::new();
        for folder in &self.folders {
            plans.extend(sweep::read_plans(folder)?);
        }
        let flags = RawSettings {
            max_ppl_increase: said("--max-ppl-increase", self.max_ppl_increase),
            ..Default::default()
        };
        let limit = match flags.max_ppl_increase {
            Some(_) => distance(Settings::resolve(flags)?.max_ppl_increase)?,
            None => common_limit(&plans)?,
        };
        sweep::check_output(&self.output)?;
        let cells = Cells::read(&self.folders)?;
        for note in cells.notes() {
            TerminalProgress::new().note(&note);
        }
        let report = cells.report(&plans, limit);
        write_and_tell(&report, &self.output, self.json)?;
        let strict = self.strict || plans.iter().any(|plan| plan.strict);
        Ok(if strict && report.misses_limit() { Outcome::LimitMissed } else { Outcome::Done })
    }
}

fn write_and_tell(report: &SweepReport, folder: &Path, json: bool) -> Result<()> {
    let page = sweep::write_report(report, folder)?;
    output::print(&match json {
        true => report::json(report)?,
        false => format!("{}\nreport: {}\n", sweep_table::render(report), page.display()),
    })
}

/// `validate` takes negative limits too; a recommendation within ± one has no meaning.
fn distance(limit: f64) -> Result<f64> {
    match limit >= 0.0 {
        true => Ok(limit),
        false => Err(Error::input(format!(
            "max_ppl_increase: expected 0 or more for a sweep, found {limit}"
        ))
        .hint("a codec is recommended when the perplexity changes by no more than ± the limit")),
    }
}

fn common_limit(plans: &[sweep::Plan]) -> Result<f64> {
    let limits = || plans.iter().map(|plan| plan.max_ppl_increase);
    match (limits().min_by(f64::total_cmp), limits().max_by(f64::total_cmp)) {
        (Some(low), Some(high)) if low != high => {
            Err(Error::input(format!("these sweeps have different limits: {low} and {high} %"))
                .hint("choose one with --max-ppl-increase"))
        }
        (Some(limit), _) => Ok(limit),
        (None, _) => Err(Error::input("expected a sweep's folder, found none")
            .hint("name the folder that kvgauge sweep wrote to")),
    }
}

fn default_output(config: &Path) -> PathBuf {
    Path::new("results").join(config.file_stem().unwrap_or_default())
}

/// What to type to get the same results: the command line without what changes none of them.
fn command_line(words: impl IntoIterator<Item = OsString>) -> String {
    const WITH_VALUE: [&str; 3] = ["--output", "--shard", "--threads"];
    const ALONE: [&str; 5] = ["--json", "--dry-run", "--offline", "--strict", "--cross-check"];
    let mut command = String::from("kvgauge");
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        let (flag, value) = word.split_once('=').map_or((&*word, false), |(flag, _)| (flag, true));
        if ALONE.contains(&flag) {
            continue;
        }
        if WITH_VALUE.contains(&flag) {
            if !value {
                words.next();
            }
            continue;
        }
        command.push(' ');
        command.push_str(&quoted(&word));
    }
    command
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_told_leaves_out_what_changes_no_result() {
        let told = |line: &str| command_line(line.split('|').map(OsString::from));
        for (typed, expected) in [
            ("/usr/bin/kvgauge|sweep|a.toml", "kvgauge sweep a.toml"),
            ("k|sweep|--shard|2/3|a.toml|--output|x", "kvgauge sweep a.toml"),
            ("k|sweep|--shard=2/3|a.toml|--output=x|--json", "kvgauge sweep a.toml"),
            ("k|sweep|a.toml|--windows|5|--strict=true", "kvgauge sweep a.toml --windows 5"),
            ("k|sweep|it's a.toml", r"kvgauge sweep 'it'\''s a.toml'"),
        ] {
            assert_eq!(told(typed), expected);
        }
    }
}
