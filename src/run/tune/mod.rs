//! `tune`: a codec for each layer's keys and each layer's values, within a budget.
//!
//! Each part is measured alone in each candidate, on the first windows; [`assign`] finds the best
//! assignment of them all; and the whole is measured on windows behind those, with the uniform
//! candidates that take no more. Both measurements are sweeps into folders of their own, so that a run
//! that was cut off goes on where it stopped.

mod assign;
mod candidates;
mod estimate;
mod folder;
mod opened;
mod parts;

pub use folder::{check_folder, write_results};

use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::eval::protocol::Protocols;
use crate::hub::Hub;
use crate::platform;
use crate::results::figures::{CodecResult, Floor};
use crate::results::print::counted;
use crate::results::record::CellResult;
use crate::results::sweep::SweepSource;
use crate::results::timings::DryRun;
use crate::results::tuning::{
    AgainstUniform, Budget, SCHEMA, SumAndWhole, TuneTimings, Tuning, Unchecked, Unseen,
};
use crate::results::validation::RefusedCodec;
use crate::run::subject::Stages;
use crate::run::sweep::{self, Shard, Shared, SweepObserver};
use crate::settings::{Given, ProtocolName, Settings, WindowCount};
use estimate::{estimated, told};
use folder::{PARTS, WHOLE};
use opened::{Opened, open};
use parts::{Assignment, Measured};
use std::path::PathBuf;
use std::time::Instant;

/// Windows that parts are measured on, where nothing is said.
pub const DEFAULT_WINDOWS: usize = 8;
/// Windows behind them, where nothing is said.
pub const DEFAULT_UNSEEN: usize = 20;
/// Of a sum of damages that turned out too high for the whole, how often it is lowered.
const ROUNDS: usize = 4;

/// The request of `tune`.
pub struct Request {
    /// One model, text and context; its codecs are the candidates.
    pub settings: Settings,
    /// Whether candidates were named: else there are those of [`candidates::DEFAULTS`].
    pub named_candidates: bool,
    /// The bound.
    pub budget: Budget,
    /// Windows to check on, behind those that parts are measured on.
    pub unseen_windows: usize,
    /// The command line.
    pub command: String,
    /// The folder to write to.
    pub output: PathBuf,
    /// Whether files that kvgauge did not write are replaced, and another tuning's cells added to.
    pub force: bool,
}

impl Request {
    /// The settings under the protocol that parts are measured under: the first of those asked for.
    fn measuring(&self) -> Settings {
        let protocol = match self.settings.protocol {
            ProtocolName::Both => ProtocolName::Prefix,
            one => one,
        };
        Settings { protocol, ..self.settings.clone() }
    }

    fn protocols(&self) -> Protocols {
        self.measuring().protocols()
    }

    /// Settings of one model, text and context on other windows, with other codecs.
    fn on(&self, base: Settings, first: usize, windows: usize, codecs: &[Treatment]) -> Settings {
        let codec = |codec: &Treatment| Given::flag("--candidate", codec.clone());
        Settings {
            first_window: first,
            windows: WindowCount::AtMost(windows),
            codec: codecs.iter().map(codec).collect(),
            engine: Vec::new(),
            ..base
        }
    }
}

/// Runs what an earlier run in the folder has not done, and gives the result.
///
/// # Errors
/// Those of opening; a budget that nothing keeps to; a text that leaves no window to check on; a folder
/// of another tuning; the first cell that failed.
pub fn run(request: &Request, hub: &Hub, progress: &mut dyn SweepObserver) -> Result<Tuning> {
    let start = Instant::now();
    let mut shared = Shared::default();
    let opened = open(request, hub, &mut shared, progress)?;
    let estimate = estimated(request, &opened, 0, progress)?;
    check_folder(request)?;
    progress.note(&told(&opened, &estimate));
    let mut run = Run { request, hub, shared, progress };

    let clock = Instant::now();
    let parts = opened.parts();
    let alone = parts.alone();
    let first = request.settings.first_window;
    let measuring = request.on(request.measuring(), first, opened.measured, &alone);
    let mut measured = run.sweep(PARTS, vec![measuring])?;
    let cells = measured.pop().unwrap_or_default().cells_of_all()?;
    let measurements = cells.len();
    let (subject, baseline) = match cells.first() {
        Some(cell) => (cell.subject.clone(), cell.baseline.clone()),
        None => return Err(Error::system("no part was measured")),
    };
    let measured = parts.measured(cells.iter().map(|cell| &cell.figures));
    let measuring = clock.elapsed().as_secs_f64();

    let clock = Instant::now();
    let assignment = run.assign(&measured, &opened)?;
    let assigning = clock.elapsed().as_secs_f64();

    let clock = Instant::now();
    let whole = measured.treatment(&assignment)?;
    let Checked { whole_measured, unseen, unchecked } = run.check(&opened, &measured, &whole)?;
    let layers = measured.layers(&assignment);
    let klds = layers.iter().flat_map(|of| [&of.key, &of.value]);
    let klds = klds.map(|part| part.chosen.kld_per_window.as_slice());
    let of_whole = &whole_measured.figures;
    // Under the protocol that parts were measured under, which comes first.
    let on_unseen = unseen.first().and_then(|unseen| unseen.tuned.as_ref());
    let on_unseen = on_unseen.map_or(&[][..], |tuned| &tuned.figures.kld_per_window);
    let settings = &request.settings;
    Ok(Tuning {
        schema: SCHEMA,
        kvgauge_version: env!("CARGO_PKG_VERSION"),
        subject,
        baseline,
        budget: request.budget,
        candidates: opened.candidates.iter().map(|candidate| candidate.name.clone()).collect(),
        codec: whole.to_string(),
        bits: 16.0 * of_whole.cache_bytes_per_token / of_whole.cache_bytes_per_token_f16,
        cache_bytes_per_token: of_whole.cache_bytes_per_token,
        cache_bytes_per_token_f16: of_whole.cache_bytes_per_token_f16,
        sum: SumAndWhole::new(klds, &of_whole.kld_per_window, on_unseen),
        layers,
        unseen,
        unchecked,
        measurements,
        config: Settings {
            context: Some(opened.subject.context),
            threads: Some(rayon::current_num_threads()),
            ..request.on(settings.clone(), first, opened.measured, &opened.treatments())
        },
        timings_s: TuneTimings {
            measuring,
            assigning,
            validating: clock.elapsed().as_secs_f64(),
            total: start.elapsed().as_secs_f64(),
        },
        peak_rss_bytes: platform::peak_rss_bytes(),
    })
}

