//! Corpus: text → tokens → windows.

mod cuts;
pub mod gguf_tokenizer;
mod source;
mod survey;
mod text;
mod tokens;
mod window;

pub use source::{TEXT_TAKES, TextSource};
pub use text::Text;
pub use tokens::TextTokens;
pub use window::{Window, WindowPlan, WindowShape};

/// Texts up to so many bytes are tokenised to their end, which takes a second or two, so that results
/// tell how many windows they have; of longer ones only the windows that are asked for.
pub const COUNTED: u64 = 4 << 20;
