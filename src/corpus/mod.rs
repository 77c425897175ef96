//! Corpus: text → tokens → windows.

pub mod gguf_tokenizer;
mod source;
mod text;
mod window;

pub use source::{TEXT_TAKES, TextSource};
pub use text::Text;
pub use window::{Window, WindowPlan, WindowShape};
