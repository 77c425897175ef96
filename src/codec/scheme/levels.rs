//! Level sets: the values that codes stand for, in units of the group's scale.
//!
//! One entry a set: [`Levels::set`] has everything about it, and [`Levels::NAMED`] its word where
//! names can be made with it.

use crate::codec::parts::PartName;
use crate::lanes::TWO_23;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

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

/// Most levels of a table that a scale is searched for.
pub(super) const MOST_SEARCHED: usize = 32;

/// ggml's kvalues_iq4nl.
pub(super) const IQ4_NL: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// The levels of [`Levels::Gaussian`] by bits; the positive half is a fixed point of Lloyd's iteration in f64.
static GAUSSIAN: LazyLock<[Vec<f32>; 6]> = LazyLock::new(|| {
    let both = |half: &[f32]| half.iter().rev().map(|x| -x).chain(half.iter().copied()).collect();
    [
        Vec::new(),
        Vec::new(),
        both(&[0.452_780_03, 1.510_417_6]),
        both(&[0.245_094_18, 0.756_005_3, 1.343_909_3, 2.151_945_7]),
        both(&[
            0.128_395_03,
            0.388_048_3,
            0.656_759_14,
            0.942_340_46,
            1.256_231_2,
            1.618_046_4,
            2.069_017_2,
            2.732_589_6,
        ]),
        both(&[
            0.065_889_66,
            0.198_051_83,
            0.331_378_3,
            0.466_699_5,
            0.604_933_6,
            0.747_135_7,
            0.894_565_1,
            1.048_783_3,
            1.211_804_4,
            1.386_340_4,
            1.576_228,
            1.787_233_2,
            2.028_728_4,
            2.317_739_4,
            2.691_119_6,
            3.260_732_5,
        ]),
    ]
});

/// vLLM's centroids of a Gaussian in units of its standard deviation: Lloyd's iteration with the
/// trapezoidal rule over 200 steps a cell, at most 200 times, from even levels on.
pub(super) const TURBOQUANT_3: [f32; 8] =
    mirrored([0.244_983_6, 0.755_645_5, 1.343_180_1, 2.150_349_6]);
/// The same of 4 bits.
pub(super) const TURBOQUANT_4: [f32; 16] = mirrored([
    0.128_427_65,
    0.388_137_8,
    0.656_879_9,
    0.942_448_26,
    1.256_257_5,
    1.617_881_8,
    2.068_447,
    2.730_922_2,
]);

/// Rising levels, from the positive half of them.
const fn mirrored<const HALF: usize, const ALL: usize>(half: [f32; HALF]) -> [f32; ALL] {
    assert!(2 * HALF == ALL);
    let (mut all, mut index) = ([0.0; ALL], 0);
    while index < HALF {
        all[HALF + index] = half[index];
        all[HALF - 1 - index] = -half[index];
        index += 1;
    }
    all
}

static E4M3: LazyLock<Vec<f32>> = LazyLock::new(|| SmallFloat::E4M3.levels());
static E5M2: LazyLock<Vec<f32>> = LazyLock::new(|| SmallFloat::E5M2.levels());
static E2M1: LazyLock<Vec<f32>> = LazyLock::new(|| SmallFloat::E2M1.levels());

/// A float of a sign and a few bits of exponent and mantissa, with subnormal numbers.
#[derive(Clone, Copy)]
pub(super) struct SmallFloat {
    exponent: u32,
    mantissa: u32,
    /// What the format takes for infinities and NaN lies beyond.
    pub largest: f32,
}

impl SmallFloat {
    pub const E4M3: Self = Self { exponent: 4, mantissa: 3, largest: 448.0 };
    pub const E5M2: Self = Self { exponent: 5, mantissa: 2, largest: 57344.0 };
    pub const E2M1: Self = Self { exponent: 2, mantissa: 1, largest: 6.0 };

