//! The search for the codes of least error among all ways through a trellis (Viterbi 1967).
//!
//! Of the ways that lead to a state only the best is followed further, its *survivor*. With noise
//! shaping each survivor takes up the errors of its own earlier codes, as many as a chain has.

use super::blocks::GROUPS;
use super::definition::Block;
use super::feedback::Feedback;
use super::trellis::{STATES, Trellis, is_below, stay};
use crate::lanes::{LANES, TWO_23, get, whole};
use pulp::Simd;

/// What a step is remembered by, a token in each lane.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// The codes that lead to it, less their lowest bits: four bits for each state.
    codes: [u32; LANES],
    /// The highest bit of the state before, one bit for each state.
    before: [u32; LANES],
}

impl Step {
    pub const NONE: Self = Self { codes: [0; LANES], before: [0; LANES] };

    /// The codes that lead a column of tokens to their states, and the states before.
    #[inline(always)]
    pub fn back<S: Simd>(&self, simd: S, column: usize, state: S::u32s) -> (S::u32s, S::u32s) {
        let one = simd.splat_u32s(1);
        let codes = S::as_simd_u32s(&self.codes).0[column];
        let before = S::as_simd_u32s(&self.before).0[column];
        let highest = simd.and_u32s(simd.wrapping_dyn_shr_u32s(before, state), one);
        let highest = simd.wrapping_dyn_shl_u32s(highest, simd.splat_u32s(2));
        let before = simd.or_u32s(simd.wrapping_dyn_shr_u32s(state, one), highest);
        let bits = simd.wrapping_dyn_shl_u32s(state, simd.splat_u32s(2));
        let half = simd.and_u32s(simd.wrapping_dyn_shr_u32s(codes, bits), simd.splat_u32s(15));
        // As `stay` has it.
        let stay = simd.wrapping_dyn_shr_u32s(before, simd.splat_u32s(2));
        let lowest = simd.xor_u32s(simd.xor_u32s(state, before), stay);
        let twice = simd.wrapping_dyn_shl_u32s(half, one);
        (simd.or_u32s(twice, simd.and_u32s(lowest, one)), before)
    }
}

/// One column of tokens of a block.
pub(super) struct Search<'a, S: Simd> {
    pub simd: S,
    pub trellis: &'static Trellis,
    /// The block's places in the order of the trellis.
    pub order: &'a [usize],
    pub column: usize,
    /// One over each token's scale.
    pub inverse: S::f32s,
    /// What the square of a level costs beside its error: rare codes are long, and far out.
    pub pull: S::f32s,
    pub y: &'a Block,
    pub steps: &'a mut [Step],
}

/// Costs of ways that do not begin in state 0.
const FAR: f32 = 1e30;

/// The survivors of all states.
struct Ways<S: Simd> {
    costs: [S::f32s; STATES],
    /// Decoded less given, of a chain's steps so far.
    errors: [[S::f32s; STATES]; GROUPS],
}

/// How a step's values are met.
struct Meeting<S: Simd> {
    /// What squared errors count.
    cost: S::f32s,
    /// Half the share of a value that the nearest level is sought for.
    half: S::f32s,
    /// Of codes of either lowest bit: the level of the first, and half of its negative.
    first: [S::f32s; 2],
    before: [S::f32s; 2],
    /// Codes of one lowest bit, less 1.
    last: S::f32s,
}

