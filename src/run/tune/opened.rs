//! What a run of `tune` begins with: model, text and candidates, opened and checked.

use super::Request;
use super::candidates::{self, Candidate};
use super::parts::Parts;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::hub::Hub;
use crate::run::subject::{Stages, Subject};
use crate::run::sweep::Shared;
use crate::settings::{Given, Settings, WindowCount};

/// What a run begins with: the inputs, opened.
pub struct Opened {
    /// At least one.
    pub candidates: Vec<Candidate>,
    /// The windows of both kinds.
    pub subject: Subject,
    /// Of the subject's windows, those that parts are measured on.
    pub measured: usize,
}

impl Opened {
    /// Its layers' keys and values.
    pub fn parts(&self) -> Parts {
        Parts::of(self.subject.model.config.layers.len(), &self.candidates)
    }

    /// The candidates, each on the whole cache.
    pub fn treatments(&self) -> Vec<Treatment> {
        self.candidates.iter().map(Candidate::treatment).collect()
    }

    /// Windows that nothing is chosen on.
    pub fn unseen(&self) -> usize {
        self.subject.windows.len() - self.measured
    }
}

/// Opens model and text, and cuts the windows of both kinds.
///
/// # Errors
/// Those of opening; candidates that are none; a text that leaves no window to check on.
pub fn open(
    request: &Request,
    hub: &Hub,
    shared: &mut Shared,
    stages: &mut dyn Stages,
) -> Result<Opened> {
    let settings = &request.settings;
    let Some(measured) = settings.windows.limit() else {
        return Err(Error::input("--windows: expected a number, found all")
            .hint("what is found has to be checked on windows that nothing was chosen on"));
    };
    let asked: &[Given<Treatment>] =
        if request.named_candidates { &settings.codec } else { Default::default() };
    let all = measured.saturating_add(request.unseen_windows);
    let all = Settings { windows: WindowCount::AtMost(all), ..settings.clone() };
    let mut candidates = Vec::new();
    let subject = Subject::open(&all, hub, &mut shared.inputs, stages, |config, context| {
        candidates = candidates::of(asked, request.protocols(), config, context)?;
        Ok(())
    })?;
    let found = subject.windows.len();
    if found <= measured {
        return Err(Error::input(format!(
            "--windows: expected fewer than the {found} of {} tokens that {} has from window {} on, \
             found {measured}: none is left to check on",
            subject.context, subject.text.source, settings.first_window
        ))
        .hint(format!(
            "take a longer text, a shorter --context, or --windows {}",
            (found / 2).max(1)
        )));
    }
    Ok(Opened { candidates, subject, measured })
}
