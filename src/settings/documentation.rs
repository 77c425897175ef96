//! Documentation written from the list of settings: a commented example of all, and a table. `KVGAUGE_WRITE=1 cargo test settings::documentation` writes both.

use super::list::{RawSettings, SETTINGS, Settings, Visitor};
use super::location::Given;
use super::setting::{Group, Setting, Takes};
use super::value::Value;
use crate::codec::FIELDS;
use crate::error::Result;
use std::fmt::Write;
use std::path::Path;

const EXAMPLE: &str = "configs/all-settings.toml";
const TABLE: &str = "docs/settings.md";

/// Columns of a comment.
const WIDTH: usize = 98;

const EXAMPLE_HEAD: &str = "\
# Every setting with its default, written from the list of settings: take out what you need.
#
# Keys are the long flags with underscores, and a flag overrides its key. Relative paths start from
# the current folder. An unknown key is an error.
";

const GRID_HEAD: &str = "\
# Fields of codec names, one value or a list of each, crossed; the codecs come behind those of
# `codec`. Fields in [grid] hold for keys and values, those in [grid.key] and [grid.value] for one
# of the two. Tables come last in a TOML file: a key below this line belongs to the grid.
# The fields in the order of a name:
";

const TABLE_HEAD: &str = "\
# Settings

Every setting has a flag and a key in a settings file: `kvgauge sweep FILE.toml`, or
`kvgauge validate --config FILE.toml`. A flag overrides its key; what neither gives has its default.
[all-settings.toml](../configs/all-settings.toml) holds all of them, commented out. This table is
written from the list of settings, like `--help`. `kvgauge extract` has `--context`, `--first-window`
and `--dtype` of its own.

| Key | Flag | Value | Default | Meaning | Taken by |
|---|---|---|---|---|---|
";

/// Collects the type of each setting's values, in words.
struct Expected(Vec<String>);

impl Visitor for Expected {
    fn setting<T: Value>(&mut self, _: &Setting, _: &mut Vec<Given<T>>) -> Result<()> {
        self.0.push(T::expected());
        Ok(())
    }
}

/// Each setting with the type of its values, in words.
fn settings() -> Vec<(&'static Setting, String)> {
    let mut expected = Expected(Vec::new());
    RawSettings::default().visit(&mut expected).unwrap();
    SETTINGS.iter().zip(expected.0).collect()
}

/// The default in words: what the list says, or its value.
fn default_words(setting: &Setting) -> String {
    let words = setting.default_words.filter(|words| !words.is_empty());
    let value = (setting.default)().map(|default| default.words);
    words.map(str::to_string).or(value).unwrap_or_default()
}

/// `text` as comments of at most [`WIDTH`] columns.
fn comment(text: &str) -> String {
    let mut out = String::from("#");
    let mut column = 1;
    for word in text.split_whitespace() {
        if column + 1 + word.len() > WIDTH {
            out.push_str("\n#");
            column = 1;
        }
        _ = write!(out, " {word}");
        column += 1 + word.len();
    }
    out + "\n"
}

fn example() -> String {
    let mut out = String::from(EXAMPLE_HEAD);
    for (setting, _) in settings() {
        let several = match setting.takes {
            Takes::One => "",
            Takes::Runs => " A list makes runs of each.",
            Takes::List => " A list, too.",
        };
        let only = if setting.group == Group::Validate { " For validate only." } else { "" };
        let left_out = match setting.default_words {
            Some(words) if !words.is_empty() => format!(" Left out: {words}."),
            _ => String::new(),
        };
        let older =
            setting.older.map_or(String::new(), |older| format!(" An older name: {}.", older.key));
        out.push('\n');
        let meaning = setting.whole_meaning();
        let end = if meaning.ends_with('.') { "" } else { "." };
        out += &comment(&format!("{meaning}{end}{several}{only}{left_out}{older}"));
        let value = (setting.default)().map_or(setting.example.into(), |default| default.spelling);
        _ = writeln!(out, "# {} = {value}", setting.key);
    }
    out.push('\n');
    out += GRID_HEAD;
    for field in FIELDS {
        out += &comment(&format!("- {}: {}", field.key, field.meaning()));
    }
    out + "# [grid]\n# group = [32, 128]\n"
}

fn table() -> String {
    let mut out = String::from(TABLE_HEAD);
    for (setting, expected) in settings() {
        let older = |older: &super::setting::OlderName| format!(", older `--{}`", older.flag);
        let commands = match setting.group {
            Group::Subject => "validate, sweep, tune, extract",
            Group::Evaluation => "validate, sweep, tune",
            Group::Limit => "validate, sweep, tune, report, figures",
            Group::Validate => "validate",
        };
        let expected = match setting.bounds {
            Some(bounds) => {
                format!("{}: {}", expected.trim_end_matches(", 0 or more"), bounds.expected)
            }
            None => expected,
        };
        let several = if setting.takes == Takes::One { "" } else { ", or a list" };
        let row = format!(
            "| `{}` | `{}`{} | {expected}{several} | {} | {} | {commands} |",
            setting.key,
            setting.flag,
            setting.older.as_ref().map_or(String::new(), older),
            default_words(setting),
            // Else a cell ends there, within a code span too.
            setting.whole_meaning().replace('|', "\\|"),
        );
        out += &row;
        out.push('\n');
    }
    out
}

/// That the file holds `text`; writes it where that is asked for.
fn is_up_to_date(path: &str, text: &str) {
    if std::env::var_os("KVGAUGE_WRITE").is_some() {
        std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == text, "{path}: KVGAUGE_WRITE=1 cargo test settings::documentation writes it");
}

#[test]
fn what_is_written_from_the_list_is_up_to_date() {
    is_up_to_date(EXAMPLE, &example());
    is_up_to_date(TABLE, &table());
}

#[test]
fn the_example_holds_every_key_with_its_default() {
    let assigns = |line: &&str| line.contains(" = ") || line.starts_with("# [");
    let example = example();
    let lines = example.lines().filter(assigns).map(|line| line.trim_start_matches("# "));
    let uncommented = lines.collect::<Vec<_>>().join("\n");
    let raw = |text: &str| RawSettings::from_toml(Path::new(EXAMPLE), text).expect(text);
    let with_grid: Vec<_> = raw(&uncommented).codec.into_iter().map(|c| c.value).collect();
    assert_eq!(with_grid, ["int4-g64", "int4-g32", "int4-g128"].map(|c| c.parse().unwrap()));

    let (settings, _) = uncommented.split_once("[grid]").unwrap();
    let json = |raw| serde_json::to_value(Settings::resolve(raw).unwrap()).unwrap();
    // An engine adds to the codecs.
    let others: Vec<&str> =
        settings.lines().filter(|line| !line.starts_with("engine = ")).collect();
    let (mut written, mut default) = (json(raw(&others.join("\n"))), json(RawSettings::default()));
    for setting in &SETTINGS {
        assert!(settings.contains(&format!("{} = ", setting.key)), "{}", setting.key);
        // Where no value is the default, the example shows another.
        if (setting.default)().is_none() {
            written[setting.json_key()].take();
            default[setting.json_key()].take();
        }
    }
    assert_eq!(written, default);
}
