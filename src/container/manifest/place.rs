//! The places of the parts of all tensors in a file.

use super::super::safetensors::Header;
use super::parts::{Coded, Coding, FilePart, PREFIXES, Stored, StoredPart};
use super::record::Record;
use crate::codec::PartName;
use crate::error::Result;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Where the parts of all tensors lie, and the header of the file that holds them, as yet without
/// metadata.
pub fn place(records: &[Record], coded: Vec<Option<Coded>>) -> Result<(Vec<Stored>, Header)> {
    let dots = ".".repeat(dots(records, &coded));
    // With the tensor that each is of.
    let mut parts: Vec<(usize, FilePart)> = Vec::new();
    for (owner, (record, coded)) in records.iter().zip(&coded).enumerate() {
        match coded {
            None => {
                let (name, shape) = (record.name.clone(), record.shape.clone());
                let (codec, part) = (0, PartName::Values);
                parts.push((owner, FilePart { codec, part, name, dtype: record.dtype, shape }));
            }
            Some(Coded { coding, view }) => {
                let own = coding.parts(record.dtype, &view.shape).into_iter();
                parts.extend(own.map(|part| {
                    let name = format!("{}{dots}{}", record.name, part.name);
                    (owner, FilePart { name, ..part })
                }));
            }
        }
    }
    let mut stored: Vec<Stored> =
        coded.into_iter().map(|coded| Stored { coded, parts: Vec::new() }).collect();
    for (owner, FilePart { codec, part, .. }) in &parts {
        stored[*owner].parts.push(StoredPart { codec: *codec, name: *part, bytes: 0..0 });
    }
    // Wide types first: every tensor is aligned, as the safetensors library does it.
    parts.sort_by_key(|(_, part)| Reverse(part.dtype.bitsize()));
    let mut header = Header::default();
    for (owner, FilePart { codec, part, name, dtype, shape }) in parts {
        let (start, end) = header.push(name, dtype, shape)?.info.data_offsets;
        let mut own = stored[owner].parts.iter_mut();
        if let Some(place) = own.find(|own| (own.codec, own.name) == (codec, part)) {
            place.bytes = start as u64..end as u64;
        }
    }
    Ok((stored, header))
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
