//! Entropy-coded levels that go by a trellis (Fischer and Wang 1992).
//!
//! A step's levels are a whole number of scales apart. Those of one state of a shift register lie a quarter of
//! a scale above, those of another as much below: between them they are half a scale apart, and the encoder
//! searches among all ways through for the one that meets the values best, which gains 1 dB on levels that every
//! step has alike. The register is Ungerboeck's code of 8 states (1982). Codes go into as many bits as they are
//! rare, all of a block into one number of a fixed length.

use crate::lanes::{LANES, Lanes};

/// Codes that go into a fixed length.
#[derive(Debug)]
pub(super) struct Trellis {
    /// Bits of eight codes.
    bits: usize,
    /// Of 1024 codes, how many are each. The one in the middle is a quarter above 0.
    pub frequencies: &'static [u16],
    /// Where a search begins: the unit of levels in root mean squares, such that codes nearly always fit.
    pub reach: f32,
    /// What the square of a level costs a search beside its error, in squares of the unit: its code's length.
    pub pull: f32,
}

// Found on Gaussian blocks, those of 20 and 26 bits with noise shaped.
pub(super) static THIRTEEN: Trellis = Trellis {
    bits: 13,
    frequencies: &[1, 1, 25, 328, 543, 122, 3, 1],
    reach: 1.4152,
    pull: 0.1493,
};
pub(super) static TWENTY: Trellis = Trellis {
    bits: 20,
    frequencies: &[1, 1, 4, 33, 127, 267, 307, 200, 70, 12, 1, 1],
    reach: 0.8056,
    pull: 0.0444,
};
pub(super) static TWENTY_FOUR: Trellis = Trellis {
    bits: 24,
    frequencies: &[1, 1, 1, 7, 27, 73, 141, 204, 218, 180, 105, 46, 15, 3, 1, 1],
    reach: 0.5601,
    pull: 0.0222,
};
pub(super) static TWENTY_SIX: Trellis = Trellis {
    bits: 26,
    frequencies: &[1, 1, 1, 5, 17, 43, 84, 137, 177, 181, 159, 112, 63, 28, 10, 3, 1, 1],
    reach: 0.4749,
    pull: 0.0157,
};

/// States of the register.
pub(super) const STATES: usize = 8;
/// Frequencies add up to 2 to this power.
const PRECISION: u32 = 10;

impl Trellis {
    /// Bytes of the codes of a block.
    pub fn code_bytes(&self, block: usize) -> usize {
        (block * self.bits).div_ceil(64)
    }

    /// The level of a code, in scales, in states that are not [`is_below`].
    #[inline(always)]
    pub fn level(&self, code: usize) -> f32 {
        code as f32 + self.offset()
    }

    /// The level of code 0.
    #[inline(always)]
    pub fn offset(&self) -> f32 {
        0.25 - (self.frequencies.len() / 2) as f32
    }
}

/// Whether the levels of a state are the negatives of those of others.
#[inline(always)]
pub(super) fn is_below(state: usize) -> bool {
    state & 2 != 0
}

/// The lowest bit of a code that moves a 0 into the register, else a 1.
#[inline(always)]
pub(super) fn stay(state: usize) -> usize {
    (state ^ state >> 2) & 1
}

/// The state after a code.
#[inline(always)]
pub(super) fn after(state: usize, code: usize) -> usize {
    (state << 1 | (code ^ stay(state)) & 1) & (STATES - 1)
}

/// The number that codes are put into, the last code first (Duda 2014, rANS): its upper part, and what was moved
/// out of it.
#[derive(Clone, Copy)]
pub(super) struct Number {
    upper: u64,
    words: [u32; MOST_WORDS],
    moved: usize,
}

/// More than blocks have room for.
const MOST_WORDS: usize = 20;

impl Number {
    /// Of nothing but `first`, which is left when all codes are out.
    pub const fn new(first: u8) -> Self {
        Self { upper: first as u64, words: [0; MOST_WORDS], moved: 0 }
    }

    /// What is left of it.
    pub fn left(&self) -> u8 {
        self.upper as u8
    }

