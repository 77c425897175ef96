//! One subject on its way through its windows, with the codecs that are not done.

use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::eval::{CodecOutcome, CodecWindow, WindowOutcome};
use crate::model::Llama;
use crate::model::oracle::WeightsRef;
use crate::results::figures::{Baseline, CodecFigures, CodecResult};
use crate::results::record::{
    ArmRecord, CellName, CellRecord, CellResult, PlannedCell, WindowRecord,
};
use crate::results::subject::SubjectInfo;
use crate::run::subject::Subject;
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
    pub arms: Vec<Arm>,
}

/// A codec on its way through the windows of a subject.
pub struct Arm {
    pub name: CellName,
    pub id: String,
    pub codec: Codec,
    /// By window; `None`: not done yet.
    pub windows: Vec<Option<CodecWindow>>,
}

impl SubjectRun<'_> {
    pub fn load(&self) -> Result<Llama> {
        let (dtype, device) = (self.settings.dtype.dtype(), self.settings.device.open()?);
        Llama::load(&self.subject.model.config, self.weights.as_ref(), dtype, &device)
    }

    pub fn cells(&self) -> Vec<PlannedCell> {
        self.arms.iter().map(Arm::cell).collect()
    }

    pub fn tokens_left(&self) -> usize {
        let tokens = |window| match self.waiting(window).count() {
            0 => 0,
            arms => self.info.protocol.model_tokens(self.info.context, arms),
        };
        (0..self.info.windows).map(tokens).sum()
    }

    /// Arms that this window is still to come for.
    pub fn waiting(&self, window: usize) -> impl Iterator<Item = &Arm> {
        self.arms.iter().filter(move |arm| arm.windows[window].is_none())
    }

    pub fn take_over(&mut self, record: &WindowRecord) {
        let Some(baseline) = self.baseline.get_mut(record.window) else { return };
        *baseline = Some(record.baseline.clone());
        for arm in &mut self.arms {
            if let Some(done) = record.arms.iter().find(|done| done.cell_id == arm.id) {
                arm.windows[record.window] = Some(done.outcome.clone());
            }
        }
    }

    /// Adds the outcome of the arms that were waiting for this window, in their order. Those that
    /// failed leave.
    pub fn add(
        &mut self,
        window: usize,
        outcome: WindowOutcome,
    ) -> (WindowRecord, Vec<(PlannedCell, Error)>) {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        let mut outcomes = outcome.arms.into_iter();
        self.arms.retain_mut(|arm| {
            if arm.windows[window].is_some() {
                return true;
            }
            match outcomes.next() {
                Some(Ok(outcome)) => {
                    arm.windows[window] = Some(outcome.clone());
                    done.push(ArmRecord { cell_id: arm.id.clone(), outcome });
                    true
                }
                Some(Err(error)) => {
                    failed.push((arm.cell(), error));
                    false
                }
                None => true,
            }
        });
        self.baseline[window] = Some(outcome.baseline.clone());
        (WindowRecord::new(self.id.clone(), window, outcome.baseline, done), failed)
    }

    /// What the baseline and the arms came to on the first `windows` windows, all of which are
    /// done.
    fn figures(&self, windows: usize) -> (Baseline, impl Iterator<Item = (&Arm, CodecFigures)>) {
        let known = self.baseline.iter().take(windows).flatten();
        let nll: Vec<Vec<f64>> = known.cloned().collect();
        let baseline = Baseline::of(&nll);
        let arms = self.arms.iter().map(move |arm| {
            let windows = arm.windows.iter().take(windows).flatten().cloned().collect();
            let outcome = CodecOutcome { codec: arm.codec, windows };
            (arm, CodecFigures::new(&outcome, &nll, &self.info))
        });
        (baseline, arms)
    }

    /// What is known of the arms after the first `windows` windows.
    pub fn so_far(&self, windows: usize) -> Vec<CodecResult> {
        let (baseline, arms) = self.figures(windows);
        let limits = &self.settings.limits();
        arms.map(|(_, figures)| figures.judge(&self.info, &baseline, limits)).collect()
    }

    pub fn records(&self) -> Vec<CellRecord> {
        let (baseline, arms) = self.figures(self.info.windows);
        let record = |(arm, figures): (&Arm, CodecFigures)| {
            let result = CellResult {
                id: arm.id.clone(),
                subject_id: self.id.clone(),
                subject: self.info.clone(),
                baseline: baseline.clone(),
                figures,
            };
            CellRecord::done(arm.name.clone(), result)
        };
        arms.map(record).collect()
    }
}

impl Arm {
    fn cell(&self) -> PlannedCell {
        PlannedCell { name: self.name.clone(), id: Some(self.id.clone()), refused: None }
    }
}
