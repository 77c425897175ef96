//! Flags of other tools, and the flag here that each is.

/// Flags of other tools with one meaning.
pub struct ForeignFlag {
    /// Their names without dashes.
    pub names: &'static [&'static str],
    /// The flag here; a command without it does not give the hint.
    pub flag: &'static str,
    /// The hint.
    pub hint: &'static str,
}

const fn foreign(
    names: &'static [&'static str],
    flag: &'static str,
    hint: &'static str,
) -> ForeignFlag {
    ForeignFlag { names, flag, hint }
}

/// Of llama.cpp, vLLM, SGLang, transformers and lm-eval; the first whose flag the command has.
pub const FOREIGN_FLAGS: &[ForeignFlag] = &[
    foreign(
        &["config", "cfg", "settings"],
        "shard",
        "the settings file stands without a flag: kvgauge sweep FILE.toml",
    ),
    foreign(
        &["ctk", "ctv", "cache-type-k", "cache-type-v", "cache-type"],
        "codec",
        "the cache's type is a codec here: --codec q8_0; keys and values apart: \
         --codec k:q8_0/v:q4_0",
    ),
    foreign(
        &["kv-cache-dtype", "kv_cache_dtype", "kv-cache-type", "cache-dtype", "quant-policy"],
        "codec",
        "the cache's type is a codec here, as in --codec fp8-e4m3; `kvgauge codecs` lists them",
    ),
    foreign(
        &["bits", "nbits", "kv-bits", "kv-group-size", "group-size", "g", "gs", "q-group-size"],
        "codec",
        "bits and group are fields of a codec's name: --codec int4-g64; `kvgauge codecs` lists them",
    ),
    foreign(
        &["quantization", "quantize", "q", "scheme", "cache", "preset", "method"],
        "codec",
        "how the cache is stored is --codec NAME; `kvgauge codecs` lists them",
    ),
    foreign(
        &[
            "m",
            "hf",
            "hfr",
            "hf-repo",
            "hff",
            "model-path",
            "model-name",
            "model-id",
            "pretrained",
            "model-url",
            "mu",
        ],
        "model",
        "the model is --model: a .gguf file, OWNER/NAME on the hub, or a folder",
    ),
    foreign(
        &["hf-token", "token"],
        "model",
        "a token for the hub is taken from HF_TOKEN, as transformers does",
    ),
    foreign(
        &["revision", "hf-revision"],
        "model",
        "a revision stands behind the name: --model OWNER/NAME@REVISION",
    ),
    foreign(&["i", "in", "file", "f"], "input", "the file to read is --input FILE"),
    foreign(
        &[
            "f",
            "file",
            "p",
            "prompt",
            "bf",
            "binary-file",
            "dataset",
            "data",
            "input",
            "i",
            "corpus",
            "text-file",
        ],
        "text",
        "the text is --text FILE, wikitext-2 or builtin",
    ),
    foreign(
        &[
            "c",
            "ctx",
            "ctx-size",
            "n-ctx",
            "ctx-len",
            "context-size",
            "context-length",
            "max-model-len",
            "max-seq-len",
            "max-length",
            "seqlen",
            "seq-len",
            "n",
            "sequence-length",
            "ppl-stride",
        ],
        "context",
        "the tokens of a window are --context N",
    ),
    foreign(
        &["chunks", "n-chunks", "limit", "samples", "nsamples", "num-windows", "num-samples", "w"],
        "windows",
        "how much of the text is --windows N, or all",
    ),
    foreign(&["t", "tb", "threads-batch", "j", "jobs"], "threads", "CPU threads are --threads N"),
    foreign(
        &[
            "ngl",
            "gpu-layers",
            "n-gpu-layers",
            "gpu",
            "cuda",
            "dev",
            "ng",
            "split-mode",
            "sm",
            "mg",
        ],
        "device",
        "the whole model runs on one device: --device cuda or metal, where the build has it",
    ),
    foreign(
        &["b", "ub", "batch-size", "ubatch-size", "np", "parallel", "max-num-seqs"],
        "windows",
        "kvgauge chooses batches itself, and they change no number: leave it out",
    ),
    foreign(
        &[
            "fa",
            "flash-attn",
            "mmap",
            "no-mmap",
            "mlock",
            "numa",
            "gpu-memory-utilization",
            "tp",
            "tensor-parallel-size",
            "trust-remote-code",
            "enforce-eager",
            "nkvo",
            "no-kv-offload",
        ],
        "model",
        "kvgauge has no such choice, and it would change no number: leave it out",
    ),
    foreign(
        &["kl-divergence", "kl-divergence-base", "save-all-logits", "perplexity", "ppl"],
        "codec",
        "perplexity and KL divergence come with every run, without a file of logits: leave it out",
    ),
    foreign(&["s", "rng-seed"], "seed", "the seed is --seed N"),
    foreign(
        &["o", "out", "output-dir", "output-file", "output_path", "of", "r"],
        "output",
        "where results go is --output",
    ),
    foreign(
        &["fp16", "bf16", "f16", "torch-dtype", "type", "precision"],
        "dtype",
        "arithmetic is --dtype f32, bf16 or f16",
    ),
    foreign(
        &["no-bos", "add-bos", "add-bos-token"],
        "bos",
        "the beginning-of-sequence token is --bos auto, always or never",
    ),
    foreign(
        &["special", "sp", "no-parse-special"],
        "parse-special",
        "whether control tokens in a text count is --parse-special true or false",
    ),
    foreign(
        &["tolerance", "threshold", "max-ppl", "max-increase", "max-perplexity-increase"],
        "max-ppl-change",
        "the limit is --max-ppl-change PERCENT",
    ),
    foreign(
        &["keep", "sink-size", "attention-sinks"],
        "codec",
        "first tokens kept exact are a field of a codec's name: --codec int4-g64-sink4",
    ),
    foreign(
        &["residual-length", "residual_length", "recent"],
        "residual",
        "recent tokens kept exact are --residual N",
    ),
    foreign(&["c", "d", "x", "restore", "decode"], "decompress", "restoring is --decompress"),
    foreign(&["y", "overwrite", "f"], "force", "replacing a file is --force"),
];
