//! The coder: eight states in turn, one stream of 16-bit words.
//!
//! A state x of 2^16 … 2^32 − 1 takes up a symbol of frequency f, whose slots begin at c, as ⌊x / f⌋ · 4096 + x mod
//! f + c; before that, its low 16 bits go to the stream where the result would be too large. The decoder
//! does the same backwards, so the encoder begins with the last symbol.

use super::classes::Classes;
use super::frequencies::{Frequencies, PRECISION, TOTAL};

/// States; symbol i belongs to state i mod 8.
pub const STATES: usize = 8;
/// States begin and end with it, and are never below.
const LEAST: u32 = 1 << 16;

/// What a symbol does to a state.
#[derive(Clone, Copy, Default)]
struct Step {
    /// ⌈2^64 / f⌉; the division by f is a product with it. Of an f of 1 one less, which `offset` mends.
    reciprocal: u64,
    frequency: u32,
    offset: u32,
}

impl Step {
    fn new(frequency: u16, first_slot: u32) -> Self {
        match frequency {
            0 => Self::default(),
            // ⌊x · (2^64 − 1) / 2^64⌋ is x − 1.
            1 => Self { reciprocal: u64::MAX, frequency: 1, offset: first_slot + TOTAL - 1 },
            _ => Self {
                reciprocal: u64::MAX / u64::from(frequency) + 1,
                frequency: frequency.into(),
                offset: first_slot,
            },
        }
    }

    #[inline(always)]
    fn apply(self, state: u32) -> u32 {
        let quotient = ((u128::from(state) * u128::from(self.reciprocal)) >> 64) as u32;
        // ⌊x / f⌋ · 4096 + x mod f + c, with x mod f = x − ⌊x / f⌋ · f.
        state.wrapping_add(self.offset).wrapping_add(quotient.wrapping_mul(TOTAL - self.frequency))
    }
}

/// Where the slots of each symbol begin.
fn first_slots(table: &Frequencies) -> impl Iterator<Item = u32> {
    table.all().iter().scan(0, |next, frequency| {
        let first = *next;
        *next += u32::from(*frequency);
        Some(first)
    })
}

/// Appends states and words.
pub fn encode(symbols: &[u8], classes: &Classes, coded: &mut Vec<u8>) {
    let size = classes.tables.first().map_or(0, |table| table.all().len());
    let steps: Vec<Step> = classes
        .tables
        .iter()
        .flat_map(|table| table.all().iter().zip(first_slots(table)))
        .map(|(frequency, slot)| Step::new(*frequency, slot))
        .collect();
    let eights = classes.in_eights();
    let mut states = [LEAST; STATES];
    // From the last to the first; each symbol fills one at most.
    let mut words = vec![0u16; symbols.len()];
    let mut count = 0;
    for (index, chunk) in symbols.chunks(STATES).enumerate().rev() {
        let places = &eights[index % eights.len()];
        for ((symbol, class), state) in chunk.iter().zip(places).zip(&mut states).rev() {
            let step = steps[usize::from(*class) * size + usize::from(*symbol)];
            // Without a branch, which would be guessed wrong too often.
            let full = u32::from(*state >> (32 - PRECISION) >= step.frequency);
            words[count] = *state as u16;
            count += full as usize;
            *state = step.apply(*state >> (16 * full));
        }
    }
    words.truncate(count);
    coded.extend(states.iter().flat_map(|state| state.to_le_bytes()));
    coded.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
}

/// The tables of a block's classes, as decoding looks them up.
#[derive(Default)]
pub struct DecodeTables {
    /// By slot: the symbol.
    slots: Vec<[u8; TOTAL as usize]>,
    /// By symbol: its first slot in the low 16 bits, its frequency above.
    symbols: Vec<[u32; 256]>,
    /// The classes of the symbols, over and over.
    eights: Vec<[u8; 8]>,
}

impl DecodeTables {
    pub fn fill(&mut self, classes: &Classes) {
        self.slots.resize(classes.tables.len(), [0; TOTAL as usize]);
        self.symbols.resize(classes.tables.len(), [0; 256]);
        let tables = self.slots.iter_mut().zip(&mut self.symbols).zip(&classes.tables);
        for ((slots, symbols), table) in tables {
            let mut rest = &mut slots[..];
            let all = table.all().iter().zip(first_slots(table)).enumerate();
            for (symbol, (frequency, first)) in all {
                let own = rest.split_off_mut(..usize::from(*frequency)).unwrap_or_default();
                own.fill(symbol as u8);
                symbols[symbol] = first | u32::from(*frequency) << 16;
            }
        }
        self.eights = classes.in_eights();
    }
}

