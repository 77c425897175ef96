//! Entropy coding of the bytes of a payload's part: a block of bytes in, fewer bytes out, and back.
//!
//! A block's bytes are read as symbols of 2 to 8 bits. Symbols at the same place of a period (a channel of
//! head vectors, the high bytes of f16 numbers) share a *class*, and each class has a table of frequencies
//! of its own, which stands in front of the coded symbols. They are coded by asymmetric numeral systems
//! (rANS; Duda 2013, arXiv 1311.2540) with eight states in turn (Giesen 2014, arXiv 1402.3392).
//! `container/FORMAT.md` has every bit of it.
//!
//! ```text
//! mod         → classes, rans → frequencies → bit_fields, log2
//! ```

mod bit_fields;
mod classes;
mod frequencies;
mod log2;
mod rans;

use super::scheme::bits;
use bit_fields::{BitReader, BitWriter};
use classes::Classes;
use rans::{DecodeTables, STATES};

/// Places of a period, at most.
const MOST_PERIOD: usize = 4096;
/// Numbers that are counted for a block, at most: a larger period is not looked at.
const MOST_COUNTS: usize = 1 << 15;
/// What a block begins with: bits a symbol, the period.
const FIXED: usize = 3;

/// How the bytes of a part are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbols {
    /// Bits of a symbol: 2 … 8.
    pub bits: u8,
    /// Symbols of an element: symbols as far apart have the same place in it.
    pub element: usize,
    /// Elements of a head vector, or 1: elements as far apart belong to one channel.
    pub elements: usize,
}

impl Symbols {
    /// The largest period that is worth its tables.
    fn period(&self) -> usize {
        let Self { bits, element, elements } = *self;
        let fits =
            |period: &usize| (1..=MOST_PERIOD).contains(period) && *period << bits <= MOST_COUNTS;
        [element.saturating_mul(elements), element].into_iter().find(fits).unwrap_or(1)
    }
}

/// The coded form of a block of bytes; `None` where it would not be shorter.
pub fn encode_block(plain: &[u8], symbols: Symbols) -> Option<Vec<u8>> {
    let width = symbols.bits;
    let mut read = vec![0; count_symbols(plain.len(), width)];
    bits::unpack(plain, width, &mut read);
    let classes = Classes::choose(&read, width, symbols.period());
    let mut coded = vec![width];
    coded.extend((classes.of_place.len() as u16).to_le_bytes());
    let mut fields = BitWriter::default();
    classes.write(width, &mut fields);
    coded.extend(fields.finish());
    if coded.len() >= plain.len() {
        return None;
    }
    rans::encode(&read, &classes, &mut coded);
    (coded.len() < plain.len()).then_some(coded)
}

/// Memory that decoding uses again from block to block.
#[derive(Default)]
pub struct BlockDecoder(DecodeTables);

impl BlockDecoder {
    /// Fills `plain`, the bytes of a block. Errors: what no encoder writes, in a few words.
    pub fn decode(&mut self, coded: &[u8], plain: &mut [u8]) -> Result<(), &'static str> {
        let (head, rest) = coded.split_first_chunk::<FIXED>().ok_or(CUT)?;
        let [width, low, high] = *head;
        if !(2..=8).contains(&width) {
            return Err("symbols of another size than 2 to 8 bits");
        }
        let period = usize::from(u16::from_le_bytes([low, high]));
        if !(1..=MOST_PERIOD).contains(&period) {
            return Err("a period out of its limits");
        }
        let mut fields = BitReader::new(rest);
        let classes = Classes::read(period, width, &mut fields)?;
        let rest = fields.finish()?;
        self.0.fill(&classes);
        let (states, words) = rest.split_first_chunk::<{ 4 * STATES }>().ok_or(CUT)?;
        rans::decode(states, words, &self.0, width, plain)
    }
}

/// The error for a block that ends too early.
const CUT: &str = "it ends too early";

/// Symbols of so many bytes; the last one may end behind them, with zeros.
fn count_symbols(bytes: usize, width: u8) -> usize {
    (8 * bytes).div_ceil(usize::from(width))
}

#[cfg(test)]
mod tests;