    #[inline(always)]
    const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// The value of a code; 0 of one beyond the largest number, which no writer writes.
    fn value(self, code: u8) -> f32 {
        let Self { exponent, mantissa, largest } = self;
        let size = u32::from(code) & ((1 << (exponent + mantissa)) - 1);
        let (power, fraction) = ((size >> mantissa) as i32, size & ((1 << mantissa) - 1));
        let whole = if power > 0 { fraction + (1 << mantissa) } else { fraction };
        let scale = 2f32.powi(power.max(1) - self.bias() - mantissa as i32);
        let magnitude = whole as f32 * scale;
        let magnitude = if magnitude > largest { 0.0 } else { magnitude };
        if code >> (exponent + mantissa) == 1 { -magnitude } else { magnitude }
    }

    /// The values of all codes.
    fn levels(self) -> Vec<f32> {
        (0..1u32 << (1 + self.exponent + self.mantissa))
            .map(|code| self.value(code as u8))
            .collect()
    }

    /// The code of the nearest one, ties to even; what is too large becomes the largest.
    #[inline(always)]
    pub fn nearest(self, value: f32) -> u8 {
        let (bias, mantissa) = (self.bias(), self.mantissa);
        let magnitude = value.abs().min(self.largest);
        // f32 has 23 bits of mantissa: adding half of the last kept bit rounds, and the carry is
        // right.
        let dropped = 23 - mantissa;
        let bits = magnitude.to_bits();
        let rounded = bits + ((1 << (dropped - 1)) - 1) + (bits >> dropped & 1);
        let normal = (rounded >> dropped).wrapping_sub(((127 - bias) << mantissa) as u32);
        // Below the smallest normal number the steps are even.
        let step = f32::from_bits(((127 + bias - 1 + mantissa as i32) as u32) << 23);
        // 2^23 rounds, and leaves a whole number in the low bits.
        let subnormal = (magnitude * step + TWO_23).to_bits() & 0x7f_ffff;
        let smallest = f32::from_bits(((127 + 1 - bias) as u32) << 23);
        let code = if magnitude < smallest { subnormal } else { normal };
        (code | (value.to_bits() >> 31) << (self.exponent + mantissa)) as u8
    }

    /// Of a code without a sign, without a table.
    #[inline(always)]
    pub fn magnitude(self, code: u8) -> f32 {
        let (bias, mantissa) = (self.bias(), self.mantissa);
        let normal = (u32::from(code) << (23 - mantissa)) + (((127 - bias) as u32) << 23);
        let step = f32::from_bits(((127 + 1 - bias - mantissa as i32) as u32) << 23);
        let size =
            if code >> mantissa == 0 { f32::from(code) * step } else { f32::from_bits(normal) };
        if size > self.largest { 0.0 } else { size }
    }

    /// The power of two that the largest number is of.
    #[inline(always)]
    pub fn largest_power(self) -> i32 {
        (self.largest.to_bits() >> 23) as i32 - 127
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(levels: Levels, bits: u8) -> &'static [f32] {
        levels.set(bits).points.table()
    }

    /// Each level is the mean of the Gaussian between the midpoints around it, and no one else's
    /// numbers are needed to say so.
    #[test]
    fn gaussian_levels_are_centroids_of_their_cells() {
        // Simpson's rule in f64 over fine steps.
        let density = |x: f64| (-x * x / 2.0).exp();
        let integral = |from: f64, to: f64, f: &dyn Fn(f64) -> f64| {
            let steps = 4000;
            let h = (to - from) / f64::from(steps);
            let inner: f64 = (1..steps)
                .map(|i| f(from + f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 })
                .sum();
            (f(from) + f(to) + inner) * h / 3.0
        };
        for bits in 2..=5 {
            let levels: Vec<f64> =
                table(Levels::Gaussian, bits).iter().map(|x| f64::from(*x)).collect();
            assert_eq!(levels.len(), 1 << bits);
            let edge = |i: usize| (levels[i - 1] + levels[i]) / 2.0;
            for (index, level) in levels.iter().enumerate() {
                let from = if index == 0 { -12.0 } else { edge(index) };
                let to = if index + 1 == levels.len() { 12.0 } else { edge(index + 1) };
                let mean = integral(from, to, &|x| x * density(x)) / integral(from, to, &density);
                assert!((mean - level).abs() < 1e-6, "{bits} bits: {level} in place of {mean}");
            }
        }
    }

