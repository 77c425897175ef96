//! Packed parts: the bytes of a part, entropy-coded block by block.
//!
//! The blocks stand one after the other; behind them zeros, the length of each block, and how many bytes
//! a block has before it is coded. One that would not be shorter stands there as it is.

use super::source::Source;
use super::{hash, manifest};
use crate::codec::entropy::{BlockDecoder, Symbols, encode_block, is_of_version_10};
use crate::error::Result;
use crc32fast::Hasher;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of a block before it is coded, at most.
const MOST_BLOCK: u64 = 1 << 20;
/// The same of a writer, about: small enough for one head of a cache, and large enough for its tables.
const BLOCK: usize = 1 << 16;
/// A packed part is no shorter than one in so many of its bytes: so no small file asks for a large memory.
const MOST_RATIO: u64 = 64;
/// Bytes of a length.
const LENGTH: u64 = 4;

/// How a writer cuts a part into blocks, and reads it.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Bytes of a block, but for the last one.
    pub block: usize,
    pub symbols: Symbols,
}

impl Cut {
    /// Of a part that is written in pieces of so many bytes, but for the last; `None`: at once.
    pub fn new(piece: Option<usize>, symbols: Symbols) -> Self {
        // Whole head vectors, where they are not longer.
        let row = symbols.row();
        let mut block = piece.unwrap_or(BLOCK - if row < BLOCK { BLOCK % row } else { 0 });
        while block > BLOCK && block.is_multiple_of(2) {
            block /= 2;
        }
        Self { block, symbols }
    }

    /// The blocks of some bytes, each as it is stored: coded where that is shorter. And whether one
    /// is of a form that only files of version 10 have.
    pub fn encode(self, bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let encode = |block: &[u8]| match encode_block(block, self.symbols) {
            Some(coded) => (is_of_version_10(&coded), coded),
            None => (false, block.to_vec()),
        };
        let (newer, blocks): (Vec<bool>, _) = bytes.par_chunks(self.block).map(encode).unzip();
        (blocks, newer.contains(&true))
    }
}

/// The blocks of a part that was coded.
#[derive(Debug, Clone, Default)]
pub struct CodedPart {
    /// Bytes of each but the last before it was coded.
    pub block: usize,
    /// Bytes of each as it is stored.
    pub lengths: Vec<u32>,
    /// Whether one is of a form that only files of version 10 have.
    pub is_newer: bool,
}

impl CodedPart {
    /// Bytes of the packed part, where that is shorter than the part's `plain` bytes, of numbers of `width`.
    pub fn packed_len(&self, plain: u64, width: u64) -> Option<u64> {
        let coded = self.lengths.iter().map(|length| u64::from(*length)).sum();
        let len = packed_len(coded, self.lengths.len() as u64, plain, width);
        (len < plain && self.block as u64 <= MOST_BLOCK).then_some(len)
    }

    /// What stands behind the blocks of a packed part of `len` bytes.
    pub fn tail(&self, len: u64) -> Vec<u8> {
        let coded: u64 = self.lengths.iter().map(|length| u64::from(*length)).sum();
        let lengths = self.lengths.iter().copied().chain([self.block as u32]);
        let lengths: Vec<u8> = lengths.flat_map(u32::to_le_bytes).collect();
        let mut tail = vec![0; (len - coded) as usize - lengths.len()];
        tail.extend(lengths);
        tail
    }
}

/// Bytes of a packed part with so many bytes of so many blocks.
fn packed_len(coded: u64, blocks: u64, plain: u64, width: u64) -> u64 {
    let bare = coded + LENGTH * (blocks + 1);
    bare.max(plain.div_ceil(MOST_RATIO)).next_multiple_of(width.max(1))
}

/// Whether a packed part can have so many bytes.
pub fn is_possible(packed: u64, plain: u64, width: u64) -> bool {
    packed < plain && packed >= plain.div_ceil(MOST_RATIO) && packed.is_multiple_of(width.max(1))
}

/// The checksum of bytes of a file that have to be 0: read piece by piece, since a part of zeros has many.
fn zeros(source: &Source, mut at: Range<u64>) -> Result<Hasher> {
    let mut hash = Hasher::new();
    let mut piece = vec![0; BLOCK.min((at.end - at.start) as usize)];
    while at.start < at.end {
        let here = (at.end - at.start).min(BLOCK as u64);
        let bytes = &mut piece[..here as usize];
        source.read_at(bytes, at.start)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(manifest::damaged("bytes behind its blocks that are not 0"));
        }
        hash.update(bytes);
        at.start += here;
    }
    Ok(hash)
}

/// Where the blocks of a packed part lie.
pub struct BlockIndex {
    /// Bytes of each but the last before it was coded.
    block: u64,
    /// Of the part before it was coded.
    plain: u64,
    /// Where each begins in the file, and where the last one ends.
    starts: Vec<u64>,
    /// Whether they may be of the forms that only files of version 10 have.
    newer: bool,
    /// The checksum of what stands behind them.
    tail: Hasher,
}

