//! `kv-compress`, also `kvgauge kv-compress`: the codec on files, for other programs.

mod inspect;
mod notes;
mod rope;

use super::flags::given;
use super::progress::FileProgress;
use super::{Outcome, output};
use crate::container::{self, AxisOrder, Layout, Plan, Quality, Summary, Target};
use crate::error::{Error, Result};
use crate::eval::Treatment;
use crate::report;
use crate::settings::RawSettings;
use crate::whole_file::Existing;
use clap::{Args, Subcommand};
use glob::Pattern;
use serde::Serialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Between the codecs that cost SmolLM2-135M about 1 % perplexity on WikiText-2 or less and those
/// that cost more: docs/kv-compress.md has the table, and says what such a gate cannot tell.
const MIN_COSINE: f64 = 0.991;
const MIN_SNR_DB: f64 = 16.0;

/// The arguments of `kv-compress`.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Flags work with one dash too. Prints one JSON object. Exit status: 0 done; 1 done, and a \
    limit was missed (--strict); 2 the request or the input is wrong; 3 anything else.

Examples:
  kv-compress -input kv_cache.safetensors -output compressed.safetensors -group-size 64
  kv-compress -input kv_cache.safetensors -metrics-only -codec q4_0
  kv-compress -decompress -input compressed.safetensors -output restored.safetensors
  kv-compress inspect compressed.safetensors"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// File to read: safetensors, such as `kvgauge extract` writes; with --decompress, a compressed one
    #[arg(long, value_name = "FILE", required = true)]
    input: Option<PathBuf>,
    /// File to write
    #[arg(long, value_name = "FILE", required_unless_present = "metrics_only")]
    output: Option<PathBuf>,
    /// Restore the tensors of a compressed file; prints the metrics measured when it was made
    #[arg(long)]
    decompress: bool,
    /// Write nothing: print what compression would give
    #[arg(long, conflicts_with_all = ["output", "decompress"])]
    metrics_only: bool,
    /// Values that share a scale, for the codec int4-gN [default: 64]
    #[arg(long, value_name = "N", conflicts_with_all = ["codec", "decompress"])]
    group_size: Option<usize>,
    /// Codec, as `kvgauge codecs` lists them; k:NAME/v:NAME and BASE+NAME@LAYERS go by the tensors' names
    /// [default: int4-g64]
    #[arg(long, value_name = "NAME", conflicts_with = "decompress")]
    codec: Option<String>,
    /// Order of the tensors' last axes: heads-tokens-dim, as transformers has it, or
    /// tokens-heads-dim, as vLLM and LMCache do [default: heads-tokens-dim]
    #[arg(long, value_name = "ORDER", conflicts_with = "decompress")]
    layout: Option<String>,
    /// Axis that parts keys and values where one tensor holds both, counted from 0, of size 2; --layout is
    /// that of the other axes
    #[arg(long, value_name = "N", conflicts_with = "decompress", allow_negative_numbers = true)]
    kv_axis: Option<i64>,
    /// Channels of a head, where heads share the tensors' last axis
    #[arg(long, value_name = "N", conflicts_with = "decompress")]
    head_dim: Option<usize>,
    #[command(flatten)]
    rope: rope::RopeFlags,
    /// Compress only tensors whose name matches, such as '*.key'; repeat for several
    #[arg(long, value_name = "GLOB", conflicts_with = "decompress")]
    include: Vec<String>,
    /// Store tensors whose name matches as they are, such as '*.value'; repeat for several
    #[arg(long, value_name = "GLOB", conflicts_with = "decompress")]
    exclude: Vec<String>,
    /// Entropy-code what is stored, without loss: smaller files, more time
    #[arg(long, conflicts_with = "decompress")]
    pack: bool,
    /// Also print every tensor's metrics
    #[arg(long, conflicts_with = "decompress")]
    per_tensor: bool,
    /// Limit of quality_passed: smallest accepted cosine similarity, up to 1
    #[arg(long, value_name = "X", default_value_t = MIN_COSINE, allow_negative_numbers = true)]
    min_cosine: f64,
    /// Limit of quality_passed: smallest accepted signal-to-noise ratio, in dB
    #[arg(long, value_name = "DB", default_value_t = MIN_SNR_DB, allow_negative_numbers = true)]
    min_snr_db: f64,
    /// Exit with status 1 unless quality_passed; also where nothing was measured
    #[arg(long)]
    strict: bool,
    /// CPU threads to compute with [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Replace the output file if it exists
    #[arg(long, conflicts_with = "metrics_only")]
    force: bool,
    /// Do not wait until the output is on disk: faster, and a power cut may lose it
    #[arg(long, conflicts_with = "metrics_only")]
    no_sync: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show what is inside a file, compressed or not
    Inspect(inspect::Arguments),
}

/// The seven keys of the interface's decision record, and more.
#[derive(Serialize)]
struct Metrics {
    compression_ratio: f64,
    original_size_bytes: u64,
    compressed_size_bytes: u64,
    #[serde(flatten)]
    quality: Quality,
    quality_passed: bool,
    codec: String,
    bits_per_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packing_ratio: Option<f64>,
    tensors_compressed: usize,
    tensors_unchanged: usize,
    min_cosine: f64,
    min_snr_db: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<TensorMetrics>>,
}

#[derive(Serialize)]
struct TensorMetrics {
    name: String,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    codec: Option<String>,
    stored_bytes: u64,
    #[serde(flatten)]
    quality: Quality,
}

