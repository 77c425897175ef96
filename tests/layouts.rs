//! Caches in the orders of other engines, and keys and values in one tensor: what is stored is what
//! is stored of the same cache in the usual order, and what comes back lies where it lay.

#[path = "common/golden_files.rs"]
mod golden_files;
#[path = "common/zoo.rs"]
#[allow(dead_code)]
mod zoo;

use golden_files::GoldenFiles;
use half::{bf16, f16};
use kvgauge::codec::{Codec, TensorCodec};
use kvgauge::container::{
    AxisOrder, Layout, Plan, RopeParameters, Summary, Target, TensorData, compress, decompress,
    inspect, read_file, write_file,
};
use kvgauge::error::Result;
use kvgauge::whole_file::Existing;
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const HEADS: usize = 3;
const TOKENS: usize = 21;
const DIM: usize = 16;

/// The place of a value in a tensor: side, batch, head, token, channel.
type Place = [usize; 5];

/// An order of axes that an engine has, and how it is said.
struct Engine {
    name: &'static str,
    layout: Layout,
    /// Of a cache of two batches (layers, blocks).
    shape: Vec<usize>,
    /// Where a value of the usual order lies.
    index: fn(Place) -> usize,
}

/// The index in a tensor of this shape.
fn flat<const N: usize>(shape: [usize; N], at: [usize; N]) -> usize {
    shape.iter().zip(at).fold(0, |index, (size, at)| index * size + at)
}

fn engines() -> Vec<Engine> {
    use AxisOrder::{HeadsTokensDim, TokensHeadsDim};
    let layout = |order, kv_axis, head_dim| Layout { order, kv_axis, head_dim };
    const MERGED: usize = HEADS * DIM;
    vec![
        Engine {
            name: "transformers",
            layout: Layout::default(),
            shape: vec![2, HEADS, TOKENS, DIM],
            index: |[_, b, h, t, d]| flat([2, HEADS, TOKENS, DIM], [b, h, t, d]),
        },
        Engine {
            name: "tokens before heads",
            layout: layout(TokensHeadsDim, None, None),
            shape: vec![2, TOKENS, HEADS, DIM],
            index: |[_, b, h, t, d]| flat([2, TOKENS, HEADS, DIM], [b, t, h, d]),
        },
        Engine {
            name: "heads in one axis",
            layout: layout(TokensHeadsDim, None, Some(DIM)),
            shape: vec![2, TOKENS, MERGED],
            index: |[_, b, h, t, d]| flat([2, TOKENS, HEADS, DIM], [b, t, h, d]),
        },
        Engine {
            name: "vLLM, both in front",
            layout: layout(TokensHeadsDim, Some(0), None),
            shape: vec![2, 2, TOKENS, HEADS, DIM],
            index: |[s, b, h, t, d]| flat([2, 2, TOKENS, HEADS, DIM], [s, b, t, h, d]),
        },
        Engine {
            name: "LMCache",
            layout: layout(TokensHeadsDim, Some(1), Some(DIM)),
            shape: vec![2, 2, TOKENS, MERGED],
            index: |[s, b, h, t, d]| flat([2, 2, TOKENS, HEADS, DIM], [b, s, t, h, d]),
        },
        Engine {
            name: "both between tokens and heads",
            layout: layout(TokensHeadsDim, Some(2), None),
            shape: vec![2, TOKENS, 2, HEADS, DIM],
            index: |[s, b, h, t, d]| flat([2, TOKENS, 2, HEADS, DIM], [b, t, s, h, d]),
        },
        Engine {
            name: "both innermost",
            layout: layout(HeadsTokensDim, Some(4), None),
            shape: vec![2, HEADS, TOKENS, DIM, 2],
            index: |[s, b, h, t, d]| flat([2, HEADS, TOKENS, DIM, 2], [b, h, t, d, s]),
        },
        Engine {
            name: "both in front, heads before tokens",
            layout: layout(HeadsTokensDim, Some(0), None),
            shape: vec![2, 2, HEADS, TOKENS, DIM],
            index: |[s, b, h, t, d]| flat([2, 2, HEADS, TOKENS, DIM], [s, b, h, t, d]),
        },
    ]
}

