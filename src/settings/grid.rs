//! `[grid]` of a settings file: fields of codec names, crossed.
//!
//! Fields in `[grid]` hold for keys and values alike; `[grid.key]` and `[grid.value]` hold fields
//! of one side, and all three are crossed. Names are composed and parsed like any other, so the
//! grid knows what the parser knows.

use super::entry::Entry;
use super::location::{Given, Location};
use crate::codec::{Codec, FIELDS, FieldKind, FieldTexts, GROUP, compose};
use crate::error::{Error, Result};
use crate::eval::Treatment;

/// More is a slip of the pen: they share one run.
const MAX_CODECS: usize = 1000;

/// One table: for each field its parts of names, in the table's order.
type Fields = [Vec<Given<String>>; FIELDS.len()];

/// One part, or none, for each field.
type Choice<'a> = [Option<&'a Given<String>>; FIELDS.len()];

/// In nested order: the fields of `[grid]` outermost, then keys', then values', each as in a name.
pub(super) fn codecs(grid: &Entry) -> Result<Vec<Given<Treatment>>> {
    let (mut both, mut key, mut value) = (Fields::default(), Fields::default(), Fields::default());
    let entries = grid.table()?;
    if entries.is_empty() {
        return Err(no_fields(grid));
    }
    for entry in entries {
        match entry.name {
            "key" => key = side(&entry)?,
            "value" => value = side(&entry)?,
            _ => read(&mut both, &entry, &["key", "value"])?,
        }
    }
    for (shared, own) in both.iter().zip(&key).chain(both.iter().zip(&value)) {
        if let ([shared, ..], [own, ..]) = (&shared[..], &own[..]) {
            let error = format!(
                "expected the field once, found it in [grid] too, at {}",
                shared.location.position()
            );
            return Err(own.location.locate(
                Error::input(error).hint("a field in [grid] holds for keys and values both"),
            ));
        }
    }
    let sizes = both.iter().chain(&key).chain(&value).map(|parts| parts.len().max(1));
    let size = sizes.fold(1, usize::saturating_mul);
    if size > MAX_CODECS {
        return Err(grid.location().locate(
            Error::input(format!("expected at most {MAX_CODECS} codecs, found {size}"))
                .hint("every field multiplies them"),
        ));
    }
    let mut codecs = Vec::with_capacity(size);
    let (keys, values) = (choices(&key), choices(&value));
    for both in choices(&both) {
        for key in &keys {
            for value in &values {
                codecs.push(codec(&over(key, &both), &over(value, &both))?);
            }
        }
    }
    Ok(codecs)
}

/// `[grid.key]` or `[grid.value]`.
fn side(table: &Entry) -> Result<Fields> {
    let mut fields = Fields::default();
    let entries = table.table()?;
    if entries.is_empty() {
        return Err(no_fields(table));
    }
    for entry in entries {
        read(&mut fields, &entry, &[])?;
    }
    Ok(fields)
}

fn no_fields(table: &Entry) -> Error {
    table.location().locate(
        Error::input("expected at least one field of a codec's name, found none")
            .hint("for example group = [32, 64, 128]; or leave the table out"),
    )
}

fn read(fields: &mut Fields, entry: &Entry, tables: &[&str]) -> Result<()> {
    let Some(index) = FIELDS.iter().position(|field| field.key == entry.name) else {
        let keys = FIELDS.iter().map(|field| field.key).chain(tables.iter().copied());
        return Err(entry.unknown(&keys.collect::<Vec<_>>()));
    };
    let key = entry.name;
    fields[index] = match FIELDS[index].kind {
        FieldKind::Number(letters) => {
            parts(entry.distinct::<u64>()?, |number| format!("{letters}{number}"))
        }
        FieldKind::Word(words) => parts(entry.distinct_words(words)?, str::to_string),
        FieldKind::Flag => {
            parts(entry.distinct::<bool>()?, |on| if on { key.to_string() } else { String::new() })
        }
    };
    Ok(())
}

fn parts<T>(values: Vec<Given<T>>, part: impl Fn(T) -> String) -> Vec<Given<String>> {
    let part = |given: Given<T>| Given { value: part(given.value), location: given.location };
    values.into_iter().map(part).collect()
}

/// Every way to choose one part for each field that has some; the first field is outermost.
fn choices(fields: &Fields) -> Vec<Choice<'_>> {
    let mut choices = vec![Choice::default()];
    for (index, parts) in fields.iter().enumerate().filter(|(_, parts)| !parts.is_empty()) {
        let mut longer = Vec::with_capacity(choices.len() * parts.len());
        for choice in choices {
            longer.extend(parts.iter().map(|part| {
                let mut choice = choice;
                choice[index] = Some(part);
                choice
            }));
        }
        choices = longer;
    }
    choices
}

