//! Entropy coding of the bytes of a payload's part: a block of bytes in, fewer bytes out, and back.
//!
//! A block's bytes are read as symbols of 2 to 8 bits, or as codes of 19 levels, of which four share a word.
//! Symbols at the same place of a period (a channel of head vectors, the high bytes of f16 numbers) share a
//! *class*, and each class has a table of frequencies of its own, which stands in front of the coded
//! symbols. They are coded by asymmetric numeral systems (rANS; Duda 2013, arXiv 1311.2540) with eight
//! states in turn (Giesen 2014, arXiv 1402.3392). Head vectors that repeat an earlier one of the block are not
//! coded again. `container/FORMAT.md` has every bit of it.
//!
//! ```text
//! mod         → words, repeats, classes, rans → frequencies → bit_fields, log2
//! ```

mod bit_fields;
mod classes;
mod frequencies;
mod log2;
mod rans;
mod repeats;
mod words;

use super::scheme::bits;
use bit_fields::{BitReader, BitWriter};
use classes::Classes;
use rans::{DecodeTables, STATES};
use repeats::Repeats;

/// Places of a period, at most.
const MOST_PERIOD: usize = 4096;
/// Numbers that are counted for a block, at most: a larger period is not looked at.
const MOST_COUNTS: usize = 1 << 15;
/// What a block begins with: the form of its symbols, the period.
const FIXED: usize = 3;
/// Added to the form where rows repeat.
const REPEATS: u8 = 128;

/// What symbols are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolForm {
    /// So many bits, 2 … 8, one after the other.
    Bits(u8),
    /// Codes of 19 levels of blocks of so many channels, as `two_centre` has them: 4 … 128, a multiple of 4.
    Words(u8),
}

impl SymbolForm {
    /// How a block says it.
    fn code(self) -> u8 {
        match self {
            Self::Bits(bits) => bits,
            Self::Words(_) => words::LEVELS as u8,
        }
    }

    /// Bits of a symbol.
    fn width(self) -> u8 {
        match self {
            Self::Bits(bits) => bits,
            Self::Words(_) => words::WIDTH,
        }
    }

    /// Bytes of so many symbols, where they fill them.
    fn bytes(self, symbols: usize) -> Option<usize> {
        match self {
            Self::Bits(bits) => {
                let bits = symbols.checked_mul(bits.into())?;
                bits.is_multiple_of(8).then_some(bits / 8)
            }
            Self::Words(channels) => {
                let channels = usize::from(channels);
                let bytes = (symbols / channels).checked_mul(words::block_bytes(channels))?;
                symbols.is_multiple_of(channels).then_some(bytes)
            }
        }
    }

    /// The symbols of bytes; `None` where they are no words.
    fn read(self, plain: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Bits(bits) => {
                let mut symbols = vec![0; count_symbols(plain.len(), bits)];
                bits::unpack(plain, bits, &mut symbols);
                Some(symbols)
            }
            Self::Words(channels) => words::split(plain, channels.into()),
        }
    }
}

/// How the bytes of a part are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbols {
    /// What a symbol is.
    pub form: SymbolForm,
    /// Symbols of an element: symbols as far apart have the same place in it.
    pub element: usize,
    /// Elements of a head vector, or 1: elements as far apart belong to one channel.
    pub elements: usize,
}

impl Symbols {
    /// The largest period that is worth its tables.
    fn period(&self) -> usize {
        let Self { form, element, elements } = *self;
        let fits = |period: &usize| {
            (1..=MOST_PERIOD).contains(period) && *period << form.width() <= MOST_COUNTS
        };
        [element.saturating_mul(elements), element].into_iter().find(fits).unwrap_or(1)
    }

    /// Bytes of a head vector, or of as many symbols as fill their bytes.
    pub fn row(&self) -> usize {
        let whole = self.form.bytes(self.element.saturating_mul(self.elements));
        whole.filter(|row| *row > 0).unwrap_or(match self.form {
            // Eight of them do.
            SymbolForm::Bits(bits) => bits.into(),
            SymbolForm::Words(channels) => words::block_bytes(channels.into()),
        })
    }
}

/// Whether a coded block is of a form that files before version 10 do not have.
pub fn is_of_version_10(coded: &[u8]) -> bool {
    coded.first().is_some_and(|form| *form > 8)
}

