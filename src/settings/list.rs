//! The list of settings. A new one is an entry here, and its use.
//!
//! An entry holds the meaning (a comment), the key, the type, the default, and what else there is
//! to know: who takes it, its flag, the name of the flag's value, and see [`Setting`]'s methods.
//! From it come the key of a settings file, the flag and its help, the errors about a value, the
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
    /// builtin, OWNER/NAME[@REVISION] on the hub, a Hugging Face folder, or a .gguf file
    model: String = DEFAULT_MODEL.to_string(),
        Setting::new(Subject, MeasuredOn, "--model", "MODEL").takes(Takes::Runs);

    /// builtin, wikitext-2, or a UTF-8 file
    text: TextSource = TextSource::Wikitext2,
        Setting::new(Subject, MeasuredOn, "--text", "TEXT").takes(Takes::Runs)
            .default_words("wikitext-2; builtin for the builtin model");

    /// Tokens in a window; the first half is compressed
    context: Option<usize> = None,
        // The shortest window with a prefix and a scored target that depends on it.
        Setting::new(Evaluation, MeasuredOn, "--context", "N").takes(Takes::Runs)
            .bounds(4.0, f64::MAX, "at least 4", LEAVE_OUT)
            .default_words("2048, or the model's maximum").example("2048");

    /// Windows to evaluate, or `all`
    windows: WindowCount = WindowCount::AtMost(20),
        Setting::new(Evaluation, MeasuredOn, "--windows", "N|all").bounds(1.0, f64::MAX, "at least 1", LEAVE_OUT)
            .default_words("20, fewer if the text is shorter");

    /// Index of the first window, from 0
    first_window: usize = 0,
        Setting::new(Evaluation, MeasuredOn, "--first-window", "N").default_words("");

    /// Codec to try; repeat for several, or put commas between; `kvgauge codecs` lists them.
    /// noise-NAME: Gaussian noise as large as NAME's error; comparing the two says whether the
    /// error's pattern matters or only its size
    codec: Vec<Given<Treatment>> = vec![Given::flag("--codec", "int4-g64".parse()?)],
        Setting::new(Evaluation, Measured, "--codec", "NAME").takes(Takes::List);

    /// Every codec of an engine beside those of --codec, or NAME:WORD, the one that its own flag has this
    /// word for: llama.cpp:q4_0, llama.cpp:q8_0/q4_0 (keys and values), vllm:fp8_e4m3
    engine: Vec<Given<EngineCodecs>> = Vec::new(),
        Setting::new(Evaluation, Measured, "--engine", "NAME").takes(Takes::List)
            .default_words("").example("\"llama.cpp\"");

    /// Scale of fp8-e4m3 and fp8-e5m2, by which values are divided before they are rounded, K,V for keys and
    /// values, or a checkpoint for vLLM that holds a k_scale and a v_scale for each layer (a safetensors
    /// file or a folder). The codec's name says it: fp8-e4m3-scale0.05
    kv_scale: Option<KvScale> = None,
        Setting::new(Evaluation, Measured, "--kv-scale", "S|K,V|CHECKPOINT").default_words("1").example("\"0.05\"").rare();

    /// How damage is measured: `prefix` (half a window is compressed, the other half runs over
    /// it), `decode` (every token is, as it is written) or `both`
    protocol: ProtocolName = ProtocolName::Both,
        Setting::new(Evaluation, Measured, "--protocol", "NAME");

    /// Most recent tokens that stay exact; prefix: the last tokens of the prefix
    residual: usize = 0,
        Setting::new(Evaluation, Measured, "--residual", "N");

    /// decode: tokens that are computed together and see each other exactly, where tokens are not
    /// stored one by one
    chunk: usize = DEFAULT_CHUNK,
        Setting::new(Evaluation, Measured, "--chunk", "N").decode_only()
            .bounds(1.0, f64::MAX, "at least 1", LEAVE_OUT);

    /// Whether a beginning-of-sequence token replaces the first token of a window
    bos: Bos = Bos::Auto,
        Setting::new(Subject, MeasuredOn, "--bos", "BOS").rare();

    /// Whether control tokens that the text spells out (`<|endoftext|>`) are the model's own
    parse_special: bool = true,
        Setting::new(Subject, MeasuredOn, "--parse-special", "BOOL").spaced().rare();

    /// Arithmetic and cache type
    dtype: FloatType = FloatType::F32,
        Setting::new(Evaluation, Machine, "--dtype", "DTYPE");

    /// How a GGUF file's weights are kept: `f32` (or `--dtype`), `packed` (as in the file, dequantised
    /// when they are multiplied; the same figures) or `auto`, packed where the former would not fit into
    /// memory
    weights: WeightForm = WeightForm::Auto,
        Setting::new(Subject, Machine, "--weights", "FORM").rare().changes_no_figure();

    /// Where the model runs
    device: DeviceKind = DeviceKind::Cpu,
        Setting::new(Subject, Machine, "--device", "DEVICE").rare();

    /// CPU threads
    threads: Option<usize> = None,
        // Far more threads than cores only wait for each other; 100 000 of them stop a machine.
        Setting::new(Subject, Machine, "--threads", "N").rare().changes_no_figure()
            .bounds(1.0, 1024.0, "1 to 1024", "leave it out to use every core")
            .default_words("all").example("2");

    /// Seed of what controls draw: `noise`, and `f16` in 16 bits
    seed: u64 = 0,
        Setting::new(Evaluation, Machine, "--seed", "N");

    /// Largest accepted change of the perplexity, up or down
    max_ppl_change: Percent = Percent(Limits::default().max_ppl_change),
        Setting::new(Limit, Judged, "--max-ppl-change", "PERCENT")
            .older("max_ppl_increase", "max-ppl-increase")
            .bounds(0.0, f64::MAX, "a percentage, 0 or more",
                "1 accepts a perplexity that is up to 1 % higher or lower");

    /// Largest accepted mean KL divergence
    max_kld: Option<f64> = None,
        Setting::new(Limit, Judged, "--max-kld", "NATS").default_words("none").example("0.01")
            .bounds(0.0, f64::MAX, "nats a token, 0 or more",
                "0.01 accepts a mean KL divergence of up to 0.01");

    /// Smallest accepted share of targets whose likeliest token stays, 0 to 1
    min_top1: Option<f64> = None,
        Setting::new(Limit, Judged, "--min-top1", "SHARE").default_words("none").example("0.95")
            .bounds(0.0, 1.0, "a share from 0 to 1",
                "0.95 asks that 95 % of targets keep their likeliest token");

    /// Largest accepted cache, bytes a token of a full context, keys and values of all layers
    max_bytes_per_token: Option<f64> = None,
        Setting::new(Limit, Judged, "--max-bytes-per-token", "BYTES").default_words("none").example("20000")
            .bounds(0.0, f64::MAX, "bytes a token, 0 or more",
                "the table's `cache` line says what a token takes in 16 bits");

    /// Sequences whose cache is in memory at a time, for the GB that a codec saves
    batch: usize = 1,
        Setting::new(Limit, Judged, "--batch", "N")
            .bounds(1.0, f64::MAX, "at least 1", LEAVE_OUT);

    /// Exit with status 1 unless every codec passes; a sweep, unless one can be recommended for
    /// every model, text and context
    strict: bool = false,
        Setting::new(Evaluation, Judged, "--strict", "BOOL").changes_no_figure();

    /// Use what is cached; make no request
    offline: bool = false,
        Setting::new(Subject, Machine, "--offline", "BOOL").rare().changes_no_figure();

    /// Compare with candle-transformers' own model on the first window
    cross_check: bool = false,
        Setting::new(Evaluation, Measured, "--cross-check", "BOOL").changes_no_figure();

    /// Also compress each part of the cache alone, the rest exact: keys, values, each layer's, each
    /// KV head's; says which carry the damage
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
