//! A sweep on stderr: on a terminal a table whose rows fill as windows are done, under a bar with
//! the time left; elsewhere one plain line a cell, and now and then one of how far it is.

use super::pace::{Pace, Word};
use super::progress::{TerminalProgress, new_bar, stderr_width, style, with_bar};
use crate::codec::shown_name;
use crate::eval::Observer;
use crate::report::sweep_table;
use crate::report::text::one_line;
use crate::results::figures::CodecResult;
use crate::results::names::Headlines;
use crate::results::plan::CellName;
use crate::results::print::{counted, windows};
use crate::results::record::{CellOutcome, CellRecord};
use crate::results::subject::SubjectInfo;
use crate::run::subject::Stages;
use crate::run::sweep::SweepObserver;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub struct SweepProgress {
    /// Until the evaluation begins, and for notes.
    stages: TerminalProgress,
    visible: bool,
    screen: MultiProgress,
    /// The whole shard's, in tokens.
    total: ProgressBar,
    /// A title and one row a codec of the subject that is running.
    rows: Vec<ProgressBar>,
    drawn: Option<Instant>,
    done: usize,
    cells: usize,
    /// Since the first tokens were through, behind the load of the first model.
    pace: Option<(Pace, Instant)>,
    tokens: usize,
    /// Whether cells are too many to tell of each.
    many: bool,
    /// Of the sweep that runs.
    headlines: Headlines,
}

impl SweepProgress {
    /// For cells of which nobody wants a line each: the bar alone.
    pub fn of_many() -> Self {
        Self { many: true, ..Self::new() }
    }

    pub fn new() -> Self {
        let visible = std::io::stderr().is_terminal();
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            stages: TerminalProgress::new(),
            visible,
            screen: MultiProgress::with_draw_target(target),
            total: ProgressBar::hidden(),
            rows: Vec::new(),
            drawn: None,
            done: 0,
            cells: 0,
            pace: None,
            tokens: 0,
            many: false,
            headlines: Headlines::default(),
        }
    }

    /// Removes what is drawn, so that what follows starts on a clean line.
    pub fn clear(&self) {
        self.stages.clear();
        self.total.finish_and_clear();
        // A screen that cannot be cleared is not worth failing for.
        let _ = self.screen.clear();
    }

    fn say(&self, line: &str) {
        // Not eprintln: it panics where stderr is a pipe that nobody reads any more.
        self.screen.suspend(|| _ = writeln!(std::io::stderr(), "{line}"));
    }

    fn tell_count(&self) {
        self.total.set_message(format!("{} of {}", self.done, counted(self.cells, "cell")));
    }
}

impl Observer for SweepProgress {
    fn advanced(&mut self, tokens: usize) {
        self.total.inc(tokens as u64);
        let Some((pace, began)) = &mut self.pace else {
            self.pace = Some((Pace::new(self.tokens.saturating_sub(tokens)), Instant::now()));
            return;
        };
        match pace.advanced(tokens, began.elapsed()) {
            Some(Word::Long(words)) => self.say(&format!(
                "note: {words}; after Ctrl-C the same command goes on where it stopped"
            )),
            Some(Word::Progress(words)) if !self.visible => self.say(&words),
            _ => {}
        }
    }
}

impl Stages for SweepProgress {
    fn stage(&mut self, what: &str) {
        match self.cells {
            0 => self.stages.stage(what),
            _ => self.total.set_message(what.to_string()),
        }
    }

    fn note(&mut self, text: &str) {
        match self.cells {
            0 => self.stages.note(text),
            _ => self.say(&format!("note: {text}")),
        }
    }
}

impl SweepObserver for SweepProgress {
    fn begin(&mut self, done: usize, to_do: usize, tokens: usize) {
        self.stages.clear();
        self.pace = None;
        if done > 0 && !self.many {
            let cells = if done == 1 { "cell is" } else { "cells are" };
            self.say(&format!("{done} {cells} there already"));
        }
        // Of the sweep before, where there was one.
        self.total.finish_and_clear();
        (self.done, self.cells) = (self.done + done, self.done + done + to_do);
        self.total = self.screen.add(new_bar(self.visible));
        self.tokens = tokens;
        self.total.set_style(style(&with_bar("BAR {percent:>3} %  {msg}  {eta} left", 42)));
        self.total.set_length(tokens as u64);
        self.tell_count();
        if self.visible {
            self.total.enable_steady_tick(Duration::from_millis(250));
        }
    }

    fn is_watched(&mut self) -> bool {
        /// Time between two looks at a table.
        const PAUSE: Duration = Duration::from_millis(500);
        self.tell_count();
        let wanted = self.visible && !self.many;
        let watched = wanted && self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE);
        if watched {
            self.drawn = Some(Instant::now());
        }
        watched
    }

    fn headlines(&mut self, headlines: Headlines) {
        self.headlines = headlines;
    }

    fn window(&mut self, subject: &SubjectInfo, done: usize, so_far: &[CodecResult]) {
        let model = self.headlines.model(&subject.model.provenance.source);
        let text = self.headlines.text(&subject.text.source);
        let mut lines = vec![one_line(&format!(
            "{model} on {text}, context {}, {}: {done} of {}",
            subject.context,
            subject.protocol.name(),
            windows(subject.windows)
        ))];
        lines.extend(sweep_table::so_far(so_far, subject, stderr_width()));
        while self.rows.len() < lines.len() {
            let row = self.screen.add(ProgressBar::new_spinner());
            row.set_style(style("{wide_msg}"));
            self.rows.push(row);
        }
        for row in self.rows.drain(lines.len()..) {
            row.finish_and_clear();
        }
        for (row, line) in self.rows.iter().zip(lines) {
            row.set_message(line);
        }
    }

    fn finished(&mut self, record: &CellRecord) {
        self.rows.drain(..).for_each(|row| row.finish_and_clear());
        self.done += 1;
        let failed = matches!(record.outcome, CellOutcome::Failed(_));
        if self.many && !failed {
            return self.tell_count();
        }
        let CellName { model, text, context, protocol, codec } = &record.cell;
        let (model, text) = (self.headlines.model(model), self.headlines.text(text));
        let (context, told) = match &record.outcome {
            CellOutcome::Done(result) => {
                (Some(result.subject.context), sweep_table::brief(&result.figures))
            }
            CellOutcome::Failed(failure) => (*context, format!("failed: {}", failure.error)),
        };
        let context = context.map_or(String::new(), |context| format!(", context {context}"));
        let protocol = protocol.as_ref().map_or(String::new(), |name| format!(", {name}"));
        let codec = shown_name(codec);
        self.say(&one_line(&format!("{codec} on {model}, {text}{context}{protocol}: {told}")));
        self.tell_count();
    }
}
