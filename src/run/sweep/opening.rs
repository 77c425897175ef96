//! The opening of a sweep's models and texts, before anything is computed: which cells can be run, and
//! which of those are done already.

use super::subject_run::{PendingCell, SubjectRun};
use super::{Request, Sweep};
use crate::error::{Error, Kind, Result};
use crate::eval::{Protocol, Treatment};
use crate::hub::Hub;
use crate::model::oracle;
use crate::model::source::ModelWeights;
use crate::results::plan::{CellName, PlannedCell};
use crate::results::record::{cell_id, subject_id};
use crate::run::subject::{Refusal, SharedInputs, Stages, Subject, check_codec, scales_note};
use crate::settings::Settings;
use std::collections::{HashMap, HashSet};

/// A subject with cells of this shard, before its weights are fetched. Cells by index in the plan.
pub struct Opened<'a> {
    pub settings: &'a Settings,
    pub protocol: Protocol,
    /// To run, if the subject is there.
    pub cells: Vec<(usize, Treatment)>,
    /// Those that this protocol cannot take.
    pub refused: Vec<(usize, Refusal)>,
    /// Those whose codec cannot be used on this model at this context.
    pub failed: Vec<(usize, Error)>,
    pub subject: Result<Subject>,
}

impl Opened<'_> {
    /// Whether there are cells to run; now, or when machine and network let them.
    fn has_cells(&self) -> bool {
        !self.cells.is_empty()
            && self.subject.as_ref().err().is_none_or(|error| error.kind() == Kind::System)
    }

    /// The first that is wrong.
    fn first_error(&self) -> Option<&Error> {
        let of_codecs = self.failed.iter().map(|(_, error)| error);
        of_codecs.chain(self.subject.as_ref().err()).next()
    }
}

/// Opens the models and texts of this shard's cells.
///
/// # Errors
/// A sweep of which no cell can be run.
pub fn open<'a>(
    request: &'a Request,
    hub: &Hub,
    shared: &mut SharedInputs,
    stages: &mut dyn Stages,
) -> Result<Vec<Opened<'a>>> {
    let total = request.runs().map(|(settings, _)| settings.codec.len()).sum();
    let mine = request.shard.range(total, &request.cuts)?;
    if let Some(settings) = request.settings.first() {
        settings.device.open()?;
    }
    let (mut opened, mut first) = (Vec::new(), 0);
    for (settings, protocol) in request.runs() {
        let all = first..first + settings.codec.len();
        first = all.end;
        let own = all.start.max(mine.start)..all.end.min(mine.end);
        if own.is_empty() {
            continue;
        }
        let codecs = &settings.codec[own.start - all.start..own.end - all.start];
        let mut checked = vec![Ok(None); codecs.len()];
        let subject = Subject::open(settings, hub, shared, stages, |config, context| {
            if settings.cross_check {
                oracle::supported(config, context)?;
            }
            for (codec, checked) in codecs.iter().zip(&mut checked) {
                *checked = check_codec(config, settings.protocols(), protocol, context, codec);
            }
            Ok(())
        });
        let (mut cells, mut refused, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (cell, (codec, checked)) in own.zip(codecs.iter().zip(checked)) {
            match checked {
                Ok(None) => cells.push((cell, codec.value.clone())),
                Ok(Some(refusal)) => refused.push((cell, refusal)),
                Err(error) => failed.push((cell, error)),
            }
        }
        opened.push(Opened { settings, protocol, cells, refused, failed, subject });
    }
    // A shard does not know what the others can run.
    if request.shard.is_whole()
        && !opened.iter().any(Opened::has_cells)
        && let Some(error) = opened.iter().find_map(Opened::first_error)
    {
        return Err(error.clone());
    }
    Ok(opened)
}

