//! Estimates of a sweep.

use super::{Opened, Request, open};
use crate::error::Result;
use crate::eval::Treatment;
use crate::hub::Hub;
use crate::platform;
use crate::results::timings::DryRun;
use crate::run::estimate::{estimate, together};
use crate::run::subject::Stages;

/// Opens what [`super::run`] would open, but no weights, and writes nothing.
///
/// # Errors
/// Those of opening; a model that does not fit into memory.
pub fn dry_run(request: &Request, hub: &Hub, stages: &mut dyn Stages) -> Result<DryRun> {
    let mut subjects = Vec::new();
    let opened = open(request, hub, stages)?;
    // Program, texts, tokenizers.
    let base = platform::peak_rss_bytes().unwrap_or(0);
    for Opened { settings, protocol, cells, subject, .. } in opened {
        if cells.is_empty() {
            continue;
        }
        stages.stage("measuring one layer");
        let codecs: Vec<Treatment> = cells.iter().map(|(_, codec)| *codec).collect();
        subjects.push(estimate(settings, protocol, &subject?, &codecs, |_| 1)?);
    }
    Ok(together(subjects, base))
}