/// A side's own fields, and the shared ones.
fn over<'a>(own: &Choice<'a>, shared: &Choice<'a>) -> Choice<'a> {
    std::array::from_fn(|index| own[index].or(shared[index]))
}

fn names<'a>(choice: &Choice<'a>) -> FieldTexts<'a> {
    choice.map(|part| part.map_or("", |given| &given.value))
}

/// The codec of these fields, with the location where an error about it should point.
fn codec(key: &Choice, value: &Choice) -> Result<Given<Treatment>> {
    let first = || key.iter().chain(value).find_map(|part| *part);
    match compose(&names(key), &names(value)).parse::<Codec>() {
        Ok(codec) => {
            // Most often it is about a group too large.
            let larger = if codec.value.group() > codec.key.group() { value } else { key };
            let location = larger[GROUP].or_else(first).map(|given| given.location.clone());
            Ok(Given {
                value: codec.into(),
                location: location.unwrap_or(Location::Flag("--codec")),
            })
        }
        // Where no field is wrong alone, the first stands for all.
        Err(error) => Err(match offender(key).or_else(|| offender(value)).or_else(first) {
            Some(given) => given.location.locate(error),
            None => error,
        }),
    }
}

/// The first part that makes no codec even with defaults around it.
fn offender<'a>(choice: &Choice<'a>) -> Option<&'a Given<String>> {
    choice.iter().enumerate().filter_map(|(index, part)| Some((index, (*part)?))).find_map(
        |(index, part)| {
            let mut alone = FieldTexts::default();
            alone[index] = &part.value;
            compose(&alone, &alone).parse::<Codec>().is_err().then_some(part)
        },
    )
}

#[cfg(test)]
mod tests {
    use crate::codec::{FIELDS, FieldKind};
    use crate::settings::RawSettings;
    use std::path::Path;

    fn read(grid: &str) -> crate::Result<RawSettings> {
        RawSettings::from_toml(Path::new("x.toml"), &format!("[grid]\n{grid}"))
    }

    /// Names and positions of the codecs.
    fn codecs(grid: &str) -> Vec<(String, String)> {
        let codecs = read(grid).expect(grid).codec.into_iter();
        codecs.map(|said| (said.value.to_string(), said.location.position())).collect()
    }

    #[track_caller]
    fn refused(grid: &str, message: &str) {
        let error = read(grid).expect_err(grid).to_string();
        let message = message
            .replace("NOT BUILT", "is a known name, but kvgauge 0.1.0 does not build it yet");
        assert_eq!(
            error,
            format!("x.toml: {}", message.replace("0.1.0", env!("CARGO_PKG_VERSION")))
        );
    }

