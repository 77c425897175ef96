//! Reports made up for tests and for looking at: figures that a sweep could have found, and
//! figures that it hardly would.

use super::attribution::Attribution;
use super::figures::{Baseline, CodecFigures, Histogram, LayerResult, PositionBin};
use super::subject::{ModelInfo, SubjectInfo, TextInfo};
use super::sweep::{Asked, ProtocolCells, SubjectReport, SweepReport, SweepSource, UnfinishedCell};
use super::validation::RefusedCodec;
use crate::codec::Distortion;
use crate::eval::Protocol;
use crate::eval::attribution::CacheParts;
use crate::eval::stats::{Estimate, positive_ci95};
use crate::eval::verdict::Limits;
use crate::model::source::Provenance;
use crate::settings::{DeviceKind, FloatType};
use std::collections::BTreeMap;

pub const HOSTILE: &str =
    "<script>alert(1)</script>\"><img src=x onerror='alert(2)'>&amp;|`\u{1b}[31m\n</svg>";
const TARGETS: usize = 255;
/// Sequences of every report.
pub const BATCH: usize = 8;

/// A made-up codec: the figures that all others of its cell are drawn around.
#[derive(Debug, Clone)]
pub struct MadeUpCodec {
    pub codec: String,
    pub bits: f64,
    /// Mean change of the NLL, nats a token, and its deviation between windows.
    pub log_ratio: [f64; 2],
    pub kld: f64,
    /// dB, of keys and of values; `None`: no error.
    pub snr: [Option<f64>; 2],
}

pub fn made_up(codec: &str, bits: f64, change: [f64; 2], kld: f64, snr: [f64; 2]) -> MadeUpCodec {
    MadeUpCodec { codec: codec.into(), bits, log_ratio: change, kld, snr: snr.map(Some) }
}

/// In −1…1.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut bits = crate::random::wide_bits(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    move || bits() as f64 / (1u64 << 52) as f64 - 1.0
}

pub fn subject_info(model: &str, windows: usize, layers: usize) -> SubjectInfo {
    SubjectInfo {
        protocol: crate::eval::Protocol::PREFIX,
        model: ModelInfo {
            headline: None,
            provenance: Provenance {
                source: model.into(),
                revision: Some("fe8a4ea1ffedaf415f4da2f062534de366a451e6".into()),
                files_sha256: BTreeMap::from([("config.json".into(), "1b6c".repeat(16))]),
            },
            architecture: "LlamaForCausalLM".into(),
            layers,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            vocab_size: 49152,
            max_position_embeddings: 2048,
            sliding_windows: Vec::new(),
        },
        text: TextInfo {
            headline: None,
            source: "wiki.test.raw".into(),
            sha256: "173c".repeat(16),
            bytes: 1_290_590,
            tokens: Some(303_415),
            windows_available: Some(592),
            parse_special: true,
        },
        context: 512,
        prefix: 256,
        first_window: 0,
        windows,
        scored_tokens: windows * TARGETS,
        bos_id: None,
        dtype: FloatType::F32,
        device: DeviceKind::Cpu,
        instruction_set: "x86-64 avx512".into(),
        seed: 0,
    }
}

pub fn subject(
    model: &str,
    windows: usize,
    layers: usize,
    codecs: &[MadeUpCodec],
) -> SubjectReport {
    let first = part(subject_info(model, windows, layers), codecs, &Limits::default());
    SubjectReport::new(first, None, &Asked::default(), &Limits::default())
}

fn part(info: SubjectInfo, codecs: &[MadeUpCodec], limits: &Limits) -> ProtocolCells {
    let mut random = noise(7);
    let windows = info.windows;
    let nll: Vec<f64> = (0..windows).map(|_| TARGETS as f64 * (3.35 + 0.2 * random())).collect();
    let mean = nll.iter().sum::<f64>() / info.scored_tokens as f64;
    let baseline = Baseline { perplexity: mean.exp(), nll_per_window: nll, floor: None };
    let cells = codecs
        .iter()
        .zip(1..)
        .map(|(codec, seed)| {
            let figures = figures(codec, seed, &info, &baseline);
            let id = format!("{:016x}", seed * 0x9e37_79b9_7f4a_7c15u64 % 0xffff_ffff_ffff);
            (id, figures.judge(&info, &baseline, limits, BATCH))
        })
        .collect();
    ProtocolCells { subject: info, baseline, cells }
}

