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

/// Tokenizer classes that follow `add_bos_token` whatever the template says, in transformers 4 and in
/// what is converted with it; each with the token that it takes where none is named. transformers 5
/// goes by the template of a tokenizer.json alone.
const FOLLOW_THE_KEY: [(&str, &str); 5] = [
    ("LlamaTokenizer", "<s>"),
    ("CodeLlamaTokenizer", "<s>"),
    ("GemmaTokenizer", "<bos>"),
    ("CohereTokenizer", "<BOS_TOKEN>"),
    ("GPTNeoXTokenizer", "<|endoftext|>"),
];

/// A template that puts several tokens before a text, as GLM-4's `[gMASK]<sop>`, adds no BOS here:
/// one token of a window is replaced, and half of such a prefix is not what the model knows.
///
/// `settings`: tokenizer_config.json, `null` where there is none.
pub(super) fn bos(
    place: &str,
    tokenizer: &Tokenizer,
    settings: &Value,
    of_config: Option<u32>,
) -> Result<Bos> {
    let template = template_bos(place, tokenizer)?;
    let class = settings["tokenizer_class"].as_str().unwrap_or_default();
    let class = class.strip_suffix("Fast").unwrap_or(class);
    let follows = FOLLOW_THE_KEY.iter().find(|(name, _)| *name == class);
    let named = &settings["bos_token"];
    let named = named.as_str().or(named["content"].as_str()).or(follows.map(|(_, token)| *token));
    let id =
        template.or_else(|| named.and_then(|token| tokenizer.token_to_id(token))).or(of_config);
    let key = settings["add_bos_token"].as_bool().filter(|_| follows.is_some());
    let default = match class {
        // Adds the token unless told otherwise.
        "CodeLlamaTokenizer" => id.is_some(),
        // Makes its template anew, without the token unless told otherwise.
        "GPTNeoXTokenizer" => false,
        _ => template.is_some(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A tokenizer of letters whose template puts `prefix` before a text.
    fn tokenizer(prefix: &[&str]) -> Tokenizer {
        let specials = ["<s>", "<bos>", "<BOS_TOKEN>", "<|endoftext|>", "[gMASK]", "<sop>"];
        let vocab = |(id, token): (usize, &&str)| (token.to_string(), json!(id));
        let vocab: serde_json::Map<_, _> =
            ["a", "b"].iter().chain(&specials).enumerate().map(vocab).collect();
        let added = specials.iter().map(|token| {
            json!({"id": vocab[*token], "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        });
        let mut single: Vec<Value> =
            prefix.iter().map(|t| json!({"SpecialToken": {"id": t, "type_id": 0}})).collect();
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        let specials: serde_json::Map<_, _> = prefix
            .iter()
            .map(|t| (t.to_string(), json!({"id": t, "ids": [vocab[*t]], "tokens": [t]})))
            .collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": null, "pre_tokenizer": null, "decoder": null,
            "post_processor": {"type": "TemplateProcessing", "single": single, "pair": [
                {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
            ], "special_tokens": specials},
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        });
        parse("tokenizer.json", json.to_string().as_bytes()).unwrap()
    }

    #[track_caller]
    fn found(prefix: &[&str], settings: Value) -> (Option<u32>, bool) {
        let bos = bos("x", &tokenizer(prefix), &settings, None).unwrap();
        (bos.id, bos.added)
    }

    #[test]
    fn bos_of_each_class() {
        let class = |class: &str| json!({"tokenizer_class": class});
        // One token in the template.
        assert_eq!(found(&["<bos>"], class("GemmaTokenizer")), (Some(3), true));
        assert_eq!(found(&["<BOS_TOKEN>"], class("CohereTokenizerFast")), (Some(4), true));
        assert_eq!(found(&["<s>"], class("LlamaTokenizerFast")), (Some(2), true));
        assert_eq!(found(&["<s>"], class("PreTrainedTokenizerFast")), (Some(2), true));
        assert_eq!(found(&["<s>"], Value::Null), (Some(2), true));
        // None in it: the class names the token all the same.
        assert_eq!(found(&[], class("GemmaTokenizerFast")), (Some(3), false));
        assert_eq!(found(&[], class("CohereTokenizer")), (Some(4), false));
        assert_eq!(found(&[], class("Qwen2Tokenizer")), (None, false));
        assert_eq!(found(&[], class("CodeLlamaTokenizer")), (Some(2), true));
        let granite = json!({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>",
                             "add_bos_token": true});
        assert_eq!(found(&[], granite), (Some(5), false));
        // GPT-NeoX's class makes its own template.
        assert_eq!(found(&["<|endoftext|>"], class("GPTNeoXTokenizer")), (Some(5), false));
    }

    #[test]
    fn the_key_wins_where_the_class_follows_it() {
        for (class, token, id) in [
            ("LlamaTokenizer", "<s>", 2),
            ("CodeLlamaTokenizerFast", "<s>", 2),
            ("GemmaTokenizerFast", "<bos>", 3),
            ("CohereTokenizerFast", "<BOS_TOKEN>", 4),
            ("GPTNeoXTokenizerFast", "<|endoftext|>", 5),
        ] {
            for template in [&[token] as &[&str], &[]] {
                for key in [true, false] {
                    let settings = json!({"tokenizer_class": class, "add_bos_token": key});
                    assert_eq!(found(template, settings), (Some(id), key), "{class}");
                }
            }
        }
        let settings = json!({"tokenizer_class": "TokenizersBackend", "add_bos_token": false});
        assert_eq!(found(&["<s>"], settings), (Some(2), true));
    }

    #[test]
    fn a_template_of_several_tokens_adds_no_bos() {
        let glm = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
        assert_eq!(found(&["[gMASK]", "<sop>"], glm), (None, false));
    }
}