impl Sweep<'_> {
    /// Ids of cells that earlier runs in this folder have finished, by name.
    fn finished(&self) -> Result<HashMap<CellName, String>> {
        let earlier = self.folder.plans()?.into_iter().flat_map(|plan| plan.cells);
        let done = earlier.filter_map(|cell| Some((cell.name.key(), cell.id?)));
        Ok(done.filter(|(_, id)| self.cells.is_done(id)).collect())
    }

    /// Cells that cannot be run as they were asked for.
    ///
    /// # Errors
    /// One that an earlier run has finished, with other settings: its figures would stand in the report
    /// in the place of the failure.
    fn fail_for_good(
        &mut self,
        cells: impl IntoIterator<Item = usize>,
        error: Error,
    ) -> Result<()> {
        let cells: Vec<PlannedCell> =
            cells.into_iter().map(|cell| self.plan.cells[cell].clone()).collect();
        let finished = self.finished()?;
        match cells.iter().find(|cell| finished.contains_key(&cell.name.key())) {
            None => self.fail(cells, error),
            Some(PlannedCell { name: CellName { model, codec, .. }, .. }) => {
                Err(error.within(format!(
                    "{model}, {codec}: an earlier run in this folder finished it with other settings, \
                     which another --output keeps apart, and now"
                )))
            }
        }
    }

    /// A model or text that cannot be had, for the moment: its cells fail, but those an earlier run of
    /// this sweep has finished.
    fn fail_unopened(&mut self, cells: &[(usize, Treatment)], error: Error) -> Result<()> {
        let ids = self.finished()?;
        let mut lost = Vec::new();
        for (cell, _) in cells {
            let planned = &mut self.plan.cells[*cell];
            match ids.get(&planned.name.key()) {
                Some(id) => planned.id = Some(id.clone()),
                None => lost.push(planned.clone()),
            }
        }
        if lost.is_empty() {
            self.progress.note(&format!("cells of an earlier run are kept: {error}"));
            return Ok(());
        }
        self.fail(lost, error)
    }

    /// Fetches and opens the weights, which tells the cells' ids, hence which are done.
    pub(super) fn open_weights<'a>(
        &mut self,
        opened: Vec<Opened<'a>>,
        noted_scales: &mut HashSet<String>,
    ) -> Result<Vec<SubjectRun<'a>>> {
        let mut opened_weights: HashMap<&str, Result<ModelWeights>> = HashMap::new();
        let (mut runs, mut planned_ids) = (Vec::new(), HashSet::new());
        for Opened { settings, protocol, cells, failed, subject, .. } in opened {
            for (cell, error) in failed {
                self.fail_for_good([cell], error)?;
            }
            if cells.is_empty() {
                continue;
            }
            let subject = match subject {
                Err(error) if error.kind() == Kind::Input => {
                    self.fail_for_good(cells.iter().map(|(cell, _)| *cell), error)?;
                    continue;
                }
                subject => subject,
            };
            let there = subject.and_then(|subject| {
                self.progress.stage("opening the weights");
                let weights = opened_weights
                    .entry(&settings.model)
                    .or_insert_with(|| subject.model.weights());
                let weights = weights.clone()?;
                if let Some(note) = scales_note(settings, &weights)
                    && noted_scales.insert(settings.model.clone())
                {
                    self.progress.note(&note);
                }
                let ModelWeights { weights, provenance, .. } = weights;
                let info = subject.info(settings, protocol, provenance);
                Ok((subject_id(&info)?, subject, weights, info))
            });
            let (id, subject, weights, info) = match there {
                Ok(there) => there,
                Err(error) => {
                    self.fail_unopened(&cells, error)?;
                    continue;
                }
            };
            let mut pending = Vec::new();
            for (cell, codec) in cells {
                let planned = &mut self.plan.cells[cell];
                let cell_id = cell_id(&id, &planned.name.codec, info.dtype);
                planned.id = Some(cell_id.clone());
                // A cell that is asked for twice is done once.
                if !self.cells.is_done(&cell_id) && planned_ids.insert(cell_id.clone()) {
                    let windows = vec![None; info.windows];
                    let name = planned.name.clone();
                    pending.push(PendingCell { name, id: cell_id, codec, windows });
                }
            }
            if !pending.is_empty() {
                let baseline = vec![None; info.windows];
                runs.push(SubjectRun { settings, subject, weights, info, id, baseline, pending });
            }
        }
        Ok(runs)
    }
}
