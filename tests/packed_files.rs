//! Packed parts of compressed files: what they hold, how large they are, and what is refused.

#[path = "common/rounds.rs"]
mod rounds;
#[path = "common/zoo.rs"]
#[allow(dead_code)]
mod zoo;

use kvgauge::codec::entropy::{SymbolForm, Symbols, encode_block};
use kvgauge::container::{
    AxisOrder, Layout, Plan, RopeParameters, Summary, Target, TensorData, compress, decompress,
    inspect, read_file, write_file,
};
use kvgauge::error::{Kind, Result};
use kvgauge::whole_file::Existing;
use rounds::rounds;
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zoo::forged;

fn plan(codec: &str, pack: bool) -> Plan {
    let rope = Some(RopeParameters::of_theta(1e4));
    Plan { rope, pack, ..Plan::all(codec.parse().unwrap()) }
}

fn target(path: &Path) -> Target<'_> {
    Target { path, existing: Existing::Replace, sync: false }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn source(&self, tensors: &[TensorData]) -> PathBuf {
        let path = self.path("source");
        write_file(&path, tensors, Some(zoo::metadata())).unwrap();
        path
    }

    /// Compresses and restores, packed or not.
    fn there_and_back(&self, source: &Path, plan: &Plan) -> (Summary, Vec<u8>, Vec<u8>) {
        let (packed, restored) = (self.path("packed"), self.path("restored"));
        let made = compress(source, Some(target(&packed)), plan, &()).unwrap();
        let read = decompress(&packed, target(&restored), &()).unwrap();
        assert_eq!((made.quality, made.compressed_bytes), (read.quality, read.compressed_bytes));
        assert_eq!(made.packing_ratio(), read.packing_ratio());
        assert_eq!(made.compressed_bytes, fs::metadata(&packed).unwrap().len());
        assert_eq!(compress(source, None, plan, &()).unwrap(), made);
        (made, fs::read(packed).unwrap(), fs::read(restored).unwrap())
    }
}

/// Every kind of payload and part, in every layout: the restored file is that of the file without
/// packing, and so are the figures.
#[test]
fn packing_loses_nothing() {
    let folder = Folder::new();
    let source = folder.source(&zoo::channels(200, 32));
    let codecs = [
        "int4-g64",
        "int4-g9",
        "f16",
        "k:f16/v:int4-g100",
        "q8_0",
        "kivi4",
        "kvgauge4",
        "nvfp4-per-tensor",
        "mxfp4",
        "fp8-per-token-head",
        "k:int3-g8-asym-ch-prerope-ctr-had-s8-sink2/v:int5-g24-lm-had-mse-sink1",
        "k:int2-g16/v:int7-g64-mid",
        "q4_0+kvgauge4@1",
        "kvarn3",
        "hqq4",
    ];
    for codec in codecs {
        let (plain, _, expected) = folder.there_and_back(&source, &plan(codec, false));
        let (made, packed, restored) = folder.there_and_back(&source, &plan(codec, true));
        assert!(restored == expected, "{codec}");
        assert_eq!((made.quality, &made.codec), (plain.quality, &plain.codec), "{codec}");
        assert!(made.compressed_bytes < plain.compressed_bytes, "{codec}");
        assert!(made.packing_ratio().unwrap() > 1.0 && plain.packing_ratio().is_none(), "{codec}");
        assert!(made.bits_per_value() < plain.bits_per_value(), "{codec}");
        for (made, plain) in made.tensors.iter().zip(&plain.tensors) {
            assert_eq!(made.unpacked_bytes, plain.stored_bytes, "{codec}");
        }
        // The same bytes, whichever thread was first.
        let (_, again, _) = folder.there_and_back(&source, &plan(codec, true));
        assert!(again == packed, "{codec}");
        let contents = inspect(&folder.path("packed"), true, &()).unwrap();
        // Codes of 19 levels are words.
        let tenth = ["kvarn3", "hqq4"].contains(&codec) || codec.contains("kvgauge4");
        assert_eq!(
            contents.format,
            if tenth { "kvgauge-kv 10" } else { "kvgauge-kv 9" },
            "{codec}"
        );
        let file = read_file(&folder.path("packed")).unwrap();
        let expected = SafeTensors::deserialize(&restored).unwrap();
        let values = file.get_tensor_f32("layer.1.key").unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(bytes == expected.tensor("layer.1.key").unwrap().data(), "{codec}");
    }
    let mut pairs = plan("k:int4-g32/v:q8_0", true);
    pairs.layout = Layout { order: AxisOrder::TokensHeadsDim, kv_axis: Some(0), head_dim: None };
    pairs.exclude = vec![glob::Pattern::new("mask").unwrap()];
    let four: Vec<TensorData> = (zoo::channels(200, 32).into_iter())
        .map(|tensor| {
            let shape = if tensor.name == "mask" { tensor.shape } else { vec![2, 100, 4, 16] };
            TensorData { shape, ..tensor }
        })
        .collect();
    let source = folder.source(&four);
    let (made, _, restored) = folder.there_and_back(&source, &pairs);
    let (_, _, expected) = folder.there_and_back(&source, &Plan { pack: false, ..pairs });
    assert!(restored == expected && made.packing_ratio().is_some());
}