    /// As vLLM makes them, in f64; for heads of every size they are these times 1/√size.
    #[test]
    fn turboquant_levels_are_those_of_vllms_iteration() {
        const STEPS: i32 = 200;
        let density = |x: f64| (-x * x / 2.0).exp();
        let integral = |from: f64, to: f64, f: &dyn Fn(f64) -> f64| {
            let h = (to - from) / f64::from(STEPS);
            let inner: f64 = (1..STEPS).map(|i| f(from + f64::from(i) * h)).sum();
            ((f(from) + f(to)) / 2.0 + inner) * h
        };
        for bits in [3, 4] {
            let count = 1 << bits;
            let first = |i: usize| 7.0 * (i as f64 + 0.5) / count as f64 - 3.5;
            let mut levels: Vec<f64> = (0..count).map(first).collect();
            for _ in 0..200 {
                let mut edges = vec![-10.5];
                edges.extend(levels.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0));
                edges.push(10.5);
                let mean = |cell: &[f64]| {
                    let mass = integral(cell[0], cell[1], &density);
                    integral(cell[0], cell[1], &|x| x * density(x)) / mass
                };
                let next: Vec<f64> = edges.windows(2).map(mean).collect();
                let moved = next.iter().zip(&levels).map(|(a, b)| (a - b).abs());
                if moved.fold(0.0, f64::max) < 1e-9 {
                    break;
                }
                levels = next;
            }
            for (found, expected) in table(Levels::TurboQuantKeys, bits).iter().zip(levels) {
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{bits} bits: {expected}");
            }
        }
    }

    #[test]
    fn small_floats_are_those_of_the_formats() {
        // OCP 8-bit floating point specification, table of values.
        for (code, e4m3, e5m2) in [
            (0x00, 0.0, 0.0),
            (0x01, 2f32.powi(-9), 2f32.powi(-16)),
            (0x07, 7.0 * 2f32.powi(-9), 1.75 * 2f32.powi(-14)),
            (0x08, 2f32.powi(-6), 2f32.powi(-13)),
            (0x38, 1.0, 0.5),
            (0x7b, 352.0, 57344.0),
            (0x7e, 448.0, 0.0),
            (0xc0, -2.0, -2.0),
        ] {
            assert_eq!(table(Levels::E4m3, 8)[code], e4m3, "{code:#x}");
            assert_eq!(table(Levels::E5m2, 8)[code], e5m2, "{code:#x}");
        }
        // OCP Microscaling Formats specification 1.0, section 5.3.3.
        let positive = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let negative = positive.map(|x: f32| -x);
        assert_eq!(table(Levels::E2m1, 4), [positive, negative].concat());
    }

    /// Every float between two neighbours goes to the nearer one, and a tie to the even code.
    #[test]
    fn values_become_the_nearest_small_float() {
        for (levels, bits, format, finite) in [
            (Levels::E4m3, 8, SmallFloat::E4M3, 0x7e),
            (Levels::E5m2, 8, SmallFloat::E5M2, 0x7b),
            (Levels::E2m1, 4, SmallFloat::E2M1, 0x7),
        ] {
            let table = table(levels, bits);
            for code in 0..=finite {
                let value = table[usize::from(code)];
                assert_eq!(format.nearest(value), code);
                assert_eq!(format.nearest(-value), code | 1 << (bits - 1));
                assert_eq!(format.magnitude(code), value);
                if code < finite {
                    let middle = (value + table[usize::from(code) + 1]) / 2.0;
                    let even = code + code % 2;
                    assert_eq!(format.nearest(middle), even, "{middle}");
                    assert_eq!(format.nearest(middle.next_down()), code);
                    assert_eq!(format.nearest(middle.next_up()), code + 1);
                }
            }
            assert_eq!(format.nearest(1e9), finite);
            assert_eq!(format.nearest(f32::MIN_POSITIVE / 8.0), 0);
        }
    }
}
