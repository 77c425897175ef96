//! The tokenizer that a GGUF file carries in its metadata, as a Hugging Face `Tokenizer`.
//!
//! Three kinds are built, named by `tokenizer.ggml.model`: `gpt2` (byte-level BPE: tokens, merges and
//! a named pre-tokeniser), `llama` (SentencePiece BPE: tokens and scores) and `gemma4` (the same with
//! merges for scores). Everything else, and every value that is missing, mistyped or contradicts
//! another, is an input error that names the key; no metadata makes this module panic.
//!
//! The reference is Hugging Face's tokenizer of the same model: same text, same ids. So control,
//! unknown and user-defined tokens that stand literally in the text become their ids (`<unk>` is
//! id 0 for TinyLlama), where llama-perplexity spells control and unknown tokens out, and a `llama`
//! tokenizer puts its space prefix before every stretch between two such tokens. User-defined tokens
//! are taken longest first, as SentencePiece and llama.cpp do; Hugging Face's conversion of Gemma
//! merges runs of blanks instead, which differs where more than 31 follow each other. What GGUF does
//! not record is taken as absent: tokens that swallow the blanks beside them, and the newer Mistral
//! files' rule that only the first stretch gets the prefix.
//!
//! Encode with `encode_fast(text, false)`: there is no post-processor, BOS is the caller's.

mod metadata;
mod patterns;
mod recipe;

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use tokenizers::decoders::{byte_fallback::ByteFallback, fuse::Fuse, strip::Strip};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{NFC, Prepend, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, Tokenizer};
use tokenizers::{decoders, normalizers};

use crate::error::{Error, Result};
use metadata::{Metadata, integer, mismatch, quoted};
use recipe::Recipe;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const TRIM_BLANKS: &str = "tokenizer.ggml.remove_extra_whitespaces";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// SentencePiece's visible blank.
const BLANK: &str = "▁";

/// A tokenizer out of a GGUF file, with what the file says of BOS.
#[derive(Debug)]
pub struct GgufTokenizer {
    /// Text to token ids; it adds no special tokens.
    pub tokenizer: Tokenizer,
    /// Id of the beginning-of-sequence token, where the file names one.
    pub bos_id: Option<u32>,
    /// Whether the model expects BOS in front of a text; never true without `bos_id`.
    pub add_bos: bool,
}

/// `metadata`: the key/value section of a GGUF file.
pub fn from_gguf(metadata: &HashMap<String, Value>) -> Result<GgufTokenizer> {
    read(Metadata(metadata)).map_err(|e| e.hint(MADE_BY))
}

fn read(metadata: Metadata) -> Result<GgufTokenizer> {
    let (vocabulary, mut tokenizer, expects_bos) = match metadata.text(MODEL)? {
        "gpt2" => {
            let recipe = Recipe::named_by(&metadata)?;
            let vocabulary = Vocabulary::read(&metadata)?;
            let tokenizer = byte_level(&metadata, &vocabulary, recipe)?;
            (vocabulary, tokenizer, recipe.add_bos)
        }
        "llama" => {
            let vocabulary = Vocabulary::read(&metadata)?;
            let merges = vocabulary.merges_by_score(&metadata)?;
            let tokenizer = characters(&metadata, &vocabulary, merges, true)?;
            (vocabulary, tokenizer, true)
        }
        "gemma4" => {
            let vocabulary = Vocabulary::read(&metadata)?;
            let merges = vocabulary.listed_merges(&metadata)?;
            let tokenizer = characters(&metadata, &vocabulary, merges, false)?;
            (vocabulary, tokenizer, true)
        }
        other => return Err(unsupported(other)),
    };
    // Not normalised: matched in the text as it stands, before the normaliser sees it.
    let added = vocabulary.added().map(|(token, kind)| {
        AddedToken::from(token, kind != TokenKind::UserDefined).normalized(false)
    });
    tokenizer.add_tokens(added).map_err(rejected)?;

    let bos_id = metadata.id(BOS, vocabulary.tokens.len())?;
    let add_bos = metadata.flag(ADD_BOS)?;
    if add_bos == Some(true) && bos_id.is_none() {
        let expected = format!("an id, as {ADD_BOS} is true");
        return Err(mismatch(BOS, "missing key", expected, "none"));
    }
    Ok(GgufTokenizer {
        tokenizer,
        bos_id,
        add_bos: add_bos.unwrap_or(expects_bos) && bos_id.is_some(),
    })
}

