//! A GGUF file's header: key-value pairs and the list of tensors.
//!
//! Read here and not by candle, which knows neither parts of a split model nor the types of
//! weights that it does not compute, and panics at an alignment of 0. Nothing is allocated by a
//! count or a length that the file could not hold.

use super::types::WeightType;
use crate::error::{Error, Result};
use crate::gguf_value::integer;
use candle_core::quantized::gguf_file::Value;
use std::collections::{HashMap, HashSet};
use std::io::Read;

/// As ggml has it.
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;

/// The longest text of a message that comes from the file.
const QUOTED: usize = 80;

pub const NOT_WHOLE: &str = "compare the file's size with that on the model's page: where it is smaller, the download or \
     copy was not finished";
const NOT_VALID: &str = "compare the file's SHA-256 with that on the model's page: where they are equal, the file is \
     newer than this program";

#[derive(Debug)]
pub struct Header {
    pub metadata: HashMap<String, Value>,
    /// In the order of the file.
    pub tensors: Vec<TensorInfo>,
    /// Where the tensors' bytes begin.
    pub data: u64,
    alignment: u64,
}

#[derive(Debug)]
pub struct TensorInfo {
    pub name: String,
    /// Outermost dimension first, as everywhere but in the file.
    pub shape: Vec<usize>,
    /// ggml's number of the type.
    pub type_number: u32,
    /// From `Header::data` on.
    pub offset: u64,
    /// `None` for an unknown type.
    pub stored: Option<Stored>,
}

#[derive(Debug, Clone, Copy)]
pub struct Stored {
    pub kind: WeightType,
    pub bytes: u64,
}

impl Header {
    /// `input`: a file of `length` bytes from its start on, little-endian by its magic.
    pub fn read(input: impl Read, length: u64) -> Result<Self> {
        let mut input = Input { input, at: 0, length, wide: true };
        input.take::<4>()?;
        let version = input.u32()?;
        if !(1..=3).contains(&version) {
            return Err(Error::input(format!("GGUF version: expected 1 to 3, found {version}"))
                .hint(NOT_VALID));
        }
        input.wide = version > 1;
        let (tensors, pairs) = (input.count()?, input.count()?);
        let mut metadata = HashMap::new();
        for _ in 0..pairs {
            let key = input.string()?;
            let kind = input.u32()?;
            let value = input.value(kind).map_err(|e| e.within(quoted(&key)))?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(invalid(format!("key {}: there twice", quoted(&key))));
            }
        }
        let alignment = alignment(&metadata)?;
        let mut names = HashSet::new();
        let mut infos = Vec::new();
        for _ in 0..tensors {
            let info = input.tensor()?;
            if !names.insert(info.name.clone()) {
                return Err(invalid(format!("tensor {}: there twice", quoted(&info.name))));
            }
            infos.push(info);
        }
        let data = input.at.next_multiple_of(alignment);
        Ok(Self { metadata, tensors: infos, data, alignment })
    }

    /// Where the last tensor ends, with what fills it up to the alignment; `None` where a type is
    /// unknown.
    pub fn end(&self) -> Option<u64> {
        let ends = self.tensors.iter().map(|tensor| {
            tensor
                .offset
                .checked_add(tensor.stored?.bytes)?
                .checked_next_multiple_of(self.alignment)
        });
        let last = ends.collect::<Option<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
        self.data.checked_add(last)
    }

    /// Tensors stand one after the other, as ggml wants it, in a file of `length` bytes.
    pub fn check_layout(&self, length: u64) -> Result<()> {
        let mut expected = 0u64;
        for TensorInfo { name, offset, stored, .. } in &self.tensors {
            let Some(stored) = stored else { continue };
            if *offset != expected {
                return Err(invalid(format!(
                    "tensor {}: expected offset {expected}, behind the one before it, found {offset}",
                    quoted(name)
                )));
            }
            let end = offset.checked_add(stored.bytes);
            let in_file = end.and_then(|end| end.checked_add(self.data));
            if in_file.is_none_or(|end| end > length) {
                let needed = in_file.map_or("more".into(), |end| end.to_string());
                return Err(Error::input(format!(
                    "tensor {}: expected a file of at least {needed} bytes, found {length}",
                    quoted(name)
                ))
                .hint(NOT_WHOLE));
            }
            expected = end
                .and_then(|end| end.checked_next_multiple_of(self.alignment))
                .ok_or_else(|| invalid(format!("tensor {}: too large", quoted(name))))?;
        }
        // Some writers leave out what fills up the last tensor, some add to it.
        let end = self.data.saturating_add(expected);
        if length >= end.saturating_add(self.alignment) {
            return Err(invalid(format!(
                "expected {end} bytes, of which the last is a tensor's, found {length}"
            )));
        }
        Ok(())
    }
}

