//! A text's tokens, from its beginning as far as they are asked for.

use super::cuts::Cuts;
use super::text::Text;
use crate::error::{Error, Result};
use tokenizers::Tokenizer;

/// Bytes that are read at a time and tokenised together, up to the last place to cut in them. The
/// tokenizer takes a hundred times its memory.
const PIECE: usize = 1 << 16;

/// The first tokens of a text, without special tokens around it. They are what tokenising it whole
/// gives, however far it was read: it is cut only where that changes no id, and where no such place is
/// known it is read to its end at once.
pub struct TextTokens {
    ids: Vec<u32>,
    /// Whether those are all.
    whole: bool,
    /// Bytes of the text that were read.
    at: u64,
    /// The last of them: one character whose ids are there already, except at the text's beginning,
    /// and what was not tokenised yet.
    rest: String,
    /// The length of that character.
    told: usize,
    /// The tokenizer that takes control tokens for text.
    plain: Option<Tokenizer>,
    cuts: Option<Cuts>,
    piece: usize,
}

impl TextTokens {
    /// `parse_special`: whether a control token that the text spells out, as in `<|endoftext|>`, is
    /// taken for that token; otherwise it is text like any other.
    pub fn new(tokenizer: &Tokenizer, parse_special: bool) -> Self {
        let plain = (!parse_special).then(|| {
            let mut own = tokenizer.clone();
            own.set_encode_special_tokens(true);
            own
        });
        Self {
            ids: Vec::new(),
            whole: false,
            at: 0,
            rest: String::new(),
            told: 0,
            plain,
            cuts: Cuts::of(tokenizer),
            piece: PIECE,
        }
    }

    /// Pieces of about so many bytes.
    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        self.piece = bytes;
        self
    }

    /// Whether places to cut are known for this tokenizer; else a text of any length is tokenised whole.
    pub fn has_cuts(&self) -> bool {
        self.cuts.is_some()
    }

    /// The ids so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The ids so far.
    pub fn into_ids(self) -> Vec<u32> {
        self.ids
    }

    /// The number of the whole text's tokens, where it was read to its end.
    pub fn count(&self) -> Option<usize> {
        self.whole.then_some(self.ids.len())
    }

    /// Reads on until there are `least` ids or the text ends. Always the same text and tokenizer.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or that cannot be read any more.
    pub fn read(&mut self, text: &Text, tokenizer: &Tokenizer, least: usize) -> Result<()> {
        while !self.whole && self.ids.len() < least {
            self.read_piece(text, tokenizer)?;
        }
        Ok(())
    }

    fn read_piece(&mut self, text: &Text, tokenizer: &Tokenizer) -> Result<()> {
        let mut searched = self.told + 1;
        let end = loop {
            self.at += text.read(self.at, self.piece, &mut self.rest)?;
            if self.at >= text.bytes {
                self.whole = true;
                break self.rest.len();
            }
            let cuts = self.cuts.as_mut();
            match cuts.and_then(|cuts| cuts.last(tokenizer, &self.rest, searched)) {
                Some(cut) => break cut,
                None => searched = self.rest.len(),
            }
        };
        let tokenizer = self.plain.as_ref().unwrap_or(tokenizer);
        let encode = |piece: &str| {
            tokenizer.encode_fast(piece, false).map_err(|e| {
                Error::input(format!("{}: cannot be tokenised: {e}", text.source)).hint(
                    "the model's tokenizer refuses it: do tokenizer and text belong together?",
                )
            })
        };
        let piece = &self.rest[..end];
        // A tokenizer may make something of nothing.
        let told = if self.told == 0 { 0 } else { encode(&piece[..self.told])?.len() };
        self.ids.extend(encode(piece)?.get_ids().iter().skip(told));
        let last = piece.char_indices().next_back().map_or(0, |(at, _)| at);
        self.told = end - last;
        self.rest.drain(..last);
        Ok(())
    }
}
