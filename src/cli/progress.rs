//! Progress on stderr, on a terminal only: stages, download bars, the evaluation's rate and
//! time left. Notes appear everywhere, and elsewhere a line now and then of how far a long run is.

use super::pace::{Pace, Word};
use crate::container::Report;
use crate::eval::Observer;
use crate::hub::DownloadProgress;
use crate::platform;
use crate::run::subject::Stages;
use crate::run::validate::ValidationObserver;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The stages of a command and the rate of an evaluation.
pub struct TerminalProgress {
    bar: ProgressBar,
    visible: bool,
    /// Of the evaluation, and when it began.
    pace: Option<(Pace, Instant)>,
}

/// Columns of the terminal that stderr is.
pub fn stderr_width() -> Option<usize> {
    let stderr = std::io::stderr();
    if stderr.is_terminal() { platform::terminal_width(stderr) } else { None }
}

/// A template's `BAR` as a bar of 32 columns, or of fewer where the terminal is narrow. `beside`: columns
/// of what else is in its line.
pub fn with_bar(template: &str, beside: usize) -> String {
    let room = stderr_width().map_or(32, |width| width.saturating_sub(beside).clamp(4, 32));
    template.replace("BAR", &format!("[{{bar:{room}}}]"))
}

/// A bar on stderr, or one that draws nothing.
pub fn new_bar(visible: bool) -> ProgressBar {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target)
}

/// The template is a constant that tests render: an invalid one falls back to the default look.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl TerminalProgress {
    /// Draws nothing until a stage begins, nor where stderr is no terminal.
    pub fn new() -> Self {
        let visible = std::io::stderr().is_terminal();
        Self { bar: new_bar(visible), visible, pace: None }
    }

    /// Removes the bar, so that what follows starts on a clean line.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) {
        // Not eprintln: it panics where stderr is a pipe that nobody reads any more.
        self.bar.suspend(|| _ = writeln!(std::io::stderr(), "{line}"));
    }
}

impl Observer for TerminalProgress {
    fn advanced(&mut self, tokens: usize) {
        self.bar.inc(tokens as u64);
        let Some((pace, began)) = &mut self.pace else { return };
        match pace.advanced(tokens, began.elapsed()) {
            Some(Word::Long(words)) => self.note(&words),
            Some(Word::Progress(words)) if !self.visible => self.say(&words),
            _ => {}
        }
    }
}

impl Stages for TerminalProgress {
    fn stage(&mut self, what: &str) {
        self.bar.set_style(style("{spinner} {msg} {elapsed}"));
        self.bar.set_message(what.to_string());
        if self.visible {
            self.bar.enable_steady_tick(Duration::from_millis(120));
        }
    }

    fn note(&mut self, text: &str) {
        self.say(&format!("note: {text}"));
    }
}

impl ValidationObserver for TerminalProgress {
    fn begin(&mut self, tokens: usize) {
        self.clear();
        self.bar = new_bar(self.visible);
        self.pace = Some((Pace::new(tokens), Instant::now()));
        let line = with_bar("evaluating BAR {percent:>3} %  {rate} tokens/s  {eta} left", 46);
        // The style first: a length makes the bar visible.
        self.bar.set_style(style(&line).with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0}", state.per_sec());
            },
        ));
        self.bar.set_length(tokens as u64);
        if self.visible {
            self.bar.enable_steady_tick(Duration::from_millis(250));
        }
    }
}

/// One bar a file, in bytes.
pub struct DownloadBars(Mutex<Option<ProgressBar>>);

impl DownloadBars {
    /// Draws nothing until a download begins.
    pub fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn with(&self, f: impl FnOnce(&mut Option<ProgressBar>)) {
        // A poisoned lock means a drawing thread panicked: progress is not worth failing for.
        if let Ok(mut bar) = self.0.lock() {
            f(&mut bar);
        }
    }
}

impl DownloadProgress for DownloadBars {
    fn start(&self, file: &str, bytes: u64) {
        let bar = new_bar(std::io::stderr().is_terminal());
        // Without the bar where it would not fit.
        let line = match stderr_width() {
            Some(width) if width < 110 => "{msg} {percent} % of {total_bytes}  {eta} left".into(),
            _ => with_bar("{msg} BAR {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left", 0),
        };
        bar.set_style(style(&line));
        bar.set_message(file.to_string());
        bar.set_length(bytes);
        self.with(|slot| *slot = Some(bar));
    }

    fn advance(&self, bytes: u64) {
        self.with(|slot| slot.iter().for_each(|bar| bar.inc(bytes)));
    }

    fn finish(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }
}

/// Bytes of tensors worked on in a file.
pub struct FileProgress(ProgressBar);

impl FileProgress {
    /// Draws nothing until a file is large enough to wait for.
    pub fn new() -> Self {
        let bar = ProgressBar::hidden();
        let line = "BAR {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
        bar.set_style(style(&with_bar(line, 52)));
        Self(bar)
    }

    /// Prints a line above the bar.
    pub fn note(&self, text: &str) {
        // Not eprintln: it panics where stderr is a pipe that nobody reads any more.
        self.0.suspend(|| _ = writeln!(std::io::stderr(), "note: {text}"));
    }

    /// Removes the bar, so that what follows starts on a clean line.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Report for FileProgress {
    fn begin(&self, bytes: u64) {
        /// Less is done before anybody could read it.
        const WORTH_SHOWING: u64 = 128 << 20;
        self.0.set_length(bytes);
        if bytes >= WORTH_SHOWING && std::io::stderr().is_terminal() {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn finishing(&self) {
        self.0.set_style(style("waiting for the disk"));
        self.0.tick();
    }
}