impl DecodeTables {
    /// The next eight symbols, and how many of the next words they took up.
    #[inline(always)]
    fn eight<const BITS: usize>(
        &self,
        states: &mut [u32; STATES],
        classes: &[u8; STATES],
        window: &[[u8; 2]; STATES],
    ) -> (u64, usize) {
        let (mut symbols, mut taken) = (0, 0);
        for index in 0..STATES {
            let state = &mut states[index];
            symbols |= u64::from(self.step(state, classes[index])) << (BITS * index);
            // At most as many as symbols before this one.
            let word = u32::from(u16::from_le_bytes(window[taken % STATES]));
            let short = u32::from(*state < LEAST);
            *state = (*state << (16 * short)) | (word & short.wrapping_neg());
            taken += short as usize;
        }
        (symbols, taken)
    }

    /// Takes a symbol out of a state, which may be left too small.
    #[inline(always)]
    fn step(&self, state: &mut u32, class: u8) -> u8 {
        let slot = *state % TOTAL;
        let symbol = self.slots[usize::from(class)][slot as usize];
        let entry = self.symbols[usize::from(class)][usize::from(symbol)];
        // At most 4096 · (2^20 − 1) + 4095.
        *state = (entry >> 16) * (*state >> PRECISION) + slot - (entry & 0xffff);
        symbol
    }
}

/// Fills `plain` from the states and the words of its symbols of `width` bits.
pub fn decode(
    states: &[u8; 4 * STATES],
    words: &[u8],
    tables: &DecodeTables,
    width: u8,
    plain: &mut [u8],
) -> Result<(), &'static str> {
    let (words, odd) = words.as_chunks::<2>();
    if !odd.is_empty() {
        return Err("half a word at its end");
    }
    let mut decoder = Decoder { states: [0; STATES], words, tables };
    for (state, bytes) in decoder.states.iter_mut().zip(states.as_chunks::<4>().0) {
        *state = u32::from_le_bytes(*bytes);
    }
    if decoder.states.iter().any(|state| *state < LEAST) {
        return Err("a state out of its limits");
    }
    match width {
        2 => decoder.run::<2>(plain)?,
        3 => decoder.run::<3>(plain)?,
        4 => decoder.run::<4>(plain)?,
        5 => decoder.run::<5>(plain)?,
        6 => decoder.run::<6>(plain)?,
        7 => decoder.run::<7>(plain)?,
        _ => decoder.run::<8>(plain)?,
    }
    if decoder.states != [LEAST; STATES] || !decoder.words.is_empty() {
        return Err("states that do not end where they began");
    }
    Ok(())
}

struct Decoder<'a> {
    states: [u32; STATES],
    /// Not taken up yet.
    words: &'a [[u8; 2]],
    tables: &'a DecodeTables,
}

impl Decoder<'_> {
    /// Of symbols of BITS bits, eight of which are as many bytes.
    fn run<const BITS: usize>(&mut self, plain: &mut [u8]) -> Result<(), &'static str> {
        let eights = &self.tables.eights;
        let (whole, last) = plain.as_chunks_mut::<BITS>();
        let (mut place, mut states) = (0, self.states);
        let mut next = || {
            let classes = &eights[place];
            place = if place + 1 == eights.len() { 0 } else { place + 1 };
            classes
        };
        for bytes in whole {
            let classes = next();
            let symbols = match self.words.split_first_chunk::<STATES>() {
                Some((window, _)) => {
                    let (symbols, taken) = self.tables.eight::<BITS>(&mut states, classes, window);
                    self.words = &self.words[taken..];
                    symbols
                }
                None => self.few::<BITS>(&mut states, classes)?,
            };
            bytes.copy_from_slice(&symbols.to_le_bytes()[..BITS]);
        }
        if !last.is_empty() {
            let classes = &next()[..(8 * last.len()).div_ceil(BITS)];
            let symbols = self.few::<BITS>(&mut states, classes)?;
            if symbols >> (8 * last.len()) != 0 {
                return Err("bits behind its last byte that are not 0");
            }
            last.copy_from_slice(&symbols.to_le_bytes()[..last.len()]);
        }
        self.states = states;
        Ok(())
    }

    /// The next symbols, one for each class.
    #[cold]
    fn few<const BITS: usize>(
        &mut self,
        states: &mut [u32; STATES],
        classes: &[u8],
    ) -> Result<u64, &'static str> {
        let mut symbols = 0;
        for (index, (state, class)) in states.iter_mut().zip(classes).enumerate() {
            symbols |= u64::from(self.tables.step(state, *class)) << (BITS * index);
            if *state < LEAST {
                let (word, rest) = self.words.split_first().ok_or(super::CUT)?;
                *state = (*state << 16) | u32::from(u16::from_le_bytes(*word));
                self.words = rest;
            }
        }
        Ok(symbols)
    }
}
