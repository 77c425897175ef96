//! Packed parts, written each where it would lie unpacked, moved to where they lie.
//!
//! The parts of a file keep their order when they are packed, and none is longer than before. So what is
//! moved, from the first byte to the last, never lands on what was not moved yet.

use super::manifest::{self, Manifest, PackedParts, Record, Stored, StoredPart};
use super::packed::CodedPart;
use super::pipeline::PIECE;
use super::safetensors::Header;
use super::{Checksums, Output, hash};
use crate::codec::entropy::BlockDecoder;
use crate::error::{Error, Result};
use crate::whole_file::NewFile;
use crc32fast::Hasher;

/// What was written, but for the header.
pub struct Made {
    pub stored: Vec<Stored>,
    /// Its header, as yet without metadata.
    pub parts: Header,
    /// Bytes up to the first part.
    pub room: usize,
}

/// Packs every part that becomes shorter, given the blocks that were written each where it would lie
/// unpacked, with `room` bytes before the first part. Says so in the manifest.
pub fn pack(
    manifest: &mut Manifest,
    written: &[Stored],
    coded: &[Vec<CodedPart>],
    output: Option<&Output>,
    room: usize,
) -> Result<Made> {
    let packed = |((stored, coded), record): ((&Stored, &Vec<CodedPart>), &Record)| {
        let bytes = stored.parts.iter().zip(coded);
        let bytes = bytes.map(|(part, coded)| coded.packed_len(part.unpacked, part.width));
        let bytes: Vec<u64> = bytes.map(Option::unwrap_or_default).collect();
        let crc32 = record.crc32.clone();
        bytes.iter().any(|bytes| *bytes > 0).then_some(PackedParts { bytes, crc32 })
    };
    let packed = written.iter().zip(coded).zip(&manifest.tensors).map(packed);
    let packed: Vec<Option<PackedParts>> = packed.collect();
    let newer = packed.iter().zip(coded).any(|(packed, coded)| {
        let bytes = packed.iter().flat_map(|packed| &packed.bytes);
        bytes.zip(coded).any(|(bytes, coded)| *bytes > 0 && coded.is_newer)
    });
    manifest.set_packed(packed, newer)?;
    let (stored, parts) = manifest.stored()?;
    let made = Made { room: manifest.room(&parts)?, stored, parts };
    if let Some(output) = output {
        let gathering = Gathering {
            file: &output.file,
            from: room as u64,
            to: made.room as u64,
            written,
            stored: &made.stored,
            coded,
        };
        let checksums = output.written_by(|| gathering.run())?;
        for (record, crc32) in manifest.tensors.iter_mut().zip(checksums) {
            record.crc32 = manifest::hex(crc32);
        }
    }
    Ok(made)
}

/// What was written, and what of it stays.
struct Gathering<'a> {
    file: &'a NewFile,
    /// Where parts begin that are not packed, and those of the file.
    from: u64,
    to: u64,
    /// The places of parts that are not packed, and those of the file.
    written: &'a [Stored],
    stored: &'a [Stored],
    /// Of each tensor the blocks of its parts; none where it was not coded.
    coded: &'a [Vec<CodedPart>],
}

impl Gathering<'_> {
    /// Moves everything, and ends the file behind it. The checksum of each tensor's parts.
    fn run(&self) -> Result<Vec<u32>> {
        let places =
            |tensor: usize| (0..self.stored[tensor].parts.len()).map(move |part| (tensor, part));
        let mut order: Vec<(usize, usize)> = (0..self.stored.len()).flat_map(places).collect();
        order.sort_by_key(|(tensor, part)| self.written[*tensor].parts[*part].bytes.start);
        let mut hashes: Vec<Vec<Hasher>> =
            self.stored.iter().map(|stored| vec![Hasher::new(); stored.parts.len()]).collect();
        let mut end = self.to;
        for (tensor, part) in order {
            let place = &self.stored[tensor].parts[part];
            let from = self.from + self.written[tensor].parts[part].bytes.start;
            let coded = self.coded[tensor].get(part);
            hashes[tensor][part] = match coded {
                None => self.move_whole(from, place)?,
                Some(coded) => self.move_blocks(from, place, coded)?,
            };
            end = end.max(self.to + place.bytes.end);
        }
        self.file.set_len(end)?;
        Ok(hashes.into_iter().map(|parts| Checksums(parts).finish()).collect())
    }

    fn move_whole(&self, from: u64, place: &StoredPart) -> Result<Hasher> {
        let (mut all, mut at) = (Hasher::new(), 0);
        let mut bytes = Vec::new();
        while at < place.len() {
            bytes.resize((place.len() - at).min(PIECE as u64) as usize, 0);
            self.file.read_at(&mut bytes, from + at)?;
            self.file.write_at(&bytes, self.to + place.bytes.start + at)?;
            all.update(&bytes);
            at += bytes.len() as u64;
        }
        Ok(all)
    }

    /// Of a part that is packed; of one that turned out not to be shorter, back as it was.
    fn move_blocks(&self, from: u64, place: &StoredPart, coded: &CodedPart) -> Result<Hasher> {
        let mut to = self.to + place.bytes.start;
        let (mut all, mut decoder) = (Hasher::new(), BlockDecoder::default());
        let mut put = |bytes: &[u8]| -> Result<()> {
            self.file.write_at(bytes, to)?;
            all.combine(&hash(bytes));
            to += bytes.len() as u64;
            Ok(())
        };
        for (index, length) in coded.lengths.iter().enumerate() {
            let start = (index * coded.block) as u64;
            let mut bytes = vec![0; *length as usize];
            self.file.read_at(&mut bytes, from + start)?;
            let plain = (place.unpacked - start).min(coded.block as u64) as usize;
            if !place.packed && bytes.len() < plain {
                let block = std::mem::replace(&mut bytes, vec![0; plain]);
                let decoded = decoder.decode(&block, &mut bytes);
                decoded.map_err(|e| Error::system(format!("a block that was packed: {e}")))?;
            }
            put(&bytes)?;
        }
        if place.packed {
            put(&coded.tail(place.len()))?;
        }
        Ok(all)
    }
}
