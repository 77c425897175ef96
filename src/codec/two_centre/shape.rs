//! Noise shaping: codes that take up errors of earlier ones.

use super::levels::{LevelCurve, inverse};
use super::tile::TOKENS;
use pulp::Simd;

/// What a query's energy is taken to be in each eighth of the rotary frequencies, the fastest
/// first: 1, 1, 1, 1, 1, 2.5, 4, 4. With H₈ = Had·diag(these)·Had = U·D·Uᵀ, U upper with a
/// diagonal of ones, code j takes up U[i][j] times the error of each code i before it.
const FEEDBACK: [[f32; 8]; 8] = [
    [
        1.0,
        -0.101_694_9,
        -0.143_686_5,
        -0.076_142_13,
        -0.407_142_9,
        0.180_722_9,
        0.302_521,
        0.096_774_2,
    ],
    [0.0, 1.0, -0.087_082_73, -0.137_055_8, 0.107_142_9, -0.426_506, 0.126_050_4, 0.290_322_6],
    [0.0, 0.0, 1.0, -0.076_142_13, 0.192_857_1, 0.072_289_16, -0.478_991_6, 0.096_774_2],
    [0.0, 0.0, 0.0, 1.0, 0.107_142_9, 0.173_494, 0.050_420_17, -0.483_871],
    [0.0, 0.0, 0.0, 0.0, 1.0, -0.180_722_9, -0.302_521, -0.096_774_2],
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -0.126_050_4, -0.290_322_6],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -0.096_774_2],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
];

/// Values of a block in each eighth.
const EACH: usize = 8;
/// The values of one eighth, token after token.
type Eighth = [f32; TOKENS * EACH];

#[repr(align(64))]
pub(super) struct Shaping {
    y: [Eighth; 8],
    codes: [Eighth; 8],
    errors: [Eighth; 8],
    scale: Eighth,
    inverse: Eighth,
}

impl Shaping {
    pub fn new() -> Self {
        let eighth = [0.0; TOKENS * EACH];
        let eighths = [eighth; 8];
        Self { y: eighths, codes: eighths, errors: eighths, scale: eighth, inverse: eighth }
    }

    /// One token of a block of 64. Runs of `APART` channels belong to one eighth after the other.
    #[inline(always)]
    pub fn put<const APART: usize>(&mut self, token: usize, y: &[f32], unit: f32) {
        let own = token * EACH..(token + 1) * EACH;
        self.scale[own.clone()].fill(unit);
        self.inverse[own].fill(inverse(unit));
        for (run, y) in y.as_chunks::<APART>().0.iter().enumerate() {
            self.y[run % 8].as_chunks_mut::<APART>().0[token * EACH / APART + run / 8] = *y;
        }
    }

    /// Its codes, and what they stand for.
    #[inline(always)]
    pub fn take<const APART: usize>(&self, token: usize, codes: &mut [f32], y: &mut [f32]) {
        let runs = codes.as_chunks_mut::<APART>().0.iter_mut().zip(y.as_chunks_mut::<APART>().0);
        for (run, (codes, y)) in runs.enumerate() {
            let at = token * EACH / APART + run / 8;
            *codes = self.codes[run % 8].as_chunks::<APART>().0[at];
            *y = self.y[run % 8].as_chunks::<APART>().0[at];
        }
    }

    /// All tokens at once: each eighth waits for the one before.
    #[inline(always)]
    pub fn run<S: Simd>(&mut self, simd: S, curve: &LevelCurve) {
        let (scales, _) = S::as_simd_f32s(&self.scale);
        let (inverses, _) = S::as_simd_f32s(&self.inverse);
        let lowest = simd.splat_f32s(curve.lowest);
        for eighth in 0..8 {
            let (earlier, errors) = self.errors.split_at_mut(eighth);
            let (errors, _) = S::as_mut_simd_f32s(&mut errors[0]);
            let (codes, _) = S::as_mut_simd_f32s(&mut self.codes[eighth]);
            let (ys, _) = S::as_mut_simd_f32s(&mut self.y[eighth]);
            for (index, y) in ys.iter_mut().enumerate() {
                let mut wanted = *y;
                for (error, weights) in earlier.iter().zip(&FEEDBACK) {
                    let error = S::as_simd_f32s(error).0[index];
                    let weight = simd.splat_f32s(weights[eighth]);
                    wanted = simd.negate_mul_add_f32s(weight, error, wanted);
                }
                let code = curve.code(simd, simd.mul_f32s(wanted, inverses[index]));
                let decoded = curve.value(simd, simd.add_f32s(code, lowest), scales[index]);
                codes[index] = code;
                errors[index] = simd.sub_f32s(decoded, *y);
                *y = decoded;
            }
        }
    }
}
