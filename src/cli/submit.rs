//! A sweep as jobs of a scheduler: `kvgauge sweep --submit`, and command lines made of this one's.

use super::progress::TerminalProgress;
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::report;
use crate::results::print::counted;
use crate::results::timings::DryRun;
use crate::run::subject::Stages;
use crate::run::sweep::{self, Costs, Job, Request, Submitted, quoted};
use crate::settings::{DeviceKind, SETTINGS};
use clap::ValueEnum;
use std::ffi::OsString;

/// Schedulers that jobs are made for.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum SubmitTo {
    /// sbatch(1)
    Slurm,
    /// JSON for kubectl
    Kubernetes,
}

/// Makes the jobs of a sweep, and hands them over or prints them. `shards`: the number of parts, if it
/// was given.
pub fn submit(
    request: &Request,
    hub: &Hub,
    scheduler: SubmitTo,
    shards: Option<usize>,
    options: Vec<String>,
    dry_run: bool,
) -> Result<Outcome> {
    if scheduler == SubmitTo::Kubernetes && !dry_run {
        return Err(Error::input("--submit kubernetes: expected --dry-run beside it, found none")
            .hint("kvgauge prints the jobs, and kubectl apply -f - takes them"));
    }
    let mut job = Job {
        program: std::env::current_exe()
            .map_err(|e| Error::system(format!("the path of this program: {e}")))?,
        words: words_of_a_part(std::env::args_os()),
        output: std::path::absolute(&request.output)
            .map_err(|e| Error::io(&request.output, &e).within("--output"))?,
        cuts: Vec::new(),
        force: request.force,
        has_threads: request.settings.iter().any(|settings| settings.threads.is_some()),
        options,
    };
    // Before the estimate, which takes seconds.
    job.check()?;
    let is_cpu = request.settings.iter().all(|settings| settings.device == DeviceKind::Cpu);
    let estimate = if is_cpu { Some(estimate(request, hub)?) } else { None };
    let costs = Costs::new(request, estimate.as_ref());
    let shards = match (shards, &estimate) {
        (Some(shards), _) => shards,
        (None, Some(estimate)) if estimate.cells() > 0 => costs.worthwhile(),
        (None, _) => {
            return Err(Error::input("--submit: expected --shards beside it, found none")
                .hint("time is not estimated here: say how many parts, --shards N"));
        }
    };
    job.cuts = costs.cuts(shards);
    let page = job.output.join(sweep::FILES[0]);
    match (scheduler, dry_run) {
        (SubmitTo::Slurm, true) => {
            output::print(&format!("{}\n{}", job.slurm_parts(), job.slurm_report()))?;
        }
        (SubmitTo::Slurm, false) => {
            sweep::check_folder(&request.output)?;
            let Submitted { parts, report } = job.submit_to_slurm()?;
            output::print(&format!(
                "job {parts}: {}\njob {report}: the report, when they have ended\n\
                 report: {}\n",
                counted(job.parts(), "part"),
                page.display()
            ))?;
        }
        (SubmitTo::Kubernetes, _) => output::print(&report::json(&job.kubernetes()?)?)?,
    }
    Ok(Outcome::Done)
}

/// What the sweep would take on this machine. What would fail here may run where it is sent to.
fn estimate(request: &Request, hub: &Hub) -> Result<DryRun> {
    let mut progress = TerminalProgress::new();
    let estimate = sweep::dry_run(request, hub, &mut progress);
    progress.clear();
    let (estimate, first_failure) = estimate?;
    if let Some(error) = first_failure {
        let failed = estimate.failed.len();
        let all = counted(estimate.cells() + failed, "cell");
        progress.note(&format!("{failed} of {all} would fail here, the first: {error}"));
    }
    Ok(estimate)
}

/// A command line for the same results: the one of this run, without flags that change none.
pub fn command_line(words: impl IntoIterator<Item = OsString>) -> String {
    let own = |flag: &str| {
        OF_ONE_RUN.iter().find(|own| own.flag == flag).map(|own| own.has_value).or_else(|| {
            let setting = SETTINGS.iter().find(|s| s.flag == flag && !s.changes_figures)?;
            Some(setting.value_name != "BOOL")
        })
    };
    let words = without(words, own);
    let words = words.iter().map(|word| quoted(word));
    ["kvgauge".into()].into_iter().chain(words).collect::<Vec<String>>().join(" ")
}

/// The words that a part of this sweep is run with.
fn words_of_a_part(words: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let whole = |flag: &str| OF_ONE_RUN.iter().find(|own| own.flag == flag && own.of_the_whole);
    without(words, |flag| whole(flag).map(|own| own.has_value))
}

/// A flag that has nothing to do with results.
struct OwnFlag {
    flag: &'static str,
    has_value: bool,
    /// Whether a part of a submitted sweep is run without it.
    of_the_whole: bool,
}

const fn own(flag: &'static str, has_value: bool, of_the_whole: bool) -> OwnFlag {
    OwnFlag { flag, has_value, of_the_whole }
}

const OF_ONE_RUN: [OwnFlag; 9] = [
    own("--output", true, true),
    // Neither stands beside --submit.
    own("--shard", true, false),
    own("--cuts", true, false),
    own("--shards", true, true),
    own("--submit", true, true),
    own("--json", false, false),
    own("--summary", false, true),
    own("--dry-run", false, true),
    own("--force", false, false),
];

/// The words of a command line behind the program, without some flags and their values.
/// `dropped`: of a flag to leave out, whether a value stands behind it.
fn without(
    words: impl IntoIterator<Item = OsString>,
    dropped: impl Fn(&str) -> Option<bool>,
) -> Vec<String> {
    let words: Vec<OsString> = words.into_iter().skip(1).collect();
    let submits = words.iter().any(|word| word.to_string_lossy().starts_with("--submit"));
    // Behind it stands what the scheduler takes.
    let mut words = words.into_iter().take_while(|word| !submits || word != "--");
    let mut left = Vec::new();
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        let (flag, joined) = word.split_once('=').map_or((&*word, false), |(flag, _)| (flag, true));
        match dropped(flag) {
            None => left.push(word.into_owned()),
            Some(true) if !joined => _ = words.next(),
            Some(_) => {}
        }
    }
    left
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
            ("k|sweep|a.toml|--submit|slurm|--shards|9|--|-p|all", "kvgauge sweep a.toml"),
        ] {
            assert_eq!(told(typed), expected);
        }
        let part =
            "k|sweep|a.toml|--submit=slurm|--output|x|--threads|2|--force|--dry-run|--|-p|all";
        let words = words_of_a_part(part.split('|').map(OsString::from));
        assert_eq!(words, ["sweep", "a.toml", "--threads", "2", "--force"]);
    }
}