/// The hint where nothing better is known.
const MADE_BY: &str = "llama.cpp's convert_hf_to_gguf.py writes the tokenizer.ggml.* keys: is \
    this the whole file of a language model, or was its header edited?";
const USE_THE_FOLDER: &str = "use the model's Hugging Face folder, which has a tokenizer.json";

fn byte_level(metadata: &Metadata, vocabulary: &Vocabulary, recipe: &Recipe) -> Result<Tokenizer> {
    let merges = vocabulary.listed_merges(metadata)?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary.ids.clone(), merges)
        .ignore_merges(recipe.ignore_merges)
        .build()
        .map_err(rejected)?;
    let mut tokenizer = Tokenizer::new(bpe);
    let normalizer = recipe.nfc.then_some(NFC);
    tokenizer.with_normalizer(normalizer).map_err(rejected)?;
    let pre_tokenizer = recipe.pre_tokenizer().map_err(rejected)?;
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// The error for a kind of tokenizer that is not built here.
fn unsupported(kind: &str) -> Error {
    let what = match kind {
        "bert" => ", WordPiece",
        "t5" => ", Unigram",
        "rwkv" => ", RWKV's longest match",
        "plamo2" => ", PLaMo 2's own",
        "whitespace" => ", words between blanks",
        "hybriddna" => ", words and DNA",
        "none" | "no_vocab" => ", a file without a tokenizer",
        _ => "",
    };
    let found = format!("{}{what}", quoted(kind));
    mismatch(MODEL, "unsupported kind", "gpt2, llama or gemma4", found).hint(USE_THE_FOLDER)
}

/// SentencePiece's BPE over characters, with bytes for those that are no token. No pre-tokeniser: it
/// merges across blanks, so a whole stretch of text is one piece. `prefix`: whether a file that does
/// not say so puts a blank before a stretch.
fn characters(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    merges: Merges,
    prefix: bool,
) -> Result<Tokenizer> {
    if metadata.0.contains_key(CHARSMAP) {
        return Err(mismatch(CHARSMAP, "unsupported key", "none", "a table").hint(USE_THE_FOLDER));
    }
    if metadata.flag(TRIM_BLANKS)? == Some(true) {
        let error = mismatch(TRIM_BLANKS, "unsupported value", "false", "true");
        return Err(error.hint(USE_THE_FOLDER));
    }
    // 0 is SentencePiece's own default.
    let unknown = metadata.id(UNKNOWN, vocabulary.tokens.len())?.unwrap_or(0);
    let unknown = vocabulary.tokens.get(unknown as usize);
    let unknown = unknown.filter(|token| !token.is_empty());
    let unknown = unknown.ok_or_else(|| {
        mismatch(UNKNOWN, "no unknown token", "the id of a token that has text", "none")
    })?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary.ids.clone(), merges)
        .unk_token(unknown.clone())
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(rejected)?;

    let mut normalizer: Vec<NormalizerWrapper> = Vec::new();
    let mut decoder: Vec<DecoderWrapper> = vec![
        Replace::new(BLANK, " ").map_err(rejected)?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
    ];
    if metadata.flag(SPACE_PREFIX)?.unwrap_or(prefix) {
        normalizer.push(Prepend::new(BLANK.to_string()).into());
        decoder.push(Strip::new(' ', 1, 0).into());
    }
    normalizer.push(Replace::new(" ", BLANK).map_err(rejected)?.into());

    let mut tokenizer = Tokenizer::new(bpe);
    let normalizer = normalizers::Sequence::new(normalizer);
    tokenizer.with_normalizer(Some(normalizer)).map_err(rejected)?;
    tokenizer.with_decoder(Some(decoders::sequence::Sequence::new(decoder)));
    Ok(tokenizer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
    ids: Vocab,
}

