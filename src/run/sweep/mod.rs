//! A sweep: models × texts × contexts × codecs, cell by cell.
//!
//! Cells that share a model, text and context run in lock-step: one load, one prefill and one
//! baseline for all of them. Every window done and every cell finished is a line in a log
//! ([`folder`]), so that a run that was cut off goes on where it stopped, and shards of one sweep
//! can run anywhere. Results depend on neither: [`Cells::report`] makes the same value of the same
//! cells.

mod assemble;
mod cells;
mod cuts;
mod dry_run;
mod folder;
mod opening;
mod plans;
mod report_files;
mod scheduler;
mod shard;
mod subject_run;
mod submit;

pub use cells::Cells;
pub use cuts::Costs;
pub use dry_run::dry_run;
pub use plans::{present as present_plans, read_plans};
pub use report_files::{FILES, check_folder, check_report, write_report};
pub use shard::Shard;
pub use submit::{Job, Submitted, quoted};

use crate::error::{Error, Result};
use crate::eval::verdict::Limits;
use crate::eval::{Arm, Evaluator, Observer, Protocol, StageTimings, Treatment};
use crate::hub::Hub;
use crate::model::Model;
use crate::platform;
use crate::results::figures::CodecResult;
use crate::results::names::Headlines;
use crate::results::plan::{CellName, Plan, PlannedCell};
use crate::results::record::{CellLine, CellRecord};
use crate::results::subject::SubjectInfo;
use crate::results::sweep::SweepSource;
use crate::results::timings::{SubjectTimings, SweepTimings};
use crate::results::validation::RefusedCodec;
use crate::run::subject::{SharedInputs, Stages};
use crate::run::validate;
use crate::settings::{Given, Settings};
use folder::Folder;
use opening::open;
use std::path::PathBuf;
use std::time::Instant;
use subject_run::SubjectRun;

/// The request of a sweep: what to run, and where to.
pub struct Request {
    /// One a subject; those of one model are neighbours. Same device, dtype and limit in all.
    pub settings: Vec<Settings>,
    /// How it was asked for, for the report.
    pub source: SweepSource,
    /// The folder to write to.
    pub output: PathBuf,
    /// Which part of the cells is this process's.
    pub shard: Shard,
    /// The first cells of the parts after the first; without any, parts are of equal number.
    pub cuts: Vec<usize>,
    /// Whether files that kvgauge did not write are replaced.
    pub force: bool,
    /// Whether cells of other requests are in the folder too: else a note says so.
    pub is_shared: bool,
}

/// Models and texts that sweeps one after the other share: opened and loaded once.
#[derive(Default)]
pub struct Shared {
    /// Opened models and texts.
    pub inputs: SharedInputs,
    /// The model that was loaded last, by name.
    loaded: Option<(String, Model)>,
}

/// Cells of one subject that go through a window together: what a run that is cut off does again.
const CELLS_AT_ONCE: usize = 64;

/// Hears what is going on; [`Observer`] for the tokens that go through models.
pub trait SweepObserver: Observer + Stages {
    /// What models and texts of the whole sweep are to be called; before all that names one.
    fn headlines(&mut self, headlines: Headlines);
    /// The evaluation begins: so many cells of this shard are there already, so many are to come,
    /// `tokens` will go through models.
    fn begin(&mut self, done: usize, to_do: usize, tokens: usize);
    /// Whether somebody wants to see figures that are not final yet.
    fn is_watched(&mut self) -> bool;
    /// The first windows of a subject are done: what is known of its codecs so far. Called after
    /// windows for which [`SweepObserver::is_watched`].
    fn window(&mut self, subject: &SubjectInfo, windows: usize, so_far: &[CodecResult]);
    /// A cell came to its end and is in the log.
    fn finished(&mut self, record: &CellRecord);
}

/// The outcome of a sweep, or of its shard.
pub struct Outcome {
    /// Its own plan, ids known.
    pub plan: Plan,
    /// Those that the report is of: of a whole sweep, all in its folder.
    pub plans: Vec<Plan>,
    /// All that are known.
    pub cells: Cells,
    /// Cells of this shard.
    pub total: usize,
    /// How many of them failed, and the first error.
    pub failed: usize,
    /// The first error of a cell.
    pub first_failure: Option<Error>,
}