/// Tensors of several pieces, whose blocks are those of the whole.
#[test]
fn large_tensors() {
    let folder = Folder::new();
    let mut large = zoo::channels(20_001, 64).swap_remove(1);
    // A group beyond f16's scales: the tensor is done again, with an exponent.
    large.dtype = Dtype::F32;
    let channels: Vec<f32> = zoo::numbers(2 * 20_001 * 64, 3)
        .into_iter()
        .enumerate()
        .map(|(index, x)| 1e30 * (x + (index % 64 % 7) as f32))
        .collect();
    large.data = channels.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into();
    let source = folder.source(&[large]);
    for codec in ["int4-g64", "int4-g48", "int4-g9", "int4-g1000", "f16", "q8_0"] {
        let (_, _, expected) = folder.there_and_back(&source, &plan(codec, false));
        let (made, _, restored) = folder.there_and_back(&source, &plan(codec, true));
        // All values are beyond f16, whose largest number they become.
        assert!(restored == expected && made.packing_ratio().unwrap() > 1.1, "{codec}");
    }
}

/// What does not become shorter stays as it is, to the last byte of the file.
#[test]
fn a_file_that_packing_does_not_shorten() {
    let folder = Folder::new();
    let small = zoo::tensors().into_iter().filter(|tensor| tensor.name != "zero.value");
    for tensors in [small.collect(), Vec::new()] {
        let source = folder.source(&tensors);
        let (_, plain, _) = folder.there_and_back(&source, &plan("int4-g64", false));
        let (made, packed, _) = folder.there_and_back(&source, &plan("int4-g64", true));
        assert!(packed == plain && made.packing_ratio().is_none());
    }
    // Forty blocks of noise, one of which saves less than the lengths of all take.
    let mut noise: Vec<u16> = Vec::new();
    let mut state = 1u64;
    while noise.len() < 40 * 32_768 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let half = (state >> 40) as u16;
        noise.extend(Some(half).filter(|half| half & 0x7c00 != 0x7c00));
    }
    let symbols = Symbols { form: SymbolForm::Bits(8), element: 2, elements: 32 };
    let mut between = 0;
    for calm in (0..4000).step_by(125) {
        let mut halves = noise.clone();
        halves[32_768..32_768 + calm].iter_mut().for_each(|half| *half &= 0xff00);
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        let is_coded = encode_block(&bytes[1 << 16..2 << 16], symbols).is_some();
        let tensor = TensorData {
            name: "x.key".into(),
            dtype: Dtype::F16,
            shape: vec![40, 1024, 32],
            data: bytes.clone().into(),
        };
        let source = folder.source(&[tensor]);
        let (made, packed, restored) = folder.there_and_back(&source, &plan("f16", true));
        assert!(restored.ends_with(&bytes));
        if is_coded && made.packing_ratio().is_none() {
            let (_, plain, _) = folder.there_and_back(&source, &plan("f16", false));
            assert!(packed == plain);
            between += 1;
        }
    }
    assert!(between > 0, "no such case was met");
}

