//! Noise shaping: codes that take up errors of earlier ones.

use super::definition::{BLOCK, Block};
use super::levels::Quantiser;
use crate::lanes::{get, set};
use pulp::Simd;

/// The feedback of errors for the energy that queries are taken to have in each eighth of the rotary frequencies, the fastest
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

/// Codes of `y`, and the values they stand for in its place, of one column of 64 channels, whose eighths
/// are in turn `APART` channels each. Every eighth waits for the one before.
#[inline(always)]
pub(super) fn shape<S: Simd, const APART: usize>(
    simd: S,
    quantiser: &Quantiser<S>,
    y: &mut Block,
    codes: &mut Block,
    errors: &mut Block,
    column: usize,
) {
    let mut eighths = Eighths::<S, APART> { simd, quantiser, column, y, codes, errors };
    eighths.code::<0>();
    eighths.code::<1>();
    eighths.code::<2>();
    eighths.code::<3>();
    eighths.code::<4>();
    eighths.code::<5>();
    eighths.code::<6>();
    eighths.code::<7>();
}

struct Eighths<'a, S: Simd, const APART: usize> {
    simd: S,
    quantiser: &'a Quantiser<S>,
    column: usize,
    y: &'a mut Block,
    codes: &'a mut Block,
    errors: &'a mut Block,
}

impl<S: Simd, const APART: usize> Eighths<'_, S, APART> {
    #[inline(always)]
    fn code<const EIGHTH: usize>(&mut self) {
        let (simd, column) = (self.simd, self.column);
        let mut weights = [simd.splat_f32s(0.0); EIGHTH];
        for (to, weights) in weights.iter_mut().zip(&FEEDBACK) {
            *to = simd.splat_f32s(weights[EIGHTH]);
        }
        for member in 0..BLOCK / 8 {
            let first = member / APART * 8 * APART + member % APART;
            let own = first + EIGHTH * APART;
            let y = get::<S>(&self.y[own], column);
            let mut wanted = y;
            for (earlier, weight) in weights.iter().enumerate() {
                let error = get::<S>(&self.errors[first + earlier * APART], column);
                wanted = simd.negate_mul_add_f32s(*weight, error, wanted);
            }
            let (code, decoded) = self.quantiser.nearest(simd, wanted);
            set::<S>(&mut self.codes[own], column, code);
            set::<S>(&mut self.errors[own], column, simd.sub_f32s(decoded, y));
            set::<S>(&mut self.y[own], column, decoded);
        }
    }
}
