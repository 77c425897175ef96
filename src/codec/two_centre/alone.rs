//! Blocks whose codes stand for a level each, whatever the others are.

use super::blocks::MOST;
use super::definition::Block;
use super::feedback::Feedback;
use super::levels::{LevelCurve, Quantiser, Scales, scale};
use super::noise_shaping::Shaping;
use super::words::Words;
use crate::lanes::{LANES, Lanes, get, set};
use pulp::Simd;

/// Blocks are two pages each: what lies between them keeps a processor from taking a load from one
/// for a load of what was just stored to another.
#[repr(C, align(64))]
pub(super) struct AloneCoder {
    words: Words,
    codes: Block,
    apart: [Lanes; 5],
    errors: Block,
    curve: &'static LevelCurve,
    size: usize,
}

impl AloneCoder {
    pub fn new(curve: &'static LevelCurve, size: usize) -> Self {
        let block = [[0.0; LANES]; MOST];
        let (words, apart) = (Words::new(), [[0.0; LANES]; 5]);
        Self { words, codes: block, apart, errors: block, curve, size }
    }

    #[inline(always)]
    pub fn encode<S: Simd>(
        &mut self,
        simd: S,
        feedback: Option<&Feedback>,
        y: &mut Block,
    ) -> Scales {
        let Self { words, codes, errors, curve, size, .. } = self;
        let size = *size;
        let chosen = curve.choose_scales(simd, &y[..size]);
        let mut units = [0f32; LANES];
        for (unit, code) in units.iter_mut().zip(chosen.codes) {
            *unit = scale(code);
        }
        for column in 0..LANES / S::F32_LANES {
            let quantiser = Quantiser::new(curve, &units, column);
            if let Some(feedback) = feedback {
                let (quantiser, codes) = (&quantiser, &mut *codes);
                let (y, errors) = (&mut *y, &mut *errors);
                Shaping { simd, quantiser, feedback, column, size, y, codes, errors }.run();
            } else {
                for (y, code) in y[..size].iter_mut().zip(codes.iter_mut()) {
                    let (nearest, decoded) = quantiser.nearest(simd, get::<S>(y, column));
                    set::<S>(code, column, nearest);
                    set::<S>(y, column, decoded);
                }
            }
            words.join(simd, curve.count(), &codes[..size], column);
        }
        words.turn(simd, size);
        chosen
    }

    #[inline(always)]
    pub fn write(&self, token: usize, out: &mut [u8]) {
        self.words.write(token, self.size, out);
    }

    #[inline(always)]
    pub fn read(&mut self, token: usize, from: &[u8]) {
        self.words.read(token, self.size, from);
    }

    #[inline(always)]
    pub fn decode<S: Simd>(&mut self, simd: S, scales: &Lanes, y: &mut Block) {
        self.words.turn(simd, self.size);
        for column in 0..LANES / S::F32_LANES {
            self.words.split(simd, self.curve, &mut y[..self.size], column);
            let unit = get::<S>(scales, column);
            for y in &mut y[..self.size] {
                let value = self.curve.value(simd, get::<S>(y, column), unit);
                set::<S>(y, column, value);
            }
        }
    }
}
