//! One subject on its way through its windows, with the codecs that are not done.

use super::CELLS_AT_ONCE;
use crate::error::{Error, Result};
use crate::eval::{Arm, CodecWindow, Treatment, WindowOutcome};
use crate::model::Model;
use crate::model::oracle::WeightsRef;
use crate::results::figures::{Baseline, CodecFigures, CodecResult};
use crate::results::measurement::{CodecMeasurement, PerTarget};
use crate::results::plan::{CellName, PlannedCell};
use crate::results::record::{ArmRecord, CellLine, CellMeasurement, WindowRecord};
use crate::results::subject::SubjectInfo;
use crate::run::load::choose;
use crate::run::subject::{Stages, Subject};
use crate::settings::Settings;

/// A subject with cells to do.
pub struct SubjectRun<'a> {
    pub settings: &'a Settings,
    pub subject: Subject,
    pub weights: WeightsRef,
    pub info: SubjectInfo,
    pub id: String,
    /// By window; `None`: not known yet.
    pub baseline: Vec<Option<Vec<f64>>>,
    pub pending: Vec<PendingCell>,
}

/// A codec on its way through the windows of a subject.
pub struct PendingCell {
    pub name: CellName,
    pub id: String,
    pub codec: Treatment,
    /// By window; `None`: not done yet.
    pub windows: Vec<Option<CodecWindow>>,
}

impl SubjectRun<'_> {
    pub fn load(&self, stages: &mut dyn Stages) -> Result<Model> {
        let (settings, model) = (self.settings, &self.subject.model);
        let device = settings.device.open()?;
        choose(settings, model)?.load(settings, model, self.weights.as_ref(), &device, stages)
    }

    pub fn cells(&self) -> Vec<PlannedCell> {
        self.pending.iter().map(PendingCell::cell).collect()
    }

    pub fn tokens_left(&self) -> usize {
        let tokens = |window: usize| {
            // Each batch of cells has the baseline beside it.
            let batches = self.waiting(window);
            let of_batch = |batch: &[String]| {
                let shape = self.subject.windows[window].shape();
                self.info.protocol.model_tokens(shape, batch.len())
            };
            batches.chunks(CELLS_AT_ONCE).map(of_batch).sum::<usize>()
        };
        (0..self.info.windows).map(tokens).sum()
    }

    /// Ids of the pending that this window is still to come for.
    pub fn waiting(&self, window: usize) -> Vec<String> {
        let waiting = self.pending.iter().filter(|arm| arm.windows[window].is_none());
        waiting.map(|arm| arm.id.clone()).collect()
    }

    /// The first of them, which go through the window together.
    pub fn waiting_first(&self, window: usize) -> Vec<String> {
        let mut waiting = self.waiting(window);
        waiting.truncate(CELLS_AT_ONCE);
        waiting
    }

    /// The first window from `first` on that is still to come for a pending cell.
    pub fn done_windows(&self, first: usize) -> usize {
        let is_open = |window: &usize| !self.waiting(*window).is_empty();
        (first..self.info.windows).find(is_open).unwrap_or(self.info.windows)
    }

    /// The arm of a pending cell.
    pub fn arm(&self, id: &str) -> Option<Arm> {
        self.pending.iter().find(|arm| arm.id == id).map(|arm| Arm::of(arm.codec.clone()))
    }

    pub fn take_over(&mut self, record: &WindowRecord) {
        let Some(baseline) = self.baseline.get_mut(record.window) else { return };
        *baseline = Some(record.baseline.0.clone());
        let (layers, head_dim) = (self.info.model.layers, self.info.model.head_dim);
        let protocol = self.info.protocol;
        let shape = self.subject.windows[record.window].shape();
        for arm in &mut self.pending {
            if let Some(done) = record.arms.iter().find(|done| done.cell_id == arm.id) {
                let mut outcome = done.outcome.clone();
                // Lines of version 1 do not have it.
                let affected = protocol
                    .seen_of(&arm.codec, layers, &self.info.model.sliding_windows)
                    .and_then(|codecs| protocol.targets_affected(head_dim, shape, &codecs));
                if let Ok(affected) = affected {
                    outcome.targets_affected = affected as u64;
                }
                arm.windows[record.window] = Some(outcome);
            }
        }
    }

    /// Adds the outcome of the pending with these ids, in their order, for one window. Those that failed
    /// leave, as those have left that failed before.
    pub fn add(
        &mut self,
        window: usize,
        ids: &[String],
        outcome: WindowOutcome,
    ) -> (WindowRecord, Vec<(PlannedCell, Error)>) {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (id, outcome) in ids.iter().zip(outcome.arms) {
            let Some(place) = self.pending.iter().position(|arm| arm.id == *id) else { continue };
            match outcome {
                Ok(outcome) => {
                    self.pending[place].windows[window] = Some(outcome.clone());
                    done.push(ArmRecord { cell_id: id.clone(), outcome });
                }
                Err(error) => failed.push((self.pending.remove(place).cell(), error)),
            }
        }
        self.baseline[window] = Some(outcome.baseline.clone());
        (WindowRecord::new(self.id.clone(), window, outcome.baseline, done), failed)
    }

    /// −ln p of the first `windows` windows, which are done, under the untouched cache.
    fn baseline_of(&self, windows: usize) -> Vec<Vec<f64>> {
        self.baseline.iter().take(windows).flatten().cloned().collect()
    }

    /// Figures of the pending after the first `windows` windows.
    pub fn so_far(&self, windows: usize) -> Vec<CodecResult> {
        let nll = self.baseline_of(windows);
        let baseline = Baseline::of(&nll);
        let figures = |arm: &PendingCell| {
            let measured = arm.measured(windows);
            CodecFigures::new(&measured.codec, &measured.windows, &nll, &self.info)
        };
        let (limits, batch) = (&self.settings.limits(), self.settings.batch);
        let judged = |arm| figures(arm).judge(&self.info, &baseline, limits, batch);
        self.pending.iter().map(judged).collect()
    }

    /// Lines of the finished cells, for the log.
    pub fn lines(&self) -> Vec<CellLine> {
        let windows = self.info.windows;
        let baseline: Vec<PerTarget> =
            self.baseline_of(windows).into_iter().map(PerTarget).collect();
        let line = |arm: &PendingCell| {
            let measurement = CellMeasurement {
                id: arm.id.clone(),
                subject_id: self.id.clone(),
                subject: self.info.clone(),
                baseline: baseline.clone(),
                measured: arm.measured(windows),
            };
            CellLine::done(arm.name.clone(), measurement)
        };
        self.pending.iter().map(line).collect()
    }
}

impl PendingCell {
    /// The first `windows` windows, which are done.
    fn measured(&self, windows: usize) -> CodecMeasurement {
        let windows = self.windows.iter().take(windows).flatten().cloned().collect();
        CodecMeasurement { codec: self.codec.to_string(), windows }
    }

    fn cell(&self) -> PlannedCell {
        PlannedCell { name: self.name.clone(), id: Some(self.id.clone()), refused: None }
    }
}
