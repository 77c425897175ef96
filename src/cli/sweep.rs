//! `kvgauge sweep` and `kvgauge report`.

use super::flags::{EvaluationFlags, LimitFlags, SubjectFlags};
use super::live::SweepProgress;
use super::progress::{DownloadBars, TerminalProgress};
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::eval::verdict::Limits;
use crate::hub::{Hub, HubOptions};
use crate::report::{self, sweep_table};
use crate::results::plan::Plan;
use crate::results::sweep::{SweepReport, SweepSource};
use crate::run::subject::Stages;
use crate::run::sweep::{self, Cells, Request, Shard, Shared};
use crate::settings::{ConfigFile, SETTINGS, Settings};
use crate::whole_file::same_target;
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The arguments of `kvgauge sweep`.
#[derive(Args)]
#[command(after_help = "Flags override CONFIG; what neither sets has its default.")]
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
    /// Replace files in the output folder that kvgauge did not write, and reports of other sweeps
    #[arg(long)]
    force: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
}

/// The arguments of `kvgauge report`.
#[derive(Args)]
pub struct ReportArguments {
    /// Folders that kvgauge sweep wrote to
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Folder for the report
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    limits: LimitFlags,
    /// Exit with status 1 when no codec meets the limit
    #[arg(long)]
    strict: bool,
    /// Replace files in the output folder that kvgauge did not write, and reports of other sweeps
    #[arg(long)]
    force: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl SweepArguments {
    /// Runs the cells that are not done, and writes the report.
    pub fn run(self) -> Result<Outcome> {
        let file = ConfigFile::read(&self.config)
            .map_err(|e| e.hint("kvgauge sweep takes a TOML file; configs/ has examples"))?;
        let raw = self.subject.into_raw()?.or(self.evaluation.into_raw()?).or(file.raw);
        if let Some(given) = raw.attribute.first().filter(|given| given.value) {
            return Err(given.location.locate(
                Error::input("expected false in a sweep, found true")
                    .hint("`kvgauge validate` says which part of the cache carries the damage"),
            ));
        }
        let settings = Settings::resolve_all(raw)?;
        let Some(first) = settings.first() else { return Ok(Outcome::Done) };
        let (threads, offline, strict) = (first.threads, first.offline, first.strict);
        let limits = first.limits();
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
            force: self.force,
            is_shared: false,
        };
        let config = Some(self.config.as_path());
        check_inputs(&request.output, &request.settings, config)?;
        if self.dry_run {
            let mut progress = TerminalProgress::new();
            let estimate = sweep::dry_run(&request, &hub, &mut progress);
            progress.clear();
            let (estimate, first_failure) = estimate?;
            output::print_estimate(&estimate, self.json, "cell")?;
            let failed = estimate.failed.len();
            return match first_failure {
                Some(error) => {
                    Err(first_of(error, failed, estimate.cells() + failed, "would fail"))
                }
                None => Ok(Outcome::Done),
            };
        }
        let mut progress = SweepProgress::new();
        let outcome = sweep::run(&request, &hub, &mut Shared::default(), &mut progress);
        progress.clear();
        let outcome = outcome?;

        let report = outcome.cells.report(&outcome.plans, &limits);
        match request.shard.is_whole() {
            true => write_and_tell(&report, &request.output, self.force, self.json)?,
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
            Some(error) => Err(first_of(error, outcome.failed, outcome.total, "failed")),
            // Of this sweep alone, whatever else lies in its folder.
            None if strict
                && request.shard.is_whole()
                && outcome.cells.report(&[outcome.plan], &limits).misses_limit() =>
            {
                Ok(Outcome::LimitMissed)
            }
            None => Ok(Outcome::Done),
        }
    }
}

impl ReportArguments {
    /// Writes one report of all folders.
    pub fn run(self) -> Result<Outcome> {
        let mut plans = Vec::new();
        for folder in &self.folders {
            plans.extend(sweep::read_plans(folder)?);
        }
        let flags = self.limits.into_raw()?;
        // The sweeps decide what the flags leave open; where they differ, one must be chosen.
        let given = Limits {
            max_ppl_change: flags.max_ppl_change.first().map_or(f64::NAN, |given| given.value.0),
            max_kld: flags.max_kld.first().map(|given| given.value),
            min_top1: flags.min_top1.first().map(|given| given.value),
        };
        Settings::resolve(flags)?;
        let limits = common_limits(&plans, given)?;
        sweep::check_folder(&self.output)?;
        sweep::check_report(&self.output, &plans, self.force)?;
        let cells = Cells::read(&self.folders)?;
        for note in cells.notes() {
            TerminalProgress::new().note(&note);
        }
        let report = cells.report(&plans, &limits);
        write_and_tell(&report, &self.output, self.force, self.json)?;
        let strict = self.strict || plans.iter().any(|plan| plan.strict);
        Ok(if strict && report.misses_limit() { Outcome::LimitMissed } else { Outcome::Done })
    }
}