/// Keys and values of the usual order: channels apart, a first token unlike the others.
fn cache() -> [Vec<f32>; 2] {
    [1, 2].map(|seed| {
        let mut values = zoo::numbers(2 * HEADS * TOKENS * DIM, seed);
        for (index, x) in values.iter_mut().enumerate() {
            let (token, channel) = (index / DIM % TOKENS, index % DIM);
            *x = *x * if token == 0 { 9.0 } else { 1.0 } + if channel == 3 { 6.0 } else { 0.0 };
        }
        values
    })
}

impl Engine {
    fn places(&self) -> impl Iterator<Item = (Place, usize)> {
        let all = (0..2 * HEADS * TOKENS * DIM).map(|index| {
            let (rest, d) = (index / DIM, index % DIM);
            let (rest, t) = (rest / TOKENS, rest % TOKENS);
            ([rest / HEADS, rest % HEADS, t, d], index)
        });
        all.flat_map(|([b, h, t, d], index)| [0, 1].map(|side| ([side, b, h, t, d], index)))
    }

    /// The tensors of this engine's file, and which sides are in each.
    fn tensors(&self, cache: &[Vec<f32>; 2], dtype: Dtype) -> Vec<TensorData<'static>> {
        let whole = self.shape.iter().product();
        let tensor = |name: &str, sides: &[usize]| {
            let mut values = vec![0.0; whole];
            for (place, index) in self.places().filter(|(place, _)| sides.contains(&place[0])) {
                values[(self.index)(place)] = cache[place[0]][index];
            }
            zoo::tensor(name, dtype, &self.shape, &values)
        };
        match self.layout.kv_axis {
            Some(_) => vec![tensor("kv_cache", &[0, 1])],
            None => vec![tensor("0.key", &[0]), tensor("0.value", &[1])],
        }
    }

    /// The usual order of what a file of this engine holds.
    fn usual(&self, path: &Path) -> [Vec<f32>; 2] {
        let file = read_file(path).unwrap();
        let names: Vec<&str> = file.names().collect();
        let tensors: Vec<Vec<f32>> =
            names.iter().map(|name| file.get_tensor_f32(name).unwrap()).collect();
        let mut sides = [0, 1].map(|_| vec![f32::NAN; 2 * HEADS * TOKENS * DIM]);
        for (place, index) in self.places() {
            let tensor = &tensors[if tensors.len() == 2 { place[0] } else { 0 }];
            sides[place[0]][index] = tensor[(self.index)(place)];
        }
        sides
    }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pack(&self, tensors: &[TensorData], plan: &Plan) -> Result<Summary> {
        write_file(&self.path("source"), tensors, Some(zoo::metadata())).unwrap();
        let packed = self.path("packed");
        compress(&self.path("source"), Some(target(&packed)), plan, &())
    }

    fn unpack(&self) -> PathBuf {
        let restored = self.path("restored");
        decompress(&self.path("packed"), target(&restored), &()).unwrap();
        restored
    }

    /// The stored bytes of keys and of values, part by part.
    fn parts(&self, both: bool) -> [Vec<Vec<u8>>; 2] {
        let bytes = fs::read(self.path("packed")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        ["key", "value"].map(|side| {
            let stem = if both { format!("kv_cache.{side}.") } else { format!("0.{side}.") };
            ["sinks", "means", "tensor_scale", "scales", "minima", "codes", "values"]
                .iter()
                .filter_map(|part| file.tensor(&format!("{stem}{part}")).ok())
                .map(|view| view.data().to_vec())
                .collect()
        })
    }
}

fn target(path: &Path) -> Target<'_> {
    Target { path, existing: Existing::Replace, sync: false }
}

fn plan(codec: &str, layout: Layout) -> Plan {
    Plan { rope: Some(RopeParameters::of_theta(1e4)), layout, ..Plan::all(codec.parse().unwrap()) }
}

