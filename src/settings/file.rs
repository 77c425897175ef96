//! Settings in a TOML file: the long flags with underscores as keys, and `[grid]`.

use super::entry::{Entry, Source, distinct};
use super::grid;
use super::list::{GRID, RawSettings, Visitor, keys};
use super::location::Given;
use super::setting::{Setting, Takes};
use super::value::Value;
use crate::codec::FIELDS;
use crate::error::{Error, Result};
use crate::sniff;
use std::path::{Path, PathBuf};

/// The table of fields of codec names.
/// A settings file that was read.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// Its path, as typed.
    pub path: PathBuf,
    /// Its text, without its byte order mark, if it had one.
    pub text: String,
    /// The settings that it gives.
    pub raw: RawSettings,
}

impl ConfigFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(path, std::fs::read(path).map_err(|e| Error::io(path, &e))?)
    }

    /// From a file's bytes; `path` is only named in errors.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let sniffed = sniff::sniff(&e.as_bytes()[..e.as_bytes().len().min(sniff::ENOUGH)]);
            let (path, takes) = (path.display(), "settings are a TOML file; see configs/");
            match sniffed {
                Some(kind) => {
                    Error::input(format!("{path}: expected TOML in UTF-8, found {}", kind.name()))
                        .hint(match kind {
                            sniff::Kind::Utf16 | sniff::Kind::Utf32 => kind.hint(),
                            _ => takes,
                        })
                }
                None => Error::input(format!(
                    "{path}: expected UTF-8, found another byte at offset {at}"
                ))
                .hint("save it as UTF-8; settings are a TOML file"),
            }
        })?;
        let text = text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text);
        let raw = RawSettings::from_toml(path, &text)?;
        Ok(Self { path: path.into(), text, raw })
    }
}

impl RawSettings {
    /// From the text of a TOML file. Relative paths in it are kept as they are: they start from
    /// the current folder, like those of flags.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self> {
        let mut raw = RawSettings::default();
        let mut of_grid = Vec::new();
        let source = Source::new(path, text);
        let table = source.parse()?;
        for entry in source.entries(table.get_ref(), "") {
            if entry.name == GRID {
                of_grid = grid::codecs(&entry)?;
                continue;
            }
            let mut reader = EntryReader { entry: &entry, known: false };
            raw.visit(&mut reader)?;
            if !reader.known {
                let of_grid = FIELDS.iter().any(|field| field.key == entry.name);
                let belongs = of_grid.then_some("it belongs in [grid]");
                return Err(entry.unknown(&keys().collect::<Vec<_>>(), belongs));
            }
        }
        raw.codec.append(&mut of_grid);
        raw.codec = distinct(raw.codec)?;
        Ok(raw)
    }
}

/// Reads one key of a file into the setting of that name.
struct EntryReader<'a> {
    entry: &'a Entry<'a>,
    known: bool,
}