/// Both protocols, all limits, a codec that `decode` refuses and one that not all targets feel.
fn both() -> SweepReport {
    let limits = Limits {
        max_ppl_change: 2.0,
        max_kld: Some(0.2),
        min_top1: Some(0.3),
        max_bytes_per_token: Some(12_000.0),
    };
    let info = |protocol| {
        let mut info = subject_info("HuggingFaceTB/SmolLM2-135M", 20, 30);
        info.text.parse_special = false;
        SubjectInfo { protocol, seed: 3, ..info }
    };
    let codecs = usual_codecs();
    let first = part(info(Protocol::PREFIX), &codecs, &limits);
    let worse = |codec: &MadeUpCodec| MadeUpCodec {
        log_ratio: codec.log_ratio.map(|change| 8.0 * change),
        kld: 10.0 * codec.kld,
        ..codec.clone()
    };
    let refused = &codecs[3].codec;
    let worse: Vec<MadeUpCodec> =
        codecs.iter().filter(|codec| codec.codec != *refused).map(worse).collect();
    let decode = Protocol::Decode { residual: 300, chunk: 32 };
    let mut decode = part(info(decode), &worse, &limits);
    decode.cells[2].1.figures.targets_affected = 0.75;
    decode.cells[2].1.figures.exact_share = Some(0.15);
    let asked = Asked {
        protocols: vec!["prefix", "decode"],
        refused: vec![RefusedCodec {
            codec: refused.clone(),
            error: "codec int4-g32: expected a codec that stores token by token".into(),
            hint: Some("--protocol prefix has it".into()),
        }],
    };
    let subject = SubjectReport::new(first, Some(decode), &asked, &limits);
    SweepReport { limits, ..report(vec![subject]) }
}

/// Three models under both protocols, one of them with one window and one codec less.
fn several_models() -> SweepReport {
    let codecs = [
        made_up("k:int2-g32-asym-ch/v:int2-g32-asym", 3.0, [0.2, 0.05], 0.19, [7.0, 9.0]),
        made_up("kvgauge4", 4.296, [0.0015, 0.002], 8.5e-4, [22.0, 19.0]),
        made_up("q4_0-had", 4.5, [0.002, 0.004], 0.0044, [18.0, 20.0]),
        made_up("q8_0-had", 8.5, [1e-4, 4e-4], 3.8e-5, [42.0, 44.0]),
        made_up("fp8-e4m3", 8.0, [5e-4, 1e-3], 0.0013, [31.0, 31.0]),
        made_up("f16", 16.0, [1e-7, 3e-6], 7.5e-8, [73.8, 73.7]),
        made_up("mlx4", 4.5, [0.004, 0.006], 0.0091, [17.0, 20.0]),
    ];
    let of = |model: &str, windows, damage: [f64; 7], count: usize| {
        let part = |protocol, by: f64| {
            let info = SubjectInfo { protocol, ..subject_info(model, windows, 24) };
            let scaled = |(codec, damage): (&MadeUpCodec, f64)| MadeUpCodec {
                log_ratio: codec.log_ratio.map(|change| by * damage * change),
                kld: by * damage * codec.kld,
                ..codec.clone()
            };
            let codecs: Vec<_> = codecs[..count].iter().zip(damage).map(scaled).collect();
            part(info, &codecs, &Limits::default())
        };
        let asked = Asked { protocols: vec!["prefix", "decode"], refused: vec![] };
        let decode = part(Protocol::Decode { residual: 0, chunk: 32 }, 10.0);
        SubjectReport::new(part(Protocol::PREFIX, 1.0), Some(decode), &asked, &Limits::default())
    };
    report(vec![
        of("HuggingFaceTB/SmolLM2-135M", 10, [1.0; 7], 7),
        of("models/qwen-0.5b.gguf", 6, [1.0, 2.0, 190.0, 20.0, 4.0, 1.0, 6.0], 7),
        of("models/gemma-270m.gguf", 1, [0.5, 2.0, 6.0, 3.0, 2.0, 1.0, 1.0], 6),
    ])
}

