//! Models in GGUF files. Quantised tensors are dequantised to f32.

mod dequantise;
mod header;
mod names;
mod parts;
mod scale;
mod types;
mod whole;

pub use types::WeightType;

use super::config::{ModelConfig, RopeScaling, RotaryConfig, of_gguf};
use super::matrix::PackedRows;
use super::rounding::Rounding;
use super::weights::{Unread, Weights, check_shape, finite_tensor};
use crate::container::source::Source;
use crate::error::{Error, Result};
use crate::hash;
use candle_core::Tensor;
use candle_core::quantized::gguf_file::Value;
use header::{Header, TensorInfo, quoted};
use names::Stored;
use parts::Part;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;

/// The reader of a header.
const BUFFER: usize = 1 << 16;

/// Read by [`Gguf::divisors`], so part of the configuration.
const ROPE_DIVISORS: &str = "rope_freqs.weight";
const LONG_DIVISORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// An open GGUF file, or all parts of a split one: headers read and checked, tensors read on demand.
pub struct Gguf {
    /// The first has the metadata.
    parts: Vec<Part>,
    /// Indices of part and tensor by name.
    tensors: HashMap<String, (usize, usize)>,
    /// The model's configuration, from the header.
    pub config: ModelConfig,
    /// Whether q and k are in the order of the pairs that rotate together.
    permuted: bool,
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
        let metadata = &parts[0].header.metadata;
        let config = ModelConfig::from_gguf(metadata, |name| tensors.contains_key(name))
            .map_err(|e| e.within(&place))?;
        let permuted = of_gguf(metadata)?.permuted;
        for Part { source, header } in &parts {
            refuse_types(header)
                .and_then(|()| header.check_layout(source.len()))
                .map_err(|e| e.within(source.path().display()))?;
        }
        let mut gguf = Self { parts, tensors, config, permuted };
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
        &self.parts[0].header.metadata
    }

    /// Bytes of all tensors as they are stored.
    pub fn tensor_bytes(&self) -> u64 {
        let tensors = self.parts.iter().flat_map(|part| &part.header.tensors);
        tensors.filter_map(|info| info.stored).map(|stored| stored.bytes).sum()
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

    /// One divisor for each of the rotary frequencies.
    fn divisors(&self, name: &str, pairs: usize) -> Result<Vec<f32>> {
        let divisors = self.read(name, &[pairs], None)?.to_vec1::<f32>()?;
        if let Some(zero) = divisors.iter().position(|d| *d <= 0.0) {
            return Err(Error::input(format!(
                "{}: index {zero}: expected a positive divisor, found {}",
                self.place(name),
                divisors[zero]
            ))
            .hint("no model has such frequencies: convert it again"));
        }
        Ok(divisors)
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

    /// `experts`: of how many the tensor holds one below the other; `shape` is that of one.
    fn find(
        &self,
        name: &str,
        shape: &[usize],
        experts: Option<usize>,
    ) -> Result<(&Part, &TensorInfo)> {
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
        let expected: Vec<usize> = experts.into_iter().chain(shape.iter().copied()).collect();
        // A gate of one row is a vector in some files.
        let of_more = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect();
        let (wanted, found): (Vec<usize>, Vec<usize>) = (of_more(&expected), of_more(&info.shape));
        if wanted != found {
            check_shape(&place, &expected, &info.shape)?;
        }
        Ok((part, info))
    }

    /// `expert`: index and number of those the tensor holds.
    fn read(&self, name: &str, shape: &[usize], expert: Option<(usize, usize)>) -> Result<Tensor> {
        let (part, info) = self.find(name, shape, expert.map(|(_, count)| count))?;
        let place = self.place(name);
        let values: usize = shape.iter().product();
        let first = expert.map_or(0, |(index, _)| index * values);
        let mut values = part.read(info, first, values).map_err(|e| e.within(&place))?;
        self.apply_scale(name, expert, &mut values)?;
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

    fn packed(&self, name: &str, [rows, width]: [usize; 2]) -> Result<Option<PackedRows>> {
        let Stored { name, expert, heads } = self.known(name)?;
        let (part, info) = self.find(&name, &[rows, width], expert.map(|(_, count)| count))?;
        let place = self.place(&name);
        let Some(kind) = info.stored.map(|stored| stored.kind) else { return Ok(None) };
        if !(width as u64).is_multiple_of(kind.block) {
            return Ok(None);
        }
        let first = expert.map_or(0, |(index, _)| index * rows * width);
        let bytes = part.read_blocks(info, first, rows * width).map_err(|e| e.within(&place))?;
        let mut factor = [1.0];
        self.apply_scale(&name, expert, &mut factor)?;
        let factor = Some(factor[0]).filter(|factor| *factor != 1.0);
        let packed = PackedRows { kind, bytes, rows, width, heads, factor };
        packed.check_finite(&place)?;
        Ok(Some(packed))
    }

    fn kept(
        &self,
        name: &str,
        shape: [usize; 2],
        rounding: Rounding,
    ) -> Result<Option<PackedRows>> {
        let Stored { name: stored, expert, .. } = self.known(name)?;
        let (_, info) = self.find(&stored, &shape, expert.map(|(_, count)| count))?;
        let kind = info.stored.map(|stored| stored.kind.name);
        if kind != Some(rounding.weight_type().name) {
            return Ok(None);
        }
        Ok(self.packed(name, shape)?.filter(|packed| packed.is_kept_as(rounding)))
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
        let long = |rotary: &RotaryConfig| matches!(rotary.scaling, RopeScaling::LongRope { .. });
        let long = self.config.rotary.iter().any(long);
        // Llama 2's first converters wrote the frequencies beside the weights: they follow from
        // the header, and llama.cpp skips them too.
        let harmless = |name: &str| {
            name == ROPE_DIVISORS
                || long && LONG_DIVISORS.contains(&name)
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
