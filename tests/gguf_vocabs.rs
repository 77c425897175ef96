//! `from_gguf` on the tokenizers of real models: llama.cpp's vectors, which Hugging Face's tokenizers
//! computed, and Google's and Qwen's own ids of WikiText-2.
//!
//! Needs a folder with `ggml-vocab-*.gguf` and their `.inp` and `.out` (`KVGAUGE_GGUF_VOCABS`), as the
//! source distribution of the PyPI package llama-cpp-python 0.3.36 has them in
//! `vendor/llama.cpp/models`; the GGUF files of Gemma 3 270M (`KVGAUGE_GEMMA3`) and
//! Qwen2.5-Coder-0.5B (`KVGAUGE_QWEN2`); and the folder of reference numbers (`KVGAUGE_SHARED`,
//! default `../shared`). Where one is missing the test says so in one line; with `KVGAUGE_NO_SKIP=1`
//! that is a failure.

#[path = "common/skip.rs"]
mod skip;
#[path = "common/vocabularies.rs"]
mod vocabularies;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::quantized::gguf_file::{Content, Value};
use kvgauge::corpus::Text;
use kvgauge::corpus::gguf_tokenizer::{GgufTokenizer, from_gguf};
use kvgauge::error::Kind;
use skip::skip;
use tokenizers::normalizers::NFC;

const REFUSED: [(&str, &str); 4] = [
    ("bert-bge", "found \"bert\", WordPiece"),
    ("nomic-bert-moe", "found \"t5\", Unigram"),
    ("aquila", "tokenizer.ggml.pre: missing key"),
    ("gpt-neox", "tokenizer.ggml.pre: missing key"),
];

fn metadata(path: &Path) -> HashMap<String, Value> {
    let mut file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    Content::read(&mut file).unwrap().metadata
}

/// A path that a variable of the environment names.
fn named(what: &str, variable: &str, is_there: fn(&Path) -> bool) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    match path {
        None => skip(what, &format!("{variable} does not name it")),
        Some(path) if is_there(&path) => return Some(path),
        Some(path) => skip(what, &format!("{} is not there", path.display())),
    }
    None
}

fn ids(model: &GgufTokenizer, text: &str) -> Vec<u32> {
    model.tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn ids_are_those_of_llama_cpp_s_vectors() {
    let Some(folder) = named("llama.cpp's vectors", "KVGAUGE_GGUF_VOCABS", Path::is_dir) else {
        return;
    };
    for name in vocabularies::COMPARABLE {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let mut model =
            from_gguf(&metadata(&path)).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The ids of this file are llama.cpp's, which does not normalise; Qwen's tokenizer does.
        if name == "qwen35" {
            assert_eq!(ids(&model, "e\u{301}"), ids(&model, "\u{e9}"));
            model.tokenizer.with_normalizer(None::<NFC>).unwrap();
        }
        let read =
            |ending: &str| std::fs::read_to_string(format!("{}.{ending}", path.display())).unwrap();
        let (texts, expected) = (read("inp"), read("out"));
        let texts: Vec<&str> = texts.split_terminator("\n__ggml_vocab_test__\n").collect();
        let expected: Vec<&str> = expected.lines().collect();
        assert_eq!(texts.len(), expected.len(), "{name}");
        assert!(texts.len() > 40, "{name}");
        for (text, expected) in texts.iter().zip(expected) {
            let expected: Vec<u32> =
                expected.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(ids(&model, text), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn other_kinds_of_real_files_are_refused_by_name() {
    let Some(folder) = named("files of other kinds", "KVGAUGE_GGUF_VOCABS", Path::is_dir) else {
        return;
    };
    for (name, why) in REFUSED {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let error = from_gguf(&metadata(&path)).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{name}");
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert!(error.hint_text().unwrap().contains("Hugging Face folder"), "{name}");
    }
}

/// The first tokens of WikiText-2 and the number of all, in a few seconds at most.
fn wikitext(variable: &str, reference: &str, count: usize) -> Option<GgufTokenizer> {
    let path = named("ids of a real model", variable, Path::is_file)?;
    let shared = std::env::var_os("KVGAUGE_SHARED").map_or("../shared".into(), PathBuf::from);
    let reference = shared.join("reference").join(reference);
    if !reference.is_file() {
        skip("ids of a real model", &format!("{} is not there", reference.display()));
        return None;
    }
    let model = from_gguf(&metadata(&path)).unwrap();
    let text = Text::file(&shared.join("data/wiki.test.raw")).unwrap();
    let start = Instant::now();
    let found = text.tokenize(&model.tokenizer, true).unwrap();
    let took = start.elapsed();
    eprintln!("{variable}: {} tokens in {took:.1?}", found.len());
    assert!(took < Duration::from_secs(20), "{variable}: {took:?}");
    let reference: serde_json::Value =
        serde_json::from_slice(&std::fs::read(reference).unwrap()).unwrap();
    let expected = reference["first_ids"].as_array().unwrap();
    assert!(expected.len() >= count, "{variable}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(u64::from(*found), expected.as_u64().unwrap(), "{variable}: token {i}");
    }
    Some(model)
}

#[test]
fn ids_of_wikitext_are_google_s() {
    let Some(model) = wikitext("KVGAUGE_GEMMA3", "gemma-3-270m_wikitext2_1024.json", 2048) else {
        return;
    };
    assert_eq!((model.bos_id, model.add_bos), (Some(2), true));
    // User-defined tokens: HTML tags, and the longest run of blanks, tabs and line ends that is one.
    assert_eq!(ids(&model, "<h1>a</h1>"), [184, 236746, 191]);
    assert_eq!(ids(&model, &" ".repeat(31)), [167]);
    assert_eq!(ids(&model, &"\t".repeat(32)), [255998, 255968]);
    assert_eq!(ids(&model, "\n\n\n"), [109]);
}

#[test]
fn ids_of_wikitext_are_qwen_s() {
    let reference = "qwen2.5-coder-0.5b_wikitext2_512.json";
    let Some(model) = wikitext("KVGAUGE_QWEN2", reference, 1024) else { return };
    assert!(!model.add_bos);
}
