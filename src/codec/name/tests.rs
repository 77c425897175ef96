//! Names that are some, and names that are none.

use super::*;
use crate::codec::CacheCodec;
use crate::codec::scheme::NamedLevels;
use crate::codec::{Kvarn, TileRows};

fn message(name: &str) -> String {
    name.parse::<Codec>().expect_err(name).to_string()
}

fn hint(name: &str) -> String {
    name.parse::<Codec>().expect_err(name).hint_text().expect(name).to_string()
}

/// Every combination of fields that is a name, for a few sizes.
fn schemes() -> Vec<Scheme> {
    let flags = |index: usize| [0, 1, 2, 3, 4, 5].map(|bit| index >> bit & 1 == 1);
    let mut all = Vec::new();
    for (group, sink) in [(64, 0), (MIN_GROUP, 1), (48, 4), (u32::MAX as usize, 12)] {
        for (bits, NamedLevels { levels, bits: range, .. }) in
            (2..=8).flat_map(|b| Levels::NAMED.map(|named| (b, named)))
        {
            for [channel, prerope, centred, had, searched, small_scales] in (0..64).map(flags) {
                let rotation = if had { Rotation::Hadamard } else { Rotation::None };
                let scheme = Scheme {
                    bits,
                    group,
                    levels,
                    channel,
                    prerope,
                    centred,
                    rotation,
                    searched,
                    scales: if small_scales { ScaleFormat::Small } else { ScaleFormat::F16 },
                    sink,
                };
                let signed = levels == Levels::SignedExtreme && small_scales;
                if range.contains(&bits) && !signed {
                    all.push(scheme);
                }
            }
        }
    }
    all
}

#[test]
fn every_codec_survives_print_and_parse() {
    let survives = |codec: Codec| {
        let name = codec.to_string();
        assert_eq!(name.parse::<Codec>().expect(&name), codec, "{name}");
    };
    let int4 = TensorCodec::int4(64);
    let presets = PRESETS.iter().filter_map(|preset| match preset.codec.key {
        TensorCodec::Packed(Packing::Scheme(scheme)) => Some(scheme),
        _ => None,
    });
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    let centres = flags.into_iter().flat_map(|(prerope, shaped)| {
        FittedLevels::ALL.map(|levels| {
            Packing::TwoCentre(TwoCentre { levels, prerope, shaped, blocks: BlockRule::Largest })
        })
    });
    let tiles = [TileRows::Channels, TileRows::Tokens]
        .into_iter()
        .flat_map(|rows| [2, 3, 4].map(|bits| Packing::Kvarn(Kvarn { bits, rows })));
    let packings = schemes().into_iter().chain(presets).map(Packing::Scheme).chain(centres);
    let packings = packings.chain(tiles);
    for packing in packings {
        let key = TensorCodec::Packed(packing);
        let value = key.for_values();
        survives(Codec { key, value });
        survives(Codec { key, value: int4 });
        survives(Codec { key: TensorCodec::F16, value });
    }
    for &Preset { name, codec, .. } in PRESETS {
        assert_eq!(name.parse::<Codec>().expect(name), codec, "{name}");
        survives(codec);
        survives(Codec { key: codec.value, value: codec.key.for_values() });
    }
}

/// Their fields were names before they were: files and results have those.
#[test]
fn aliases_go_by_their_fields() {
    let aliases: Vec<_> =
        PRESETS.iter().filter(|preset| preset.codec.to_string() != preset.name).collect();
    let names: Vec<_> = aliases.iter().map(|preset| preset.codec.to_string()).collect();
    assert_eq!(
        names,
        ["int6-g32-ext", "int3-g32-ext", "int2-g32-ext", "k:int2-g32-asym-ch/v:int2-g32-asym"]
    );
}

