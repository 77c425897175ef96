//! Names of their own, and what they stand for: one table for the parser, the hints, `kvgauge
//! codecs` and `docs/codecs.md`. Which engines have them is in [`super::engines`].

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
    /// Whose it is, where no engine of [`super::engines`] has it.
    pub origin: &'static str,
    /// How that one is asked for it, where it can be.
    pub flag: Option<&'static str>,
    /// Whether the codec goes by its fields, as it did before it had this name, in results and files.
    alias: bool,
    /// The first version of the file format that has it under this name.
    version: u32,
}

impl Preset {
    const fn new(name: &'static str, codec: Codec, what: &'static str) -> Self {
        let (origin, flag, alias, version) = ("kvgauge", None, false, 6);
        Self { name, codec, what, origin, flag, alias, version }
    }

    const fn of(self, origin: &'static str) -> Self {
        Self { origin, ..self }
    }

    const fn asked_for(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// Of before there was a sixth version of the file format.
    const fn old(self) -> Self {
        self.since(2)
    }

    const fn since(self, version: u32) -> Self {
        Self { version, ..self }
    }

    const fn alias(self) -> Self {
        Self { alias: true, ..self }
    }

    /// Whether results and files have the codec's fields in the place of this name.
    pub(super) const fn is_alias(&self) -> bool {
        self.alias
    }
}

const fn pair(key: Packing, value: Packing) -> Codec {
    Codec { key: TensorCodec::Packed(key), value: TensorCodec::Packed(value) }
}

const fn both(scheme: Scheme) -> Codec {
    pair(Packing::Scheme(scheme), Packing::Scheme(scheme))
}

const fn scheme(bits: u8, levels: Levels, group: usize) -> Scheme {
    Scheme { bits, levels, ..Scheme::int4(group) }
}

const fn block(bits: u8, levels: Levels) -> Codec {
    both(scheme(bits, levels, 32))
}

const fn scaled(bits: u8, levels: Levels, group: usize, scales: ScaleFormat) -> Codec {
    both(Scheme { scales, ..scheme(bits, levels, group) })
}

/// llama.cpp's blocks after its rotation of keys and of values.
const fn rotated(bits: u8, levels: Levels) -> Codec {
    let block = scheme(bits, levels, 32);
    pair(
        Packing::Scheme(Scheme { rotation: Rotation::HadamardFrom64, ..block }),
        Packing::Scheme(Scheme { rotation: Rotation::Hadamard64, ..block }),
    )
}

/// The same with values' rotation on both sides, so that values alone have a name.
const fn rotated_by_64(bits: u8, levels: Levels) -> Codec {
    both(Scheme { rotation: Rotation::Hadamard64, ..scheme(bits, levels, 32) })
}

const fn exllama(bits: u8) -> Codec {
    both(Scheme { rotation: Rotation::Hadamard32, ..scheme(bits, Levels::Exllama, 32) })
}

/// kvgauge's own: keys before RoPE with an encoder that shapes its errors, and values.
const fn two_centres(key: FittedLevels, value: FittedLevels) -> Codec {
    let value =
        TwoCentre { levels: value, prerope: false, shaped: false, blocks: BlockRule::Largest };
    let key = TwoCentre { levels: key, prerope: true, shaped: true, ..value };
    pair(Packing::TwoCentre(key), Packing::TwoCentre(value))
}

/// KIVI (Liu et al. 2024): keys by channel, values by token.
const fn kivi(bits: u8, group: usize) -> Codec {
    let value = scheme(bits, Levels::Asymmetric, group);
    pair(Packing::Scheme(Scheme { channel: true, ..value }), Packing::Scheme(value))
}

const TURBO4: Codec =
    both(Scheme { rotation: Rotation::SignedHadamard, ..scheme(4, Levels::Gaussian, 64) });

const INT4_PER_TOKEN_HEAD: Codec = both(Scheme {
    rotation: Rotation::VllmRandomised,
    scales: ScaleFormat::F32WithZero,
    ..scheme(4, Levels::ZeroPoint, Scheme::HEAD_VECTOR)
});

/// All of them; the control last.
pub const PRESETS: &[Preset] = {
    use Levels::{E2m1, E4m3, E5m2, GgmlAsymmetric, GgmlSymmetric, Iq4Nl, Mlx, SignedExtreme};
    &[
        Preset::new(
            "kvgauge4",
            two_centres(FittedLevels::Nineteen, FittedLevels::Sixteen),
            "keys before RoPE, two centres, Hadamard, fitted levels, noise shaping",
        )
        .old(),
        Preset::new(
            "kvgauge3",
            two_centres(FittedLevels::Trellis26, FittedLevels::Trellis24),
            "as kvgauge4, with levels by a trellis, entropy-coded to a fixed length",
        )
        .since(8),
        Preset::new(
            "kvgauge2",
            two_centres(FittedLevels::Trellis20, FittedLevels::Trellis13),
            "as kvgauge3, 2.5 bits for keys and 1.6 for values",
        )
        .since(8),
        Preset::new("int4-g64", both(Scheme::DEFAULT), "symmetric, the default")
            .asked_for("kv-compress -group-size 64")
            .old(),
        Preset::new("q4_0", block(4, SignedExtreme), "4 bits from a signed extreme, blocks of 32")
            .old(),
        Preset::new("q4_1", block(4, GgmlAsymmetric), "4 bits from a minimum, blocks of 32").old(),
        Preset::new("q5_0", block(5, SignedExtreme), "5 bits from a signed extreme, blocks of 32")
            .old(),
        Preset::new("q5_1", block(5, GgmlAsymmetric), "5 bits from a minimum, blocks of 32").old(),
        Preset::new("q8_0", block(8, GgmlSymmetric), "8 bits, symmetric, blocks of 32").old(),
        Preset::new("iq4_nl", block(4, Iq4Nl), "4 bits, uneven levels, blocks of 32").old(),
        Preset::new("q6_0", block(6, SignedExtreme), "6 bits from a signed extreme, blocks of 32")
            .alias(),
        Preset::new("q4_0-had", rotated(4, SignedExtreme), "q4_0 after Hadamard"),
        Preset::new("q4_1-had", rotated(4, GgmlAsymmetric), "q4_1 after Hadamard"),
        Preset::new("q5_0-had", rotated(5, SignedExtreme), "q5_0 after Hadamard"),
        Preset::new("q5_1-had", rotated(5, GgmlAsymmetric), "q5_1 after Hadamard"),
        Preset::new("q8_0-had", rotated(8, GgmlSymmetric), "q8_0 after Hadamard"),
        Preset::new("iq4_nl-had", rotated(4, Iq4Nl), "iq4_nl after Hadamard"),
        Preset::new("q4_0-had64", rotated_by_64(4, SignedExtreme), "as values of q4_0-had"),
        Preset::new("q4_1-had64", rotated_by_64(4, GgmlAsymmetric), "as values of q4_1-had"),
        Preset::new("q5_0-had64", rotated_by_64(5, SignedExtreme), "as values of q5_0-had"),
        Preset::new("q5_1-had64", rotated_by_64(5, GgmlAsymmetric), "as values of q5_1-had"),
        Preset::new("q8_0-had64", rotated_by_64(8, GgmlSymmetric), "as values of q8_0-had"),
        Preset::new("iq4_nl-had64", rotated_by_64(4, Iq4Nl), "as values of iq4_nl-had"),
        // Quanto quantises with the unrounded scale, as ggml does.
        Preset::new(
            "quanto4",
            both(scheme(4, GgmlAsymmetric, 64)),
            "4 bits from a minimum, groups of 64",
        )
        .old(),
        Preset::new(
            "quanto2",
            both(scheme(2, GgmlAsymmetric, 64)),
            "2 bits from a minimum, groups of 64",
        ),
        Preset::new(
            "kivi4",
            kivi(4, 64),
            "4 bits from a minimum, groups of 64: keys by channel, values by token",
        )
        .of("KIVI")
        .asked_for("k_bits=4, v_bits=4, group_size=64")
        .old(),
        Preset::new(
            "kivi2",
            kivi(2, 32),
            "2 bits from a minimum, groups of 32: keys by channel, values by token",
        )
        .of("KIVI")
        .asked_for("k_bits=2, v_bits=2, group_size=32")
        .alias(),
        Preset::new("turbo4", TURBO4, "signs, Hadamard, Lloyd–Max levels scaled by the norm")
            .of("after TurboQuant")
            .old(),
        Preset::new(
            "fp8-e4m3",
            scaled(8, E4m3, Scheme::HEAD_VECTOR, ScaleFormat::One),
            "8-bit floats as they are, a scale of 1, up to ±448",
        ),
        Preset::new(
            "fp8-e5m2",
            scaled(8, E5m2, Scheme::HEAD_VECTOR, ScaleFormat::One),
            "8-bit floats as they are, a scale of 1, up to ±57344",
        ),
        Preset::new(
            "fp8-e4m3-per-tensor",
            both(scheme(8, E4m3, Scheme::WHOLE)),
            "8-bit floats, one scale a tensor, from its largest value",
        )
        .of("after vLLM, calibrated"),
        Preset::new(
            "fp8-e5m2-per-tensor",
            both(scheme(8, E5m2, Scheme::WHOLE)),
            "8-bit floats, one scale a tensor, from its largest value",
        )
        .of("after vLLM, calibrated"),
        Preset::new(
            "fp8-per-token-head",
            scaled(8, E4m3, Scheme::HEAD_VECTOR, ScaleFormat::F32),
            "E4M3, an f32 scale for each token and head",
        ),
        Preset::new(
            "int8-per-token-head",
            scaled(8, GgmlSymmetric, Scheme::HEAD_VECTOR, ScaleFormat::F32),
            "8 bits, symmetric, an f32 scale for each token and head",
        ),
        Preset::new(
            "int4-per-token-head",
            INT4_PER_TOKEN_HEAD,
            "signs, Hadamard, 4 bits with a zero point, an f32 scale for each token and head",
        ),
        Preset::new(
            "mxfp8",
            scaled(8, E4m3, 32, ScaleFormat::E8m0),
            "E4M3 in blocks of 32, a power of two as scale",
        )
        .of("OCP Microscaling 1.0"),
        Preset::new(
            "mxfp4",
            scaled(4, E2m1, 32, ScaleFormat::E8m0),
            "E2M1 in blocks of 32, a power of two as scale",
        )
        .of("OCP Microscaling 1.0"),
        Preset::new(
            "nvfp4",
            scaled(4, E2m1, 16, ScaleFormat::E4m3),
            "E2M1 in blocks of 16, E4M3 scales, 1 for the tensor",
        ),
        Preset::new(
            "nvfp4-per-tensor",
            scaled(4, E2m1, 16, ScaleFormat::E4m3OfTensor),
            "E2M1 in blocks of 16, E4M3 scales, one f32 a tensor, from its largest value",
        )
        .of("after vLLM, calibrated"),
        Preset::new("exllamav3-8", exllama(8), "Hadamard of 32, 8 bits without a zero"),
        Preset::new("exllamav3-7", exllama(7), "Hadamard of 32, 7 bits without a zero"),
        Preset::new("exllamav3-6", exllama(6), "Hadamard of 32, 6 bits without a zero"),
        Preset::new("exllamav3-5", exllama(5), "Hadamard of 32, 5 bits without a zero"),
        Preset::new("exllamav3-4", exllama(4), "Hadamard of 32, 4 bits without a zero"),
        Preset::new("exllamav3-3", exllama(3), "Hadamard of 32, 3 bits without a zero"),
        Preset::new("exllamav3-2", exllama(2), "Hadamard of 32, 2 bits without a zero"),
        Preset::new("mlx8", both(scheme(8, Mlx, 64)), "8 bits, affine, groups of 64"),
        Preset::new("mlx6", both(scheme(6, Mlx, 64)), "6 bits, affine, groups of 64"),
        Preset::new("mlx5", both(scheme(5, Mlx, 64)), "5 bits, affine, groups of 64"),
        Preset::new("mlx4", both(scheme(4, Mlx, 64)), "4 bits, affine, groups of 64"),
        Preset::new("mlx3", both(scheme(3, Mlx, 64)), "3 bits, affine, groups of 64"),
        Preset::new("mlx2", both(scheme(2, Mlx, 64)), "2 bits, affine, groups of 64"),
        Preset::new(
            "f16",
            Codec { key: TensorCodec::F16, value: TensorCodec::F16 },
            "a round trip through f16: the floor below any damage",
        )
        .of("control")
        .old(),
    ]
};

/// The control of an evaluation, which is no codec: it stores what `f16` does.
pub const NOISE_PRESET: Preset = Preset::new(
    super::NOISE,
    Codec { key: TensorCodec::F16, value: TensorCodec::F16 },
    "Gaussian noise as large as the error of int4-g64; noise-NAME: of NAME",
)
.of("control");

/// The codec of that name.
pub(super) fn find(name: &str) -> Option<Codec> {
    PRESETS.iter().find(|preset| preset.name == name).map(|preset| preset.codec)
}

fn named(codec: &Codec) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| !preset.alias && preset.codec == *codec)
}

/// Its name, where it has one of its own.
pub(super) fn name_of(codec: &Codec) -> Option<&'static str> {
    named(codec).map(|preset| preset.name)
}

impl TensorCodec {
    /// The first version of the file format that has this codec under its name; those of the first
    /// two versions count as one.
    pub(crate) fn format_version(&self) -> u32 {
        match self.packing() {
            Some(Packing::TwoCentre(codec)) if codec.levels.is_trellis() => 8,
            _ => named(&self.for_both()).map_or(2, |preset| preset.version),
        }
    }
}
