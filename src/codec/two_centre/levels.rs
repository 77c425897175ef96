//! Levels fitted to rotated blocks, and the scales they are multiplied with.

use super::trellis::{self, Trellis};
use crate::lanes::{LANES, Lanes, get, set, whole};
use pulp::Simd;

/// A set of levels fitted to rotated blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FittedLevels {
    /// By a trellis, 13 bits for eight codes.
    Trellis13,
    /// By a trellis, 20 bits for eight codes.
    Trellis20,
    /// By a trellis, 24 bits for eight codes.
    Trellis24,
    /// By a trellis, 26 bits for eight codes.
    Trellis26,
    /// ±½, ±1½ … ±7½; 4 bits.
    Sixteen,
    /// −9 … 9; 4.25 bits.
    Nineteen,
}

/// What codes stand for.
pub(super) enum LevelSet {
    /// A level each.
    Curve(&'static LevelCurve),
    /// A level that depends on the codes before.
    Trellis(&'static Trellis),
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
    /// Larger magnitudes count as this one, whose code is the last.
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
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Trellis13,
        Self::Trellis20,
        Self::Trellis24,
        Self::Trellis26,
        Self::Sixteen,
        Self::Nineteen,
    ];

    /// Their word in a name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trellis13 => "te13",
            Self::Trellis20 => "te20",
            Self::Trellis24 => "te24",
            Self::Trellis26 => "te26",
            Self::Sixteen => "tc16",
            Self::Nineteen => "tc19",
        }
    }

    /// Whether codes go by a trellis.
    pub fn is_trellis(self) -> bool {
        matches!(self.set(), LevelSet::Trellis(_))
    }

    pub(super) fn set(self) -> LevelSet {
        match self {
            Self::Trellis13 => LevelSet::Trellis(&trellis::THIRTEEN),
            Self::Trellis20 => LevelSet::Trellis(&trellis::TWENTY),
            Self::Trellis24 => LevelSet::Trellis(&trellis::TWENTY_FOUR),
            Self::Trellis26 => LevelSet::Trellis(&trellis::TWENTY_SIX),
            Self::Sixteen => LevelSet::Curve(&SIXTEEN),
            Self::Nineteen => LevelSet::Curve(&NINETEEN),
        }
    }

    /// Bytes of the codes of a block.
    pub(in crate::codec) fn code_bytes(self, block: usize) -> usize {
        match self.set() {
            LevelSet::Trellis(trellis) => trellis.code_bytes(block),
            // Words of four codes: their low 16 bits, and the highest one of 19 levels.
            LevelSet::Curve(_) if self == Self::Nineteen => block / 2 + (block / 4).div_ceil(8),
            LevelSet::Curve(_) => block / 2,
        }
    }
}

impl LevelCurve {
    /// Levels.
    pub fn count(&self) -> f32 {
        1.0 - 2.0 * self.lowest
    }

    /// l(n)·s as a decoder has it: every step rounded by itself.
    #[inline(always)]
    pub fn value<S: Simd>(&self, simd: S, n: S::f32s, scale: S::f32s) -> S::f32s {
        let [a, b, c] = self.level;
        let (a, b, c) = (simd.splat_f32s(a), simd.splat_f32s(b), simd.splat_f32s(c));
        let square = simd.mul_f32s(n, n);
        let inner = simd.add_f32s(b, simd.mul_f32s(square, c));
        let outer = simd.add_f32s(a, simd.mul_f32s(square, inner));
        simd.mul_f32s(simd.mul_f32s(n, outer), scale)
    }

    /// For each token the scale of least squared error, the largest of equals. `rows` are channels
    /// of up to 16 tokens.
    #[inline(always)]
    pub fn choose_scales<S: Simd>(&self, simd: S, rows: &[Lanes]) -> Scales {
        let (mut largest, mut nothing) = ([0f32; LANES], [0f32; LANES]);
        for column in 0..LANES / S::F32_LANES {
            let zero = simd.splat_f32s(0.0);
            let (mut max, mut sum) = (zero, zero);
            for row in rows {
                let x = get::<S>(row, column);
                max = simd.max_f32s(max, simd.abs_f32s(x));
                sum = simd.mul_add_f32s(x, zero, sum);
            }
            set::<S>(&mut largest, column, max);
            set::<S>(&mut nothing, column, sum);
        }
        // A value that overflowed on the way here may not be the maximum, but zero times it is not zero.
        for (largest, nothing) in largest.iter_mut().zip(nothing) {
            *largest = if nothing == 0.0 { *largest } else { f32::INFINITY };
        }
        let (mut nearest, mut inverses) = ([0; LANES], [0f32; LANES]);
        for ((nearest, inverse), largest) in nearest.iter_mut().zip(&mut inverses).zip(largest) {
            *nearest = scale_code(largest);
            *inverse = 1.0 / power(*nearest);
        }
        let mut errors = [[0f32; LANES]; CANDIDATES];
        for column in 0..LANES / S::F32_LANES {
            let found = self.errors(simd, rows, get::<S>(&inverses, column), column);
            for (errors, found) in errors.iter_mut().zip(found) {
                set::<S>(errors, column, found);
            }
        }
        let mut scales = Scales { codes: nearest, fits: [Fit::Within; LANES] };
        for (token, code) in scales.codes.iter_mut().enumerate() {
            let mut least = errors[0][token];
            for (down, errors) in (1..).zip(&errors[1..]) {
                if errors[token] < least {
                    (*code, least) = (nearest[token] - down, errors[token]);
                }
            }
            // The scale 0 is for what is nearer to it than to the smallest one.
            let smallest = i32::from(nearest[token] > 0);
            *code = (*code).clamp(smallest, LARGEST_SCALE);
            let fits = largest[token] == 0.0
                || (CANDIDATES as i32..=LARGEST_SCALE).contains(&nearest[token]);
            scales.fits[token] = if fits { Fit::Within } else { Fit::Beyond };
        }
        scales
    }

