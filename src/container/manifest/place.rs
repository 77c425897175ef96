//! The places of the parts of all tensors in a file.

use super::super::safetensors::Header;
use super::parts::{Coded, Coding, FilePart, PREFIXES, Stored, StoredPart};
use super::record::{PackedParts, Record};
use crate::codec::PartName;
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Where the parts of all tensors lie, and the header of the file that holds them, as yet without
/// metadata.
pub fn place(records: &[Record], coded: Vec<Option<Coded>>) -> Result<(Vec<Stored>, Header)> {
    let dots = ".".repeat(dots(records, &coded));
    // With the tensor that each is of, and its index there.
    let mut parts: Vec<((usize, usize), FilePart)> = Vec::new();
    for (owner, (record, coded)) in records.iter().zip(&coded).enumerate() {
        let own = match coded {
            None => vec![FilePart {
                codec: 0,
                part: PartName::Values,
                name: record.name.clone(),
                dtype: record.dtype,
                shape: record.shape.clone(),
                packed: None,
            }],
            Some(Coded { coding, view }) => {
                let own = coding.parts(record.dtype, &view.shape).into_iter();
                let named = own.map(|part| {
                    let name = format!("{}{dots}{}", record.name, part.name);
                    FilePart { name, ..part }
                });
                packed(named.collect(), record)?
            }
        };
        parts.extend(own.into_iter().enumerate().map(|(index, part)| ((owner, index), part)));
    }
    let mut places: Vec<Vec<Option<StoredPart>>> = vec![Vec::new(); records.len()];
    parts.iter().for_each(|((owner, _), _)| places[*owner].push(None));
    // Wide types first: every tensor is aligned, as the safetensors library does it. Packed or not.
    parts.sort_by_key(|(_, part)| Reverse(part.dtype.bitsize()));
    let mut header = Header::default();
    for ((owner, index), part) in parts {
        let (dtype, shape) = part.in_file();
        let (start, end) = header.push(part.name.clone(), dtype, shape)?.info.data_offsets;
        places[owner][index] = Some(part.stored_in(start as u64..end as u64));
    }
    let stored = coded.into_iter().zip(places);
    let stored = stored
        .map(|(coded, parts)| Stored { coded, parts: parts.into_iter().flatten().collect() })
        .collect();
    Ok((stored, header))
}

/// The parts of a tensor, packed as its record says.
fn packed(parts: Vec<FilePart>, record: &Record) -> Result<Vec<FilePart>> {
    let Some(PackedParts { bytes, .. }) = &record.packed else { return Ok(parts) };
    if bytes.len() != parts.len() || bytes.iter().all(|bytes| *bytes == 0) {
        return Err(Error::input(format!(
            "tensor {:?}: packed: expected the bytes of {} parts, some of which are packed, found {bytes:?}",
            record.name,
            parts.len()
        )));
    }
    let pack = |(part, bytes): (FilePart, &u64)| match bytes {
        0 => Ok(part),
        bytes => part.packed(*bytes),
    };
    parts.into_iter().zip(bytes).map(pack).collect()
}

/// How many dots stand before the names of parts: the fewest with which no part has the name of a
/// tensor that is stored unchanged, as a source with `x` and `x.codes` would have it.
fn dots(records: &[Record], coded: &[Option<Coded>]) -> usize {
    let all = || records.iter().zip(coded);
    let compressed: HashMap<&str, Coding> = all()
        .filter_map(|(record, coded)| Some((record.name.as_str(), coded.as_ref()?.coding)))
        .collect();
    let lengths: HashSet<usize> = compressed.keys().map(|name| name.len()).collect();
    let endings: Vec<String> = (["", PREFIXES[0], PREFIXES[1]].iter())
        .flat_map(|prefix| PartName::ALL.map(|part| format!("{prefix}{}", part.as_str())))
        .collect();
    let mut taken = HashSet::new();
    for (record, _) in all().filter(|(_, coded)| coded.is_none()) {
        for part in &endings {
            let Some(mut base) = record.name.strip_suffix(part.as_str()) else { continue };
            let mut dots = 0;
            while let Some(shorter) = base.strip_suffix('.') {
                (base, dots) = (shorter, dots + 1);
                // Most are ruled out by their length, without a look at the whole name.
                let owner = lengths.get(&base.len()).and_then(|_| compressed.get(base));
                if owner.is_some_and(|coding| coding.part_names().contains(part)) {
                    taken.insert(dots);
                }
            }
        }
    }
    (1..).find(|dots| !taken.contains(dots)).unwrap_or(1)
}
