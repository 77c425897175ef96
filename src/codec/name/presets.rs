//! Names of their own, and what they stand for: one table for the parser, the hints, `kvgauge
//! codecs` and `docs/codecs.md`.

use crate::codec::packing::Packing;
use crate::codec::scheme::{Levels, Rotation, ScaleFormat, Scheme};
use crate::codec::tensor_codec::{Codec, TensorCodec};
use crate::codec::two_centre::{BlockRule, FittedLevels, TwoCentre};

/// A codec with a name of its own.
pub struct Preset {
    pub name: &'static str,
    pub codec: Codec,
    /// The method, in a few words.
    pub what: &'static str,
    /// Whose it is.
    pub engine: &'static str,
    /// How that engine is asked for it, where it can be.
    pub flag: Option<&'static str>,
}

/// All of them; the control last.
pub const PRESETS: &[Preset] = {
    use FittedLevels::{Nineteen, Sixteen};
    use Levels::{
        Asymmetric, E2m1, E4m3, E5m2, Gaussian, GgmlAsymmetric, GgmlSymmetric, Iq4Nl, SignedExtreme,
    };
    const fn block(bits: u8, levels: Levels) -> Codec {
        both(Scheme { bits, levels, ..Scheme::int4(32) })
    }
    const fn scaled(bits: u8, levels: Levels, group: usize, scales: ScaleFormat) -> Codec {
        both(Scheme { bits, levels, scales, ..Scheme::int4(group) })
    }
    const fn vllm(
        name: &'static str,
        codec: Codec,
        what: &'static str,
        flag: &'static str,
    ) -> Preset {
        Preset { name, codec, what, engine: "vLLM", flag: Some(flag) }
    }
    const fn both(scheme: Scheme) -> Codec {
        pair(Packing::Scheme(scheme), Packing::Scheme(scheme))
    }
    const fn pair(key: Packing, value: Packing) -> Codec {
        Codec { key: TensorCodec::Packed(key), value: TensorCodec::Packed(value) }
    }
    const fn llama_cpp(
        name: &'static str,
        codec: Codec,
        what: &'static str,
        flag: &'static str,
    ) -> Preset {
        Preset { name, codec, what, engine: "llama.cpp", flag: Some(flag) }
    }
    const KVGAUGE4: Codec = pair(
        Packing::TwoCentre(TwoCentre {
            levels: Nineteen,
            prerope: true,
            shaped: true,
            blocks: BlockRule::Largest,
        }),
        Packing::TwoCentre(TwoCentre {
            levels: Sixteen,
            prerope: false,
            shaped: false,
            blocks: BlockRule::Largest,
        }),
    );
    // KIVI (Liu et al. 2024) at four bits: keys by channel, values by token.
    const KIVI4: Codec = {
        let value = Scheme { levels: Asymmetric, ..Scheme::DEFAULT };
        pair(Packing::Scheme(Scheme { channel: true, ..value }), Packing::Scheme(value))
    };
    const TURBO4: Codec =
        both(Scheme { levels: Gaussian, rotation: Rotation::SignedHadamard, ..Scheme::DEFAULT });
    // It quantises with the unrounded scale, as ggml does.
    const QUANTO4: Codec = both(Scheme { levels: GgmlAsymmetric, ..Scheme::DEFAULT });
    &[
        Preset {
            name: "kvgauge4",
            codec: KVGAUGE4,
            what: "keys before RoPE, two centres, Hadamard, fitted levels, noise shaping",
            engine: "kvgauge",
            flag: None,
        },
        Preset {
            name: "int4-g64",
            codec: both(Scheme::DEFAULT),
            what: "symmetric, the default",
            engine: "kvgauge",
            flag: Some("kv-compress -group-size 64"),
        },
        llama_cpp(
            "q4_0",
            block(4, SignedExtreme),
            "4 bits from a signed extreme, blocks of 32",
            "-ctk q4_0 -ctv q4_0",
        ),
        llama_cpp(
            "q4_1",
            block(4, GgmlAsymmetric),
            "4 bits from a minimum, blocks of 32",
            "-ctk q4_1 -ctv q4_1",
        ),
        llama_cpp(
            "q5_0",
            block(5, SignedExtreme),
            "5 bits from a signed extreme, blocks of 32",
            "-ctk q5_0 -ctv q5_0",
        ),
        llama_cpp(
            "q5_1",
            block(5, GgmlAsymmetric),
            "5 bits from a minimum, blocks of 32",
            "-ctk q5_1 -ctv q5_1",
        ),
        llama_cpp(
            "q8_0",
            block(8, GgmlSymmetric),
            "8 bits, symmetric, blocks of 32",
            "-ctk q8_0 -ctv q8_0",
        ),
        llama_cpp(
            "iq4_nl",
            block(4, Iq4Nl),
            "4 bits, uneven levels, blocks of 32",
            "-ctk iq4_nl -ctv iq4_nl",
        ),
        Preset {
            name: "quanto4",
            codec: QUANTO4,
            what: "4 bits from a minimum, groups of 64",
            engine: "transformers QuantizedCache",
            flag: Some("backend=\"quanto\", nbits=4"),
        },
        Preset {
            name: "kivi4",
            codec: KIVI4,
            what: "4 bits from a minimum, groups of 64: keys by channel, values by token",
            engine: "KIVI",
            flag: Some("k_bits=4, v_bits=4, group_size=64"),
        },
        Preset {
            name: "turbo4",
            codec: TURBO4,
            what: "signs, Hadamard, Lloyd–Max levels scaled by the norm",
            engine: "after TurboQuant",
            flag: None,
        },
        Preset {
            name: "fp8-e4m3",
            codec: scaled(8, E4m3, Scheme::HEAD_VECTOR, ScaleFormat::One),
            what: "8-bit floats as they are, a scale of 1, up to ±448",
            engine: "vLLM, SGLang",
            flag: Some("--kv-cache-dtype fp8_e4m3"),
        },
        Preset {
            name: "fp8-e5m2",
            codec: scaled(8, E5m2, Scheme::HEAD_VECTOR, ScaleFormat::One),
            what: "8-bit floats as they are, a scale of 1, up to ±57344",
            engine: "vLLM, SGLang",
            flag: Some("--kv-cache-dtype fp8_e5m2"),
        },
        Preset {
            name: "fp8-e4m3-per-tensor",
            codec: scaled(8, E4m3, Scheme::WHOLE, ScaleFormat::F16),
            what: "8-bit floats, one scale a tensor, from its largest value",
            engine: "after vLLM, calibrated",
            flag: None,
        },
        Preset {
            name: "fp8-e5m2-per-tensor",
            codec: scaled(8, E5m2, Scheme::WHOLE, ScaleFormat::F16),
            what: "8-bit floats, one scale a tensor, from its largest value",
            engine: "after vLLM, calibrated",
            flag: None,
        },
        vllm(
            "fp8-per-token-head",
            scaled(8, E4m3, Scheme::HEAD_VECTOR, ScaleFormat::F32),
            "E4M3, an f32 scale for each token and head",
            "--kv-cache-dtype fp8_per_token_head",
        ),
        vllm(
            "int8-per-token-head",
            scaled(8, GgmlSymmetric, Scheme::HEAD_VECTOR, ScaleFormat::F32),
            "8 bits, symmetric, an f32 scale for each token and head",
            "--kv-cache-dtype int8_per_token_head",
        ),
        Preset {
            name: "mxfp8",
            codec: scaled(8, E4m3, 32, ScaleFormat::E8m0),
            what: "E4M3 in blocks of 32, a power of two as scale",
            engine: "OCP Microscaling 1.0",
            flag: None,
        },
        Preset {
            name: "mxfp4",
            codec: scaled(4, E2m1, 32, ScaleFormat::E8m0),
            what: "E2M1 in blocks of 32, a power of two as scale",
            engine: "OCP Microscaling 1.0",
            flag: None,
        },
        vllm(
            "nvfp4",
            scaled(4, E2m1, 16, ScaleFormat::E4m3),
            "E2M1 in blocks of 16, E4M3 scales, 1 for the tensor",
            "--kv-cache-dtype nvfp4",
        ),
        Preset {
            name: "nvfp4-per-tensor",
            codec: scaled(4, E2m1, 16, ScaleFormat::E4m3OfTensor),
            what: "E2M1 in blocks of 16, E4M3 scales, one f32 a tensor, from its largest value",
            engine: "after vLLM, calibrated",
            flag: None,
        },
        Preset {
            name: "f16",
            codec: Codec { key: TensorCodec::F16, value: TensorCodec::F16 },
            what: "a round trip through f16: the floor below any damage",
            engine: "control",
            flag: None,
        },
    ]
};

/// The codec of that name.
pub(super) fn find(name: &str) -> Option<Codec> {
    PRESETS.iter().find(|preset| preset.name == name).map(|preset| preset.codec)
}

/// Its name, where it has one of its own.
pub(super) fn name_of(codec: &Codec) -> Option<&'static str> {
    PRESETS.iter().find(|preset| preset.codec == *codec).map(|preset| preset.name)
}