    /// Puts a code in, of codes before `start` and with `frequency`.
    #[inline(always)]
    pub fn put(&mut self, start: u16, frequency: u16) {
        let frequency = u64::from(frequency);
        if self.upper >= frequency << (64 - PRECISION) {
            self.move_out();
        }
        let (times, rest) = (self.upper / frequency, self.upper % frequency);
        self.upper = (times << PRECISION) + rest + u64::from(start);
    }

    fn move_out(&mut self) {
        // What does not even fit here is counted all the same.
        if let Some(word) = self.words.get_mut(self.moved) {
            *word = self.upper as u32;
        }
        self.moved += 1;
        self.upper >>= 32;
    }

    /// Its bits.
    pub fn bits(&self) -> usize {
        32 * self.moved + (64 - self.upper.leading_zeros()) as usize
    }

    /// Writes it, the lowest byte first: words moved out, then the upper part. It has to fit.
    pub fn write(mut self, out: &mut [u8]) {
        let words = words_of(out.len());
        while self.moved < words {
            self.move_out();
        }
        let (lower, upper) = out.split_at_mut(4 * words);
        for (bytes, word) in lower.as_chunks_mut().0.iter_mut().zip(self.words) {
            *bytes = word.to_le_bytes();
        }
        for (byte, own) in upper.iter_mut().zip(self.upper.to_le_bytes()) {
            *byte = own;
        }
    }

    /// The way back.
    pub fn read(from: &[u8]) -> Self {
        let moved = words_of(from.len());
        let (lower, rest) = from.split_at(4 * moved);
        let (mut words, mut upper) = ([0; MOST_WORDS], [0; 8]);
        for (word, bytes) in words.iter_mut().zip(lower.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for (byte, own) in upper.iter_mut().zip(rest) {
            *byte = *own;
        }
        let mut number = Self { upper: u64::from_le_bytes(upper), words, moved };
        number.move_in();
        number
    }

    #[inline(always)]
    fn move_in(&mut self) {
        while self.upper >> 32 == 0 && self.moved > 0 {
            self.moved -= 1;
            self.upper = self.upper << 32 | u64::from(self.words[self.moved]);
        }
    }

    /// Takes the next code out.
    #[inline(always)]
    pub fn take(&mut self, slots: &Slots) -> usize {
        let Slot { code, frequency, rest } = slots.0[(self.upper & SLOT_BITS) as usize];
        self.upper = (self.upper >> PRECISION) * u64::from(frequency) + u64::from(rest);
        self.move_in();
        code.into()
    }
}

const SLOT_BITS: u64 = (1 << PRECISION) - 1;

/// Words below the upper part of a number of so many bytes, which has 5 to 8 of them, or all.
fn words_of(bytes: usize) -> usize {
    bytes.saturating_sub(5) / 4
}

/// What each of the lowest bits of a number say.
pub(super) struct Slots([Slot; 1 << PRECISION]);

#[derive(Clone, Copy)]
struct Slot {
    code: u16,
    frequency: u16,
    rest: u16,
}

impl Slots {
    pub fn new(trellis: &Trellis) -> Self {
        let mut slots = [Slot { code: 0, frequency: 0, rest: 0 }; 1 << PRECISION];
        let starts = starts(trellis);
        for (code, (start, frequency)) in (0..).zip(&starts[..trellis.frequencies.len()]) {
            let own = usize::from(*start)..usize::from(start + frequency);
            for (rest, slot) in (0..).zip(&mut slots[own]) {
                *slot = Slot { code, frequency: *frequency, rest };
            }
        }
        Self(slots)
    }
}

/// Of each code: how many slots are before its own, and how many it has. Those with more come first, and
/// lower codes of equals: the first code put in is then a small number.
pub(super) fn starts(trellis: &Trellis) -> [(u16, u16); MOST_CODES] {
    let mut all = [(0, 1); MOST_CODES];
    for (code, (own, frequency)) in all.iter_mut().zip(trellis.frequencies).enumerate() {
        let is_first = |(other, more): &(usize, &u16)| {
            *more > frequency || *more == frequency && *other < code
        };
        let others = trellis.frequencies.iter().enumerate().filter(is_first);
        *own = (others.map(|(_, frequency)| frequency).sum(), *frequency);
    }
    all
}

/// A code has 5 bits.
pub(super) const MOST_CODES: usize = 32;

/// The levels of a tile's tokens from their numbers, step by step.
pub(super) struct Walk<'a> {
    pub trellis: &'static Trellis,
    pub slots: &'a Slots,
    pub numbers: &'a mut [Number; LANES],
    pub states: [usize; LANES],
}

