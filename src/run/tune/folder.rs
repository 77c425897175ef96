//! The folder of `tune`: the result, the picture, and two sweeps' folders with what was measured.
//!
//! | file | what |
//! |---|---|
//! | `tune.json`, `tune.svg` | the result of the last budget ([`Tuning`](crate::results::tuning::Tuning)), and its picture |
//! | `parts/` | each part alone, a sweep's folder ([`crate::run::sweep`]); a run with another budget uses it again |
//! | `whole/` | what was found, and uniform candidates |

use super::Request;
use crate::error::{Error, Result};
use crate::report::{self, charts};
use crate::results::tuning::Tuning;
use crate::run::sweep;
use crate::settings::{Group, SETTINGS};
use crate::whole_file::{self, Existing, Kind, NewFile};
use serde_json::Value;
use std::path::PathBuf;

/// The folder of the parts.
pub const PARTS: &str = "parts";
/// The folder of the whole.
pub const WHOLE: &str = "whole";
const RESULT: &str = "tune.json";
const PICTURE: &str = "tune.svg";

/// Makes the folder if need be, and finds out whether all can be written into it.
///
/// # Errors
/// A folder of another tuning, but with `--force`; files that kvgauge did not write, and no folder.
pub fn check_folder(request: &Request) -> Result<()> {
    let path = &request.output;
    sweep::check_folder(path)?;
    for (name, kind) in [(RESULT, Kind::Tuning), (PICTURE, Kind::Picture)] {
        NewFile::create(&path.join(name), Existing::own(kind, request.force))
            .map_err(|e| e.within("--output"))?;
    }
    let parts = path.join(PARTS);
    if request.force || !parts.is_dir() {
        return Ok(());
    }
    let own = identity(request)?;
    let plans = sweep::present_plans(&parts)?;
    match plans.iter().all(|plan| plan.source.config != own) && !plans.is_empty() {
        true => Err(Error::input(format!(
            "{}: expected a folder of this tuning, found one of another model, text, candidates or \
             windows",
            path.display()
        ))
        .hint("choose another --output; --force adds to this one")),
        false => Ok(()),
    }
}

/// Everything asked for that the damage of a part depends on, as JSON.
pub fn identity(request: &Request) -> Result<String> {
    let failed = |e: serde_json::Error| Error::system(format!("JSON: {e}"));
    let mut settings = serde_json::to_value(request.measuring()).map_err(failed)?;
    if let Value::Object(settings) = &mut settings {
        for setting in SETTINGS.iter() {
            if !setting.changes_figures || setting.group == Group::Limit {
                settings.remove(setting.json_key());
            }
        }
        if !request.named_candidates {
            settings.insert("codec".into(), super::candidates::DEFAULTS.into_iter().collect());
        }
    }
    serde_json::to_string(&settings).map_err(failed)
}

/// Writes result and picture, each whole or not at all, and returns the paths.
pub fn write_results(tuning: &Tuning, request: &Request) -> Result<[PathBuf; 2]> {
    let paths = [RESULT, PICTURE].map(|name| request.output.join(name));
    let own = |kind| Existing::own(kind, request.force);
    whole_file::write(&paths[0], report::json(tuning)?.as_bytes(), own(Kind::Tuning))?;
    let picture = charts::tuning(&tuning.for_people()).standalone();
    whole_file::write(&paths[1], picture.as_bytes(), own(Kind::Picture))?;
    Ok(paths)
}
