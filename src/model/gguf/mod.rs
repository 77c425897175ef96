//! Models in GGUF files of the llama architecture. Quantised tensors are dequantised to f32.

mod header;
mod parts;
mod types;

use super::config::{ModelConfig, RopeScaling};
use super::weights::{Unread, Weights, check_shape, finite_tensor};
use crate::container::source::Source;
use crate::error::{Error, Result};
use crate::hash;
use crate::sniff::{self, Kind};
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::Value;
use candle_core::{Device, Tensor};
use header::{Header, TensorInfo, quoted};
use std::collections::{BTreeSet, HashMap};
use std::io::{BufReader, Read};
use std::path::Path;

/// The reader of a header.
const BUFFER: usize = 1 << 16;

/// Read by [`Gguf::rope_divisors`], so part of the configuration.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// An open GGUF file: its header read and checked, its tensors read on demand.
pub struct Gguf {
    source: Source,
    header: Header,
    /// Index in the header by name.
    tensors: HashMap<String, usize>,
    /// The model's configuration, from the header.
    pub config: ModelConfig,
}

impl Gguf {
    /// Reads and checks everything but the tensors' values.
    pub fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let place = path.display();
        let mut start = vec![0; source.len().min(sniff::ENOUGH as u64) as usize];
        source.read_at(&mut start, 0)?;
        match sniff::sniff(&start) {
            Some(Kind::Gguf) => {}
            Some(kind) => {
                return Err(Error::input(format!(
                    "{place}: expected a GGUF file, found {}",
                    kind.name()
                ))
                .hint(kind.hint()));
            }
            None => {
                return Err(Error::input(format!(
                    "{place}: expected a GGUF file, which begins with GGUF, found something else"
                ))
                .hint("is it the file that was meant?"));
            }
        }
        let reader = BufReader::with_capacity(BUFFER, At { source: &source, at: 0 });
        let header = Header::read(reader, source.len()).map_err(|e| e.within(&place))?;
        parts::refuse(&source, &header)?;
        let names = header.tensors.iter().map(|tensor| tensor.name.clone());
        let tensors: HashMap<String, usize> = names.zip(0..).collect();
        let config = ModelConfig::from_gguf(&header.metadata, |name| tensors.contains_key(name))
            .map_err(|e| e.within(&place))?;
        refuse_types(&header).map_err(|e| e.within(&place))?;
        header.check_layout(source.len()).map_err(|e| e.within(&place))?;
        let mut gguf = Self { source, header, tensors, config };
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
        &self.header.metadata
    }

    /// Of the file that is open.
    pub fn sha256(&self) -> Result<String> {
        hash::source_sha256(&self.source)
    }

    /// `rope_freqs.weight`: one divisor for each of the head_dim / 2 RoPE frequencies.
    fn rope_divisors(&self) -> Result<Option<Vec<f32>>> {
        if !self.tensors.contains_key(ROPE_DIVISORS) {
            return Ok(None);
        }
        let divisors = self.read(ROPE_DIVISORS, &[self.config.head_dim / 2])?.to_vec1::<f32>()?;
        if let Some(zero) = divisors.iter().position(|d| *d <= 0.0) {
            return Err(Error::input(format!(
                "{}: tensor {ROPE_DIVISORS}: index {zero}: expected a positive divisor, found {}",
                self.source.path().display(),
                divisors[zero]
            ))
            .hint("no model has such frequencies: convert it again"));
        }
        Ok(Some(divisors))
    }

    fn place(&self, name: &str) -> String {
        format!("{}: tensor {name}", self.source.path().display())
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let place = self.place(name);
        let index = self.tensors.get(name).ok_or_else(|| {
            let error = Error::input(format!("{place}: missing"));
            error.hint(if name.ends_with(".bias") {
                "biases are computed where all of a kind (q, k and v; gate, up and down) have one \
                 in every layer, and nowhere else"
            } else {
                "the header asks for it: was the whole model converted?"
            })
        })?;
        let info = &self.header.tensors[*index];
        check_shape(&place, shape, &info.shape)?;
        Ok(info)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let info = self.find(name, shape)?;
        let place = self.place(name);
        // Checked when the file was opened.
        let (kind, bytes) = info
            .stored
            .and_then(|stored| Some((stored.kind.read_as?, stored.bytes)))
            .ok_or_else(|| Error::input(format!("{place}: unknown type")))?;
        let mut raw = vec![0; bytes as usize];
        self.source.read_at(&mut raw, self.header.data + info.offset)?;
        self.source.check_unchanged()?;
        let tensor = qtensor_from_ggml(kind, &raw, info.shape.clone(), &Device::Cpu)?;
        drop(raw);
        let values = tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
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
        let harmless =
            |name: &str| name == ROPE_DIVISORS || name.ends_with(".attn_rot_embd.weight");
        let names = self.header.tensors.iter().map(|tensor| &tensor.name);
        names
            .filter(|name| !asked.contains(*name) && !harmless(name))
            .map(|name| Unread {
                place: self.source.path().display().to_string(),
                name: quoted(name),
            })
            .collect()
    }
}

/// Weights that cannot be dequantised here, by the name that people know.
fn refuse_types(header: &Header) -> Result<()> {
    let unreadable =
        |tensor: &&TensorInfo| tensor.stored.is_none_or(|stored| stored.kind.read_as.is_none());
    let mut others = header.tensors.iter().filter(unreadable);
    let Some(first) = others.next() else { return Ok(()) };
    let more = match others.count() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let (found, known) = match first.stored {
        Some(stored) => (stored.kind.name.to_string(), true),
        None => (format!("type {}, which is unknown here", first.type_number), false),
    };
    let read = types::READ;
    let error = Error::input(format!(
        "tensor {}{more}: expected {read}, found {found}",
        quoted(&first.name)
    ));
    Err(error.hint(if known {
        "the file is whole: kvgauge does not read this type of weights; use the model in another, \
         for example Q4_K_M or Q8_0, or its Hugging Face folder"
    } else {
        "ggml gave this number away after kvgauge was written, or the header is damaged: use the \
         model in another type of weights, for example Q4_K_M or Q8_0"
    }))
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