impl<S: Simd> Search<'_, S> {
    /// The last state of the best way of each token.
    #[inline(always)]
    pub fn run(&mut self, feedback: Option<&Feedback>) -> S::u32s {
        let simd = self.simd;
        let mut costs = [simd.splat_f32s(FAR); STATES];
        costs[0] = simd.splat_f32s(0.0);
        let mut ways = Ways { costs, errors: [[simd.splat_f32s(0.0); STATES]; GROUPS] };
        let Some(feedback) = feedback else {
            let meeting = self.meeting(1.0);
            let none = [[0.0; GROUPS]; GROUPS];
            for index in 0..self.order.len() {
                self.follow::<0>(index, &none, &meeting, &mut ways);
            }
            return best(simd, &ways.costs);
        };
        let meetings = feedback.costs.map(|cost| self.meeting(cost));
        let shares = &feedback.shares;
        for first in (0..self.order.len()).step_by(feedback.groups) {
            self.follow::<0>(first, shares, &meetings[0], &mut ways);
            self.follow::<1>(first, shares, &meetings[1], &mut ways);
            self.follow::<2>(first, shares, &meetings[2], &mut ways);
            self.follow::<3>(first, shares, &meetings[3], &mut ways);
            if feedback.groups == GROUPS {
                self.follow::<4>(first, shares, &meetings[4], &mut ways);
                self.follow::<5>(first, shares, &meetings[5], &mut ways);
                self.follow::<6>(first, shares, &meetings[6], &mut ways);
                self.follow::<7>(first, shares, &meetings[7], &mut ways);
            }
        }
        best(simd, &ways.costs)
    }

    /// cost · (value − level)² + pull · level² is least for the level nearest to a share of the value.
    #[inline(always)]
    fn meeting(&self, cost: f32) -> Meeting<S> {
        let simd = self.simd;
        let cost = simd.splat_f32s(cost);
        let all = simd.add_f32s(cost, self.pull);
        let half = simd.div_f32s(cost, simd.add_f32s(all, all));
        let first = [0, 1].map(|lowest| self.trellis.level(lowest));
        let last = simd.splat_f32s((self.trellis.frequencies.len() / 2 - 1) as f32);
        let [even, odd] = first;
        Meeting {
            cost,
            half,
            first: [simd.splat_f32s(even), simd.splat_f32s(odd)],
            before: [simd.splat_f32s(-0.5 * even), simd.splat_f32s(-0.5 * odd)],
            last,
        }
    }

    /// One step of each survivor, the one of index `GROUP` in its chain.
    #[inline(always)]
    fn follow<const GROUP: usize>(
        &mut self,
        first: usize,
        shares: &[[f32; GROUPS]; GROUPS],
        meeting: &Meeting<S>,
        ways: &mut Ways<S>,
    ) {
        let (simd, index) = (self.simd, first + GROUP);
        let value = get::<S>(&self.y[self.order[index]], self.column);
        let value = simd.mul_f32s(value, self.inverse);
        let zero = simd.splat_f32s(0.0);
        let mut onward = [[(zero, zero, zero); 2]; STATES];
        for (state, onward) in onward.iter_mut().enumerate() {
            let mut wanted = value;
            for (shares, errors) in shares.iter().zip(&ways.errors).take(GROUP) {
                let share = simd.splat_f32s(shares[GROUP]);
                wanted = simd.negate_mul_add_f32s(share, errors[state], wanted);
            }
            let wanted = if is_below(state) { simd.neg_f32s(wanted) } else { wanted };
            for (bit, onward) in onward.iter_mut().enumerate() {
                let (code, level) = self.nearest(wanted, bit ^ stay(state), meeting);
                let left = simd.sub_f32s(wanted, level);
                let cost = simd.mul_add_f32s(
                    simd.mul_f32s(left, left),
                    meeting.cost,
                    simd.mul_add_f32s(simd.mul_f32s(level, level), self.pull, ways.costs[state]),
                );
                let level = if is_below(state) { simd.neg_f32s(level) } else { level };
                *onward = (cost, level, code);
            }
        }
        let (mut codes, mut before) = (simd.splat_u32s(0), simd.splat_u32s(0));
        let mut is_higher = [simd.less_than_f32s(zero, zero); STATES];
        for state in 0..STATES {
            let (low, high) = (state / 2, state / 2 + STATES / 2);
            let (low_cost, low_level, low_code) = onward[low][state % 2];
            let (high_cost, high_level, high_code) = onward[high][state % 2];
            let is_high = simd.less_than_f32s(high_cost, low_cost);
            ways.costs[state] = simd.select_f32s(is_high, high_cost, low_cost);
            let code = simd.select_f32s(is_high, high_code, low_code);
            let code = simd.transmute_u32s_f32s(simd.add_f32s(code, simd.splat_f32s(TWO_23)));
            let code = simd.and_u32s(code, simd.splat_u32s(15));
            let code = simd.wrapping_dyn_shl_u32s(code, simd.splat_u32s(4 * state as u32));
            codes = simd.or_u32s(codes, code);
            let bit = simd.splat_u32s(1 << state);
            before = simd.or_u32s(before, simd.select_u32s(is_high, bit, simd.splat_u32s(0)));
            is_higher[state] = is_high;
            let level = simd.select_f32s(is_high, high_level, low_level);
            ways.errors[GROUP][state] = simd.sub_f32s(level, value);
        }
        for errors in &mut ways.errors[..GROUP] {
            let earlier = *errors;
            for (state, error) in errors.iter_mut().enumerate() {
                let (low, high) = (earlier[state / 2], earlier[state / 2 + STATES / 2]);
                *error = simd.select_f32s(is_higher[state], high, low);
            }
        }
        let step = &mut self.steps[index];
        S::as_mut_simd_u32s(&mut step.codes).0[self.column] = codes;
        S::as_mut_simd_u32s(&mut step.before).0[self.column] = before;
    }

    /// Half of the code of this lowest bit, rounded down, that is nearest to what is wanted, and its level.
    #[inline(always)]
    fn nearest(&self, wanted: S::f32s, lowest: usize, meeting: &Meeting<S>) -> (S::f32s, S::f32s) {
        let simd = self.simd;
        let code = simd.mul_add_f32s(wanted, meeting.half, meeting.before[lowest]);
        // Before it is rounded: what is huge has no whole number nearby.
        let code = simd.max_f32s(simd.splat_f32s(0.0), code);
        let code = whole(simd, simd.min_f32s(meeting.last, code));
        let level = simd.mul_add_f32s(code, simd.splat_f32s(2.0), meeting.first[lowest]);
        (code, level)
    }
}

