//! llama.cpp's vocabulary files (`ggml-vocab-NAME.gguf`), as the PyPI sdist of llama-cpp-python ships
//! them.

/// Those that load here and come with texts and ids.
pub const COMPARABLE: [&str; 14] = [
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gemma-4",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
];
