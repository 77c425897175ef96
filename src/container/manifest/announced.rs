//! Whether a file is a compressed one.

use super::super::safetensors::{Header, LENGTH_BYTES};
use super::{FORMAT, Manifest, OPENING, damaged};
use crate::error::Result;
use std::collections::HashSet;

impl Manifest {
    /// Whether a file is compressed, by its header, as parsed and as `bytes`. One that was, and
    /// begins otherwise now, is damaged and not plain.
    pub fn announced(header: &Header, bytes: &[u8]) -> Result<bool> {
        if bytes.get(LENGTH_BYTES..).is_some_and(|json| json.starts_with(OPENING.as_bytes())) {
            return Ok(true);
        }
        let ours = |text: &String| is_manifest(text) && holds_parts(header, text);
        if header.metadata.iter().flatten().any(|(_, text)| ours(text)) {
            return Err(damaged("the header does not begin as that of a compressed file"));
        }
        Ok(false)
    }
}

/// Whether `text` has most of a manifest's fields: damage may have changed some of them, and a text
/// that speaks of the format has no more than its name.
fn is_manifest(text: &str) -> bool {
    let format = format!(r#""format":"{FORMAT}""#);
    let fields =
        [&*format, r#""codec":""#, r#""source_bytes":"#, r#""quality":{"#, r#""tensors":["#];
    fields.into_iter().filter(|field| text.contains(field)).count() >= 3
}

/// Whether the file has a tensor that the manifest `text` does not name: a part. A plain file may
/// well carry the manifest of a compressed one, and has the tensors that are named there.
fn holds_parts(header: &Header, text: &str) -> bool {
    let named: HashSet<&str> = (text.split(r#"{"name":"#).skip(1))
        .filter_map(|record| Some(record.split_once(r#","dtype":"#)?.0))
        .collect();
    let is_part =
        |name: &str| serde_json::to_string(name).is_ok_and(|name| !named.contains(&*name));
    header.tensors.iter().any(|tensor| is_part(&tensor.name))
}
