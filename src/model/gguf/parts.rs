//! The files of a model: one, or the parts of a split one.
//!
//! As llama.cpp's `gguf-split` and `gguf-py` write them: `split.no` counts from 0, `split.count` parts
//! are named `NAME-00001-of-00003.gguf`, the first one holds the metadata and perhaps no tensors, and
//! `split.tensors.count` is the number of tensors in all of them.

use super::WeightType;
use super::header::{Header, TensorInfo, quoted};
use super::{At, BUFFER, whole};
use crate::container::source::Source;
use crate::error::{Error, Result};
use crate::gguf_value::{integer, string};
use crate::sniff::{self, Kind};
use rayon::prelude::*;
use std::collections::HashMap;
use std::io::BufReader;
use std::path::Path;

/// Keys have 16 bits in llama.cpp.
const MOST_PARTS: u64 = u16::MAX as u64;
const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
const ARCHITECTURE: &str = "general.architecture";

/// Values that are read and dequantised at a time: whole blocks of every type, and with their bytes
/// less than a core's cache.
const PIECE: usize = 1 << 16;

const ONE_MODEL: &str =
    "the parts are not of one model, or of two conversions of it: take all of them from one place";

/// An open file, its header read.
pub struct Part {
    pub source: Source,
    pub header: Header,
}

impl Part {
    /// Reads the header and refuses what is no part of a language model.
    fn open(path: &Path) -> Result<Self> {
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
        whole::refuse(&source, &header)?;
        Ok(Self { source, header })
    }

    fn place(&self) -> String {
        self.source.path().display().to_string()
    }

    /// The type of a tensor of this part, and where its block with the value `first` begins in the file.
    fn locate(&self, info: &TensorInfo, first: usize) -> Result<(WeightType, u64)> {
        let unknown = || Error::input(format!("type {} is unknown", info.type_number));
        let kind = info.stored.ok_or_else(unknown)?.kind;
        // Fits: the header was checked against the file.
        Ok((kind, self.header.data + info.offset + kind.bytes_of(first)))
    }

    /// The blocks of `count` values of a tensor of this part, from `first` on, which begins a block.
    pub fn read_blocks(&self, info: &TensorInfo, first: usize, count: usize) -> Result<Vec<u8>> {
        let (kind, start) = self.locate(info, first)?;
        let mut blocks = vec![0; kind.bytes_of(count) as usize];
        self.source.read_at(&mut blocks, start)?;
        self.source.check_unchanged()?;
        Ok(blocks)
    }

    /// Those values in f32. Pieces are read and dequantised side by side, and no more bytes of the
    /// tensor than these are in memory.
    pub fn read(&self, info: &TensorInfo, first: usize, count: usize) -> Result<Vec<f32>> {
        let (kind, start) = self.locate(info, first)?;
        let mut values = vec![0.0; count];
        values.par_chunks_mut(PIECE).enumerate().try_for_each_init(
            Vec::new,
            |raw, (at, out)| {
                raw.resize(kind.bytes_of(out.len()) as usize, 0);
                self.source.read_at(raw, start + kind.bytes_of(at * PIECE))?;
                kind.dequantise(raw, out)
            },
        )?;
        self.source.check_unchanged()?;
        Ok(values)
    }
}

/// Every file of the model that `path` is one of, the one with the metadata first.
pub fn open(path: &Path) -> Result<Vec<Part>> {
    let named = Part::open(path)?;
    let place = named.place();
    let Some(split) = Split::of(&named.header).map_err(|e| e.within(&place))? else {
        return Ok(vec![named]);
    };
    let names = split.names(path)?;
    let mut parts = Vec::new();
    let mut named = Some(named);
    for (index, name) in (0..).zip(&names) {
        let part = match named.take_if(|_| index == split.index) {
            Some(part) => part,
            None => Part::open(&path.with_file_name(name))?,
        };
        split.check(index, &part).map_err(|e| e.within(part.place()))?;
        if let Some(first) = parts.first() {
            same_architecture(first, &part)?;
        }
        parts.push(part);
    }
    check_tensors(&parts, split.tensors)?;
    Ok(parts)
}

/// A file's place among the parts of a split model, by its header.
struct Split {
    /// From 0.
    index: u64,
    count: u64,
    /// In all parts.
    tensors: u64,
}

