//! Blocks whose codes go by a trellis into a fixed length.

use super::blocks::{Blocks, MOST};
use super::definition::Block;
use super::feedback::Feedback;
use super::levels::{Fit, LARGEST_SCALE, Scales, scale, scale_code};
use super::trellis::{MOST_CODES, Number, Slots, Trellis, Walk, starts};
use super::viterbi::{Search, Step};
use crate::lanes::{LANES, Lanes, TWO_23, get, set};
use pulp::Simd;

/// Codes, and what a search for them works in.
#[repr(C, align(64))]
pub(super) struct TrellisCoder {
    trellis: &'static Trellis,
    /// The places of a block in the order of the trellis.
    order: Vec<usize>,
    /// Of each code: slots before its own, and its own.
    starts: [(u16, u16); MOST_CODES],
    slots: Slots,
    numbers: [Number; LANES],
    steps: [Step; MOST],
    /// In the order of the trellis.
    codes: [[u32; LANES]; MOST],
    levels: Block,
}

/// Searches for codes that fit, at most.
const TRIES: i32 = 16;

impl TrellisCoder {
    pub fn new(trellis: &'static Trellis, blocks: Blocks) -> Self {
        Self {
            trellis,
            order: blocks.chains().places(blocks.size).collect(),
            starts: starts(trellis),
            slots: Slots::new(trellis),
            numbers: [Number::new(0); LANES],
            steps: [Step::NONE; MOST],
            codes: [[0; LANES]; MOST],
            levels: [[0.0; LANES]; MOST],
        }
    }

    #[inline(always)]
    pub fn encode<S: Simd>(
        &mut self,
        simd: S,
        feedback: Option<&Feedback>,
        y: &mut Block,
    ) -> Scales {
        let size = self.order.len();
        let room = 8 * self.trellis.code_bytes(size);
        let (squares, mut fits) = self.squares(simd, &y[..size]);
        let size = size as f32;
        let mut units = squares.map(|squares| (squares / size).sqrt() * self.trellis.reach);
        let mut done = [false; LANES];
        let (mut scales, mut codes, mut fine) = ([0f32; LANES], [0; LANES], [0; LANES]);
        for tried in 1..=TRIES {
            let last = self.search(simd, feedback, y, &units);
            let open: Vec<usize> = (0..LANES).filter(|token| !done[*token]).collect();
            self.follow_back(simd, &last, &done.map(|done| if done { 0.0 } else { 1.0 }));
            let along = self.along(simd, y);
            for token in &open {
                let wanted = self.wanted(*token, squares[*token], along[*token], units[*token]);
                let scale = FineScale::nearest(wanted);
                (scales[*token], codes[*token]) = (scale.value(), scale.code);
                fine[*token] = scale.fine;
            }
            self.put(&open, &fine);
            for token in open {
                let bits = self.numbers[token].bits();
                done[token] = bits <= room;
                // A larger unit by about what there is too much: 2 to the power of that.
                let more = (bits as f32 - room as f32) / size + 0.004 * tried as f32;
                units[token] *= 1.0 + 0.75 * more;
            }
            if done == [true; LANES] {
                break;
            }
        }
        for token in (0..LANES).filter(|token| !done[*token]) {
            // Beyond all scales.
            (scales[token], codes[token], fits[token]) = (0.0, 0, Fit::Beyond);
            self.numbers[token] = Number::new(0);
        }
        self.scaled(simd, &scales, y);
        Scales { codes, fits }
    }

    /// The scale of a token whose levels make a block that is unbiased along the original, which is
    /// longer where the levels point elsewhere; where it would be much longer than the unit they were
    /// searched in, that of the least error.
    fn wanted(&self, token: usize, squares: f32, along: f32, unit: f32) -> f32 {
        let unbiased = squares / along;
        if along > 0.0 && unbiased <= MOST_UNITS * unit {
            return unbiased;
        }
        let levels = self.levels[..self.order.len()].iter().map(|row| row[token] * row[token]);
        (along / levels.sum::<f32>()).max(0.0)
    }

