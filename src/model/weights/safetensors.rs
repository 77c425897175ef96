//! Safetensors files: read in pieces, never mapped, so that a file which another process cuts
//! short is an error and no signal.

use super::kv_scales::is_kv_scale;
use super::{Unread, Weights, check_shape, finite_tensor};
use crate::container::safetensors::{Header, Tensor as Info};
use crate::container::source::Source;
use crate::error::{Error, Result};
use crate::hash;
use crate::model::matrix::PackedRows;
use crate::model::rounding::Rounding;
use crate::sniff::{self, Kind};
use candle_core::Tensor;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Values that are widened at once, by each thread.
const PIECE: usize = 1 << 18;

/// A file, or one compiled into the binary.
enum Bytes {
    File(Source),
    Static(&'static [u8]),
}

impl Bytes {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Bytes::File(source) => source.read_at(bytes, offset),
            Bytes::Static(all) => {
                let start = offset as usize;
                bytes.copy_from_slice(&all[start..start + bytes.len()]);
                Ok(())
            }
        }
    }
}

struct Shard {
    name: String,
    bytes: Bytes,
    tensors: Vec<Info>,
    /// Offset of the first tensor byte.
    data: u64,
}

/// One or several safetensors files, which share one name space.
pub struct Safetensors {
    shards: Vec<Shard>,
    /// Shard and tensor by name.
    names: HashMap<String, (usize, usize)>,
}

impl Safetensors {
    /// Opens the files once: what is hashed is what is read.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        Self::new(paths.iter().map(|path| Shard::open(path)).collect::<Result<_>>()?)
    }

    /// Of a model that sees or hears as well: its language model's tensors, named as if they were
    /// all.
    pub fn text_half(mut self) -> Result<Self> {
        const OTHERS: [&str; 3] = ["vision_tower.", "multi_modal_projector.", "audio_tower."];
        for shard in &mut self.shards {
            shard.tensors.retain(|tensor| {
                let name = tensor.name.strip_prefix("model.").unwrap_or(&tensor.name);
                !OTHERS.iter().any(|other| name.starts_with(other))
            });
            for tensor in &mut shard.tensors {
                // In files, and in the memory of transformers since 4.52.
                if let Some(name) = tensor.name.strip_prefix("language_model.") {
                    tensor.name = name.into();
                } else if let Some(name) = tensor.name.strip_prefix("model.language_model.") {
                    tensor.name = format!("model.{name}");
                }
            }
        }
        Self::new(self.shards)
    }

    /// A file in memory; `name` is told in errors.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        let (header, head) = Header::of_bytes(name, bytes)?;
        let data = head as u64;
        let tensors = header.tensors;
        Self::new(vec![Shard { name: name.into(), bytes: Bytes::Static(bytes), tensors, data }])
    }

    fn new(shards: Vec<Shard>) -> Result<Self> {
        let mut names = HashMap::new();
        let mut twice = Vec::new();
        for (shard, file) in shards.iter().enumerate() {
            for (tensor, info) in file.tensors.iter().enumerate() {
                if let Some(first) = names.insert(info.name.clone(), (shard, tensor)) {
                    twice.push((first, (shard, tensor)));
                }
            }
        }
        let all = Self { shards, names };
        twice.into_iter().try_for_each(|(a, b)| all.check_same(a, b))?;
        Ok(all)
    }

    /// Shards may overlap, as long as it does not matter which one is read.
    fn check_same(&self, a: (usize, usize), b: (usize, usize)) -> Result<()> {
        let get = |(shard, tensor): (usize, usize)| {
            let file = &self.shards[shard];
            (file, &file.tensors[tensor])
        };
        let ((first, x), (second, y)) = (get(a), get(b));
        let mut same = (x.info.dtype, &x.info.shape) == (y.info.dtype, &y.info.shape);
        let mut at = 0;
        while same && at < x.bytes() {
            let length = (x.bytes() - at).min(PIECE);
            let (mut left, mut right) = (vec![0; length], vec![0; length]);
            first.read(x, &mut left, at)?;
            second.read(y, &mut right, at)?;
            same = left == right;
            at += length;
        }
        if same {
            return Ok(());
        }
        Err(Error::input(format!(
            "{}: tensor {}: expected it once, found another of that name in {}",
            second.name, y.name, first.name
        ))
        .hint("the files are of different models: keep those that the index names"))
    }

    /// The name and the shape of every tensor, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.names.iter().map(|(name, (shard, tensor))| {
            (name.as_str(), &self.shards[*shard].tensors[*tensor].info.shape[..])
        })
    }

    /// SHA-256 of each file, in the order they were opened in.
    pub fn sha256(&self) -> Result<Vec<String>> {
        let each = self.shards.iter().map(|shard| match &shard.bytes {
            Bytes::File(source) => hash::source_sha256(source),
            Bytes::Static(bytes) => Ok(hash::sha256(bytes)),
        });
        each.collect()
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&Shard, &Info, String)> {
        let Some((shard, tensor)) = self.names.get(name) else {
            let place = match self.shards.as_slice() {
                [file] => file.name.clone(),
                files => format!("{} safetensors files", files.len()),
            };
            return Err(Error::input(format!("{place}: tensor {name}: missing"))
                .hint(self.why_missing(name)));
        };
        let file = &self.shards[*shard];
        let tensor = &file.tensors[*tensor];
        let place = format!("{}: tensor {name}", file.name);
        match tensor.info.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => {}
            other => {
                return Err(Error::input(format!(
                    "{place}: expected F32, F16 or BF16, found {other:?}"
                ))
                .hint(match other {
                    Dtype::F64 => "save the model with torch_dtype float32",
                    _ => {
                        "the weights are quantised: use the repository with the original ones, or \
                         a GGUF file"
                    }
                }));
            }
        }
        check_shape(&place, shape, &tensor.info.shape)?;
        Ok((file, tensor, place))
    }

    fn why_missing(&self, name: &str) -> String {
        let names = || self.shards.iter().flat_map(|shard| &shard.tensors).map(|t| &t.name);
        if names().any(|name| [".qweight", ".qzeros"].iter().any(|end| name.ends_with(end))) {
            return "the weights are quantised (AWQ, GPTQ): use the repository with the original \
                    ones, or a GGUF file"
                .into();
        }
        if names().any(|name| name.contains(".lora_")) {
            return "the file is a LoRA adapter: merge it into its base model with peft's \
                    merge_and_unload and save that"
                .into();
        }
        if name == "lm_head.weight" && names().any(|name| name == "model.embed_tokens.weight") {
            return "a model whose head is its embeddings says \"tie_word_embeddings\": true in \
                    config.json: do weights and config belong together?"
                .into();
        }
        match names().next() {
            None => "the file holds no tensors".into(),
            Some(first) => format!(
                "config.json asks for it, and the file's tensors are named like {}: do weights \
                 and config belong together?",
                first.chars().take(80).collect::<String>()
            ),
        }
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let name = path.display().to_string();
        let mut start = vec![0; source.len().min(sniff::ENOUGH as u64) as usize];
        source.read_at(&mut start, 0)?;
        if let Some(kind) = sniff::sniff(&start).filter(|kind| *kind != Kind::Safetensors) {
            return Err(Error::input(format!(
                "{name}: expected a safetensors file, found {}",
                kind.name()
            ))
            .hint(kind.hint()));
        }
        let (header, head) = Header::read(&source)?;
        Ok(Self {
            name,
            bytes: Bytes::File(source),
            tensors: header.tensors,
            data: head.len() as u64,
        })
    }

    /// Bytes of a tensor from its byte `from` on.
    fn read(&self, tensor: &Info, bytes: &mut [u8], from: usize) -> Result<()> {
        let offset = self.data + (tensor.info.data_offsets.0 + from) as u64;
        self.bytes.read_at(bytes, offset)
    }

    fn widen<const N: usize>(
        &self,
        tensor: &Info,
        convert: impl Fn([u8; N]) -> f32 + Sync,
    ) -> Result<Vec<f32>> {
        let mut out = vec![0f32; tensor.bytes() / N];
        out.par_chunks_mut(PIECE).enumerate().try_for_each_init(
            Vec::new,
            |raw, (piece, out)| {
                raw.resize(out.len() * N, 0u8);
                self.read(tensor, raw, piece * PIECE * N)?;
                for (out, bytes) in out.iter_mut().zip(raw.as_chunks::<N>().0) {
                    *out = convert(*bytes);
                }
                Ok::<(), Error>(())
            },
        )?;
        if let Bytes::File(source) = &self.bytes {
            source.check_unchanged()?;
        }
        Ok(out)
    }
}

