//! Noise shaping: codes that take up errors of earlier ones.

use super::blocks::GROUPS;
use super::definition::Block;
use super::feedback::Feedback;
use super::levels::Quantiser;
use crate::lanes::{get, set};
use pulp::Simd;

/// One column of tokens of a block of `size` channels.
pub(super) struct Shaping<'a, S: Simd> {
    pub simd: S,
    pub quantiser: &'a Quantiser<S>,
    pub feedback: &'a Feedback,
    pub column: usize,
    pub size: usize,
    /// The rotated block; becomes what its codes stand for.
    pub y: &'a mut Block,
    /// Becomes codes.
    pub codes: &'a mut Block,
    /// Becomes decoded less given.
    pub errors: &'a mut Block,
}

impl<S: Simd> Shaping<'_, S> {
    /// Group after group: each waits for the one before.
    #[inline(always)]
    pub fn run(mut self) {
        self.code::<0>();
        self.code::<1>();
        self.code::<2>();
        self.code::<3>();
        if self.feedback.groups == GROUPS {
            self.code::<4>();
            self.code::<5>();
            self.code::<6>();
            self.code::<7>();
        }
    }

    #[inline(always)]
    fn code<const GROUP: usize>(&mut self) {
        let (simd, column) = (self.simd, self.column);
        let Feedback { groups, apart, ref shares, .. } = *self.feedback;
        let mut weights = [simd.splat_f32s(0.0); GROUP];
        for (to, shares) in weights.iter_mut().zip(shares) {
            *to = simd.splat_f32s(shares[GROUP]);
        }
        for first in (0..self.size).step_by(groups * apart) {
            for first in first..first + apart {
                let own = first + GROUP * apart;
                let y = get::<S>(&self.y[own], column);
                let mut wanted = y;
                for (earlier, weight) in weights.iter().enumerate() {
                    let error = get::<S>(&self.errors[first + earlier * apart], column);
                    wanted = simd.negate_mul_add_f32s(*weight, error, wanted);
                }
                let (code, decoded) = self.quantiser.nearest(simd, wanted);
                set::<S>(&mut self.codes[own], column, code);
                set::<S>(&mut self.errors[own], column, simd.sub_f32s(decoded, y));
                set::<S>(&mut self.y[own], column, decoded);
            }
        }
    }
}