/// Bits by the entropy of symbols, each with the others of its place.
fn entropy(symbols: &[u8], places: usize) -> f64 {
    let mut counts = vec![[0f64; 256]; places];
    for (index, symbol) in symbols.iter().enumerate() {
        counts[index % places][usize::from(*symbol)] += 1.0;
    }
    let bits = |counts: &[f64; 256]| -> f64 {
        let all: f64 = counts.iter().sum();
        counts.iter().filter(|n| **n > 0.0).map(|n| n * (all / n).log2()).sum()
    };
    counts.iter().map(bits).sum()
}

/// The bytes of a part of a file that is not packed.
fn part(file: &[u8], name: &str) -> Vec<u8> {
    SafeTensors::deserialize(file).unwrap().tensor(name).unwrap().data().to_vec()
}

/// A random number of its own for each index, the sum of four (splitmix64; Steele, Lea and Flood 2014).
fn nearly_normal(index: u64) -> f32 {
    let part = |part: u64| {
        let mut x = (4 * index + part + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..4).map(part).sum()
}

/// Codes of 19 levels are packed to their entropy, in blocks of all kinds of head vectors: the digits are taken
/// apart here once more, word by word.
#[test]
fn words_take_the_entropy_of_their_codes() {
    let folder = Folder::new();
    for (head_dim, block) in [(64, 64usize), (128, 64), (80, 80), (96, 96), (100, 100), (256, 64)] {
        let tokens = (1 << 20) / head_dim;
        let value = |i: usize| nearly_normal(i as u64) + (i % head_dim % 7) as f32;
        let values: Vec<f32> = (0..tokens * head_dim).map(value).collect();
        let shape = [1, tokens, head_dim];
        let source = folder.source(&[zoo::tensor("layer.0.key", Dtype::F32, &shape, &values)]);
        let (_, plain, expected) = folder.there_and_back(&source, &plan("tc19", false));
        let (_, _, restored) = folder.there_and_back(&source, &plan("tc19", true));
        assert!(restored == expected, "{head_dim}");
        let bytes = part(&plain, "layer.0.key.codes");
        let own = block / 2 + block.div_ceil(32);
        let mut codes = Vec::new();
        for bytes in bytes.chunks(own) {
            let word = |index: usize| {
                let low = u32::from(bytes[2 * index]) + 256 * u32::from(bytes[2 * index + 1]);
                low + (u32::from(bytes[block / 2 + index / 8] >> (index % 8) & 1) << 16)
            };
            let digit = |place: u32, index| (word(index) / 19u32.pow(place) % 19) as u8;
            (0..4).for_each(|place| codes.extend((0..block / 4).map(|i| digit(place, i))));
        }
        let entropy = entropy(&codes, 1).min(entropy(&codes, head_dim)) / 8.0;
        let contents = inspect(&folder.path("packed"), true, &()).unwrap();
        assert_eq!(contents.format, "kvgauge-kv 10");
        let parts = &contents.tensors[0].parts;
        let packed = parts.iter().find(|part| part.name == "codes").unwrap();
        let share = packed.stored_bytes as f64 / entropy;
        println!(
            "{head_dim}: {} of {} bytes, entropy {entropy:.0}",
            packed.stored_bytes,
            bytes.len()
        );
        assert!((0.98..1.02).contains(&share), "{head_dim}: {share} of the entropy");
    }
}

/// Tokens that are there again cost next to nothing, whatever the part they are in, where nothing depends on
/// their place.
#[test]
fn head_vectors_that_repeat() {
    let folder = Folder::new();
    let (tokens, kinds, head_dim) = (1000, 100, 64);
    let values = |seed| -> Vec<f32> {
        let numbers = zoo::numbers(tokens * head_dim, seed);
        let kind = |token: usize| token * token * 7 % 211 % kinds;
        let of = |index: usize| numbers[kind(index / head_dim) * head_dim + index % head_dim];
        (0..tokens * head_dim).map(of).collect()
    };
    let of = |name, seed| zoo::tensor(name, Dtype::F16, &[1, tokens, head_dim], &values(seed));
    let source = folder.source(&[of("layer.0.key", 1), of("layer.0.value", 2)]);
    for (codec, least) in [
        ("int4-g64", 3.0),
        ("q4_0", 3.0),
        ("q8_0", 3.0),
        ("f16", 3.0),
        ("int5-g32-mid", 3.0),
        // Their means change from time to time.
        ("k:te26/v:te13", 1.5),
        ("k:tc19/v:tc16", 1.5),
    ] {
        let (_, plain, expected) = folder.there_and_back(&source, &plan(codec, false));
        let (made, packed, restored) = folder.there_and_back(&source, &plan(codec, true));
        assert!(restored == expected, "{codec}");
        let contents = inspect(&folder.path("packed"), true, &()).unwrap();
        assert_eq!(contents.format, "kvgauge-kv 10", "{codec}");
        println!("{codec}: {} of {} bytes", packed.len(), plain.len());
        assert!(made.packing_ratio().unwrap() > least, "{codec}: {:?}", made.packing_ratio());
    }
    // Zeros repeat too, and take less as they are.
    let zeros = |name| zoo::tensor(name, Dtype::F16, &[1, tokens, head_dim], &[0.0; 64_000]);
    let source = folder.source(&[zeros("a.key"), zeros("a.value")]);
    folder.there_and_back(&source, &plan("int4-g64", true));
    let contents = inspect(&folder.path("packed"), true, &()).unwrap();
    assert_eq!(contents.format, "kvgauge-kv 9");
}

/// A file of two packed tensors.
fn small(folder: &Folder) -> Vec<u8> {
    small_of(folder, "k:int4-g64/v:int5-g32")
}

fn small_of(folder: &Folder, codec: &str) -> Vec<u8> {
    let mut tensors = zoo::channels(96, 16);
    tensors.truncate(3);
    let source = folder.source(&tensors);
    folder.there_and_back(&source, &plan(codec, true)).1
}

/// The same with words, and with rows that repeat.
fn small_of_version_10(folder: &Folder) -> Vec<u8> {
    let shape = [1, 400, 16];
    let numbers = zoo::numbers(6400, 1);
    let again: Vec<f32> = (0..6400).map(|i| numbers[i / 16 % 41 * 16 + i % 16]).collect();
    let tensors = [
        zoo::tensor("layer.0.key", Dtype::F16, &shape, &numbers),
        zoo::tensor("layer.0.value", Dtype::F16, &shape, &again),
    ];
    let source = folder.source(&tensors);
    folder.there_and_back(&source, &plan("k:tc19/v:int4-g16", true)).1
}

#[track_caller]
fn assert_refused(folder: &Folder, bytes: &[u8], words: &str) {
    let (path, output) = (folder.path("forged"), folder.path("output"));
    fs::write(&path, bytes).unwrap();
    let results: [Result<()>; 2] =
        [decompress(&path, target(&output), &()).map(drop), inspect(&path, true, &()).map(drop)];
    for result in results {
        let error = result.expect_err(words);
        assert_eq!(error.kind(), Kind::Input, "{error}");
        assert!(error.to_string().contains(words), "{error}, not {words}");
    }
    assert!(!output.exists());
}

/// The manifest's text of the packed parts of a tensor.
fn packed_of(whole: &[u8], name: &str) -> (String, Vec<u64>) {
    let end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&whole[8..end]).unwrap();
    let own = header.split(&format!(r#"{{\"name\":\"{name}\""#)).nth(1).unwrap();
    let field = own.split_once(r#"\"packed\":"#).unwrap().1.split_once('}').unwrap().0;
    let list = field.split_once('[').unwrap().1.split_once(']').unwrap().0;
    (format!("{field}}}"), list.split(',').map(|bytes| bytes.parse().unwrap()).collect())
}

#[test]
fn forged_manifests() {
    let folder = Folder::new();
    let whole = small(&folder);
    let (field, bytes) = packed_of(&whole, "layer.0.key");
    let listed = |bytes: &[u64]| {
        let bytes: Vec<String> = bytes.iter().map(u64::to_string).collect();
        format!(r#"\"bytes\":[{}]"#, bytes.join(","))
    };
    let old = listed(&bytes);
    let mut cases = vec![
        (r#"\"version\":9"#.to_string(), r#"\"version\":1"#.to_string(), "version 1"),
        (r#"\"version\":9"#.into(), r#"\"version\":2"#.into(), "version 2"),
        (r#"\"version\":9"#.into(), r#"\"version\":7"#.into(), "version 7"),
        (field.clone(), "null".into(), "header"),
        (format!(r#",\"packed\":{field}"#), String::new(), "do not agree"),
        (old.clone(), listed(&bytes[1..]), "expected the bytes of 2 parts"),
        (old.clone(), listed(&[&bytes[..], &[0]].concat()), "expected the bytes of 2 parts"),
        (old.clone(), listed(&[0, 0]), "some of which are packed"),
        (
            r#"\"codec\":\"none\""#.into(),
            format!(r#"\"codec\":\"none\",\"packed\":{field}"#),
            "codec",
        ),
    ];
    // Lengths that no packed part has.
    for codes in [1, 23, 1536, 1537, u64::MAX, 1 << 63] {
        cases.push((old.clone(), listed(&[bytes[0], codes]), "packed to"));
    }
    // One that others would have to make room for.
    cases.push((old.clone(), listed(&[bytes[0], bytes[1] - 1]), "do not agree"));
    for (from, to, words) in cases {
        assert_refused(&folder, &forged(&whole, &from, &to), words);
    }
    let crc32 = field.split_once(r#"\"crc32\":\""#).unwrap().1[..8].to_string();
    let other = if crc32.starts_with('0') { "1" } else { "0" };
    let other = format!("{other}{}", &crc32[1..]);
    assert_refused(
        &folder,
        &forged(&whole, &crc32, &other),
        &format!("expected the checksum {other}"),
    );
}

/// With the packed codes of a tensor changed, and the checksum of what is stored put right.
fn with_codes(whole: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    with_codes_of(whole, "layer.0.key", change)
}

fn with_codes_of(whole: &[u8], tensor: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (header_len, header) = SafeTensors::read_metadata(whole).unwrap();
    let places = ["sinks", "scales", "codes"].map(|part| {
        let (start, end) = header.info(&format!("{tensor}.{part}"))?.data_offsets;
        Some(8 + header_len + start..8 + header_len + end)
    });
    let range = |part: usize| places[part].clone().unwrap_or_default();
    let crc32 = |bytes: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        (0..3).for_each(|part| hasher.update(&bytes[range(part)]));
        format!("{:08x}", hasher.finalize())
    };
    let mut bytes = whole.to_vec();
    change(&mut bytes[range(2)]);
    forged(&bytes, &crc32(whole), &crc32(&bytes))
}

#[test]
fn forged_blocks() {
    let folder = Folder::new();
    let whole = small(&folder);
    decompress(
        &{
            fs::write(folder.path("same"), with_codes(&whole, |_| {})).unwrap();
            folder.path("same")
        },
        target(&folder.path("same.out")),
        &(),
    )
    .unwrap();
    let number = |bytes: &mut [u8], back: usize, value: u32| {
        let at = bytes.len() - back;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    for (block, words) in [
        (0, "expected blocks of 1 to"),
        ((1 << 20) + 1, "expected blocks of 1 to"),
        (u32::MAX, "expected blocks of 1 to"),
        (1, "too few"),
        (1000, "expected"),
    ] {
        assert_refused(&folder, &with_codes(&whole, |bytes| number(bytes, 4, block)), words);
    }
    for (length, words) in [
        (0, "block 0: expected 1 to 1536 bytes"),
        (1537, "block 0: expected 1 to 1536 bytes"),
        (u32::MAX, "block 0: expected 1 to 1536 bytes"),
        (1, "expected"),
        (1536, "expected"),
    ] {
        assert_refused(&folder, &with_codes(&whole, |bytes| number(bytes, 8, length)), words);
    }
    for (at, value, words) in [
        (0, 1, "symbols of another size"),
        (0, 9, "a form of version 10"),
        (1, 0, "a period"),
        (2, 0xff, "a period"),
    ] {
        assert_refused(&folder, &with_codes(&whole, |bytes| bytes[at] = value), words);
    }
}

/// The forms of version 10: words, and rows that repeat.
#[test]
fn forged_blocks_of_version_10() {
    let folder = Folder::new();
    let whole = small_of_version_10(&folder);
    for (tensor, form) in [("layer.0.key", 19), ("layer.0.value", 128 + 4)] {
        with_codes_of(&whole, tensor, |bytes| assert_eq!(bytes[0], form));
    }
    let field = r#"\"version\":10"#;
    for (version, words) in [
        (9, "a form of version 10 in a file of an earlier one"),
        (8, "in a file of version 8"),
        (2, "in a file of version 2"),
        (11, "version 1 to 10"),
    ] {
        let other = format!(r#"\"version\":{version}"#);
        assert_refused(&folder, &forged(&whole, field, &other), words);
    }
    // In a file without packed parts.
    let source = folder.source(&zoo::channels(96, 16));
    let (_, plain, _) = folder.there_and_back(&source, &plan("k:tc19/v:int4-g16", false));
    assert_refused(&folder, &forged(&plain, r#"\"version\":2"#, field), "in a file of version 10");
    // The channels of words behind the period.
    for (at, value, words) in [
        (0, 18, "symbols of another size"),
        (0, 20, "symbols of another size"),
        (0, 127, "symbols of another size"),
        (1, 0, "a period"),
        (3, 0, "words of no block"),
        (3, 2, "words of no block"),
        (3, 18, "words of no block"),
        (3, 132, "words of no block"),
        (3, 28, "words that are cut"),
    ] {
        assert_refused(&folder, &with_codes(&whole, |bytes| bytes[at] = value), words);
    }
    // The bytes of a row, 8 of 3200, then a bit for each row, the first of which cannot repeat.
    for (at, value, words) in [
        (0, 128, "symbols of another size"),
        (0, 129, "symbols of another size"),
        (3, 0, "rows that are not its bytes"),
        (3, 7, "rows that are not its bytes"),
        (4, 1, "rows that are not its bytes"),
        (5, 1, "a row as one before its first"),
    ] {
        let change = |bytes: &mut [u8]| bytes[at] = value;
        assert_refused(&folder, &with_codes_of(&whole, "layer.0.value", change), words);
    }
}

/// The same with bytes of words and of rows that repeat.
#[test]
fn twenty_thousand_mutations_of_version_10() {
    let folder = Folder::new();
    let whole = small_of_version_10(&folder);
    mutations(&folder, &whole, &["layer.0.key", "layer.0.value"], 10);
}

/// Packed bytes with right checksums of what is stored: an error, or the same tensors; never a panic.
#[test]
fn twenty_thousand_mutations_of_packed_bytes() {
    let folder = Folder::new();
    let whole = small(&folder);
    mutations(&folder, &whole, &["layer.0.key"], 5);
}

/// `KVGAUGE_FUZZ_SECONDS=N` goes on for so long.
fn mutations(folder: &Folder, whole: &[u8], tensors: &[&str], seed: u64) {
    let (path, output) = (folder.path("mutated"), folder.path("output"));
    let expected = fs::read(folder.path("restored")).unwrap();
    let mut state = seed;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut last = 0;
    for round in rounds(20_000) {
        let tensor = tensors[round % tensors.len()];
        let bytes = with_codes_of(whole, tensor, |bytes| {
            for _ in 0..1 + round % 3 {
                let first = (round / tensors.len()).is_multiple_of(2);
                let len = if first { 200.min(bytes.len()) } else { bytes.len() };
                bytes[next(len)] = next(256) as u8;
            }
        });
        fs::write(&path, &bytes).unwrap();
        match decompress(&path, target(&output), &()) {
            // A frequency that is not used may be another.
            Ok(_) => assert!(fs::read(&output).unwrap() == expected, "mutation {round} passed"),
            Err(error) => assert_eq!(error.kind(), Kind::Input, "mutation {round}: {error}"),
        }
        last = round;
    }
    println!("{} mutations", last + 1);
}
