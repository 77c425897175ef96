//! The compressed file: what comes back, golden files, damage of every kind.

#[path = "common/folder.rs"]
mod folder;
#[path = "common/golden_files.rs"]
mod golden_files;
#[path = "common/zoo.rs"]
mod zoo;

use folder::names_in;
use golden_files::GoldenFiles;
use half::{bf16, f16};
use kvgauge::codec::{Codec, Element, Geometry, RotaryPairs, RotaryTable, TensorCodec};
use kvgauge::container::{
    self, AxisOrder, ExclusionReason, Layout, Plan, Report, RopeParameters, Summary, Target,
    TensorData, compress, decompress, read_file, write_file,
};
use kvgauge::error::{Kind, Result};
use kvgauge::whole_file::Existing;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zoo::{Dice, forged};

/// Restored files, and those they come from.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new file: some systems wait for the disk where one is written over.
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let _ = fs::remove_file(self.path(name));
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// A plain file of the zoo.
    fn zoo(&self) -> PathBuf {
        let path = self.path("zoo.safetensors");
        write_file(&path, &zoo::tensors(), Some(zoo::metadata())).unwrap();
        path
    }

    /// The zoo without tensors of one axis, of which nobody knows what it is.
    fn zoo_of_vectors(&self) -> PathBuf {
        let path = self.path("vectors.safetensors");
        let tensors: Vec<TensorData> =
            zoo::tensors().into_iter().filter(|tensor| tensor.shape.len() != 1).collect();
        write_file(&path, &tensors, Some(zoo::metadata())).unwrap();
        path
    }

    /// A plain file of tensors that every codec can store.
    fn even(&self) -> PathBuf {
        let path = self.path("even.safetensors");
        write_file(&path, &even_tensors(), Some(zoo::metadata())).unwrap();
        path
    }

    /// Of head vectors that version 5 knows.
    fn blocks(&self) -> PathBuf {
        let path = self.path("blocks.safetensors");
        write_file(&path, &block_tensors(), Some(zoo::metadata())).unwrap();
        path
    }

    /// Of several layers.
    fn layers(&self) -> PathBuf {
        let path = self.path("layers.safetensors");
        write_file(&path, &layer_tensors(), Some(zoo::metadata())).unwrap();
        path
    }

    /// Of head vectors that engines rotate.
    fn rotated(&self) -> PathBuf {
        let path = self.path("rotated.safetensors");
        let tensor =
            |name, dtype, seed| zoo::tensor(name, dtype, &[1, 2, 128], &zoo::numbers(256, seed));
        let tensors = [tensor("a.key", Dtype::F16, 1), tensor("a.value", Dtype::F32, 2)];
        write_file(&path, &tensors, Some(zoo::metadata())).unwrap();
        path
    }

    /// Of a tile of tokens and a few more.
    fn tiles(&self) -> PathBuf {
        let path = self.path("tiles.safetensors");
        let tensor = |name, dtype, seed| {
            zoo::tensor(name, dtype, &[2, 131, 8], &zoo::numbers(2 * 131 * 8, seed))
        };
        let tensors = [tensor("a.key", Dtype::F16, 1), tensor("a.value", Dtype::BF16, 2)];
        write_file(&path, &tensors, Some(zoo::metadata())).unwrap();
        path
    }

    /// Of tokens most of which are alike: first ones, so that two centres have nothing left of them.
    fn again(&self) -> PathBuf {
        let path = self.path("again.safetensors");
        let numbers = zoo::numbers(60 * 16, 1);
        let value = |(index, x): (usize, &f32)| if index / 16 % 3 == 1 { *x } else { 0.5 };
        let values: Vec<f32> = numbers.iter().enumerate().map(value).collect();
        let of = |name| zoo::tensor(name, Dtype::F16, &[1, 60, 16], &values);
        let mask = zoo::tensors().swap_remove(0);
        write_file(&path, &[of("layer.0.key"), of("layer.0.value"), mask], None).unwrap();
        path
    }

    /// Of channels that differ, as those of real caches do.
    fn channels(&self) -> PathBuf {
        let path = self.path("channels.safetensors");
        write_file(&path, &zoo::channels(48, 16), Some(zoo::metadata())).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        names_in(self.0.path())
    }
}

/// Head vectors of 3 · 4 · 5 values, which are one block.
fn block_tensors() -> Vec<TensorData<'static>> {
    let tensor = |name, dtype, seed| {
        zoo::tensor(name, dtype, &[2, 21, 60], &zoo::numbers(2 * 21 * 60, seed))
    };
    vec![tensor("a.key", Dtype::F16, 1), tensor("a.value", Dtype::BF16, 2)]
}

/// With even head vectors of one length: what every codec can store. Magnitudes that f16's scales
/// do not hold are among them, and tensors that some codecs or all leave as they are.
fn even_tensors() -> Vec<TensorData<'static>> {
    let tensor = |name, dtype, shape: &[usize], seed, by: f32| {
        let values = zoo::numbers(shape.iter().product(), seed);
        zoo::tensor(name, dtype, shape, &values.iter().map(|x| x * by).collect::<Vec<_>>())
    };
    vec![
        zoo::mask(),
        tensor("a.key", Dtype::F16, &[2, 12, 8], 1, 1.0),
        tensor("a.value", Dtype::BF16, &[2, 12, 8], 2, 1.0),
        tensor("b.key", Dtype::F32, &[3, 7, 8], 3, 1e30),
        tensor("b.value", Dtype::F32, &[3, 7, 8], 4, 1e-30),
        tensor("c.key", Dtype::BF16, &[2, 1, 2, 8], 5, 100.0),
        tensor("c.value", Dtype::F16, &[1, 8], 6, 1.0),
        tensor("d.key", Dtype::F16, &[2, 0, 8], 7, 1.0),
        tensor("d.value", Dtype::F16, &[2, 2, 8], 8, 0.0),
        // Neither key nor value, and nobody asks.
        tensor("scale", Dtype::F32, &[], 9, 1.0),
    ]
}

/// Keys and values of five layers, and what belongs to none.
fn layer_tensors() -> Vec<TensorData<'static>> {
    let dtypes = [Dtype::F16, Dtype::BF16, Dtype::F32];
    let tensor = |(layer, side): (usize, &str)| {
        let seed = 2 * layer as u64 + side.len() as u64;
        let (name, dtype) = (format!("layer.{layer}.{side}"), dtypes[layer % 3]);
        zoo::tensor(&name, dtype, &[2, 11, 8], &zoo::numbers(2 * 11 * 8, seed))
    };
    let both = (0..5).flat_map(|layer| [(layer, "key"), (layer, "value")]);
    [even_tensors().swap_remove(0)].into_iter().chain(both.map(tensor)).collect()
}

fn target(path: &Path) -> Target<'_> {
    Target { path, existing: Existing::Replace, sync: false }
}

fn plan(codec: &str) -> Plan {
    Plan { rope: Some(RopeParameters::of_theta(1e4)), ..Plan::all(codec.parse().unwrap()) }
}

fn pack(from: &Path, to: &Path, codec: &str) -> Result<Summary> {
    compress(from, Some(target(to)), &plan(codec), &())
}

/// The same, entropy-coded.
fn pack_tightly(from: &Path, to: &Path, codec: &str) -> Result<Summary> {
    compress(from, Some(target(to)), &Plan { pack: true, ..plan(codec) }, &())
}

fn unpack(from: &Path, to: &Path) -> Result<Summary> {
    decompress(from, target(to), &())
}

/// The contents of a plain file, as the safetensors library reads it.
type Held = (BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>, Vec<String>, BTreeMap<String, String>);

fn held(bytes: &[u8]) -> Option<Held> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let tensors = file.tensors().into_iter();
    let tensors = tensors
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Some((tensors.collect(), header.offset_keys(), metadata))
}

