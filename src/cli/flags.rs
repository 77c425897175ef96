//! Flags that several commands share, with the one help text of each.

use super::words::{BosArgument, DeviceArgument, FloatArgument, percent};
use crate::codec::split_names;
use crate::corpus::TextSource;
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::settings::{self, Bos, DeviceKind, FloatType, Place, RawSettings, Said, WindowCount};
use clap::Args;
use std::ffi::OsString;
use std::str::FromStr;

/// Where flags that are rarely needed stand in the help: behind all others.
const LATE: usize = 100;

/// What runs, on which text, and where: for every command that loads a model.
#[derive(Args)]
pub struct SubjectFlags {
    /// builtin, OWNER/NAME[@REVISION] on the hub, a Hugging Face folder, or a .gguf file
    /// [default: TinyLlama/TinyLlama-1.1B-Chat-v1.0]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// builtin, wikitext-2, or a UTF-8 file [default: wikitext-2; builtin for the builtin model]
    #[arg(long, value_name = "TEXT")]
    text: Option<OsString>,
    /// Whether a beginning-of-sequence token replaces the first token of a window [default: auto]
    #[arg(long, display_order = LATE)]
    bos: Option<BosArgument>,
    /// Whether control tokens that the text spells out (`<|endoftext|>`) are the model's own
    /// [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", display_order = LATE)]
    parse_special: Option<bool>,
    /// Where the model runs [default: cpu]
    #[arg(long, display_order = LATE)]
    device: Option<DeviceArgument>,
    /// CPU threads [default: all]
    #[arg(long, value_name = "N", display_order = LATE)]
    threads: Option<usize>,
    /// Use what is cached; make no request
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", display_order = LATE)]
    offline: Option<bool>,
}

/// How much of the text, which codecs, and what is asked of them: for every evaluation.
#[derive(Args)]
pub struct EvaluationFlags {
    /// Tokens in a window; the first half is compressed [default: 2048, or the model's maximum]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Windows to evaluate, or `all` [default: 20, fewer if the text is shorter]
    #[arg(long, value_name = "N|all")]
    windows: Option<WindowCount>,
    /// Index of the first window, from 0
    #[arg(long, value_name = "N")]
    first_window: Option<usize>,
    /// Codec to try; repeat for several, or put commas between; `kvgauge codecs` lists them. noise-NAME is Gaussian noise of the same RMSE per tensor as
    /// NAME's error: the difference comes from the shape of that error [default: int4-g64]
    #[arg(long, value_name = "NAME")]
    codec: Option<Vec<String>>,
    /// How damage is measured: `prefix` (half a window is compressed, the other half runs over
    /// it), `decode` (every token is, as it is written) or `both` [default: both]
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// decode: most recent tokens that stay exact [default: 0]
    #[arg(long, value_name = "N")]
    residual: Option<usize>,
    /// decode: tokens that are computed together and see each other exactly, where tokens are not
    /// stored one by one [default: 32]
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// Arithmetic and cache type [default: f32]
    #[arg(long)]
    dtype: Option<FloatArgument>,
    /// Seed of what codec `noise` draws [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    limits: LimitFlags,
    /// Exit with status 1 unless every codec passes; a sweep, unless one can be recommended for
    /// every model, text and context
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    strict: Option<bool>,
    /// Compare with candle-transformers' own Llama on the first window
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    cross_check: Option<bool>,
}

/// What a codec must keep to.
#[derive(Args)]
pub struct LimitFlags {
    /// Largest accepted change of the perplexity, up or down [default: 1]
    #[arg(
        long,
        visible_alias = "max-ppl-increase",
        value_name = "PERCENT",
        allow_negative_numbers = true,
        value_parser = percent
    )]
    max_ppl_change: Option<f64>,
    /// Largest accepted mean KL divergence [default: none]
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    max_kld: Option<f64>,
    /// Smallest accepted share of targets whose likeliest token stays, 0 to 1 [default: none]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    min_top1: Option<f64>,
}

impl LimitFlags {
    pub fn into_raw(self) -> RawSettings {
        RawSettings {
            max_ppl_change: said("--max-ppl-change", self.max_ppl_change),
            max_kld: said("--max-kld", self.max_kld),
            min_top1: said("--min-top1", self.min_top1),
            ..Default::default()
        }
    }
}

impl SubjectFlags {
    pub fn into_raw(self) -> RawSettings {
        RawSettings {
            model: list("--model", self.model),
            text: list("--text", self.text.map(TextSource::from)),
            bos: said("--bos", self.bos.map(Bos::from)),
            parse_special: said("--parse-special", self.parse_special),
            device: said("--device", self.device.map(DeviceKind::from)),
            threads: said("--threads", self.threads),
            offline: said("--offline", self.offline),
            ..Default::default()
        }
    }
}

impl EvaluationFlags {
    pub fn into_raw(self) -> Result<RawSettings> {
        Ok(RawSettings {
            context: list("--context", self.context),
            windows: said("--windows", self.windows),
            first_window: said("--first-window", self.first_window),
            codec: codecs(&self.codec.unwrap_or_default())?,
            protocol: self.protocol.map(|name| parsed("--protocol", &name)).transpose()?,
            residual: said("--residual", self.residual),
            chunk: said("--chunk", self.chunk),
            dtype: said("--dtype", self.dtype.map(FloatType::from)),
            seed: said("--seed", self.seed),
            strict: said("--strict", self.strict),
            cross_check: said("--cross-check", self.cross_check),
            ..self.limits.into_raw()
        })
    }
}

pub fn said<T>(flag: &'static str, value: Option<T>) -> Option<Said<T>> {
    value.map(|value| Said::flag(flag, value))
}

pub fn list<T>(flag: &'static str, value: Option<T>) -> Vec<Said<T>> {
    Vec::from_iter(said(flag, value))
}

/// One list of all that `--codec` named, in order.
fn codecs(lists: &[String]) -> Result<Vec<Said<Treatment>>> {
    let names = lists.iter().flat_map(|list| split_names(list));
    settings::distinct(names.map(|name| parsed("--codec", name)).collect::<Result<_>>()?)
}

fn parsed<T: FromStr<Err = Error>>(flag: &'static str, name: &str) -> Result<Said<T>> {
    let value = name.parse().map_err(|e| Place::Flag(flag).refuse(e))?;
    Ok(Said::flag(flag, value))
}
