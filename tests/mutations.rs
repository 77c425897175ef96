//! Compressed files of every preset, packed and not, damaged in any place with their checksums put right, as only
//! malice does: an error, or tensors; never a panic.
//!
//! `KVGAUGE_FUZZ_SECONDS=N` goes on for so long, in place of the usual number of rounds; with `--nocapture` the number
//! of mutations is printed.

#[path = "common/rounds.rs"]
mod rounds;
#[path = "common/zoo.rs"]
#[allow(dead_code)]
mod zoo;

use kvgauge::container::{
    Plan, RopeParameters, Target, TensorData, compress, decompress, inspect, read_file, write_file,
};
use kvgauge::error::{Kind, Result};
use kvgauge::run::listing::listing;
use kvgauge::whole_file::Existing;
use rounds::rounds;
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::ops::Range;
use std::path::Path;
use tempfile::TempDir;
use zoo::Dice;

/// In the order in which checksums take them.
const PARTS: [&str; 10] = [
    "values",
    "sinks",
    "tail",
    "means",
    "tensor_scale",
    "column_scales",
    "scales",
    "minima",
    "zeros",
    "codes",
];

/// A compressed file, and where in it is what.
struct Whole {
    codec: String,
    bytes: Vec<u8>,
    /// What it restores to.
    restored: Vec<u8>,
    is_packed: bool,
    /// Of each tensor its checksum's place in the header, and those of its parts.
    tensors: Vec<(usize, Vec<Range<usize>>)>,
}

fn target(path: &Path) -> Target<'_> {
    Target { path, existing: Existing::Replace, sync: false }
}

/// Keys and values, some tokens of which are there twice.
fn cache() -> Vec<TensorData<'static>> {
    let (tokens, dim) = (240, 64);
    let of = |name, dtype, seed| {
        let numbers = zoo::numbers(tokens * dim, seed);
        let value = |index: usize| {
            let token = index / dim * 7 % 11 * 7 % tokens;
            let token = if (index / dim).is_multiple_of(3) { index / dim } else { token };
            numbers[token * dim + index % dim] + (index % dim % 5) as f32
        };
        let values: Vec<f32> = (0..tokens * dim).map(value).collect();
        zoo::tensor(name, dtype, &[1, tokens, dim], &values)
    };
    vec![of("a.key", Dtype::F16, 1), of("a.value", Dtype::BF16, 2)]
}