/// A baseline that no limit can be held against.
fn meaningless() -> SweepReport {
    let mut info = subject_info("HuggingFaceTB/SmolLM2-135M", 20, 30);
    info.model.vocab_size = 20;
    let part = part(info, &usual_codecs(), &Limits::default());
    report(vec![SubjectReport::new(part, None, &Asked::default(), &Limits::default())])
}

/// Of a codec on windows of a model with 4 layers.
pub fn codec_figures(codec: &str, kld: f64, windows: usize) -> CodecFigures {
    let info = subject_info("a/b", windows, 4);
    let baseline = Baseline { perplexity: 20.0, nll_per_window: vec![3.0; windows], floor: None };
    let seed = 1 + (kld * 1e9) as u64;
    figures(&made_up(codec, 4.25, [kld, 0.3 * kld], kld, [15.0, 18.0]), seed, &info, &baseline)
}

/// A codec on the whole cache and on its parts, of which some do hardly any damage.
pub fn attribution(
    codec: &str,
    layers: usize,
    kv_heads: usize,
    windows: usize,
) -> (CodecFigures, Attribution) {
    let mut random = noise(layers as u64);
    let mut part = |mean: f64| codec_figures(codec, mean * (3.0 * random()).exp(), windows);
    let alone = CacheParts::of(layers, kv_heads).map(|scope| match (scope.layer, scope.head) {
        (Some(_), _) => part(0.02 / layers as f64),
        (None, Some(_)) => part(0.02 / kv_heads as f64),
        (None, None) => part(0.01),
    });
    let whole = part(0.02);
    let attribution = Attribution::new(&whole, &alone);
    (whole, attribution)
}

fn figures(
    codec: &MadeUpCodec,
    seed: u64,
    info: &SubjectInfo,
    baseline: &Baseline,
) -> CodecFigures {
    let mut random = noise(seed);
    let [mean, deviation] = codec.log_ratio;
    let change: Vec<f64> = (0..info.windows).map(|_| mean + 1.7 * deviation * random()).collect();
    let kld: Vec<f64> = (0..info.windows).map(|_| codec.kld * (0.5 * random()).exp()).collect();
    let change_of = Estimate::of(&change);
    let percent = |log_ratio: f64| 100.0 * log_ratio.exp_m1();
    let kld_mean = Estimate::of(&kld).mean;
    let top1 = 1.0 / (1.0 + 3.5 * kld_mean.sqrt());
    let perplexity = baseline.perplexity * change_of.mean.exp();
    let per_token = 2.0 * (info.model.layers * info.model.kv_heads * info.model.head_dim) as f64;
    let distortion = |snr: Option<f64>| Distortion {
        rmse: Some(snr.map_or(0.0, |snr| 10f64.powf(-snr / 20.0))),
        snr_db: snr,
        cosine: Some(snr.map_or(1.0, |snr| 1.0 - 0.5 * 10f64.powf(-snr / 10.0).min(3.0))),
    };
    let mut layer_noise = noise(3);
    let layers = (0..info.model.layers)
        .map(|layer| {
            let lift = 4.0 * (layer as f64 * 0.7).sin() + layer_noise();
            LayerResult {
                layer,
                key: distortion(codec.snr[0].map(|snr| snr + lift)),
                value: distortion(codec.snr[1].map(|snr| snr - 0.5 * lift)),
                key_bits_per_value: None,
                value_bits_per_value: None,
            }
        })
        .collect();
    CodecFigures {
        codec: codec.codec.clone(),
        targets_affected: 1.0,
        bits_per_value: codec.bits,
        exact_share: None,
        compression_ratio: 16.0 / codec.bits,
        cache_bytes_per_token_f16: per_token * 2.0,
        cache_bytes_per_token: per_token * codec.bits / 8.0,
        perplexity,
        perplexity_change: perplexity - baseline.perplexity,
        perplexity_change_percent: percent(change_of.mean),
        perplexity_change_percent_ci95: change_of.ci95().map(|ends| ends.map(percent)),
        mean_log_ratio: change_of.mean,
        mean_log_ratio_ci95: change_of.ci95(),
        kld_mean,
        kld_mean_ci95: positive_ci95(&kld),
        kld_p50: 0.3 * kld_mean,
        kld_p90: 2.2 * kld_mean,
        kld_p99: 7.5 * kld_mean,
        kld_p999: 21.0 * kld_mean,
        kld_max: 40.0 * kld_mean,
        top1_agreement: top1,
        top1_agreement_ci95: change_of
            .ci95()
            .map(|_| [(top1 - 0.012).max(0.0), (top1 + 0.012).min(1.0)]),
        rms_delta_p: 0.3 * (1.0 - top1),
        nll_per_window: baseline
            .nll_per_window
            .iter()
            .zip(&change)
            .map(|(base, change)| base + TARGETS as f64 * change)
            .collect(),
        kld_per_window: kld,
        nll_change_by_position: (0..16u8)
            .map(|bin| {
                let at = mean * (1.4 - 0.05 * f64::from(bin)) + 0.4 * deviation * random();
                let half = change_of.ci95().map(|[low, high]| high - low);
                PositionBin {
                    start: info.prefix + 1 + usize::from(bin) * TARGETS / 16,
                    end: info.prefix + 1 + (usize::from(bin) + 1) * TARGETS / 16,
                    mean: at,
                    ci95: half.map(|half| [at - half, at + half]),
                }
            })
            .collect(),
        kld_histogram: histogram(kld_mean, info.scored_tokens),
        key: distortion(codec.snr[0]),
        value: distortion(codec.snr[1]),
        layers,
    }
}

