//! GGUF files of any type of weights, written from the format's definition: candle writes only the
//! types that it knows.

#![allow(dead_code)]

use candle_core::quantized::gguf_file::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

pub struct RawTensor {
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// ggml's number.
    pub kind: u32,
    pub bytes: Vec<u8>,
}

const ALIGNMENT: usize = 32;

/// Version 3, aligned to 32 bytes.
pub fn write(path: &Path, metadata: &[(String, Value)], tensors: &[RawTensor]) {
    let heads: Vec<Head> = tensors
        .iter()
        .map(|RawTensor { name, shape, kind, bytes }| Head {
            name,
            shape,
            kind: *kind,
            len: bytes.len(),
        })
        .collect();
    write_made(path, metadata, &heads, |index, out| out.write_all(&tensors[index].bytes));
}

/// A tensor whose bytes are made when they are written.
pub struct Head<'a> {
    pub name: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [usize],
    /// ggml's number.
    pub kind: u32,
    pub len: usize,
}

/// [`write`] without all bytes in memory: `make` writes a tensor's by its index.
pub fn write_made(
    path: &Path,
    metadata: &[(String, Value)],
    tensors: &[Head],
    mut make: impl FnMut(usize, &mut dyn Write) -> std::io::Result<()>,
) {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(key, &mut out);
        out.extend(kind(value).to_le_bytes());
        self::value(value, &mut out);
    }
    let mut offset = 0usize;
    for tensor in tensors {
        text(tensor.name, &mut out);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for length in tensor.shape.iter().rev() {
            out.extend((*length as u64).to_le_bytes());
        }
        out.extend(tensor.kind.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.len.next_multiple_of(ALIGNMENT);
    }
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut written = out.len();
    file.write_all(&out).unwrap();
    for (index, tensor) in tensors.iter().enumerate() {
        let padding = written.next_multiple_of(ALIGNMENT) - written;
        file.write_all(&[0; ALIGNMENT][..padding]).unwrap();
        make(index, &mut file).unwrap();
        written += padding + tensor.len;
    }
    file.flush().unwrap();
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn kind(value: &Value) -> u32 {
    match value {
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        other => panic!("not needed by a test: {other:?}"),
    }
}

fn value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::String(s) => text(s, out),
        Value::Array(values) => {
            out.extend(values.first().map_or(8, kind).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| self::value(value, out));
        }
        other => panic!("not needed by a test: {other:?}"),
    }
}
