//! `--shard i/n`: which cells of a sweep are this process's.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A part of a sweep's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    index: usize,
    of: usize,
}

impl Shard {
    /// All cells.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// The part of an index, from 1, of so many; `None` where there is no such part.
    pub fn new(index: usize, of: usize) -> Option<Self> {
        (1..=of).contains(&index).then_some(Self { index, of })
    }

    /// Whether there is one part.
    pub fn is_whole(self) -> bool {
        self.of == 1
    }

    /// Its part of `cells` cells. A run of neighbours: those that share a baseline stay together.
    /// `cuts`: the first cells of the parts after the first; without any, parts are of equal number.
    ///
    /// # Errors
    /// Cuts for another number of parts, out of order or behind the last cell.
    pub fn range(self, cells: usize, cuts: &[usize]) -> Result<Range<usize>> {
        if cuts.is_empty() {
            // In 128 bits no product overflows.
            let edge = |shard: usize| (cells as u128 * shard as u128 / self.of as u128) as usize;
            return Ok(edge(self.index - 1)..edge(self.index));
        }
        let in_order = cuts.is_sorted() && cuts.last().is_some_and(|last| *last <= cells);
        if cuts.len() != self.of - 1 || !in_order {
            return Err(Error::input(format!(
                "--cuts: expected {} rising numbers up to {cells}, found {cuts:?}",
                self.of - 1
            ))
            .hint("--submit works them out; without --cuts parts have the same number of cells"));
        }
        let edge = |shard: usize| match shard {
            0 => 0,
            shard => cuts.get(shard - 1).copied().unwrap_or(cells),
        };
        Ok(edge(self.index - 1)..edge(self.index))
    }

    /// A file of this shard's own.
    pub fn file(self, stem: &str, extension: &str) -> String {
        match self.is_whole() {
            true => format!("{stem}.{extension}"),
            false => format!("{stem}-{}-of-{}.{extension}", self.index, self.of),
        }
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |digits: &str| digits.parse::<usize>().ok().filter(|number| *number > 0);
        let pair = text.split_once('/').map(|(index, of)| (number(index), number(of)));
        match pair {
            Some((Some(index), Some(of))) if index <= of => Ok(Self { index, of }),
            _ => Err("expected I/N with I from 1 to N, such as 2/3, or auto".into()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// `stem.extension` and every shard's, sorted; of plans, earlier ones too.
pub(super) fn files(folder: &Path, stem: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, &e).hint("name the folder that kvgauge sweep wrote to");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
        if rest.and_then(|rest| rest.strip_suffix('.')).is_some_and(is_part) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Empty, `-2-of-3` as [`Shard::file`] has it, and either with `-earlier-1` behind it.
fn is_part(middle: &str) -> bool {
    let shard = match middle.split_once("-earlier-") {
        Some((shard, number)) if number.parse::<usize>().is_ok() => shard,
        Some(_) => return false,
        None => middle,
    };
    let numbers = shard.strip_prefix('-').and_then(|rest| rest.split_once("-of-"));
    shard.is_empty()
        || numbers.is_some_and(|(index, of)| format!("{index}/{of}").parse::<Shard>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_every_cell_once() {
        for of in [1, 2, 3, 7, 20] {
            for cells in 0..40 {
                let mut next = 0;
                for index in 1..=of {
                    let range = Shard { index, of }.range(cells, &[]).unwrap();
                    assert_eq!(range.start, next);
                    assert!(range.len() <= cells.div_ceil(of));
                    next = range.end;
                }
                assert_eq!(next, cells);
            }
        }
    }

    #[test]
    fn cuts_are_taken_as_they_are_or_refused() {
        let of = |index, cuts: &[usize]| Shard { index, of: 3 }.range(10, cuts);
        assert_eq!([1, 2, 3].map(|index| of(index, &[7, 7]).unwrap()), [0..7, 7..7, 7..10]);
        assert_eq!(of(3, &[2, 10]).unwrap(), 10..10);
        for cuts in [&[3][..], &[1, 2, 3], &[5, 4], &[5, 11]] {
            let error = of(1, cuts).unwrap_err().to_string();
            assert!(error.contains("2 rising numbers up to 10"), "{error}");
        }
    }

    #[test]
    fn shards_are_counted_from_one() {
        assert_eq!("2/3".parse::<Shard>().unwrap().file("cells", "jsonl"), "cells-2-of-3.jsonl");
        assert_eq!("1/1".parse::<Shard>(), Ok(Shard::WHOLE));
        for text in ["0/3", "4/3", "3", "1/0", "/", "a/b", "-1/3", "1/3/5", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
