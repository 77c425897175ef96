//! Notes beside a result: tensors left as they are, an order of axes that is in doubt.

use crate::codec::{Packing, TensorCodec};
use crate::container::{ExclusionReason, Summary, TensorSummary};
use safetensors::Dtype;

/// A note of tensors that were stored as they are though nobody asked for that; of a file of which nothing was
/// compressed, all of it. A file says of tensors that were left only that they were.
pub fn left_alone(summary: &Summary) -> Option<String> {
    let nothing = summary.tensors.iter().all(|tensor| tensor.codec.is_none());
    let most = mostly_left(summary);
    let told = |tensor: &&TensorSummary| match tensor.excluded {
        // A few bytes are a mask; numbers of another type may be a part of the cache.
        Some(ExclusionReason::Type) => {
            nothing || is_number(tensor.dtype) || most && is_cache(tensor.dtype)
        }
        Some(ExclusionReason::Grows) => true,
        Some(ExclusionReason::Name | ExclusionReason::OneValue) => nothing,
        None => nothing || most && is_cache(tensor.dtype),
    };
    let mut groups: Vec<(String, usize)> = Vec::new();
    for tensor in summary.tensors.iter().filter(told) {
        let why = match tensor.excluded {
            Some(ExclusionReason::Grows) => " that would grow",
            Some(ExclusionReason::Name) => " left out by name",
            Some(ExclusionReason::OneValue) => " of one value",
            Some(ExclusionReason::Type) | None => "",
        };
        let group = format!("{:?}{why}", tensor.dtype);
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, count)) => *count += 1,
            None => groups.push((group, 1)),
        }
    }
    let list: Vec<String> =
        groups.iter().map(|(group, count)| format!("{count} {group}")).collect();
    let list = list.join(", ");
    match (nothing, list.is_empty()) {
        (true, true) => Some("the file has no tensors: nothing was compressed or measured".into()),
        (true, false) => Some(format!(
            "nothing was compressed or measured; tensors stored as they are: {list} (F16, BF16 and \
             F32 are compressed)"
        )),
        (false, true) => None,
        (false, false) if most => Some(format!(
            "most was not compressed, which the figures say nothing of; tensors stored as they are: \
             {list} (F16, BF16 and F32 are compressed)"
        )),
        (false, false) => Some(format!("tensors stored as they are: {list}")),
    }
}

/// Whether tensors that may be cache but are of a type that is not compressed outweigh those that were: the
/// scales of an fp8 cache are not the cache.
pub fn mostly_left(summary: &Summary) -> bool {
    let (mut left, mut compressed) = (0u128, 0u128);
    for tensor in &summary.tensors {
        let bits = tensor.values() as u128 * tensor.dtype.bitsize() as u128;
        match tensor.codec {
            Some(_) => compressed += bits,
            None if is_cache(tensor.dtype) => left += bits,
            None => {}
        }
    }
    left > compressed
}

/// Not compressed, and yet a type that caches have: other floats, and bytes, in which engines keep
/// their 8-bit ones.
fn is_cache(dtype: Dtype) -> bool {
    is_number(dtype) || matches!(dtype, Dtype::U8 | Dtype::I8)
}

/// A type that is not compressed, and that neither counts nor masks have.
fn is_number(dtype: Dtype) -> bool {
    use Dtype::*;
    !matches!(dtype, F16 | BF16 | F32 | BOOL | U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64)
}

/// A codec that tells tokens from channels, and fewer tokens than heads: most caches have more.
pub fn doubtful_order(summary: &Summary, kv_axis: Option<i64>) -> Option<String> {
    let doubtful = |tensor: &&TensorSummary| {
        let codecs = tensor.codec.map_or(Vec::new(), |coding| coding.codecs());
        let packings = || codecs.iter().filter_map(TensorCodec::packing);
        let one_side = one_side(tensor, kv_axis);
        packings().any(Packing::reads_tokens)
            && matches!(one_side[..], [.., heads, tokens, _] if 0 < tokens && tokens < heads)
    };
    let tensor = summary.tensors.iter().find(doubtful)?;
    let one_side = one_side(tensor, kv_axis);
    let [.., heads, tokens, _] = one_side[..] else { return None };
    Some(format!(
        "tensor {} of shape {:?} was read as {heads} heads of {tokens} tokens; if it is the other way \
         round, --layout tokens-heads-dim says so",
        tensor.name, tensor.shape
    ))
}

/// The shape without the axis of keys and values.
fn one_side(tensor: &TensorSummary, kv_axis: Option<i64>) -> Vec<usize> {
    let is_other = |axis: usize| kv_axis.is_none_or(|kv_axis| kv_axis != axis as i64);
    let shape = tensor.shape.iter().enumerate();
    shape.filter(|(axis, _)| is_other(*axis)).map(|(_, size)| *size).collect()
}