#[test]
fn defaults_are_accepted_and_left_out_on_print() {
    for (typed, printed) in [
        ("int4", "int4-g64"),
        ("int4-sym", "int4-g64"),
        ("int4-g32-sym", "int4-g32"),
        ("int4-g32-sink0", "int4-g32"),
        ("k:int4/v:int4-g64", "int4-g64"),
        ("k:f16/v:f16", "f16"),
        ("k:int4/v:f16", "k:int4-g64/v:f16"),
        ("int4-g32-ext", "q4_0"),
        ("k:int4-g64-asym-ch/v:int4-asym", "kivi4"),
        ("k:kivi4/v:kivi4", "kivi4"),
        ("k:f16/v:kivi4", "k:f16/v:int4-g64-asym"),
        ("int4-prerope", "int4-g64-prerope"),
        ("k:int4-prerope/v:int4", "int4-g64-prerope"),
    ] {
        assert_eq!(typed.parse::<Codec>().expect(typed).to_string(), printed);
    }
}

#[test]
fn what_cannot_be_combined_says_why() {
    assert!(message("int6-lm").contains("at most 5 bits with lm, found 6"));
    assert!(message("int4-ext-s8").contains("its scales have a sign"));
    assert!(message("k:int4/v:int4-prerope").contains("they have no position"));
    assert!(message("int4-sink99999999999").contains("at most 4294967295 sinks"));
}

#[test]
fn fields_in_another_order_or_twice_are_no_name() {
    for name in [
        "int4-sym-g64",
        "int4-g64-g64",
        "int4-int4",
        "int8-g64-g64",
        "g64",
        "int4-g7-g64",
        "int4-g64-sym-sym",
        "int4-asym-sym",
        "int4-had-had",
        "int4-s8-had",
        "int4-sink4-had",
        "int4-sink",
        "int4-g",
        "int4-g+64",
        "int4-",
        "int4--g64",
        "-int4",
        " int4",
        "f16-g64",
        "int",
        "",
        "k:int4/v:",
        "k:/v:int4",
        "v:int4/k:int4",
        "k:k:int4/v:int4/v:int4",
        "noise",
        "noise-",
        "noise-int4",
        "tc17",
        "tc19-shape-prerope",
        "tc19-",
        "tc19-g64",
        "noiseint4",
    ] {
        assert!(message(name).contains("no codec of that name"), "{name}");
    }
    assert!(message("k:int4").contains("no `/v:`"));
    assert!(message("int9").contains("2 to 8 bits"));
    assert!(message("int4-g7").contains("at least 8, found 7"));
    assert!(message("int4-g4294967296").contains("at most 4294967295"));
}

#[test]
fn a_composed_name_has_its_fields_in_order() {
    let nothing = FieldTexts::default();
    assert_eq!(compose(&nothing, &nothing), "int4");
    let all = ["int3", "g32", "asym", "ch", "prerope", "ctr", "had", "mse", "s8", "sink4"];
    assert_eq!(compose(&all, &all), all.join("-"));
    assert!(all.iter().enumerate().all(|(index, part)| place(part) == Some(index)));
    let mut key = nothing;
    (key[GROUP], key[6]) = ("g32", "had");
    assert_eq!(compose(&key, &nothing), "k:int4-g32-had/v:int4");
}

#[test]
fn hints_name_what_was_probably_meant() {
    for (typed, meant) in [
        ("int4-64", "did you mean int4-g64?"),
        ("int-4", "did you mean int4-g64?"),
        ("int4_g64", "did you mean int4-g64?"),
        ("INT4-G32", "did you mean int4-g32?"),
        ("int4_sym_g64", "did you mean int4-g64?"),
        ("int4-sym-g48", "did you mean int4-g48?"),
        ("fp16", "fp16 is 16 bits for every value: here f16"),
        ("int4_asym_g64", "did you mean int4-g64-asym?"),
        ("hadamard_int4_sym_g64", "did you mean int4-g64-had?"),
        ("kivi", "kivi is KIVI's cache: here kivi4"),
        ("q4", "did you mean q4_0?"),
        ("q4-0", "did you mean q4_0?"),
        ("int4-g64-hadd", "did you mean int4-g64-had?"),
        ("int4-g64-assym-mse", "did you mean int4-g64-asym-mse?"),
        ("tc17", "did you mean tc16?"),
        ("tc19-shap", "did you mean tc19-shape?"),
        ("tc16_prerope", "did you mean tc16-prerope?"),
        ("tc19-shape-prerope", "did you mean tc19-prerope-shape?"),
        ("something-else", "for example int4-g64"),
    ] {
        assert!(hint(typed).starts_with(meant), "{typed}: {}", hint(typed));
    }
}