fn alignment(metadata: &HashMap<String, Value>) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let Some(value) = metadata.get(KEY) else { return Ok(DEFAULT_ALIGNMENT) };
    let number = integer(value).and_then(|n| u64::try_from(n).ok());
    number.filter(|n| n.is_power_of_two() && *n <= MAX_ALIGNMENT).ok_or_else(|| {
        invalid(format!("{KEY}: expected a power of two up to 2^20, found {value:.40?}"))
    })
}

/// Reads little-endian values and knows where it is.
struct Input<R> {
    input: R,
    at: u64,
    length: u64,
    /// Counts and lengths have 64 bits; version 1 has 32.
    wide: bool,
}

impl<R: Read> Input<R> {
    fn remaining(&self) -> u64 {
        self.length.saturating_sub(self.at)
    }

    fn need(&self, bytes: u64) -> Result<()> {
        if bytes <= self.remaining() {
            return Ok(());
        }
        Err(Error::input(format!(
            "not a whole GGUF header: expected {bytes} bytes more at byte {}, found {}",
            self.at,
            self.remaining()
        ))
        .hint(NOT_WHOLE))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.need(bytes.len() as u64)?;
        self.input
            .read_exact(bytes)
            .map_err(|e| Error::system(format!("reading the GGUF header: {e}")))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// A count, a length or a dimension.
    fn count(&mut self) -> Result<u64> {
        if self.wide { Ok(u64::from_le_bytes(self.take()?)) } else { Ok(u64::from(self.u32()?)) }
    }

    fn string(&mut self) -> Result<String> {
        let length = self.count()?;
        self.need(length)?;
        // Fits: it is less than the file.
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        // Some writers end a string as C does.
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        })
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        const ARRAY: u32 = 9;
        if kind != ARRAY {
            return self.scalar(kind);
        }
        let (kind, count) = (self.u32()?, self.count()?);
        if kind == ARRAY {
            return Err(invalid("an array of arrays, which GGUF does not have".into()));
        }
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 => self.width(),
            _ => 8,
        };
        self.need(count.saturating_mul(least))?;
        let mut values = Vec::with_capacity(count as usize);
        for _ in 0..count {
            values.push(self.scalar(kind)?);
        }
        Ok(Value::Array(values))
    }

    fn width(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    fn scalar(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.take()?)),
            1 => Value::I8(i8::from_le_bytes(self.take()?)),
            2 => Value::U16(u16::from_le_bytes(self.take()?)),
            3 => Value::I16(i16::from_le_bytes(self.take()?)),
            4 => Value::U32(u32::from_le_bytes(self.take()?)),
            5 => Value::I32(i32::from_le_bytes(self.take()?)),
            6 => Value::F32(f32::from_le_bytes(self.take()?)),
            7 => match self.take::<1>()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => {
                    return Err(invalid(format!("expected true or false, found {other}")));
                }
            },
            8 => Value::String(self.string()?),
            10 => Value::U64(u64::from_le_bytes(self.take()?)),
            11 => Value::I64(i64::from_le_bytes(self.take()?)),
            12 => Value::F64(f64::from_le_bytes(self.take()?)),
            other => return Err(invalid(format!("unknown type of value {other}"))),
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo> {
        let name = self.string()?;
        let wrong = |what: String| invalid(format!("tensor {}: {what}", quoted(&name)));
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            let expected = MAX_DIMENSIONS;
            return Err(wrong(format!(
                "expected at most {expected} dimensions, found {dimensions}"
            )));
        }
        let mut lengths = Vec::new();
        for _ in 0..dimensions {
            lengths.push(self.count()?);
        }
        let type_number = self.u32()?;
        let offset = u64::from_le_bytes(self.take()?);
        let values = lengths.iter().try_fold(1u64, |values, length| values.checked_mul(*length));
        // The last axis is the file's first: blocks lie along it.
        let row = lengths.first().copied().unwrap_or(1);
        let stored = match WeightType::of(type_number) {
            None => None,
            Some(kind) => {
                if !row.is_multiple_of(kind.block) {
                    return Err(wrong(format!(
                        "expected rows of a multiple of {} values for {}, found {row}",
                        kind.block, kind.name
                    )));
                }
                let bytes = values.and_then(|values| (values / kind.block).checked_mul(kind.bytes));
                let bytes = bytes.ok_or_else(|| {
                    wrong(format!("expected a shape that fits a file, found {lengths:?}"))
                })?;
                Some(Stored { kind, bytes })
            }
        };
        let shape: Option<Vec<usize>> =
            lengths.iter().rev().map(|length| usize::try_from(*length).ok()).collect();
        let shape = shape.ok_or_else(|| wrong(format!("shape {lengths:?} fits no memory")))?;
        Ok(TensorInfo { name, shape, type_number, offset, stored })
    }
}

fn invalid(what: String) -> Error {
    Error::input(format!("not a valid GGUF header: {what}")).hint(NOT_VALID)
}

/// Of a message's length, whatever the file holds.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