/// The decoded bytes of a tensor, by way of the codec in memory; one value, and what
/// would grow, stays as it is.
fn through(codec: TensorCodec, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    fn typed<T: Element>(codec: TensorCodec, geometry: &Geometry, bytes: &[u8]) -> Vec<u8> {
        let mut values = vec![T::default(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut::<T, u8>(&mut values).copy_from_slice(bytes);
        if values.len() == 1 {
            return bytes.to_vec();
        }
        let (payload, _) = codec.compress_measured(&values, geometry).unwrap();
        let stored: usize = payload.parts().iter().map(|part| part.content.len()).sum();
        if stored > bytes.len() {
            return bytes.to_vec();
        }
        payload.decompress(geometry, &mut values);
        bytemuck::cast_slice(&values).to_vec()
    }
    let geometry = Geometry::of_shape(shape);
    let rope =
        RotaryTable::new(&RotaryTable::frequencies_of(1e4, geometry.head_dim), geometry.tokens);
    let geometry = &Geometry { rope: Some(&rope), ..geometry };
    match dtype {
        Dtype::F16 => typed::<f16>(codec, geometry, bytes),
        Dtype::BF16 => typed::<bf16>(codec, geometry, bytes),
        Dtype::F32 => typed::<f32>(codec, geometry, bytes),
        _ => bytes.to_vec(),
    }
}

/// A restored file is the source with every float tensor put through the codec; dtypes, shapes,
/// order and metadata are the source's.
#[track_caller]
fn assert_restored(source: &[u8], restored: &[u8], codec: &str) {
    let (tensors, order, metadata) = held(source).expect("a source");
    let (found, found_order, found_metadata) = held(restored).expect("a restored file");
    // Tensors without data may lie anywhere between two others.
    let full = |order: Vec<String>| -> Vec<String> {
        order.into_iter().filter(|name| !tensors[name].2.is_empty()).collect()
    };
    assert_eq!(found.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
    assert_eq!(full(found_order), full(order));
    assert_eq!(found_metadata, metadata);
    let codec: Codec = codec.parse().unwrap();
    for (name, (dtype, shape, bytes)) in &tensors {
        let own = if name.contains("key") { codec.key } else { codec.value };
        let expected = through(own, *dtype, shape, bytes);
        assert_eq!(found[name], (*dtype, shape.clone(), expected), "{name}");
    }
}

#[test]
fn everything_comes_back() {
    let folder = Folder::new();
    let (zoo, vectors) = (folder.zoo(), folder.zoo_of_vectors());
    let (packed, restored) = (folder.path("packed"), folder.path("restored"));
    let flat =
        ["int4-g64", "int4-g8", "int4-g9", "int4-g100000", "f16", "k:int4-g32/v:f16", "q4_0"];
    let flat = flat.into_iter().chain(["fp8-e4m3", "k:int2-lm/v:f16", "int5-g32-mid-mse"]);
    let flat = flat.into_iter().chain(["fp8-e5m2-per-tensor", "mxfp4", "mxfp8", "nvfp4"]);
    let flat = flat.chain(["nvfp4-per-tensor", "hqq4"]);
    let tokens = [
        "fp8-per-token-head",
        "int8-per-token-head",
        "kivi4",
        "int3-g8-asym-ch-ctr-s8-sink2",
        "int4-g4294967295-sink4294967295",
    ];
    let all = flat.map(|codec| (&zoo, codec)).chain(tokens.map(|codec| (&vectors, codec)));
    for (source, codec) in all {
        let plan = plan(codec);
        let made = compress(source, Some(target(&packed)), &plan, &()).unwrap();
        let read = unpack(&packed, &restored).unwrap();
        assert_restored(&fs::read(source).unwrap(), &fs::read(&restored).unwrap(), codec);
        // The figures that decompression gives are those of compression, to the last bit.
        assert_eq!((made.quality, &made.codec), (read.quality, &read.codec));
        assert_eq!(made.original_bytes, fs::metadata(source).unwrap().len());
        assert_eq!(made.compressed_bytes, fs::metadata(&packed).unwrap().len());
        assert_eq!(made.bits_per_value(), read.bits_per_value());
        // Metrics alone are the same, and so are the bytes of another run.
        assert_eq!(compress(source, None, &plan, &()).unwrap(), made);
        let again = folder.path("again");
        compress(source, Some(target(&again)), &plan, &()).unwrap();
        assert_eq!(fs::read(&again).unwrap(), fs::read(&packed).unwrap());
    }
    assert_eq!(
        folder.names(),
        ["again", "packed", "restored", "vectors.safetensors", "zoo.safetensors"]
    );
}

#[test]
fn every_tensor_that_a_codec_can_rotate_comes_back() {
    let folder = Folder::new();
    let (source, packed, restored) =
        (folder.even(), folder.path("packed"), folder.path("restored"));
    for codec in
        FAMILY.iter().map(|(_, codec)| *codec).chain(["int4-g8-prerope", "turbo4", "kvarn4"])
    {
        let made = pack(&source, &packed, codec).unwrap();
        let read = unpack(&packed, &restored).unwrap();
        assert_restored(&fs::read(&source).unwrap(), &fs::read(&restored).unwrap(), codec);
        assert_eq!((made.quality, &made.codec), (read.quality, &read.codec));
        assert_eq!(made.bits_per_value(), read.bits_per_value());
    }
}

#[test]
fn what_a_codec_cannot_store_is_named() {
    let folder = Folder::new();
    let (source, packed) = (folder.even(), folder.path("packed"));
    let refused = |plan: Plan, words: &str| {
        let error = compress(&source, Some(target(&packed)), &plan, &()).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(Plan { rope: None, ..plan("int4-g8-prerope") }, "what the keys were rotated by");
    // Noise stores nothing, and is no codec.
    for noise in ["noise", "k:int4-g64/v:noise", "k:noise/v:f16"] {
        assert!(noise.parse::<Codec>().is_err(), "{noise}");
    }
    let odd = zoo::tensor("x.key", Dtype::F16, &[2, 3, 7], &zoo::numbers(42, 1));
    write_file(&source, &[odd], None).unwrap();
    refused(plan("int4-g8-had"), "tensor x.key: had: expected an even head vector, found 7");
    refused(plan("int4-g8-prerope"), "tensor x.key: prerope");
    let two = [("x.key", 8), ("y.key", 16)]
        .map(|(name, dim)| zoo::tensor(name, Dtype::F16, &[1, 2, dim], &zoo::numbers(2 * dim, 1)));
    write_file(&source, &two, None).unwrap();
    let of_file = |frequencies: &str| {
        let json = format!(r#"{{"rope_frequencies":[{frequencies}]}}"#);
        write_file(&source, &two, Some([("kvgauge.extract".to_string(), json)].into())).unwrap();
        Plan { rope: None, ..plan("int4-g8-prerope") }
    };
    refused(of_file("1,1,1,1"), "tensor y.key: prerope: expected a rotation of 8 values");
}

/// The sums come from the codec in pieces; one call over the whole tensor is the witness.
#[test]
fn figures_are_those_of_the_whole_tensor() {
    let folder = Folder::new();
    // Several pieces, none of whose borders is one of a head vector.
    let values = zoo::numbers(2_100_003, 1);
    let (path, packed) = (folder.path("long"), folder.path("packed"));
    write_file(&path, &[zoo::tensor("x", Dtype::F16, &[2_100_003], &values)], None).unwrap();
    for (shape, head_dim) in [(vec![2_100_003], 2_100_003), (vec![2_100_003, 1], 1)] {
        write_file(&path, &[zoo::tensor("x", Dtype::F16, &shape, &values)], None).unwrap();
        for codec in ["int4-g64", "int4-g48", "int4-g31", "f16"] {
            let summary = pack(&path, &packed, codec).unwrap();
            let halves: Vec<f16> = values.iter().map(|x| f16::from_f32(*x)).collect();
            let codec: Codec = codec.parse().unwrap();
            let (_, sum) =
                codec.key.compress_measured(&halves, &Geometry::rows(1, head_dim)).unwrap();
            let (found, expected) = (summary.quality, sum.finish());
            for (found, expected) in [
                (found.rmse, expected.rmse),
                (found.snr_db, expected.snr_db),
                (found.cosine_similarity, expected.cosine),
            ] {
                let close = match (found, expected) {
                    (Some(found), Some(expected)) => (found - expected).abs() <= 1e-7 * expected,
                    (found, expected) => found == expected,
                };
                assert!(close, "{codec}: {found:?} {expected:?}");
            }
        }
    }
}

#[test]
fn tensors_one_by_one() {
    let folder = Folder::new();
    let (source, packed) = (folder.zoo(), folder.path("packed"));
    pack(&source, &packed, "int4-g64").unwrap();
    let (plain, compressed) = (read_file(&source).unwrap(), read_file(&packed).unwrap());
    assert_eq!(plain.names().collect::<Vec<_>>(), compressed.names().collect::<Vec<_>>());
    assert_eq!(plain.metadata(), Some(&zoo::metadata()));
    assert_eq!(compressed.metadata(), Some(&zoo::metadata()));
    for TensorData { name, dtype, shape, data } in zoo::tensors() {
        assert_eq!(compressed.info(&name), Some((dtype, &shape[..])), "{name}");
        if !matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32) {
            let error = compressed.get_tensor_f32(&name).unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains("found"), "{error}");
            continue;
        }
        let widen = |bytes: &[u8]| -> Vec<f32> {
            match dtype {
                Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                Dtype::F16 => {
                    bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
                }
                _ => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            }
        };
        assert_eq!(plain.get_tensor_f32(&name).unwrap(), widen(&data), "{name}");
        let decoded = through(TensorCodec::int4(64), dtype, &shape, &data);
        assert_eq!(compressed.get_tensor_f32(&name).unwrap(), widen(&decoded), "{name}");
        if shape.is_empty() {
            assert_eq!(decoded, *data, "a scalar is no cache");
        }
    }
    assert!(plain.get_tensor_f32("absent").unwrap_err().to_string().contains("absent: missing"));
}

#[test]
fn what_is_selected_is_compressed() {
    let folder = Folder::new();
    let source = folder.zoo();
    let select = |include: &[&str], exclude: &[&str]| -> Vec<String> {
        let patterns =
            |globs: &[&str]| globs.iter().map(|glob| glob::Pattern::new(glob).unwrap()).collect();
        let plan =
            Plan { include: patterns(include), exclude: patterns(exclude), ..plan("int4-g32") };
        let tensors = compress(&source, None, &plan, &()).unwrap().tensors;
        tensors.into_iter().filter(|t| t.codec.is_some()).map(|t| t.name).collect()
    };
    assert_eq!(select(&["layer.*"], &[]).len(), 4);
    assert_eq!(select(&["layer.*"], &["*.value", "*1*"]), ["layer.0.key"]);
    assert_eq!(select(&["ids", "one.*", "x.*"], &[]), ["x.key"]);
    assert_eq!(select(&[], &["*"]), [""; 0]);
    let typo = vec![glob::Pattern::new("nosuch*").unwrap()];
    for (flag, plan) in [
        ("--include", Plan { include: typo.clone(), ..plan("int4-g32") }),
        ("--exclude", Plan { exclude: typo.clone(), ..plan("int4-g32") }),
    ] {
        let error = compress(&source, None, &plan, &()).unwrap_err().to_string();
        assert!(error.contains(&format!("{flag} nosuch*: no tensor")), "{error}");
    }
}

/// Tensors that are no cache, that would grow, and that a codec cannot make sense of.
#[test]
fn tensors_that_stay_as_they_are() {
    let folder = Folder::new();
    let (source, packed, restored) = (folder.path("a"), folder.path("b"), folder.path("c"));
    let tensor = |name: &str, dtype, shape: &[usize]| {
        let values = zoo::numbers(shape.iter().product(), 1);
        zoo::tensor(name, dtype, shape, &values)
    };
    let cache = tensor("layers.0.key", Dtype::F16, &[2, 9, 16]);
    for (codec, other, left) in [
        ("int4-g64", tensor("k_scale", Dtype::F32, &[]), ExclusionReason::OneValue),
        ("int4-g64", tensor("k_scale", Dtype::F32, &[1]), ExclusionReason::OneValue),
        ("int4-g64", tensor("x", Dtype::BF16, &[1, 1, 1]), ExclusionReason::OneValue),
        ("f16", tensor("k_scale", Dtype::F32, &[]), ExclusionReason::OneValue),
        ("kvgauge4", tensor("k_scale", Dtype::F32, &[]), ExclusionReason::OneValue),
        ("k:int4-g32/v:f16", tensor("scale", Dtype::F32, &[]), ExclusionReason::OneValue),
        // One token alone, whose parts have a scale and a minimum each.
        ("int8-g8-asym", tensor("x.key", Dtype::F16, &[1, 1, 3]), ExclusionReason::Grows),
        ("int8-g8-ch-ctr", tensor("x.key", Dtype::F16, &[2, 1, 64]), ExclusionReason::Grows),
        ("int8-g8-asym-ch", tensor("x.key", Dtype::BF16, &[4, 1, 32]), ExclusionReason::Grows),
        ("int4-g8-ctr-sink4", tensor("x.key", Dtype::F16, &[1, 4, 8]), ExclusionReason::Grows),
        (
            "int4-g64",
            TensorData { dtype: Dtype::F8_E4M3, ..bytes("x.key", &[2, 8]) },
            ExclusionReason::Type,
        ),
        (
            "int4-g64",
            TensorData { dtype: Dtype::U8, ..bytes("x.key", &[2, 8]) },
            ExclusionReason::Type,
        ),
    ] {
        let what = format!("{codec} of {:?} {:?}", other.dtype, other.shape);
        write_file(&source, &[cache.clone(), other.clone()], None).unwrap();
        let summary = pack(&source, &packed, codec).unwrap();
        let (compressed, kept) = (&summary.tensors[0], &summary.tensors[1]);
        let (compressed, kept) =
            if compressed.name == other.name { (kept, compressed) } else { (compressed, kept) };
        assert_eq!((kept.codec, kept.excluded), (None, Some(left)), "{what}");
        assert!(compressed.codec.is_some() && compressed.excluded.is_none(), "{what}");
        // Figures are of what was compressed, alone.
        assert_eq!(summary.quality.rmse, compressed.distortion.rmse, "{what}");
        let bits = 8.0 * compressed.stored_bytes as f64 / compressed.values() as f64;
        assert_eq!(summary.bits_per_value(), Some(bits), "{what}");
        unpack(&packed, &restored).unwrap();
        let (tensors, ..) = held(&fs::read(&restored).unwrap()).unwrap();
        assert_eq!(tensors[&other.name].2, *other.data, "{what}");
        // Alone: nothing was measured.
        write_file(&source, &[other], None).unwrap();
        let summary = pack(&source, &packed, codec).unwrap();
        assert_eq!((summary.quality.rmse, summary.bits_per_value()), (None, None), "{what}");
    }
    // As large as before is not larger: f16 is a control, and bf16 in it is as long.
    write_file(&source, &[tensor("x.key", Dtype::BF16, &[2, 8])], None).unwrap();
    assert!(pack(&source, &packed, "f16").unwrap().tensors[0].codec.is_some());
}

fn bytes(name: &str, shape: &[usize]) -> TensorData<'static> {
    let data = vec![0x38; shape.iter().product()];
    TensorData { name: name.into(), dtype: Dtype::U8, shape: shape.to_vec(), data: data.into() }
}

/// A codec that looks at tokens or head vectors, and one axis of which nobody knows what it is.
#[test]
fn one_axis_is_neither_tokens_nor_channels() {
    let folder = Folder::new();
    let (source, packed) = (folder.path("a"), folder.path("b"));
    write_file(&source, &[zoo::tensor("x.key", Dtype::F16, &[4096], &zoo::numbers(4096, 1))], None)
        .unwrap();
    for codec in [
        "kvgauge4",
        "kivi4",
        "turbo4",
        "tc16",
        "int4-g64-ctr",
        "int4-g64-sink1",
        "int8-per-token-head",
        "kvarn4",
        "turboquant-v4",
    ]
    .into_iter()
    .chain(["int4-g64-ch", "int4-g64-prerope", "int4-g64-had"])
    {
        let error = pack(&source, &packed, codec).unwrap_err();
        let text = error.to_string();
        let expected = "expected [tokens, head_dim] or more axes, found shape [4096]";
        assert!(text.contains("tensor x.key: codec") && text.contains(expected), "{text}");
        assert!(error.hint_text().unwrap().contains("--exclude"), "{codec}");
    }
    assert!(!packed.exists());
    for codec in ["int4-g64", "q4_0", "quanto4", "fp8-e4m3", "int5-g32-lm-mse-s8", "f16", "nvfp4"] {
        pack(&source, &packed, codec).unwrap();
    }
    // A tensor in the way can be left out.
    let cache = zoo::tensor("y.key", Dtype::F16, &[2, 9, 8], &zoo::numbers(144, 1));
    let scales = zoo::tensor("scales", Dtype::F32, &[32], &zoo::numbers(32, 1));
    write_file(&source, &[cache, scales], None).unwrap();
    assert!(pack(&source, &packed, "tc16").unwrap_err().to_string().contains("tensor scales"));
    let plan = Plan { exclude: vec![glob::Pattern::new("scales").unwrap()], ..plan("tc16") };
    let summary = compress(&source, None, &plan, &()).unwrap();
    assert_eq!(summary.tensors.iter().filter(|t| t.codec.is_some()).count(), 1);
}

#[test]
fn files_without_values() {
    let folder = Folder::new();
    let (source, packed, restored) = (folder.path("a"), folder.path("b"), folder.path("c"));
    for tensors in [
        vec![],
        vec![zoo::tensor("empty", Dtype::F16, &[3, 0, 64], &[])],
        vec![zoo::tensor("empty", Dtype::F16, &[1 << 61, 0], &[])],
        vec![zoo::tensor("empty", Dtype::F32, &[0], &[]), zoo::tensor("e", Dtype::BF16, &[0], &[])],
    ] {
        write_file(&source, &tensors, None).unwrap();
        let summary = pack(&source, &packed, "int4-g64").unwrap();
        let none = (summary.quality.rmse, summary.quality.snr_db, summary.bits_per_value());
        assert_eq!(none, (None, None, None));
        unpack(&packed, &restored).unwrap();
        assert_eq!(fs::read(&restored).unwrap(), fs::read(&source).unwrap());
    }
    // As many tokens as a shape can name, and none of them there.
    for shape in [[0, 1 << 40, 8], [1 << 40, 0, 8], [0, 0, 8]] {
        write_file(&source, &[zoo::tensor("x.key", Dtype::F16, &shape, &[])], None).unwrap();
        for codec in [
            "int4-g8-prerope-ctr-had-sink4",
            "int3-g8-asym-ch-s8",
            "fp8-e4m3",
            "fp8-per-token-head",
            "nvfp4-per-tensor",
        ] {
            pack(&source, &packed, codec).unwrap();
            unpack(&packed, &restored).unwrap();
            assert_eq!(fs::read(&restored).unwrap(), fs::read(&source).unwrap());
        }
    }
}

#[test]
fn ten_thousand_small_tensors() {
    let folder = Folder::new();
    let (source, packed, restored) = (folder.path("a"), folder.path("b"), folder.path("c"));
    let one = |i: usize| {
        let values = zoo::numbers(i % 100, i as u64);
        zoo::tensor(&format!("t{}", i * 7919 % 10_000), Dtype::F16, &[i % 100], &values)
    };
    let tensors: Vec<TensorData> = (0..10_000).map(one).collect();
    write_file(&source, &tensors, None).unwrap();
    pack(&source, &packed, "int4-g64").unwrap();
    unpack(&packed, &restored).unwrap();
    assert_restored(&fs::read(&source).unwrap(), &fs::read(&restored).unwrap(), "int4-g64");
}

#[test]
fn values_that_are_no_numbers_name_tensor_and_index() {
    let folder = Folder::new();
    let (source, packed) = (folder.path("a"), folder.write("b", b"old"));
    for (dtype, bad) in
        [(Dtype::F16, f32::NAN), (Dtype::BF16, f32::INFINITY), (Dtype::F32, f32::NEG_INFINITY)]
    {
        for index in [0, 63, 64, 131_072, 1_048_576, 1_100_008] {
            let mut values = vec![0.5; 1_100_009];
            values[index] = bad;
            let fine = zoo::tensor("fine", Dtype::F16, &[64], &[1.0; 64]);
            write_file(&source, &[fine, zoo::tensor("x.y", dtype, &[1_100_009], &values)], None)
                .unwrap();
            for codec in ["int4-g64", "f16"] {
                let error = pack(&source, &packed, codec).unwrap_err();
                let (text, kind) = (error.to_string(), error.kind());
                assert!(
                    text.contains(&format!("tensor x.y: index {index}: expected a finite")),
                    "{text}"
                );
                assert_eq!(kind, Kind::Input);
            }
        }
    }
    assert_eq!(fs::read(&packed).unwrap(), b"old");
    assert_eq!(folder.names(), ["a", "b"]);
}

/// Golden files of version 2, which between them have every part and every kind of levels.
const FAMILY: [(&str, &str); 6] = [
    (
        "v2-vectors-all-parts",
        "k:int3-g8-asym-ch-prerope-ctr-had-s8-sink2/v:int5-g24-lm-had-mse-sink1",
    ),
    ("v2-vectors-kivi4", "kivi4"),
    ("v2-vectors-ggml", "k:q4_0/v:iq4_nl"),
    ("v2-vectors-turbo4", "k:turbo4/v:int6-g9-ext-ctr"),
    ("v2-vectors-prerope", "int7-g16-mid-prerope-mse"),
    ("v2-shaped-kvgauge4", "kvgauge4"),
];

/// Of writers that compressed scalars, tensors that grew by it, and single axes as if they were
/// head vectors; of one that shaped errors of heads of 64 and 128 only; of those that called
/// fp8-e4m3 what is fp8-e4m3-per-tensor; and of one that packed words byte by byte, and blocks that were no
/// whole head vectors.
const OF_FORMER_WRITERS: [&str; 13] = [
    "v1-int4-g64",
    "v1-mixed",
    "v2-all-parts",
    "v2-kivi4",
    "v2-ggml",
    "v2-floats",
    "v2-turbo4",
    "v2-prerope",
    "v2-kvgauge4",
    "v2-vectors-kvgauge4",
    "v2-vectors-floats",
    "v9-packed-fields",
    "v9-packed-kvgauge4",
];

/// Of version 5: blocks of two centres of other sizes than powers of two.
const BLOCKS: [(&str, &str); 1] = [("v5-blocks-kvgauge4", "kvgauge4")];

/// Of version 6: scales in the formats of other engines.
const ENGINES: [(&str, &str); 6] = [
    ("v6-fp8", "k:fp8-e4m3/v:fp8-e5m2-per-tensor"),
    ("v6-per-token-head", "k:fp8-per-token-head/v:int8-per-token-head"),
    ("v6-mx", "k:mxfp4/v:mxfp8"),
    ("v6-nvfp4", "k:nvfp4-per-tensor/v:nvfp4"),
    ("v6-zero-point", "k:int4-per-token-head/v:mlx3"),
    ("v6-affine", "k:mlx8/v:quanto2"),
];

/// Of version 7: codecs by layer.
const LAYERS: (&str, &str) =
    ("v7-layers", "kvgauge4+q8_0@0,-1+k:int3-g8-asym-ch/v:f16@1+fp8-e4m3@2");
/// Of version 8: codes that go by a trellis.
const TRELLISES: [(&str, &str); 3] = [
    ("v8-kvgauge3", "kvgauge3"),
    ("v8-kvgauge2", "kvgauge2"),
    ("v8-layers", "kvgauge2+k:te24-prerope/v:te26@1"),
];
/// Of version 6: rotations of engines.
const ROTATIONS: [(&str, &str); 2] =
    [("v6-rotated", "q5_1-had"), ("v6-rotated-32", "k:exllamav3-3/v:iq4_nl-had64")];

/// Of version 9: packed parts.
const PACKED: [(&str, &str); 2] = [("v9-packed-int4", "int4-g64"), ("v9-packed-f16", "f16")];
/// Of version 10: packed parts with words and with rows that repeat.
const PACKED_NEWER: [(&str, &str); 2] =
    [("v10-packed-kvgauge4", "kvgauge4+q8_0@1"), ("v10-packed-rows", "k:tc19/v:int4-g16")];

/// Of version 10: tiles of tokens, and zero points that are no whole numbers; the last one is packed.
const TILES: [(&str, &str); 3] =
    [("v10-kvarn", "kvarn-k4v2"), ("v10-hqq", "k:hqq4/v:hqq2"), ("v10-packed", "k:kvarn3/v:hqq4")];
/// Of version 10: TurboQuant as vLLM has it, and rotated blocks of few bits.
const NEWER: [(&str, &str); 3] = [
    ("v10-turboquant", "turboquant-k3v4-nc"),
    ("v10-rotated", "k:q3_0-had/v:q2_1-had64"),
    ("v10-scale", "k:fp8-e4m3-scale0.05/v:fp8-e5m2-scale3"),
];

/// Every later version must read the files of every earlier one.
#[test]
fn golden_files() {
    let folder = Folder::new();
    let (zoo, even) = (folder.zoo(), folder.even());
    let first = [("v1-scalars-int4-g64", "int4-g64"), ("v1-scalars-mixed", "k:int4-g9/v:f16")];
    let now = folder.path("now");
    let mut golden = GoldenFiles::default();
    let blocks = folder.blocks();
    let made_today = first.map(|x| (&zoo, x)).into_iter().chain(FAMILY.map(|x| (&even, x)));
    let made_today = made_today.chain(BLOCKS.map(|x| (&blocks, x)));
    let made_today = made_today.chain(ENGINES.map(|x| (&even, x)));
    let layers = folder.layers();
    let made_today = made_today.chain([(&layers, LAYERS)]);
    let made_today =
        made_today.chain([(&even, TRELLISES[0]), (&blocks, TRELLISES[1]), (&layers, TRELLISES[2])]);
    let rotated = folder.rotated();
    let made_today = made_today.chain(ROTATIONS.map(|x| (&rotated, x)));
    let tiles = folder.tiles();
    let made_today = made_today.chain([(&tiles, TILES[0]), (&rotated, TILES[1])]);
    for (source, (name, codec)) in made_today {
        pack(source, &now, codec).unwrap();
        golden.is_written(name, &now);
    }
    for (name, codec) in NEWER {
        pack(&rotated, &now, codec).unwrap();
        golden.is_written(name, &now);
    }
    let channels = folder.channels();
    for (name, codec) in PACKED {
        pack_tightly(&channels, &now, codec).unwrap();
        golden.is_written(name, &now);
    }
    let (name, codec) = TILES[2];
    pack_tightly(&tiles, &now, codec).unwrap();
    golden.is_written(name, &now);
    let (name, codec) = TILES[2];
    pack_tightly(&tiles, &now, codec).unwrap();
    golden.is_written(name, &now);
    let again = folder.again();
    for ((name, codec), source) in PACKED_NEWER.into_iter().zip([&channels, &again]) {
        pack_tightly(source, &now, codec).unwrap();
        golden.is_written(name, &now);
    }
    OF_FORMER_WRITERS.into_iter().for_each(|name| golden.is_read(name));
    golden.were_there();
}

/// Every way there is to read a compressed file.
fn readers(path: &Path, output: &Path) -> [Result<()>; 4] {
    let one_by_one = || {
        let file = read_file(path)?;
        for name in file.names() {
            if matches!(file.info(name), Some((Dtype::F16 | Dtype::BF16 | Dtype::F32, _))) {
                file.get_tensor_f32(name)?;
            }
        }
        Ok(())
    };
    [
        unpack(path, output).map(drop),
        one_by_one(),
        container::inspect(path, true, &()).map(drop),
        pack(path, output, "int4-g64").map(drop),
    ]
}

/// A small compressed file: every kind of tensor is in it.
fn small_packed(folder: &Folder) -> Vec<u8> {
    let path = folder.path("small");
    let keep = ["mask", "layer.0.key", "one.key", "tiny.value", "layer.1.value", "x.key"];
    let tensors: Vec<TensorData> =
        zoo::tensors().into_iter().filter(|t| keep.contains(&t.name.as_str())).collect();
    write_file(&path, &tensors, Some(zoo::metadata())).unwrap();
    let packed = folder.path("small.kvc");
    pack(&path, &packed, "int4-g32").unwrap();
    fs::read(packed).unwrap()
}

/// The same of version 2: every part is in it.
fn small_family(folder: &Folder) -> Vec<u8> {
    let (path, packed) = (folder.path("small"), folder.path("small.kvc"));
    let keep = ["mask", "a.key", "a.value"];
    let tensors: Vec<TensorData> =
        even_tensors().into_iter().filter(|t| keep.contains(&t.name.as_str())).collect();
    write_file(&path, &tensors, None).unwrap();
    pack(&path, &packed, FAMILY[0].1).unwrap();
    fs::read(packed).unwrap()
}

/// The same of version 3: keys and values in one tensor, heads behind their tokens.
fn small_layout(folder: &Folder) -> Vec<u8> {
    let (path, packed) = (folder.path("small"), folder.path("small.kvc"));
    let tensors = [
        zoo::tensor("cache", Dtype::F16, &[7, 2, 3, 8], &zoo::numbers(336, 1)),
        even_tensors().swap_remove(0),
    ];
    write_file(&path, &tensors, None).unwrap();
    let layout = Layout { order: AxisOrder::TokensHeadsDim, kv_axis: Some(1), head_dim: None };
    let plan = Plan { layout, ..plan("k:int3-g8-asym-ch-prerope-sink1/v:int4-g16") };
    compress(&path, Some(target(&packed)), &plan, &()).unwrap();
    fs::read(packed).unwrap()
}

/// The same of version 4: two rotary embeddings, each over a part of the head.
fn small_rotary(folder: &Folder) -> Vec<u8> {
    let (path, packed) = (folder.path("small"), folder.path("small.kvc"));
    let tensors = [
        zoo::tensor("a.key", Dtype::F16, &[1, 5, 8], &zoo::numbers(40, 1)),
        zoo::tensor("b.key", Dtype::F16, &[1, 4, 16], &zoo::numbers(64, 2)),
        even_tensors().swap_remove(0),
    ];
    write_file(&path, &tensors, None).unwrap();
    let pairs = RotaryPairs::Neighbours;
    let rope = Some(RopeParameters { theta: 1e4, channels: Some(4), pairs });
    let plan = Plan { rope, ..plan("k:int4-g8-ch-prerope/v:f16") };
    compress(&path, Some(target(&packed)), &plan, &()).unwrap();
    fs::read(packed).unwrap()
}

/// The same of `codec`: keys and values of one head, [tokens, dim].
fn small_pair(folder: &Folder, codec: &str, [key, value]: [[usize; 2]; 2]) -> Vec<u8> {
    let (path, packed) = (folder.path("small"), folder.path("small.kvc"));
    let tensor = |name, dtype, [tokens, dim]: [usize; 2], seed| {
        zoo::tensor(name, dtype, &[1, tokens, dim], &zoo::numbers(tokens * dim, seed))
    };
    let tensors = [
        tensor("a.key", Dtype::F16, key, 1),
        tensor("a.value", Dtype::F32, value, 2),
        even_tensors().swap_remove(0),
    ];
    write_file(&path, &tensors, None).unwrap();
    pack(&path, &packed, codec).unwrap();
    fs::read(packed).unwrap()
}

/// The same of version 6: `codec` of few values.
fn small_engines(folder: &Folder, codec: &str) -> Vec<u8> {
    small_pair(folder, codec, [[3, 16]; 2])
}

/// One of each version, and of the sixth one with every part; the tenth has no part of its own.
fn small(folder: &Folder) -> Vec<Vec<u8>> {
    let mut all = vec![
        small_packed(folder),
        small_family(folder),
        small_layout(folder),
        small_rotary(folder),
    ];
    let codecs = [
        "k:nvfp4-per-tensor/v:mxfp4",
        "k:fp8-e4m3/v:int8-per-token-head",
        "k:int4-per-token-head/v:mlx3",
        "turboquant-3bit-nc",
    ];
    all.extend(codecs.map(|codec| small_engines(folder, codec)));
    all.push(small_layers(folder));
    all.push(small_trellis(folder));
    all.push(small_tiles(folder));
    all.push(small_tight(folder));
    all.push(small_newer(folder));
    all
}

/// The same of version 8: codes that go by a trellis.
fn small_trellis(folder: &Folder) -> Vec<u8> {
    small_pair(folder, "kvgauge2", [[3, 16], [4, 12]])
}

/// The same of version 10: a tile and a token of keys, zero points of values.
fn small_tiles(folder: &Folder) -> Vec<u8> {
    small_pair(folder, "k:kvarn2/v:hqq4", [[129, 2], [9, 8]])
}

/// The same of version 9: parts that are packed, and some that are not.
fn small_tight(folder: &Folder) -> Vec<u8> {
    let (path, packed) = (folder.path("small"), folder.path("small.kvc"));
    let keep = ["mask", "layer.0.key", "layer.0.value"];
    let tensors: Vec<TensorData> = (zoo::channels(48, 16).into_iter())
        .filter(|tensor| keep.contains(&tensor.name.as_str()))
        .collect();
    write_file(&path, &tensors, None).unwrap();
    let summary = pack_tightly(&path, &packed, "k:int4-g64/v:int3-g32-mid-sink1").unwrap();
    assert!(summary.packing_ratio().is_some());
    fs::read(packed).unwrap()
}

/// The same of version 10: words, and rows that repeat.
fn small_newer(folder: &Folder) -> Vec<u8> {
    let packed = folder.path("small.kvc");
    pack_tightly(&folder.again(), &packed, PACKED_NEWER[1].1).unwrap();
    let contents = container::inspect(&packed, true, &()).unwrap();
    assert_eq!(contents.format, "kvgauge-kv 10");
    let whole = fs::read(packed).unwrap();
    let file = SafeTensors::deserialize(&whole).unwrap();
    let form = |name| file.tensor(name).unwrap().data()[0];
    assert_eq!(["layer.0.key.codes", "layer.0.value.codes"].map(form), [128 + 19, 128 + 4]);
    whole
}

/// The same of version 7: a codec for each of two layers.
fn small_layers(folder: &Folder) -> Vec<u8> {
    let (path, packed) = (folder.path("small"), folder.path("small.kvc"));
    let keep = ["mask", "layer.0.key", "layer.1.value"];
    let tensors: Vec<TensorData> =
        layer_tensors().into_iter().filter(|t| keep.contains(&t.name.as_str())).collect();
    write_file(&path, &tensors, None).unwrap();
    pack(&path, &packed, "q4_0+k:f16/v:mxfp4@-1").unwrap();
    fs::read(packed).unwrap()
}

/// By all readers; the second, which takes one tensor at a time, only where `floats` says that
/// one of those is damaged.
#[track_caller]
fn assert_refused(folder: &Folder, bytes: &[u8], floats: bool, what: impl Fn() -> String) {
    let (path, output) = (folder.write("damaged", bytes), folder.path("output"));
    for (reader, result) in readers(&path, &output).into_iter().enumerate() {
        match result {
            Ok(()) if reader == 1 && !floats => {}
            Ok(()) => panic!("{}: passed reader {reader}", what()),
            Err(error) => assert_eq!(error.kind(), Kind::Input, "{}: {error}", what()),
        }
    }
    assert!(!output.exists(), "{}", what());
}

/// The bytes of the small file that belong to no float tensor: those of its mask.
fn mask_bytes(whole: &[u8]) -> std::ops::Range<usize> {
    let (_, header) = SafeTensors::read_metadata(whole).unwrap();
    let data = whole.len() - header.data_len();
    let (start, end) = header.info("mask").unwrap().data_offsets;
    assert_eq!(&whole[data + start..data + end], [1, 0, 1]);
    data + start..data + end
}

#[test]
fn a_cut_anywhere_is_an_error() {
    let folder = Folder::new();
    for whole in small(&folder) {
        for len in 0..whole.len() {
            assert_refused(&folder, &whole[..len], true, || format!("cut to {len} bytes"));
        }
        assert_refused(&folder, &[&whole[..], &[0]].concat(), true, || "a byte more".into());
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let folder = Folder::new();
    for whole in small(&folder) {
        let mask = mask_bytes(&whole);
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let floats = !mask.contains(&(bit / 8));
            let what = || format!("bit {} of byte {}", bit % 8, bit / 8);
            assert_refused(&folder, &bytes, floats, what);
        }
    }
}

impl Dice {
    /// Changed in one to three places: bits, bytes, runs, numbers in the header.
    fn damage(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        for _ in 0..1 + self.below(3) {
            // As often in the header as in the rest.
            let len = if self.below(2) == 0 { header.min(bytes.len()) } else { bytes.len() };
            let at = self.below(len);
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(8) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 => drop(bytes.drain(at.min(end)..end)),
                3 => {
                    let run: Vec<u8> = bytes[at.min(end)..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, run);
                }
                4 => bytes.truncate(at),
                5 if !bytes.is_empty() => {
                    let (a, b) = (self.below(bytes.len()), self.below(bytes.len()));
                    bytes.swap(a, b);
                }
                6 => {
                    let digits: Vec<usize> =
                        (0..len.min(bytes.len())).filter(|i| bytes[*i].is_ascii_digit()).collect();
                    if !digits.is_empty() {
                        let digit = digits[self.below(digits.len())];
                        bytes[digit] = b'0' + self.below(10) as u8;
                    }
                }
                _ if bytes.len() >= 8 => bytes[self.below(8)] = self.below(256) as u8,
                _ => {}
            }
        }
        bytes
    }
}

#[test]
fn ten_thousand_mutations_of_a_compressed_file() {
    let folder = Folder::new();
    let wholes = small(&folder);
    let mut dice = Dice(20);
    for round in 0..10_000 {
        let whole = &wholes[round % wholes.len()];
        let bytes = dice.damage(whole);
        if bytes != *whole {
            // As far as it goes: the mask alone may be what was changed.
            assert_refused(&folder, &bytes, false, || format!("mutation {round}"));
        }
    }
}

#[test]
fn ten_thousand_mutations_of_a_plain_file() {
    let folder = Folder::new();
    let whole = fs::read(folder.zoo()).unwrap();
    let (packed, restored) = (folder.path("packed"), folder.path("restored"));
    let (mut dice, mut passed, mut refused) = (Dice(7), 0, 0);
    for round in 0..10_000 {
        let bytes = dice.damage(&whole);
        let path = folder.write("mutated", &bytes);
        for old in [&packed, &restored] {
            let _ = fs::remove_file(old);
        }
        match pack(&path, &packed, "int4-g32") {
            Err(error) => {
                assert_eq!(error.kind(), Kind::Input, "mutation {round}: {error}");
                refused += 1;
            }
            Ok(_) => {
                unpack(&packed, &restored).unwrap();
                assert_restored(&bytes, &fs::read(&restored).unwrap(), "int4-g32");
                passed += 1;
            }
        }
    }
    assert!(passed > 500 && refused > 500, "{passed} passed, {refused} refused");
}

/// The file changes under the run, once its header was read.
struct Meddler<'a>(&'a Path, &'a Change);

type Change = dyn Fn(&fs::File) + Sync;

impl Report for Meddler<'_> {
    fn begin(&self, _: u64) {
        (self.1)(&fs::File::options().write(true).open(self.0).unwrap());
    }
}

