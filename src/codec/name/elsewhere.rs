//! Names that other engines, papers and people use, what each is, and what is nearest here.
//!
//! None of them is taken for something else in silence: they end up in the hint of an error.

/// The relation of a name elsewhere to the codecs here.
pub enum Here {
    /// The same numbers, or the same up to what the note says.
    Is(&'static str, &'static str),
    /// Not built; this is nearest, for the reason given.
    Near(&'static str, &'static str),
    /// No codec at all; what to do instead, after "f16 is the 16-bit control".
    Uncompressed(&'static str),
}
use Here::{Is, Near, Uncompressed};

pub struct Elsewhere {
    /// In lower case, `_` between words.
    pub names: &'static [&'static str],
    pub what: &'static str,
    pub here: Here,
}

/// The entry of a name, whatever its case and dashes.
pub fn find(typed: &str) -> Option<&'static Elsewhere> {
    let joined = typed.trim().to_ascii_lowercase().replace(['-', ' ', '.'], "_");
    // `kivi-2bit`, `hqq_4_bits`, `quanto_int4` are `kivi2`, `hqq4`, `quanto4`.
    let plain = joined.trim_end_matches('s').trim_end_matches("bit").trim_end_matches('_');
    let plain = match plain.rsplit_once(|c: char| !c.is_ascii_digit()) {
        Some((_, digits)) if !digits.is_empty() => {
            let word = plain[..plain.len() - digits.len()].trim_end_matches('_');
            format!("{}{digits}", word.strip_suffix("_int").unwrap_or(word))
        }
        _ => plain.to_string(),
    };
    let named = |name: &str| ELSEWHERE.iter().find(|entry| entry.names.contains(&name));
    named(&joined).or_else(|| named(&plain))
}

impl Elsewhere {
    /// Names of codecs here that hints may give.
    #[cfg(test)]
    pub fn nearest(&self) -> &'static str {
        match self.here {
            Is(name, _) | Near(name, _) => name,
            Uncompressed(_) => "f16",
        }
    }

    /// One sentence, about the name as it was typed.
    pub fn hint(&self, typed: &str) -> String {
        let Self { what, here, .. } = self;
        match here {
            Is(name, "") => format!("{typed} is {what}: here {name}"),
            Is(name, note) => format!("{typed} is {what}: here {name}, {note}"),
            Near(name, why) => {
                format!("{typed} is {what}, which kvgauge does not build; nearest is {name}, {why}")
            }
            Uncompressed(instead) => {
                format!("{typed} is {what}; f16 is the 16-bit control{instead}")
            }
        }
    }
}

const fn entry(names: &'static [&'static str], what: &'static str, here: Here) -> Elsewhere {
    Elsewhere { names, what, here }
}

const SCALE_OF_ONE: &str = "with a scale of 1, as an engine has it without calibration";
const ALL_LAYERS: &str =
    "in every layer; vLLM leaves two layers at each end in 16 bits, as --engine does";
const UNEVEN: &str = "4 bits with uneven levels in blocks of 32";
const WEIGHTS: &str = "a GGUF type for weights in super-blocks of 256";
const NO_CACHE_TYPE: &str = "a way to quantise weights and not the cache";
const EVICTION: &str = "a way to drop tokens of the cache";
const KEEPS_ALL: &str = "which keeps every token";

