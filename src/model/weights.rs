//! Where weights come from. Both sources answer to Hugging Face tensor names, in Hugging Face
//! order, as f32 on the CPU; the model asks once a tensor and keeps what it made of it.

use super::config::ModelConfig;
use crate::error::{Error, Result};
use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors, TensorInfo};
use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub trait Weights {
    /// The tensor as f32 on the CPU. Missing, of another shape or dtype, or not finite: an
    /// input error that names file and tensor.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool;
}

/// Bytes of a safetensors file: mapped, or compiled into the binary.
enum Bytes {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

struct SafetensorsFile {
    name: String,
    bytes: Bytes,
    header: Metadata,
    /// Offset of the first tensor byte.
    data: usize,
}

/// One or several safetensors files, which share one name space.
pub struct Safetensors {
    files: Vec<SafetensorsFile>,
}

impl Safetensors {
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let files = paths
            .iter()
            .map(|path| {
                let file = File::open(path).map_err(|e| Error::io(path, &e))?;
                SafetensorsFile::new(path.display().to_string(), Bytes::Mapped(map(&file, path)?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { files })
    }

    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Ok(Self { files: vec![SafetensorsFile::new(name.into(), Bytes::Static(bytes))?] })
    }

    fn find(&self, name: &str) -> Result<(&SafetensorsFile, &TensorInfo)> {
        let found = self.files.iter().find_map(|file| Some((file, file.header.info(name)?)));
        found.ok_or_else(|| {
            let place = match self.files.as_slice() {
                [file] => file.name.clone(),
                files => format!("{} safetensors files", files.len()),
            };
            Error::input(format!("{place}: tensor {name}: missing"))
                .hint("config.json asks for it: do weights and config belong together?")
        })
    }
}

#[allow(unsafe_code)]
fn map(file: &File, path: &Path) -> Result<memmap2::Mmap> {
    // SAFETY: the map is read-only. A file that another process cuts short while it is mapped
    // would raise SIGBUS; model files are written once, by rename.
    unsafe { memmap2::Mmap::map(file) }.map_err(|e| Error::io(path, &e))
}

impl SafetensorsFile {
    fn new(name: String, bytes: Bytes) -> Result<Self> {
        let damaged = |what: String| {
            Error::input(format!("{name}: {what}"))
                .hint("the file is damaged or cut short: download it again")
        };
        let (header_len, header) = SafeTensors::read_metadata(bytes.get())
            .map_err(|e| damaged(format!("not a whole safetensors file: {e}")))?;
        let data = 8 + header_len;
        let expected = header.data_len();
        let found = bytes.get().len() - data;
        if expected != found {
            return Err(damaged(format!("expected {expected} bytes of tensors, found {found}")));
        }
        Ok(Self { name, bytes, header, data })
    }
}

impl Weights for Safetensors {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (file, info) = self.find(name)?;
        let place = format!("{}: tensor {name}", file.name);
        check_shape(&place, shape, &info.shape)?;
        let (start, end) = info.data_offsets;
        let bytes = &file.bytes.get()[file.data + start..file.data + end];
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => widen(bytes, f32::from_le_bytes),
            Dtype::F16 => widen(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => widen(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => {
                return Err(Error::input(format!(
                    "{place}: expected F32, F16 or BF16, found {other:?}"
                ))
                .hint(
                    "quantised repositories are not supported: use the original weights or a GGUF",
                ));
            }
        };
        finite_tensor(values, shape, &place)
    }

    fn contains(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.header.info(name).is_some())
    }
}

fn widen<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    let values = bytes.len() / N;
    let mut out = vec![0f32; values];
    out.par_chunks_mut(1 << 16).zip(bytes.par_chunks(N << 16)).for_each(|(out, bytes)| {
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *out = f(*bytes);
        }
    });
    out
}

fn check_shape(place: &str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::input(format!("{place}: expected shape {expected:?}, found {found:?}"))
        .hint("the config asks for the expected shape: do weights and config belong together?"))
}