    /// The sum of squares of each token, and whether it is a number that scales can be made of.
    #[inline(always)]
    fn squares<S: Simd>(&self, simd: S, rows: &[Lanes]) -> (Lanes, [Fit; LANES]) {
        let (mut squares, mut largest) = ([0f32; LANES], [0f32; LANES]);
        for column in 0..LANES / S::F32_LANES {
            let zero = simd.splat_f32s(0.0);
            let (mut sum, mut most) = (zero, zero);
            for row in rows {
                let x = get::<S>(row, column);
                sum = simd.mul_add_f32s(x, x, sum);
                most = simd.max_f32s(most, simd.abs_f32s(x));
            }
            set::<S>(&mut squares, column, sum);
            set::<S>(&mut largest, column, most);
        }
        let mut fits = [Fit::Within; LANES];
        for (token, (squares, largest)) in squares.iter_mut().zip(largest).enumerate() {
            let size = (*squares / rows.len() as f32).sqrt() * self.trellis.reach;
            fits[token] = match scale_code(size) {
                _ if !squares.is_finite() => Fit::Beyond,
                ..1 if largest > 0.0 => Fit::TooSmall,
                ..=MOST_SCALE => Fit::Within,
                _ => Fit::Beyond,
            };
            // What overflowed is infinite, or no number.
            *squares = if squares.is_finite() { *squares } else { f32::MAX };
        }
        (squares, fits)
    }

    /// The last state of each token's best way.
    #[inline(always)]
    fn search<S: Simd>(
        &mut self,
        simd: S,
        feedback: Option<&Feedback>,
        y: &Block,
        units: &Lanes,
    ) -> [u32; LANES] {
        let inverses = units.map(|unit| if unit >= f32::MIN_POSITIVE { 1.0 / unit } else { 0.0 });
        let pull = simd.splat_f32s(self.trellis.pull);
        let mut last = [0; LANES];
        for column in 0..LANES / S::F32_LANES {
            let inverse = get::<S>(&inverses, column);
            let Self { trellis, ref order, ref mut steps, .. } = *self;
            let mut search = Search { simd, trellis, order, column, inverse, pull, y, steps };
            let found = search.run(feedback);
            S::as_mut_simd_u32s(&mut last).0[column] = found;
        }
        last
    }

    /// Codes and levels on the way back from the last states, of tokens that are `open`.
    #[inline(always)]
    fn follow_back<S: Simd>(&mut self, simd: S, last: &[u32; LANES], open: &Lanes) {
        let (sign, magic) = (simd.splat_u32s(30), simd.splat_u32s(TWO_23.to_bits()));
        let (two, offset) = (simd.splat_u32s(2), simd.splat_f32s(self.trellis.offset()));
        let Self { ref order, ref steps, ref mut codes, ref mut levels, .. } = *self;
        for column in 0..LANES / S::F32_LANES {
            let is_open = simd.less_than_f32s(simd.splat_f32s(0.0), get::<S>(open, column));
            let mut state = S::as_simd_u32s(last).0[column];
            for (index, place) in order.iter().enumerate().rev() {
                let (code, before) = steps[index].back(simd, column, state);
                let level = simd.transmute_f32s_u32s(simd.or_u32s(code, magic));
                let level = simd.sub_f32s(level, simd.splat_f32s(TWO_23));
                let level = simd.transmute_u32s_f32s(simd.add_f32s(level, offset));
                // As `is_below` has it.
                let below = simd.wrapping_dyn_shl_u32s(simd.and_u32s(before, two), sign);
                let level = simd.transmute_f32s_u32s(simd.xor_u32s(level, below));
                let old = get::<S>(&levels[*place], column);
                set::<S>(&mut levels[*place], column, simd.select_f32s(is_open, level, old));
                let old = &mut S::as_mut_simd_u32s(&mut codes[index]).0[column];
                *old = simd.select_u32s(is_open, code, *old);
                state = before;
            }
        }
    }

    /// The product of each token's levels with its values: with a scale that makes it the values' square,
    /// what is decoded is as long along the original as that is. Levels of least error make it shorter, and
    /// logits flatter.
    #[inline(always)]
    fn along<S: Simd>(&self, simd: S, y: &Block) -> Lanes {
        let mut along = [0f32; LANES];
        for column in 0..LANES / S::F32_LANES {
            let mut sum = simd.splat_f32s(0.0);
            for (y, level) in y[..self.order.len()].iter().zip(&self.levels) {
                sum = simd.mul_add_f32s(get::<S>(y, column), get::<S>(level, column), sum);
            }
            set::<S>(&mut along, column, sum);
        }
        along
    }

