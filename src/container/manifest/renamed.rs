//! Codecs whose names meant something else in versions before the sixth.

use super::Manifest;
use crate::codec::{Packing, ScaleFormat, Scheme, TensorCodec};
use crate::error::{Error, Result};

/// The first version with today's names.
const SIXTH: u32 = 6;

/// What a codec was called, and is.
const RENAMED: [(&str, &str); 2] =
    [("fp8-e4m3", "fp8-e4m3-per-tensor"), ("fp8-e5m2", "fp8-e5m2-per-tensor")];

/// Whether the sixth version is the first to know a codec, or where names are not `renamed`, is the
/// first to know it by its name.
pub fn is_of_sixth(codec: &TensorCodec, renamed: bool) -> bool {
    match codec.packing() {
        Some(Packing::Scheme(scheme)) => match scheme.scales {
            ScaleFormat::F16 => scheme.group == Scheme::WHOLE && !renamed,
            ScaleFormat::Small => false,
            _ => true,
        },
        _ => false,
    }
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
            *name = match name.strip_prefix("k:").and_then(|pair| pair.split_once("/v:")) {
                Some((key, value)) => format!("k:{}/v:{}", today(key)?, today(value)?),
                None => today(name)?.into(),
            };
        }
        Ok(())
    }
}

fn today(name: &str) -> Result<&str> {
    if RENAMED.iter().any(|(_, today)| *today == name) {
        return Err(Error::input(format!("codec {name} in a version before {SIXTH}")));
    }
    let found = RENAMED.iter().find(|(former, _)| *former == name);
    Ok(found.map_or(name, |(_, today)| today))
}