#[test]
fn hints_never_name_what_is_no_codec() {
    let typed = [
        "nf4",
        "fp8",
        "Q8_0",
        "K:q8_0/V:q4_0",
        "q8_0/q4_0",
        "k:q8_0,v:q4_0",
        "v:q4_0/k:q8_0",
        "k=q8_0 v=q4_0",
        "q4_0-mse",
        "q4_0-sink4-had",
        "hadamard_int4_sym_g64",
        "int4_g64",
    ];
    for typed in typed {
        let hint = hint(typed);
        let rest =
            ["did you mean ", "nearest is ", ": here "].iter().find_map(|w| hint.split(w).nth(1));
        let name = rest.expect(&hint).split(['?', ',']).next().unwrap();
        assert!(name.parse::<Codec>().is_ok(), "{typed}: {hint}");
    }
}

#[test]
fn names_of_other_engines_say_what_they_are() {
    for (typed, words) in [
        ("nf4", ["bitsandbytes' 4-bit NormalFloat", "nearest is int4-g64-lm"]),
        ("fp8", ["E4M3", "here fp8-e4m3"]),
        ("none", ["every run compares with", "f16 is the 16-bit control"]),
        ("bf16", ["--dtype bf16", "f16 is the 16-bit control"]),
        ("k:fp8/v:q4_0", ["fp8 is 8-bit floats", "here fp8-e4m3"]),
        ("K:fp8/V:nf4", ["fp8 is 8-bit floats", "here fp8-e4m3"]),
        ("fp8/q4_0", ["fp8 is 8-bit floats", "here fp8-e4m3"]),
        ("q4_K_M", ["q4_K_M is a GGUF type for weights", "nearest is q4_1"]),
        ("turboquant_4bit_nc", ["vLLM's TurboQuant", "here turboquant-4bit-nc, in every layer"]),
        ("AWQ", ["quantise weights and not the cache", "int4-g64"]),
    ] {
        let hint = hint(typed);
        assert!(words.iter().all(|word| hint.contains(word)), "{typed}: {hint}");
    }
}

#[test]
fn pairs_lists_and_layers_are_told_how_they_are_written() {
    for (typed, meant) in [
        ("q8_0/q4_0", "did you mean k:q8_0/v:q4_0?"),
        ("Q8_0/Q4_0", "did you mean k:q8_0/v:q4_0?"),
        ("k:q8_0,v:q4_0", "did you mean k:q8_0/v:q4_0?"),
        ("k:q8_0 v:q4_0", "did you mean k:q8_0/v:q4_0?"),
        ("K:q8_0/V:q4_0", "did you mean k:q8_0/v:q4_0?"),
        ("K=q8_0,V=q4_0", "did you mean k:q8_0/v:q4_0?"),
        ("v:q4_0/k:q8_0", "did you mean k:q8_0/v:q4_0?"),
        ("key:q8_0/value:q4_0", "did you mean k:q8_0/v:q4_0?"),
        ("q8_0 ", "did you mean q8_0?"),
        ("int4‑g64", "did you mean int4-g64?"),
        ("q8_0,q4_0", "one name here; a settings file lists them: codec = [\"q8_0\", \"q4_0\"]"),
        ("0-1:f16/int4-g64", "codecs of some layers are said behind one for all others"),
        ("first2:q8_0/int4-g64", "codecs of some layers are said behind one for all others"),
        ("int4-g64-skip0,3", "codecs of some layers are said behind one for all others"),
        ("kvgauge4+q8_0@0,1,-1", "codecs of some layers are said behind one for all others"),
        ("q4_0-mse", "did you mean int4-g32-ext-mse? q4_0 is int4-g32-ext"),
        ("q8_0-mse", "q8_0 takes no further fields"),
        ("kvgauge4-had", "kvgauge4 takes no further fields"),
        ("int4-g64-hadd", "did you mean int4-g64-had?"),
    ] {
        assert!(hint(typed).starts_with(meant), "{typed}: {}", hint(typed));
    }
    // No hint repeats what nobody can read.
    assert!(hint(&"q".repeat(5000)).starts_with("for example"));
}

