//! What compressing a tensor found.

use super::packed::CodedPart;
use super::{Checksums, hash};
use crate::codec::{DistortionRun, DistortionSum};

/// The result of a piece of a tensor, or of all of its pieces so far.
pub struct Outcome {
    pub crc32: Checksums,
    pub run: Option<DistortionRun>,
    /// Of a tensor that is one piece.
    pub sum: DistortionSum,
    pub in_range: bool,
    /// Of a tensor that found its own; one a codec.
    pub exponents: Vec<i32>,
    /// The blocks of its parts, where these are coded.
    pub coded: Vec<CodedPart>,
}

impl Outcome {
    pub fn nothing() -> Self {
        Self {
            crc32: Checksums::default(),
            run: None,
            sum: DistortionSum::default(),
            in_range: true,
            exponents: Vec::new(),
            coded: Vec::new(),
        }
    }

    /// One part, of numbers of which nothing else is to be known.
    pub fn of_part(bytes: &[u8], run: Option<DistortionRun>) -> Self {
        Self { crc32: Checksums(vec![hash(bytes)]), run, ..Self::nothing() }
    }

    pub fn then(&mut self, next: Self) {
        self.crc32.then(next.crc32);
        self.in_range &= next.in_range;
        self.exponents.extend(next.exponents);
        for (index, next) in next.coded.into_iter().enumerate() {
            match self.coded.get_mut(index) {
                Some(coded) => {
                    coded.lengths.extend(next.lengths);
                    coded.is_newer |= next.is_newer;
                }
                None => self.coded.push(next),
            }
        }
        self.sum = self.sum.plus(next.sum);
        self.run = match (self.run.take(), next.run) {
            (Some(run), Some(next)) => Some(run.then(next)),
            (run, next) => run.or(next),
        };
    }

    /// The checksum of the parts one after the other, and the distortion.
    pub fn finish(self) -> (u32, DistortionSum) {
        (self.crc32.finish(), self.run.map_or(self.sum, DistortionRun::finish))
    }
}
