//! The facts about one setting that are the same wherever it is given.

use super::location::{Given, Location};
use super::value::{DefaultText, Value};
use crate::error::{Error, Result};

/// One entry of the list of settings, without the type of its value.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in a settings file and in the JSON echo.
    pub key: &'static str,
    /// An older name of a limit: still a key and a flag, and the name that JSON keeps.
    pub older: Option<OlderName>,
    /// The flag with its dashes.
    pub flag: &'static str,
    /// The name of the flag's value in the help.
    pub value_name: &'static str,
    /// The meaning with a space in front, as a comment has it.
    pub(super) meaning: &'static str,
    /// What else a newcomer needs to know, in sentences: for `--help` and the documentation, not for `-h`.
    pub more: &'static str,
    /// The default; `None` where there is no value for it.
    pub default: fn() -> Option<DefaultText>,
    /// The default in words, where its value does not say it all; empty: not printed in the help.
    pub default_words: Option<&'static str>,
    /// A value for the commented example, where there is no default to show.
    pub example: &'static str,
    /// The commands that take it.
    pub group: Group,
    /// Its place in the help.
    pub purpose: Purpose,
    /// The number of values.
    pub takes: Takes,
    /// Least and largest value that make sense.
    pub bounds: Option<Bounds>,
    /// Whether it means nothing to the prefix protocol.
    pub decode_only: bool,
    /// Whether the help lists it behind all others.
    pub rare: bool,
    /// Whether a switch's value may stand behind a space, and not only behind `=`.
    pub spaced: bool,
    /// Whether another value may change a figure.
    pub changes_figures: bool,
}

/// Another name of a setting.
#[derive(Debug, Clone, Copy)]
pub struct OlderName {
    /// The key in a settings file.
    pub key: &'static str,
    /// The flag without its dashes.
    pub flag: &'static str,
}

/// The commands that take a setting as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Every command that loads a model: validate, sweep, extract.
    Subject,
    /// Every evaluation: validate, sweep.
    Evaluation,
    /// Evaluations, and `report`, which judges anew.
    Limit,
    /// `validate` alone.
    Validate,
}

/// What somebody has in mind who looks for a flag: the headings of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Model, text and windows.
    MeasuredOn,
    /// Codecs and protocols.
    Measured,
    /// Limits.
    Judged,
    /// Arithmetic, processors, network.
    Machine,
}

impl Purpose {
    /// The heading.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::MeasuredOn => "What to measure on",
            Self::Measured => "What to measure",
            Self::Judged => "How to judge",
            Self::Machine => "Machine and arithmetic",
        }
    }
}

/// The number of values that a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// One.
    One,
    /// Several, in a file as a list; each makes runs of its own.
    Runs,
    /// Several, also on the command line, for one run.
    List,
}

/// The values of a number that make sense whatever model and text come with it.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    least: f64,
    most: f64,
    /// The range in words.
    pub(super) expected: &'static str,
    hint: &'static str,
}

impl Setting {
    /// An entry with nothing special about it; the list adds key, meaning and default.
    pub const fn new(
        group: Group,
        purpose: Purpose,
        flag: &'static str,
        value_name: &'static str,
    ) -> Self {
        Self {
            key: "",
            older: None,
            flag,
            value_name,
            meaning: "",
            more: "",
            default: || None,
            default_words: None,
            example: "",
            group,
            purpose,
            takes: Takes::One,
            bounds: None,
            decode_only: false,
            rare: false,
            spaced: false,
            changes_figures: true,
        }
    }

    /// With an older name.
    pub const fn older(self, key: &'static str, flag: &'static str) -> Self {
        Self { older: Some(OlderName { key, flag }), ..self }
    }

    /// With more to say than fits into one line.
    pub const fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    /// With a default in words; empty: not printed in the help.
    pub const fn default_words(self, words: &'static str) -> Self {
        Self { default_words: Some(words), ..self }
    }

    /// With a value for the commented example.
    pub const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// With several values.
    pub const fn takes(self, takes: Takes) -> Self {
        Self { takes, ..self }
    }

    /// With a least and a largest number, and the hint for all others.
    pub const fn bounds(
        self,
        least: f64,
        most: f64,
        expected: &'static str,
        hint: &'static str,
    ) -> Self {
        Self { bounds: Some(Bounds { least, most, expected, hint }), ..self }
    }

    /// Without a meaning to the prefix protocol.
    pub const fn decode_only(self) -> Self {
        Self { decode_only: true, ..self }
    }

    /// Behind all others in the help.
    pub const fn rare(self) -> Self {
        Self { rare: true, ..self }
    }

    /// With a switch's value behind a space, too.
    pub const fn spaced(self) -> Self {
        Self { spaced: true, ..self }
    }

    /// With no influence on any figure.
    pub const fn changes_no_figure(self) -> Self {
        Self { changes_figures: false, ..self }
    }

    /// The help of its flag, one sentence; of a switch, only a default that is not `false` is told.
    pub fn help(&self, switch: bool) -> String {
        self.with_default(self.meaning().into(), switch)
    }

    /// The help of its flag with all that there is to say.
    pub fn long_help(&self, switch: bool) -> String {
        self.with_default(self.whole_meaning(), switch)
    }

    fn with_default(&self, meaning: String, switch: bool) -> String {
        let default = match self.default_words {
            Some(words) => words.to_string(),
            None => (self.default)().map_or(String::new(), |default| default.words),
        };
        match default.is_empty() || (switch && default == "false") {
            true => meaning,
            false => format!("{meaning} [default: {default}]"),
        }
    }

    /// The meaning, one line.
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim_start()
    }

    /// The meaning, and what else there is to say.
    pub fn whole_meaning(&self) -> String {
        match self.more {
            "" => self.meaning().into(),
            more => format!("{}. {more}", self.meaning()),
        }
    }

    /// The key in the JSON echo.
    pub fn json_key(&self) -> &'static str {
        self.older.map_or(self.key, |older| older.key)
    }

    /// Whether `key` is a name of it in a settings file.
    pub fn is_named(&self, key: &str) -> bool {
        self.key == key || self.older.is_some_and(|older| older.key == key)
    }

    /// Whether every value makes sense by itself.
    pub fn check<T: Value>(&self, given: &[Given<T>]) -> Result<()> {
        let Some(bounds) = self.bounds else { return Ok(()) };
        for Given { value, location } in given {
            if value.number().is_some_and(|n| !(bounds.least..=bounds.most).contains(&n)) {
                let error = Error::input(format!("expected {}, found {value}", bounds.expected));
                return Err(location.locate(error.hint(bounds.hint)));
            }
        }
        Ok(())
    }

    /// Where a value too many for one run was given.
    pub fn second<'a, T>(&self, given: &'a [Given<T>]) -> Option<&'a Location> {
        given.get(1).filter(|_| self.takes == Takes::Runs).map(|given| &given.location)
    }
}
