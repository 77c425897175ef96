//! What a tokenizer's pre-tokenisers do between two characters side by side.

use super::pattern::Pattern;
use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper, Tokenizer,
};

/// GPT-2's, which `ByteLevel` brings along.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

pub(super) enum Step {
    /// Stretches found by a pattern; `joining`: which join what is beside them.
    Split { pattern: Pattern, joining: bool },
    /// Runs of characters of one kind, or each of a kind.
    Kinds(PreTokenizerWrapper),
    /// Characters for the bytes.
    Bytes,
    /// Blanks made visible, and what follows one kept at it.
    Blanks { visible: char, split: bool },
}

/// What there is between the two.
pub(super) enum Between {
    /// A cut, in every text.
    Cut,
    /// Nothing that is known, and nothing that goes by what is on the other side; the two characters
    /// as the next step sees them.
    Open(char, char),
}

/// In their order; `None` where one is not known to leave a cut alone.
pub(super) fn steps(tokenizer: &Tokenizer) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        add(&serde_json::to_value(pre_tokenizer).ok()?, &mut steps)?;
    }
    Some(steps)
}

fn add(pre_tokenizer: &Value, steps: &mut Vec<Step>) -> Option<()> {
    let of_kinds = || serde_json::from_value(pre_tokenizer.clone()).ok().map(Step::Kinds);
    let behavior = pre_tokenizer["behavior"].as_str();
    match pre_tokenizer["type"].as_str()? {
        "Sequence" => {
            for part in pre_tokenizer["pretokenizers"].as_array()? {
                add(part, steps)?;
            }
        }
        "Split" => {
            let source = &pre_tokenizer["pattern"];
            let pattern = match source["String"].as_str() {
                Some(literal) => Pattern::literal(literal),
                None => Pattern::regex(source["Regex"].as_str()?)?,
            };
            let joining = !matches!(behavior?, "Isolated" | "Removed");
            steps.push(Step::Split { pattern, joining });
        }
        "ByteLevel" => {
            if pre_tokenizer["use_regex"].as_bool()? {
                steps.push(Step::Split { pattern: Pattern::regex(GPT2)?, joining: false });
            }
            steps.push(Step::Bytes);
        }
        "Metaspace" => {
            let mut replacement = pre_tokenizer["replacement"].as_str()?.chars();
            let visible = replacement.next()?;
            steps.push(Step::Blanks { visible, split: pre_tokenizer["split"].as_bool()? });
        }
        "Punctuation" if !matches!(behavior?, "Isolated" | "Removed" | "Contiguous") => {
            return None;
        }
        "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit" | "BertPreTokenizer" => {
            steps.push(of_kinds()?);
        }
        _ => return None,
    }
    Some(())
}

impl Step {
    /// `None` where a stretch may end otherwise for what is on the cut's other side.
    pub(super) fn between(&self, a: char, b: char) -> Option<Between> {
        Some(match self {
            Self::Split { pattern, joining: true } => {
                let known = pattern.knows(a) || pattern.knows(b);
                (!known).then_some(Between::Open(a, b))?
            }
            Self::Split { pattern, .. } if pattern.joins(a, b) => return None,
            Self::Split { pattern, .. } if pattern.always_takes(b) => Between::Cut,
            Self::Split { .. } => Between::Open(a, b),
            Self::Kinds(kinds) => {
                let pair = String::from_iter([a, b]);
                match stretches(kinds, &pair)?.iter().any(|(_, at)| *at == (0, pair.len())) {
                    true => Between::Open(a, b),
                    false => Between::Cut,
                }
            }
            Self::Bytes => Between::Open(bytes(a)?.chars().next_back()?, bytes(b)?.chars().next()?),
            Self::Blanks { visible, split } => {
                let b = if b == ' ' { *visible } else { b };
                match (a == *visible, *split && b == *visible) {
                    (true, _) => return None,
                    (false, true) => Between::Cut,
                    (false, false) => Between::Open(a, b),
                }
            }
        })
    }
}

fn bytes(c: char) -> Option<String> {
    let bytes = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false));
    stretches(&bytes, &c.to_string())?.pop().map(|(text, _)| text)
}

/// What a pre-tokeniser makes of a text: stretches and their bytes in it.
fn stretches(by: &PreTokenizerWrapper, text: &str) -> Option<Vec<(String, (usize, usize))>> {
    let mut cut = PreTokenizedString::from(text);
    by.pre_tokenize(&mut cut).ok()?;
    let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Some(splits.into_iter().map(|(text, at, _)| (text.to_string(), at)).collect())
}
