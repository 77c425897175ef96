//! Names of codecs by layer: `BASE+NAME@LAYERS`, repeatable.

use super::fields::shown;
use crate::codec::by_layer::{ByLayer, Layers};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Layers and ranges that a name may list, far more than models have: what a normal form takes of
/// time grows with their square.
const MOST_LISTED: usize = 1024;

/// What one layer's name stands for.
pub trait Named: Sized {
    /// Reads it; `whole` is the name that it was typed in.
    fn of_name(name: &str, whole: &str) -> Result<Self>;
}

impl<T: fmt::Display + Clone + PartialEq> fmt::Display for ByLayer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base())?;
        self.others().iter().try_for_each(|(layers, own)| write!(f, "+{own}@{layers}"))
    }
}

impl<T: Named + Clone + PartialEq> FromStr for ByLayer<T> {
    type Err = Error;

    fn from_str(whole: &str) -> Result<Self> {
        let refuse = |what: String| Error::input(format!("codec `{}`: {what}", shown(whole)));
        let mut parts = whole.split('+');
        let base = T::of_name(parts.next().unwrap_or_default(), whole)?;
        if whole.split(['+', ',']).count() > MOST_LISTED {
            return Err(refuse(format!("expected at most {MOST_LISTED} layers and ranges"))
                .hint("a range says many at once: 4-27"));
        }
        let other = |part: &str| -> Result<(Layers, T)> {
            let Some((name, layers)) = part.split_once('@') else {
                let error = refuse(format!("expected `+NAME@LAYERS`, found `+{}`", shown(part)));
                return Err(error.hint("for example kvgauge4+q8_0@0,1,-1"));
            };
            let own = T::of_name(name, whole)?;
            let layers = Layers::parse(layers).map_err(|what| {
                refuse(format!("expected {what}")).hint(
                    "layers are a list of indices from 0 and ranges; negative ones are counted from \
                     the end: 0,4-7,-1",
                )
            })?;
            Ok((layers, own))
        };
        Ok(Self::new(base, parts.map(other).collect::<Result<_>>()?))
    }
}