impl Vocabulary {
    fn read(metadata: &Metadata) -> Result<Self> {
        let tokens = metadata.strings(TOKENS)?;
        let tokens: Vec<String> = tokens.into_iter().map(str::to_string).collect();
        let mut ids = Vocab::with_capacity(tokens.len());
        for (id, token) in (0..).zip(&tokens) {
            // An empty token keeps its id, but no text can become it.
            if token.is_empty() {
                continue;
            }
            if let Some(first) = ids.insert(token.clone(), id) {
                let expected = format!("a token other than that of id {first}");
                let place = format!("{TOKENS}[{id}]");
                return Err(mismatch(place, "duplicate", expected, quoted(token)));
            }
        }
        let kind = |value: &Value| {
            Some(match integer(value)? {
                0 | 1 => TokenKind::Normal,
                2 => TokenKind::Unknown,
                3 => TokenKind::Control,
                4 => TokenKind::UserDefined,
                5 => TokenKind::Unused,
                6 => TokenKind::Byte,
                _ => return None,
            })
        };
        let kinds = metadata.per_token(TOKEN_TYPE, tokens.len(), "a type from 0 to 6", kind)?;
        Ok(Self { tokens, kinds, ids })
    }

    /// The tokens that are found in the text before it is normalised and cut.
    fn added(&self) -> impl Iterator<Item = (&str, TokenKind)> {
        let all = self.tokens.iter().map(String::as_str).zip(self.kinds.iter().copied());
        let all = all.enumerate().filter(|(id, (token, kind))| {
            matches!(kind, TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined)
                && !is_filler(token, *id)
        });
        all.map(|(_, added)| added)
    }

    /// The pairs that the file lists, best first.
    fn listed_merges(&self, metadata: &Metadata) -> Result<Merges> {
        // The BPE builder panics on a union longer than every token, so the union is looked up here.
        let known = |token: &str| self.ids.contains_key(token);
        let mut merges = Merges::new();
        for (i, merge) in metadata.strings(MERGES)?.into_iter().enumerate() {
            match merge.split_once(' ') {
                Some((left, right))
                    if known(left) && known(right) && known(&[left, right].concat()) =>
                {
                    merges.push((left.to_string(), right.to_string()));
                }
                _ => {
                    let place = format!("{MERGES}[{i}]");
                    let expected = "two tokens, a space between them, whose union is a token";
                    return Err(mismatch(place, "invalid merge", expected, quoted(merge)));
                }
            }
        }
        Ok(merges)
    }

    /// The id of a piece that merging may use or make: not a byte, control or unknown piece.
    fn piece(&self, text: &str) -> Option<u32> {
        let id = *self.ids.get(text)?;
        let kind = self.kinds[id as usize];
        matches!(kind, TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused).then_some(id)
    }

    /// SentencePiece merges the neighbours whose union scores best; BPE wants that as a list of
    /// pairs, best first: every way to cut every piece in two. The pairs of one piece are in the
    /// order of their ids, as Hugging Face converts them.
    fn merges_by_score(&self, metadata: &Metadata) -> Result<Merges> {
        let score = |value: &Value| match value {
            Value::F32(score) if !score.is_nan() => Some(f64::from(*score)),
            Value::F64(score) if !score.is_nan() => Some(*score),
            other => integer(other).map(|score| score as f64),
        };
        let scores = metadata.per_token(SCORES, self.tokens.len(), "a number", score)?;
        let mut pairs = Vec::new();
        for (token, score) in self.tokens.iter().zip(scores) {
            let Some(whole) = self.piece(token) else {
                continue;
            };
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(left), Some(right)) = (self.piece(left), self.piece(right)) {
                    pairs.push((score, (whole, left, right)));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let text = |id: u32| self.tokens[id as usize].clone();
        let merges = pairs.into_iter().map(|(_, (_, left, right))| (text(left), text(right)));
        Ok(merges.collect())
    }
}

/// Whether a token only fills a row of the embeddings: converters name those by their ids, and no
/// tokenizer of the model's has them.
fn is_filler(token: &str, id: usize) -> bool {
    let number = token.strip_prefix("[PAD").and_then(|rest| rest.strip_suffix(']'));
    number.is_some_and(|number| number.parse() == Ok(id))
}

/// The error for metadata that the tokenizers crate refuses although every value was checked.
fn rejected(error: tokenizers::Error) -> Error {
    let text = error.to_string();
    let first_line = text.lines().next().unwrap_or_default();
    Error::input(format!("tokenizer metadata: {first_line}"))
}
