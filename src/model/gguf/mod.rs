//! Models in GGUF files of the llama architecture. Quantised tensors are dequantised to f32.

mod dequantise;
mod header;
mod parts;
mod scale;
mod types;
mod whole;

pub use types::WeightType;

use super::config::{ModelConfig, RopeScaling};
use super::weights::{Unread, Weights, check_shape, finite_tensor};
use crate::container::source::Source;
use crate::error::{Error, Result};
use crate::hash;
use candle_core::Tensor;
use candle_core::quantized::gguf_file::Value;
use header::{Header, TensorInfo, quoted};
use parts::Part;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;

/// The reader of a header.
const BUFFER: usize = 1 << 16;

/// Read by [`Gguf::rope_divisors`], so part of the configuration.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// An open GGUF file, or all parts of a split one: headers read and checked, tensors read on demand.
pub struct Gguf {
    /// The first has the metadata.
    parts: Vec<Part>,
    /// Indices of part and tensor by name.
    tensors: HashMap<String, (usize, usize)>,
    /// The model's configuration, from the header.
    pub config: ModelConfig,
}

impl Gguf {
    /// Reads and checks everything but the tensors' values. Of a split model `path` is any part; the
    /// others are opened too.
    ///
    /// # Errors
    /// Files that are no GGUF, no language model or not whole; parts that are missing, renamed or of
    /// another model; weights of a type that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let parts = parts::open(path)?;
        let mut tensors = HashMap::new();
        for (index, part) in parts.iter().enumerate() {
            let names = part.header.tensors.iter().map(|tensor| tensor.name.clone());
            tensors.extend(names.zip((0..).map(|tensor| (index, tensor))));
        }
        let place = parts[0].source.path().display().to_string();
        let config =
            ModelConfig::from_gguf(&parts[0].header.metadata, |name| tensors.contains_key(name))
                .map_err(|e| e.within(&place))?;
        for Part { source, header } in &parts {
            refuse_types(header)
                .and_then(|()| header.check_layout(source.len()))
                .map_err(|e| e.within(source.path().display()))?;
        }
        let mut gguf = Self { parts, tensors, config };
        if let Some(mut divisors) = gguf.rope_divisors()? {
            // llama.cpp applies both.
            if let RopeScaling::Linear { factor } = gguf.config.rope_scaling {
                divisors.iter_mut().for_each(|divisor| *divisor *= factor);
            }
            gguf.config.rope_scaling = RopeScaling::Divisors(divisors);
        }
        Ok(gguf)
    }

    /// The header's keys and values.
    pub fn metadata(&self) -> &HashMap<String, Value> {
        &self.parts[0].header.metadata
    }

    /// SHA-256 of every file by its name, as they are open.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn sha256(&self) -> Result<BTreeMap<String, String>> {
        let hash = |Part { source, .. }: &Part| {
            let name = source.path().file_name().unwrap_or_default().to_string_lossy();
            Ok((name.into_owned(), hash::source_sha256(source)?))
        };
        self.parts.par_iter().map(hash).collect()
    }

    /// `rope_freqs.weight`: one divisor for each of the head_dim / 2 RoPE frequencies.
    fn rope_divisors(&self) -> Result<Option<Vec<f32>>> {
        if !self.tensors.contains_key(ROPE_DIVISORS) {
            return Ok(None);
        }
        let divisors = self.read(ROPE_DIVISORS, &[self.config.head_dim / 2])?.to_vec1::<f32>()?;
        if let Some(zero) = divisors.iter().position(|d| *d <= 0.0) {
            return Err(Error::input(format!(
                "{}: index {zero}: expected a positive divisor, found {}",
                self.place(ROPE_DIVISORS),
                divisors[zero]
            ))
            .hint("no model has such frequencies: convert it again"));
        }
        Ok(Some(divisors))
    }

    fn place(&self, name: &str) -> String {
        let part = self.tensors.get(name).map_or(0, |(part, _)| *part);
        format!("{}: tensor {name}", self.parts[part].source.path().display())
    }

    fn tensor_info(&self, name: &str) -> Option<(&Part, &TensorInfo)> {
        let (part, tensor) = self.tensors.get(name)?;
        let part = &self.parts[*part];
        Some((part, &part.header.tensors[*tensor]))
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&Part, &TensorInfo)> {
        let place = self.place(name);
        let (part, info) = self.tensor_info(name).ok_or_else(|| {
            let error = Error::input(format!("{place}: missing"));
            error.hint(if name.ends_with(".bias") {
                "biases are computed where all of a kind (q, k and v; gate, up and down) have one \
                 in every layer, and nowhere else"
            } else {
                "the header asks for it: was the whole model converted?"
            })
        })?;
        check_shape(&place, shape, &info.shape)?;
        Ok((part, info))
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (part, info) = self.find(name, shape)?;
        let place = self.place(name);
        let mut values = part.read(info).map_err(|e| e.within(&place))?;
        self.apply_scale(name, shape, &mut values)?;
        finite_tensor(values, shape, &place)
    }
}

