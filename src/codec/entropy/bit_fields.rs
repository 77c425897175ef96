//! Numbers of a few bits one after the other, the lowest bit first.

use super::CUT;

/// Bits being written.
#[derive(Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    word: u64,
    bits: u32,
}

impl BitWriter {
    /// `value` is of at most so many bits, 32 at most.
    pub fn push(&mut self, value: u32, bits: u32) {
        self.word |= u64::from(value) << self.bits;
        self.bits += bits;
        while self.bits >= 8 {
            self.bytes.push(self.word as u8);
            self.word >>= 8;
            self.bits -= 8;
        }
    }

    /// The bytes; what is left of the last one is 0.
    pub fn finish(mut self) -> Vec<u8> {
        if self.bits > 0 {
            self.bytes.push(self.word as u8);
        }
        self.bytes
    }
}

/// Bits being read.
pub struct BitReader<'a> {
    bytes: &'a [u8],
    word: u64,
    bits: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, word: 0, bits: 0 }
    }

    /// A number of so many bits, 32 at most.
    pub fn take(&mut self, bits: u32) -> Result<u32, &'static str> {
        while self.bits < bits {
            let (byte, rest) = self.bytes.split_first().ok_or(CUT)?;
            self.word |= u64::from(*byte) << self.bits;
            (self.bytes, self.bits) = (rest, self.bits + 8);
        }
        let value = self.word & ((1 << bits) - 1);
        self.word >>= bits;
        self.bits -= bits;
        Ok(value as u32)
    }

    /// The bytes behind; an error where bits of the last byte are left that are not 0.
    pub fn finish(self) -> Result<&'a [u8], &'static str> {
        if self.word == 0 { Ok(self.bytes) } else { Err("bits behind its tables that are not 0") }
    }
}
