//! `kvgauge codecs`: every codec with a name of its own, measured on a cache, and the
//! fields that other names are made of.

use crate::codec::{Codec, Geometry, Packing, RotaryTable, TensorCodec};
use crate::codec::{ENGINES, Engine, FIELDS, Field, FieldKind, NOISE_PRESET, PRESETS, Preset};
use crate::error::Result;
use serde::Serialize;

/// The cache that is packed to count bits: long enough that a first token kept exact hardly shows.
const TOKENS: usize = 512;
const KV_HEADS: usize = 4;
const HEAD_DIMS: [usize; 2] = [64, 128];

/// All there is to choose from.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Name and version of this form.
    pub schema: &'static str,
    /// The cache whose payloads give `bits_per_value`.
    pub measured_on: Measured,
    /// Presets, controls last.
    pub codecs: Vec<Listed>,
    /// In the order of a name.
    pub fields: Vec<ListedField>,
}

/// One layer's cache, whose payloads are counted.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Tokens.
    pub tokens: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Head sizes, one a measurement.
    pub head_dims: [usize; 2],
}

/// A codec with a name of its own.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub codec: &'static str,
    /// Its effect, in a few words.
    pub what: &'static str,
    /// The engine it stands for, the first of several; else whose it is, or `control`.
    pub engine: &'static str,
    /// How that one is asked for it, where it can be.
    pub flag: Option<String>,
    /// The engines that have it; none: kvgauge only.
    pub runs_on: Vec<RunsOn>,
    /// Of keys and values together, one for each of `head_dims`.
    pub bits_per_value: Vec<f64>,
    /// The demands on a model or a run, in a few words each.
    pub needs: Vec<String>,
}

/// An engine that has a codec.
#[derive(Debug, Serialize)]
pub struct RunsOn {
    /// Its name.
    pub engine: &'static str,
    /// How it is asked for the codec.
    pub flag: String,
}

/// A field of names.
#[derive(Debug, Serialize)]
pub struct ListedField {
    /// The key in `[grid]` of a settings file.
    pub key: &'static str,
    /// As it stands in a name.
    pub spelt: Vec<String>,
    /// Its effect, in a few words.
    pub what: String,
}

/// All presets and controls, and all fields that names are made of.
pub fn listing() -> Result<Listing> {
    Ok(Listing {
        schema: "kvgauge.codecs/1",
        measured_on: Measured { tokens: TOKENS, kv_heads: KV_HEADS, head_dims: HEAD_DIMS },
        codecs: PRESETS.iter().chain([&NOISE_PRESET]).map(Listed::new).collect::<Result<_>>()?,
        fields: FIELDS.iter().map(ListedField::new).collect(),
    })
}

impl Listed {
    fn new(preset: &Preset) -> Result<Self> {
        let bits = HEAD_DIMS.iter().map(|head_dim| bits_per_value(&preset.codec, *head_dim));
        let on = |engine: &'static Engine| {
            Some(RunsOn { engine: engine.name, flag: engine.flag(preset.name)? })
        };
        let runs_on: Vec<RunsOn> = ENGINES.iter().filter_map(on).collect();
        let (engine, flag) = match runs_on.first() {
            Some(RunsOn { engine, flag }) => (*engine, Some(flag.clone())),
            None => (preset.origin, preset.flag.map(Into::into)),
        };
        Ok(Self {
            codec: preset.name,
            what: preset.what,
            engine,
            flag,
            runs_on,
            bits_per_value: bits.collect::<Result<_>>()?,
            needs: needs(&preset.codec),
        })
    }
}

impl ListedField {
    fn new(field: &Field) -> Self {
        let spelt = match field.kind {
            FieldKind::Number(letters) => vec![format!("{letters}N")],
            FieldKind::Word(words) => words.iter().map(ToString::to_string).collect(),
            FieldKind::Flag => vec![field.key.to_string()],
        };
        Self { key: field.key, spelt, what: field.meaning() }
    }
}

/// Bits of the payloads of one layer over its values. Sizes do not depend on what the values are.
fn bits_per_value(codec: &Codec, head_dim: usize) -> Result<f64> {
    const THETA: f32 = 10_000.0;
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(THETA, head_dim), TOKENS);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(TOKENS, head_dim) };
    let count = KV_HEADS * TOKENS * head_dim;
    let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect();
    let stored = |codec: TensorCodec| -> Result<usize> {
        Ok(codec.compress_measured(&values, &geometry)?.0.stored_bytes())
    };
    Ok(8.0 * (stored(codec.key)? + stored(codec.value)?) as f64 / (2 * count) as f64)
}

