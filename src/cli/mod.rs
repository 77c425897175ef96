//! The command line: parse → run → print. The only place that prints.

mod output;
mod progress;
mod validate;

use crate::error::{Error, Kind, Result};
use clap::{Parser, Subcommand};
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
}

/// Done, and a limit that the user set was missed.
const LIMIT_MISSED: u8 = 1;

pub fn main() -> ExitCode {
    // clap prints help, version and usage errors itself, with exit status 0 or 2.
    let cli = Cli::parse();
    match catch_panics(|| match cli.command {
        Command::Validate(arguments) => arguments.run(),
    }) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::LimitMissed) => ExitCode::from(LIMIT_MISSED),
        Err(error) => {
            eprint!("{}", report_of(&error));
            ExitCode::from(match error.kind() {
                Kind::Input => 2,
                Kind::System => 3,
            })
        }
    }
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

/// Two lines: what, and what to do.
fn report_of(error: &Error) -> String {
    let hint = error.hint_text().unwrap_or("kvgauge --help lists what can be asked for");
    format!("error: {error}\nhint: {hint}\n")
}
