//! What `kvgauge` says where nothing was asked for.

/// Within 60 columns.
pub const INTRODUCTION: &str = "\
kvgauge: what does compressing the KV cache cost this model
on this text? It compresses the cache for real and says how
much worse the model's predictions get.

Usage: kvgauge COMMAND

Try it: a small model on a novel, nothing to download
  kvgauge validate --model builtin
A verdict for your model on your text
  kvgauge validate --model model.gguf --text my-prompts.txt
Many codecs at once, with a report
  kvgauge sweep configs/quickstart.toml

kvgauge --help lists all commands,
kvgauge validate --help the flags of one.
";