struct Run<'a> {
    request: &'a Request,
    hub: &'a Hub,
    shared: Shared,
    progress: &'a mut dyn SweepObserver,
}

/// What was measured of the whole.
struct Checked {
    /// On the windows that parts were measured on.
    whole_measured: CellResult,
    unseen: Vec<Unseen>,
    unchecked: Vec<Unchecked>,
}

/// The cells of one subject and protocol, in the order of its codecs.
#[derive(Default)]
struct SweptRun(Vec<std::result::Result<CellResult, RefusedCodec>>);

impl SweptRun {
    /// # Errors
    /// One that the protocol cannot take.
    fn cells_of_all(self) -> Result<Vec<CellResult>> {
        let refused = |RefusedCodec { error, hint, .. }: RefusedCodec| {
            let error = Error::input(error);
            if let Some(hint) = hint { error.hint(hint) } else { error }
        };
        self.0.into_iter().map(|cell| cell.map_err(refused)).collect()
    }
}

impl Run<'_> {
    /// Cells that are not done yet, in a folder within the output folder; one for each of `settings`
    /// and its protocols.
    fn sweep(&mut self, folder: &str, settings: Vec<Settings>) -> Result<Vec<SweptRun>> {
        let request = self.request;
        let counts = settings.iter().flat_map(|settings| {
            settings.protocols().each().into_iter().map(|_| settings.codec.len())
        });
        let counts: Vec<usize> = counts.collect();
        let of_sweep = sweep::Request {
            source: SweepSource {
                command: request.command.clone(),
                config_path: String::new(),
                config: folder::identity(request)?,
            },
            settings,
            output: request.output.join(folder),
            shard: Shard::WHOLE,
            cuts: Vec::new(),
            force: request.force,
            is_shared: true,
        };
        let outcome = sweep::run(&of_sweep, self.hub, &mut self.shared, self.progress)?;
        if let Some(error) = outcome.first_failure {
            let total = counted(outcome.total, "measurement");
            return Err(error.within(format!("{} of {total} failed, the first", outcome.failed)));
        }
        let mut planned = outcome.plan.cells.into_iter();
        let mut of_run = |count: usize| {
            let cell = |cell: crate::results::plan::PlannedCell| match (cell.refused, cell.id) {
                (Some(refused), _) => Ok(Err(refused)),
                (None, id) => {
                    let done = id.and_then(|id| outcome.cells.result(&id).cloned());
                    done.map(Ok).ok_or_else(|| Error::system("a measurement left no result"))
                }
            };
            planned.by_ref().take(count).map(cell).collect::<Result<Vec<_>>>().map(SweptRun)
        };
        counts.into_iter().map(&mut of_run).collect()
    }

    /// Within a limit on the damage the sum of the parts is not the whole: where the whole is above
    /// the limit, the sum is held to less.
    fn assign(&mut self, measured: &Measured, opened: &Opened) -> Result<Assignment> {
        let first = measured.assign(self.request.budget)?;
        let Budget::MaxKld(limit) = self.request.budget else { return Ok(first) };
        let (mut assignment, mut sum) = (first, limit);
        for _ in 0..ROUNDS {
            let whole = measured.treatment(&assignment)?;
            let found = self.on_measured(opened, &whole)?.figures.kld_mean;
            if found <= limit {
                break;
            }
            // A little less: the whole need not follow in proportion.
            sum *= 0.98 * limit / found;
            match measured.assign(Budget::MaxKld(sum)) {
                Ok(next) => assignment = next,
                // No assignment is known to do; the limit's verdict says what this one does.
                Err(_) => break,
            }
        }
        Ok(assignment)
    }

    fn on_measured(&mut self, opened: &Opened, whole: &Treatment) -> Result<CellResult> {
        let settings = self.measured_whole(opened, whole);
        let swept = self.sweep(WHOLE, vec![settings])?.pop().unwrap_or_default();
        swept.cells_of_all()?.pop().ok_or_else(|| Error::system("the whole was not measured"))
    }

    fn measured_whole(&self, opened: &Opened, whole: &Treatment) -> Settings {
        let request = self.request;
        let first = request.settings.first_window;
        request.on(request.measuring(), first, opened.measured, std::slice::from_ref(whole))
    }

    /// The whole on the windows that parts were measured on; on those behind them, under every protocol,
    /// the whole and the uniform candidates that take no more than it may.
    fn check(
        &mut self,
        opened: &Opened,
        measured: &Measured,
        whole: &Treatment,
    ) -> Result<Checked> {
        let request = self.request;
        let whole_measured = self.on_measured(opened, whole)?;
        let CellResult { figures, .. } = &whole_measured;
        let own = 16.0 * figures.cache_bytes_per_token / figures.cache_bytes_per_token_f16;
        let most = match request.budget {
            Budget::Bits(bits) => bits,
            Budget::MaxKld(_) => own,
        };
        let mut codecs = vec![whole.clone()];
        for candidate in &opened.candidates {
            let fits = measured.bits_of(&candidate.codec) <= most * (1.0 + 1e-9);
            if fits && !codecs.contains(&candidate.treatment()) {
                codecs.push(candidate.treatment());
            }
        }
        // Of a run in 16 bits, the control beside them.
        let floor = request.settings.dtype.floor();
        let added = floor.clone().filter(|floor| !codecs.contains(floor));
        codecs.extend(added.clone());
        let [floor, added] = [floor, added].map(|codec| codec.map(|codec| codec.to_string()));
        let first = request.settings.first_window + opened.measured;
        let count = opened.unseen();
        let on_unseen = request.on(request.settings.clone(), first, count, &codecs);
        let protocols = on_unseen.protocols().each();
        let swept = self.sweep(WHOLE, vec![on_unseen])?;
        let (limits, batch) = (request.settings.limits(), request.settings.batch);
        let candidates: Vec<String> =
            opened.candidates.iter().map(|candidate| candidate.name.clone()).collect();
        let (mut unseen, mut unchecked) = (Vec::new(), Vec::new());
        for (protocol, SweptRun(cells)) in protocols.into_iter().zip(swept) {
            let mut found = cells.iter().filter_map(|cell| cell.as_ref().ok());
            let found = found.find(|cell| Some(&cell.figures.codec) != added.as_ref());
            let Some(found) = found else {
                let refused = cells.into_iter().filter_map(std::result::Result::err).collect();
                unchecked.push(Unchecked { protocol, refused });
                continue;
            };
            let CellResult { subject, mut baseline, .. } = found.clone();
            let (mut results, mut refused) = (Vec::new(), Vec::new());
            for cell in cells {
                match cell {
                    Ok(cell) => {
                        results.push(cell.figures.judge(&subject, &baseline, &limits, batch))
                    }
                    Err(cell) => refused.push(cell),
                }
            }
            let name = whole.to_string();
            let tuned = results.iter().find(|result| result.figures.codec == name).cloned();
            let control =
                results.iter().find(|result| Some(&result.figures.codec) == floor.as_ref());
            baseline.floor = control.map(|control| Floor::of(&control.figures));
            let is_uniform = |result: &CodecResult| candidates.contains(&result.figures.codec);
            results.retain(is_uniform);
            let against_best =
                tuned.as_ref().and_then(|tuned| AgainstUniform::best_of(tuned, &results));
            unseen.push(Unseen {
                protocol,
                first_window: subject.first_window,
                windows: subject.windows,
                scored_tokens: subject.scored_tokens,
                baseline,
                tuned,
                uniform: results,
                refused,
                against_best,
                subject,
            });
        }
        Ok(Checked { whole_measured, unseen, unchecked })
    }
}

/// Estimates what [`run`] would take; opens what it would open, but no weights, and writes nothing.
///
/// # Errors
/// Those of opening; a run that does not fit into memory.
pub fn dry_run(request: &Request, hub: &Hub, stages: &mut dyn Stages) -> Result<DryRun> {
    let opened = open(request, hub, &mut Shared::default(), stages)?;
    let base = platform::peak_rss_bytes().unwrap_or(0);
    estimated(request, &opened, base, stages)
}
