//! Rows of a block that are there before: a token's vectors in a first layer are those of the same token earlier.

use super::bit_fields::{BitReader, BitWriter};

/// Bytes of a row that is worth a look, at least.
const LEAST: usize = 8;

/// Which rows of a block are as an earlier one.
#[derive(Debug, PartialEq, Eq)]
pub struct Repeats {
    /// Bytes of a row.
    row: usize,
    /// For each row how many rows before it one like it lies; 0: it is coded.
    back: Vec<u32>,
}

impl Repeats {
    /// The rows of `row` bytes that have one like them before; `None`: there are none worth it.
    pub fn find(plain: &[u8], row: usize) -> Option<Self> {
        if row < LEAST || row > usize::from(u16::MAX) || !plain.len().is_multiple_of(row) {
            return None;
        }
        let rows = plain.len() / row;
        // Of each slot the row before the last one that fell there, its index from 1 on.
        let mut latest = vec![0u32; rows.next_power_of_two()];
        let mut back = vec![0; rows];
        for (index, bytes) in plain.chunks_exact(row).enumerate() {
            let slot = &mut latest[slot(bytes) as usize % rows.next_power_of_two()];
            if let Some(before) = slot.checked_sub(1).map(|before| before as usize)
                && plain[before * row..][..row] == *bytes
            {
                back[index] = (index - before) as u32;
            }
            *slot = index as u32 + 1;
        }
        let found = back.iter().filter(|back| **back > 0).count();
        let bits = rows + found * distance_bits(rows) as usize;
        (8 * found * row > bits).then_some(Self { row, back })
    }

    /// Bytes of a row.
    pub fn row(&self) -> usize {
        self.row
    }

    /// The rows that are coded.
    pub fn rest(&self, plain: &[u8]) -> Vec<u8> {
        let rows = plain.chunks_exact(self.row).zip(&self.back);
        rows.filter(|(_, back)| **back == 0).flat_map(|(row, _)| row).copied().collect()
    }

    /// Bytes of [`Repeats::rest`].
    pub fn rest_len(&self) -> usize {
        self.row * self.back.iter().filter(|back| **back == 0).count()
    }

    /// Fills a block, which begins with the rows that were coded.
    pub fn put_back(&self, plain: &mut [u8]) {
        let row = self.row;
        // From the last one on: none moves to where another is yet to be taken from.
        let mut from = self.rest_len();
        for (index, _) in self.back.iter().enumerate().rev().filter(|(_, back)| **back == 0) {
            from -= row;
            plain.copy_within(from..from + row, index * row);
        }
        for (index, back) in self.back.iter().enumerate().filter(|(_, back)| **back > 0) {
            let before = (index - *back as usize) * row;
            plain.copy_within(before..before + row, index * row);
        }
    }

    /// A bit for each row, then how far back those are that repeat.
    pub fn write(&self, fields: &mut BitWriter) {
        self.back.iter().for_each(|back| fields.push(u32::from(*back > 0), 1));
        let bits = distance_bits(self.back.len());
        let repeated = self.back.iter().filter(|back| **back > 0);
        repeated.for_each(|back| fields.push(*back - 1, bits));
    }

    /// The way back, of a block of `plain` bytes.
    pub fn read(row: usize, plain: usize, fields: &mut BitReader) -> Result<Self, &'static str> {
        if row == 0 || !plain.is_multiple_of(row) {
            return Err("rows that are not its bytes");
        }
        let mut back = Vec::with_capacity(plain / row);
        for _ in 0..plain / row {
            back.push(fields.take(1)?);
        }
        let bits = distance_bits(back.len());
        for (index, back) in back.iter_mut().enumerate().filter(|(_, back)| **back > 0) {
            *back = fields.take(bits)? + 1;
            if *back as usize > index {
                return Err("a row as one before its first");
            }
        }
        Ok(Self { row, back })
    }
}

/// ⌈log₂⌉ of a number of rows.
fn distance_bits(rows: usize) -> u32 {
    rows.next_power_of_two().trailing_zeros()
}

/// A number that equal rows share, and others hardly.
fn slot(row: &[u8]) -> u64 {
    let (eights, rest) = row.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mix = |hash: u64, eight: &[u8; 8]| {
        (hash ^ u64::from_le_bytes(*eight)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(29)
    };
    let hash = eights.iter().chain([&last]).fold(row.len() as u64, mix);
    hash ^ hash >> 32
}
