//! Estimates of a sweep.

use super::Request;
use super::assemble::unfinished;
use super::opening::{Opened, open};
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::hub::Hub;
use crate::platform;
use crate::results::plan::Plan;
use crate::results::record::CellFailure;
use crate::results::sweep::UnfinishedCell;
use crate::results::timings::DryRun;
use crate::run::estimate::{estimate, together};
use crate::run::subject::{SharedInputs, Stages};

/// Opens what [`super::run`] would open, but no weights, and writes nothing. With the first error of a
/// cell, where some would fail.
///
/// # Errors
/// Those of opening.
pub fn dry_run(
    request: &Request,
    hub: &Hub,
    stages: &mut dyn Stages,
) -> Result<(DryRun, Option<Error>)> {
    let opened = open(request, hub, &mut SharedInputs::default(), stages)?;
    // Program, texts, tokenizers.
    let base = platform::peak_rss_bytes().unwrap_or(0);
    let mut failures = Failures { plan: request.plan(), cells: Vec::new(), first: None };
    let mut there = Vec::new();
    // In the order of a sweep, which opens all before it runs one.
    for Opened { settings, protocol, cells, failed, subject, .. } in opened {
        for (cell, error) in failed {
            failures.add([cell], error);
        }
        match subject {
            Ok(_) if cells.is_empty() => {}
            Ok(subject) => there.push((settings, protocol, cells, subject)),
            Err(error) => failures.add(cells.iter().map(|(cell, _)| *cell), error),
        }
    }
    let mut subjects = Vec::new();
    for (settings, protocol, cells, subject) in there {
        stages.stage("measuring one layer");
        let codecs: Vec<Treatment> = cells.iter().map(|(_, codec)| codec.clone()).collect();
        match estimate(settings, protocol, &subject, &codecs, |_| 1) {
            Ok(estimated) => subjects.push(estimated),
            Err(error) => failures.add(cells.iter().map(|(cell, _)| *cell), error),
        }
    }
    Ok((together(subjects, failures.cells, base), failures.first))
}

/// Cells that would fail.
struct Failures {
    plan: Plan,
    cells: Vec<UnfinishedCell>,
    first: Option<Error>,
}

impl Failures {
    /// `cells`: by index in the plan.
    fn add(&mut self, cells: impl IntoIterator<Item = usize>, error: Error) {
        for cell in cells {
            let name = self.plan.cells[cell].name.clone();
            self.cells.push(unfinished(name, Some(CellFailure::new(None, &error))));
            self.first.get_or_insert_with(|| error.clone());
        }
    }
}
