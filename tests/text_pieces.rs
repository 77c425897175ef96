//! Ids of a text in pieces against those of the text whole, for every kind of tokenizer and seven kinds
//! of text.
//!
//! The tokenizers: the embedded one, every pre-tokeniser and kind of GGUF on the fixture's vocabularies,
//! and real ones where they are there: `KVGAUGE_GGUF_VOCABS`, `KVGAUGE_GEMMA3` and `KVGAUGE_QWEN2`, as
//! `tests/gguf_vocabs.rs` has them. By hand, on texts of `KVGAUGE_TEXT_BYTES` (10 MiB unless it is set),
//! of the tokenizers whose names have `KVGAUGE_TOKENIZER` in them:
//!
//! ```text
//! cargo test --release --test text_pieces -- --ignored --nocapture
//! ```

#[path = "common/skip.rs"]
mod skip;
#[path = "common/vocabularies.rs"]
mod vocabularies;

use candle_core::quantized::gguf_file::{Content, Value};
use kvgauge::corpus::gguf_tokenizer::from_gguf;
use kvgauge::corpus::{Text, TextTokens};
use serde_json::Value as Json;
use skip::skip;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokenizers::Tokenizer;

const PRE_TOKENISERS: [&str; 19] = [
    "gpt-2",
    "smollm",
    "llama-bpe",
    "dbrx",
    "glm4",
    "tekken",
    "gpt-4o",
    "qwen2",
    "stablelm2",
    "qwen35",
    "seed-coder",
    "deepseek-coder",
    "deepseek-llm",
    "deepseek-v3",
    "command-r",
    "mpt",
    "falcon",
    "bloom",
    "superbpe",
];

fn built(metadata: &HashMap<String, Value>) -> Tokenizer {
    from_gguf(metadata).unwrap_or_else(|error| panic!("{error}")).tokenizer
}

/// The fixture's vocabulary of a kind as a converter writes it.
fn fixture(vocabulary: &Json, kind: &str, pre: &str) -> Tokenizer {
    let array = |key: &str, of: fn(&Json) -> Value| {
        Value::Array(vocabulary[key].as_array().into_iter().flatten().map(of).collect())
    };
    let text = |json: &Json| Value::String(json.as_str().unwrap().into());
    let mut metadata: HashMap<String, Value> = [
        ("tokenizer.ggml.model", Value::String(kind.into())),
        ("tokenizer.ggml.pre", Value::String(pre.into())),
        ("tokenizer.ggml.tokens", array("tokens", text)),
        (
            "tokenizer.ggml.token_type",
            array("token_type", |t| Value::I32(t.as_i64().unwrap() as i32)),
        ),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into();
    if kind != "llama" {
        metadata.insert("tokenizer.ggml.merges".into(), array("merges", text));
    }
    if kind != "gpt2" {
        let scores = array("scores", |score| Value::F32(score.as_f64().unwrap() as f32));
        metadata.insert("tokenizer.ggml.scores".into(), scores);
    }
    built(&metadata)
}

fn fixtures() -> Vec<(String, Tokenizer)> {
    let own = include_bytes!("../data/builtin/tokenizer.json");
    let mut all = vec![("embedded".to_string(), Tokenizer::from_bytes(own).unwrap())];
    let json: Json = serde_json::from_str(include_str!("data/gguf_tokenizer.json")).unwrap();
    for pre in PRE_TOKENISERS {
        all.push((format!("fixture {pre}"), fixture(&json["byte_level"], "gpt2", pre)));
    }
    for kind in ["llama", "gemma4"] {
        all.push((format!("fixture {kind}"), fixture(&json["sentencepiece"], kind, "default")));
    }
    all
}

/// Name and file.
fn real() -> Vec<(String, PathBuf)> {
    let mut all = Vec::new();
    match std::env::var_os("KVGAUGE_GGUF_VOCABS").map(PathBuf::from).filter(|path| path.is_dir()) {
        None => skip("pieces of real vocabularies", "KVGAUGE_GGUF_VOCABS names no folder"),
        Some(folder) => all.extend(
            vocabularies::COMPARABLE
                .map(|name| (name.to_string(), folder.join(format!("ggml-vocab-{name}.gguf")))),
        ),
    }
    for (name, variable) in [("gemma-3", "KVGAUGE_GEMMA3"), ("qwen2.5", "KVGAUGE_QWEN2")] {
        match std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file()) {
            None => skip("pieces of a real model's text", &format!("{variable} names no file")),
            Some(path) => all.push((name.to_string(), path)),
        }
    }
    all
}