#[test]
fn commas_part_names_but_not_layers_nor_halves_of_a_pair() {
    for (list, names) in [
        ("q4_0", &["q4_0"][..]),
        ("q4_0,q8_0", &["q4_0", "q8_0"]),
        ("q4_0, q8_0 ,f16", &["q4_0", "q8_0", "f16"]),
        ("k:q8_0/v:q4_0,f16", &["k:q8_0/v:q4_0", "f16"]),
        ("k:q8_0/v:q4_0,k:f16/v:q4_0", &["k:q8_0/v:q4_0", "k:f16/v:q4_0"]),
        ("f16,k:q8_0/v:q4_0", &["f16", "k:q8_0/v:q4_0"]),
        ("k:q8_0,v:q4_0", &["k:q8_0,v:q4_0"]),
        ("v:q8_0,k:q4_0", &["v:q8_0,k:q4_0"]),
        ("kvgauge4+q8_0@0,1,-1", &["kvgauge4+q8_0@0,1,-1"]),
        ("kvgauge4+q8_0@0,1,-1,f16", &["kvgauge4+q8_0@0,1,-1", "f16"]),
        ("", &[""]),
        ("q4_0,", &["q4_0", ""]),
    ] {
        assert_eq!(split_names(list), names, "{list}");
    }
}

#[test]
fn codecs_of_layers_have_one_name() {
    for (typed, printed) in [
        ("kvgauge4+q8_0@0,1,-1", "kvgauge4+q8_0@0-1,-1"),
        ("int4+k:f16/v:int4@4-7", "int4-g64+k:f16/v:int4-g64@4-7"),
        ("kvgauge4+q8_0@-1+q8_0@1+q8_0@0", "kvgauge4+q8_0@0-1,-1"),
        ("q4_0+int4-g32-ext@3", "q4_0"),
        ("k:int4-g32/v:int4+f16@2-3,9", "k:int4-g32/v:int4-g64+f16@2-3,9"),
        ("int4-g64", "int4-g64"),
        ("q4_0+q8_0@0--1", "q8_0"),
    ] {
        let codec = typed.parse::<CacheCodec>().expect(typed);
        assert_eq!(codec.to_string(), printed, "{typed}");
        assert_eq!(printed.parse::<CacheCodec>().expect(printed), codec, "{typed}");
    }
    let many = format!("q4_0+q8_0@0{}", ",0".repeat(2000));
    for (typed, words, hinted) in [
        ("q8_0@0,1", "no codec of that name", "behind one for all others"),
        ("q4_0+q8_0", "expected `+NAME@LAYERS`, found `+q8_0`", "kvgauge4+q8_0@0,1,-1"),
        ("q4_0+q8_0@", "expected a layer or a range of layers, found ``", "0,4-7,-1"),
        ("q4_0+q8_0@3-1", "expected a range that runs forward, found `3-1`", "0,4-7,-1"),
        ("q4_0+q4_9@1", "`q4_9`: no codec of that name", "did you mean q4_0?"),
        ("q4_0+", "expected `+NAME@LAYERS`, found `+`", "kvgauge4+q8_0@0,1,-1"),
        ("+q4_0@1", "``: no codec of that name", "a name is expected"),
        ("k:int4/v:int4-prerope+q4_0@1", "values without `prerope`", "keys only"),
        (&many, "expected at most 1024 layers and ranges", "4-27"),
    ] {
        let error = typed.parse::<CacheCodec>().expect_err(typed);
        assert!(error.to_string().contains(words), "{error}");
        let hint = error.hint_text().expect(typed);
        assert!(hint.contains(hinted), "{typed}: {hint}");
    }
}