const CODECS: [&str; 19] = [
    "kvgauge4",
    "kivi4",
    "int4-g64",
    "f16",
    "k:int4-g48/v:f16",
    "k:f16/v:int4-g1000",
    "turbo4",
    "fp8-e4m3",
    "fp8-e5m2-per-tensor",
    "k:fp8-per-token-head/v:int8-per-token-head",
    "k:mxfp4/v:mxfp8",
    "k:int4-per-token-head/v:mlx3",
    "k:mlx8/v:quanto2",
    "k:nvfp4/v:nvfp4-per-tensor",
    "int7-g16-mid-prerope-mse",
    "k:int3-g8-asym-ch-prerope-ctr-had-s8-sink2/v:int5-g24-lm-had-mse-sink1",
    "k:q4_0/v:iq4_nl",
    "kvarn-k4v2",
    "hqq2",
];

#[test]
fn what_is_stored_is_that_of_the_usual_order() {
    let (folder, cache) = (Folder::new(), cache());
    let engines = engines();
    for (codec, dtype) in
        CODECS.into_iter().zip([Dtype::F16, Dtype::BF16, Dtype::F32].into_iter().cycle())
    {
        let usual = &engines[0];
        let expected =
            folder.pack(&usual.tensors(&cache, dtype), &plan(codec, usual.layout)).unwrap();
        let (stored, values) = (folder.parts(false), usual.usual(&folder.unpack()));
        for engine in &engines[1..] {
            let what = format!("{codec}, {}", engine.name);
            let tensors = engine.tensors(&cache, dtype);
            let made = folder.pack(&tensors, &plan(codec, engine.layout)).unwrap();
            let both = engine.layout.kv_axis.is_some();
            assert!(folder.parts(both) == stored, "{what}: other bytes");
            let restored = folder.unpack();
            assert!(engine.usual(&restored) == values, "{what}: other values");
            assert!(engine.usual(&folder.path("packed")) == values, "{what}: one by one");
            // Shapes, types and metadata are the source's.
            let (source, restored) =
                (read_file(&folder.path("source")).unwrap(), read_file(&restored).unwrap());
            for name in source.names() {
                assert_eq!(source.info(name), restored.info(name), "{what}");
            }
            assert_eq!(source.metadata(), restored.metadata(), "{what}");
            // Figures too, but for the order in which sums are added up.
            let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-7 * b.abs(),
                (a, b) => a == b,
            };
            assert!(close(made.quality.rmse, expected.quality.rmse), "{what}");
            assert!(close(made.quality.snr_db, expected.quality.snr_db), "{what}");
            let cosines = (made.quality.cosine_similarity, expected.quality.cosine_similarity);
            assert!(close(cosines.0, cosines.1), "{what}: {cosines:?}");
            assert!(close(made.bits_per_value(), expected.bits_per_value()), "{what}");
            // Metrics alone are the same, and so are the bytes of another run.
            let plan = plan(codec, engine.layout);
            assert_eq!(compress(&folder.path("source"), None, &plan, &()).unwrap(), made);
            let again = folder.path("again");
            compress(&folder.path("source"), Some(target(&again)), &plan, &()).unwrap();
            assert!(
                fs::read(&again).unwrap() == fs::read(folder.path("packed")).unwrap(),
                "{what}"
            );
        }
    }
}

#[test]
fn the_layout_is_in_the_file() {
    let (folder, cache) = (Folder::new(), cache());
    for engine in engines() {
        for (codec, first) in [("int4-g64", 1), ("kvgauge4", 2)] {
            let plan = plan(codec, engine.layout);
            folder.pack(&engine.tensors(&cache, Dtype::F16), &plan).unwrap();
            let contents = inspect(&folder.path("packed"), true, &()).unwrap();
            let version = if engine.layout.is_default() { first } else { 3 };
            assert_eq!(contents.format, format!("kvgauge-kv {version}"), "{}", engine.name);
            assert_eq!(contents.compression.unwrap().layout(), engine.layout);
            if engine.layout.kv_axis.is_some() {
                assert_eq!(contents.tensors[0].codec, codec);
            }
        }
        // A file in which nothing is read by it says nothing of it, and has the first version.
        let ids = zoo::tensor("ids", Dtype::F32, &[1], &[7.0]);
        let default = folder.pack(std::slice::from_ref(&ids), &plan("int4-g64", Layout::default()));
        let bytes = fs::read(folder.path("packed")).unwrap();
        let other = folder.pack(std::slice::from_ref(&ids), &plan("int4-g64", engine.layout));
        assert_eq!(default.unwrap(), other.unwrap());
        assert_eq!(fs::read(folder.path("packed")).unwrap(), bytes);
    }
}

