//! `kv-compress inspect`.

use super::super::progress::FileProgress;
use super::super::{Outcome, output};
use crate::codec::{RotaryEmbedding, RotaryPairs};
use crate::container::{self, Contents};
use crate::error::Result;
use crate::report::{self, align::align_left};
use clap::Args;
use std::fmt::Write;
use std::path::PathBuf;

/// The arguments of `kv-compress inspect`.
#[derive(Args)]
pub struct Arguments {
    /// File to look into: safetensors, compressed or not
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Verify the checksums of all tensors too, not the header's alone
    #[arg(long)]
    verify: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Reads a file and prints what it holds.
    pub fn run(self) -> Result<Outcome> {
        let progress = FileProgress::new();
        let contents = container::inspect(&self.file, self.verify, &progress);
        progress.clear();
        let contents = contents?;
        let text = if self.json { report::json(&contents)? } else { table(&contents) };
        output::print(&text)?;
        Ok(Outcome::Done)
    }
}

/// A table for people; names as they are in the file, but no control characters.
fn table(contents: &Contents) -> String {
    let visible = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let or_none = |value: Option<f64>| value.map_or("none".into(), |value| format!("{value:.4}"));
    let mut text = String::new();
    let size = contents.file_size_bytes;
    let checked = match (&contents.compression, contents.verified) {
        (None, _) => "no checksums",
        (Some(_), true) => "all checksums right",
        (Some(_), false) => "header's checksum right; --verify checks the tensors too",
    };
    _ = writeln!(text, "{}, {size} bytes, {checked}", contents.format);
    if let Some(made) = &contents.compression {
        _ = writeln!(
            text,
            "codec {}, {} bytes before, ratio {:.3}, {} bits/value",
            visible(&made.codec),
            made.original_size_bytes,
            made.compression_ratio,
            or_none(made.bits_per_value)
        );
        if let Some(ratio) = made.packing_ratio {
            _ = writeln!(text, "packed: {ratio:.3} times smaller than without packing");
        }
        _ = writeln!(text, "layout {}", made.layout());
        for (index, embedding) in made.rotary.iter().enumerate() {
            _ = writeln!(text, "rotary embedding {index}: {}", in_words(embedding));
        }
        let quality = made.quality;
        _ = writeln!(
            text,
            "SNR {} dB, cosine {}, RMSE {}",
            or_none(quality.snr_db),
            or_none(quality.cosine_similarity),
            quality.rmse.map_or("none".into(), |rmse| format!("{rmse:.6e}"))
        );
    }
    for (key, value) in contents.metadata.iter().flatten() {
        let value = visible(value);
        let end = value.char_indices().nth(80).map_or(value.len(), |(at, _)| at);
        let rest = if end < value.len() { " …" } else { "" };
        _ = writeln!(text, "metadata {}: {}{rest}", visible(key), &value[..end]);
    }
    let several = contents.compression.as_ref().is_some_and(|made| made.rotary.len() > 1);
    let rows: Vec<Vec<String>> =
        std::iter::once(["tensor", "dtype", "shape", "codec", "bytes"].map(String::from).to_vec())
            .chain(contents.tensors.iter().map(|item| {
                let exponent = match (item.exponent, item.exponents) {
                    (Some(e), _) => format!(" · 2^{e}"),
                    (None, Some([key, value])) => format!(" · 2^{key}, 2^{value}"),
                    (None, None) => String::new(),
                };
                // One is every key's.
                let rotary = match item.rotary.filter(|_| several) {
                    Some(index) => format!(" · rotary {index}"),
                    None => String::new(),
                };
                vec![
                    visible(&item.name),
                    format!("{:?}", item.dtype),
                    format!("{:?}", item.shape),
                    format!("{}{exponent}{rotary}", item.codec),
                    match item.unpacked_bytes() {
                        None => item.stored_bytes.to_string(),
                        Some(unpacked) => format!("{} of {unpacked}", item.stored_bytes),
                    },
                ]
            }))
            .collect();
    text + &align_left(&rows, 4)
}

/// A rotary embedding for people.
fn in_words(embedding: &RotaryEmbedding) -> String {
    let RotaryEmbedding { frequencies, pairs, head_dim } = embedding;
    let ([first, ..], [.., last]) = (frequencies.as_slice(), frequencies.as_slice()) else {
        return format!("none of {head_dim} channels rotates");
    };
    let pairs = match pairs {
        RotaryPairs::Halves => "halves",
        RotaryPairs::Neighbours => "neighbours",
    };
    format!(
        "{} of {head_dim} channels in {pairs}, {first:e} to {last:e} radians a position",
        2 * frequencies.len()
    )
}
