//! A small file with one of everything a compressed file can hold.

use half::{bf16, f16};
use kvgauge::container::{TensorData, TextMap};
use safetensors::Dtype;

/// Numbers in −1…1 with a heavy middle, the same on every machine.
pub fn numbers(count: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * next()).collect()
}

pub fn tensor(name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) -> TensorData<'static> {
    let data: Vec<u8> = match dtype {
        Dtype::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    TensorData { name: name.into(), dtype, shape: shape.to_vec(), data: data.into() }
}

fn bytes(name: &str, dtype: Dtype, shape: &[usize], data: &[u8]) -> TensorData<'static> {
    TensorData { name: name.into(), dtype, shape: shape.to_vec(), data: data.to_vec().into() }
}

/// What is no float and passes through.
pub fn mask() -> TensorData<'static> {
    bytes("mask", Dtype::BOOL, &[3], &[1, 0, 1])
}

/// In an order that neither names nor types explain.
pub fn tensors() -> Vec<TensorData<'static>> {
    let scaled = |count, seed, by: f32| -> Vec<f32> {
        numbers(count, seed).into_iter().map(|x| x * by).collect()
    };
    vec![
        mask(),
        tensor("layer.0.key", Dtype::F16, &[2, 5, 24], &numbers(240, 1)),
        tensor("layer.0.value", Dtype::BF16, &[2, 5, 24], &numbers(240, 2)),
        bytes("ids", Dtype::I64, &[2], &[7, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0, 1]),
        tensor("layer.1.key", Dtype::F32, &[3, 33], &numbers(99, 3)),
        tensor("layer.1.value", Dtype::F16, &[0, 24], &[]),
        tensor("huge.key", Dtype::BF16, &[2, 64], &scaled(128, 4, 1e30)),
        tensor("tiny.value", Dtype::F32, &[70], &scaled(70, 5, 1e-30)),
        tensor(
            "both.key",
            Dtype::F32,
            &[2, 64],
            &[scaled(64, 6, 1e30), scaled(64, 7, 1e-30)].concat(),
        ),
        tensor("small.key", Dtype::F16, &[2, 16], &scaled(32, 8, 3e-7)),
        tensor("zero.value", Dtype::F16, &[2, 64], &[0.0; 128]),
        tensor("one.key", Dtype::F32, &[], &[0.25]),
        tensor("x.key", Dtype::F16, &[9], &numbers(9, 9)),
        bytes("x.key.codes", Dtype::U8, &[3], &[1, 2, 3]),
        bytes("x.key..scales", Dtype::U8, &[1], &[9]),
        tensor("größe \"k\".key", Dtype::F16, &[3, 7], &numbers(21, 10)),
        tensor("double", Dtype::F64, &[1], &[1.0, 2.0]),
    ]
}

pub fn metadata() -> TextMap {
    [("format", "pt"), ("a \"quoted\" key", "line\nbreak, ünïcode"), ("kvgauge", "no manifest")]
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .into()
}

/// Gives a changed header its right checksum: what only malice does.
pub fn repair(bytes: &mut [u8]) {
    let mark = br#"\"header_crc32\":\""#;
    let found = bytes.windows(mark.len()).position(|window| window == mark);
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let Some(at) = found.map(|at| at + mark.len()) else { return };
    bytes[at..at + 8].copy_from_slice(b"00000000");
    let crc32 = format!("{:08x}", crc32fast::hash(&bytes[..end]));
    bytes[at..at + 8].copy_from_slice(crc32.as_bytes());
}

/// With a header changed on purpose, its checksum put right.
pub fn forged(whole: &[u8], from: &str, to: &str) -> Vec<u8> {
    let end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&whole[8..end]).unwrap();
    assert!(header.contains(from), "no {from} in {header}");
    let mut header = header.trim_end().replace(from, to).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    let mut bytes = [&length, &header[..], &whole[end..]].concat();
    repair(&mut bytes);
    bytes
}

/// Two layers' keys and values of `tokens` head vectors in each of two heads, every channel with a mean and a spread
/// of its own; and a mask.
pub fn channels(tokens: usize, head_dim: usize) -> Vec<TensorData<'static>> {
    let shape = [2, tokens, head_dim];
    let values = |seed: u64| -> Vec<f32> {
        let of = |(index, x): (usize, f32)| {
            let channel = index % head_dim;
            x * (0.1 + (channel % 5) as f32 / 8.0) + (channel * channel % 7) as f32 - 3.0
        };
        numbers(shape.iter().product(), seed).into_iter().enumerate().map(of).collect()
    };
    let of = |name, dtype, seed| tensor(name, dtype, &shape, &values(seed));
    vec![
        mask(),
        of("layer.0.key", Dtype::F16, 1),
        of("layer.0.value", Dtype::BF16, 2),
        of("layer.1.key", Dtype::F32, 3),
        of("layer.1.value", Dtype::F16, 4),
    ]
}

/// Random numbers for damage.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }
}
