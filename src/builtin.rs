//! The model and text compiled into the binary: a small Llama and a novel it was not trained on.
//! `data/builtin/README.md` says where both come from and how good the model is.

pub const CONFIG: &[u8] = include_bytes!("../data/builtin/config.json");
pub const TOKENIZER: &[u8] = include_bytes!("../data/builtin/tokenizer.json");
pub const WEIGHTS: &[u8] = include_bytes!("../data/builtin/model.safetensors");
pub const TEXT: &str = include_str!("../data/builtin/text.txt");

/// The bytes that the binary carries for them.
const _: () = assert!(WEIGHTS.len() + TOKENIZER.len() + TEXT.len() <= 8_000_000);
