//! Sets of layers, as names say them: indices and ranges, negative ones counted from the end.

use crate::error::{Error, Result};
use std::fmt;

/// A place on a line that has the first layer at 0 and ends behind the last at [`END`], however many
/// layers there are: below [`HALF`] it is an index, from there on it is counted from the end.
type Place = u64;

/// Above every index.
const HALF: Place = 1 << 32;
/// One behind the last layer.
const END: Place = HALF + (1 << 32);

/// Layers one after the other; `first` does not lie behind `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Run {
    first: Place,
    last: Place,
}

/// A set of layers of a model with any number of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layers(Vec<Run>);

impl Run {
    fn is_from_start(self) -> bool {
        self.last < HALF
    }

    fn is_from_end(self) -> bool {
        self.first >= HALF
    }

    /// From an index to a place counted from the end.
    fn spans(self) -> bool {
        !self.is_from_start() && !self.is_from_end()
    }

    /// The indices that it has whatever the number of layers, and the places from the end.
    fn certain(self) -> impl Iterator<Item = Self> {
        let Self { first, last } = self;
        let spans = self.spans();
        let to_end = (spans && last == END - 1).then_some(Self { first, last: HALF - 1 });
        let from_start = (spans && first == 0).then_some(Self { first: HALF, last });
        [(!spans).then_some(self), to_end, from_start].into_iter().flatten()
    }

    /// Without `other`, as far as that can be said without the number of layers.
    fn without(self, other: Self) -> Vec<Self> {
        let is_inside = other.first <= self.first && self.last <= other.last;
        if self.spans() {
            return if is_inside { Vec::new() } else { vec![self] };
        }
        let mut rest = vec![self];
        for cut in other.certain() {
            let apart = |run: Self| {
                let before = Self { last: run.last.min(cut.first.saturating_sub(1)), ..run };
                let before = Some(before).filter(|run| cut.first > run.first);
                let after = Self { first: run.first.max(cut.last + 1), ..run };
                let after = Some(after).filter(|run| cut.last < run.last);
                [before, after].into_iter().flatten()
            };
            rest = rest.into_iter().flat_map(apart).collect();
        }
        rest
    }

    /// Whether both are counted from the same end, so that they are known to meet or not.
    fn compares_with(self, other: Self) -> bool {
        self.is_from_start() && other.is_from_start() || self.is_from_end() && other.is_from_end()
    }
}

impl Layers {
    /// Reads `0,1,-1` or `4-7`; the error is what was expected and found.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let runs = text.split(',').map(run).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Self::of(runs))
    }

    /// The layers of these indices.
    pub fn of_indices(indices: impl IntoIterator<Item = usize>) -> Self {
        let run = |index: usize| Run { first: index as Place, last: index as Place };
        Self::of(indices.into_iter().map(run).collect())
    }

    /// Sorted; those that touch are one, and none lies in another.
    fn of(mut runs: Vec<Run>) -> Self {
        runs.sort_unstable();
        runs.dedup();
        let spanning: Vec<Run> = runs.iter().copied().filter(|run| run.spans()).collect();
        for wide in spanning {
            let outside = |run: Run| if run == wide { vec![run] } else { run.without(wide) };
            runs = runs.into_iter().flat_map(outside).collect();
        }
        let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
        for run in runs {
            let before = merged.iter_mut().rfind(|before| before.compares_with(run));
            match before.filter(|before| run.first <= before.last + 1) {
                Some(before) => before.last = before.last.max(run.last),
                None => merged.push(run),
            }
        }
        merged.sort_unstable();
        Self(merged)
    }

    /// Whether no layer is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has all layers, however many there are.
    pub fn is_all(&self) -> bool {
        self.0.contains(&Run { first: 0, last: END - 1 })
    }

    /// Those of both.
    pub fn and(&self, other: &Self) -> Self {
        Self::of([self.0.as_slice(), &other.0].concat())
    }

    /// Without those of `other`, as far as that can be said without the number of layers.
    pub fn without(&self, other: &Self) -> Self {
        let cut = |runs: Vec<Run>, other: &Run| {
            runs.into_iter().flat_map(|run| run.without(*other)).collect()
        };
        Self(other.0.iter().fold(self.0.clone(), cut))
    }

    /// Whether the two have no layer in common, however many there are; `false` where it depends.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        let apart = |one: &Run, other: &Run| {
            one.compares_with(*other) && (one.last < other.first || other.last < one.first)
        };
        self.0.iter().all(|one| other.0.iter().all(|other| apart(one, other)))
    }

    /// Their indices in a model of `count` layers.
    ///
    /// # Errors
    /// A layer that such a model does not have; a range that does not run forward in it.
    pub fn indices(&self, count: usize) -> Result<Vec<usize>> {
        let index = |place: Place| -> Result<usize> {
            let index = match place < HALF {
                true => usize::try_from(place).ok(),
                false => usize::try_from(END - place).ok().and_then(|back| count.checked_sub(back)),
            };
            index.filter(|index| *index < count).ok_or_else(|| {
                let place = shown(place);
                Error::input(format!(
                    "layer {place}: expected one of {count} layers, 0 to {} or -{count} to -1",
                    count.saturating_sub(1)
                ))
                .hint("layers are counted from 0, and negative ones from the end: -1 is the last")
            })
        };
        let mut indices = Vec::new();
        for run in &self.0 {
            let (first, last) = (index(run.first)?, index(run.last)?);
            if first > last {
                return Err(Error::input(format!(
                    "layers {run}: expected a range that runs forward, found {first} to {last} of \
                     {count} layers"
                ))
                .hint("say the layers one by one"));
            }
            indices.extend(first..=last);
        }
        Ok(indices)
    }
}

