//! GGUF files of any type of weights, written from the format's definition: candle writes only the
//! types that it knows.

#![allow(dead_code)]

use candle_core::quantized::gguf_file::Value;
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
        text(&tensor.name, &mut out);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for length in tensor.shape.iter().rev() {
            out.extend((*length as u64).to_le_bytes());
        }
        out.extend(tensor.kind.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(&tensor.bytes);
    }
    std::fs::write(path, out).unwrap();
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