/// The error that a sweep ends with, or would: the first of its cells.
fn first_of(error: Error, failed: usize, total: usize, verb: &str) -> Error {
    error.within(format!("{failed} of {total} cells {verb}, the first"))
}

/// None of the files that a sweep writes may be one that it reads.
pub(super) fn check_inputs(
    folder: &Path,
    settings: &[Settings],
    config: Option<&Path>,
) -> Result<()> {
    let files: Vec<PathBuf> = sweep::FILES.iter().map(|name| folder.join(name)).collect();
    let written: Vec<_> = files.iter().map(|path| ("--output", path.as_path())).collect();
    output::check_apart(&written, settings, config)?;
    for Settings { model, .. } in settings {
        if same_target(Path::new(model), folder) {
            return Err(Error::input(format!(
                "--output: expected a folder other than the model's, found {}",
                folder.display()
            ))
            .hint("give the report a folder of its own"));
        }
    }
    Ok(())
}

fn write_and_tell(report: &SweepReport, folder: &Path, force: bool, json: bool) -> Result<()> {
    // The tables say it themselves.
    if let Some(note) = report.instruction_sets_note().filter(|_| json) {
        TerminalProgress::new().note(&note);
    }
    let page = sweep::write_report(report, folder, force)?;
    output::print(&match json {
        true => report::json(report)?,
        false => format!("{}\nreport: {}\n", sweep_table::render(report), page.display()),
    })
}

/// The limits of the sweeps, but those that `given` has: a percentage that is a number, others that
/// are there.
fn common_limits(plans: &[Plan], given: Limits) -> Result<Limits> {
    fn one<T: PartialEq + Copy>(
        flag: &str,
        mut found: impl Iterator<Item = T>,
        show: impl Fn(T) -> String,
    ) -> Result<T> {
        let first = found.next().ok_or_else(|| {
            Error::input("expected a sweep's folder, found none")
                .hint("name the folder that kvgauge sweep wrote to")
        })?;
        match found.find(|other| *other != first) {
            Some(other) => Err(Error::input(format!(
                "these sweeps have different limits: {} and {}",
                show(first),
                show(other)
            ))
            .hint(format!("choose one with {flag}"))),
            None => Ok(first),
        }
    }
    let optional = |limit: Option<f64>| limit.map_or("none".into(), |limit| limit.to_string());
    let limits = || plans.iter().map(|plan| &plan.limits);
    Ok(Limits {
        max_ppl_change: match given.max_ppl_change.is_nan() {
            false => given.max_ppl_change,
            true => {
                let changes = limits().map(|limits| limits.max_ppl_change);
                one("--max-ppl-change", changes, |limit| format!("{limit} %"))?
            }
        },
        max_kld: match given.max_kld {
            Some(_) => given.max_kld,
            None => one("--max-kld", limits().map(|limits| limits.max_kld), optional)?,
        },
        min_top1: match given.min_top1 {
            Some(_) => given.min_top1,
            None => one("--min-top1", limits().map(|limits| limits.min_top1), optional)?,
        },
    })
}

fn default_output(config: &Path) -> PathBuf {
    Path::new("results").join(config.file_stem().unwrap_or_default())
}

/// A command line for the same results: the one of this run, without flags that change none.
pub(super) fn command_line(words: impl IntoIterator<Item = OsString>) -> String {
    const WITH_VALUE: [&str; 2] = ["--output", "--shard"];
    const ALONE: [&str; 3] = ["--json", "--dry-run", "--force"];
    let setting = |flag: &str| SETTINGS.iter().find(|s| s.flag == flag && !s.changes_figures);
    let mut command = String::from("kvgauge");
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        let (flag, value) = word.split_once('=').map_or((&*word, false), |(flag, _)| (flag, true));
        let setting = setting(flag);
        let alone = setting.is_some_and(|setting| setting.value_name == "BOOL");
        if alone || ALONE.contains(&flag) {
            continue;
        }
        if setting.is_some() || WITH_VALUE.contains(&flag) {
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