impl Arguments {
    /// Compresses, restores or inspects a file.
    pub fn run(self) -> Result<Outcome> {
        match self.command {
            Some(Command::Inspect(arguments)) => arguments.run(),
            None => self.convert(),
        }
    }

    fn convert(self) -> Result<Outcome> {
        for (flag, value) in [("--min-cosine", self.min_cosine), ("--min-snr-db", self.min_snr_db)]
        {
            if !value.is_finite() {
                return Err(Error::input(format!("{flag}: expected a number, found {value}"))
                    .hint(format!("leave {flag} out for its default")));
            }
        }
        let threads = given("--threads", self.threads);
        RawSettings { threads, ..Default::default() }.check()?;
        super::use_threads(self.threads)?;
        // clap has seen to it that it is there.
        let input = self.input.as_deref().unwrap_or_else(|| "".as_ref());
        let target = self.output.as_deref().map(|path| Target {
            path,
            existing: if self.force { Existing::Replace } else { Existing::Keep },
            sync: !self.no_sync,
        });
        let progress = FileProgress::new();
        let result = match (self.decompress, target) {
            (true, Some(target)) => container::decompress(input, target, &progress),
            (_, target) => container::compress(input, target, &self.plan(input)?, &progress),
        };
        progress.clear();
        let summary = result?;
        if let Some(left) = notes::left_alone(&summary) {
            progress.note(&left);
        }
        if let Some(doubt) = notes::doubtful_order(&summary, self.kv_axis)
            && self.layout.is_none()
            && !self.decompress
        {
            progress.note(&doubt);
        }
        let metrics = Metrics::new(&summary, &self);
        output::print(&report::json(&metrics)?)?;
        Ok(if self.strict && !metrics.quality_passed {
            Outcome::LimitMissed
        } else {
            Outcome::Done
        })
    }

    fn plan(&self, input: &Path) -> Result<Plan> {
        let codec = match (&self.codec, self.group_size) {
            (Some(name), _) => {
                let named: Treatment = name.parse().map_err(|e: Error| e.within("--codec"))?;
                named.as_codec().ok_or_else(|| {
                    Error::input(format!("codec {named}: stores nothing"))
                        .within(input.display())
                        .hint("noise is a control for `kvgauge validate` and `kvgauge sweep`")
                })?
            }
            (None, size) => format!("int4-g{}", size.unwrap_or(64)).parse()?,
        };
        let order = match &self.layout {
            Some(name) => name.parse().map_err(|e: Error| e.within("--layout"))?,
            None => AxisOrder::default(),
        };
        let kv_axis = self.kv_axis.map(|axis| {
            usize::try_from(axis).map_err(|_| {
                Error::input(format!("--kv-axis: expected 0 or more, found {axis}"))
                    .hint("axes are counted from 0, the first")
            })
        });
        Ok(Plan {
            codec,
            include: patterns("--include", &self.include)?,
            exclude: patterns("--exclude", &self.exclude)?,
            rope: self.rope.parameters()?,
            layout: Layout { order, kv_axis: kv_axis.transpose()?, head_dim: self.head_dim },
            pack: self.pack,
        })
    }
}

fn patterns(flag: &str, globs: &[String]) -> Result<Vec<Pattern>> {
    let pattern = |glob: &String| {
        Pattern::new(glob).map_err(|e| {
            Error::input(format!("{flag} {glob}: {}, at character {}", e.msg, e.pos))
                .hint("* and ? stand for any characters, [ab] for one of them, [[] for a bracket")
        })
    };
    globs.iter().map(pattern).collect()
}

impl Metrics {
    fn new(summary: &Summary, arguments: &Arguments) -> Self {
        let quality = summary.quality;
        // No error is no damage: both limits are for damage that is there.
        let reaches = |found: Option<f64>, least: f64| found.is_none_or(|found| found >= least);
        // Nothing can be said of a cache that was not compressed.
        let measured = quality.rmse.is_some() && !notes::mostly_left(summary);
        let compressed = summary.tensors.iter().filter(|tensor| tensor.codec.is_some()).count();
        Self {
            compression_ratio: summary.compression_ratio(),
            original_size_bytes: summary.original_bytes,
            compressed_size_bytes: summary.compressed_bytes,
            quality,
            quality_passed: measured
                && reaches(quality.cosine_similarity, arguments.min_cosine)
                && reaches(quality.snr_db, arguments.min_snr_db),
            codec: summary.codec.clone(),
            bits_per_value: summary.bits_per_value(),
            packing_ratio: summary.packing_ratio(),
            tensors_compressed: compressed,
            tensors_unchanged: summary.tensors.len() - compressed,
            min_cosine: arguments.min_cosine,
            min_snr_db: arguments.min_snr_db,
            tensors: arguments.per_tensor.then(|| TensorMetrics::of(summary)),
        }
    }
}

impl TensorMetrics {
    fn of(summary: &Summary) -> Vec<Self> {
        let one = |tensor: &container::TensorSummary| Self {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            codec: tensor.codec.map(|codec| codec.to_string()),
            stored_bytes: tensor.stored_bytes,
            quality: tensor.distortion.into(),
        };
        summary.tensors.iter().map(one).collect()
    }
}

/// Turns the single dash of `-input` and its like into two, up to `--`. Values, numbers and -h,
/// -V stay.
pub fn with_double_dashes(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    let double = |word: OsString| {
        let text = word.to_string_lossy();
        flags &= text != "--";
        let name = text.strip_prefix('-').filter(|name| name.len() > 1 && flags);
        match name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_alphabetic())) {
            true => [OsString::from("-"), word].into_iter().collect(),
            false => word,
        }
    };
    words.into_iter().map(double).collect()
}
