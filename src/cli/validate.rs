//! `kvgauge validate`.

use super::progress::{DownloadBars, TerminalProgress};
use super::words::{BosArgument, DeviceArgument, FloatArgument};
use super::{Outcome, output};
use crate::error::{Error, Result};
use crate::hub::{Hub, HubOptions};
use crate::report::table;
use crate::settings::{Bos, DeviceKind, FloatType, RawSettings, Settings, WindowCount};
use crate::validate;
use crate::whole_file::{self, Existing, NewFile};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Args)]
pub struct Arguments {
    /// builtin, OWNER/NAME[@REVISION] on the hub, a Hugging Face folder, or a .gguf file
    /// [default: TinyLlama/TinyLlama-1.1B-Chat-v1.0]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// builtin, wikitext-2, or a UTF-8 file [default: wikitext-2; builtin for the builtin model]
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Tokens in a window; the first half is compressed [default: 2048, or the model's maximum]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Windows to evaluate, or `all` [default: 20, fewer if the text is shorter]
    #[arg(long, value_name = "N|all")]
    windows: Option<WindowCount>,
    /// Index of the first window, from 0
    #[arg(long, value_name = "N")]
    first_window: Option<usize>,
    /// Codec to try; repeat for several [default: int4-g64]
    #[arg(long, value_name = "NAME")]
    codec: Option<Vec<String>>,
    /// Whether a beginning-of-sequence token replaces the first token of a window [default: auto]
    #[arg(long)]
    bos: Option<BosArgument>,
    /// Arithmetic and cache type [default: f32]
    #[arg(long)]
    dtype: Option<FloatArgument>,
    /// Where the model runs [default: cpu]
    #[arg(long)]
    device: Option<DeviceArgument>,
    /// CPU threads [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Seed of everything random; `prefix` with today's codecs draws nothing [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Highest accepted perplexity increase [default: 1]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    max_ppl_increase: Option<f64>,
    /// Exit with status 1 unless every codec passes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    strict: Option<bool>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Also write the JSON object to a file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read settings from a TOML file; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use what is cached; make no request
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    offline: Option<bool>,
    /// Compare with candle-transformers' own Llama on the first window
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    cross_check: Option<bool>,
}

impl Arguments {
    pub fn run(self) -> Result<Outcome> {
        let (json, path) = (self.json, self.output.clone());
        let settings = Settings::resolve(self.into_raw()?)?;
        if let Some(path) = &path {
            let writable = NewFile::create(path, Existing::Replace);
            writable.map_err(|e| e.within("--output"))?;
        }
        super::use_threads(settings.threads)?;
        let hub = Hub::new(HubOptions::from_env(settings.offline), Arc::new(DownloadBars::new()))?;
        let mut progress = TerminalProgress::new();
        let result = validate::run(&settings, &hub, &mut progress);
        progress.clear();
        let result = result?;

        let object = output::json(&result)?;
        if let Some(path) = &path {
            whole_file::write(path, object.as_bytes())?;
        }
        output::print(&if json { object } else { table::render(&result) })?;
        Ok(if settings.strict && result.misses_limit() {
            Outcome::LimitMissed
        } else {
            Outcome::Done
        })
    }

    /// Flags over file.
    fn into_raw(self) -> Result<RawSettings> {
        let file = match &self.config {
            None => RawSettings::default(),
            Some(path) => {
                const TAKES: &str = "--config takes a TOML file; see configs/";
                let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e).hint(TAKES))?;
                let text = String::from_utf8(bytes).map_err(|e| {
                    let at = e.utf8_error().valid_up_to();
                    Error::input(format!(
                        "{}: expected UTF-8, found another byte at offset {at}",
                        path.display()
                    ))
                    .hint(TAKES)
                })?;
                RawSettings::from_toml(path, &text)?
            }
        };
        let flags = RawSettings {
            model: self.model,
            text: self.text,
            context: self.context,
            windows: self.windows,
            first_window: self.first_window,
            codec: self.codec,
            bos: self.bos.map(Bos::from),
            dtype: self.dtype.map(FloatType::from),
            device: self.device.map(DeviceKind::from),
            threads: self.threads,
            seed: self.seed,
            max_ppl_increase: self.max_ppl_increase,
            strict: self.strict,
            offline: self.offline,
            cross_check: self.cross_check,
        };
        Ok(flags.or(file))
    }
}
