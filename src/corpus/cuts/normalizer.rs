//! What a tokenizer's normalisers make of one character beside a cut.

use super::pattern::Pattern;
use super::stands_alone;
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper, Tokenizer};

pub(super) enum Change {
    /// Each character by itself, if it stands alone.
    Each(NormalizerWrapper),
    /// What a pattern finds; one character alone where `of_one` is true.
    Replace { pattern: Pattern, of_one: bool, normalizer: NormalizerWrapper },
}

/// In their order; `None` where one is not known to leave a cut alone. What is put before a text is no
/// change: it comes before the character that begins a piece.
pub(super) fn changes(tokenizer: &Tokenizer) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    if let Some(normalizer) = tokenizer.get_normalizer() {
        add(&serde_json::to_value(normalizer).ok()?, &mut changes)?;
    }
    Some(changes)
}

fn add(normalizer: &Value, changes: &mut Vec<Change>) -> Option<()> {
    let same = || serde_json::from_value(normalizer.clone()).ok();
    match normalizer["type"].as_str()? {
        "Sequence" => {
            for part in normalizer["normalizers"].as_array()? {
                add(part, changes)?;
            }
        }
        "Prepend" => {}
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" => changes.push(Change::Each(same()?)),
        "Replace" => {
            let (literal, regex) =
                (normalizer["pattern"]["String"].as_str(), normalizer["pattern"]["Regex"].as_str());
            changes.push(Change::Replace {
                pattern: match literal {
                    Some(literal) => Pattern::literal(literal),
                    None => Pattern::regex(regex?)?,
                },
                of_one: literal.is_some_and(|literal| literal.chars().count() == 1),
                normalizer: same()?,
            });
        }
        _ => return None,
    }
    Some(())
}

impl Change {
    /// `None` where that is not one character whatever is around it.
    pub(super) fn of(&self, c: char) -> Option<char> {
        let normalizer = match self {
            Self::Each(normalizer) => stands_alone(c).then_some(normalizer)?,
            Self::Replace { pattern, .. } if !pattern.knows(c) => return Some(c),
            Self::Replace { of_one, normalizer, .. } => of_one.then_some(normalizer)?,
        };
        let mut text = NormalizedString::from(c.to_string());
        normalizer.normalize(&mut text).ok()?;
        let mut chars = text.get().chars();
        chars.next().filter(|_| chars.next().is_none())
    }
}