/// The demands of a codec on a model or a run, in a few words each.
fn needs(codec: &Codec) -> Vec<String> {
    let packings: Vec<&Packing> =
        [&codec.key, &codec.value].into_iter().filter_map(TensorCodec::packing).collect();
    let mut needs = Vec::new();
    if packings.iter().any(|packing| packing.prerope()) {
        needs.push("keys before RoPE".to_string());
    }
    needs.extend(packings.iter().find_map(|packing| packing.rotation_needs()).map(Into::into));
    let blocks = [codec.key, codec.value].map(|side| side.block_tokens(HEAD_DIMS[0]));
    match blocks {
        [Ok(key), Ok(value)] if key.max(value) > 1 => {
            needs.push(format!("blocks of {} tokens under decode", key.max(value)));
        }
        [Ok(_), Ok(_)] => {}
        _ => needs.push("the whole prefix: no decode".into()),
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_formats() {
        let listing = listing().unwrap();
        let bits = |name: &str| {
            let listed = listing.codecs.iter().find(|listed| listed.codec == name).expect(name);
            listed.bits_per_value.clone()
        };
        for (name, expected) in [
            ("int4-g64", 4.25),
            ("q4_0", 4.5),
            ("q4_1", 5.0),
            ("q5_0", 5.5),
            ("q5_1", 6.0),
            ("q8_0", 8.5),
            ("iq4_nl", 4.5),
            ("quanto4", 4.5),
            ("kivi4", 4.5),
            ("turbo4", 4.25),
            ("fp8-e4m3", 8.0),
            ("fp8-e5m2", 8.0),
            ("mxfp4", 4.25),
            ("mxfp8", 8.25),
            ("nvfp4", 4.5),
            ("hqq4", 4.5),
            ("hqq2", 2.5),
            ("f16", 16.0),
            ("noise", 16.0),
        ] {
            assert_eq!(bits(name), [expected; 2], "{name}");
        }
        // Two scales for a whole layer.
        for (name, at_least) in [("fp8-e4m3-per-tensor", 8.0), ("nvfp4-per-tensor", 4.5)] {
            let bits = bits(name);
            assert!(
                bits.iter().all(|b| *b > at_least && *b < at_least + 0.001),
                "{name}: {bits:?}"
            );
        }
        // 8 bits and an f32 for a head vector.
        for name in ["fp8-per-token-head", "int8-per-token-head"] {
            assert_eq!(bits(name), [8.5, 8.25], "{name}");
        }
        // The tiles of KVarNConfig: codes, three f16 a channel of keys and token of values, less one.
        assert_eq!(bits("kvarn4"), [4.5625, 4.375]);
        assert_eq!(bits("kvarn-k4v2"), [3.5625, 3.375]);
        // vLLM's bytes for a key and a value of one head, at its head sizes of 64 and 128.
        for (name, bytes) in [
            ("turboquant-k8v4", [100.0, 196.0]),
            ("turboquant-4bit-nc", [70.0, 134.0]),
            ("turboquant-k3v4-nc", [62.0, 118.0]),
            ("turboquant-3bit-nc", [54.0, 102.0]),
        ] {
            assert_eq!(bits(name), [bytes[0] / 16.0, bytes[1] / 32.0], "{name}");
        }
        // 4.25 bits and one token of 512 in 16.
        for bits in bits("kvgauge4") {
            assert!((bits - (4.25 * 511.0 + 16.0) / 512.0).abs() < 1e-9, "{bits}");
        }
    }

    #[test]
    fn what_a_codec_needs_is_said() {
        let listing = listing().unwrap();
        let needs = |name: &str| {
            let listed = listing.codecs.iter().find(|listed| listed.codec == name).expect(name);
            listed.needs.join("; ")
        };
        assert_eq!(needs("kvgauge4"), "keys before RoPE; head vectors of a multiple of 4");
        assert_eq!(needs("kivi4"), "blocks of 64 tokens under decode");
        assert_eq!(needs("kvarn4"), "even head vectors; blocks of 128 tokens under decode");
        for name in ["fp8-e4m3-per-tensor", "fp8-e5m2-per-tensor", "nvfp4-per-tensor", "hqq4"] {
            assert_eq!(needs(name), "the whole prefix: no decode", "{name}");
        }
        assert_eq!(needs("turbo4"), "even head vectors");
        let by_token = ["fp8-e4m3", "fp8-e5m2", "fp8-per-token-head", "int8-per-token-head"];
        let blocks = ["mxfp4", "mxfp8", "nvfp4"];
        let others = ["int4-g64", "q4_0", "quanto4", "f16", "noise"];
        for name in by_token.into_iter().chain(blocks).chain(others) {
            assert_eq!(needs(name), "", "{name}");
        }
    }

    #[test]
    fn fields_are_spelt_as_the_parser_takes_them() {
        for field in listing().unwrap().fields {
            for spelt in field.spelt {
                let number = if field.key == "bits" { "3" } else { "32" };
                let part = spelt.replace('N', number);
                let name = if field.key == "bits" { part } else { format!("int4-{part}") };
                assert!(name.parse::<Codec>().is_ok(), "{name}");
            }
        }
    }
}
