//! Pieces against the whole, on tokenizers made here of every part that has cuts.

use super::*;
use crate::corpus::{Text, TextTokens};
use serde_json::{Value, json};

/// Mixtures of what the rules are about, from a seed.
struct Mixtures(u64);

const PARTS: [&str; 44] = [
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "   \n ",
    "a",
    "the",
    "The",
    "don't",
    "'s",
    "'S",
    "'ll",
    "n",
    "12345",
    "7",
    "007",
    ".",
    ",",
    "...",
    "?!",
    "://",
    "中",
    "文字",
    "，",
    "。",
    "か",
    "カ",
    "\u{3099}",
    "e\u{301}",
    "\u{301}",
    "é",
    "ё",
    "한",
    "\u{1112}\u{1161}\u{11ab}",
    "👩\u{200d}👩\u{200d}👦",
    "<|end|>",
    "<s>",
    "</s>",
    "[PAD]",
    "▁",
];

impl Mixtures {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }

    fn text(&mut self, parts: usize) -> String {
        (0..parts).map(|_| PARTS[self.next(PARTS.len())]).collect()
    }
}

/// Byte-level and character BPE vocabularies, with merges that go across blanks, line ends and digits.
fn bpe(byte_level: bool, ignore_merges: bool) -> Value {
    let visible = |c: char| match (byte_level, c) {
        (true, ' ') => 'Ġ',
        (true, '\n') => 'Ċ',
        (false, ' ') => '▁',
        _ => c,
    };
    let mut tokens: Vec<String> =
        vec!["<unk>".into(), "<s>".into(), "</s>".into(), "<|end|>".into()];
    match byte_level {
        true => {
            let mut all: Vec<char> =
                tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
            all.sort_unstable();
            tokens.extend(all.into_iter().map(String::from));
        }
        // Some characters are unknown, some bytes.
        false => {
            tokens
                .extend(" \n\tatheTdonlsS.,'中文字，か<>|/1234".chars().map(|c| visible(c).into()));
            tokens.extend((0..=255).map(|byte: u8| format!("<{byte:#04X}>")));
        }
    }
    let mut merges = Vec::new();
    for merge in
        ["t h", "th e", "  t", "  the", "n '", "e  ", "e  t", ". \n", "1 2", "a a", "\n \n", "   "]
    {
        // The first blank that has something on both sides is the border.
        let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').unwrap().0;
        let [left, right] = [&merge[..at], &merge[at + 1..]]
            .map(|part| part.chars().map(visible).collect::<String>());
        let whole = [&left[..], &right].concat();
        assert!(tokens.contains(&left) && tokens.contains(&right), "{merge:?}");
        if !tokens.contains(&whole) {
            tokens.push(whole);
        }
        merges.push(json!([left, right]));
    }
    let ids: serde_json::Map<_, _> =
        (0..).zip(tokens).map(|(i, t): (u32, _)| (t, json!(i))).collect();
    json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
           "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false,
           "ignore_merges": ignore_merges, "vocab": ids, "merges": merges})
}

fn tokenizer(model: &Value, normalizer: Value, pre: Value, flags: [bool; 4]) -> Tokenizer {
    let [lstrip, rstrip, single_word, normalized] = flags;
    let added = [(1, "<s>"), (2, "</s>"), (3, "<|end|>")].map(|(id, content)| {
        json!({"id": id, "content": content, "single_word": single_word, "lstrip": lstrip,
               "rstrip": rstrip, "normalized": normalized, "special": id != 2})
    });
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": null, "decoder": null,
        "model": model});
    Tokenizer::from_bytes(json.to_string()).unwrap_or_else(|e| panic!("{e}: {json}"))
}

/// The number of cuts in all texts, after comparing their pieces with the whole.
fn compare(name: &str, tokenizer: &Tokenizer, seed: u64, texts: usize) -> usize {
    let (mut mixtures, mut cut) = (Mixtures(seed), 0);
    for round in 0..texts {
        let content = mixtures.text(1 + round * 150);
        for special in [true, false] {
            let mut plain = tokenizer.clone();
            plain.set_encode_special_tokens(!special);
            let whole = plain.encode_fast(content.as_str(), false).unwrap().get_ids().to_vec();
            let text =
                Text::new("x".into(), content.clone().into()).map_err(|e| e.to_string()).unwrap();
            let mut tokens = TextTokens::new(tokenizer, special).in_pieces_of(1);
            assert!(tokens.has_cuts(), "{name}");
            let mut least = 0;
            while tokens.count().is_none() {
                least = tokens.ids().len() + 1;
                tokens.read(&text, tokenizer, least).unwrap();
                let shown = (tokens.ids(), &whole[..tokens.ids().len().min(whole.len())]);
                assert_eq!(shown.0, shown.1, "{name}, special {special}: {content:?}");
                cut += 1;
            }
            assert_eq!(tokens.ids(), whole, "{name}, special {special}: {content:?} {least}");
        }
    }
    cut
}