#[test]
fn an_input_that_changes_while_it_is_read_is_an_error() {
    let folder = Folder::new();
    let (source, packed) = (folder.zoo(), folder.path("packed"));
    let output = folder.write("output", b"old");
    pack(&source, &packed, "int4-g64").unwrap();
    let shrink: &Change = &|file| {
        file.set_len(file.metadata().unwrap().len() - 200).unwrap();
    };
    let grow: &Change = &|file| {
        file.set_len(file.metadata().unwrap().len() + 1).unwrap();
    };
    let rewrite: &Change = &|file| {
        // Same size; times are as fine as the system's clock ticks.
        std::thread::sleep(std::time::Duration::from_millis(30));
        file.set_len(file.metadata().unwrap().len()).unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
    };
    for change in [shrink, grow, rewrite] {
        for (input, compressing) in [(&source, true), (&packed, false)] {
            let copy = folder.path("copy");
            fs::copy(input, &copy).unwrap();
            let meddler = Meddler(&copy, change);
            let result = match compressing {
                true => compress(&copy, Some(target(&output)), &plan("int4-g64"), &meddler),
                false => decompress(&copy, target(&output), &meddler),
            };
            let error = result.unwrap_err().to_string();
            assert!(error.contains("changed while it was read"), "{error}");
            assert_eq!(fs::read(&output).unwrap(), b"old");
        }
    }
    assert_eq!(folder.names(), ["copy", "output", "packed", "zoo.safetensors"]);
}