impl Visitor for EntryReader<'_> {
    fn setting<T: Value>(
        &mut self,
        setting: &'static Setting,
        given: &mut Vec<Given<T>>,
    ) -> Result<()> {
        if !setting.is_named(self.entry.name) {
            return Ok(());
        }
        self.known = true;
        let values = match setting.takes {
            Takes::One => vec![self.entry.one()?],
            Takes::Runs => self.entry.distinct()?,
            // The grid adds to them.
            Takes::List => self.entry.list()?,
        };
        if let (false, Some(older)) = (given.is_empty(), setting.older) {
            let error = "expected the limit once, found it under another name too";
            return Err(self.entry.location().locate(
                Error::input(error)
                    .hint(format!("{} and {} are one limit", setting.key, older.key)),
            ));
        }
        *given = values;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn parse(text: &str) -> Result<RawSettings> {
        ConfigFile::parse(Path::new("x.toml"), text.into()).map(|file| file.raw)
    }

    #[track_caller]
    fn refused(text: &str, message: &str) -> Error {
        let error = parse(text).expect_err(text);
        assert_eq!(error.to_string(), format!("x.toml: {message}"));
        error
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_at_its_place() {
        for (text, message) in [
            (
                "# comment\nseed = 1\ncontext = 1.5",
                "line 3, column 11: context: expected a whole number, 0 or more, found 1.5",
            ),
            (
                "context = [64, \"128\"]",
                "line 1, column 16: context: expected a whole number, 0 or more, \
                 found the string \"128\"",
            ),
            ("seed = -2", "line 1, column 8: seed: expected a whole number, 0 or more, found -2"),
            (
                "seed = 99999999999999999999",
                "line 1, column 8: seed: expected a whole number, 0 or more, and of 64 bits at \
                 most, found 99999999999999999999",
            ),
            ("model = 1", "line 1, column 9: model: expected a string, found 1"),
            ("text = [[]]", "line 1, column 9: text: expected a string, found a list"),
            ("codec = [1]", "line 1, column 10: codec: expected a codec's name, found 1"),
            (
                "strict = {}",
                "line 1, column 10: strict: expected a boolean, true or false, found a table",
            ),
            (
                "offline = 2000-01-01",
                "line 1, column 11: offline: expected a boolean, true or false, found a date or time",
            ),
            (
                "windows = \"some\"",
                "line 1, column 11: windows: expected a whole number or \"all\", \
                 found the string \"some\"",
            ),
            (
                "max_ppl_increase = \"\\n\"",
                "line 1, column 20: max_ppl_increase: expected a number, found the string \"\\n\"",
            ),
            (
                "dtype = \"f64\"",
                "line 1, column 9: dtype: expected `f32`, `bf16` or `f16`, found the string \"f64\"",
            ),
            (
                "protocol = \"suffix\"",
                "line 1, column 12: protocol: expected `both`, `prefix` or `decode`, found \"suffix\"",
            ),
            ("grid = 1", "line 1, column 8: grid: expected a table, found 1"),
            ("[[grid]]\ngroup = 32", "line 1, column 1: grid: expected a table, found a list"),
        ] {
            let message = message.replace("0.1.0", env!("CARGO_PKG_VERSION"));
            assert!(refused(text, &message).hint_text().is_some(), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_brings_the_nearest_known_one() {
        for (text, place, hint) in [
            ("seed = 1\nmodle = \"x\"", "line 2, column 1: modle", "did you mean `model`?"),
            ("max-ppl-increase = 1", "line 1, column 1: max-ppl-increase", "`max_ppl_increase`?"),
            ("[sweep]\nx = 1", "line 1, column 2: sweep", "configs/"),
            ("\"a\\nb\" = 1", "line 1, column 1: \"a\\nb\"", "configs/"),
            ("group = [32]", "line 1, column 1: group", "it belongs in [grid]"),
            ("[grid]\ngruop = 32", "line 2, column 1: grid.gruop", "did you mean `group`?"),
            ("[grid]\nvalues = {}", "line 2, column 1: grid.values", "did you mean `value`?"),
            ("[grid]\nseed = 1", "line 2, column 1: grid.seed", "above the first [table]"),
            ("grid.key.gruop = 32", "line 1, column 10: grid.key.gruop", "`group`?"),
            ("[grid.value]\nkey.had = true", "line 2, column 1: grid.value.key", "configs/"),
        ] {
            let error = refused(text, &format!("{place}: no key of that name"));
            assert!(error.hint_text().unwrap().contains(hint), "{text}: {:?}", error.hint_text());
        }
    }

    #[test]
    fn every_key_in_the_list_is_read() {
        for key in keys() {
            // A date is no key's value: what is refused is the value.
            let error = parse(&format!("{key} = 2000-01-01")).unwrap_err().to_string();
            assert!(
                error.contains(&format!("column {}: {key}: expected", key.len() + 4)),
                "{error}"
            );
        }
    }

    #[test]
    fn an_empty_list_or_a_value_twice_is_refused() {
        for key in ["model", "text", "context", "codec", "grid.group", "grid.had", "grid.levels"] {
            let place = format!("line 1, column {}: {key}", key.len() + 4);
            let message = format!("{place}: expected at least one value, found an empty list");
            refused(&format!("{key} = []"), &message);
        }
        for (text, place, first) in [
            (
                "model = [\"a/b\", \"a/b\"]",
                "line 1, column 17: model",
                "a/b twice, first at line 1, column 10",
            ),
            (
                "text = [\"x\",\n\"y\", \"x\"]",
                "line 2, column 6: text",
                "x twice, first at line 1, column 9",
            ),
            (
                "context = [8, 16, 8]",
                "line 1, column 19: context",
                "8 twice, first at line 1, column 12",
            ),
            (
                "codec = [\"int4-g64\", \"int4\"]",
                "line 1, column 22: codec",
                "int4-g64 twice, first at line 1, column 10",
            ),
            (
                "grid.group = [32, 64]\ncodec = \"int4\"",
                "line 1, column 19: grid.group",
                "int4-g64 twice, first at line 2, column 9",
            ),
            (
                "grid.group = [32, 32]",
                "line 1, column 19: grid.group",
                "32 twice, first at line 1, column 15",
            ),
        ] {
            refused(text, &format!("{place}: expected every value once, found {first}"));
        }
    }

    #[test]
    fn a_syntax_error_is_one_line_with_its_place() {
        for (text, place) in [
            ("[", "line 1, column "),
            ("seed = 1\nx", "line 2, column "),
            ("a = ", "line 1, column "),
            ("\u{0}", "line 1, column "),
            ("seed = 1\nseed = 2", "line 2, column 1: "),
            ("seed = 1\r\n\r\nmodel = \"ä", "line 3, column "),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("x.toml: {place}")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_column_counts_characters_whatever_the_file_is_written_with() {
        let message = "line 1, column 18: context: expected a whole number, 0 or more, found \"x\"";
        let message = message.replace("found", "found the string");
        let place = |line: usize| message.replace("line 1", &format!("line {line}"));
        refused("context = [6, 7, \"x\"]", &place(1));
        refused("\u{feff}context = [6, 7, \"x\"]", &place(1));
        refused("# ä\r\ncontext = [6, 7, \"x\"]\r\n", &place(2));
        refused(
            "codec = [\"€ä\", 1]",
            "line 1, column 10: codec: codec `€ä`: no codec of that name",
        );
        refused("text = [\"€ä\", 1]", "line 1, column 15: text: expected a string, found 1");
        let bom = ConfigFile::parse(Path::new("x"), "\u{feff}seed = 1".into()).unwrap();
        assert_eq!(bom.text, "seed = 1");
    }

    #[test]
    fn dotted_keys_and_inline_tables_are_tables() {
        let codecs = |text| {
            let raw = parse(text).expect(text);
            raw.codec.into_iter().map(|said| said.value.to_string()).collect::<Vec<_>>()
        };
        for text in ["grid.group = 32", "grid = { group = [32] }", "[grid]\ngroup = 0x20"] {
            assert_eq!(codecs(text), ["int4-g32"], "{text}");
        }
        assert_eq!(
            codecs("codec = \"f16\"\n[grid.key]\ngroup = 32"),
            ["f16", "k:int4-g32/v:int4-g64"]
        );
    }

    /// Bytes changed, lost and doubled at random places: settings or one line, and no panic.
    #[test]
    fn a_damaged_file_is_an_error_of_one_line() {
        let whole = std::fs::read("configs/group-sizes.toml").unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % bound
        };
        let mut refused = 0;
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..=below(8) {
                let at = below(bytes.len());
                match below(4) {
                    0 => bytes[at] = below(256) as u8,
                    1 => bytes[at] = b"\n\"'[]{}=.,#0-"[below(13)],
                    2 => _ = bytes.remove(at),
                    _ => bytes.insert(at, whole[below(whole.len())]),
                }
            }
            let settings = ConfigFile::parse(Path::new("x.toml"), bytes)
                .and_then(|file| Settings::resolve_all(file.raw));
            if let Err(error) = settings {
                refused += 1;
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
        assert!((200..2000).contains(&refused), "{refused}");
    }
}