fn finite_tensor(values: Vec<f32>, shape: &[usize], place: &str) -> Result<Tensor> {
    if let Some(index) = values.par_iter().position_first(|v| !v.is_finite()) {
        return Err(Error::input(format!(
            "{place}: index {index}: expected a finite number, found {}",
            values[index]
        ))
        .hint("the weights are damaged: no result from them would mean anything"));
    }
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// A GGUF file of the llama architecture. Quantised tensors are dequantised to f32.
pub struct Gguf {
    path: PathBuf,
    pub content: gguf_file::Content,
    reader: Mutex<BufReader<File>>,
    /// Heads whose q and k rows the file keeps in llama.cpp's interleaved order.
    heads: Option<(usize, usize)>,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        // candle divides by the header's `general.alignment` whatever it is: a file that says 0
        // makes it panic.
        let read = || gguf_file::Content::read(&mut reader);
        let content = catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(candle_core::Error::msg("the header makes no sense")))
            .map_err(|e| gguf_error(path, e))?;
        Ok(Self { path: path.to_path_buf(), content, reader: Mutex::new(reader), heads: None })
    }

    pub fn config(&self) -> Result<ModelConfig> {
        let has = |name: &str| self.content.tensor_infos.contains_key(name);
        ModelConfig::from_gguf(&self.content.metadata, has)
            .map_err(|e| e.within(self.path.display()))
    }

    /// Says how many query and key heads there are, which un-permuting needs.
    pub fn with_heads(mut self, heads: usize, kv_heads: usize) -> Self {
        self.heads = Some((heads, kv_heads));
        self
    }

    /// `rope_freqs.weight`: one divisor for each of the head_dim / 2 RoPE frequencies.
    pub fn rope_divisors(&self, head_dim: usize) -> Result<Option<Vec<f32>>> {
        let name = "rope_freqs.weight";
        if !self.content.tensor_infos.contains_key(name) {
            return Ok(None);
        }
        let divisors = self.read(name, &[head_dim / 2])?.to_vec1::<f32>()?;
        if let Some(zero) = divisors.iter().position(|d| *d <= 0.0) {
            return Err(Error::input(format!(
                "{}: tensor {name}: index {zero}: expected a positive divisor, found {}",
                self.path.display(),
                divisors[zero]
            )));
        }
        Ok(Some(divisors))
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let place = format!("{}: tensor {name}", self.path.display());
        let info = self.content.tensor_infos.get(name).ok_or_else(|| {
            Error::input(format!("{place}: missing")).hint("the file may be cut short or damaged")
        })?;
        check_shape(&place, shape, info.shape.dims())?;
        let mut reader =
            self.reader.lock().map_err(|_| Error::system(format!("{place}: reader lost")))?;
        let tensor = info
            .read(&mut *reader, self.content.tensor_data_offset, &Device::Cpu)
            .map_err(|e| gguf_error(&self.path, e).within(format!("tensor {name}")))?;
        let values = tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        finite_tensor(values, shape, &place)
    }
}

impl Weights for Gguf {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let gguf_name = gguf_name(name)
            .ok_or_else(|| Error::input(format!("tensor {name}: has no GGUF name")))?;
        let tensor = self.read(&gguf_name, shape)?;
        match self.heads {
            Some((heads, _)) if gguf_name.contains("attn_q.") => unpermute(&tensor, heads),
            Some((_, kv_heads)) if gguf_name.contains("attn_k.") => unpermute(&tensor, kv_heads),
            _ => Ok(tensor),
        }
    }

    fn contains(&self, name: &str) -> bool {
        gguf_name(name).is_some_and(|name| self.content.tensor_infos.contains_key(&name))
    }
}

fn gguf_error(path: &Path, error: candle_core::Error) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Error::input(format!("{}: not a whole GGUF file: {first}", path.display()))
        .hint("the file is damaged, cut short or of an unknown type: download it again")
}

/// llama.cpp's converter stores the rows of a head as pairs (i, i + head_dim/2) side by side;
/// Hugging Face keeps the two halves apart. Rows [heads, head_dim/2, 2] → [heads, 2, head_dim/2].
fn unpermute(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let shape = tensor.dims().to_vec();
    let half = shape[0] / heads / 2;
    let rest: usize = shape[1..].iter().product();
    Ok(tensor.reshape((heads, half, 2, rest))?.transpose(1, 2)?.contiguous()?.reshape(shape)?)
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
