//! The pre-tokenisers that `tokenizer.ggml.pre` names: how a text is cut before byte-level BPE.
//!
//! A name means what Hugging Face's `tokenizer.json` of its models says, and what llama.cpp makes of
//! it where that file could not be had (`docs/models-and-texts.md` says which). Where the two are
//! known to differ, as in NFC normalisation and in `tekken`'s and `gpt-4o`'s letter cases, it is
//! Hugging Face's. A file that names none is refused: the wrong pattern changes every number and
//! nothing shows it. The patterns hold for runs of up to a million blanks, the backtracking limit of
//! the regex engine.

use tokenizers::SplitDelimiterBehavior::{Contiguous, Isolated};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::{
    PreTokenizerWrapper, byte_level::ByteLevel, digits::Digits, punctuation::Punctuation,
};

use super::USE_THE_FOLDER;
use super::metadata::{Metadata, mismatch, quoted};
use super::patterns::*;
use crate::error::Result;

const PRE: &str = "tokenizer.ggml.pre";

#[derive(Debug)]
pub(super) struct Recipe {
    names: &'static [&'static str],
    /// Whether the text is NFC-normalised first.
    pub(super) nfc: bool,
    /// Applied in this order, each to what the one before left.
    cuts: &'static [Cut],
    /// A stretch that is a token as a whole is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// The meaning of a file without `add_bos_token`.
    pub(super) add_bos: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// GPT-2's pattern. Bytes become characters in this step: what follows sees those. Without it
    /// they do after the last cut.
    Gpt2,
    EachDigit,
    DigitRuns,
    /// Runs of punctuation: Unicode's and all of ASCII's.
    Punctuation,
    Matches(&'static str),
}

const PLAIN: Recipe = Recipe {
    names: &["gpt-2", "gpt2", "phi-2", "jais"],
    nfc: false,
    cuts: &[Cut::Gpt2],
    ignore_merges: false,
    add_bos: false,
};

const RECIPES: &[Recipe] = &[
    PLAIN,
    Recipe {
        names: &["smollm", "starcoder", "refact", "exaone", "minerva-7b"],
        cuts: &[Cut::EachDigit, Cut::Gpt2],
        ..PLAIN
    },
    Recipe {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        cuts: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Recipe { names: &["smaug-bpe", "dbrx", "chatglm-bpe"], cuts: &[LLAMA3], ..PLAIN },
    Recipe { names: &["glm4"], cuts: &[LLAMA3], ignore_merges: true, ..PLAIN },
    Recipe { names: &["tekken"], cuts: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    Recipe { names: &["gpt-4o", "llama4"], cuts: &[GPT4O], ..PLAIN },
    Recipe { names: &["qwen2", "deepseek-r1-qwen"], nfc: true, cuts: &[QWEN2], ..PLAIN },
    Recipe { names: &["stablelm2", "hunyuan"], cuts: &[QWEN2], ..PLAIN },
    Recipe { names: &["qwen35"], nfc: true, cuts: &[QWEN35], ..PLAIN },
    Recipe { names: &["seed-coder"], cuts: &[SEED_CODER], ..PLAIN },
    Recipe { names: &["deepseek-coder"], cuts: DEEPSEEK_CODER, ..PLAIN },
    Recipe { names: &["deepseek-llm"], cuts: DEEPSEEK_LLM, ..PLAIN },
    Recipe { names: &["deepseek-v3", "hunyuan-dense"], cuts: DEEPSEEK_V3, ..PLAIN },
    Recipe { names: &["command-r"], nfc: true, cuts: &[Cut::EachDigit, Cut::Gpt2], ..PLAIN },
    Recipe { names: &["mpt", "olmo"], nfc: true, ..PLAIN },
    Recipe { names: &["falcon"], cuts: FALCON, ..PLAIN },
    Recipe { names: &["bloom"], cuts: &[BLOOM], ..PLAIN },
    Recipe { names: &["superbpe"], cuts: SUPERBPE, ..PLAIN },
];

const CONVERT_AGAIN: &str = "the file does not say how its model cuts a text: convert the model \
                             again with a newer llama.cpp, or use its Hugging Face folder";

impl Recipe {
    pub(super) fn named_by(metadata: &Metadata) -> Result<&'static Recipe> {
        let names = RECIPES.iter().flat_map(|recipe| recipe.names).copied();
        let known = format!("one of {}", names.collect::<Vec<_>>().join(", "));
        if !metadata.0.contains_key(PRE) {
            return Err(mismatch(PRE, "missing key", known, "none").hint(CONVERT_AGAIN));
        }
        let name = metadata.text(PRE)?;
        let recipe = RECIPES.iter().find(|recipe| recipe.names.contains(&name));
        recipe.ok_or_else(|| {
            let error = mismatch(PRE, "unsupported pre-tokeniser", known, quoted(name));
            error.hint(if name == "default" { CONVERT_AGAIN } else { USE_THE_FOLDER })
        })
    }

    pub(super) fn pre_tokenizer(&self) -> tokenizers::Result<Sequence> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        let mut bytes = false;
        for cut in self.cuts {
            steps.push(match cut {
                Cut::Gpt2 => {
                    bytes = true;
                    ByteLevel::new(false, true, true).into()
                }
                Cut::EachDigit => Digits::new(true).into(),
                Cut::DigitRuns => Digits::new(false).into(),
                Cut::Punctuation => Punctuation::new(Contiguous).into(),
                Cut::Matches(pattern) => {
                    let pattern = SplitPattern::Regex((*pattern).to_string());
                    Split::new(pattern, Isolated, false)?.into()
                }
            });
        }
        if !bytes {
            steps.push(ByteLevel::new(false, true, false).into());
        }
        Ok(Sequence::new(steps))
    }
}
