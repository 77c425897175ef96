//! The report of a sweep, put together from the plans and the cells of its folders.

use super::cells::Cells;
use super::plans::merged;
use crate::eval::protocol::{Protocol, Protocols};
use crate::eval::verdict::Limits;
use crate::results::plan::{CellName, Plan, PlannedCell};
use crate::results::record::{CellFailure, CellResult};
use crate::results::sweep::{
    Asked, ProtocolCells, SubjectReport, SweepReport, SweepSource, UnfinishedCell,
};
use std::collections::HashMap;

impl Cells {
    /// The report on the cells of these plans. `batch`: sequences that the saved GB are of.
    pub fn report(&self, plans: &[Plan], limits: &Limits, batch: usize) -> SweepReport {
        let mut sweeps: Vec<SweepSource> = Vec::new();
        for plan in plans.iter().filter(|plan| !plan.cells.is_empty()) {
            let source = plan.source.with_terms((&plan.limits, plan.batch), (limits, batch));
            if !sweeps.iter().any(|known| known.is_same_sweep(&source)) {
                sweeps.push(source);
            }
        }
        let mut asked: HashMap<Place, Asked> = HashMap::new();
        // By id of the subject, which the protocol is part of, in the order of the plans.
        let mut parts: Vec<(String, Place, ProtocolCells)> = Vec::new();
        let (mut failed, mut missing) = (Vec::new(), Vec::new());
        let done = |cell: &PlannedCell| cell.id.as_ref().and_then(|id| self.result(id));
        for cell in merged(plans, |cell| done(cell).is_some() || self.failure(cell).is_some()) {
            let place = Place::of(&cell.name);
            let asked = asked.entry(place.clone()).or_default();
            let protocol = cell.name.protocol.as_deref().and_then(known_protocol);
            asked.protocols.extend(protocol.filter(|name| !asked.protocols.contains(name)));
            if let Some(refused) = cell.refused {
                asked.refused.push(refused);
                continue;
            }
            let Some(result) = done(&cell) else {
                let failure = self.failure(&cell).cloned();
                let name = cell.name;
                let list = if failure.is_some() { &mut failed } else { &mut missing };
                list.push(unfinished(name, failure));
                continue;
            };
            let CellResult { id, subject_id, subject, baseline, figures } = result;
            let judged = figures.clone().judge(subject, baseline, limits, batch);
            match parts.iter_mut().find(|(known, ..)| known == subject_id) {
                // One cell under two names, as when a model lies at two paths, is one cell.
                Some((.., part)) if part.cells.iter().any(|(other, _)| other == id) => {}
                Some((.., part)) => part.cells.push((id.clone(), judged)),
                None => {
                    // As it is called here, whatever it was called when it was computed.
                    let mut subject = subject.clone();
                    subject.model.provenance.source = cell.name.model;
                    subject.text.source = cell.name.text;
                    let cells = vec![(id.clone(), judged)];
                    let part = ProtocolCells { subject, baseline: baseline.clone(), cells };
                    parts.push((subject_id.clone(), place, part));
                }
            }
        }
        let mut subjects = Vec::new();
        while !parts.is_empty() {
            let (_, place, first) = parts.remove(0);
            let is_beside = |(_, other, part): &(String, Place, ProtocolCells)| {
                *other == place && first.subject.is_beside(&part.subject)
            };
            let beside = parts.iter().position(is_beside).map(|at| parts.remove(at).2);
            let asked = asked.get(&place).cloned().unwrap_or_default();
            // `prefix` first, whichever was planned first.
            let (first, decode) = match beside {
                Some(other) if !matches!(first.subject.protocol, Protocol::Prefix { .. }) => {
                    (other, Some(first))
                }
                other => (first, other),
            };
            subjects.push(SubjectReport::new(first, decode, &asked, limits));
        }
        SweepReport::new(sweeps, *limits, batch, subjects, failed, missing)
    }
}

/// Model, text and context: cells that share them are compared with each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    model: String,
    text: String,
    context: Option<usize>,
}

impl Place {
    fn of(name: &CellName) -> Self {
        let CellName { model, text, context, .. } = name.key();
        Self { model, text, context }
    }
}

/// The protocol of a plan's word for it.
fn known_protocol(name: &str) -> Option<&'static str> {
    let known = Protocols::Both { residual: 0, chunk: 1 }.each();
    known.into_iter().map(Protocol::name).find(|known| *known == name)
}

pub(super) fn unfinished(name: CellName, failure: Option<CellFailure>) -> UnfinishedCell {
    let CellName { model, text, context, protocol, codec } = name;
    let (error, hint) = failure.map_or((None, None), |failure| (Some(failure.error), failure.hint));
    UnfinishedCell { model, text, context, protocol, codec, error, hint }
}