    /// The squared errors, in one unit, of values coded with the scale whose inverse is given and
    /// with those below it.
    #[inline(always)]
    fn errors<S: Simd>(
        &self,
        simd: S,
        rows: &[Lanes],
        inverse: S::f32s,
        column: usize,
    ) -> [S::f32s; CANDIDATES] {
        // Values t in units of the largest scale are t·r in units of one that is r times smaller.
        let mut candidates = [([inverse; 4], [inverse; 3]); CANDIDATES];
        for ((position, level), r) in candidates.iter_mut().zip(EIGHTHS) {
            let mut power = r;
            for (to, c) in position.iter_mut().zip(self.position) {
                *to = simd.splat_f32s(c * power);
                power *= r * r;
            }
            for (to, c) in level.iter_mut().zip(self.level) {
                *to = simd.splat_f32s(c / r);
            }
        }
        // Magnitudes are n = 0, 1, 2 … or ½, 1½, 2½ …
        let last = (-self.lowest).floor();
        let first = simd.splat_f32s(-self.lowest - last);
        let (last, minus_first) = (simd.splat_f32s(last), simd.neg_f32s(first));
        let mut sums = [simd.splat_f32s(0.0); CANDIDATES];
        for row in rows {
            let t = simd.mul_f32s(simd.abs_f32s(get::<S>(row, column)), inverse);
            let square = simd.mul_f32s(t, t);
            for (sum, ([c0, c1, c2, c3], [l0, l1, l2])) in sums.iter_mut().zip(candidates) {
                let slope = simd.mul_add_f32s(square, simd.mul_add_f32s(square, c3, c2), c1);
                let slope = simd.mul_add_f32s(square, slope, c0);
                let steps = whole(simd, simd.mul_add_f32s(t, slope, minus_first));
                let n = simd.add_f32s(simd.min_f32s(steps, last), first);
                let square = simd.mul_f32s(n, n);
                let level = simd.mul_add_f32s(square, simd.mul_add_f32s(square, l2, l1), l0);
                let left = simd.negate_mul_add_f32s(n, level, t);
                *sum = simd.mul_add_f32s(left, left, *sum);
            }
        }
        sums
    }
}

/// The levels and scales that a column of tokens is coded with.
pub(super) struct Quantiser<S: Simd> {
    curve: &'static LevelCurve,
    scale: S::f32s,
    inverse: S::f32s,
}

impl<S: Simd> Quantiser<S> {
    #[inline(always)]
    pub fn new(curve: &'static LevelCurve, scales: &Lanes, column: usize) -> Self {
        let mut inverses = [0f32; LANES];
        for (inverse, scale) in inverses.iter_mut().zip(scales) {
            *inverse = if *scale > 0.0 { 1.0 / scale } else { 0.0 };
        }
        Self { curve, scale: get::<S>(scales, column), inverse: get::<S>(&inverses, column) }
    }

    /// The code whose level is nearest to `y`, nearly always, as a whole number, and the value it
    /// stands for.
    #[inline(always)]
    pub fn nearest(&self, simd: S, y: S::f32s) -> (S::f32s, S::f32s) {
        let reach = self.curve.reach;
        let [a, b, c, d] = self.curve.position;
        let (a, b) = (simd.splat_f32s(a), simd.splat_f32s(b));
        let (c, d) = (simd.splat_f32s(c), simd.splat_f32s(d));
        let (low, high) = (simd.splat_f32s(-reach), simd.splat_f32s(reach));
        let t = simd.mul_f32s(y, self.inverse);
        let t = simd.min_f32s(simd.max_f32s(t, low), high);
        let square = simd.mul_f32s(t, t);
        let slope = simd.mul_add_f32s(square, simd.mul_add_f32s(square, d, c), b);
        let slope = simd.mul_add_f32s(square, slope, a);
        let lowest = simd.splat_f32s(self.curve.lowest);
        let code = whole(simd, simd.mul_add_f32s(t, slope, simd.splat_f32s(-self.curve.lowest)));
        (code, self.curve.value(simd, simd.add_f32s(code, lowest), self.scale))
    }
}

/// Of 16 tokens.
pub(super) struct Scales {
    pub codes: [i32; LANES],
    pub fits: [Fit; LANES],
}

/// Whether what is to be stored has a form. Of several, the last here counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// All scales that were looked for have a code; or all values are 0.
    Within,
    /// The smallest scale is too large, so that values become 0.
    TooSmall,
    /// A scale, or a value of the first token, has none.
    Beyond,
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
pub(super) const LARGEST_SCALE: i32 = 127;
/// Scale codes tried, from the one nearest to the largest magnitude down.
const CANDIDATES: usize = 3;

#[inline(always)]
pub(super) fn scale(code: i32) -> f32 {
    if code <= 0 { 0.0 } else { power(code) }
}

/// 2^((code − 64)/8)
#[inline(always)]
fn power(code: i32) -> f32 {
    let k = code - SCALE_BIAS;
    EIGHTHS[(k & 7) as usize] * f32::from_bits(((127 + (k >> 3)) as u32) << 23)
}

/// 64 + 8·log₂ of a magnitude, rounded; below 0 for what is too small, 0 included.
#[inline(always)]
pub(super) fn scale_code(magnitude: f32) -> i32 {
    let bits = magnitude.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x7f_ffff | 127 << 23);
    let mut eighths = 0;
    for edge in BETWEEN {
        eighths += i32::from(mantissa >= edge);
    }
    (8 * exponent + eighths + SCALE_BIAS).clamp(-1, 256)
}
