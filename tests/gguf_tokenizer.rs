//! `from_gguf` against independent witnesses: sentencepiece, Python's tokenizers, a real GGUF file.
//! The fixture is written by `tests/data/make_gguf_tokenizer_fixture.py`.

use std::collections::HashMap;
use std::sync::LazyLock;

use candle_core::quantized::gguf_file::Value;
use kvgauge::corpus::gguf_tokenizer::{GgufTokenizer, from_gguf};
use kvgauge::error::Kind;
use serde_json::Value as Json;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer,
};

type Metadata = HashMap<String, Value>;

static FIXTURE: LazyLock<Json> =
    LazyLock::new(|| serde_json::from_str(include_str!("data/gguf_tokenizer.json")).unwrap());

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const PRE: &str = "tokenizer.ggml.pre";
const MODEL: &str = "tokenizer.ggml.model";

fn text(value: &str) -> Value {
    Value::String(value.to_string())
}

fn texts(values: &[&str]) -> Value {
    Value::Array(values.iter().map(|value| text(value)).collect())
}

fn array(json: &Json, convert: impl Fn(&Json) -> Value) -> Value {
    Value::Array(json.as_array().unwrap().iter().map(convert).collect())
}

fn strings(json: &Json) -> Value {
    array(json, |value| text(value.as_str().unwrap()))
}

fn types(json: &Json) -> Value {
    array(json, |value| Value::I32(value.as_i64().unwrap() as i32))
}

fn metadata(entries: Vec<(&str, Value)>) -> Metadata {
    let entries = entries.into_iter();
    entries.map(|(key, value)| (key.to_string(), value)).collect()
}

