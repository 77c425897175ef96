//! The command line: parse → run → print. The only place that prints.

mod codecs;
mod completions;
mod extract;
mod figures;
mod flags;
mod introduction;
mod kv_compress;
mod live;
mod output;
mod pace;
mod progress;
mod submit;
mod sweep;
mod tune;
mod usage;
mod validate;

use crate::error::{Error, Kind, Result};
use crate::report::text::one_line;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Mutex;

/// What does compressing the KV cache cost this model on this text?
#[derive(Parser)]
#[command(name = "kvgauge", version, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 done; 1 done, and a limit was missed (--strict); \
    2 the request or the input is wrong; 3 anything else.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compress a model's KV cache for real and say how much worse its predictions get
    Validate(validate::Arguments),
    /// Run every combination of a config file, and report quality against size
    Sweep(sweep::SweepArguments),
    /// Make the report again from the folders of a sweep or of its shards
    Report(sweep::ReportArguments),
    /// Find the codec for each layer's keys and values that costs least within a budget
    Tune(tune::Arguments),
    /// Write a model's KV cache on a text to a safetensors file
    Extract(extract::Arguments),
    /// Compress the KV cache in a safetensors file, or restore it
    KvCompress(kv_compress::Arguments),
    /// Work out figures and verdicts of a measurement that another program made
    Figures(figures::Arguments),
    /// List every codec with a name: bits a value, what it stands for, what it needs
    Codecs(codecs::Arguments),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::CompletionsArguments),
    /// Write man pages to a folder
    Man(completions::ManArguments),
}

/// The binary `kv-compress`: the subcommand of that name, alone.
#[derive(Parser)]
#[command(name = "kv-compress", version, arg_required_else_help = true)]
#[command(about = "Compress the KV cache in a safetensors file, or restore it")]
struct KvCompress {
    #[command(flatten)]
    arguments: kv_compress::Arguments,
}

/// Done, and a limit that the user set was missed.
const LIMIT_MISSED: u8 = 1;

/// The request is wrong, or there is none.
const USAGE: u8 = 2;

/// The binary `kvgauge`.
pub fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if words.len() < 2 {
        // Not eprint: it panics where stderr is a pipe that nobody reads any more.
        let _ = std::io::stderr().write_all(introduction::INTRODUCTION.as_bytes());
        return ExitCode::from(USAGE);
    }
    if words.get(1).is_some_and(|word| word == "kv-compress") {
        words = kv_compress::with_double_dashes(words);
    }
    finish(|| {
        parsed::<Cli>(&words, |cli| match cli.command {
            Command::Validate(arguments) => arguments.run(),
            Command::Sweep(arguments) => arguments.run(),
            Command::Report(arguments) => arguments.run(),
            Command::Tune(arguments) => arguments.run(),
            Command::Extract(arguments) => arguments.run(),
            Command::KvCompress(arguments) => arguments.run(),
            Command::Figures(arguments) => arguments.run(),
            Command::Codecs(arguments) => arguments.run(),
            Command::Completions(arguments) => arguments.run(),
            Command::Man(arguments) => arguments.run(),
        })
    })
}

/// The binary `kv-compress`.
pub fn kv_compress() -> ExitCode {
    let words = kv_compress::with_double_dashes(std::env::args_os());
    finish(|| parsed::<KvCompress>(&words, |cli| cli.arguments.run()))
}

fn parsed<T: Parser>(
    words: &[OsString],
    run: impl FnOnce(T) -> Result<Outcome>,
) -> Result<Outcome> {
    match T::try_parse_from(words) {
        Ok(words) => run(words),
        Err(error) if is_help(&error) => error.exit(),
        Err(error) => Err(usage::error(&error, words, &T::command())),
    }
}

fn finish(run: impl FnOnce() -> Result<Outcome>) -> ExitCode {
    match catch_panics(run) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::LimitMissed) => ExitCode::from(LIMIT_MISSED),
        Err(error) => {
            // Not eprint: it panics where stderr is a pipe that nobody reads any more.
            let _ = std::io::stderr().write_all(report_of(&error).as_bytes());
            ExitCode::from(match error.kind() {
                Kind::Input => USAGE,
                Kind::System => 3,
            })
        }
    }
}