    #[test]
    fn fields_are_crossed_in_the_order_of_a_name() {
        let names = |grid| codecs(grid).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("group = [128, 32]"), ["int4-g128", "int4-g32"]);
        assert_eq!(names("had = false\nlevels = \"sym\"\nsink = [0]\nbits = 4"), ["int4-g64"]);
        assert_eq!(
            names("key.group = [16, 32]\nvalue.group = [64, 16]"),
            ["k:int4-g16/v:int4-g64", "int4-g16", "k:int4-g32/v:int4-g64", "k:int4-g32/v:int4-g16"]
        );
        assert_eq!(
            names("levels = \"sym\"\nvalue.group = [128, 64]"),
            ["k:int4-g64/v:int4-g128", "int4-g64"]
        );
    }

    #[test]
    fn a_codec_points_at_its_larger_group() {
        assert_eq!(codecs("group = [16, 32]")[1].1, "line 2, column 14");
        assert_eq!(codecs("mse = false\ngroup = 32")[0].1, "line 3, column 9");
        assert_eq!(codecs("key.group = 16\nvalue.group = 32")[0].1, "line 3, column 15");
        assert_eq!(codecs("key.group = 128")[0].1, "line 2, column 13");
        assert_eq!(codecs("key.group = 16")[0].1, "line 2, column 13");
        assert_eq!(codecs("bits = 4")[0].1, "line 2, column 8");
    }

    #[test]
    fn a_value_that_makes_no_codec_is_refused_at_its_place() {
        for (grid, message) in [
            (
                "group = [16, 7]",
                "line 2, column 14: grid.group: codec `int4-g7`: expected a group size of at least 8, found 7",
            ),
            (
                "group = 4294967296",
                "line 2, column 9: grid.group: codec `int4-g4294967296`: expected a group size of at most 4294967295, found 4294967296",
            ),
            (
                "group = -1",
                "line 2, column 9: grid.group: expected a whole number, 0 or more, found -1",
            ),
            (
                "bits = 9",
                "line 2, column 8: grid.bits: codec `int9`: expected 2 to 8 bits a code, found 9",
            ),
            (
                "bits = 6\nlevels = [\"mid\", \"lm\"]",
                "line 2, column 8: grid.bits: codec `int6-lm`: expected at most 5 bits with lm, \
                 found 6",
            ),
            (
                "levels = \"low\"",
                "line 2, column 10: grid.levels: expected `sym`, `asym`, `mid`, `ext` or `lm`, found the string \"low\"",
            ),
            (
                "levels = 3",
                "line 2, column 10: grid.levels: expected `sym`, `asym`, `mid`, `ext` or `lm`, found 3",
            ),
            ("ch = 1", "line 2, column 6: grid.ch: expected a boolean, true or false, found 1"),
            (
                "value.prerope = true\nkey.group = 32",
                "line 3, column 13: grid.key.group: codec `k:int4-g32/v:int4-prerope`: expected \
                 values without `prerope`: they have no position",
            ),
        ] {
            refused(grid, message);
        }
    }

    #[test]
    fn a_grid_that_says_nothing_or_too_much_is_refused() {
        let none = "expected at least one field of a codec's name, found none";
        refused("", &format!("line 1, column 2: grid: {none}"));
        refused("group = 32\nkey = {}", &format!("line 3, column 1: grid.key: {none}"));
        refused("[grid.value]", &format!("line 2, column 7: grid.value: {none}"));
        refused(
            "key.group = 16\ngroup = 32",
            "line 2, column 13: grid.key.group: expected the field once, found it in [grid] too, at line 3, column 9",
        );
        let many = |from: usize| {
            let sizes: Vec<String> = (from..from + 40).map(|size| size.to_string()).collect();
            sizes.join(", ")
        };
        refused(
            &format!("key.group = [{}]\nvalue.group = [{}]", many(8), many(100)),
            "line 1, column 2: grid: expected at most 1000 codecs, found 1600",
        );
    }

    /// The comments on `[grid]` in the example: its fields, the values of each, and its value when
    /// left out.
    #[test]
    fn the_commented_example_of_a_grid_says_what_the_parser_takes() {
        let text = std::fs::read_to_string("configs/group-sizes.toml").unwrap();
        let (_, fields) = text.split_once("The fields in the order of a name:\n").unwrap();
        let lines = fields.lines().take_while(|line| line.starts_with("#   "));
        let mut named = Vec::new();
        for line in lines {
            let (keys, says) = line["#   ".len()..].split_once("  ").expect(line);
            for key in keys.split(", ") {
                let field = FIELDS.iter().find(|field| field.key == key).expect(line);
                let takes = |value: &str| {
                    let grid = format!("grid.{key} = {value}");
                    RawSettings::from_toml(Path::new("x.toml"), &grid)
                };
                let left_out = says.rsplit_once("left out: ").expect(line).1;
                let default = takes(left_out).expect(line).codec;
                assert_eq!(default[0].value.to_string(), "int4-g64", "{line}");
                match field.kind {
                    FieldKind::Word(words) => {
                        let said: Vec<&str> = says.split('"').skip(1).step_by(2).collect();
                        assert_eq!(said[..words.len()], *words, "{line}");
                    }
                    FieldKind::Flag => {
                        assert!(says.contains("true or false") && takes("true").is_ok(), "{line}");
                    }
                    FieldKind::Number(_) => {
                        let numbers = says.split(|c: char| !c.is_ascii_digit());
                        let said: Vec<u32> = numbers.filter_map(|n| n.parse().ok()).collect();
                        let least = said[0];
                        assert!(takes(&least.to_string()).is_ok(), "{line}");
                        let below = least.wrapping_sub(1) as i32;
                        assert!(takes(&below.to_string()).is_err(), "{line}");
                        if says.contains(" to ") {
                            assert!(takes(&said[1].to_string()).is_ok(), "{line}");
                            assert!(takes(&(said[1] + 1).to_string()).is_err(), "{line}");
                        }
                    }
                }
                named.push(key.to_string());
            }
        }
        assert_eq!(named, FIELDS.map(|field| field.key.to_string()));
        for entry in std::fs::read_dir("configs").unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("not built"), "{}", path.display());
        }
    }
}
