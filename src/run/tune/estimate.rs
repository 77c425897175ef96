//! The time and memory that `tune` would take, and budgets that it need not begin with.

use super::opened::Opened;
use super::{Request, candidates, parts};
use crate::codec::Side;
use crate::error::Result;
use crate::eval::Treatment;
use crate::results::print::{counted, duration, windows};
use crate::results::timings::{CellEstimate, DryRun};
use crate::results::tuning::Budget;
use crate::run::estimate::{estimate, together};
use crate::run::subject::{Stages, Subject};
use std::rc::Rc;

/// Measuring the parts, and then the whole and the uniform candidates on the other windows.
pub fn estimated(
    request: &Request,
    opened: &Opened,
    base: u64,
    stages: &mut dyn Stages,
) -> Result<DryRun> {
    stages.stage("measuring one layer");
    let Opened { candidates, subject, measured } = opened;
    let windows = |range: std::ops::Range<usize>| Subject {
        model: Rc::clone(&subject.model),
        text: Rc::clone(&subject.text),
        text_tokens: subject.text_tokens,
        context: subject.context,
        bos: subject.bos,
        windows: subject.windows[range].to_vec(),
    };
    let settings = &request.settings;
    let layers = subject.model.config.layers.len();
    let sides = [Side::Key, Side::Value].map(|side| candidates::alone(candidates, side));
    let mut subjects = Vec::new();
    for protocol in request.protocols().each() {
        let subject = windows(0..*measured);
        let estimated = estimate(settings, protocol, &subject, &sides.concat(), |_| layers)?;
        let (keys, values) = estimated.cells.split_at(sides[0].len());
        let least = |cells: &[CellEstimate]| {
            cells.iter().map(|cell| cell.bits_per_value).fold(16.0, f64::min)
        };
        // Each beside f16 on the other side.
        refuse_below(request.budget, least(keys) + least(values) - 16.0)?;
        subjects.push(estimated);
    }
    let mut codecs = opened.treatments();
    codecs.extend(settings.dtype.floor().filter(|floor| !codecs.contains(floor)));
    // As if all candidates were small enough, which leaves room for the whole.
    let of_whole = |codec: &Treatment| if codecs.first() == Some(codec) { 2 } else { 1 };
    for protocol in settings.protocols().each() {
        let subject = windows(*measured..subject.windows.len());
        // Beside `prefix`, `decode` may not take all.
        subjects.extend(estimate(settings, protocol, &subject, &codecs, of_whole).ok());
    }
    Ok(together(subjects, Vec::new(), base))
}

/// Before anything long is done: bits of one window are those of all, but for blocks that are not full.
fn refuse_below(budget: Budget, least: f64) -> Result<()> {
    /// Far more than layers differ by.
    const ROOM: f64 = 0.05;
    match budget {
        Budget::Bits(bits) if bits < least - ROOM => Err(parts::below(bits, least)),
        _ => Ok(()),
    }
}

/// In a line, before the run begins.
pub fn told(opened: &Opened, estimate: &DryRun) -> String {
    format!(
        "{} parts, {} measurements on {} and a check on {}: about {} in all on this \
         machine as busy as it is now",
        2 * opened.subject.model.config.layers.len(),
        opened.parts().alone().len(),
        windows(opened.measured),
        counted(opened.unseen(), "other"),
        duration(estimate.seconds)
    )
}
