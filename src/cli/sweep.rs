//! `kvgauge sweep` and `kvgauge report`.

use super::flags::{EvaluationFlags, LimitFlags, OUTPUT, SubjectFlags};
use super::live::SweepProgress;
use super::progress::{DownloadBars, TerminalProgress};
use super::submit::{SubmitTo, command_line, submit};
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::eval::verdict::Limits;
use crate::hub::{Hub, HubOptions};
use crate::report::{self, sweep_table};
use crate::results::plan::Plan;
use crate::results::print::counted;
use crate::results::sweep::{SweepReport, SweepSource};
use crate::run::subject::Stages;
use crate::run::sweep::{self, Cells, Request, Shard, Shared};
use crate::settings::{ConfigFile, Settings};
use crate::whole_file::same_target;
use clap::Args;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The heading of flags about parts of a sweep.
const SCHEDULER: &str = "Scheduler";

/// The arguments of `kvgauge sweep`.
#[derive(Args)]
#[command(after_help = "Flags override CONFIG; what neither sets has its default.

A whole CONFIG, quick.toml:
  model = \"builtin\"
  context = [256, 512]
  windows = 10
  codec = [\"int4-g64\", \"kvgauge4\", \"q8_0\"]

Examples:
  kvgauge sweep quick.toml --dry-run
  kvgauge sweep quick.toml
  kvgauge sweep quick.toml --shard 1/2 --output part-1
  kvgauge sweep quick.toml --submit slurm -- --partition cpu")]
pub struct SweepArguments {
    /// TOML file with models, texts, contexts and codecs, of which every combination is measured
    ///
    /// Its keys are the long flags with underscores; one value or a list. An example stands below.
    config: PathBuf,
    /// Folder for the report, and for the log from which a run that was stopped goes on
    /// [default: results/NAME for NAME.toml]
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    output: Option<PathBuf>,
    /// Run one part of the sweep, such as 2/8, on one of several machines; `kvgauge report` puts the parts
    /// together. auto: the part that a scheduler's environment says
    ///
    /// Known are the variables of Slurm, Kubernetes, SkyPilot, Grid Engine and GNU parallel.
    #[arg(long, value_name = "I/N|auto", help_heading = SCHEDULER)]
    shard: Option<ShardWord>,
    /// Number of parts for --submit [default: one for every ten minutes], and for --shard auto where
    /// the environment does not say it
    #[arg(long, value_name = "N", help_heading = SCHEDULER)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    shards: Option<u64>,
    /// Cells that parts 2, 3 and so on begin with, counted from 0, where parts are not to have the same
    /// number of cells; --submit works them out
    #[arg(long, value_name = "I,I…", value_delimiter = ',', requires = "shard")]
    #[arg(help_heading = SCHEDULER)]
    cuts: Vec<usize>,
    /// Hand the parts to a scheduler, and a job behind them that makes the report; with --dry-run, print
    /// the jobs instead (kubernetes: only with it)
    #[arg(long, value_name = "SCHEDULER", conflicts_with_all = ["shard", "json"])]
    #[arg(help_heading = SCHEDULER)]
    submit: Option<SubmitTo>,
    /// Options for --submit, behind --: those of sbatch, such as -- --partition gpu; for Kubernetes
    /// image=NAME claim=NAME
    #[arg(last = true, value_name = "OPTION", requires = "submit", help_heading = SCHEDULER)]
    options: Vec<String>,
    /// Measure nothing: print the cells, their bits a value, and an estimate of time and memory
    #[arg(long)]
    dry_run: bool,
    /// Replace files in the output folder that kvgauge did not write, and reports of other sweeps
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Print one JSON object instead of tables
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Print one line for each model, text and context instead of tables, for a CI log
    #[arg(long, conflicts_with = "json", help_heading = OUTPUT)]
    summary: bool,
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
}

/// What --shard says.
#[derive(Clone, Copy)]
enum ShardWord {
    Given(Shard),
    Auto,
}

impl FromStr for ShardWord {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        if word == "auto" { Ok(Self::Auto) } else { word.parse().map(Self::Given) }
    }
}

