//! text → tokens → windows.

pub mod gguf_tokenizer;
mod source;
mod text;

pub use source::{TEXT_TAKES, TextSource};
pub use text::Text;

use crate::error::{Error, Result};

/// Which windows of a text to take.
#[derive(Debug, Clone, Copy)]
pub struct WindowPlan {
    pub context: usize,
    /// Index of the first window.
    pub first: usize,
    /// At most this many; `None`: all.
    pub count: Option<usize>,
    /// Replaces the first token of every window, as llama-perplexity does.
    pub bos: Option<u32>,
}

impl WindowPlan {
    /// Cuts non-overlapping windows; fewer than asked for when the text is shorter, never none.
    pub fn cut(&self, tokens: &[u32], source: &str) -> Result<Vec<Vec<u32>>> {
        let available = tokens.len() / self.context;
        if available == 0 {
            return Err(Error::input(format!(
                "{source}: expected at least {} tokens, one window, found {}",
                self.context,
                tokens.len()
            ))
            .hint("use a longer text or a smaller --context"));
        }
        if self.first >= available {
            return Err(Error::input(format!(
                "--first-window: expected at most {}, the last of the text's {available} windows, found {}",
                available - 1,
                self.first
            ))
            .hint("windows are counted from 0"));
        }
        Ok(tokens
            .chunks_exact(self.context)
            .skip(self.first)
            .take(self.count.unwrap_or(usize::MAX))
            .map(|window| {
                let mut window = window.to_vec();
                if let (Some(bos), Some(first)) = (self.bos, window.first_mut()) {
                    *first = bos;
                }
                window
            })
            .collect())
    }
}