#[test]
fn the_wrong_kind_of_file() {
    let folder = Folder::new();
    let (source, packed, output) = (folder.zoo(), folder.path("packed"), folder.path("output"));
    pack(&source, &packed, "int4-g64").unwrap();
    let refused = |result: Result<Summary>, words: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(pack(&packed, &output, "int4-g64"), "compressed already");
    refused(unpack(&source, &output), "not a file made by kv-compress");
    refused(pack(&folder.path("absent"), &output, "int4-g64"), "no such file");
    refused(pack(folder.0.path(), &output, "int4-g64"), "found a folder");
    refused(pack(Path::new("/dev/null"), &output, "int4-g64"), "found a device");
    refused(
        pack(&folder.write("text", b"no tensors at all"), &output, "int4-g64"),
        "not a safetensors",
    );
    refused(pack(&source, &source, "int4-g64"), "expected another file than the input");
    fs::hard_link(&source, folder.path("link")).unwrap();
    refused(pack(&source, &folder.path("link"), "int4-g64"), "expected another file");
    refused(pack(&source, &folder.path("no/such"), "int4-g64"), "no such file or folder");
    assert!(!output.exists());
}

#[test]
fn a_version_that_is_not_known_is_named() {
    let folder = Folder::new();
    let (source, packed, output) = (folder.zoo(), folder.path("packed"), folder.path("output"));
    pack(&source, &packed, "int4-g64").unwrap();
    let whole = fs::read(&packed).unwrap();
    let of_version = |version: u32, more: &str| {
        let stamp = format!(r#"\"version\":{version}{more}"#);
        let path = folder.write("other", &forged(&whole, r#"\"version\":1"#, &stamp));
        let error = unpack(&path, &output).expect_err("no such version");
        assert!(error.to_string().contains(&format!("version {version}")), "{error}");
        error.hint_text().unwrap_or_default().to_string()
    };
    let hint = of_version(0, "");
    let versions = hint.split("versions 1 to ").nth(1).expect("the versions that are read");
    let newest: u32 = versions.split(';').next().unwrap().parse().expect("a number");
    assert!(newest >= 9, "{hint}");
    // The next, with what only that one knows.
    for more in ["", r#",\"later\":[1]"#] {
        let hint = of_version(newest + 1, more);
        assert!(hint.contains("a newer one made the file"), "{hint}");
    }
    assert!(!output.exists());
}

/// Headers that were changed on purpose, their checksum put right: errors, not panics, and no
/// tensor of another size than its data.
#[test]
fn forged_headers() {
    let folder = Folder::new();
    for (index, whole) in small(&folder).into_iter().enumerate() {
        let tensors = [6, 3, 2].get(index).copied().unwrap_or(3);
        forged_digits(&folder, &whole, tensors);
    }
}

fn forged_digits(folder: &Folder, whole: &[u8], tensors: usize) {
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let digits: Vec<usize> = (60..header).filter(|i| whole[*i].is_ascii_digit()).collect();
    for digit in digits {
        for by in [1, 5, 9] {
            let mut bytes = whole.to_vec();
            bytes[digit] = b'0' + (bytes[digit] - b'0' + by) % 10;
            zoo::repair(&mut bytes);
            let (path, restored) = (folder.write("forged", &bytes), folder.path("restored"));
            // Some digits are free: those of quality and of the source's size.
            if unpack(&path, &restored).is_ok() {
                let (a, b) =
                    (held(&fs::read(&restored).unwrap()).unwrap(), &whole[digit - 30..digit]);
                assert!(a.0.len() == tensors, "{}", String::from_utf8_lossy(b));
            }
        }
    }
}

/// Rotary frequencies are needed, fit the head vectors, and are numbers.
#[test]
fn forged_frequencies() {
    let folder = Folder::new();
    let whole = small_family(&folder);
    let rope = r#"\"rope\":[1.0,0.1,0.01,0.001],"#;
    unpack(&folder.write("whole", &forged(&whole, rope, rope)), &folder.path("output")).unwrap();
    fs::remove_file(folder.path("output")).unwrap();
    for to in [
        "",
        r#"\"rope\":null,"#,
        r#"\"rope\":[],"#,
        r#"\"rope\":[1.0,0.1,0.01],"#,
        r#"\"rope\":[1.0,0.1,0.01,0.001,0.0001],"#,
        r#"\"rope\":[1.0,0.1,0.01,null],"#,
        r#"\"rope\":[1.0,0.1,0.01,1e39],"#,
        r#"\"rope\":[1.0,0.1,0.01,-65537.0],"#,
        r#"\"rope\":[1.0,0.1,0.01,0.001],\"rope\":[1.0,0.1,0.01,0.001],"#,
    ] {
        assert_refused(&folder, &forged(&whole, rope, to), true, || format!("rope {to}"));
    }
    // Where nobody asked for them: version 1, and a codec without them.
    let first = small_packed(&folder);
    fs::remove_file(folder.path("output")).unwrap_or_default();
    let tensors = r#"\"tensors\":["#;
    for whole in [first, without_rope(&folder)] {
        let bytes = forged(&whole, tensors, &format!("{rope}{tensors}"));
        assert_refused(&folder, &bytes, true, || "rope for nothing".into());
    }
    for (from, to) in [
        // A table for as many positions would not fit memory.
        (r#"\"shape\":[2,12,8]"#, r#"\"shape\":[0,1099511627776,8]"#),
        (r#"\"shape\":[2,12,8]"#, r#"\"shape\":[18446744073709551615,12,8]"#),
        (r#"\"version\":2"#, r#"\"version\":1"#),
        ("-sink2", "-sink4294967296"),
        ("-sink2", "-sink4294967295"),
        ("-g24-", "-g4294967295-"),
        ("-g8-", "-g08-"),
        ("int3-", "int1-"),
        ("int3-", "int9-"),
        ("-prerope", ""),
        ("k:int3", "k:noise-int3"),
    ] {
        assert_refused(&folder, &forged(&whole, from, to), true, || format!("{from} → {to}"));
    }
}

/// The page's statements on version 5.
#[test]
fn forged_blocks() {
    let folder = Folder::new();
    let (source, packed) = (folder.blocks(), folder.path("blocks.kvc"));
    pack(&source, &packed, "kvgauge4").unwrap();
    let whole = fs::read(packed).unwrap();
    for (from, to) in [
        (r#",\"block\":60"#, ""),
        (r#"\"block\":60"#, r#"\"block\":20"#),
        (r#"\"block\":60"#, r#"\"block\":0"#),
        (r#"\"block\":60"#, r#"\"block\":null"#),
        (r#"\"version\":5"#, r#"\"version\":2"#),
        (r#"\"version\":5"#, r#"\"version\":3"#),
        (r#"\"version\":5"#, r#"\"version\":4"#),
    ] {
        assert_refused(&folder, &forged(&whole, from, to), true, || format!("{from} → {to}"));
    }
    // Head vectors of 8 values have none.
    let (source, packed) = (folder.even(), folder.path("even.kvc"));
    pack(&source, &packed, "kvgauge4").unwrap();
    let whole = fs::read(packed).unwrap();
    let both = forged(&whole, r#"\"exponent\":0"#, r#"\"exponent\":0,\"block\":8"#);
    let both = forged(&both, r#"\"version\":2"#, r#"\"version\":5"#);
    assert_refused(&folder, &both, true, || "a block of its own".into());
}

/// The page's statements on version 6: its names are new, and two of them meant something else.
#[test]
fn forged_names() {
    let folder = Folder::new();
    for (codec, from, to) in [
        ("k:mxfp4/v:mxfp8", r#"\"version\":6"#, r#"\"version\":5"#),
        ("k:mxfp4/v:mxfp8", r#"\"version\":6"#, r#"\"version\":2"#),
        ("fp8-e4m3", r#"\"version\":6"#, r#"\"version\":2"#),
        ("fp8-e4m3", r#"\"codec\":\"fp8-e4m3\""#, r#"\"codec\":\"fp8-e4m3-per-tensor\""#),
        ("fp8-e4m3-per-tensor", r#"\"version\":6"#, r#"\"version\":2"#),
        ("q4_0", r#"\"version\":2"#, r#"\"version\":6"#),
        ("mlx4", r#"\"version\":6"#, r#"\"version\":2"#),
        ("int4-per-token-head", r#"\"version\":6"#, r#"\"version\":5"#),
        ("int4-g64", r#"\"version\":1"#, r#"\"version\":6"#),
        ("hqq4", r#"\"version\":10"#, r#"\"version\":6"#),
        ("kvarn4", r#"\"version\":10"#, r#"\"version\":9"#),
        ("kvarn4", r#"\"codec\":\"kvarn4\""#, r#"\"codec\":\"k:kvarn4/v:kvarn4-by-token\""#),
        ("turboquant-3bit-nc", r#"\"version\":10"#, r#"\"version\":6"#),
        ("q3_1", r#"\"version\":10"#, r#"\"version\":2"#),
        ("fp8-e4m3-scale2", r#"\"version\":10"#, r#"\"version\":6"#),
        (
            "fp8-e4m3-scale2",
            r#"\"codec\":\"fp8-e4m3-scale2\""#,
            r#"\"codec\":\"fp8-e4m3-scale2.0\""#,
        ),
        ("q4_1", r#"\"version\":2"#, r#"\"version\":10"#),
        ("int3-g32-ext", r#"\"codec\":\"int3-g32-ext\""#, r#"\"codec\":\"q3_0\""#),
    ] {
        let whole = small_engines(&folder, codec);
        assert_refused(&folder, &forged(&whole, from, to), true, || {
            format!("{codec}: {from} → {to}")
        });
    }
}

/// Every layer's tensors are, byte for byte, what the codec of that layer gives alone.
#[test]
fn a_layer_is_stored_as_by_its_codec_alone() {
    let folder = Folder::new();
    let source = folder.layers();
    let packed = folder.path("packed");
    let parts = |codec: &str| {
        pack(&source, &packed, codec).unwrap();
        let bytes = fs::read(&packed).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let part = |(name, view): (String, TensorView)| (name, view.data().to_vec());
        file.tensors().into_iter().map(part).collect::<BTreeMap<String, Vec<u8>>>()
    };
    let of_layer = |layer: usize, all: &BTreeMap<String, Vec<u8>>| {
        let prefix = format!("layer.{layer}.");
        let own = all.iter().filter(|(name, _)| name.starts_with(&prefix));
        own.map(|(name, data)| (name.clone(), data.clone())).collect::<Vec<_>>()
    };
    let mixed = parts(LAYERS.1);
    let alone = ["q8_0", "k:int3-g8-asym-ch/v:f16", "fp8-e4m3", "kvgauge4", "q8_0"];
    for (layer, codec) in alone.into_iter().enumerate() {
        let own = of_layer(layer, &mixed);
        assert!(own == of_layer(layer, &parts(codec)) && !own.is_empty(), "layer {layer} {codec}");
    }
}

/// A file of codecs by layer says the codec of every tensor, and none that its own does not name.
#[test]
fn forged_layers() {
    let folder = Folder::new();
    let whole = small_layers(&folder);
    let codec = |name: &str| format!(r#"\"codec\":\"{name}\""#);
    let (file, version) = ("q4_0+k:f16/v:mxfp4@-1", r#"\"version\":7"#.to_string());
    for (from, to) in [
        (version.clone(), r#"\"version\":6"#.into()),
        (version, r#"\"version\":2"#.into()),
        (codec(file), codec("q4_0")),
        (codec(file), codec("q4_0+q4_0@-1")),
        (codec(file), codec("q4_0+mxfp4")),
        (codec(file), codec("q4_0+k:f16/v:mxfp4@")),
        (codec(file), codec("int4-g32-ext+k:f16/v:mxfp4@-1")),
        (codec(file), codec("q4_0+mxfp8@-1")),
        (codec("mxfp4"), codec("mxfp8")),
        (codec("mxfp4"), codec("k:f16/v:mxfp4")),
        (format!(",{}", codec("mxfp4")), String::new()),
    ] {
        let forged = forged(&whole, &from, &to);
        assert_refused(&folder, &forged, true, || format!("{from} → {to}"));
    }
    // How layers are listed is nothing to a reader.
    let (path, output) = (folder.path("damaged"), folder.path("output"));
    for listed in ["q4_0+k:f16/v:mxfp4@1", "q4_0+k:f16/v:mxfp4@1,1"] {
        fs::write(&path, forged(&whole, &codec(file), &codec(listed))).unwrap();
        unpack(&path, &output).unwrap();
    }
}

/// Scales that are no number, or have a sign in a format without one, under right checksums.
#[test]
fn forged_scales() {
    let folder = Folder::new();
    for (codec, tensor, part, good, bad) in [
        ("mxfp4", "a.key", "scales", &[0xfe][..], &[0xff][..]),
        ("mxfp8", "a.value", "scales", &[0], &[0xff]),
        ("nvfp4", "a.key", "scales", &[0x7e], &[0x7f]),
        ("nvfp4", "a.value", "scales", &[1], &[0x81]),
        ("nvfp4-per-tensor", "a.key", "tensor_scale", &[0, 0, 0x80, 0x3f], &[0, 0, 0x80, 0x7f]),
        ("fp8-per-token-head", "a.key", "scales", &[0, 0, 0x80, 0x3f], &[0, 0, 0xc0, 0x7f]),
    ] {
        let whole = small_engines(&folder, codec);
        let with = |scale: &[u8]| {
            let mut bytes = whole.clone();
            let (header_len, header) = SafeTensors::read_metadata(&whole).unwrap();
            let range = |part: &str| {
                let info = header.info(&format!("{tensor}.{part}"))?;
                let data = 8 + header_len;
                Some(data + info.data_offsets.0..data + info.data_offsets.1)
            };
            let at = range(part).unwrap().start;
            bytes[at..at + scale.len()].copy_from_slice(scale);
            let crc32 = |bytes: &[u8]| {
                let mut hasher = crc32fast::Hasher::new();
                let parts = ["tensor_scale", "scales", "codes"].into_iter().filter_map(range);
                parts.for_each(|range| hasher.update(&bytes[range]));
                format!("{:08x}", hasher.finalize())
            };
            forged(&bytes, &crc32(&whole), &crc32(&bytes))
        };
        unpack(&folder.write("good", &with(good)), &folder.path("output")).unwrap();
        fs::remove_file(folder.path("output")).unwrap();
        assert_refused(&folder, &with(bad), true, || format!("{codec}: {part} {bad:x?}"));
    }
}

/// The page's statements on version 3.
#[test]
fn forged_layouts() {
    let folder = Folder::new();
    let whole = small_layout(&folder);
    let said = r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":1,"#;
    unpack(&folder.write("whole", &forged(&whole, said, said)), &folder.path("output")).unwrap();
    fs::remove_file(folder.path("output")).unwrap();
    for to in [
        "",
        r#"\"layout\":\"tokens-heads-dim\","#,
        r#"\"kv_axis\":1,"#,
        r#"\"layout\":\"heads-tokens-dim\",\"kv_axis\":1,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":0,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":2,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":4,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":-1,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":18446744073709551615,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":null,"#,
        r#"\"layout\":\"nhd\",\"kv_axis\":1,"#,
        r#"\"layout\":null,\"kv_axis\":1,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":1,\"head_dim\":0,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":1,\"head_dim\":3,"#,
        r#"\"layout\":\"tokens-heads-dim\",\"kv_axis\":1,\"head_dim\":4,"#,
    ] {
        assert_refused(&folder, &forged(&whole, said, to), true, || format!("layout {to}"));
    }
    for (from, to) in [
        (r#"\"version\":3"#, r#"\"version\":2"#),
        (r#"\"version\":3"#, r#"\"version\":1"#),
        (r#"\"exponents\":[0,0]"#, r#"\"exponents\":[0,201]"#),
        (r#"\"exponents\":[0,0]"#, r#"\"exponents\":[0]"#),
        (r#"\"exponents\":[0,0]"#, r#"\"exponents\":[0,0,0]"#),
        (r#"\"exponents\":[0,0]"#, r#"\"exponent\":0"#),
        (r#"\"exponents\":[0,0]"#, r#"\"exponents\":[0,0],\"exponent\":0"#),
        (r#"\"exponents\":[0,0]"#, r#"\"codec\":\"int4-g16\",\"exponents\":[0,0]"#),
        (r#"\"shape\":[7,2,3,8]"#, r#"\"shape\":[3,2,7,8]"#),
        (r#"\"shape\":[7,2,3,8]"#, r#"\"shape\":[14,3,8]"#),
        (r#"\"shape\":[7,2,3,8]"#, r#"\"shape\":[4611686018427387904,2,3,8]"#),
    ] {
        assert_refused(&folder, &forged(&whole, from, to), true, || format!("{from} → {to}"));
    }
    // Where no tensor is read by it: of version 1.
    let plain = small_packed(&folder);
    let tensors = r#"\"tensors\":["#;
    for version in ["1", "3"] {
        let forged = forged(&plain, r#"\"version\":1"#, &format!(r#"\"version\":{version}"#));
        let bytes = self::forged(&forged, tensors, &format!("{said}{tensors}"));
        assert_refused(&folder, &bytes, true, || format!("layout in version {version}"));
    }
}

/// The page's statements on version 4.
#[test]
fn forged_rotary_embeddings() {
    let folder = Folder::new();
    let whole = small_rotary(&folder);
    let embedding = |frequencies: &str, pairs: &str, head_dim: &str| {
        format!(
            r#"{{\"frequencies\":[{frequencies}],\"pairs\":\"{pairs}\",\"head_dim\":{head_dim}}}"#
        )
    };
    let list = |embeddings: &[&String]| {
        let all: Vec<&str> = embeddings.iter().map(|embedding| embedding.as_str()).collect();
        format!(r#"\"rotary\":[{}],"#, all.join(","))
    };
    let [a, b] = ["8", "16"].map(|head_dim| embedding("1.0,0.01", "neighbours", head_dim));
    let said = list(&[&a, &b]);
    unpack(&folder.write("whole", &forged(&whole, &said, &said)), &folder.path("output")).unwrap();
    // Other turns are other values, and no damage.
    let halves = said.replace("neighbours", "halves").replace("0.01", "-0.25");
    unpack(&folder.write("whole", &forged(&whole, &said, &halves)), &folder.path("output"))
        .unwrap();
    fs::remove_file(folder.path("output")).unwrap();
    let rope = r#"\"rope\":[1.0,0.01,0.01,0.01],"#.to_string();
    for to in [
        String::new(),
        rope.clone(),
        rope + &said,
        said.repeat(2),
        r#"\"rotary\":null,"#.into(),
        list(&[]),
        list(&[&a]),
        list(&[&b, &a]),
        list(&[&a, &a]),
        list(&[&a, &b, &embedding("1.0", "halves", "8")]),
        list(&[&a, &embedding("1.0,0.01", "neighbours", "8")]),
        list(&[&a, &embedding("1.0,0.01", "neighbours", "17")]),
        list(&[&a, &embedding("1.0,0.01", "neighbours", "18446744073709551615")]),
        list(&[&a, &embedding("1.0,0.01", "neighbours", "-16")]),
        list(&[&a, &embedding("1.0,0.01", "neighbours", "16.0")]),
        list(&[&a, &embedding("1.0,0.01", "neighbours", "null")]),
        list(&[&a, &embedding("1.0,0.01", "neighbors", "16")]),
        list(&[&a, &embedding("1.0,65537.0", "neighbours", "16")]),
        list(&[&a, &embedding("1.0,1e39", "neighbours", "16")]),
        list(&[&a, &embedding("1.0,null", "neighbours", "16")]),
        list(&[&embedding("1.0,1.0,1.0,1.0,1.0", "neighbours", "8"), &b]),
        said.replace("\\\"head_dim\\\"", "\\\"more\\\":1,\\\"head_dim\\\""),
        said.replace(",\\\"head_dim\\\":16", ""),
        said.replace("\\\"pairs\\\":\\\"neighbours\\\",", ""),
    ] {
        assert_refused(&folder, &forged(&whole, &said, &to), true, || format!("rotary {to}"));
    }
    for (from, to) in [
        (r#"\"version\":4"#, r#"\"version\":2"#),
        (r#"\"version\":4"#, r#"\"version\":3"#),
        (r#"\"version\":4"#, r#"\"version\":5"#),
        (r#",\"rotary\":1"#, ""),
        (r#",\"rotary\":1"#, r#",\"rotary\":0"#),
        (r#",\"rotary\":1"#, r#",\"rotary\":2"#),
        (r#",\"rotary\":1"#, r#",\"rotary\":-1"#),
        (r#",\"rotary\":1"#, r#",\"rotary\":null"#),
        (r#",\"rotary\":1"#, r#",\"rotary\":18446744073709551615"#),
        (r#",\"rotary\":0"#, r#",\"rotary\":1"#),
        (r#"\"codec\":\"none\""#, r#"\"codec\":\"none\",\"rotary\":0"#),
        ("-prerope", ""),
        (r#"\"shape\":[1,5,8]"#, r#"\"shape\":[0,1099511627776,8]"#),
        (r#"\"shape\":[1,5,8]"#, r#"\"shape\":[5,8]"#),
        (r#"\"shape\":[1,5,8]"#, r#"\"shape\":[1,10,4]"#),
    ] {
        let bytes = forged(&whole, from, to);
        if to != r#"\"shape\":[5,8]"# {
            assert_refused(&folder, &bytes, true, || format!("{from} → {to}"));
            continue;
        }
        // The same values without a batch.
        unpack(&folder.write("whole", &bytes), &folder.path("output")).unwrap();
        fs::remove_file(folder.path("output")).unwrap();
    }
    // One over the whole head in halves is the field `rope`'s; and none is said for nothing.
    let family = small_family(&folder);
    let rope = r#"\"rope\":[1.0,0.1,0.01,0.001],"#;
    let one = list(&[&embedding("1.0,0.1,0.01,0.001", "halves", "8")]);
    for (from, to) in [(r#"\"version\":2"#, r#"\"version\":4"#), ("", "")] {
        let bytes = forged(&forged(&family, from, to), rope, &one);
        assert_refused(&folder, &bytes, true, || "a whole one".into());
    }
    let tensors = r#"\"tensors\":["#;
    for whole in [small_packed(&folder), without_rope(&folder)] {
        let bytes = forged(&whole, tensors, &format!("{said}{tensors}"));
        assert_refused(&folder, &bytes, true, || "rotary for nothing".into());
    }
}

/// A plain file may speak of the format, and carry a manifest, its own or another's key.
#[test]
fn plain_files_that_speak_of_the_format_are_plain() {
    let folder = Folder::new();
    let (source, packed, restored) = (folder.path("a"), folder.path("b"), folder.path("c"));
    let whole = small_packed(&folder);
    let (_, header) = SafeTensors::read_metadata(&whole).unwrap();
    let manifest = header.metadata().as_ref().unwrap()["kvgauge"].clone();
    let tensors: Vec<TensorData> = (zoo::tensors().into_iter())
        .filter(|tensor| manifest.contains(&format!(r#""name":"{}""#, tensor.name)))
        .collect();
    for (key, text) in [
        ("note", r#"made by "format":"kvgauge-kv""#),
        ("note", "kvgauge-kv"),
        ("kvgauge", r#"{"format":"kvgauge-kv"}"#),
        ("kvgauge", r#"{"format":"kvgauge-kv","version":1}"#),
        ("kvgauge", r#""format":"kvgauge-kv","version":1,"codec":"int4-g64""#),
        ("kvgauge-kv", "{}"),
        ("was", &manifest),
        ("a", &format!("before {manifest} behind")),
    ] {
        let metadata = [(key.to_string(), text.to_string())].into();
        write_file(&source, &tensors, Some(metadata)).unwrap();
        assert_eq!(container::inspect(&source, true, &()).unwrap().format, "safetensors", "{text}");
        assert_eq!(read_file(&source).unwrap().metadata().unwrap()[key], text);
        pack(&source, &packed, "int4-g64").unwrap();
        unpack(&packed, &restored).unwrap();
        assert_restored(&fs::read(&source).unwrap(), &fs::read(&restored).unwrap(), "int4-g64");
        let error = unpack(&source, &restored).unwrap_err().to_string();
        assert!(error.contains("not a file made by kv-compress"), "{text}: {error}");
    }
}

fn without_rope(folder: &Folder) -> Vec<u8> {
    let packed = folder.path("kivi4");
    pack(&folder.path("small"), &packed, "q4_0").unwrap();
    fs::read(packed).unwrap()
}

/// A name that would break the restored file.
#[test]
fn a_forged_name() {
    let folder = Folder::new();
    let (source, packed) = (folder.path("source"), folder.path("packed"));
    let tensors = [zoo::tensor("__metadaty__", Dtype::F16, &[64], &zoo::numbers(64, 1))];
    write_file(&source, &tensors, None).unwrap();
    pack(&source, &packed, "int4-g64").unwrap();
    let mut bytes = fs::read(&packed).unwrap();
    while let Some(at) = bytes.windows(8).position(|window| window == b"metadaty") {
        bytes[at + 7] = b'a';
    }
    zoo::repair(&mut bytes);
    assert_refused(&folder, &bytes, true, || "a tensor named __metadata__".into());
}

/// Names made to clash with those of parts, thousands of them: no more than the names cost.
#[test]
fn clashing_names() {
    let folder = Folder::new();
    let (source, packed, restored) =
        (folder.path("source"), folder.path("packed"), folder.path("r"));
    let clash = |dots: usize| TensorData {
        name: format!("x{}codes", ".".repeat(dots)),
        dtype: Dtype::U8,
        shape: vec![1],
        data: vec![7].into(),
    };
    let mut tensors: Vec<TensorData> = (1..800).map(clash).collect();
    let floats = (0..8_000).map(|i| zoo::tensor(&format!("t{i}"), Dtype::F16, &[2], &[1.0, 2.0]));
    tensors.extend(floats);
    tensors.push(zoo::tensor("x", Dtype::F16, &[3], &[1.0, 2.0, 3.0]));
    write_file(&source, &tensors, None).unwrap();
    pack(&source, &packed, "int4-g64").unwrap();
    unpack(&packed, &restored).unwrap();
    assert_restored(&fs::read(&source).unwrap(), &fs::read(&restored).unwrap(), "int4-g64");
}