#[test]
fn pieces_have_the_ids_of_the_whole() {
    const LLAMA3: &str = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    );
    let bytes = |regex: bool, prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
    let split = |pattern: &str, behavior: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false});
    let then = |steps: &[Value]| json!({"type": "Sequence", "pretokenizers": steps});
    let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let all = |parts: &[&Value]| json!({"type": "Sequence", "normalizers": parts});
    let (byte_level, whole_words) = (bpe(true, false), bpe(true, true));
    let characters = bpe(false, false);
    let mut fallback = characters.clone();
    fallback["byte_fallback"] = json!(true);
    let words = json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<|end|>": 3,
        "the": 4, "a": 5, "##a": 6, "##the": 7, ".": 8, "##s": 9, "'": 10, "don": 11}});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [
        ["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["<|end|>", 0.0], ["▁", -3.0], ["▁the", -2.0],
        ["the", -4.0], ["▁a", -2.5], ["a", -4.5], ["don", -5.0], ["s", -5.0], [".", -3.0], ["12", -4.0],
        ["1", -5.0], ["2", -5.0]]});
    let (none, nfc) = (Value::Null, json!({"type": "NFC"}));
    let llama = all(&[&prepend, &replace]);
    let mut tried = 0;
    for (name, model, normalizer, pre) in [
        ("gpt2", &byte_level, &none, bytes(true, false)),
        ("gpt2 prefix", &byte_level, &none, bytes(true, true)),
        (
            "digits",
            &byte_level,
            &nfc,
            then(&[json!({"type": "Digits", "individual_digits": true}), bytes(true, false)]),
        ),
        ("llama3", &whole_words, &none, then(&[split(LLAMA3, "Isolated"), bytes(false, false)])),
        (
            "llama3 prefix",
            &whole_words,
            &nfc,
            then(&[split(LLAMA3, "Isolated"), bytes(false, true)]),
        ),
        (
            "removed",
            &byte_level,
            &json!({"type": "NFKC"}),
            then(&[split(r"\s+", "Removed"), bytes(false, false)]),
        ),
        (
            "falcon",
            &byte_level,
            &none,
            then(&[
                json!({"type": "Punctuation", "behavior": "Contiguous"}),
                bytes(true, false),
                json!({"type": "Digits", "individual_digits": false}),
                split("[0-9][0-9][0-9]", "Isolated"),
            ]),
        ),
        (
            "bloom",
            &byte_level,
            &none,
            then(&[split(r" ?[^(\s|.,!?…。，、।۔،)]+", "Isolated"), bytes(false, false)]),
        ),
        ("one stretch", &byte_level, &json!({"type": "NFKD"}), bytes(false, false)),
        ("one stretch prefix", &byte_level, &none, bytes(false, true)),
        ("llama", &fallback, &llama, none.clone()),
        ("llama unknown", &characters, &llama, none.clone()),
        (
            "gemma",
            &fallback,
            &replace,
            json!({"type": "Split", "pattern": {"String": " "},
            "behavior": "MergedWithPrevious", "invert": false}),
        ),
        ("metaspace first", &fallback, &none, metaspace("first", false)),
        ("metaspace always", &fallback, &nfc, metaspace("always", true)),
        ("unigram", &unigram, &nfc, metaspace("always", true)),
        ("unigram first", &unigram, &none, metaspace("first", true)),
        ("wordpiece", &words, &json!({"type": "Lowercase"}), json!({"type": "BertPreTokenizer"})),
        ("whitespace", &words, &none, json!({"type": "Whitespace"})),
    ] {
        // Of added tokens: lstrip, rstrip, single_word, normalized.
        for flags in [0, 1, 2, 4, 8, 15] {
            let flags = [1, 2, 4, 8].map(|bit| flags & bit != 0);
            let tokenizer = tokenizer(model, normalizer.clone(), pre.clone(), flags);
            tried += 1;
            let cuts = compare(name, &tokenizer, tried, 4);
            assert!(cuts > 100, "{name}: {cuts} cuts are too few to tell");
        }
    }
}

#[test]
fn what_is_not_known_is_tokenised_whole() {
    let model = bpe(true, false);
    let plain = [false; 4];
    let look_behind = json!({"type": "Split", "pattern": {"Regex": r"(?<=a)b"}, "behavior": "Isolated",
        "invert": false});
    assert!(Cuts::of(&tokenizer(&model, Value::Null, look_behind, plain)).is_none());
    let strip = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    assert!(Cuts::of(&tokenizer(&model, strip, Value::Null, plain)).is_none());
    let mut dropout = model.clone();
    dropout["dropout"] = json!(0.1);
    assert!(Cuts::of(&tokenizer(&dropout, Value::Null, Value::Null, plain)).is_none());
    // Whole words without pre-tokeniser: a stretch may be a token whatever its merges say.
    let words = tokenizer(&bpe(true, true), Value::Null, Value::Null, plain);
    let mut cuts = Cuts::of(&words).unwrap();
    assert_eq!(cuts.last(&words, "the end of all.\n", 1), None);
}