/// The index of the least cost, the first of equals.
#[inline(always)]
fn best<S: Simd>(simd: S, costs: &[S::f32s]) -> S::u32s {
    let (mut least, mut index) = (costs[0], simd.splat_u32s(0));
    for (state, cost) in costs.iter().enumerate().skip(1) {
        let is_less = simd.less_than_f32s(*cost, least);
        least = simd.select_f32s(is_less, *cost, least);
        index = simd.select_u32s(is_less, simd.splat_u32s(state as u32), index);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::super::blocks::{BlockRule, MOST};
    use super::super::trellis::{THIRTEEN, TWENTY, TWENTY_SIX, after};
    use super::*;
    use crate::random;
    use pulp::{Arch, WithSimd};

    struct Found<'a> {
        trellis: &'static Trellis,
        size: usize,
        y: &'a Block,
        feedback: Option<&'a Feedback>,
    }

    impl WithSimd for Found<'_> {
        /// The levels of each token.
        type Output = Vec<Vec<f32>>;

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let Self { trellis, size, y, feedback } = self;
            let order: Vec<usize> = (0..size).collect();
            let mut steps = [Step::NONE; MOST];
            let mut all = vec![vec![0.0; size]; LANES];
            for column in 0..LANES / S::F32_LANES {
                let (order, steps) = (&order[..], &mut steps[..]);
                let (inverse, pull) = (simd.splat_f32s(1.0), simd.splat_f32s(0.0));
                let mut search = Search { simd, trellis, order, column, inverse, pull, y, steps };
                let last = search.run(feedback);
                let mut state = last;
                for index in (0..size).rev() {
                    let (code, earlier) = search.steps[index].back(simd, column, state);
                    let mut lanes = [[0u32; LANES]; 3];
                    for (lanes, own) in lanes.iter_mut().zip([code, earlier, state]) {
                        S::as_mut_simd_u32s(lanes).0[column] = own;
                    }
                    let [codes, earliers, states] = lanes.map(|lanes| lanes.map(|x| x as usize));
                    for token in column * S::F32_LANES..(column + 1) * S::F32_LANES {
                        assert_eq!(after(earliers[token], codes[token]), states[token]);
                        all[token][index] = level(trellis, earliers[token], codes[token]);
                    }
                    state = earlier;
                }
            }
            all
        }
    }

    fn level(trellis: &Trellis, state: usize, code: usize) -> f32 {
        if is_below(state) { -trellis.level(code) } else { trellis.level(code) }
    }

    fn block(seed: u32) -> Block {
        let mut uniform = random::uniform(seed.into());
        let mut block = [[0.0; LANES]; MOST];
        block.as_flattened_mut().iter_mut().for_each(|x| *x = 2.0 * (uniform() + uniform()));
        block
    }

    /// The least error of all ways of eight codes.
    fn least(trellis: &Trellis, wanted: &[f32], state: usize) -> f64 {
        let Some((wanted, rest)) = wanted.split_first() else { return 0.0 };
        let costs = (0..trellis.frequencies.len()).map(|code| {
            let left = f64::from(level(trellis, state, code) - wanted);
            left * left + least(trellis, rest, after(state, code))
        });
        costs.fold(f64::INFINITY, f64::min)
    }

    /// Among all ways through a short block there is none of less error.
    #[test]
    fn nothing_is_better_than_what_is_found() {
        let y = block(1);
        let found = Found { trellis: &THIRTEEN, size: 6, y: &y, feedback: None };
        for (token, levels) in Arch::new().dispatch(found).iter().enumerate() {
            let wanted: Vec<f32> = y[..6].iter().map(|row| row[token]).collect();
            let lefts = levels.iter().zip(&wanted).map(|(level, wanted)| f64::from(level - wanted));
            let (found, least) =
                (lefts.map(|left| left * left).sum(), least(&THIRTEEN, &wanted, 0));
            let _: f64 = found;
            assert!(found <= least * 1.000_001, "{token}: {found}, {least}");
        }
    }

    /// In the weights of its channels the error of a shaped block is smaller.
    #[test]
    fn shaping_costs_less_where_it_counts() {
        let blocks = BlockRule::Largest.blocks(8).unwrap();
        let feedback = Feedback::of_blocks(blocks, None, Some(blocks.chains())).remove(0).unwrap();
        for (trellis, seed) in [(&TWENTY, 2), (&TWENTY_SIX, 3)] {
            let y = block(seed);
            let total = |own: Option<&Feedback>| -> f64 {
                let block = Found { trellis, size: 8, y: &y, feedback: own };
                let found = Arch::new().dispatch(block);
                let costs = found.iter().enumerate().map(|(token, levels)| {
                    let error = |index: usize| f64::from(levels[index] - y[index][token]);
                    (0..8)
                        .map(|j| {
                            let share = |i: usize| f64::from(feedback.shares[i][j]) * error(i);
                            f64::from(feedback.costs[j]) * (0..=j).map(share).sum::<f64>().powi(2)
                        })
                        .sum::<f64>()
                });
                costs.sum()
            };
            let (shaped, unshaped) = (total(Some(&feedback)), total(None));
            assert!(shaped < 0.95 * unshaped, "{shaped}, {unshaped}");
        }
    }
}
