//! Codecs whose names meant something else in versions before the sixth.

use super::Manifest;
use crate::codec::{RENAMED, TensorCodec, todays_names};
use crate::error::{Error, Result};

/// The first version with today's names.
const SIXTH: u32 = 6;

/// Whether the sixth version is the first to know a codec, or where names are not `renamed`, is the
/// first to know it by its name.
pub fn is_of_sixth(codec: &TensorCodec, renamed: bool) -> bool {
    let had_another = || RENAMED.iter().any(|(_, today)| codec.to_string() == *today);
    codec.format_version() == SIXTH && !(renamed && had_another())
}

impl Manifest {
    /// Whether its codecs go, or went, by the names of before the sixth version.
    pub(super) fn has_former_names(&self) -> bool {
        self.version < SIXTH
    }

    /// Puts today's names in the place of former ones.
    pub(super) fn rename(&mut self) -> Result<()> {
        if !self.has_former_names() {
            return Ok(());
        }
        let of_tensors = self.tensors.iter_mut().filter_map(|record| record.codec.as_mut());
        for name in of_tensors.chain([&mut self.codec]) {
            let sides = name.strip_prefix("k:").and_then(|pair| pair.split_once("/v:"));
            let (key, value) = sides.unwrap_or((name.as_str(), name.as_str()));
            if RENAMED.iter().any(|(_, today)| [key, value].contains(today)) {
                return Err(Error::input(format!("codec {name} in a version before {SIXTH}")));
            }
            *name = todays_names(name);
        }
        Ok(())
    }
}