fn open(path: &Path) -> Tokenizer {
    let mut file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    built(&Content::read(&mut file).unwrap().metadata)
}

/// A generator of numbers that never changes.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

fn of_length(bytes: usize, mut part: impl FnMut(&mut String)) -> String {
    let mut text = String::with_capacity(bytes + 64);
    while text.len() < bytes {
        part(&mut text);
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// The source code of this crate.
fn code() -> String {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// The seven kinds, in nine texts of so many bytes. `own`: the tokenizer's added tokens.
fn texts(bytes: usize, own: &[String]) -> [(&'static str, String); 9] {
    let mut numbers = Numbers(bytes as u64);
    let novel = include_str!("../data/builtin/text.txt");
    let english = of_length(bytes, |text| text.push_str(novel));
    let words: Vec<&str> = novel.split_whitespace().take(4000).collect();
    let sources = code();
    let code = of_length(bytes, |text| text.push_str(&sources));
    let chinese = of_length(bytes, |text| {
        for _ in 0..3 + numbers.below(20) {
            text.push(
                char::from_u32(0x4e00 + (numbers.below(60) * numbers.below(60)) as u32).unwrap(),
            );
        }
        text.push_str(
            numbers
                .one(&["，", "。", "、", "！", "？", "；", "：", "。\n", "”\n\n", " ", "3", "AI"]),
        );
    });
    let line = of_length(bytes, |text| {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        text.push(LETTERS[numbers.below(64)].into());
    });
    // No pattern of a pre-tokeniser ever ends in it.
    let letters = of_length((bytes / 10).min(100_000), |text| {
        text.push((b'a' + numbers.below(26) as u8).into());
    });
    let run = " ".repeat(bytes.min(1_000_000));
    let blanks =
        format!("{} a\n{run}{} the end{run}", words[..50].join(" "), words[..50].join("  "));
    let emoji = of_length(bytes, |text| {
        text.push_str(numbers.one(&[
            "👩\u{200d}👩\u{200d}👧\u{200d}👦",
            "🏳\u{fe0f}\u{200d}🌈",
            "👍🏽",
            "🇫🇷",
            "😀",
            "❤\u{fe0f}",
            " ",
            "e\u{301}",
            "की",
            "ok",
            "\n",
            ", ",
            "1\u{fe0f}\u{20e3}",
            "한국어 ",
            "日本語",
            "か\u{3099}",
        ]));
    });
    let control = of_length(bytes, |text| {
        match numbers.below(4) {
            0 if !own.is_empty() => text.push_str(&own[numbers.below(own.len())]),
            1 => text.push_str(numbers.one(&[
                "<|im_start|>",
                "<s>",
                "</s>",
                "<pad>",
                "[INST]",
                "<|",
                "|>",
                "<0x41>",
            ])),
            _ => text.push_str(numbers.one(&words)),
        }
        text.push_str(numbers.one(&[" ", " ", "\n", "", "  "]));
    });
    let mixed = of_length(bytes, |text| {
        text.push_str(match numbers.below(6) {
            0 if !own.is_empty() => &own[numbers.below(own.len())],
            1 => numbers.one(&words),
            _ => numbers.one(&[
                " ",
                "  ",
                "\n",
                "\r\n",
                "\t",
                "\n\n",
                "   ",
                "'s",
                "'S",
                "'ll",
                "n't",
                "123",
                "4",
                "56789",
                ".",
                ",",
                "...",
                "?!",
                "://",
                "/",
                "(",
                "中",
                "文字",
                "，",
                "。",
                "か",
                "カ",
                "\u{3099}",
                "\u{301}",
                "é",
                "ё",
                "한",
                "\u{1112}\u{1161}\u{11ab}",
                "👩\u{200d}👦",
                "▁",
                "a",
                "B",
                "\u{a0}",
                "\u{3000}",
                "ﬁ",
                "٣",
                "Ａ",
            ]),
        });
    });
    [
        ("English", english),
        ("code", code),
        ("Chinese", chinese),
        ("one line", line),
        ("letters", letters),
        ("blanks", blanks),
        ("emoji", emoji),
        ("control tokens", control),
        ("mixed", mixed),
    ]
}

/// Pieces of each size against the whole; one line with times where `told`.
fn compare(name: &str, tokenizer: &Tokenizer, bytes: usize, sizes: &[usize], told: bool) {
    let own = tokenizer.get_added_tokens_decoder();
    let mut own: Vec<(u32, String)> = own.into_iter().map(|(id, t)| (id, t.content)).collect();
    own.sort();
    let own: Vec<String> = own.into_iter().map(|(_, content)| content).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    for (kind, content) in texts(bytes, &own) {
        std::fs::write(file.path(), &content).unwrap();
        let text =
            Text::file(file.path()).unwrap_or_else(|error| panic!("{name}, {kind}: {error}"));
        let clock = Instant::now();
        let whole = tokenizer.encode_fast(content.as_str(), false).unwrap().get_ids().to_vec();
        let (whole_s, clock) = (clock.elapsed().as_secs_f64(), Instant::now());
        let mut longest = 0;
        for size in sizes {
            longest = 0;
            let mut tokens = TextTokens::new(tokenizer, true).in_pieces_of(*size);
            let mut before = 0;
            while tokens.count().is_none() {
                tokens.read(&text, tokenizer, before + 1).unwrap();
                let piece = &tokens.ids()[before..];
                longest = longest.max(piece.len());
                let expected = &whole[before..(before + piece.len()).min(whole.len())];
                assert!(
                    piece == expected,
                    "{name}, {kind}, pieces of {size}: from token {before} on"
                );
                before = tokens.ids().len();
            }
            assert_eq!(tokens.ids().len(), whole.len(), "{name}, {kind}, pieces of {size}");
            // Few places to cut are no mistake, but none in prose would make the test empty.
            let few = longest * 4 > whole.len() && *size * 10 < content.len();
            let prose = ["English", "code"].contains(&kind) && !name.ends_with("superbpe");
            assert!(!few || !prose, "{name}, {kind}: one piece has {longest} of the tokens");
        }
        if told {
            eprintln!(
                "{name}, {kind}: {} bytes, {} tokens, whole {whole_s:.1} s, pieces {:.1} s, the longest \
                 of {longest} tokens",
                content.len(),
                whole.len(),
                clock.elapsed().as_secs_f64(),
            );
        }
    }
}

#[test]
fn pieces_of_every_kind() {
    for (name, tokenizer) in fixtures() {
        compare(&name, &tokenizer, 20_000, &[7, 300], false);
    }
}

#[test]
fn pieces_of_real_vocabularies() {
    for (name, path) in real() {
        compare(&name, &open(&path), 40_000, &[30, 2000], false);
    }
}

#[test]
#[ignore = "by hand: minutes for each tokenizer, and a gigabyte of memory"]
fn pieces_of_long_texts() {
    let bytes =
        std::env::var("KVGAUGE_TEXT_BYTES").map_or(10 << 20, |bytes| bytes.parse().unwrap());
    let asked = std::env::var("KVGAUGE_TOKENIZER").unwrap_or_default();
    let made = fixtures().into_iter().filter(|(name, _)| name.contains(&asked));
    made.for_each(|(name, tokenizer)| compare(&name, &tokenizer, bytes, &[1 << 16], true));
    for (name, path) in real().into_iter().filter(|(name, _)| name.contains(&asked)) {
        compare(&name, &open(&path), bytes, &[1 << 16], true);
    }
}
