//! Values of GGUF metadata by their meaning, whichever of the format's types holds them.

use candle_core::quantized::gguf_file::Value;

/// A string; `None` for another type.
pub fn string(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A whole number of any width and sign; `None` for another type, booleans among them.
pub fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::U8(n) => Some((*n).into()),
        Value::I8(n) => Some((*n).into()),
        Value::U16(n) => Some((*n).into()),
        Value::I16(n) => Some((*n).into()),
        Value::U32(n) => Some((*n).into()),
        Value::I32(n) => Some((*n).into()),
        Value::U64(n) => Some((*n).into()),
        Value::I64(n) => Some((*n).into()),
        _ => None,
    }
}

/// A float of either width; `None` for another type.
pub fn float(value: &Value) -> Option<f64> {
    match value {
        Value::F32(x) => Some((*x).into()),
        Value::F64(x) => Some(*x),
        _ => None,
    }
}

/// A number of any type, booleans as 0 and 1.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(u8::from(*flag).into()),
        other => float(other).or_else(|| integer(other).map(|n| n as f64)),
    }
}
