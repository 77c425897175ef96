//! The metadata entry that `kvgauge extract` leaves in its files, as far as it is read here.

use super::TextMap;
use serde::Deserialize;

/// The entry's key.
pub const KEY: &str = "kvgauge.extract";

/// The fields of the entry that compression needs; see [`crate::run::extract::Origin`].
#[derive(Deserialize)]
struct Origin {
    rope_frequencies: Vec<f32>,
}

/// The rotary frequencies of the file's keys, radians a position, one a pair of channels; `None`
/// where `kvgauge extract` did not make it.
pub(super) fn rope_frequencies(metadata: &TextMap) -> Option<Vec<f32>> {
    let origin: Origin = serde_json::from_str(metadata.get(KEY)?).ok()?;
    Some(origin.rope_frequencies)
}
