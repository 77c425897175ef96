//! Level sets: the values that codes stand for, in units of the group's scale.
//!
//! One entry a set: [`Levels::set`] has everything about it, and [`Levels::NAMED`] its word where
//! names can be made with it. Tables of levels are in `level_tables.rs`.

use super::level_tables::{E2M1, E4M3, E5M2, GAUSSIAN, IQ4_NL, TURBOQUANT_3, TURBOQUANT_4};
use super::small_float::SmallFloat;
use crate::codec::parts::PartName;
use std::ops::RangeInclusive;

/// A level set: a value is a level times the group's scale, plus the group's minimum if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Levels {
    /// −(2^(b−1) − 1) … 2^(b−1) − 1; the scale is absmax / (2^(b−1) − 1). `sym`
    Symmetric,
    /// 0 … 2^b − 1 above the group's minimum, the scale is range / (2^b − 1). `asym`
    Asymmetric,
    /// ±½, ±1½ … : all 2^b levels and no zero; the scale is absmax / 2^(b−1). `mid`
    MidRise,
    /// −2^(b−1) … 2^(b−1) − 1; the scale, which may be negative, puts the value of largest
    /// magnitude at −2^(b−1). ggml's q4_0 and q5_0. `ext`
    SignedExtreme,
    /// The 2^b levels that code a Gaussian with the least squared error (Lloyd 1982, Max 1960);
    /// the scale is the group's root mean square. `lm`
    Gaussian,
    /// [`Levels::Symmetric`] with ggml's rounding: q8_0.
    GgmlSymmetric,
    /// [`Levels::Asymmetric`] with ggml's rounding: q4_1 and q5_1.
    GgmlAsymmetric,
    /// ggml's table of 16 levels.
    Iq4Nl,
    /// As [`Levels::MidRise`], as exllamav3 rounds: with the scale that is not rounded to 16 bits yet.
    Exllama,
    /// From a bias on, in steps of a scale that may be below 0: MLX's affine levels. The bias is the end
    /// of the range, widened to 0, that is farther from 0.
    Mlx,
    /// Scale · (code − zero point), as vLLM has it for each token and head; 4 bits.
    ZeroPoint,
    /// The same with a zero point that is no whole number, in f16: hqq's.
    Hqq,
    /// The levels of vLLM's TurboQuant of keys, nearly those of [`Levels::Gaussian`]; the scale is the
    /// group's norm, and decoded levels are divided by theirs. 3 and 4 bits.
    TurboQuantKeys,
    /// [`Levels::GgmlAsymmetric`] with divisions by the scale: vLLM's TurboQuant of values.
    TurboQuantValues,
    /// Floating point with 4 bits of exponent and 3 of mantissa, no infinities (Micikevicius et
    /// al. 2022, OCP FP8), up to 448.
    E4m3,
    /// Floating point with 5 bits of exponent and 2 of mantissa, up to 57344.
    E5m2,
    /// Floating point with 2 bits of exponent and 1 of mantissa, up to 6 (OCP Microscaling
    /// Formats 1.0).
    E2m1,
}

/// Everything about a level set at a number of bits.
#[derive(Clone, Copy)]
pub(super) struct LevelSet {
    pub points: Points,
    pub scale: ScaleFrom,
    pub rounding: Rounding,
    /// Values are quantised with the scale before it is rounded to what is stored, as ggml does.
    pub quantises_unrounded: bool,
}

/// The levels themselves.
#[derive(Clone, Copy)]
pub(super) enum Points {
    /// One apart. Code 0 stands for `zero`; the encoder uses those from `first` to `last`.
    Even { zero: f32, first: f32, last: f32 },
    /// One a code, rising unless they are floats.
    Table(&'static [f32]),
    /// One a code, rising, each the negative of another.
    MirroredTable(&'static [f32]),
}

impl Points {
    /// The table; empty where levels are even.
    #[inline(always)]
    pub fn table(&self) -> &'static [f32] {
        match self {
            Self::Even { .. } => &[],
            Self::Table(table) | Self::MirroredTable(table) => table,
        }
    }
}

/// The measure of a group that its scale is made of, and the level at which the scale puts it: the
/// scale is one over the other.
#[derive(Clone, Copy)]
pub(super) enum ScaleFrom {
    /// The largest magnitude.
    AbsMax(f32),
    /// The value of largest magnitude, with its sign.
    SignedExtreme(f32),
    RootMeanSquare(f32),
    /// The root of the sum of squares. The levels of a group are divided by theirs when it is decoded.
    Norm,
    /// The distance from the smallest value, which is stored as the group's minimum, to the
    /// largest, over the scales between them.
    Range(f32),
}

/// How values, in units of the scale, become codes.
#[derive(Clone, Copy)]
pub(super) enum Rounding {
    /// To the nearest even level, half to even.
    Nearest,
    /// The same, from the minimum on.
    NearestFromMinimum,
    /// Down to a whole number; levels lie in the middle between two.
    Down,
    /// Half up, from the lowest level on.
    HalfUp,
    /// Half up, from the minimum on.
    HalfUpFromMinimum,
    /// Half away from zero.
    HalfAway,
    /// To the nearest of a table of rising levels, halves down.
    NearestOfTable,
    /// As ggml's quantize_row_iq4_nl_ref, which takes the scale anew.
    Iq4Nl,
    /// Down to a whole number after half of all levels are added, so that the sum is rounded.
    DownFromLowest,
    /// As MLX's affine_quantize.
    Mlx,
    /// As vLLM's kernel of int4_per_token_head.
    ZeroPoint,
    /// As hqq's quantizer, whose zero points take passes over all groups of a tensor.
    Hqq,
    /// As vLLM's kernel of TurboQuant's keys.
    NearestOfUnitVector,
    /// As vLLM's kernel of TurboQuant's values.
    HalfUpFromMinimumDivided,
    /// To the nearest float of so few bits.
    Float(SmallFloat),
}

/// A level set that names can be made with.
pub(in crate::codec) struct NamedLevels {
    pub word: &'static str,
    pub levels: Levels,
    /// The bits that a code can have.
    pub bits: RangeInclusive<u8>,
    /// A few words on it, as `kvgauge codecs` shows them.
    pub what: &'static str,
}

impl Levels {
    /// The first is the default.
    pub(in crate::codec) const NAMED: [NamedLevels; 5] = {
        const fn named(
            word: &'static str,
            levels: Levels,
            bits: RangeInclusive<u8>,
            what: &'static str,
        ) -> NamedLevels {
            NamedLevels { word, levels, bits, what }
        }
        [
            named("sym", Self::Symmetric, 2..=8, "symmetric"),
            named("asym", Self::Asymmetric, 2..=8, "from a stored minimum"),
            named("mid", Self::MidRise, 2..=8, "all 2^b and no zero"),
            named(
                "ext",
                Self::SignedExtreme,
                2..=8,
                "all 2^b from a signed extreme (`int4-g32-ext` is `q4_0`)",
            ),
            named("lm", Self::Gaussian, 2..=5, "Lloyd–Max levels of a Gaussian"),
        ]
    };