/// About log-normal.
fn histogram(mean: f64, tokens: usize) -> Histogram {
    let edges: Vec<f64> = std::iter::once(0.0)
        .chain((-40..=8).map(|step| 10f64.powf(f64::from(step) / 4.0)))
        .collect();
    if mean == 0.0 {
        let mut counts = vec![0; edges.len()];
        counts[0] = tokens as u64;
        return Histogram { edges, counts };
    }
    let (middle, width) = ((0.3 * mean).ln(), 1.6);
    let below = |edge: f64| {
        (tokens as f64 / (1.0 + (-1.7 * (edge.ln() - middle) / width).exp())).round() as u64
    };
    let ends = edges[1..].iter().map(|edge| below(*edge)).chain([tokens as u64]);
    let starts = edges.iter().map(|edge| if *edge == 0.0 { 0 } else { below(*edge) });
    let counts = starts.zip(ends).map(|(from, to)| to - from).collect();
    Histogram { edges, counts }
}

pub fn report(subjects: Vec<SubjectReport>) -> SweepReport {
    let source = SweepSource {
        command: "kvgauge sweep configs/smollm2.toml --output out".into(),
        config_path: "configs/smollm2.toml".into(),
        config: "model = \"HuggingFaceTB/SmolLM2-135M\"\ntext = \"wiki.test.raw\"\ncontext = 512\n\
                 windows = 20\ncodec = [\"int4-g32\", \"int4-g64\"]\n"
            .into(),
    };
    SweepReport::new(vec![source], Limits::default(), BATCH, subjects, vec![], vec![])
}

fn usual_codecs() -> Vec<MadeUpCodec> {
    vec![
        made_up("f16", 16.0, [1e-7, 3e-6], 7.5e-8, [73.8, 73.7]),
        made_up("int8-g64", 8.25, [1e-4, 4e-4], 4e-5, [40.0, 43.0]),
        made_up("int4-g16", 5.0, [0.003, 0.008], 0.0099, [18.5, 21.1]),
        made_up("int4-g32", 4.5, [0.0088, 0.009], 0.0121, [16.3, 19.6]),
        made_up("int4-g64", 4.25, [0.038, 0.02], 0.025, [14.0, 18.4]),
        made_up("int4-g128", 4.125, [0.031, 0.02], 0.0679, [13.1, 16.9]),
        made_up("k:int4-g64/v:f16", 10.125, [0.03, 0.018], 0.0207, [14.0, 73.7]),
        made_up("k:f16/v:int4-g64", 10.125, [0.007, 0.006], 0.004, [73.8, 18.4]),
        made_up("int3-g64", 3.25, [0.31, 0.09], 0.31, [7.2, 11.6]),
        made_up("int2-g64", 2.25, [3.1, 0.4], 3.4, [-0.8, 3.9]),
    ]
}

