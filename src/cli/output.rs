//! Output: to stdout, and to files that are neither each other's nor the request's own.

use crate::error::{Error, Result};
use crate::platform;
use crate::report::text::wrap;
use crate::report::{self, dry_run_table};
use crate::results::timings::DryRun;
use crate::settings::Settings;
use crate::whole_file;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

/// Prints to stdout. A reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::system(format!("standard output: {e}")).hint("is the disk full?"))
        }
        _ => Ok(()),
    }
}

/// Prints words and tables: on a terminal within its width.
pub fn print_text(text: &str) -> Result<()> {
    match stdout_width() {
        Some(width) => print(&wrap(text, width)),
        None => print(text),
    }
}

/// Columns of the terminal that stdout is.
pub fn stdout_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if stdout.is_terminal() { platform::terminal_width(stdout) } else { None }
}

/// Prints what a run would take. `unit`: what a codec on a subject is called.
pub fn print_estimate(estimate: &DryRun, json: bool, unit: &str) -> Result<()> {
    match json {
        true => print(&report::json(estimate)?),
        false => print_text(&dry_run_table::render(&estimate.for_people(), unit)),
    }
}

/// Has Ctrl-C say on stderr what is kept, before it ends this process.
pub fn on_interrupt(words: String) {
    platform::before_interrupt(move || {
        let mut stderr = std::io::stderr();
        // Below the bar, and what a terminal shows of the keys.
        let line_end = if stderr.is_terminal() { "\n" } else { "" };
        // Not eprint: it panics where stderr is a pipe that nobody reads any more.
        _ = stderr.write_all(format!("{line_end}note: stopped; {words}\n").as_bytes());
    });
}

/// The words of [`on_interrupt`] for a run that logs to a folder.
pub fn kept_in(folder: &Path) -> String {
    format!(
        "finished windows are kept in {}, and the same command goes on where it stopped",
        folder.display()
    )
}

/// Refuses files to write, each with its flag, of which two are one file or one is read as well.
pub fn check_apart(
    written: &[(&str, &Path)],
    settings: &[Settings],
    config: Option<&Path>,
) -> Result<()> {
    let inputs = settings.iter().flat_map(|settings| {
        let text = settings.text.path().map(|path| ("--text", path));
        std::iter::once(("--model", Path::new(&settings.model))).chain(text)
    });
    let inputs = inputs.chain(config.map(|config| ("the config", config)));
    // Names of models on the hub lead to no file.
    let read: Vec<_> = inputs.filter(|(_, path)| path.exists()).collect();
    whole_file::check_apart(written, &read)
}
