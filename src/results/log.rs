//! A log of records, one JSON line each, that is only ever appended to.
//!
//! A line is `{"crc32":"…","record":{…}}`, the checksum being that of the record's own bytes. A
//! run that is killed leaves at most one torn line at the end; a line that is torn, cut or changed
//! fails its checksum and counts as not there.

use crate::error::{Error, Result};
use crate::platform;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How every line begins.
const LINE: &[u8] = br#"{"crc32":""#;

pub struct Log {
    path: PathBuf,
    file: File,
}

/// A kind of record that a log holds.
pub trait Logged: Sized {
    /// A record from its JSON, whose checksum is right.
    fn read(record: &str) -> std::result::Result<Self, Rejected>;
}

/// Reason why a line is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejected {
    /// Torn, cut or changed: the checksum is not that of the record, or there is none.
    Damaged,
    /// Whole, and of a version that this one does not know: its name.
    Version(String),
    /// Whole, of a version that is known, and not what that version writes: what is wrong.
    Content(String),
}

/// Contents of a log.
pub struct Records<T> {
    pub records: Vec<T>,
    /// Lines left out, by reason.
    pub rejected: BTreeMap<Rejected, usize>,
}

/// The version that a record names.
pub fn schema(record: &str) -> std::result::Result<String, Rejected> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: String,
    }
    parse::<Versioned>(record).map(|record| record.schema)
}

/// A record, or what is wrong with it.
pub fn parse<T: DeserializeOwned>(record: &str) -> std::result::Result<T, Rejected> {
    serde_json::from_str(record).map_err(|e| Rejected::Content(e.to_string()))
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    crc32: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

impl Log {
    /// Opens or creates; held by one process at a time.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::io(path, &e).hint("choose an --output folder that can be written to")
        };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::input(format!(
                    "{}: another sweep is writing to it",
                    path.display()
                ))
                .hint("wait for it, choose another --output, or give each its own --shard"));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        if !is_log(&file).map_err(failed)? {
            return Err(Error::input(format!(
                "{}: expected a sweep's log, found a file that kvgauge did not write",
                path.display()
            ))
            .hint("choose another --output folder"));
        }
        // A record after a torn line starts on a line of its own.
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if length > 0 {
            let mut last = [0];
            platform::read_exact_at(&file, &mut last, length - 1).map_err(failed)?;
            if last != *b"\n" {
                file.write_all(b"\n").map_err(failed)?;
            }
        }
        Ok(Self { path: path.into(), file })
    }

    /// Appends one record; with `sync`, it survives a power cut from then on.
    pub fn append(&mut self, record: &impl Serialize, sync: bool) -> Result<()> {
        let failed = |e: std::io::Error| {
            Error::system(format!("{}: {e}", self.path.display())).hint("is the disk full?")
        };
        let json = |e: serde_json::Error| Error::system(format!("JSON: {e}"));
        let record = serde_json::value::to_raw_value(record).map_err(json)?;
        let crc32 = checksum(&record);
        let mut line = serde_json::to_vec(&Line { crc32, record: &record }).map_err(json)?;
        line.push(b'\n');
        // One write: lines of several processes do not mix.
        self.file.write_all(&line).map_err(failed)?;
        if sync {
            self.file.sync_data().map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether a file has a line of a log, or no more than the torn beginning of one.
fn is_log(file: &File) -> std::io::Result<bool> {
    let mut lines = BufReader::new(file);
    let (mut line, mut is_beginning) = (Vec::new(), true);
    while lines.read_until(b'\n', &mut line)? > 0 {
        let start = line.trim_ascii_end();
        if start.starts_with(LINE) {
            return Ok(true);
        }
        is_beginning &= LINE.starts_with(start);
        line.clear();
    }
    Ok(is_beginning)
}

/// Every whole record of a log; a log that is not there is empty.
pub fn read<T: Logged>(path: &Path) -> Result<Records<T>> {
    let mut found = Records { records: Vec::new(), rejected: BTreeMap::new() };
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        file => file.map_err(|e| Error::io(path, &e))?,
    };
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line).map_err(|e| Error::io(path, &e))?;
        if line.is_empty() {
            return Ok(found);
        }
        // The checksum tells a whole line from a torn one, with a newline or without.
        match line.trim_ascii_end() {
            [] => {}
            line => match record_of(line).ok_or(Rejected::Damaged).and_then(T::read) {
                Ok(record) => found.records.push(record),
                Err(reason) => *found.rejected.entry(reason).or_default() += 1,
            },
        }
    }
}

/// The JSON of a line's record, if its checksum is right.
fn record_of(line: &[u8]) -> Option<&str> {
    let line: Line = serde_json::from_slice(line).ok()?;
    (line.crc32 == checksum(line.record)).then(|| line.record.get())
}

fn checksum(record: &RawValue) -> String {
    format!("{:08x}", crc32fast::hash(record.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    impl Logged for Vec<f64> {
        fn read(record: &str) -> std::result::Result<Self, Rejected> {
            parse(record)
        }
    }

    fn all(path: &Path) -> Records<Vec<f64>> {
        read(path).unwrap()
    }

    fn damaged<T>(found: &Records<T>) -> usize {
        found.rejected.get(&Rejected::Damaged).copied().unwrap_or(0)
    }

    fn written(folder: &TempDir, records: &[Vec<f64>]) -> PathBuf {
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(&path).unwrap();
        records.iter().for_each(|record| log.append(record, false).unwrap());
        path
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let folder = TempDir::new().unwrap();
        let numbers = vec![0.1 + 0.2, 1e-310, f64::MAX, -0.0, 1.0 / 3.0];
        let path = written(&folder, std::slice::from_ref(&numbers));
        let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&all(&path).records[0]), bits(&numbers));
        assert_eq!(all(&folder.path().join("none.jsonl")).records.len(), 0);
    }

    /// Whatever is left of the last line, the lines before it are there and what follows is too.
    #[test]
    fn a_log_cut_anywhere_keeps_its_whole_lines_and_goes_on() {
        let folder = TempDir::new().unwrap();
        let path = written(&folder, &[vec![1.5], vec![2.5, 3.5]]);
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let ends = [first, whole.len()];
            let kept = ends.iter().filter(|end| cut + 1 >= **end).count();
            let found = all(&path);
            let torn = usize::from(cut > 0 && !ends.iter().any(|end| [cut, cut + 1].contains(end)));
            assert_eq!((found.records.len(), damaged(&found)), (kept, torn), "cut at {cut}");
            Log::open(&path).unwrap().append(&vec![9.0], true).unwrap();
            let found = all(&path);
            assert_eq!((found.records.len(), damaged(&found)), (kept + 1, torn), "cut at {cut}");
            assert_eq!(found.records.last(), Some(&vec![9.0]));
        }
    }

    #[test]
    fn a_changed_byte_is_not_trusted() {
        let folder = TempDir::new().unwrap();
        let path = written(&folder, &[vec![1.5, 2.5]]);
        let whole = std::fs::read(&path).unwrap();
        // But the newline, which the checksum can do without.
        for at in 0..whole.len() - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(all(&path).records.is_empty(), "byte {at}");
        }
    }

    #[test]
    fn two_sweeps_do_not_write_one_log() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("log.jsonl");
        let _first = Log::open(&path).unwrap();
        let error = Log::open(&path).err().unwrap();
        assert!(error.to_string().contains("another sweep"), "{error}");
    }
}
