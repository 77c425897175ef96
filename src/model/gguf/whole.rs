//! GGUF files that are healthy and no language model: several put together with `cat`, adapters and
//! vision parts.

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
            "cat does not join the parts of a split model, and nothing has to: name one of the parts, the \
             others are found beside it (`llama-gguf-split --merge FIRST-PART merged.gguf` of llama.cpp \
             joins them)",
        ));
    }
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
