//! The list of settings. A new one is an entry here, and its use.
//!
//! An entry holds the meaning (a comment: one sentence for somebody who has not read the README), the key,
//! the type, the default, and what else there is to know: who takes it, its flag, the name of the flag's
//! value, and see [`Setting`]'s methods. From it come the key of a settings file, the flag and its help, the errors about a value, the
//! JSON echo, the commented example and the table in the documentation.
//!
//! The type says how one value is read ([`Value`](super::value::Value)). `Option` is for a setting
//! without a default, `Vec<Given<_>>` for one that takes several values in one run.

use super::engine::EngineCodecs;
use super::kv_scale::KvScale;
use super::location::{Given, Location};
use super::setting::Group::{Evaluation, Limit, Subject, Validate};
use super::setting::Purpose::{Judged, Machine, Measured, MeasuredOn};
use super::setting::{Setting, Takes};
use super::table::settings;
use super::types::{Bos, DeviceKind, FloatType, Percent, ProtocolName, WeightForm, WindowCount};
use super::value::{Resolved, Value};
use crate::corpus::TextSource;
use crate::error::Result;
use crate::eval::Treatment;
use crate::eval::protocol::DEFAULT_CHUNK;
use crate::eval::verdict::Limits;
use crate::model::source::ModelSource;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// The model of a run that names none.
pub const DEFAULT_MODEL: &str = "TinyLlama/TinyLlama-1.1B-Chat-v1.0";
/// The default window of a model that computes as long a one, tokens.
pub(super) const DEFAULT_CONTEXT: usize = 2048;

const LEAVE_OUT: &str = "leave it out for its default";

