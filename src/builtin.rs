//! What is compiled into the binary: a small Llama and a novel it was not trained on.
//! `data/builtin/README.md` says where both come from and how good the model is.

pub const CONFIG: &[u8] = include_bytes!("../data/builtin/config.json");
pub const TOKENIZER: &[u8] = include_bytes!("../data/builtin/tokenizer.json");
pub const WEIGHTS: &[u8] = include_bytes!("../data/builtin/model.safetensors");
pub const TEXT: &str = include_str!("../data/builtin/text.txt");

/// The weights and the tokenizer stay well inside what a binary may carry.
const _: () = assert!(WEIGHTS.len() <= 8_000_000);