impl Split {
    /// `None`: a model in one file.
    fn of(header: &Header) -> Result<Option<Self>> {
        let number = |key: &str| {
            let value = header.metadata.get(key)?;
            Some(integer(value).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
                Error::input(format!("{key}: expected a whole number, found {value:.40?}"))
            }))
        };
        let Some(count) = number(COUNT).transpose()?.filter(|count| *count > 1) else {
            return Ok(None);
        };
        if count > MOST_PARTS {
            let error = format!("{COUNT}: expected at most {MOST_PARTS}, found {count}");
            return Err(Error::input(error).hint(NOT_A_PART));
        }
        let expect = |key: &str| {
            let missing = || Error::input(format!("{key}: missing beside {COUNT}"));
            number(key).transpose()?.ok_or_else(missing).map_err(|e| e.hint(NOT_A_PART))
        };
        let (index, tensors) = (expect(NO)?, expect(TENSORS)?);
        if index >= count {
            let error = format!("{NO}: expected less than {COUNT}, {count}, found {index}");
            return Err(Error::input(error).hint(NOT_A_PART));
        }
        Ok(Some(Self { index, count, tensors }))
    }

    /// `-00002-of-00003.gguf`
    fn ending(&self, index: u64) -> String {
        format!("-{:05}-of-{:05}.gguf", index + 1, self.count)
    }

    /// The names of all parts, `path` being one of them, checked to be there.
    fn names(&self, path: &Path) -> Result<Vec<String>> {
        let (place, count) = (path.display(), self.count);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ending = self.ending(self.index);
        let Some(stem) = name.strip_suffix(&ending) else {
            return Err(Error::input(format!(
                "{place}: expected a name that ends in {ending}, since the header says part {} of \
                 {count}, found {name}",
                self.index + 1
            ))
            .hint(
                "the parts of a split model find each other by their names: give it its own back",
            ));
        };
        let names = (0..count).map(|index| format!("{stem}{}", self.ending(index)));
        let names: Vec<String> = names.collect();
        let absent = |name: &&String| !path.with_file_name(name).exists();
        let missing: Vec<&String> = names.iter().filter(absent).collect();
        let more = match missing.as_slice() {
            [] => return Ok(names),
            [_] => String::new(),
            [_, more @ ..] => format!(" and {} more", more.len()),
        };
        Err(Error::input(format!(
            "{place}: expected {count} parts beside each other, found {}: {}{more} missing",
            names.len() - missing.len(),
            missing[0]
        ))
        .hint(
            "the model is not whole without it: put all parts into one folder, under their names",
        ))
    }

    /// That a part's header agrees with its name and with this one.
    fn check(&self, index: u64, part: &Part) -> Result<()> {
        let (expected, count) = (index + 1, self.count);
        let Some(found) = Self::of(&part.header)? else {
            let error = format!("expected part {expected} of {count}, found a model in one file");
            return Err(Error::input(error).hint(ONE_MODEL));
        };
        if (found.index, found.count) != (index, count) {
            return Err(Error::input(format!(
                "expected part {expected} of {count}, as its name says, found part {} of {}",
                found.index + 1,
                found.count
            ))
            .hint("two parts changed their names, or one is there twice: take this one from where the others are from"));
        }
        if found.tensors != self.tensors {
            return Err(Error::input(format!(
                "{TENSORS}: expected {}, as in part {}, found {}",
                self.tensors,
                self.index + 1,
                found.tensors
            ))
            .hint(ONE_MODEL));
        }
        Ok(())
    }
}

const NOT_A_PART: &str = "llama.cpp's llama-gguf-split writes these keys: was the file made by it?";

/// Later parts need not say it; those that do say the same.
fn same_architecture(first: &Part, part: &Part) -> Result<()> {
    let of = |part: &Part| part.header.metadata.get(ARCHITECTURE).and_then(string).map(quoted);
    match (of(first), of(part)) {
        (Some(expected), Some(found)) if expected != found => Err(Error::input(format!(
            "{}: {ARCHITECTURE}: expected {expected}, as in {}, found {found}",
            part.place(),
            first.place()
        ))
        .hint(ONE_MODEL)),
        _ => Ok(()),
    }
}

/// No tensor twice, and as many as the headers say.
fn check_tensors(parts: &[Part], expected: u64) -> Result<()> {
    let mut owners = HashMap::new();
    for part in parts {
        for tensor in &part.header.tensors {
            if let Some(owner) = owners.insert(tensor.name.as_str(), part) {
                return Err(Error::input(format!(
                    "{}: tensor {}: there already, in {}",
                    part.place(),
                    quoted(&tensor.name),
                    owner.place()
                ))
                .hint(ONE_MODEL));
            }
        }
    }
    if owners.len() as u64 != expected {
        return Err(Error::input(format!(
            "{}: {TENSORS}: expected {expected} tensors in all parts, found {}",
            parts[0].place(),
            owners.len()
        ))
        .hint(ONE_MODEL));
    }
    Ok(())
}
