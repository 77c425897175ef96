//! Where a text may be cut so that its pieces have the ids of the whole.
//!
//! Between two characters `a` and `b`, if for every text that has them side by side
//!
//! ```text
//! ids(… a b …) = ids(… a) + ids(a b …) without ids(a)
//! ```
//!
//! The second piece begins with `a` so that whatever a tokenizer puts before a text, as `▁`, comes
//! before `a` and is left out with it. That follows from what the tokenizer is made of, step by step:
//!
//! - **Added tokens** are found before all else. None has `a` before `b` in it, so none is cut; none ends
//!   with `a`, so none swallows blanks from `b` on or makes `b` the beginning of a stretch; and `a` is no
//!   blank, so none behind the cut swallows anything before it.
//! - **Normalisers** change the two characters each by itself: no character that joins what precedes it
//!   when composed ([`stands_alone`]), no pattern that knows either beyond replacing it.
//! - **Pre-tokenisers** go from left to right by patterns without look-behind. No match has `a` before
//!   `b` in what it takes or looks at, so each one before the cut ends there at the latest, sees the cut
//!   as it would see the text's end, and the search goes on at the cut as at a text's beginning.
//! - **The model** gets the stretches between the pre-tokenisers' cuts. Where the text's cut is one of
//!   them for certain, because a match begins at `b` whatever comes behind it, each stretch is the same
//!   and nothing is asked of the model. Elsewhere a stretch may go across, and the model must be BPE by
//!   merges alone whose vocabulary has `a` and `b` and no token with `a` before `b`: a merge makes a
//!   token of the vocabulary, so none goes across, and merges on one side know nothing of the other's.
//!
//! What is not known here (look-behind, normalisers with tables, Unigram over a whole text, whose sums
//! are rounded) has no cuts, and its texts are tokenised whole.

mod normalizer;
mod pattern;
mod pre_tokenizer;

use normalizer::Change;
use pre_tokenizer::{Between, Step};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use tokenizers::{ModelWrapper, NormalizedString, Normalizer, Tokenizer};

/// A tokenizer's cuts, and those asked for before.
pub(super) struct Cuts {
    /// Added tokens, as they stand in a text.
    added: Vec<String>,
    /// Those that are looked for in the normalised text, as they stand there.
    added_normalized: Vec<String>,
    changes: Vec<Change>,
    steps: Vec<Step>,
    model: Model,
    known: HashMap<(char, char), bool>,
}

/// What may be said of a stretch that goes across a cut.
enum Model {
    /// Nothing.
    AnyStretch,
    /// Characters of which its vocabulary has tokens, and those side by side in one.
    Merges(OnceCell<Neighbours>),
}

#[derive(Default)]
struct Neighbours {
    alone: HashSet<char>,
    pairs: HashSet<(char, char)>,
}

impl Cuts {
    /// `None`: not known for this tokenizer.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let model = match tokenizer.get_model() {
            ModelWrapper::BPE(bpe) => {
                let affix = [&bpe.continuing_subword_prefix, &bpe.end_of_word_suffix];
                let affix = affix.iter().any(|affix| affix.as_ref().is_some_and(|a| !a.is_empty()));
                match bpe.dropout {
                    Some(share) if share != 0.0 => return None,
                    _ if affix || bpe.ignore_merges => Model::AnyStretch,
                    _ => Model::Merges(OnceCell::new()),
                }
            }
            _ => Model::AnyStretch,
        };
        let (mut added, mut added_normalized) = (Vec::new(), Vec::new());
        for token in tokenizer.get_added_tokens_decoder().values() {
            if token.normalized
                && let Some(normalizer) = tokenizer.get_normalizer()
            {
                let mut content = NormalizedString::from(token.content.as_str());
                normalizer.normalize(&mut content).ok()?;
                added_normalized.push(content.get().to_string());
            }
            added.push(token.content.clone());
        }
        Some(Self {
            added,
            added_normalized,
            changes: normalizer::changes(tokenizer)?,
            steps: pre_tokenizer::steps(tokenizer)?,
            model,
            known: HashMap::new(),
        })
    }

    /// The last cut of a text at or behind `from`, before its last character: a byte index.
    pub(super) fn last(&mut self, tokenizer: &Tokenizer, text: &str, from: usize) -> Option<usize> {
        let mut right: Option<(usize, char)> = None;
        for (at, left) in text.char_indices().rev() {
            if let Some((cut, right)) = right {
                if cut < from {
                    return None;
                }
                if self.allows(tokenizer, left, right) {
                    return Some(cut);
                }
            }
            right = Some((at, left));
        }
        None
    }

    fn allows(&mut self, tokenizer: &Tokenizer, a: char, b: char) -> bool {
        if let Some(known) = self.known.get(&(a, b)) {
            return *known;
        }
        let allowed = self.judge(tokenizer, a, b).unwrap_or(false);
        self.known.insert((a, b), allowed);
        allowed
    }

    /// `None` and `false`: no cut.
    fn judge(&self, tokenizer: &Tokenizer, a: char, b: char) -> Option<bool> {
        if a.is_whitespace() || !stands_alone(a) || !stands_alone(b) || meets(&self.added, a, b) {
            return None;
        }
        let image = |c| self.changes.iter().try_fold(c, |c, change| change.of(c));
        let (mut a, mut b) = (image(a)?, image(b)?);
        if meets(&self.added_normalized, a, b) {
            return None;
        }
        for step in &self.steps {
            match step.between(a, b)? {
                Between::Cut => return Some(true),
                Between::Open(left, right) => (a, b) = (left, right),
            }
        }
        let Model::Merges(neighbours) = &self.model else { return None };
        let neighbours = neighbours.get_or_init(|| Neighbours::of(tokenizer));
        let known = [a, b].iter().all(|c| neighbours.alone.contains(c));
        Some(known && !neighbours.pairs.contains(&(a, b)))
    }
}

impl Neighbours {
    fn of(tokenizer: &Tokenizer) -> Self {
        let mut neighbours = Self::default();
        for token in tokenizer.get_vocab(false).keys() {
            let mut left = None;
            for c in token.chars() {
                neighbours.pairs.extend(left.map(|left| (left, c)));
                left = Some(c);
            }
            let mut chars = token.chars();
            if let (Some(c), None) = (chars.next(), chars.next()) {
                neighbours.alone.insert(c);
            }
        }
        neighbours
    }
}

/// Whether one of the tokens ends with `a` or has `b` behind it.
fn meets(tokens: &[String], a: char, b: char) -> bool {
    let pair = String::from_iter([a, b]);
    tokens.iter().any(|token| token.ends_with(a) || token.contains(&pair))
}

/// Whether composing and decomposing a text changes a character without regard to what is before it,
/// and nothing before it: it begins with a starter that is no composition's second character. Of the
/// many that do, the blocks of common scripts.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\t' | '\n' | '\r' | ' '..='~'
        // Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari: letters without their marks.
        | '\u{C0}'..='\u{24F}' | '\u{370}'..='\u{482}' | '\u{48A}'..='\u{52F}'
        | '\u{5D0}'..='\u{5EA}' | '\u{620}'..='\u{64A}' | '\u{904}'..='\u{939}'
        // Punctuation, SentencePiece's blank.
        | '\u{2010}'..='\u{2027}' | '\u{2581}'
        // CJK, kana, Hangul syllables, full-width forms.
        | '\u{3001}'..='\u{3029}' | '\u{3041}'..='\u{3096}' | '\u{30A1}'..='\u{30FC}'
        | '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}' | '\u{FF01}'..='\u{FF60}')
}

#[cfg(test)]
mod tests;
