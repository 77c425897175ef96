//! A folder's tokenizer, and whether it puts a token before a text.

use crate::error::{Error, Result};
use crate::model::json;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::Tokenizer;

pub(super) struct Bos {
    pub id: Option<u32>,
    /// Whether the model's tokenizer puts it before a text.
    pub added: bool,
}

/// `settings`: tokenizer_config.json, `null` where there is none.
pub(super) fn bos(
    place: &str,
    tokenizer: &Tokenizer,
    settings: &Value,
    of_config: Option<u32>,
) -> Result<Bos> {
    let template = template_bos(place, tokenizer)?;
    let class = settings["tokenizer_class"].as_str().unwrap_or_default();
    let code_llama = class.starts_with("CodeLlamaTokenizer");
    let llama = code_llama || class.starts_with("LlamaTokenizer");
    let named = &settings["bos_token"];
    let named = named.as_str().or(named["content"].as_str()).or(llama.then_some("<s>"));
    let id =
        template.or_else(|| named.and_then(|token| tokenizer.token_to_id(token))).or(of_config);
    // transformers' Llama tokenizers follow this key whatever the template says; the general
    // class follows the template.
    let key = settings["add_bos_token"].as_bool().filter(|_| llama);
    // CodeLlama's class adds the token unless told otherwise, Llama's only where a template does.
    let default = template.is_some() || code_llama && id.is_some();
    Ok(Bos { id, added: key.unwrap_or(default) })
}

/// The token that the tokenizer itself puts before a text, if it puts exactly one more there
/// than without special tokens.
pub(super) fn template_bos(place: &str, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let encode = |special: bool| {
        guarded(|| tokenizer.encode_fast("a", special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| broken(place, &e))
    };
    let (with, without) = (encode(true)?, encode(false)?);
    let differs = with.first() != without.first() && with.get(1) == without.first();
    Ok(with.first().copied().filter(|_| differs))
}

pub(super) fn parse(place: &str, bytes: &[u8]) -> Result<Tokenizer> {
    // tokenizers panics where a decoder's JSON is broken: find that out first.
    json::parse(place, bytes)?;
    let bytes = json::without_mark(bytes);
    let mut tokenizer = guarded(|| Tokenizer::from_bytes(bytes)).map_err(|e| broken(place, &e))?;
    // Some repositories ship with truncation on: a text of any length must come out whole.
    tokenizer.with_truncation(None).map_err(|e| broken(place, &e.to_string()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The crate's panics are errors like its errors.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its parts contradict each other".into()),
    }
}

fn broken(place: &str, what: &str) -> Error {
    let line = what.lines().next().unwrap_or_default();
    Error::input(format!("{place}: not a tokenizer that works: {line}")).hint(
        "load it with Python's tokenizers: where that works, the file is newer than this program",
    )
}