/// Recommended is one that others beat: their intervals are too wide.
fn dominated_codecs() -> Vec<MadeUpCodec> {
    vec![
        made_up("f16", 16.0, [1e-7, 3e-6], 7.5e-8, [73.8, 73.7]),
        made_up("int4-g64", 4.25, [0.0, 0.03], 0.004, [14.0, 18.4]),
        made_up("int4-g32", 4.5, [0.0, 0.027], 0.003, [16.3, 19.6]),
        made_up("int4-g16-mid", 5.0, [-0.009, 0.001], 0.011, [18.5, 21.1]),
        made_up("int8-g64", 8.25, [1e-4, 4e-4], 4e-5, [40.0, 43.0]),
        made_up("int3-g64", 3.25, [0.31, 0.09], 0.31, [7.2, 11.6]),
    ]
}

/// Every codec of a grid, some with long names.
fn many_codecs(count: usize) -> Vec<MadeUpCodec> {
    let mut random = noise(11);
    let mut codecs = Vec::new();
    for bits in [2u32, 3, 4, 5, 6, 8] {
        for group in [16u32, 32, 64, 128] {
            for kind in ["", "-asym", "-asym-had", "k"] {
                let size = f64::from(bits) + 16.0 / f64::from(group);
                let damage = 3.0
                    * (-1.55 * (size - 2.0)).exp()
                    * (f64::from(group) / 64.0).powf(0.3)
                    * (0.5 * random()).exp();
                let snr = 6.02 * f64::from(bits) - 9.0 + 2.0 * random();
                let name = match kind {
                    "k" => format!("k:int{bits}-g{group}-asym-had/v:int{bits}-g64-mid-sink4"),
                    kind => format!("int{bits}-g{group}{kind}"),
                };
                let size = size + if kind.contains("asym") { 16.0 / f64::from(group) } else { 0.0 };
                let change = [damage * (1.0 + 0.3 * random()), 0.4 * damage + 1e-5];
                codecs.push(made_up(&name, size, change, damage, [snr, snr + 4.0]));
            }
        }
    }
    let step = codecs.len() as f64 / count as f64;
    (0..count).map(|i| codecs[(i as f64 * step) as usize].clone()).collect()
}

fn unfinished(codec: &str, error: Option<&str>) -> UnfinishedCell {
    UnfinishedCell {
        model: "HuggingFaceTB/SmolLM2-135M".into(),
        text: "wiki.test.raw".into(),
        context: error.map(|_| 512),
        protocol: error.map(|_| "decode".into()),
        codec: codec.into(),
        error: error.map(String::from),
        hint: error.map(|_| "use a group of at most 49152 values".into()),
    }
}