    /// Puts the codes of tokens into numbers, the last ones first: one of a token waits for the one before, and
    /// those of several do not wait for each other.
    fn put(&mut self, tokens: &[usize], fine: &[u8; LANES]) {
        for token in tokens {
            self.numbers[*token] = Number::new(fine[*token]);
        }
        for codes in self.codes[..self.order.len()].iter().rev() {
            for token in tokens {
                let (start, frequency) = self.starts[codes[*token] as usize % MOST_CODES];
                self.numbers[*token].put(start, frequency);
            }
        }
    }

    /// Levels times scales.
    #[inline(always)]
    fn scaled<S: Simd>(&self, simd: S, scales: &Lanes, y: &mut Block) {
        for column in 0..LANES / S::F32_LANES {
            let scale = get::<S>(scales, column);
            for (y, level) in y[..self.order.len()].iter_mut().zip(&self.levels) {
                set::<S>(y, column, simd.mul_f32s(get::<S>(level, column), scale));
            }
        }
    }

    #[inline(always)]
    pub fn write(&self, token: usize, out: &mut [u8]) {
        self.numbers[token].write(out);
    }

    #[inline(always)]
    pub fn read(&mut self, token: usize, from: &[u8]) {
        self.numbers[token] = Number::read(from);
    }

    #[inline(always)]
    pub fn decode<S: Simd>(&mut self, simd: S, scales: &Lanes, y: &mut Block) {
        let Self { trellis, ref order, ref slots, ref mut numbers, ref mut levels, .. } = *self;
        let mut walk = Walk { trellis, slots, numbers, states: [0; LANES] };
        for place in order {
            walk.step(&mut levels[*place]);
        }
        let mut scales = *scales;
        for (scale, number) in scales.iter_mut().zip(&self.numbers) {
            *scale *= FINE[usize::from(number.left()) % FINE.len()];
        }
        self.scaled(simd, &scales, y);
    }
}

/// A scale of a block, 2^(1/128) from the next.
struct FineScale {
    code: i32,
    fine: u8,
}

impl FineScale {
    fn nearest(wanted: f32) -> Self {
        // Nothing that is not above 0 has a code.
        let nearest = if wanted > 0.0 { scale_code(wanted) } else { 0 };
        if nearest <= 0 {
            return Self { code: 0, fine: 0 };
        }
        let code = nearest - i32::from(scale(nearest) > wanted);
        let above = wanted / scale(code.max(1));
        let fine = BETWEEN.iter().filter(|edge| above >= **edge).count();
        // Nearest to the next one.
        let (code, fine) = if fine == FINE.len() { (code + 1, 0) } else { (code, fine) };
        Self { code: code.clamp(1, LARGEST_SCALE), fine: fine as u8 }
    }

    fn value(&self) -> f32 {
        scale(self.code) * FINE[usize::from(self.fine)]
    }
}

/// The code of the largest unit: a scale of twice that has one.
const MOST_SCALE: i32 = LARGEST_SCALE - 8;
/// Units in a scale that makes a block unbiased, at most: random blocks of 12 channels and more take up to
/// so many.
const MOST_UNITS: f32 = 2.3;
/// 2^(j/128), rounded to f32.
const FINE: [f32; 16] = [
    1.0,
    1.005_429_9,
    1.010_889_3,
    1.016_378_3,
    1.021_897_2,
    1.027_445_9,
    1.033_024_9,
    1.038_634_1,
    1.044_273_7,
    1.049_944,
    1.055_645_2,
    1.061_377_2,
    1.067_140_5,
    1.072_934_9,
    1.078_760_7,
    1.084_618_3,
];
/// 2^((2j+1)/256): where the nearest of them changes.
const BETWEEN: [f32; 16] = [
    1.002_711_3,
    1.008_156,
    1.013_63,
    1.019_134,
    1.024_667_7,
    1.030_231_6,
    1.035_825_7,
    1.041_450_1,
    1.047_105_1,
    1.052_790_8,
    1.058_507_3,
    1.064_254_9,
    1.070_033_7,
    1.075_843_9,
    1.081_685_7,
    1.087_559_1,
];