/// The fixture's SentencePiece model as a converter writes it.
fn llama() -> Metadata {
    let model = &FIXTURE["sentencepiece"];
    metadata(vec![
        (MODEL, text("llama")),
        (PRE, text("default")),
        (TOKENS, strings(&model["tokens"])),
        (SCORES, array(&model["scores"], |score| Value::F32(score.as_f64().unwrap() as f32))),
        (TOKEN_TYPE, types(&model["token_type"])),
        (BOS, Value::U32(1)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
    ])
}

/// The fixture's byte-level model; its last two tokens are control tokens.
fn gpt2(pre: &str) -> Metadata {
    let model = &FIXTURE["byte_level"];
    metadata(vec![
        (MODEL, text("gpt2")),
        (PRE, text(pre)),
        (TOKENS, strings(&model["tokens"])),
        (MERGES, strings(&model["merges"])),
        (TOKEN_TYPE, types(&model["token_type"])),
        (BOS, Value::U32(421)),
    ])
}

/// Three tokens: "a", "b" and "ab".
fn tiny() -> Metadata {
    metadata(vec![
        (MODEL, text("gpt2")),
        (PRE, text("gpt-2")),
        (TOKENS, texts(&["a", "b", "ab"])),
        (MERGES, texts(&["a b"])),
        (TOKEN_TYPE, Value::Array(vec![Value::I32(1); 3])),
    ])
}

fn tiny_llama() -> Metadata {
    let mut metadata = tiny();
    metadata.insert(MODEL.into(), text("llama"));
    metadata.insert(SCORES.into(), Value::Array(vec![Value::F32(0.0); 3]));
    metadata
}

fn tiny_gemma4() -> Metadata {
    let mut metadata = tiny();
    metadata.insert(MODEL.into(), text("gemma4"));
    metadata
}

fn build(metadata: &Metadata) -> GgufTokenizer {
    from_gguf(metadata).unwrap_or_else(|error| panic!("{error}"))
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
}

fn ids(json: &Json) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn pairs<'a>(texts: &'a Json, expected: &'a Json) -> impl Iterator<Item = (&'a str, &'a Json)> {
    let (texts, expected) = (texts.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(texts.len(), expected.len());
    texts.iter().map(|text| text.as_str().unwrap()).zip(expected)
}

#[test]
fn llama_ids_are_those_of_sentencepiece() {
    let model = build(&llama());
    for (text, expected) in pairs(&FIXTURE["texts"], &FIXTURE["sentencepiece"]["ids"]) {
        assert_eq!(encode(&model.tokenizer, text), ids(expected), "{text:?}");
    }
    assert_eq!((model.bos_id, model.add_bos), (Some(1), true));
}

#[test]
fn llama_special_tokens_in_the_text_are_those_of_hugging_face() {
    let model = build(&llama());
    for case in FIXTURE["hugging_face"].as_array().unwrap() {
        let text = case[0].as_str().unwrap();
        assert_eq!(encode(&model.tokenizer, text), ids(&case[1]), "{text:?}");
    }
}

#[test]
fn llama_decodes_what_it_encoded() {
    let model = build(&llama());
    for text in FIXTURE["texts"].as_array().unwrap() {
        // A blank mark in the text comes back as a blank: SentencePiece cannot tell them apart.
        let text = text.as_str().unwrap();
        let decoded = model.tokenizer.decode(&encode(&model.tokenizer, text), false).unwrap();
        assert_eq!(decoded, text.replace('▁', " "));
    }
}

#[test]
fn llama_without_space_prefix() {
    let mut metadata = llama();
    metadata.insert("tokenizer.ggml.add_space_prefix".into(), Value::Bool(false));
    let without = build(&metadata).tokenizer;
    let with = build(&llama()).tokenizer;
    assert_eq!(encode(&without, " the conversation"), encode(&with, "the conversation"));
    assert_ne!(encode(&without, "the conversation"), encode(&with, "the conversation"));
    assert_eq!(without.decode(&encode(&without, " the"), false).unwrap(), " the");
}

#[test]
fn pre_tokenisers_cut_as_in_python() {
    for (name, expected) in FIXTURE["splits"].as_object().unwrap() {
        let tokenizer = build(&gpt2(name)).tokenizer;
        for (text, expected) in pairs(&FIXTURE["texts"], expected) {
            let mut normalized = NormalizedString::from(text);
            if let Some(normalizer) = tokenizer.get_normalizer() {
                normalizer.normalize(&mut normalized).unwrap();
            }
            let text = normalized.get();
            let mut cut = PreTokenizedString::from(text);
            tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut cut).unwrap();
            let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let splits: Vec<_> = splits.iter().map(|(_, (a, b), _)| &text[*a..*b]).collect();
            assert_eq!(&Json::from(splits), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn byte_level_ids_are_those_of_python() {
    let model = &FIXTURE["byte_level"];
    for (pre, expected) in [("smaug-bpe", "ids"), ("llama-bpe", "ids_ignoring_merges")] {
        let tokenizer = build(&gpt2(pre)).tokenizer;
        for (text, expected) in pairs(&model["texts"], &model[expected]) {
            let found = encode(&tokenizer, text);
            assert_eq!(found, ids(expected), "{pre}: {text:?}");
            assert_eq!(tokenizer.decode(&found, false).unwrap(), text, "{pre}");
        }
    }
    assert_ne!(model["ids"], model["ids_ignoring_merges"]);
}

#[test]
fn names_of_one_pre_tokeniser_are_equal() {
    let sample = " Hello'Ve 1234\n\n  foo\tbar 2026 …!!!";
    for group in [
        &["gpt-2", "gpt2", "phi-2", "jais"] as &[&str],
        &["smollm", "starcoder", "refact", "exaone", "minerva-7b"],
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "glm4"],
        &["smaug-bpe", "dbrx", "chatglm-bpe"],
        &["gpt-4o", "llama4"],
        &["qwen2", "deepseek-r1-qwen"],
        &["stablelm2", "hunyuan"],
        &["deepseek-v3", "hunyuan-dense"],
        &["mpt", "olmo"],
    ] {
        let encodings = group.iter().map(|pre| encode(&build(&gpt2(pre)).tokenizer, sample));
        let encodings: Vec<_> = encodings.collect();
        assert!(encodings.iter().all(|ids| *ids == encodings[0]), "{group:?}");
    }
}

#[test]
fn whether_bos_is_added() {
    for (pre, expected) in [
        ("llama-bpe", true),
        ("tekken", true),
        ("smollm", false),
        ("glm4", false),
        ("gpt-4o", false),
        ("qwen2", false),
        ("dbrx", false),
    ] {
        let mut metadata = gpt2(pre);
        assert_eq!(build(&metadata).add_bos, expected, "{pre}, no key");
        for flag in [true, false] {
            metadata.insert(ADD_BOS.into(), Value::Bool(flag));
            assert_eq!(build(&metadata).add_bos, flag, "{pre}");
        }
        metadata.remove(BOS);
        metadata.remove(ADD_BOS);
        let model = build(&metadata);
        assert_eq!((model.bos_id, model.add_bos), (None, false), "{pre}, no id");
    }
}

#[test]
fn user_defined_tokens_are_matched_and_unused_ones_are_not() {
    let mut metadata = tiny();
    metadata.insert(TOKENS.into(), texts(&["a", "b", "<x>", "<", "x", ">", "<y>", "y", ""]));
    let kinds = [1, 1, 4, 1, 1, 1, 5, 1, 5];
    metadata.insert(TOKEN_TYPE.into(), Value::Array(kinds.map(Value::I32).to_vec()));
    metadata.insert(MERGES.into(), Value::Array(Vec::new()));
    let tokenizer = build(&metadata).tokenizer;
    assert_eq!(encode(&tokenizer, "a<x>b<y>"), [0, 2, 1, 3, 7, 5]);
}

/// Converters name the rows that no token has after their ids, and call them user-defined.
#[test]
fn fillers_of_the_vocabulary_are_not_matched() {
    let mut metadata = tiny();
    let fillers = ["[PAD7]", "[PAD1]"];
    metadata
        .insert(TOKENS.into(), texts(&["[", "P", "A", "D", "1", "7", "]", fillers[0], fillers[1]]));
    let kinds = [1, 1, 1, 1, 1, 1, 1, 4, 4];
    metadata.insert(TOKEN_TYPE.into(), Value::Array(kinds.map(Value::I32).to_vec()));
    metadata.insert(MERGES.into(), Value::Array(Vec::new()));
    let tokenizer = build(&metadata).tokenizer;
    assert_eq!(encode(&tokenizer, "[PAD7]"), [0, 1, 2, 3, 5, 6]);
    assert_eq!(encode(&tokenizer, "[PAD1]"), [8]);
}

/// SentencePiece's model with its merges listed, as Gemma 4's files have them, and no space prefix.
#[test]
fn gemma4_merges_characters_by_its_list() {
    let mut scored = llama();
    scored.insert("tokenizer.ggml.add_space_prefix".into(), Value::Bool(false));
    let scored = build(&scored);
    let mut listed = llama();
    listed.insert(MODEL.into(), text("gemma4"));
    refused(&listed, &[MERGES, "missing key"]);
    listed.insert(MERGES.into(), strings(&FIXTURE["sentencepiece"]["merges"]));
    for key in [SCORES, PRE] {
        listed.remove(key);
    }
    let listed = build(&listed);
    assert_eq!((listed.bos_id, listed.add_bos), (Some(1), true));
    for (text, _) in pairs(&FIXTURE["texts"], &FIXTURE["sentencepiece"]["ids"]) {
        let expected = encode(&scored.tokenizer, text);
        assert_eq!(encode(&listed.tokenizer, text), expected, "{text:?}");
    }
}

/// The effect of `--parse-special false`: control tokens are spelt out, user-defined ones are not.
#[test]
fn control_tokens_can_be_taken_for_text() {
    let mut metadata = tiny();
    metadata.insert(TOKENS.into(), texts(&["a", "b", "<x>", "<", "x", ">", "<y>", "y"]));
    let kinds = [1, 1, 4, 1, 1, 1, 3, 1];
    metadata.insert(TOKEN_TYPE.into(), Value::Array(kinds.map(Value::I32).to_vec()));
    metadata.insert(MERGES.into(), Value::Array(Vec::new()));
    let mut tokenizer = build(&metadata).tokenizer;
    assert_eq!(encode(&tokenizer, "a<x>b<y>"), [0, 2, 1, 6]);
    tokenizer.set_encode_special_tokens(true);
    assert_eq!(encode(&tokenizer, "a<x>b<y>"), [0, 2, 1, 3, 7, 5]);
}

/// Asserts an input error of one line with all of `parts`.
#[track_caller]
fn refused(metadata: &Metadata, parts: &[&str]) {
    let error = from_gguf(metadata).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), Kind::Input, "{message}");
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
    assert_eq!(message.lines().count(), 1, "{message:?}");
}

#[track_caller]
fn refused_with(mut metadata: Metadata, key: &str, value: Value, parts: &[&str]) {
    metadata.insert(key.to_string(), value);
    refused(&metadata, &[&[key], parts].concat());
}

#[test]
fn other_kinds_are_refused() {
    for (kind, what) in [
        ("bert", "WordPiece"),
        ("t5", "Unigram"),
        ("rwkv", "RWKV"),
        ("plamo2", "PLaMo"),
        ("none", "without a tokenizer"),
        ("", ""),
        ("GPT2", ""),
    ] {
        let quoted = format!("{kind:?}");
        refused_with(tiny(), MODEL, text(kind), &["gpt2, llama or gemma4", &quoted, what]);
        let mut metadata = tiny();
        metadata.insert(MODEL.into(), text(kind));
        let hint = from_gguf(&metadata).unwrap_err().hint_text().map(str::to_string);
        assert!(hint.is_some_and(|hint| hint.contains("Hugging Face folder")), "{kind}");
    }
    refused_with(tiny(), MODEL, Value::U32(7), &["a string", "found 7"]);
}

#[test]
fn unknown_pre_tokenisers_are_refused() {
    refused_with(tiny(), PRE, text("viking"), &["one of gpt-2,", "llama-bpe", "\"viking\""]);
    refused_with(tiny(), PRE, text("default"), &["one of gpt-2,", "\"default\""]);
    refused_with(tiny(), PRE, Value::Bool(true), &["a string", "found true"]);
    let mut missing = tiny();
    missing.remove(PRE);
    refused(&missing, &[PRE, "missing key", "one of gpt-2,"]);
    let hint = from_gguf(&missing).err().and_then(|e| e.hint_text().map(str::to_string));
    assert!(hint.is_some_and(|hint| hint.contains("convert the model again")));
}

#[test]
fn missing_keys_are_refused() {
    refused(&Metadata::new(), &[MODEL, "missing key"]);
    for (metadata, keys) in [
        (tiny(), &[TOKENS, MERGES, TOKEN_TYPE] as &[&str]),
        (tiny_llama(), &[TOKENS, SCORES, TOKEN_TYPE]),
        (tiny_gemma4(), &[TOKENS, MERGES, TOKEN_TYPE]),
    ] {
        from_gguf(&metadata).unwrap_or_else(|error| panic!("{error}"));
        for key in keys {
            let mut metadata = metadata.clone();
            metadata.remove(*key);
            refused(&metadata, &[key, "missing key", "found none"]);
        }
    }
    refused_with(tiny(), ADD_BOS, Value::Bool(true), &[BOS, "missing key"]);
}

#[test]
fn wrong_values_are_refused() {
    let three = |value: Value| Value::Array(vec![value; 3]);
    refused_with(tiny(), TOKENS, text("a b ab"), &["an array of strings", "\"a b ab\""]);
    refused_with(tiny(), TOKENS, three(Value::I32(4)), &["tokens[0]", "a string", "found 4"]);
    refused_with(tiny(), TOKENS, texts(&["a", "b", "a"]), &["tokens[2]", "duplicate", "id 0"]);
    refused_with(tiny(), MERGES, texts(&["a b", "ab"]), &["merges[1]", "a space", "\"ab\""]);
    refused_with(tiny(), MERGES, texts(&["b a"]), &["merges[0]", "union", "\"b a\""]);
    refused_with(tiny(), MERGES, texts(&["ab ab"]), &["merges[0]", "union"]);
    refused_with(tiny(), MERGES, texts(&["a c"]), &["merges[0]", "two tokens"]);
    refused_with(tiny(), MERGES, texts(&[" "]), &["merges[0]"]);
    refused_with(tiny(), MERGES, texts(&[&"é".repeat(500)]), &["merges[0]", "…"]);
    refused_with(tiny(), TOKEN_TYPE, three(Value::I32(7)), &["token_type[0]", "0 to 6", "found 7"]);
    refused_with(tiny(), TOKEN_TYPE, three(Value::F32(1.0)), &["token_type[0]", "found 1"]);
    refused_with(
        tiny(),
        TOKEN_TYPE,
        Value::Array(vec![Value::I32(1); 2]),
        &["3 values", "found 2"],
    );
    refused_with(tiny_llama(), SCORES, Value::Array(vec![]), &["3 values", "found 0"]);
    refused_with(tiny_llama(), SCORES, three(Value::F32(f32::NAN)), &["scores[0]", "found NaN"]);
    refused_with(tiny_llama(), SCORES, three(text("x")), &["scores[0]", "a number", "\"x\""]);
    for id in [Value::U32(3), Value::I32(-1), Value::U64(u64::MAX), Value::F32(1.0), text("1")] {
        refused_with(tiny(), BOS, id.clone(), &["an id below 3"]);
        refused_with(tiny_llama(), "tokenizer.ggml.unknown_token_id", id, &["an id below 3"]);
    }
    refused_with(tiny(), ADD_BOS, Value::U8(1), &["true or false", "found 1"]);
    let add_space_prefix = "tokenizer.ggml.add_space_prefix";
    refused_with(tiny_llama(), add_space_prefix, text("yes"), &["true or false", "\"yes\""]);
    let charsmap = "tokenizer.ggml.precompiled_charsmap";
    refused_with(tiny_llama(), charsmap, Value::Array(vec![]), &["unsupported"]);
    let trim = "tokenizer.ggml.remove_extra_whitespaces";
    refused_with(tiny_llama(), trim, Value::Bool(true), &["unsupported"]);
}

#[test]
fn empty_vocabularies_do_not_panic() {
    let none = || Value::Array(Vec::new());
    let mut metadata = tiny();
    for key in [TOKENS, MERGES, TOKEN_TYPE] {
        metadata.insert(key.into(), none());
    }
    assert!(encode(&build(&metadata).tokenizer, "abc").is_empty());
    metadata.insert(MODEL.into(), text("llama"));
    metadata.insert(SCORES.into(), none());
    refused(&metadata, &["unknown_token_id"]);
}

/// Whatever a value is replaced by, the answer is an error or a tokenizer that works.
#[test]
fn no_metadata_panics() {
    let junk = [
        text(""),
        text("llama"),
        Value::Bool(true),
        Value::U32(0),
        Value::U64(u64::MAX),
        Value::I8(-1),
        Value::F32(f32::NEG_INFINITY),
        Value::F64(f64::NAN),
        Value::Array(Vec::new()),
        Value::Array(vec![Value::Array(Vec::new()); 3]),
        Value::Array(vec![Value::I64(2); 3]),
        Value::Array(vec![Value::F64(-0.0); 3]),
        texts(&["", "", ""]),
        texts(&[" ", "  ", "   "]),
        texts(&["\0", "<0x61>", "\u{10ffff}"]),
    ];
    for base in [tiny(), tiny_llama(), tiny_gemma4(), gpt2("falcon"), llama()] {
        let extra = ["add_space_prefix", "remove_extra_whitespaces", "add_bos_token"];
        let extra = extra.map(|key| format!("tokenizer.ggml.{key}"));
        for key in base.keys().chain(&extra) {
            for value in &junk {
                let mut metadata = base.clone();
                metadata.insert(key.clone(), value.clone());
                match from_gguf(&metadata) {
                    Ok(model) => drop(encode(&model.tokenizer, "ab <unk> ▁é\0\u{10ffff}")),
                    Err(error) => assert_eq!(error.kind(), Kind::Input, "{key}: {error}"),
                }
            }
        }
    }
}