/// The cost of the wrong axis: heads taken for tokens are rotated by the wrong angles, and their
/// channels share no scale.
#[test]
fn the_true_order_is_the_better_one() {
    let folder = Folder::new();
    let (tokens, heads, dim) = (64, 4, 64);
    // Keys that RoPE has turned: each channel pair at its own pace.
    let noise = zoo::numbers(tokens * heads * dim, 5);
    let mut keys = vec![0.0; tokens * heads * dim];
    for (index, x) in keys.iter_mut().enumerate() {
        let (token, channel) = (index / (heads * dim), index % dim);
        let pair = channel % (dim / 2);
        let angle = token as f32 * 1e4f32.powf(-2.0 * pair as f32 / dim as f32);
        let size = if pair % 5 == 0 { 8.0 } else { 0.5 };
        let turned = if channel < dim / 2 { angle.cos() } else { angle.sin() };
        *x = size * turned + 0.2 * noise[index];
    }
    let tensors = [zoo::tensor("x.key", Dtype::F16, &[tokens, heads, dim], &keys)];
    let snr = |codec: &str, order| {
        let layout = Layout { order, ..Layout::default() };
        folder.pack(&tensors, &plan(codec, layout)).unwrap().quality.snr_db.unwrap()
    };
    for codec in ["kvgauge4", "int4-g64-asym-ch-prerope", "int4-g64-prerope-ctr"] {
        let right = snr(codec, AxisOrder::TokensHeadsDim);
        let wrong = snr(codec, AxisOrder::HeadsTokensDim);
        assert!(right > wrong + 5.0, "{codec}: {right} dB, {wrong} dB");
    }
}