/// `3`, `-1`, `4-7`, `-4--2` or `2--1`.
fn run(text: &str) -> std::result::Result<Run, String> {
    let place = |text: &str| -> Option<Place> {
        let (digits, is_back) = match text.strip_prefix('-') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
        let number = is_number.then(|| digits.parse::<u32>().ok()).flatten().map(Place::from)?;
        match is_back {
            true => (number > 0).then(|| END - number),
            false => Some(number),
        }
    };
    // The dash behind the first number, if there is one.
    let dash = text.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| at);
    let ends = match dash {
        None => place(text).map(|only| (only, only)),
        Some(at) => place(&text[..at]).zip(place(&text[at + 1..])),
    };
    let text = text.escape_debug();
    match ends {
        Some((first, last)) if first <= last => Ok(Run { first, last }),
        Some(_) => Err(format!("a range that runs forward, found `{text}`")),
        None => Err(format!("a layer or a range of layers, found `{text}`")),
    }
}

fn shown(place: Place) -> String {
    if place < HALF { place.to_string() } else { format!("-{}", END - place) }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.first))?;
        if self.first < self.last { write!(f, "-{}", shown(self.last)) } else { Ok(()) }
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{run}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(text: &str) -> Layers {
        Layers::parse(text).expect(text)
    }

    #[test]
    fn sets_have_one_spelling() {
        for (typed, printed) in [
            ("0", "0"),
            ("1,0", "0-1"),
            ("0,1,-1", "0-1,-1"),
            ("-1,1,0,1", "0-1,-1"),
            ("4-7", "4-7"),
            ("4-5,7,6", "4-7"),
            ("2-2", "2"),
            ("007", "7"),
            ("-1,-2", "-2--1"),
            ("-4--2,-1", "-4--1"),
            ("2--1", "2--1"),
            ("2--1,2--1", "2--1"),
            ("-1,3--2,0", "0,3--2,-1"),
            ("0,1--2,1", "0-1,1--2"),
            ("1,2--1,3,5-9,0", "0-1,2--1"),
            ("3--2,2--1", "2--1"),
        ] {
            assert_eq!(layers(typed).to_string(), printed, "{typed}");
            assert_eq!(layers(printed), layers(typed), "{typed}");
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for typed in ["", ",", "0,", "a", "-0", "+1", "1 ", "1-", "--1", "1---2", "4294967296"] {
            let error = Layers::parse(typed).expect_err(typed);
            assert!(error.starts_with("a layer or a range of layers, found `"), "{error}");
        }
        for typed in ["3-2", "-1--2", "-1-3"] {
            let error = Layers::parse(typed).expect_err(typed);
            assert_eq!(error, format!("a range that runs forward, found `{typed}`"));
        }
    }

    #[test]
    fn indices_in_a_model() {
        for (text, count, expected) in [
            ("0,1,-1", 4, vec![0, 1, 3]),
            ("1--2", 4, vec![1, 2]),
            ("-4--1", 4, vec![0, 1, 2, 3]),
            ("0,-1", 1, vec![0, 0]),
        ] {
            assert_eq!(layers(text).indices(count).expect(text), expected, "{text}");
        }
        for (text, count, words) in [
            ("4", 4, "layer 4: expected one of 4 layers, 0 to 3 or -4 to -1"),
            ("0-9", 4, "layer 9: expected one of 4 layers"),
            ("-5", 4, "layer -5: expected one of 4 layers"),
            ("3--3", 4, "layers 3--3: expected a range that runs forward, found 3 to 1 of 4"),
            ("0", 0, "layer 0: expected one of 0 layers"),
        ] {
            let error = layers(text).indices(count).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    /// Held against sets of indices, for every model that has the layers.
    #[test]
    fn arithmetic_is_that_of_sets() {
        let texts = ["0", "2-4", "-1", "-3--2", "1--1", "0--2", "0--1", "1--2", "0,3", "1,-4--1"];
        for (one, other) in texts.iter().flat_map(|a| texts.iter().map(move |b| (a, b))) {
            let (a, b) = (layers(one), layers(other));
            for count in 5..12 {
                let of = |layers: &Layers| {
                    let mut indices = layers.indices(count).unwrap();
                    indices.sort_unstable();
                    indices.dedup();
                    indices
                };
                let (in_a, in_b) = (of(&a), of(&b));
                let both: Vec<usize> =
                    (0..count).filter(|i| in_a.contains(i) || in_b.contains(i)).collect();
                assert_eq!(of(&a.and(&b)), both, "{one} and {other} of {count}");
                // What is left has all of `one` that is not in `other`, and nothing else of it.
                let left = of(&a.without(&b));
                let must: Vec<&usize> = in_a.iter().filter(|i| !in_b.contains(i)).collect();
                assert!(must.iter().all(|i| left.contains(i)), "{one} without {other} of {count}");
                assert!(left.iter().all(|i| in_a.contains(i)), "{one} without {other} of {count}");
                if a.is_apart_from(&b) {
                    assert!(in_a.iter().all(|i| !in_b.contains(i)), "{one}, {other} of {count}");
                }
            }
        }
        for (one, other, left) in [
            ("0-7", "2,4", "0-1,3,5-7"),
            ("0-7", "3--1", "0-2"),
            ("-4--1", "0--2", "-1"),
            ("1--2", "0--1", ""),
            ("1--1", "1", "1--1"),
            ("5", "-1", "5"),
        ] {
            assert_eq!(layers(one).without(&layers(other)).to_string(), left, "{one}, {other}");
        }
        assert!(layers("0--1").is_all() && layers("3,0--1").is_all() && !layers("0--2").is_all());
    }
}
