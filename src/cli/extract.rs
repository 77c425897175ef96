//! `kvgauge extract`.

use super::flags::{SubjectFlags, given};
use super::progress::{DownloadBars, TerminalProgress};
use super::{Outcome, output};
use crate::container::Target;
use crate::error::Result;
use crate::hub::{Hub, HubOptions};
use crate::report;
use crate::results::print::counted;
use crate::run::extract;
use crate::run::subject::Stages;
use crate::settings::{FloatType, Given, RawSettings, Settings, Value, WindowCount};
use crate::whole_file::{Existing, NewFile};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

/// The arguments of `kvgauge extract`.
#[derive(Args)]
#[command(after_help = "Examples:
  kvgauge extract --model builtin --output kv_cache.safetensors
  kvgauge extract --model model.gguf --text my-prompts.txt --context 1024 --output kv_cache.safetensors")]
pub struct Arguments {
    #[command(flatten)]
    subject: SubjectFlags,
    /// File to write (.safetensors), which kv-compress reads
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Tokens in a window [default: 2048, or the model's maximum if that is less]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Window of the text whose cache is written, counted from 0 [default: 0]
    #[arg(long, value_name = "N")]
    first_window: Option<usize>,
    /// Tokens whose cache is written, from the window's first on [default: the whole window]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Type of the file's values; the model computes in f32
    #[arg(long, default_value = "f16", value_parser = FloatType::parser())]
    dtype: FloatType,
    /// Replace the output file if it exists
    #[arg(long)]
    force: bool,
    /// Print one JSON object instead of a line
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Computes a cache and writes its file.
    pub fn run(self) -> Result<Outcome> {
        let settings = Settings::resolve(RawSettings {
            context: given("--context", self.context),
            windows: vec![Given::flag("--windows", WindowCount::AtMost(1))],
            first_window: given("--first-window", self.first_window),
            ..self.subject.into_raw()?
        })?;
        let existing = if self.force { Existing::Replace } else { Existing::Keep };
        // Found out before the model is loaded.
        let written = [("--output", self.output.as_path())];
        output::check_apart(&written, std::slice::from_ref(&settings), None)?;
        NewFile::create(&self.output, existing)?;
        super::use_threads(settings.threads)?;
        let hub = Hub::new(HubOptions::from_env(settings.offline), Arc::new(DownloadBars::new()))?;
        let mut progress = TerminalProgress::new();
        let result = extract::run(&settings, self.tokens, self.dtype, &hub, &mut progress);
        progress.clear();
        let extraction = result?;
        if extraction.saturated > 0 {
            progress.note(&format!(
                "{} beyond f16's range stored as ±65504; --dtype bf16 keeps them",
                counted(extraction.saturated, "value")
            ));
        }
        extraction.write(Target { path: &self.output, existing, sync: true })?;
        let origin = &extraction.origin;
        output::print(&if self.json {
            report::json(origin)?
        } else {
            format!(
                "{}: {} × key and value [{}, {}, {}] {}, window {} of {} tokens\n",
                self.output.display(),
                counted(origin.layers, "layer"),
                origin.kv_heads,
                origin.tokens,
                origin.head_dim,
                origin.dtype,
                origin.window,
                origin.context
            )
        })?;
        Ok(Outcome::Done)
    }
}