impl Weights for Gguf {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = known_name(name)?;
        let tensor = self.read(&name, shape)?;
        if name.contains("attn_q.") {
            unpermute(&tensor, self.config.heads)
        } else if name.contains("attn_k.") {
            unpermute(&tensor, self.config.kv_heads)
        } else {
            Ok(tensor)
        }
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.find(&known_name(name)?, shape).map(|_| ())
    }

    fn contains(&self, name: &str) -> bool {
        gguf_name(name).is_some_and(|name| self.tensors.contains_key(&name))
    }

    fn unread(&self, asked: &BTreeSet<String>) -> Vec<Unread> {
        let asked: BTreeSet<String> = asked.iter().filter_map(|name| gguf_name(name)).collect();
        // Llama 2's first converters wrote these beside the weights: frequencies that follow from
        // the header, which llama.cpp skips too.
        let harmless = |name: &str| {
            name == ROPE_DIVISORS
                || name.ends_with(".attn_rot_embd.weight")
                || scale::scaled_weight(name).is_some_and(|weight| asked.contains(&weight))
        };
        let tensors = |part: &Part| {
            let place = part.source.path().display().to_string();
            let names = part.header.tensors.iter().map(|tensor| &tensor.name);
            names
                .filter(|name| !asked.contains(*name) && !harmless(name))
                .map(|name| Unread { place: place.clone(), name: quoted(name) })
                .collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(tensors).collect()
    }
}

/// Weights that cannot be dequantised here, by the name that people know.
fn refuse_types(header: &Header) -> Result<()> {
    let unreadable =
        |tensor: &&TensorInfo| tensor.stored.is_none_or(|stored| !stored.kind.is_read());
    let mut others = header.tensors.iter().filter(unreadable);
    let Some(first) = others.next() else { return Ok(()) };
    let more = match others.count() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let found = match first.stored {
        Some(stored) => stored.kind.name.to_string(),
        None => format!("type {}, which is unknown here", first.type_number),
    };
    Err(Error::input(format!(
        "tensor {}{more}: expected floats or quantised weights of llama.cpp's, found {found}",
        quoted(&first.name)
    ))
    .hint(types::hint(first.type_number)))
}

/// Reads a source from its start on.
struct At<'a> {
    source: &'a Source,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let left = self.source.len().saturating_sub(self.at);
        let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.source
            .read_at(&mut bytes[..count], self.at)
            .map_err(|e| std::io::Error::other(e.to_string()))?;
        self.at += count as u64;
        Ok(count)
    }
}

/// llama.cpp's converter stores the rows of a head as pairs (i, i + head_dim/2) side by side;
/// Hugging Face keeps the two halves apart. Rows [heads, head_dim/2, 2] → [heads, 2, head_dim/2].
fn unpermute(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let shape = tensor.dims().to_vec();
    let half = shape[0] / heads / 2;
    let rest: usize = shape[1..].iter().product();
    Ok(tensor.reshape((heads, half, 2, rest))?.transpose(1, 2)?.contiguous()?.reshape(shape)?)
}

fn known_name(name: &str) -> Result<String> {
    gguf_name(name).ok_or_else(|| Error::input(format!("tensor {name}: has no GGUF name")))
}

/// `model.layers.3.mlp.up_proj.weight` → `blk.3.ffn_up.weight`.
fn gguf_name(name: &str) -> Option<String> {
    let whole = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(whole.into());
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}