settings! {
    /// Model: builtin, OWNER/NAME[@REVISION] on the Hugging Face hub, a folder of such a model, or a .gguf
    /// file
    model: String = DEFAULT_MODEL.to_string(),
        Setting::new(Subject, MeasuredOn, "--model", "MODEL").takes(Takes::Runs)
            .more("`builtin` is a small Llama compiled in, to try things without a download. A model of the hub \
                is downloaded once and kept where other tools keep it (HF_HOME, HF_TOKEN and HF_ENDPOINT hold)");

    /// Text to measure on: builtin, wikitext-2, or a UTF-8 file
    text: TextSource = TextSource::Wikitext2,
        Setting::new(Subject, MeasuredOn, "--text", "TEXT").takes(Takes::Runs)
            .more("What your users write says most. `wikitext-2` is the raw test split, downloaded once; \
                `builtin` is a novel compiled in")
            .default_words("wikitext-2; builtin for the builtin model");

    /// Tokens in a window: as many as the sequences that you serve have
    context: Option<usize> = None,
        // The shortest window with a prefix and a scored target that depends on it.
        Setting::new(Evaluation, MeasuredOn, "--context", "N").takes(Takes::Runs)
            .more("The text is cut into windows of this length, and the second half of each is scored. Under \
                `prefix` the first half is compressed, under `decode` all of it")
            .bounds(4.0, f64::MAX, "at least 4", LEAVE_OUT)
            .default_words("2048, or the model's maximum if that is less").example("2048");

    /// Windows of the text to measure, a number or `all`: more make intervals narrower and take longer
    windows: WindowCount = WindowCount::AtMost(20),
        Setting::new(Evaluation, MeasuredOn, "--windows", "N|all").bounds(1.0, f64::MAX, "at least 1", LEAVE_OUT)
            .default_words("20, fewer if the text is shorter");

    /// Window to begin with, counted from 0: another one measures another part of the text
    first_window: usize = 0,
        Setting::new(Evaluation, MeasuredOn, "--first-window", "N");

    /// Codec to measure, such as q4_0; repeat for several, or put commas between; `kvgauge codecs` lists them
    codec: Vec<Given<Treatment>> = vec![Given::flag("--codec", "int4-g64".parse()?)],
        Setting::new(Evaluation, Measured, "--codec", "NAME").takes(Takes::List)
            .more("Keys and values apart: k:q8_0/v:q4_0. Layers apart: q4_0+q8_0@0,-1, where -1 is the last. \
                noise-NAME: Gaussian noise as large as NAME's error; comparing the two says whether the \
                error's pattern matters or only its size");

    /// Codecs of an engine, beside those of --codec: llama.cpp for all it has, llama.cpp:q4_0 for the one that
    /// its own flag calls q4_0
    engine: Vec<Given<EngineCodecs>> = Vec::new(),
        Setting::new(Evaluation, Measured, "--engine", "NAME").takes(Takes::List)
            .more("Keys and values apart: llama.cpp:q8_0/q4_0. Engines: llama.cpp, llama.cpp-unrotated, \
                ik_llama.cpp, BeeLlama, vLLM, vLLM-KVarN, SGLang, TensorRT-LLM, Transformers, \
                Transformers-HQQ, exllamav3, MLX")
            .default_words("").example("\"llama.cpp\"");

    /// Scale of fp8-e4m3 and fp8-e5m2, by which values are divided before they are rounded, K,V for keys and
    /// values, or a checkpoint for vLLM that holds a k_scale and a v_scale for each layer (a safetensors
    /// file or a folder). The codec's name says it: fp8-e4m3-scale0.05
    kv_scale: Option<KvScale> = None,
        Setting::new(Evaluation, Measured, "--kv-scale", "S|K,V|CHECKPOINT").default_words("1").example("\"0.05\"").rare();

    /// Use that is measured: `prefix`, a prompt's cache that is stored once and reused; `decode`, a server that
    /// stores every token compressed; or `both`
    protocol: ProtocolName = ProtocolName::Both,
        Setting::new(Evaluation, Measured, "--protocol", "NAME")
            .more("prefix: the first half of a window is compressed, the second half runs over it and stays \
                exact. decode: every token is compressed as it is written, so that errors feed on themselves");

    /// Recent tokens that stay exact, as in engines that keep a window in 16 bits; under `prefix` the last ones
    /// of the compressed half
    residual: usize = 0,
        Setting::new(Evaluation, Measured, "--residual", "N")
            .more("They count in the bits");

    /// Tokens computed at a time under `decode`, where a codec or --residual keeps tokens from being stored one
    /// by one
    chunk: usize = DEFAULT_CHUNK,
        Setting::new(Evaluation, Measured, "--chunk", "N").decode_only()
            .more("Tokens of a chunk see each other exactly: a smaller chunk is nearer to a server that computes \
                one token at a time, and takes longer")
            .bounds(1.0, f64::MAX, "at least 1", LEAVE_OUT);

    /// Whether a beginning-of-sequence token replaces the first token of a window; auto: where the model's
    /// tokenizer puts one
    bos: Bos = Bos::Auto,
        Setting::new(Subject, MeasuredOn, "--bos", "WHEN").rare();

    /// Whether control tokens that the text spells out (`<|endoftext|>`) are the model's own; false: they are
    /// plain text
    parse_special: bool = true,
        Setting::new(Subject, MeasuredOn, "--parse-special", "BOOL").spaced().rare();

    /// Type that the model computes in and that its uncompressed cache has
    dtype: FloatType = FloatType::F32,
        Setting::new(Evaluation, Machine, "--dtype", "DTYPE")
            .more("Sizes are compared with 16 bits either way. f32 shows a codec's damage alone; bf16 and f16 add \
                that of rounding, which the table then has as `floor`");

    /// How a GGUF file's weights are held in memory: f32 (or --dtype), packed as in the file, or auto, packed
    /// where the former would not fit
    weights: WeightForm = WeightForm::Auto,
        Setting::new(Subject, Machine, "--weights", "FORM").rare().changes_no_figure()
            .more("Packed weights are dequantised when they are multiplied: the same figures");

    /// Where the model runs; cuda and metal are in builds with the feature of that name
    device: DeviceKind = DeviceKind::Cpu,
        Setting::new(Subject, Machine, "--device", "DEVICE").rare();

    /// CPU threads to compute with
    threads: Option<usize> = None,
        // Far more threads than cores only wait for each other; 100 000 of them stop a machine.
        Setting::new(Subject, Machine, "--threads", "N").rare().changes_no_figure()
            .bounds(1.0, 1024.0, "1 to 1024", "leave it out to use every core")
            .default_words("one for each core").example("2");

    /// Seed of the random numbers of controls: `noise`, and `f16` in 16 bits; codecs draw none
    seed: u64 = 0,
        Setting::new(Evaluation, Machine, "--seed", "N");

    /// Limit: largest accepted change of the perplexity in percent, up or down
    max_ppl_change: Percent = Percent(Limits::default().max_ppl_change),
        Setting::new(Limit, Judged, "--max-ppl-change", "PERCENT")
            .more("A codec passes where the whole 95 % interval is within it. A perplexity that falls by more is \
                a changed model, not a better one")
            .older("max_ppl_increase", "max-ppl-increase")
            .bounds(0.0, f64::MAX, "a percentage, 0 or more",
                "1 accepts a perplexity that is up to 1 % higher or lower");

    /// Limit: largest accepted mean KL divergence, in nats a token, such as 0.01
    max_kld: Option<f64> = None,
        Setting::new(Limit, Judged, "--max-kld", "NATS").default_words("none").example("0.01")
            .more("0 is no change of any prediction; at 0.01 SmolLM2-135M changes its likeliest token once in 15")
            .bounds(0.0, f64::MAX, "nats a token, 0 or more",
                "0.01 accepts a mean KL divergence of up to 0.01");

    /// Limit: smallest accepted share of predictions whose likeliest token stays, 0 to 1, such as 0.95
    min_top1: Option<f64> = None,
        Setting::new(Limit, Judged, "--min-top1", "SHARE").default_words("none").example("0.95")
            .bounds(0.0, 1.0, "a share from 0 to 1",
                "0.95 asks that 95 % of targets keep their likeliest token");

    /// Limit: largest accepted cache, in bytes a token of a full context, keys and values of all layers
    max_bytes_per_token: Option<f64> = None,
        Setting::new(Limit, Judged, "--max-bytes-per-token", "BYTES").default_words("none").example("20000")
            .more("The table's `cache` line says what a token takes in 16 bits: MB per 1000 tokens are kB a token")
            .bounds(0.0, f64::MAX, "bytes a token, 0 or more",
                "the table's `cache` line says what a token takes in 16 bits");

    /// Sequences that you serve at a time, for the GB that a codec saves on all of them; no measurement changes
    batch: usize = 1,
        Setting::new(Limit, Judged, "--batch", "N")
            .bounds(1.0, f64::MAX, "at least 1", LEAVE_OUT);

    /// Exit with status 1 unless every codec passes all limits, for CI; a sweep: unless one can be recommended
    /// for every model, text and context
    strict: bool = false,
        Setting::new(Evaluation, Judged, "--strict", "BOOL").changes_no_figure();

    /// Make no request: models and texts come from files or from what was downloaded before
    offline: bool = false,
        Setting::new(Subject, Machine, "--offline", "BOOL").rare().changes_no_figure();

    /// Compare the first window's logits with candle-transformers' own model: whether this one is computed right
    cross_check: bool = false,
        Setting::new(Evaluation, Measured, "--cross-check", "BOOL").changes_no_figure();

    /// Also measure each part of the cache alone, the rest exact: keys, values, each layer's, each KV head's;
    /// says which carry the damage
    attribute: bool = false,
        Setting::new(Validate, Measured, "--attribute", "BOOL");
}

/// Something that is done with every setting, whatever the type of its value.
pub(crate) trait Visitor {
    /// One setting and the values given of it.
    fn setting<T: Value>(
        &mut self,
        setting: &'static Setting,
        given: &mut Vec<Given<T>>,
    ) -> Result<()>;
}

/// The table of a settings file that crosses fields of codec names.
pub(super) const GRID: &str = "grid";

/// Every key of a file, for the hint beside an unknown one.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().flat_map(|setting| {
        let grid = (setting.key == "codec").then_some(GRID);
        [Some(setting.key), setting.older.map(|older| older.key), grid].into_iter().flatten()
    })
}
