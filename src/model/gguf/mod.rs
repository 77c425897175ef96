//! Models in GGUF files. Quantised tensors are dequantised to f32.

mod header;
mod names;
mod parts;
mod types;

use super::config::{ModelConfig, RopeScaling, of_gguf};
use super::weights::{Unread, Weights, check_shape, finite_tensor};
use crate::container::source::Source;
use crate::error::{Error, Result};
use crate::hash;
use crate::sniff::{self, Kind};
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::Value;
use candle_core::{Device, Tensor};
use header::{Header, TensorInfo, quoted};
use names::Stored;
use std::collections::{BTreeSet, HashMap};
use std::io::{BufReader, Read};
use std::path::Path;

/// The reader of a header.
const BUFFER: usize = 1 << 16;

/// Read by [`Gguf::divisors`], so part of the configuration.
const ROPE_DIVISORS: &str = "rope_freqs.weight";
const LONG_DIVISORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// An open GGUF file: its header read and checked, its tensors read on demand.
pub struct Gguf {
    source: Source,
    header: Header,
    /// Index in the header by name.
    tensors: HashMap<String, usize>,
    /// The model's configuration, from the header.
    pub config: ModelConfig,
    /// Whether q and k are in the order of the pairs that rotate together.
    permuted: bool,
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
        let permuted = of_gguf(&header.metadata)?.permuted;
        let mut gguf = Self { source, header, tensors, config, permuted };
        gguf.read_divisors()?;
        Ok(gguf)
    }

    /// Rotary frequencies' divisors are tensors.
    fn read_divisors(&mut self) -> Result<()> {
        let mut rotary = self.config.rotary.clone();
        for rotary in &mut rotary {
            let pairs = rotary.channels / 2;
            let divisors = |name: &str| self.divisors(name, pairs);
            match &mut rotary.scaling {
                RopeScaling::LongRope { short, long, .. } => {
                    let [of_short, of_long] = LONG_DIVISORS.map(divisors);
                    (*short, *long) = (of_short?, of_long?);
                }
                scaling if self.tensors.contains_key(ROPE_DIVISORS) => {
                    let mut divisors = divisors(ROPE_DIVISORS)?;
                    // llama.cpp applies both.
                    if let RopeScaling::Linear { factor } = scaling {
                        divisors.iter_mut().for_each(|divisor| *divisor *= *factor);
                    }
                    *scaling = RopeScaling::Divisors(divisors);
                }
                _ => {}
            }
        }
        self.config.rotary = rotary;
        Ok(())
    }

    /// The header's keys and values.
    pub fn metadata(&self) -> &HashMap<String, Value> {
        &self.header.metadata
    }

    /// Of the file that is open.
    pub fn sha256(&self) -> Result<String> {
        hash::source_sha256(&self.source)
    }

    /// One divisor for each of the rotary frequencies.
    fn divisors(&self, name: &str, pairs: usize) -> Result<Vec<f32>> {
        let divisors = self.read(name, &[pairs], None)?.to_vec1::<f32>()?;
        if let Some(zero) = divisors.iter().position(|d| *d <= 0.0) {
            return Err(Error::input(format!(
                "{}: tensor {name}: index {zero}: expected a positive divisor, found {}",
                self.source.path().display(),
                divisors[zero]
            ))
            .hint("no model has such frequencies: convert it again"));
        }
        Ok(divisors)
    }

    fn place(&self, name: &str) -> String {
        format!("{}: tensor {name}", self.source.path().display())
    }

    /// `experts`: of how many the tensor holds one below the other; `shape` is that of one.
    fn find(&self, name: &str, shape: &[usize], experts: Option<usize>) -> Result<&TensorInfo> {
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
        let expected: Vec<usize> = experts.into_iter().chain(shape.iter().copied()).collect();
        // A gate of one row is a vector in some files.
        let of_more = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect();
        let (wanted, found): (Vec<usize>, Vec<usize>) = (of_more(&expected), of_more(&info.shape));
        if wanted != found {
            check_shape(&place, &expected, &info.shape)?;
        }
        Ok(info)
    }

    /// `expert`: index and number of those the tensor holds.
    fn read(&self, name: &str, shape: &[usize], expert: Option<(usize, usize)>) -> Result<Tensor> {
        let info = self.find(name, shape, expert.map(|(_, count)| count))?;
        let place = self.place(name);
        // Checked when the file was opened.
        let (kind, bytes) = info
            .stored
            .and_then(|stored| Some((stored.kind.read_as?, stored.bytes)))
            .ok_or_else(|| Error::input(format!("{place}: unknown type")))?;
        let (index, count) = expert.unwrap_or((0, 1));
        let bytes = bytes / count as u64;
        let mut raw = vec![0; bytes as usize];
        self.source.read_at(&mut raw, self.header.data + info.offset + index as u64 * bytes)?;
        self.source.check_unchanged()?;
        let tensor = qtensor_from_ggml(kind, &raw, shape.to_vec(), &Device::Cpu)?;
        drop(raw);
        let values = tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        finite_tensor(values, shape, &place)
    }

    /// The tensor that holds one of Hugging Face's.
    fn stored(&self, name: &str) -> Option<Stored> {
        let stored = names::stored(&self.config, self.permuted, name)?;
        // The first converters of mixtures wrote a tensor for every expert.
        if let Some((index, _)) = stored.expert.filter(|_| !self.tensors.contains_key(&stored.name))
        {
            let name = stored.name.replace("_exps.", &format!(".{index}."));
            if self.tensors.contains_key(&name) {
                return Some(Stored { name, expert: None, ..stored });
            }
        }
        Some(stored)
    }

    fn known(&self, name: &str) -> Result<Stored> {
        self.stored(name).ok_or_else(|| Error::input(format!("tensor {name}: has no GGUF name")))
    }
}

impl Weights for Gguf {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Stored { name, expert, heads } = self.known(name)?;
        let tensor = self.read(&name, shape, expert)?;
        match heads {
            Some(heads) => unpermute(&tensor, heads),
            None => Ok(tensor),
        }
    }

    /// The converter adds the 1.
    fn tensor_plus_one(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.tensor(name, shape)
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let Stored { name, expert, .. } = self.known(name)?;
        self.find(&name, shape, expert.map(|(_, count)| count)).map(|_| ())
    }

    fn contains(&self, name: &str) -> bool {
        self.stored(name).is_some_and(|stored| self.tensors.contains_key(&stored.name))
    }

    fn unread(&self, asked: &BTreeSet<String>) -> Vec<Unread> {
        let asked: BTreeSet<String> =
            asked.iter().filter_map(|name| Some(self.stored(name)?.name)).collect();
        let scaled = |is: fn(&RopeScaling) -> bool| {
            self.config.rotary.iter().any(|rotary| is(&rotary.scaling))
        };
        let long = scaled(|scaling| matches!(scaling, RopeScaling::LongRope { .. }));
        // Llama 2's first converters wrote the last beside the weights: frequencies that follow
        // from the header, which llama.cpp skips too.
        let harmless = |name: &str| {
            name == ROPE_DIVISORS
                || long && LONG_DIVISORS.contains(&name)
                || name.ends_with(".attn_rot_embd.weight")
        };
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