/// Name of the fixture and the report.
pub fn all() -> Vec<(&'static str, SweepReport)> {
    let model = "HuggingFaceTB/SmolLM2-135M";
    let usual = || report(vec![subject(model, 20, 30, &usual_codecs())]);
    let one = report(vec![subject(model, 20, 30, &usual_codecs()[3..4])]);

    let mut many = report(vec![
        subject(model, 10, 30, &many_codecs(40)),
        subject("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 10, 80, &many_codecs(20)),
    ]);
    many.sweeps.push(SweepSource {
        command: "kvgauge sweep configs/tinyllama.toml --output out --resume".into(),
        config_path: "configs/tinyllama.toml".into(),
        config: "model = \"TinyLlama/TinyLlama-1.1B-Chat-v1.0\"\n".into(),
    });
    let sixty = report(vec![subject(model, 20, 80, &many_codecs(60))]);

    let dominated = report(vec![subject(model, 20, 30, &dominated_codecs())]);

    let mut broken = usual();
    broken.failed.push(unfinished(
        "int4-g99999999",
        Some("int4-g99999999: the group is larger than a layer's keys: expected at most 49152, found 99999999"),
    ));
    broken.missing = vec![unfinished("int5-g64", None), unfinished("int6-g64", None)];
    let mut nothing = report(vec![]);
    nothing.failed.push(unfinished("int4-g64", Some("model.safetensors: no such file or folder")));

    let one_window = report(vec![subject(model, 1, 2, &usual_codecs())]);

    let mut exact = usual_codecs();
    exact.truncate(4);
    exact[0] =
        MadeUpCodec { snr: [None, None], kld: 0.0, log_ratio: [0.0, 0.0], ..exact[0].clone() };
    exact[1].snr[0] = None;
    let infinite = report(vec![subject(model, 20, 30, &exact)]);
    let only_exact = report(vec![subject(model, 5, 2, &exact[..1])]);

    let extreme = report(vec![subject(
        model,
        8,
        12,
        &[
            made_up("int2-g8", 3.0, [-2.3, 0.3], 50.0, [-40.0, -3.0]),
            made_up("int2-g256", 2.0625, [9.21, 0.9], 12.0, [-90.0, 0.0]),
            made_up("int4-g64", 4.25, [1e-13, 1e-14], 1e-12, [120.0, 180.0]),
            MadeUpCodec { snr: [None, None], ..made_up("f16", 16.0, [0.0, 0.0], 0.0, [0.0, 0.0]) },
            made_up("int8-g64", 8.25, [800.0, 1.0], 1e-5, [40.0, 40.0]),
        ],
    )]);

    let mut named = usual_codecs();
    named.truncate(6);
    named[2].codec = "k:int4-g128-asym-had/v:int4-g64-mid-sink4".into();
    named[3].codec = HOSTILE.into();
    let mut hostile = report(vec![subject(HOSTILE, 20, 4, &named)]);
    hostile.subjects[0].subject.text.source = HOSTILE.into();
    hostile.subjects[0].subject.model.architecture = HOSTILE.into();
    hostile.subjects[0].subject.model.provenance.revision = Some(HOSTILE.into());
    hostile.subjects[0].subject.model.provenance.files_sha256 =
        BTreeMap::from([(HOSTILE.into(), HOSTILE.into())]);
    hostile.sweeps[0] = SweepSource {
        command: HOSTILE.into(),
        config_path: HOSTILE.into(),
        config: format!("{HOSTILE}\n```\n</pre>{HOSTILE}"),
    };
    hostile.failed.push(UnfinishedCell {
        model: HOSTILE.into(),
        text: HOSTILE.into(),
        hint: Some(HOSTILE.into()),
        ..unfinished(HOSTILE, Some(HOSTILE))
    });

    // Keys that other fixtures leave at their default or out.
    let mut every_key = report(vec![
        subject(model, 20, 30, &usual_codecs()[2..5]),
        subject(model, 20, 30, &usual_codecs()[5..8]),
    ]);
    for (subject, set) in every_key.subjects.iter_mut().zip(["x86-64 avx512", "x86-64 avx2"]) {
        subject.subject = SubjectInfo {
            protocol: crate::eval::Protocol::Decode { residual: 32, chunk: 16 },
            bos_id: Some(1),
            instruction_set: set.into(),
            seed: 3,
            ..subject.subject.clone()
        };
    }
    every_key.failed = broken.failed.clone();
    every_key.missing = broken.missing.clone();

    vec![
        ("every-key", every_key),
        ("usual", usual()),
        ("both-protocols", both()),
        ("meaningless-baseline", meaningless()),
        ("one-cell", one),
        ("two-subjects", many),
        ("several-models", several_models()),
        ("sixty-cells", sixty),
        ("dominated", dominated),
        ("failed-and-missing", broken),
        ("nothing-finished", nothing),
        ("one-window", one_window),
        ("infinite-snr", infinite),
        ("only-exact", only_exact),
        ("extreme", extreme),
        ("hostile", hostile),
    ]
}