/// The arguments of `kvgauge report`.
#[derive(Args)]
#[command(after_help = "Limits that are not given are those of the sweep.

Examples:
  kvgauge report results/quick --output report --max-kld 0.01
  kvgauge report part-1 part-2 --output report")]
pub struct ReportArguments {
    /// Folders that `kvgauge sweep` wrote to, such as results/quickstart
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Folder to write the report to
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    output: PathBuf,
    #[command(flatten)]
    limits: LimitFlags,
    /// Exit with status 1 unless a codec can be recommended for every model, text and context, for CI
    #[arg(long)]
    strict: bool,
    /// Replace files in the output folder that kvgauge did not write, and reports of other sweeps
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Print one JSON object instead of tables
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Print one line for each model, text and context instead of tables, for a CI log
    #[arg(long, conflicts_with = "json", help_heading = OUTPUT)]
    summary: bool,
}

impl SweepArguments {
    /// Runs the cells that are not done, and writes the report.
    pub fn run(self) -> Result<Outcome> {
        let file = ConfigFile::read(&self.config)
            .map_err(|e| e.hint("kvgauge sweep takes a TOML file; kvgauge sweep --help shows one, configs/ has more"))?;
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
        let (limits, batch) = (first.limits(), first.batch);
        let folder = self.output.unwrap_or_else(|| default_output(&file.path));
        if !self.dry_run && self.submit.is_none() {
            output::on_interrupt(output::kept_in(&folder));
        }
        super::use_threads(threads)?;
        let hub = Hub::new(HubOptions::from_env(offline), Arc::new(DownloadBars::new()))?;
        let shards = self.shards.map(|shards| shards as usize);
        if shards.is_some() && self.submit.is_none() && !matches!(self.shard, Some(ShardWord::Auto))
        {
            return Err(Error::input(
                "--shards: expected --submit or --shard auto beside it, found neither",
            )
            .hint("--shard I/N says which part this is"));
        }
        let shard = match self.shard {
            None => Shard::WHOLE,
            Some(ShardWord::Given(shard)) => shard,
            Some(ShardWord::Auto) => {
                let variable = |name: &str| std::env::var(name).ok();
                let (shard, scheduler) = Shard::of_environment(variable, shards)?;
                TerminalProgress::new().note(&format!("shard {shard}, as {scheduler} says"));
                shard
            }
        };
        let request = Request {
            settings,
            source: SweepSource {
                command: command_line(std::env::args_os()),
                config_path: file.path.display().to_string(),
                config: file.text,
            },
            output: folder,
            shard,
            cuts: self.cuts,
            force: self.force,
            is_shared: false,
        };
        let config = Some(self.config.as_path());
        check_inputs(&request.output, &request.settings, config)?;
        if let Some(scheduler) = self.submit {
            return submit(&request, &hub, scheduler, shards, self.options, self.dry_run);
        }
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

        let told = Told::of(self.json, self.summary);
        let report = outcome.cells.report(&outcome.plans, &limits, batch);
        match request.shard.is_whole() {
            true => write_and_tell(&report, &request.output, self.force, told)?,
            false if self.json => output::print(&report::json(&report)?)?,
            false => output::print(&format!(
                "shard {}: {} of {} done\n\
                 kvgauge report {} --output DIR puts it together with the others\n",
                request.shard,
                outcome.total - outcome.failed,
                counted(outcome.total, "cell"),
                request.output.display()
            ))?,
        }
        match outcome.first_failure {
            Some(error) => Err(first_of(error, outcome.failed, outcome.total, "failed")),
            // Of this sweep alone, whatever else lies in its folder.
            None if strict
                && request.shard.is_whole()
                && outcome.cells.report(&[outcome.plan], &limits, batch).misses_limit() =>
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
            max_bytes_per_token: flags.max_bytes_per_token.first().map(|given| given.value),
        };
        let batch = flags.batch.first().map(|given| given.value);
        Settings::resolve(flags)?;
        let limits = common_limits(&plans, given)?;
        let batch = match batch {
            Some(batch) => batch,
            None => common("--batch", plans.iter().map(|plan| plan.batch), |n| n.to_string())?,
        };
        sweep::check_folder(&self.output)?;
        sweep::check_report(&self.output, &plans, self.force)?;
        let cells = Cells::read(&self.folders)?;
        for note in cells.notes() {
            TerminalProgress::new().note(&note);
        }
        let report = cells.report(&plans, &limits, batch);
        write_and_tell(&report, &self.output, self.force, Told::of(self.json, self.summary))?;
        let strict = self.strict || plans.iter().any(|plan| plan.strict);
        Ok(if strict && report.misses_limit() { Outcome::LimitMissed } else { Outcome::Done })
    }
}