    /// The levels of codes of `bits` bits, and how values become codes.
    #[inline(always)]
    pub(super) fn set(self, bits: u8) -> LevelSet {
        let half = f32::from(1u8 << (bits - 1));
        let set = |points, scale, rounding| LevelSet {
            points,
            scale,
            rounding,
            quantises_unrounded: false,
        };
        let even = |zero, first, last| Points::Even { zero, first, last };
        let symmetric = even(-half, 1.0 - half, half - 1.0);
        let from_extreme = even(-half, -half, half - 1.0);
        let from_minimum = even(0.0, 0.0, 2.0 * half - 1.0);
        let ggml = |set| LevelSet { quantises_unrounded: true, ..set };
        let float = |table, format: SmallFloat| {
            let scale = ScaleFrom::AbsMax(format.largest);
            set(Points::Table(table), scale, Rounding::Float(format))
        };
        match self {
            Self::Symmetric => set(symmetric, ScaleFrom::AbsMax(half - 1.0), Rounding::Nearest),
            Self::Asymmetric => {
                let scale = ScaleFrom::Range(2.0 * half - 1.0);
                set(from_minimum, scale, Rounding::NearestFromMinimum)
            }
            Self::MidRise => {
                let points = even(0.5 - half, 0.5 - half, half - 0.5);
                set(points, ScaleFrom::AbsMax(half), Rounding::Down)
            }
            Self::SignedExtreme => {
                ggml(set(from_extreme, ScaleFrom::SignedExtreme(-half), Rounding::HalfUp))
            }
            Self::Gaussian => {
                let table = GAUSSIAN.get(usize::from(bits)).map_or(&[][..], Vec::as_slice);
                let scale = ScaleFrom::RootMeanSquare(1.0);
                set(Points::MirroredTable(table), scale, Rounding::NearestOfTable)
            }
            Self::GgmlSymmetric => {
                ggml(set(symmetric, ScaleFrom::AbsMax(half - 1.0), Rounding::HalfAway))
            }
            Self::GgmlAsymmetric => {
                let scale = ScaleFrom::Range(2.0 * half - 1.0);
                ggml(set(from_minimum, scale, Rounding::HalfUpFromMinimum))
            }
            Self::Iq4Nl => {
                let scale = ScaleFrom::SignedExtreme(IQ4_NL[0]);
                set(Points::Table(&IQ4_NL), scale, Rounding::Iq4Nl)
            }
            Self::Exllama => {
                let points = even(0.5 - half, 0.5 - half, half - 0.5);
                ggml(set(points, ScaleFrom::AbsMax(half), Rounding::DownFromLowest))
            }
            Self::Mlx => set(from_minimum, ScaleFrom::Range(2.0 * half - 1.0), Rounding::Mlx),
            // The zero point of each group is what stands for 0.
            Self::ZeroPoint => {
                set(from_minimum, ScaleFrom::AbsMax(2.0 * half - 1.0), Rounding::ZeroPoint)
            }
            Self::Hqq => set(from_minimum, ScaleFrom::AbsMax(2.0 * half - 1.0), Rounding::Hqq),
            Self::TurboQuantKeys => {
                let table = if bits == 3 { &TURBOQUANT_3[..] } else { &TURBOQUANT_4 };
                let points = Points::MirroredTable(table);
                set(points, ScaleFrom::Norm, Rounding::NearestOfUnitVector)
            }
            Self::TurboQuantValues => {
                let scale = ScaleFrom::Range(2.0 * half - 1.0);
                set(from_minimum, scale, Rounding::HalfUpFromMinimumDivided)
            }
            Self::E4m3 => float(&E4M3, SmallFloat::E4M3),
            Self::E5m2 => float(&E5M2, SmallFloat::E5M2),
            Self::E2m1 => float(&E2M1, SmallFloat::E2M1),
        }
    }

    /// What groups store beside their scales, if anything.
    pub(super) fn offsets(self) -> Option<PartName> {
        match self.set(2).scale {
            _ if self == Self::Hqq => Some(PartName::Zeros),
            ScaleFrom::Range(_) => Some(PartName::Minima),
            _ => None,
        }
    }
}
