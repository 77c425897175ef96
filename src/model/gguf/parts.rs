//! GGUF files that are healthy and no whole model: parts of a split one, several put together
//! with `cat`, adapters and vision parts.

use super::header::Header;
use crate::container::source::Source;
use crate::error::{Error, Result};
use candle_core::quantized::gguf_file::Value;

pub fn refuse(source: &Source, header: &Header) -> Result<()> {
    let place = source.path().display();
    if let Some(second) = second_file(source, header)? {
        return Err(Error::input(format!(
            "{place}: expected one GGUF file, found several put together: the second begins at \
             byte {second}"
        ))
        .hint(
            "cat does not join the parts of a split model: llama.cpp's `llama-gguf-split --merge \
             FIRST-PART merged.gguf` does, and the parts are fine for it",
        ));
    }
    refuse_part(source, header)?;
    let text = |key: &str| match header.metadata.get(key) {
        Some(Value::String(text)) => Some(super::quoted(text)),
        _ => None,
    };
    let base = text("general.base_model.0.repo_url").or_else(|| text("general.base_model.0.name"));
    let base = base.map_or("its base model".to_string(), |base| format!("its base model, {base},"));
    let (found, hint) = match text("general.type").as_deref() {
        Some("adapter") => (
            "a LoRA adapter".to_string(),
            format!("merge it into {base} with llama.cpp's llama-export-lora and name the result"),
        ),
        Some("mmproj") => (
            "a vision or audio part (mmproj)".to_string(),
            "the language model is the GGUF file beside it".to_string(),
        ),
        Some("vocab") => {
            ("a vocabulary without weights".to_string(), "name the model's own file".to_string())
        }
        Some("imatrix") => (
            "an importance matrix".to_string(),
            "it is a by-product of quantisation: name the model's own file".to_string(),
        ),
        _ => return Ok(()),
    };
    Err(Error::input(format!("{place}: expected a language model, found {found}")).hint(hint))
}

/// Where another file follows this one's last tensor.
fn second_file(source: &Source, header: &Header) -> Result<Option<u64>> {
    let Some(end) = header.end() else { return Ok(None) };
    let mut magic = [0; 4];
    if end.checked_add(magic.len() as u64).is_none_or(|last| last > source.len()) {
        return Ok(None);
    }
    source.read_at(&mut magic, end)?;
    Ok((&magic == b"GGUF").then_some(end))
}

fn refuse_part(source: &Source, header: &Header) -> Result<()> {
    let number = |key: &str| match header.metadata.get(key) {
        Some(Value::U8(n)) => u64::from(*n),
        Some(Value::U16(n)) => u64::from(*n),
        Some(Value::U32(n)) => u64::from(*n),
        Some(Value::I32(n)) => u64::try_from(*n).unwrap_or(0),
        _ => 0,
    };
    let (index, count) = (number("split.no"), number("split.count"));
    if count <= 1 {
        return Ok(());
    }
    let path = source.path();
    // NAME-00002-of-00003.gguf
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = format!("-{:05}-of-{count:05}.gguf", index + 1);
    let part = |n: u64| {
        let stem = name.strip_suffix(&end)?;
        Some(format!("{stem}-{n:05}-of-{count:05}.gguf"))
    };
    let missing: Vec<String> = (1..=count.min(9_999))
        .filter_map(part)
        .filter(|part| !path.with_file_name(part).exists())
        .collect();
    let first = part(1).unwrap_or_else(|| format!("NAME-00001-of-{count:05}.gguf"));
    let merge = format!(
        "merge the parts with llama.cpp's `llama-gguf-split --merge {first} merged.gguf` and name \
         merged.gguf"
    );
    let hint = match missing.as_slice() {
        [] => merge,
        [one] => format!("{merge}; {one} is missing beside it"),
        [one, more @ ..] => {
            format!("{merge}; {one} and {} more are missing beside it", more.len())
        }
    };
    Err(Error::input(format!(
        "{}: expected a whole model, found part {} of {count}",
        path.display(),
        index + 1
    ))
    .hint(hint))
}
