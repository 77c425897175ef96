//! How often each symbol is expected, in shares of 4096.

use super::bit_fields::{BitReader, BitWriter};
use super::log2::{FRACTION, log2};

/// log₂ of the sum of the frequencies of a table.
pub const PRECISION: u32 = 12;
/// The sum.
pub const TOTAL: u32 = 1 << PRECISION;
/// Bits of the size of a frequency, in bits.
const SIZE_BITS: u32 = 4;

/// A table of frequencies: of each symbol, [`TOTAL`] together; 0 of those that do not occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frequencies(Vec<u16>);

impl Frequencies {
    /// In proportion to counts, of which one at least is not 0; 1 at least of what occurs.
    pub fn of_counts(counts: &[u32]) -> Self {
        let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let share = |count: &u32| match u64::from(*count) {
            0 => 0,
            count => ((count * u64::from(TOTAL) + all / 2) / all.max(1)).max(1) as u16,
        };
        let mut table: Vec<u16> = counts.iter().map(share).collect();
        let mut sum: u32 = table.iter().map(|frequency| u32::from(*frequency)).sum();
        // What rounding left over or took too much is the largest's, which feels it least.
        while sum != TOTAL {
            let Some(largest) = table.iter_mut().max() else { break };
            let rest = (i64::from(TOTAL) - i64::from(sum)).clamp(-i64::from(*largest / 2), 4096);
            *largest = (i64::from(*largest) + rest) as u16;
            sum = (i64::from(sum) + rest) as u32;
        }
        Self(table)
    }

    /// That of every symbol.
    pub fn all(&self) -> &[u16] {
        &self.0
    }

    fn range(&self) -> (usize, usize) {
        let occurs = |frequency: &u16| *frequency > 0;
        let first = self.0.iter().position(occurs).unwrap_or(0);
        (first, self.0.iter().rposition(occurs).unwrap_or(first))
    }

    /// Of symbols of `width` bits.
    pub fn write(&self, width: u8, fields: &mut BitWriter) {
        let (first, last) = self.range();
        fields.push(first as u32, width.into());
        fields.push(last as u32, width.into());
        for frequency in &self.0[first..=last] {
            let size = size(*frequency);
            fields.push(size, SIZE_BITS);
            if size > 1 {
                fields.push(u32::from(*frequency) - (1 << (size - 1)), size - 1);
            }
        }
    }

    /// The way back.
    pub fn read(width: u8, fields: &mut BitReader) -> Result<Self, &'static str> {
        let (first, last) = (fields.take(width.into())?, fields.take(width.into())?);
        if first > last {
            return Err("a table of no symbols");
        }
        let mut table = vec![0; 1 << width];
        let mut sum = 0;
        for frequency in &mut table[first as usize..=last as usize] {
            let size = fields.take(SIZE_BITS)?;
            if size > PRECISION + 1 {
                return Err("a frequency out of its limits");
            }
            if let Some(low) = size.checked_sub(1) {
                *frequency = (1 << low) + fields.take(low)? as u16;
            }
            sum += u32::from(*frequency);
        }
        if sum != TOTAL {
            return Err("frequencies of another sum than 4096");
        }
        Ok(Self(table))
    }
}

/// Bits up to the highest that is 1.
fn size(frequency: u16) -> u32 {
    u16::BITS - frequency.leading_zeros()
}

/// Bits of a table of such counts and of the symbols coded with it, about, times 2^16.
pub fn cost(counts: impl Iterator<Item = u32>) -> u64 {
    let (mut all, mut logs, mut present, mut zeros, mut between) = (0u32, 0u64, 0u64, 0u64, 0u64);
    let mut sizes = 0u64;
    for count in counts {
        if count == 0 {
            zeros += 1;
            continue;
        }
        let log = log2(count);
        all += count;
        logs += u64::from(count) * log;
        sizes += log;
        // Zeros before the first and behind the last are not listed.
        between += if present == 0 { 0 } else { zeros };
        (present, zeros) = (present + 1, 0);
    }
    let log = log2(all);
    // A frequency's size, and the bits below its highest.
    let bits = u64::from(SIZE_BITS) * (present + between) + u64::from(PRECISION) * present;
    let table = ((bits << FRACTION) + sizes).saturating_sub(log * present);
    (u64::from(all) * log).saturating_sub(logs) + table
}