impl Weights for Safetensors {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (file, tensor, place) = self.find(name, shape)?;
        let values = match tensor.info.dtype {
            Dtype::F16 => file.widen(tensor, |b| f16::from_le_bytes(b).to_f32())?,
            Dtype::BF16 => file.widen(tensor, |b| bf16::from_le_bytes(b).to_f32())?,
            _ => file.widen(tensor, f32::from_le_bytes)?,
        };
        finite_tensor(values, shape, &place)
    }

    fn kept(
        &self,
        name: &str,
        shape: [usize; 2],
        rounding: Rounding,
    ) -> Result<Option<PackedRows>> {
        let (file, tensor, place) = self.find(name, &shape)?;
        let is_kept = match rounding {
            Rounding::Bf16 => tensor.info.dtype == Dtype::BF16,
            Rounding::F16 => tensor.info.dtype == Dtype::F16,
        };
        if !is_kept {
            return Ok(None);
        }
        let mut bytes = vec![0; tensor.bytes()];
        bytes
            .par_chunks_mut(2 * PIECE)
            .enumerate()
            .try_for_each(|(piece, bytes)| file.read(tensor, bytes, piece * 2 * PIECE))?;
        if let Bytes::File(source) = &file.bytes {
            source.check_unchanged()?;
        }
        let kept = PackedRows::of_halves(bytes, shape, rounding);
        kept.check_finite(&place)?;
        Ok(Some(kept))
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.find(name, shape).map(|_| ())
    }

    fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn unread(&self, asked: &BTreeSet<String>) -> Vec<Unread> {
        // Tables that follow from the config, which older transformers saved.
        const HARMLESS: [&str; 3] =
            ["rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"];
        let harmless =
            |name: &str| is_kv_scale(name) || HARMLESS.iter().any(|end| name.ends_with(end));
        let each = self.shards.iter().flat_map(|shard| {
            shard
                .tensors
                .iter()
                .filter(|tensor| !asked.contains(&tensor.name) && !harmless(&tensor.name))
                .map(|tensor| Unread { place: shard.name.clone(), name: tensor.name.clone() })
        });
        each.collect()
    }
}