impl Request {
    /// Models, texts and contexts, each under each of its protocols.
    fn runs(&self) -> impl Iterator<Item = (&Settings, Protocol)> {
        fn of(settings: &Settings) -> impl Iterator<Item = (&Settings, Protocol)> {
            settings.protocols().each().into_iter().map(move |protocol| (settings, protocol))
        }
        self.settings.iter().flat_map(of)
    }

    /// All cells, of all shards; ids are not known yet.
    fn plan(&self) -> Plan {
        let of_run = |(settings, protocol): (&Settings, Protocol)| -> Vec<PlannedCell> {
            let name = |codec: &Given<Treatment>| CellName {
                model: settings.model.clone(),
                text: settings.text.to_string(),
                context: settings.context,
                protocol: Some(protocol.name().into()),
                codec: codec.value.to_string(),
            };
            let planned = |codec| PlannedCell { name: name(codec), id: None, refused: None };
            settings.codec.iter().map(planned).collect()
        };
        // Limits and strictness are the same in all.
        let (limits, batch, strict) = match self.settings.first() {
            Some(settings) => (settings.limits(), settings.batch, settings.strict),
            None => (Limits::default(), 1, false),
        };
        let cells = self.runs().flat_map(of_run).collect();
        Plan::new(self.source.clone(), limits, batch, strict, cells)
    }
}

/// Runs this shard's cells, but those that are done already.
///
/// Every model meets every text, context and codec, and one of them may not suit another, or may not
/// be had: its cells fail, and the others go on. A request of which nothing can be run is an error
/// before anything is computed.
pub fn run(
    request: &Request,
    hub: &Hub,
    shared: &mut Shared,
    progress: &mut dyn SweepObserver,
) -> Result<Outcome> {
    let start = Instant::now();
    check_folder(&request.output)?;
    let mut plans = plans::present(&request.output)?;
    plans.push(request.plan());
    // A shard writes no report.
    if request.shard.is_whole() {
        check_report(&request.output, &plans, request.force)?;
    }
    let opened = open(request, hub, &mut shared.inputs, progress)?;
    let folder = Folder::create(&request.output, request.shard, request.force)?;
    let cells = Cells::read(std::slice::from_ref(&request.output))?;
    for note in cells.notes() {
        progress.note(&note);
    }

    let mut sweep = Sweep {
        folder,
        cells,
        plan: request.plan(),
        failed: 0,
        first_failure: None,
        timings: SweepTimings { threads: rayon::current_num_threads(), ..Default::default() },
        progress,
    };
    let names = sweep.plan.cells.iter().map(|cell| &cell.name);
    let sources = names.map(|name| (name.model.as_str(), name.text.as_str()));
    sweep.progress.headlines(Headlines::of(sources));
    let total = opened.iter().map(|opened| opened.cells.len() + opened.failed.len()).sum();
    for (cell, refusal) in opened.iter().flat_map(|opened| &opened.refused) {
        sweep.plan.cells[*cell].refused = Some(RefusedCodec::from(refusal));
        sweep.progress.note(&format!("no cell under decode: {}", refusal.error));
    }
    let mut runs = sweep.open_weights(opened, &mut shared.inputs.noted_scales)?;
    let here = request.settings.first().map_or("", Settings::instruction_set);
    let others = plans::others_note(&request.output, &sweep.plan, &sweep.cells, here)?;
    if let Some(note) = others.filter(|_| !request.is_shared) {
        sweep.progress.note(&note);
    }
    sweep.folder.write_plan(&sweep.plan, &sweep.cells)?;
    sweep.resume(&mut runs)?;
    sweep.timings.prepare = start.elapsed().as_secs_f64();

    let to_do = runs.iter().map(|run| run.pending.len()).sum();
    let tokens = runs.iter().map(SubjectRun::tokens_left).sum();
    sweep.progress.begin(total - to_do - sweep.failed, to_do, tokens);
    for run in runs {
        sweep.run_subject(run, &mut shared.loaded)?;
    }

    let Sweep { folder, cells, plan, failed, first_failure, mut timings, .. } = sweep;
    timings.total = start.elapsed().as_secs_f64();
    timings.peak_rss_bytes = platform::peak_rss_bytes();
    if !timings.subjects.is_empty() {
        folder.write_timings(&timings)?;
    }
    // Failed cells are tried again some day: their windows stay.
    if failed == 0 {
        folder.forget_windows(&cells)?;
    }
    let plans = match request.shard.is_whole() {
        true => plans::present(&request.output)?,
        false => vec![plan.clone()],
    };
    Ok(Outcome { plan, plans, cells, total, failed, first_failure })
}