/// The coded form of a block of bytes; `None` where it would not be shorter.
pub fn encode_block(plain: &[u8], symbols: Symbols) -> Option<Vec<u8>> {
    let whole = encode(plain, symbols, None, plain.len());
    let most = whole.as_ref().map_or(plain.len(), Vec::len);
    // Rows that repeat may be next to nothing as it is, such as zeros.
    let repeats = Repeats::find(plain, symbols.row());
    let without = repeats.and_then(|repeats| {
        let rest = repeats.rest(plain);
        encode(&rest, symbols, Some(&repeats), most)
    });
    without.or(whole)
}

/// The coded form of the bytes of a block that do not repeat, where it is shorter than `most`.
fn encode(
    plain: &[u8],
    symbols: Symbols,
    repeats: Option<&Repeats>,
    most: usize,
) -> Option<Vec<u8>> {
    let Some(read) = symbols.form.read(plain) else {
        // Bytes that no codec writes.
        let bytes = Symbols { form: SymbolForm::Bits(8), element: 1, elements: symbols.row() };
        return encode(plain, bytes, repeats, most);
    };
    let (form, width) = (symbols.form, symbols.form.width());
    let classes = Classes::choose(&read, width, symbols.period());
    let mut coded = vec![form.code() | if repeats.is_some() { REPEATS } else { 0 }];
    coded.extend((classes.of_place.len() as u16).to_le_bytes());
    if let SymbolForm::Words(channels) = form {
        coded.push(channels);
    }
    let mut fields = BitWriter::default();
    if let Some(repeats) = repeats {
        coded.extend((repeats.row() as u16).to_le_bytes());
        repeats.write(&mut fields);
    }
    classes.write(width, &mut fields);
    coded.extend(fields.finish());
    if coded.len() >= most {
        return None;
    }
    rans::encode(&read, &classes, &mut coded);
    (coded.len() < most).then_some(coded)
}

/// Memory that decoding uses again from block to block.
#[derive(Default)]
pub struct BlockDecoder {
    tables: DecodeTables,
    /// Of words.
    codes: Vec<u8>,
}

impl BlockDecoder {
    /// Fills `plain`, the bytes of a block. Errors: what no encoder writes, in a few words.
    pub fn decode(&mut self, coded: &[u8], plain: &mut [u8]) -> Result<(), &'static str> {
        let (head, mut rest) = coded.split_first_chunk::<FIXED>().ok_or(CUT)?;
        let [code, low, high] = *head;
        let form = match code & !REPEATS {
            bits @ 2..=8 => SymbolForm::Bits(bits),
            form if u32::from(form) == words::LEVELS => {
                let (channels, behind) = rest.split_first().ok_or(CUT)?;
                rest = behind;
                if !words::is_possible((*channels).into()) {
                    return Err("words of no block");
                }
                SymbolForm::Words(*channels)
            }
            _ => return Err("symbols of another size than 2 to 8 bits, and no words"),
        };
        let period = usize::from(u16::from_le_bytes([low, high]));
        if !(1..=MOST_PERIOD).contains(&period) {
            return Err("a period out of its limits");
        }
        let row = match code & REPEATS {
            0 => None,
            _ => {
                let (row, behind) = rest.split_first_chunk::<2>().ok_or(CUT)?;
                rest = behind;
                Some(u16::from_le_bytes(*row).into())
            }
        };
        let mut fields = BitReader::new(rest);
        let repeats = row.map(|row| Repeats::read(row, plain.len(), &mut fields)).transpose()?;
        let classes = Classes::read(period, form.width(), &mut fields)?;
        let rest = fields.finish()?;
        self.tables.fill(&classes);
        let Some(repeats) = repeats else { return self.symbols(form, rest, plain) };
        self.symbols(form, rest, &mut plain[..repeats.rest_len()])?;
        repeats.put_back(plain);
        Ok(())
    }

    /// Fills `plain` from states and words.
    fn symbols(
        &mut self,
        form: SymbolForm,
        coded: &[u8],
        plain: &mut [u8],
    ) -> Result<(), &'static str> {
        let (states, words) = coded.split_first_chunk::<{ 4 * STATES }>().ok_or(CUT)?;
        match form {
            SymbolForm::Bits(bits) => rans::decode(states, words, &self.tables, bits, plain),
            SymbolForm::Words(channels) => {
                let channels = usize::from(channels);
                let count = words::count(plain.len(), channels).ok_or("words that are cut")?;
                self.codes.resize(count, 0);
                // A byte each.
                rans::decode(states, words, &self.tables, 8, &mut self.codes)?;
                words::join(&self.codes, channels, plain)
            }
        }
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