pub const ELSEWHERE: &[Elsewhere] = &[
    // --- No compression
    entry(
        &["none", "no", "off", "auto", "false", "raw", "identity", "baseline", "uncompressed"],
        "the untouched cache, which every run compares with",
        Uncompressed(""),
    ),
    entry(
        &["f32", "fp32", "float32", "float"],
        "the untouched cache under --dtype f32, which every run compares with",
        Uncompressed(""),
    ),
    entry(
        &["bf16", "bfloat16"],
        "16 bits of another kind, and no codec here",
        Uncompressed("; --dtype bf16 computes and keeps the whole cache in bf16"),
    ),
    entry(
        &["fp16", "float16", "half"],
        "16 bits for every value",
        Is("f16", "a control: the floor below any damage"),
    ),
    // --- 8-bit floats: vLLM, SGLang, TensorRT-LLM
    entry(
        &["fp8", "f8", "fp8_e4m3", "fp8_e4m3fn", "e4m3", "fp8e4m3", "float8_e4m3fn", "f8_e4m3"],
        "8-bit floats of the kind E4M3",
        Is("fp8-e4m3", SCALE_OF_ONE),
    ),
    entry(
        &["fp8_e5m2", "e5m2", "fp8e5m2", "float8_e5m2", "f8_e5m2"],
        "8-bit floats of the kind E5M2",
        Is("fp8-e5m2", SCALE_OF_ONE),
    ),
    entry(
        &["fp8_inc"],
        "vLLM's E4M3 for Gaudi",
        Near("fp8-e4m3", "of the same bits, with a wider range"),
    ),
    entry(
        &["fp8_per_token_head"],
        "vLLM's E4M3 with a scale for each token and head",
        Is("fp8-per-token-head", ""),
    ),
    entry(
        &["fp8_ds_mla"],
        "vLLM's format for the latent cache of DeepSeek",
        Near("fp8-e4m3", "for keys and values"),
    ),
    entry(&["mxfp8_e4m3", "mx8"], "MXFP8 of E4M3", Is("mxfp8", "")),
    entry(
        &["mxfp8_e5m2"],
        "MXFP8 of E5M2",
        Near("mxfp8", "of E4M3, which has more bits of mantissa"),
    ),
    entry(
        &["fp6", "mxfp6", "fp6_e3m2", "fp6_e2m3"],
        "6-bit floats",
        Near("int6-g32-s8", "6 bits with even levels and an 8-bit scale for 32 values"),
    ),
    // --- 4-bit floats
    entry(
        &["nf4", "bnb4", "bitsandbytes", "bnb_nf4"],
        "bitsandbytes' 4-bit NormalFloat",
        Near("int4-g64-lm", "4 bits with levels for a Gaussian"),
    ),
    entry(
        &["nuq4", "kvquant", "kvquant4"],
        "KVQuant's 4 bits with levels from a calibration",
        Near("int4-g64-lm-prerope", "levels for a Gaussian, keys before RoPE"),
    ),
    entry(
        &["nuq3", "kvquant3"],
        "KVQuant's 3 bits with levels from a calibration",
        Near("int3-g64-lm-prerope", "levels for a Gaussian, keys before RoPE"),
    ),
    entry(
        &["nuq2", "kvquant2"],
        "KVQuant's 2 bits with levels from a calibration",
        Near("int2-g64-lm-prerope", "levels for a Gaussian, keys before RoPE"),
    ),
    entry(&["mx4", "mxfp4_e2m1"], "4-bit floats (E2M1) in blocks of 32", Is("mxfp4", "")),
    entry(
        &["fp4_e2m1"],
        "SGLang's 4-bit floats (E2M1) with a power of two as scale for 16 values, rounded up",
        Near("mxfp4", "with one for 32 values, rounded down"),
    ),
    entry(
        &["fp4", "f4", "e2m1", "float4_e2m1fn_x2"],
        "4-bit floats (E2M1), and with which scales is not said",
        Near("nvfp4", "with an E4M3 scale for 16 values; mxfp4 has a power of two for 32"),
    ),
    entry(
        &["nvfp4_4over6"],
        "vLLM's NVFP4 that puts the largest value of a block at 4 or at 6",
        Near("nvfp4", "which puts it at 6"),
    ),
    // --- TurboQuant: vLLM and forks of llama.cpp
    entry(
        &["turboquant", "turboquant4", "turboquant_4bit", "tq4", "tq4_0", "turbo4_0"],
        "TurboQuant with 4 bits",
        Near("turboquant-4bit-nc", "vLLM's"),
    ),
    entry(
        &["turbo3", "tq3", "tq3_0", "turbo3_0", "turbo3_tcq", "turboquant3"],
        "TurboQuant with 3 bits",
        Near("turboquant-3bit-nc", "vLLM's"),
    ),
    entry(
        &["turbo2", "tq2", "tq2_0", "turbo2_0", "turbo2_tcq", "turboquant2"],
        "TurboQuant with 2 bits",
        Near("int2-g64-lm-had", "Hadamard and levels for a Gaussian"),
    ),
    entry(
        &["turboquant_4bit_nc"],
        "vLLM's TurboQuant: 4-bit keys with corrected norms, 4-bit values with even levels",
        Is("turboquant-4bit-nc", ALL_LAYERS),
    ),
    entry(
        &["turboquant_k8v4"],
        "vLLM's TurboQuant: keys in 8-bit floats, 4-bit values with even levels",
        Is("turboquant-k8v4", ALL_LAYERS),
    ),
    entry(
        &["turboquant_k3v4_nc"],
        "vLLM's TurboQuant: 3-bit keys with corrected norms, 4-bit values with even levels",
        Is("turboquant-k3v4-nc", ALL_LAYERS),
    ),
    entry(
        &["turboquant_3bit_nc"],
        "vLLM's TurboQuant: 3-bit keys with corrected norms, 3-bit values with even levels",
        Is("turboquant-3bit-nc", ALL_LAYERS),
    ),
    // --- Integers
    entry(
        &["int8_per_token_head", "kv8", "kv_int8", "int8_kv", "kv_cache_int8"],
        "8 bits with a scale for each token and head",
        Is("int8-per-token-head", "as vLLM has it"),
    ),
    entry(
        &["int4_per_token_head"],
        "vLLM's 4 bits with a zero point for each token and head, after signs and Hadamard",
        Is("int4-per-token-head", ""),
    ),
    entry(
        &["kv4", "kv_int4", "int4_kv", "qserve"],
        "4 bits from a minimum for each token and head",
        Near(
            "int4-g64-asym",
            "the same kind of group where head vectors have 64 values, int4-g128-asym where 128",
        ),
    ),
    entry(
        &["4", "4bit", "i4", "u4", "uint4", "w4", "affine4"],
        "4-bit integers, and which is not said",
        Near("int4-g64", "symmetric; int4-g64-asym starts from a minimum"),
    ),
    entry(&["mlx"], "MLX's quantised cache", Is("mlx8", "with 8 bits")),
    entry(
        &["exllamav3", "exllama", "exl3_4"],
        "exllamav3's quantised cache",
        Is("exllamav3-4", "its 4 bits"),
    ),
    entry(
        &["kvarn", "kvarn4", "kvarn_k4v4", "kvarn_k4v4_g128"],
        "KVarN (arXiv 2606.03458), scales of the rows and columns of tiles of 128 tokens",
        Is("kvarn4", "without its exact first tokens"),
    ),
    entry(
        &["kvarn_k4v2", "kvarn_k4v2_g128"],
        "KVarN with 4 bits for keys and 2 for values",
        Is("kvarn-k4v2", "without its exact first tokens"),
    ),
    entry(&["kvarn_k3v3"], "KVarN with 3 bits", Is("kvarn3", "")),
    entry(&["kvarn_k2v2"], "KVarN with 2 bits", Is("kvarn2", "")),
    entry(
        &["kvarn_k4v4_g64", "kvarn_k4v2_g64"],
        "KVarN with tiles of 64 tokens",
        Near("kvarn4", "with tiles of 128"),
    ),
    entry(
        &["8", "8bit", "i8", "u8", "uint8", "s8", "affine8"],
        "8-bit integers, and which is not said",
        Near("int8-g64", "symmetric; q8_0 is llama.cpp's"),
    ),
    entry(
        &["3", "3bit", "i3", "uint3", "q3"],
        "3-bit integers, and whose is not said",
        Near("q3_0", "BeeLlama's: from a signed extreme, blocks of 32"),
    ),
    entry(
        &["2", "2bit", "i2", "uint2", "q2"],
        "2-bit integers, and whose is not said",
        Near("q2_1", "BeeLlama's: from a minimum, blocks of 32"),
    ),
    // --- Hugging Face's QuantizedCache and KIVI
    entry(
        &["quanto", "quantizedcache", "quantized"],
        "transformers' QuantizedCache",
        Is("quanto4", "its 4 bits"),
    ),
    entry(
        &["quanto_int2", "quanto2"],
        "transformers' QuantizedCache with 2 bits",
        Is("quanto2", ""),
    ),
    entry(
        &["quanto8"],
        "Quanto with 8 bits",
        Near("int8-g64-asym", "8 bits from a minimum in groups of 64"),
    ),
    entry(
        &["hqq", "hqq4"],
        "transformers' QuantizedCache with HQQ",
        Is("hqq4", "its 4 bits, with axis_key and axis_value of 1"),
    ),
    entry(
        &["hqq3"],
        "transformers' QuantizedCache with HQQ, 3 bits",
        Near("int3-g64-asym-mse", "3 bits from a minimum, the scale searched"),
    ),
    entry(
        &["hqq2"],
        "transformers' QuantizedCache with HQQ, 2 bits",
        Is("hqq2", "with axis_key and axis_value of 1"),
    ),
    entry(&["hqq1"], "transformers' QuantizedCache with HQQ, 1 bit", Near("hqq2", "with 2 bits")),
    entry(
        &["hqq8"],
        "transformers' QuantizedCache with HQQ, 8 bits",
        Near("int8-g64-asym-mse", "8 bits from a minimum, the scale searched"),
    ),
    entry(
        &["kivi_int2", "kivi2"],
        "KIVI with 2 bits",
        Is("kivi2", "with groups of 32 and no residual (--residual keeps recent tokens)"),
    ),
    entry(
        &["kivi3"],
        "KIVI with 3 bits",
        Is("k:int3-g64-asym-ch/v:int3-g64-asym", "with groups of 64"),
    ),
    entry(
        &["kivi8"],
        "KIVI with 8 bits",
        Is("k:int8-g64-asym-ch/v:int8-g64-asym", "with groups of 64"),
    ),
    entry(&["kivi_int4", "kivi4"], "KIVI with 4 bits", Is("kivi4", "")),
    entry(&["kivi"], "KIVI's cache", Is("kivi4", "its 4 bits; kivi2 has 2")),
    entry(
        &["quarot", "spinquant", "quarot4"],
        "a rotation before 4 bits",
        Near("int4-g128-asym-had", "Hadamard, then 4 bits from a minimum in groups of 128"),
    ),
    // --- llama.cpp and ik_llama.cpp
    entry(&["q6"], "ik_llama.cpp's 6 bits in blocks of 32", Is("q6_0", "as it quantises on CUDA")),
    entry(
        &["q8_kv"],
        "ik_llama.cpp's 8 bits with a scale for each token and head, on CPUs and for keys",
        Near(
            "int8-per-token-head",
            "the same scale in f32; there halves go to the even code, and a sum is stored beside it",
        ),
    ),
    entry(
        &["q2_0s"],
        "BeeLlama's 2 bits from a signed extreme, by the name of its type",
        Is("q2_0", "and so -ctk calls it"),
    ),
    entry(
        &["q8_1"],
        "llama.cpp's 8 bits for intermediate products",
        Near("q8_0", "its 8 bits for caches"),
    ),
    entry(
        &["q4_k", "q4_k_m", "q4_k_s"],
        WEIGHTS,
        Near("q4_1", "4 bits from a minimum in blocks of 32"),
    ),
    entry(
        &["q5_k", "q5_k_m", "q5_k_s"],
        WEIGHTS,
        Near("q5_1", "5 bits from a minimum in blocks of 32"),
    ),
    entry(&["q6_k"], WEIGHTS, Near("int6-g32-ext", "6 bits from a signed extreme")),
    entry(&["q8_k"], WEIGHTS, Near("q8_0", "8 bits in blocks of 32")),
    entry(
        &["q3_k", "q3_k_m", "q3_k_s", "q3_k_l", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m"],
        WEIGHTS,
        Near("int3-g32-ext", "3 bits from a signed extreme"),
    ),
    entry(
        &["q2_k", "q2_k_s", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq1_s", "iq1_m"],
        WEIGHTS,
        Near("int2-g32-asym", "2 bits from a minimum"),
    ),
    entry(&["iq4_xs", "iq4_k", "iq4_ks", "iq4_kss", "iq4"], WEIGHTS, Near("iq4_nl", UNEVEN)),
    // --- No format of the cache's
    entry(
        &["awq", "gptq", "exl2", "exl3", "gguf", "aqlm", "smoothquant", "w8a8", "w4a16"],
        NO_CACHE_TYPE,
        Near("int4-g64", "4 bits for the cache"),
    ),
    entry(
        &["h2o", "snapkv", "streamingllm", "pyramidkv", "scissorhands", "tova"],
        EVICTION,
        Near("int4-g64", KEEPS_ALL),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;
    use std::collections::HashSet;

    #[test]
    fn every_entry_leads_to_a_codec_by_its_own_name() {
        for entry in ELSEWHERE {
            let name = entry.nearest();
            let codec: Codec = name.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
            // An alias goes by its fields.
            assert!(
                codec.to_string() == name || ["kivi2", "q6_0", "q3_0", "q2_0"].contains(&name),
                "{name}"
            );
            assert!(entry.hint(entry.names[0]).contains(name), "{name}");
        }
    }

    #[test]
    fn no_name_is_there_twice_nor_a_codec_here() {
        let mut seen = HashSet::new();
        for name in ELSEWHERE.iter().flat_map(|entry| entry.names) {
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(*name, name.to_ascii_lowercase().replace('-', "_"), "never found");
            // Other spellings of these are found by them.
            let own = ["kivi2", "kivi4", "quanto2", "hqq4", "hqq2", "kvarn4"].contains(name);
            assert!(own || name.parse::<Codec>().is_err(), "{name} is a codec");
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn case_dashes_and_the_word_bit_make_no_difference() {
        for (typed, name) in [
            ("FP4", "nvfp4"),
            ("FP8_per_token_head", "fp8-per-token-head"),
            ("kivi-2bit", "kivi2"),
            ("KIVI_2_bits", "kivi2"),
            ("kivi-4bit", "kivi4"),
            ("hqq-int4", "hqq4"),
            ("KVarN-K4V2-G128", "kvarn-k4v2"),
            ("Quanto 2-bit", "quanto2"),
            ("FP8-E4M3FN", "fp8-e4m3"),
            ("q4_K", "q4_1"),
            ("8bit", "int8-g64"),
        ] {
            assert_eq!(find(typed).expect(typed).nearest(), name, "{typed}");
        }
    }
}