/// As many threads as asked for, instead of one a core.
fn use_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|e| Error::system(format!("--threads {threads}: {e}")))
}

enum Outcome {
    Done,
    LimitMissed,
}

/// A panic is a bug; it too ends in an error, a hint and exit status 3, not in a backtrace.
/// The hook keeps the message: what unwinds carries no place.
fn catch_panics(run: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    static LAST: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST.lock() {
            *last = panic.to_string().replace('\n', " ");
        }
    }));
    std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let what = LAST.lock().map(|last| last.clone()).unwrap_or_default();
        Err(Error::system(format!("a bug in kvgauge: {what}"))
            .hint("please report it with the command line that led here"))
    })
}

/// Help and version, asked for or given because nothing was: clap prints them itself.
fn is_help(error: &clap::Error) -> bool {
    use clap::error::ErrorKind::*;
    matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// Two lines: what, and what to do.
fn report_of(error: &Error) -> String {
    let hint = error.hint_text().unwrap_or(match error.kind() {
        Kind::Input => "look at what the error names: its place, its name, its contents",
        Kind::System => "not the request's fault: look at disk, memory, network and permissions",
    });
    // One line each, whatever a file name or a library's message holds.
    let line = one_line;
    format!("error: {}\nhint: {}\n", line(&error.to_string()), line(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::path::PathBuf;

    /// The examples at the end of each command's help: name and text.
    fn examples() -> Vec<(PathBuf, String)> {
        let told = |command: &clap::Command| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            (PathBuf::from(command.get_name()), text)
        };
        Cli::command().get_subcommands().map(told).collect()
    }

    /// Commands that the documentation, the comments of `configs/` and the help show, but those that are
    /// shown with their error.
    #[test]
    fn every_command_shown_can_be_typed() {
        let in_folder =
            |folder: &str| std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let mut files: Vec<_> = in_folder("configs").chain(in_folder("docs")).collect();
        files.extend(["README.md", "CONTRIBUTING.md", "data/frontier.md"].map(Into::into));
        let read = |file: PathBuf| {
            let text = std::fs::read_to_string(&file).unwrap();
            (file, text)
        };
        let mut found = 0;
        for (file, text) in files.into_iter().map(read).chain(examples()) {
            let text = text.replace("\\\n#", " ").replace("\\\n", " ");
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                if lines.peek().is_some_and(|next| next.starts_with("error: ")) {
                    continue;
                }
                let line = line.trim_start_matches(['#', '$', ' ']);
                let line = line.split(['|', '>']).next().unwrap_or_default();
                let line = line.split("  #").next().unwrap_or_default();
                let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
                let known = words
                    .get(1)
                    .and_then(|word| word.to_str())
                    .is_some_and(|word| Cli::command().find_subcommand(word).is_some());
                if words.first().is_none_or(|word| word != "kvgauge") || !known {
                    continue;
                }
                // A shell would fill it in.
                let filled = line.replace("$((SLURM_ARRAY_TASK_ID + 1))", "1");
                let told = Cli::try_parse_from(filled.split_whitespace());
                if let Err(error) = told {
                    panic!("{}: {line}: {error}", file.display());
                }
                found += 1;
            }
        }
        assert!(found > 15, "{found}");
    }

    #[test]
    fn hints_name_flags_that_are_there() {
        for entry in usage::FOREIGN_FLAGS {
            let has = |command: &clap::Command| usage::has(command, entry.flag);
            assert!(Cli::command().get_subcommands().any(has), "--{}", entry.flag);
            for word in entry.hint.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                let flag = word.trim_end_matches([':', ',', '.', ';']);
                let has = |command: &clap::Command| usage::has(command, flag);
                assert!(Cli::command().get_subcommands().any(has), "{}", entry.hint);
            }
        }
    }
}