struct Sweep<'p> {
    folder: Folder,
    cells: Cells,
    plan: Plan,
    failed: usize,
    first_failure: Option<Error>,
    timings: SweepTimings,
    progress: &'p mut dyn SweepObserver,
}

impl Sweep<'_> {
    fn finish(&mut self, line: CellLine) -> Result<()> {
        self.folder.cells.append(&line, true)?;
        let record = line.into_record();
        self.progress.finished(&record);
        self.cells.add(record);
        Ok(())
    }

    fn fail(&mut self, cells: Vec<PlannedCell>, error: Error) -> Result<()> {
        for cell in cells {
            self.failed += 1;
            self.finish(CellLine::failed(cell, &error))?;
        }
        self.first_failure.get_or_insert(error);
        Ok(())
    }

    /// Takes over the windows that an earlier run has done.
    fn resume(&mut self, runs: &mut [SubjectRun]) -> Result<()> {
        let subjects = runs.iter().map(|run| (run.id.clone(), run.info.clone())).collect();
        for record in self.folder.read_windows(&subjects)? {
            for run in runs.iter_mut().filter(|run| run.id == record.subject_id) {
                run.take_over(&record);
            }
        }
        Ok(())
    }

    /// `loaded`: the model of the subject before, by name; subjects of one model are neighbours.
    fn run_subject(
        &mut self,
        mut run: SubjectRun,
        loaded: &mut Option<(String, Model)>,
    ) -> Result<()> {
        let clock = Instant::now();
        if loaded.as_ref().is_none_or(|(name, _)| *name != run.settings.model) {
            // The one before goes first: two models need not fit.
            *loaded = None;
            self.progress.stage("loading the weights");
            match run.load(self.progress) {
                Ok(model) => *loaded = Some((run.settings.model.clone(), model)),
                Err(error) => return self.fail(run.cells(), error),
            }
        }
        let Some((_, model)) = loaded else { return Ok(()) };
        if run.settings.cross_check {
            let window = run.subject.windows[0].tokens();
            let context = run.info.context;
            match validate::cross_check(model, run.weights.clone(), window, context) {
                Ok(check) => self.progress.note(&format!(
                    "{}, context {context}: candle-transformers' {} agrees to {:.1e} in logits up to {:.1}",
                    run.settings.model, check.module, check.largest_difference, check.largest_logit
                )),
                Err(error) => return self.fail(run.cells(), error),
            }
        }
        self.timings.load += clock.elapsed().as_secs_f64();

        let codecs = run.pending.len();
        let mut stages = StageTimings::default();
        let (protocol, seed) = (run.info.protocol, run.settings.seed);
        let evaluator = Evaluator::new(model, protocol, run.info.context, seed);
        let mut first = 0;
        while first < run.info.windows {
            let ids = run.waiting_first(first);
            let arms: Vec<Arm> = ids.iter().filter_map(|id| run.arm(id)).collect();
            if arms.is_empty() {
                first += 1;
                continue;
            }
            // Of those, such as the same cells wait for.
            let most = evaluator.windows_at_once(&run.subject.windows[first..], &arms);
            let outcomes = most.and_then(|most| {
                let same =
                    (first..first + most).take_while(|window| run.waiting_first(*window) == ids);
                let windows = &run.subject.windows[first..first + same.count()];
                evaluator.evaluate_windows(windows, &arms, self.progress, &mut stages)
            });
            match outcomes {
                Ok(outcomes) => {
                    for (window, outcome) in (first..).zip(outcomes) {
                        let (record, failed) = run.add(window, &ids, outcome);
                        self.folder.windows.append(&record, false)?;
                        for (cell, error) in failed {
                            self.fail(vec![cell], validate::explain(error, model.dtype()))?;
                        }
                    }
                    first = run.done_windows(first);
                }
                // Without a baseline there is nothing to compare with.
                Err(error) => {
                    return self.fail(run.cells(), validate::explain(error, model.dtype()));
                }
            }
            if first > 0 && self.progress.is_watched() {
                self.progress.window(&run.info, first, &run.so_far(first));
            }
        }
        self.timings.subjects.push(SubjectTimings::new(&run.info, codecs, stages));
        for line in run.lines() {
            self.finish(line)?;
        }
        Ok(())
    }
}