impl Whole {
    /// `None`: the codec is no file's.
    fn new(folder: &Path, codec: &str, pack: bool) -> Option<Self> {
        let [source, compressed, restored] =
            ["source", "compressed", "restored"].map(|name| folder.join(name));
        write_file(&source, &cache(), None).unwrap();
        let rope = Some(RopeParameters::of_theta(1e4));
        let plan = Plan { rope, pack, ..Plan::all(codec.parse().ok()?) };
        let summary = compress(&source, Some(target(&compressed)), &plan, &()).ok()?;
        decompress(&compressed, target(&restored), &()).unwrap();
        let bytes = fs::read(compressed).unwrap();
        let (header_len, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = std::str::from_utf8(&bytes[8..8 + header_len]).unwrap();
        let tensor = |name: &str| {
            let own = text.find(&format!(r#"\"name\":\"{name}\""#)).unwrap();
            let mark = r#"\"crc32\":\""#;
            let crc32 = 8 + own + text[own..].find(mark).unwrap() + mark.len();
            let parts = PARTS.iter().filter_map(|part| header.info(&format!("{name}.{part}")));
            let parts = parts.map(|info| info.data_offsets).filter(|(start, end)| start < end);
            let at = 8 + header_len;
            (crc32, parts.map(|(start, end)| at + start..at + end).collect())
        };
        let tensors = vec![tensor("a.key"), tensor("a.value")];
        let restored = fs::read(restored).unwrap();
        let is_packed = summary.packing_ratio().is_some();
        let whole = Self { codec: codec.into(), bytes, restored, is_packed, tensors };
        let mut same = whole.bytes.clone();
        (0..2).for_each(|tensor| whole.repair(tensor, &mut same));
        assert!(same == whole.bytes, "{codec}: checksums are put right where they are right");
        Some(whole)
    }

    /// Puts the checksums of a tensor and of the header right.
    fn repair(&self, tensor: usize, bytes: &mut [u8]) {
        let (at, parts) = &self.tensors[tensor];
        let mut hasher = crc32fast::Hasher::new();
        parts.iter().for_each(|part| hasher.update(&bytes[part.clone()]));
        bytes[*at..at + 8].copy_from_slice(format!("{:08x}", hasher.finalize()).as_bytes());
        zoo::repair(bytes);
    }
}

impl Dice {
    /// Changes one to four places of some bytes, most often the first and the last ones.
    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..1 + self.below(4) {
            let near = 48.min(bytes.len());
            let at = match self.below(3) {
                0 => self.below(near),
                1 => bytes.len() - 1 - self.below(near),
                _ => self.below(bytes.len()),
            };
            match self.below(5) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => bytes[at] = bytes[at].wrapping_add(1).wrapping_sub(2 * self.below(2) as u8),
                3 => bytes[at..].iter_mut().take(9).for_each(|byte| *byte = 0xff),
                _ => bytes[at] = self.below(256) as u8,
            }
        }
    }
}

/// By all readers.
fn read(path: &Path, output: &Path) -> [Result<()>; 3] {
    let one_by_one = || {
        let file = read_file(path)?;
        let names: Vec<String> = file.names().map(String::from).collect();
        names.iter().try_for_each(|name| file.get_tensor_f32(name).map(drop))
    };
    [
        decompress(path, target(output), &()).map(drop),
        inspect(path, true, &()).map(drop),
        one_by_one(),
    ]
}

#[test]
fn mutations_of_every_preset_with_right_checksums() {
    let folder = TempDir::new().unwrap();
    let (path, output) = (folder.path().join("mutated"), folder.path().join("output"));
    let presets = listing().unwrap().codecs;
    // What stands in none of their files.
    let others = ["k:int3-g8-asym-ch-prerope-ctr-had-s8-sink2/v:int5-g24-lm-had-mse-sink1"];
    let names = presets.iter().map(|preset| preset.codec).chain(others);
    let wholes: Vec<Whole> = names
        .flat_map(|codec| [false, true].map(|pack| (codec, pack)))
        .filter_map(|(codec, pack)| Whole::new(folder.path(), codec, pack))
        .collect();
    assert!(wholes.len() > 2 * 40, "{} files", wholes.len());
    for codec in ["kvgauge4", "kvgauge3", "kvgauge2", "f16", "q4_0", "nvfp4"] {
        let of = |packed| wholes.iter().any(|w| w.codec == codec && w.is_packed == packed);
        assert!(of(false) && of(true), "{codec}");
    }
    let (mut dice, mut passed, mut refused) = (Dice(10), 0usize, 0usize);
    for round in rounds(6000) {
        let whole = &wholes[dice.below(wholes.len())];
        let mut bytes = whole.bytes.clone();
        let tensor = dice.below(2);
        let in_header = dice.below(8) == 0;
        if in_header {
            let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            // Its length apart, without which nothing can be put right.
            dice.damage(&mut bytes[8..header]);
            zoo::repair(&mut bytes);
        } else {
            let parts = &whole.tensors[tensor].1;
            let part = parts[dice.below(parts.len())].clone();
            dice.damage(&mut bytes[part]);
            whole.repair(tensor, &mut bytes);
        }
        fs::write(&path, &bytes).unwrap();
        let what = || format!("mutation {round}, {}, packed {}", whole.codec, whole.is_packed);
        let results = read(&path, &output);
        let all = results.iter().filter(|result| result.is_ok()).count();
        assert!(all == 0 || all == results.len(), "{}: readers differ: {results:?}", what());
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), Kind::Input, "{}: {error}", what());
        }
        if all > 0 {
            let restored = fs::read(&output).unwrap();
            SafeTensors::deserialize(&restored).unwrap();
            // What was packed has a checksum of its own.
            let is_same = restored == whole.restored;
            assert!(is_same || !whole.is_packed || in_header, "{}: passed", what());
            passed += 1;
        } else {
            refused += 1;
        }
    }
    println!(
        "{} mutations of {} files: {passed} passed, {refused} refused",
        passed + refused,
        wholes.len()
    );
    assert!(passed > 500 && refused > 500, "{passed} passed, {refused} refused");
}
