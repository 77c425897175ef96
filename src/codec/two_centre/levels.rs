//! Levels fitted to rotated blocks, and the scales they are multiplied with.

use crate::lanes::{Lanes, whole};
use pulp::Simd;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FittedLevels {
    /// ±½, ±1½ … ±7½; 4 bits.
    Sixteen,
    /// −9 … 9; 4.25 bits.
    Nineteen,
}

/// Levels and how to find the nearest.
pub(super) struct LevelCurve {
    /// Code 0 stands for this n.
    pub lowest: f32,
    /// Of l(n).
    level: [f32; 3],
    /// n of a value t in units of the scale: t·(c₀ + t²·(c₁ + t²·(c₂ + t²·c₃))), rounded to a
    /// code. An encoder may do otherwise.
    position: [f32; 4],
    /// What is larger counts as this large. Its code is the last one.
    reach: f32,
}

const SIXTEEN: LevelCurve = LevelCurve {
    lowest: -7.5,
    level: [0.109_445_1, 9.441_03e-5, 9.761_447e-6],
    position: [9.172_29, -1.622_747_3, -1.801_578_2, 1.391_444_1],
    reach: 1.13,
};
const NINETEEN: LevelCurve = LevelCurve {
    lowest: -9.0,
    level: [0.093_653_87, 2.897_904e-6, 4.539_905e-6],
    position: [10.748_083, -1.333_895_7, -2.668_33, 1.720_238_9],
    reach: 1.14,
};

impl FittedLevels {
    pub(super) fn curve(self) -> &'static LevelCurve {
        match self {
            Self::Sixteen => &SIXTEEN,
            Self::Nineteen => &NINETEEN,
        }
    }

    /// Words of a block hold four codes each: their low 16 bits, and the highest one where codes
    /// are of 19 levels.
    pub(super) fn code_bytes(self, block: usize) -> usize {
        let high = if self == Self::Nineteen { (block / 4).div_ceil(8) } else { 0 };
        block / 2 + high
    }

    pub(super) fn count(self) -> f32 {
        match self {
            Self::Sixteen => 16.0,
            Self::Nineteen => 19.0,
        }
    }
}

impl LevelCurve {
    /// l(n)·s as a decoder has it: every step rounded by itself.
    #[inline(always)]
    pub fn value<S: Simd>(&self, simd: S, n: S::f32s, scale: S::f32s) -> S::f32s {
        let [a, b, c] = self.level.map(|c| simd.splat_f32s(c));
        let square = simd.mul_f32s(n, n);
        let inner = simd.add_f32s(b, simd.mul_f32s(square, c));
        let outer = simd.add_f32s(a, simd.mul_f32s(square, inner));
        simd.mul_f32s(simd.mul_f32s(n, outer), scale)
    }

    /// l(n), nearly: for an encoder to compare with.
    #[inline(always)]
    fn near_level<S: Simd>(&self, simd: S, n: S::f32s) -> S::f32s {
        let [a, b, c] = self.level.map(|c| simd.splat_f32s(c));
        let square = simd.mul_f32s(n, n);
        let inner = simd.mul_add_f32s(square, c, b);
        simd.mul_f32s(n, simd.mul_add_f32s(square, inner, a))
    }

    /// The code whose level is nearest to `t`, as a whole number, nearly always.
    #[inline(always)]
    pub fn code<S: Simd>(&self, simd: S, t: S::f32s) -> S::f32s {
        let [a, b, c, d] = self.position.map(|c| simd.splat_f32s(c));
        let (low, high) = (simd.splat_f32s(-self.reach), simd.splat_f32s(self.reach));
        let t = simd.min_f32s(simd.max_f32s(t, low), high);
        let square = simd.mul_f32s(t, t);
        let slope = simd.mul_add_f32s(square, simd.mul_add_f32s(square, d, c), b);
        let slope = simd.mul_add_f32s(square, slope, a);
        whole(simd, simd.mul_add_f32s(t, slope, simd.splat_f32s(-self.lowest)))
    }

    /// The squared error of values coded with this scale.
    #[inline(always)]
    fn error<S: Simd>(&self, simd: S, y: &[S::f32s], unit: f32) -> f32 {
        let (scale, inverse) = (simd.splat_f32s(unit), simd.splat_f32s(inverse(unit)));
        let lowest = simd.splat_f32s(self.lowest);
        crate::lanes::sum_of(
            simd,
            y,
            #[inline(always)]
            |sum, y| {
                let n = simd.add_f32s(self.code(simd, simd.mul_f32s(y, inverse)), lowest);
                let left = simd.negate_mul_add_f32s(self.near_level(simd, n), scale, y);
                simd.mul_add_f32s(left, left, sum)
            },
        )
    }

    /// The scale code of least squared error, the largest of equals, and whether it and those tried
    /// are there.
    #[inline(always)]
    pub fn choose_scale<S: Simd>(&self, simd: S, y: &[Lanes]) -> (i32, bool) {
        let (y, _) = S::as_simd_f32s(y.as_flattened());
        let largest = crate::lanes::absmax_of(simd, y);
        let nearest = scale_code(largest);
        let (mut chosen, mut least) = (nearest, f32::INFINITY);
        for down in 0..SCALES_TRIED {
            let code = (nearest - down).min(LARGEST_SCALE);
            let error = self.error(simd, y, scale(code));
            // Errors are not negative: ordered as their bits are, which needs no jump.
            let better = error.to_bits() < least.to_bits();
            least = if better { error } else { least };
            chosen = if better { code } else { chosen };
        }
        let fits = largest == 0.0 || (SCALES_TRIED..=LARGEST_SCALE).contains(&nearest);
        (chosen.clamp(0, LARGEST_SCALE), fits)
    }
}

/// 2^(j/8), rounded to f32.
const EIGHTHS: [f32; 8] = [
    1.0,
    1.090_507_7,
    1.189_207_1,
    1.296_839_6,
    std::f32::consts::SQRT_2,
    1.542_210_8,
    1.681_792_9,
    1.834_008_1,
];
/// 2^((2j+1)/16): where the nearest of them changes.
const BETWEEN: [f32; 8] = [
    1.044_273_7,
    1.138_788_6,
    1.241_857_8,
    1.354_255_5,
    1.476_826_2,
    1.610_490_3,
    1.756_252_2,
    1.915_206_6,
];
/// Scale codes are k + 64; 0 is the scale 0.
const SCALE_BIAS: i32 = 64;
const LARGEST_SCALE: i32 = 127;
/// Scale codes tried, from the one nearest to the largest magnitude down.
const SCALES_TRIED: i32 = 3;

#[inline(always)]
pub(super) fn scale(code: i32) -> f32 {
    let k = code - SCALE_BIAS;
    let power = f32::from_bits(((127 + (k >> 3)) as u32) << 23);
    if code <= 0 { 0.0 } else { EIGHTHS[(k & 7) as usize] * power }
}

#[inline(always)]
pub(super) fn inverse(unit: f32) -> f32 {
    if unit > 0.0 { 1.0 / unit } else { 0.0 }
}

/// 64 + 8·log₂ of a magnitude, rounded; below 0 for what is too small, 0 included.
#[inline(always)]
fn scale_code(magnitude: f32) -> i32 {
    let bits = magnitude.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x7f_ffff | 127 << 23);
    let eighths: i32 = BETWEEN.iter().map(|edge| i32::from(mantissa >= *edge)).sum();
    (8 * exponent + eighths + SCALE_BIAS).clamp(-1, 256)
}