#[test]
fn axes_that_do_not_fit_are_named() {
    let folder = Folder::new();
    let tensor = |name: &str, shape: &[usize]| {
        zoo::tensor(name, Dtype::BF16, shape, &zoo::numbers(shape.iter().product(), 1))
    };
    let cache = tensor("kv_cache", &[2, 9, 4, 8]);
    let thd = |kv_axis, head_dim| Layout { order: AxisOrder::TokensHeadsDim, kv_axis, head_dim };
    let htd = |kv_axis| Layout { kv_axis, ..Layout::default() };
    for (tensors, layout, expected) in [
        (
            vec![cache.clone()],
            htd(Some(1)),
            "tensor kv_cache: axis 1, counted from 0: expected one of size 2, keys and values, found size 9 in shape [2, 9, 4, 8]",
        ),
        (
            vec![cache.clone()],
            htd(Some(4)),
            "tensor kv_cache: axis 4, counted from 0: expected one of size 2, keys and values, found shape [2, 9, 4, 8] of 4 axes",
        ),
        (vec![cache.clone()], htd(Some(usize::MAX)), "tensor kv_cache: axis 18446744073709551615"),
        (
            vec![cache.clone()],
            thd(Some(0), Some(3)),
            "tensor kv_cache: heads of 3: expected a multiple of that as the last axis, found shape [2, 9, 4, 8]",
        ),
        (vec![cache.clone()], thd(None, Some(0)), "head_dim: expected 1 or more, found 0"),
        (
            vec![cache.clone()],
            Layout { head_dim: Some(8), ..htd(None) },
            "head_dim 8: expected layout tokens-heads-dim",
        ),
        // A file that mixes ranks: the first that does not fit is named.
        (
            vec![cache.clone(), tensor("stats", &[32])],
            thd(Some(0), None),
            "tensor stats: axis 0, counted from 0: expected one of size 2, keys and values, found size 32",
        ),
        (
            vec![cache.clone(), tensor("pair", &[2, 32])],
            thd(Some(0), None),
            "tensor pair: layout tokens-heads-dim: expected 3 axes or more besides that of keys and values, found shape [2, 32]",
        ),
        (
            vec![tensor("x.key", &[9, 4, 8]), tensor("rows.key", &[7, 32])],
            thd(None, None),
            "tensor rows.key: layout tokens-heads-dim: expected 3 axes or more, found shape [7, 32]",
        ),
        (
            vec![tensor("pair", &[2, 32])],
            htd(Some(0)),
            "tensor pair: codec tc19-prerope-shape: expected [tokens, head_dim] or more axes besides that of keys and values, found shape [2, 32]",
        ),
    ] {
        let error = folder.pack(&tensors, &plan("kvgauge4", layout)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
        assert!(!folder.path("packed").exists());
    }
    // Left out, it is no hindrance; other types, scalars and shorter ranks that fit are none either.
    let exclude = vec![glob::Pattern::new("stats").unwrap()];
    let scale = zoo::tensor("k_scale", Dtype::F32, &[], &[0.5]);
    let ids = TensorData {
        name: "ids".into(),
        dtype: Dtype::U8,
        shape: vec![3],
        data: vec![1, 2, 3].into(),
    };
    let tensors = [cache, tensor("stats", &[32]), scale, ids, tensor("layer", &[5, 2, 9, 4, 8])];
    let fits = Plan { exclude: exclude.clone(), ..plan("kvgauge4", thd(Some(0), None)) };
    assert!(folder.pack(&tensors, &fits).unwrap_err().to_string().contains("tensor layer: axis 0"));
    let tensors = [&tensors[..4], &[tensor("more", &[2, 3, 9, 4, 8])]].concat();
    let summary = folder.pack(&tensors, &fits).unwrap();
    let compressed: Vec<&str> = (summary.tensors.iter())
        .filter(|tensor| tensor.codec.is_some())
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(compressed, ["kv_cache", "more"]);
    folder.unpack();
}

/// Keys and values of magnitudes far apart have exponents of their own; NaN is found where it lies.
#[test]
fn values_out_of_range() {
    let folder = Folder::new();
    let [mut keys, mut values] = cache();
    keys.iter_mut().for_each(|x| *x *= 1e30);
    values.iter_mut().for_each(|x| *x *= 1e-30);
    let both = [keys, values];
    for engine in engines() {
        for codec in ["int4-g64", "kivi4", "kvgauge4", "k:q4_0/v:q8_0"] {
            let plan = plan(codec, engine.layout);
            let summary = folder.pack(&engine.tensors(&both, Dtype::F32), &plan).unwrap();
            folder.unpack();
            let restored = engine.usual(&folder.path("restored"));
            for (side, least) in restored.iter().zip(&both) {
                let sums = side.iter().zip(least).fold((0.0, 0.0), |(energy, error), (y, x)| {
                    (
                        energy + f64::from(*x).powi(2),
                        error + (f64::from(*x) - f64::from(*y)).powi(2),
                    )
                });
                let snr = 10.0 * (sums.0 / sums.1).log10();
                assert!(snr > 10.0, "{codec}, {}: {snr} dB, {:?}", engine.name, summary.quality);
            }
        }
        let mut tensors = engine.tensors(&cache(), Dtype::F32);
        let last = tensors[0].data.len() / 4 - 5;
        tensors[0].data.to_mut()[4 * last..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        for codec in ["int4-g64", "kvgauge4", "f16"] {
            let error = folder.pack(&tensors, &plan(codec, engine.layout)).unwrap_err().to_string();
            let place = format!("tensor {}: index {last}: expected a finite", tensors[0].name);
            assert!(error.contains(&place), "{}: {error}", engine.name);
        }
    }
}

/// Names that would clash with those of parts, and tensors without values.
#[test]
fn names_and_emptiness() {
    let folder = Folder::new();
    let bytes = |name: &str| TensorData {
        name: name.into(),
        dtype: Dtype::U8,
        shape: vec![1],
        data: vec![7].into(),
    };
    let cache = |name: &str, tokens: usize| {
        zoo::tensor(name, Dtype::F16, &[2, tokens, 2, 8], &zoo::numbers(tokens * 32, 3))
    };
    let layout = Layout { order: AxisOrder::TokensHeadsDim, kv_axis: Some(0), head_dim: None };
    let tensors = [
        cache("x", 9),
        bytes("x.key.codes"),
        bytes("x..value.scales"),
        bytes("x...codes"),
        cache("x.key", 0),
        cache("y", 3),
        bytes("y.values"),
    ];
    for codec in ["kvgauge4", "k:f16/v:int4-g16", "int4-g32"] {
        folder.pack(&tensors, &plan(codec, layout)).unwrap();
        let source = read_file(&folder.path("source")).unwrap();
        let restored = read_file(&folder.unpack()).unwrap();
        assert_eq!(source.names().collect::<Vec<_>>(), restored.names().collect::<Vec<_>>());
        for name in source.names() {
            assert_eq!(source.info(name), restored.info(name), "{codec}");
        }
        let x = (source.get_tensor_f32("x").unwrap(), restored.get_tensor_f32("x").unwrap());
        assert!(x.0.iter().zip(&x.1).all(|(a, b)| (a - b).abs() < 0.5), "{codec}");
        let stored = fs::read(folder.path("packed")).unwrap();
        let file = SafeTensors::deserialize(&stored).unwrap();
        let part = if codec.starts_with("k:f16") { "x.key.values" } else { "x...key.codes" };
        assert!(file.tensor(part).is_ok(), "{codec}: {:?}", file.names());
    }
}

/// Every later version must read the files of every earlier one.
#[test]
fn golden_files() {
    let (folder, cache) = (Folder::new(), cache());
    let engines = engines();
    let engine = |name: &str| engines.iter().find(|engine| engine.name == name).unwrap();
    let mut golden = GoldenFiles::default();
    for (name, engine, codec, dtype) in [
        (
            "v3-tokens-heads",
            engine("tokens before heads"),
            "k:int4-g64-ch-prerope/v:int4-g64",
            Dtype::BF16,
        ),
        (
            "v3-vllm",
            engine("vLLM, both in front"),
            "k:int3-g8-asym-ch-prerope-ctr-had-s8-sink2/v:f16",
            Dtype::F32,
        ),
        ("v3-lmcache-shaped", engine("LMCache"), "kvgauge4", Dtype::F16),
        ("v3-innermost", engine("both innermost"), "int4-g48", Dtype::F16),
    ] {
        let mut tensors = engine.tensors(&cache, dtype);
        tensors.push(zoo::tensor("scale", Dtype::F32, &[], &[0.25]));
        tensors.push(TensorData {
            name: "mask".into(),
            dtype: Dtype::BOOL,
            shape: vec![3],
            data: vec![1, 0, 1].into(),
        });
        folder.pack(&tensors, &plan(codec, engine.layout)).unwrap();
        golden.is_written(name, &folder.path("packed"));
    }
    // Of a writer that shaped errors of heads of 64 and 128 only.
    golden.is_read("v3-lmcache");
    golden.were_there();
}

/// In the order of a codec, worked out here for one value: a whole-tensor scale of keys, and of
/// values.
#[test]
fn sides_have_scales_of_their_own() {
    let folder = Folder::new();
    let keys = [448.0, 1.0, -2.0, 3.5];
    let values = [4.48, 0.01, -0.02, 0.035];
    let mixed: Vec<f32> = keys.iter().zip(&values).flat_map(|(k, v)| [*k, *v]).collect();
    let tensor = zoo::tensor("kv", Dtype::F32, &[2, 2, 2], &mixed);
    let layout = Layout { kv_axis: Some(2), ..Layout::default() };
    folder.pack(&[tensor], &plan("fp8-e4m3-per-tensor", layout)).unwrap();
    let restored = read_file(&folder.unpack()).unwrap().get_tensor_f32("kv").unwrap();
    let scale = f16::from_f32(0.01).to_f32();
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(restored[2 * index], *key);
        assert!((restored[2 * index + 1] / (key * scale) - 1.0).abs() < 1e-6, "{restored:?}");
    }
    let codec: Codec = "k:int4-g64/v:f16".parse().unwrap();
    assert_eq!((codec.key, codec.value), (TensorCodec::int4(64), TensorCodec::F16));
    // Values in f16 of a bf16 cache are exact; keys are not.
    let wide: Vec<f32> =
        zoo::numbers(64, 4).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
    let tensor = zoo::tensor("kv", Dtype::BF16, &[2, 2, 16], &wide);
    let layout = Layout { kv_axis: Some(0), ..Layout::default() };
    folder.pack(&[tensor], &plan("k:int4-g16/v:f16", layout)).unwrap();
    let restored = read_file(&folder.unpack()).unwrap().get_tensor_f32("kv").unwrap();
    assert!(restored[..32] != wide[..32] && restored[32..] == wide[32..]);
}