impl BlockIndex {
    /// Of the packed part in `at` of the file, whose `plain` bytes are of numbers of `width`. `newer`: the file
    /// is of version 10.
    pub fn read(
        source: &Source,
        at: Range<u64>,
        plain: u64,
        width: u64,
        newer: bool,
    ) -> Result<Self> {
        let number = |offset| -> Result<[u8; LENGTH as usize]> {
            let mut bytes = [0; LENGTH as usize];
            source.read_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        let len = at.end - at.start;
        let too_short = || manifest::damaged(format!("{len} bytes are too few for its blocks"));
        let end = len.checked_sub(LENGTH).ok_or_else(too_short)?;
        let block = u64::from(u32::from_le_bytes(number(at.start + end)?));
        if !(1..=MOST_BLOCK).contains(&block) {
            return Err(manifest::damaged(format!(
                "expected blocks of 1 to {MOST_BLOCK} bytes, found {block}"
            )));
        }
        let count = plain.div_ceil(block);
        let listed = count.checked_mul(LENGTH).and_then(|bytes| end.checked_sub(bytes));
        let listed = listed.ok_or_else(too_short)?;
        let mut lengths = vec![0; (len - listed) as usize];
        source.read_at(&mut lengths, at.start + listed)?;
        let mut starts = Vec::with_capacity(count as usize + 1);
        let mut next = at.start;
        for (index, length) in (0..count).zip(lengths.as_chunks().0) {
            let (length, most) =
                (u64::from(u32::from_le_bytes(*length)), block.min(plain - index * block));
            if !(1..=most).contains(&length) {
                return Err(manifest::damaged(format!(
                    "block {index}: expected 1 to {most} bytes, found {length}"
                )));
            }
            starts.push(next);
            next += length;
        }
        starts.push(next);
        let expected = packed_len(next - at.start, count, plain, width);
        if expected != len {
            return Err(manifest::damaged(format!("expected {expected} bytes, found {len}")));
        }
        let mut tail = zeros(source, next..at.start + listed)?;
        tail.update(&lengths);
        Ok(Self { block, plain, starts, newer, tail })
    }

    /// Fills `bytes` with those of the part from `offset` on. The checksum of what is stored: of
    /// the blocks that begin there, and with the last one of all behind.
    pub fn decode(&self, source: &Source, offset: u64, bytes: &mut [u8]) -> Result<Hasher> {
        let end = offset + bytes.len() as u64;
        let mut pieces = Vec::new();
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let block = at / self.block;
            let here = ((block + 1) * self.block).min(end) - at;
            let own = rest.split_off_mut(..here as usize).unwrap_or_default();
            pieces.push((block, (at - block * self.block) as usize, own));
            at += here;
        }
        let decode = |decoder: &mut BlockDecoder, (block, from, bytes): (u64, usize, &mut [u8])| {
            self.decode_block(source, decoder, block, from, bytes)
        };
        let hashes: Vec<Result<Hasher>> =
            pieces.into_par_iter().map_init(BlockDecoder::default, decode).collect();
        let mut all = Hasher::new();
        for (index, hash) in hashes.into_iter().enumerate() {
            let hash = hash?;
            // One that begins before is another's.
            if index > 0 || offset.is_multiple_of(self.block) {
                all.combine(&hash);
            }
        }
        if end == self.plain {
            all.combine(&self.tail);
        }
        Ok(all)
    }

    /// The bytes of a block from `from` on, as many as there is room for.
    fn decode_block(
        &self,
        source: &Source,
        decoder: &mut BlockDecoder,
        block: u64,
        from: usize,
        bytes: &mut [u8],
    ) -> Result<Hasher> {
        let [start, end] = [0, 1].map(|next| self.starts[block as usize + next]);
        let plain = self.block.min(self.plain - block * self.block) as usize;
        let mut stored = vec![0; (end - start) as usize];
        source.read_at(&mut stored, start)?;
        let hash = hash(&stored);
        if stored.len() == plain {
            bytes.copy_from_slice(&stored[from..from + bytes.len()]);
            return Ok(hash);
        }
        let decoded = if !self.newer && is_of_version_10(&stored) {
            Err("a form of version 10 in a file of an earlier one")
        } else if bytes.len() == plain {
            decoder.decode(&stored, bytes)
        } else {
            let mut all = vec![0; plain];
            let decoded = decoder.decode(&stored, &mut all);
            bytes.copy_from_slice(&all[from..from + bytes.len()]);
            decoded
        };
        decoded.map_err(|what| manifest::damaged(format!("block {block}: {what}")))?;
        Ok(hash)
    }
}