/// The error that a sweep ends with, or would: the first of its cells.
fn first_of(error: Error, failed: usize, total: usize, verb: &str) -> Error {
    error.within(format!("{failed} of {} {verb}, the first", counted(total, "cell")))
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

/// What is printed at the end.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Tables,
    Json,
    Summary,
}

impl Told {
    fn of(json: bool, summary: bool) -> Self {
        match (json, summary) {
            (true, _) => Self::Json,
            (_, true) => Self::Summary,
            _ => Self::Tables,
        }
    }
}

fn write_and_tell(report: &SweepReport, folder: &Path, force: bool, told: Told) -> Result<()> {
    // The tables say it themselves.
    if let Some(note) = report.instruction_sets_note().filter(|_| told != Told::Tables) {
        TerminalProgress::new().note(&note);
    }
    let page = sweep::write_report(report, folder, force)?;
    match told {
        Told::Json => return output::print(&report::json(report)?),
        Told::Summary => return output::print(&report::summary::of_sweep(&report.for_people())),
        Told::Tables => {}
    }
    let table = sweep_table::render(&report.for_people(), output::stdout_width());
    output::print_text(&format!("{table}\nreport: {}\n", page.display()))
}

/// The limits of the sweeps, but those that `given` has: a percentage that is a number, others that
/// are there.
fn common_limits(plans: &[Plan], given: Limits) -> Result<Limits> {
    let optional = |limit: Option<f64>| limit.map_or("none".into(), |limit| limit.to_string());
    let limits = || plans.iter().map(|plan| &plan.limits);
    Ok(Limits {
        max_ppl_change: match given.max_ppl_change.is_nan() {
            false => given.max_ppl_change,
            true => {
                let changes = limits().map(|limits| limits.max_ppl_change);
                common("--max-ppl-change", changes, |limit| format!("{limit} %"))?
            }
        },
        max_kld: match given.max_kld {
            Some(_) => given.max_kld,
            None => common("--max-kld", limits().map(|limits| limits.max_kld), optional)?,
        },
        min_top1: match given.min_top1 {
            Some(_) => given.min_top1,
            None => common("--min-top1", limits().map(|limits| limits.min_top1), optional)?,
        },
        max_bytes_per_token: match given.max_bytes_per_token {
            Some(_) => given.max_bytes_per_token,
            None => {
                let most = limits().map(|limits| limits.max_bytes_per_token);
                common("--max-bytes-per-token", most, optional)?
            }
        },
    })
}

/// What all sweeps have for a flag.
///
/// # Errors
/// Sweeps that differ, of which one must be chosen.
fn common<T: PartialEq + Copy>(
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
            "these sweeps have different limits: {flag} {} and {}",
            show(first),
            show(other)
        ))
        .hint(format!("choose one with {flag}"))),
        None => Ok(first),
    }
}

fn default_output(config: &Path) -> PathBuf {
    Path::new("results").join(config.file_stem().unwrap_or_default())
}