impl Walk<'_> {
    /// The next level of each.
    #[inline(always)]
    pub fn step(&mut self, levels: &mut Lanes) {
        let tokens = self.numbers.iter_mut().zip(self.states.iter_mut());
        for ((number, state), level) in tokens.zip(levels) {
            let code = number.take(self.slots);
            let own = self.trellis.level(code);
            *level = if is_below(*state) { -own } else { own };
            *state = after(*state, code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&Trellis; 4] = [&THIRTEEN, &TWENTY, &TWENTY_FOUR, &TWENTY_SIX];

    /// Codes at random, about as often as they should be.
    fn some_codes(trellis: &Trellis, block: usize) -> Vec<usize> {
        let mut state = 12345u32;
        let mut code = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let slots = Slots::new(trellis);
            usize::from(slots.0[(state >> 22) as usize].code)
        };
        (0..block).map(|_| code()).collect()
    }

    #[test]
    fn numbers_come_back() {
        for trellis in ALL {
            let (slots, starts) = (Slots::new(trellis), starts(trellis));
            for block in [8, 12, 64, 100, 124] {
                let rare = vec![0; block];
                for codes in [some_codes(trellis, block), rare] {
                    let mut number = Number::new(block as u8 & 15);
                    for code in codes.iter().rev() {
                        number.put(starts[*code].0, starts[*code].1);
                    }
                    let cost = |code: &usize| 10.0 - f64::from(starts[*code].1).log2();
                    let cost: f64 = codes.iter().map(cost).sum();
                    // The first one in has a whole slot, of 10 bits at most.
                    assert!((number.bits() as f64) < cost + 11.0, "{}, {cost}", number.bits());
                    // Any room that it fits takes it.
                    let least = number.bits().div_ceil(8);
                    for room in least..least + 9 {
                        if room > 4 * MOST_WORDS {
                            continue;
                        }
                        let mut bytes = vec![0xff; room];
                        number.write(&mut bytes);
                        let mut back = Number::read(&bytes);
                        let found: Vec<usize> = (0..block).map(|_| back.take(&slots)).collect();
                        assert_eq!(codes, found, "{} bits, {block} channels", trellis.bits);
                        assert_eq!(back.left() & 15, block as u8 & 15);
                    }
                }
                // Whatever the bytes are, codes are codes.
                let mut any = Number::read(&vec![255; trellis.code_bytes(block)]);
                assert!((0..block).all(|_| any.take(&slots) < trellis.frequencies.len()));
            }
        }
        assert_eq!(ALL.map(|trellis| trellis.code_bytes(64)), [13, 20, 24, 26]);
    }

    /// Every state has two ways in and two out, of codes of either lowest bit.
    #[test]
    fn states_lead_to_each_other() {
        let mut ways_in = [0; STATES];
        for state in 0..STATES {
            let nexts = [0, 1].map(|code| after(state, code));
            assert_ne!(nexts[0], nexts[1]);
            for next in nexts {
                ways_in[next] += 1;
                assert_eq!(next / 2, state % (STATES / 2));
            }
        }
        assert_eq!(ways_in, [2; STATES]);
    }

    #[test]
    fn frequencies_add_up() {
        for trellis in ALL {
            let all: u16 = trellis.frequencies.iter().sum();
            assert_eq!(all, 1 << PRECISION);
            assert!(trellis.frequencies.iter().all(|frequency| *frequency > 0));
            let codes = trellis.frequencies.len();
            assert!(codes.is_multiple_of(2) && codes <= MOST_CODES);
            assert_eq!(trellis.level(codes / 2), 0.25);
            // The shortest code, all the way, leaves room.
            let shortest = 10.0 - f64::from(trellis.frequencies[codes / 2]).log2();
            assert!(shortest < 0.9 * trellis.bits as f64 / 8.0);
        }
    }
}
