//! clap's usage errors in the form of all others: one line of what is wrong, and a hint for people
//! who come from other tools.

mod foreign_flags;

pub(super) use foreign_flags::FOREIGN_FLAGS;

use crate::error::Error;
use crate::eval::Treatment;
use crate::nearest_word::nearest;
use crate::settings::{Location, SETTINGS, Takes};
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

/// A whole command line of `kv-compress`.
const COMPRESS: &str = "kv-compress --input kv_cache.safetensors --output compressed.safetensors";

/// Options of sbatch that people give most.
const OF_SBATCH: [&str; 10] = [
    "partition",
    "time",
    "mem",
    "mem-per-cpu",
    "account",
    "qos",
    "cpus-per-task",
    "gres",
    "array",
    "nodelist",
];

/// The hint where nothing better is known.
const HELP: &str = "--help, after a command too, lists what can be asked for";

/// `words`: the whole command line; `command`: what it was parsed as.
pub fn error(error: &clap::Error, words: &[OsString], command: &Command) -> Error {
    let text = error.render().to_string();
    let values = |line: &str| Some(line.strip_prefix("  [")?.strip_suffix(']')?.to_string());
    let what: Vec<&str> = text
        .lines()
        .take_while(|line| !line.is_empty() && values(line).is_none())
        .map(str::trim)
        .collect();
    let told = Error::input(what.join(" ").trim_start_matches("error: "));
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let name = words.get(1).and_then(|word| word.to_str());
    let sub = name.and_then(|name| command.find_subcommand(name));
    // Also of the binary `kv-compress`, which is a command of its own.
    let whole = sub.is_none() && command.get_name() != "kvgauge";
    let asked = Asked { words, command, sub: if whole { Some(command) } else { sub } };
    let argument = word(ContextKind::InvalidArg);
    let value = word(ContextKind::InvalidValue);
    let own = match error.kind() {
        ErrorKind::UnknownArgument => argument.and_then(|argument| asked.unknown(argument)),
        ErrorKind::InvalidSubcommand => {
            word(ContextKind::InvalidSubcommand).and_then(|word| asked.no_command(word))
        }
        // Also where a flag ends the line.
        ErrorKind::InvalidValue if value.is_none_or(str::is_empty) => argument.map(needs_value),
        // The same words as from the parser of names.
        ErrorKind::ValueValidation if argument.map(flag_of) == Some("--codec") => {
            if let Some(Err(error)) = value.map(str::parse::<Treatment>) {
                return Location::Flag("--codec").locate(error);
            }
            None
        }
        ErrorKind::ValueValidation if argument.map(flag_of) == Some("--shard") => {
            Some("the second of eight parts is --shard 2/8".into())
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            value.zip(argument).and_then(|(value, argument)| no_number(argument, value))
        }
        ErrorKind::ArgumentConflict => Some(twice(argument, &text)),
        ErrorKind::MissingRequiredArgument => asked.missing(&text),
        ErrorKind::InvalidUtf8 => Some(
            "paths may have any name, all else is UTF-8: rename the model's file, or link to it"
                .into(),
        ),
        _ => None,
    };
    let tip = |line: &str| line.strip_prefix("  tip: ").map(str::to_string);
    let tip = || text.lines().find_map(|line| tip(line).or_else(|| values(line)));
    told.hint(own.or_else(tip).unwrap_or_else(|| HELP.into()))
}

/// A command line, and the command that it asks for.
struct Asked<'a> {
    words: &'a [OsString],
    command: &'a Command,
    /// `None`: no command that there is.
    sub: Option<&'a Command>,
}

impl Asked<'_> {
    fn unknown(&self, argument: &str) -> Option<String> {
        // clap names the first letter of `-ctk` alone.
        let typed = |word: &OsString| {
            let word = word.to_str()?.split('=').next()?;
            (word.starts_with(argument) && !word.starts_with("--")).then(|| word.to_string())
        };
        let whole = match argument.starts_with("--") {
            true => argument.split('=').next().unwrap_or(argument).to_string(),
            false => self.words.iter().skip(1).find_map(typed).unwrap_or(argument.into()),
        };
        if whole.parse::<f64>().is_ok() {
            return Some("no number below 0 can be meant there".into());
        }
        let name = whole.trim_start_matches('-').to_ascii_lowercase();
        if name.is_empty() {
            return Some("what comes through a pipe is --text /dev/stdin".into());
        }
        let Some(sub) = self.sub else {
            let has = |sub: &&Command| has(sub, &name);
            let with = self.command.get_subcommands().find(has)?;
            return Some(format!(
                "flags stand behind a command: kvgauge {} {whole} …",
                with.get_name()
            ));
        };
        if !whole.starts_with('-') {
            return self.stray(&whole);
        }
        if has(sub, "submit")
            && self.words.iter().any(|word| word.to_string_lossy().starts_with("--submit"))
            && (!whole.starts_with("--") || OF_SBATCH.contains(&name.as_str()))
        {
            return Some(format!(
                "options of the scheduler stand behind --, at the end: -- {whole} …"
            ));
        }
        let known = |entry: &&foreign_flags::ForeignFlag| {
            entry.names.contains(&name.as_str()) && has(sub, entry.flag)
        };
        if let Some(entry) = FOREIGN_FLAGS.iter().find(known) {
            return Some(entry.hint.into());
        }
        // A flag of kvgauge's, but of another command.
        let other = self
            .command
            .get_subcommands()
            .find(|other| has(other, &name) && other.get_name() != sub.get_name());
        other
            .filter(|_| name.len() > 1 && !has(sub, &name))
            .map(|other| format!("--{name} is a flag of kvgauge {}", other.get_name()))
    }

    /// A word without a flag before it.
    fn stray(&self, word: &str) -> Option<String> {
        let sub = self.sub?;
        if matches!(
            word.to_ascii_lowercase().as_str(),
            "yes" | "no" | "true" | "false" | "on" | "off"
        ) {
            return Some("true or false stands behind =, as in --strict=false".into());
        }
        let path = std::path::Path::new(word);
        let ends = |ends: &[&str]| {
            path.extension()
                .is_some_and(|found| ends.iter().any(|end| found.eq_ignore_ascii_case(end)))
        };
        let meant = [
            ("config", ends(&["toml"])),
            ("text", ends(&["txt", "raw", "md"])),
            ("model", ends(&["gguf"])),
            ("input", ends(&["safetensors"])),
            ("model", word.contains('/') || path.is_dir()),
            ("codec", word.parse::<Treatment>().is_ok()),
        ];
        if has(sub, "shard") && ends(&["toml"]) {
            return Some(
                "one settings file a sweep: it can list models, texts and contexts".into(),
            );
        }
        let (flag, _) = meant.into_iter().find(|(flag, looks)| *looks && has(sub, flag))?;
        Some(format!("every value stands behind its flag: --{flag} {word}"))
    }

    fn no_command(&self, word: &str) -> Option<String> {
        if let Some(sub) = self.sub.filter(|sub| has(sub, "decompress")) {
            let nearest = nearest(word, sub.get_subcommands().map(Command::get_name));
            return match nearest {
                Some(near) => Some(format!("did you mean {near}?")),
                None => Some(format!("every value stands behind its flag: {COMPRESS}")),
            };
        }
        let path = std::path::Path::new(word);
        let ends =
            |end: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end));
        if ends("toml") {
            return Some(format!("kvgauge sweep {word}, or kvgauge validate --config {word}"));
        }
        if ends("gguf") || word.contains('/') || path.exists() {
            return Some(format!("kvgauge validate --model {word}"));
        }
        let meant = match word.to_ascii_lowercase().as_str() {
            "perplexity" | "ppl" | "eval" | "evaluate" | "measure" | "run" | "check" | "test"
            | "benchmark" | "compare" => "validate",
            "compress" | "decompress" | "quantize" | "kv_compress" | "kvcompress" | "inspect" => {
                "kv-compress"
            }
            "list" | "codec" | "presets" | "types" | "formats" => "codecs",
            "grid" | "search" | "bench" => "sweep",
            "dump" | "export" | "save" => "extract",
            _ => {
                let near = self.command.get_subcommands().map(Command::get_name);
                let near = nearest(word, near);
                let names: Vec<&str> =
                    self.command.get_subcommands().map(Command::get_name).collect();
                return Some(match near {
                    Some(near) => format!("did you mean `kvgauge {near}`?"),
                    None => format!("the commands are {}", names.join(", ")),
                });
            }
        };
        Some(format!("did you mean `kvgauge {meant}`?"))
    }

    /// For what is missing beside what was said: a whole command as an example.
    fn missing(&self, text: &str) -> Option<String> {
        let example = match self.sub?.get_name() {
            "sweep" if text.contains("--submit") => {
                "kvgauge sweep configs/quickstart.toml --submit slurm -- --partition cpu"
            }
            "sweep" if text.contains("--shard") => {
                "kvgauge sweep configs/quickstart.toml --shard 2/3 --cuts 4,9"
            }
            "sweep" => "kvgauge sweep configs/quickstart.toml",
            "report" => "kvgauge report results/quickstart --output report",
            "extract" => "kvgauge extract --model builtin --output kv_cache.safetensors",
            "figures" => "kvgauge figures measurement.json",
            "completions" => "kvgauge completions bash",
            "man" => "kvgauge man ~/.local/share/man/man1",
            "kv-compress" if self.words.iter().any(|word| word == "inspect") => {
                "kv-compress inspect compressed.safetensors"
            }
            "kv-compress" => COMPRESS,
            _ => return None,
        };
        Some(format!("for example: {example}"))
    }
}

/// Whether the command has a flag, named without dashes.
pub(super) fn has(command: &Command, flag: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_long() == Some(flag))
}

/// The flag's name in `--context <N>`.
fn flag_of(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or(argument)
}

/// For a flag with nothing behind it.
fn needs_value(argument: &str) -> String {
    match flag_of(argument) {
        "--codec" => "for example --codec q4_0; `kvgauge codecs` lists them".into(),
        "--model" => "for example --model builtin, OWNER/NAME, a folder or a .gguf file".into(),
        "--text" => "for example --text builtin, wikitext-2 or a UTF-8 file".into(),
        "--protocol" => "--protocol prefix or --protocol decode".into(),
        flag => match argument.rsplit_once('<') {
            Some((_, "N>")) => format!("for example {flag} 20"),
            Some((_, "PERCENT>")) => format!("for example {flag} 1"),
            Some((_, "FILE>")) => format!("for example {flag} FILE"),
            Some((_, "DIR>")) => format!("for example {flag} results/mine"),
            _ => format!("a value follows {flag}; --help says which"),
        },
    }
}

/// Kinds of values that are numbers, and one that is usual for each.
const NUMBERS: [(&str, &str); 11] = [
    ("<N>", "64"),
    ("<N|all>", "20"),
    ("<PERCENT>", "1"),
    ("<NATS>", "0.01"),
    ("<SHARE>", "0.95"),
    ("<BYTES>", "20000"),
    ("<B>", "4"),
    ("<X>", "0.991"),
    ("<DB>", "16"),
    ("<BASE>", "10000"),
    ("<I,I…>", "4,9"),
];

/// For a value that is no number where one is expected.
fn no_number(argument: &str, value: &str) -> Option<String> {
    let flag = flag_of(argument);
    let (kind, usual) = NUMBERS.iter().find(|(kind, _)| argument.ends_with(kind))?;
    let is_whole = matches!(*kind, "<N>" | "<N|all>");
    // In a number that need not be whole, a comma is one's own point.
    let point = value.replacen(',', ".", 1);
    if !is_whole && point != value && point.parse::<f64>().is_ok() {
        return Some(format!("written with a point: {flag} {point}"));
    }
    let plain: String = value.chars().filter(|c| !matches!(c, ',' | '_' | '\'' | ' ')).collect();
    let unit = plain.trim_start_matches(|c: char| c.is_ascii_digit() || (!is_whole && c == '.'));
    let digits = &plain[..plain.len() - unit.len()];
    let number = digits.parse::<f64>().ok();
    // Below this, whole numbers are printed as they are.
    let times = |factor: f64| Some(number? * factor).filter(|product| *product < 1e15);
    let lower = unit.to_ascii_lowercase();
    Some(match (lower.as_str(), number) {
        ("", Some(number)) if plain != value && is_whole => {
            format!("written without separators: {flag} {number}")
        }
        ("%", Some(number)) if matches!(*kind, "<SHARE>" | "<X>") => {
            format!("a share of 1, without a unit: {flag} {}", number / 100.0)
        }
        ("kb" | "mb" | "gb" | "kib" | "mib" | "gib", _) if *kind == "<BYTES>" => {
            let base: f64 = if lower.contains('i') { 1024.0 } else { 1000.0 };
            let power = match lower.as_bytes()[0] {
                b'k' => 1,
                b'm' => 2,
                _ => 3,
            };
            let bytes = times(base.powi(power)).map_or(usual.to_string(), |n| n.to_string());
            format!("bytes, without a unit: {flag} {bytes}")
        }
        ("k" | "ki", _) => match (times(1024.0), times(1000.0)) {
            (Some(binary), Some(decimal)) => {
                format!("a number without a unit: {flag} {binary}, or {decimal}")
            }
            _ => format!("a number without a unit: {flag} {usual}"),
        },
        ("all", None) | ("max", None) if flag == "--context" => {
            "the longest context of the model is found by leaving --context out, up to 2048".into()
        }
        (
            "tokens" | "t" | "tok" | "%" | "db" | "bit" | "bits" | "b" | "bytes" | "nats" | "nat",
            Some(number),
        ) => format!("a number without a unit: {flag} {number}"),
        _ if *kind == "<N|all>" => format!("a whole number or all: {flag} {usual}"),
        _ if is_whole => format!("a whole number, 0 or more, without a unit: {flag} {usual}"),
        _ => format!("a number without a unit: {flag} {usual}"),
    })
}

/// For a flag said twice, or beside one that excludes it.
fn twice(argument: Option<&str>, text: &str) -> String {
    let flag = argument.map_or("", flag_of);
    if !text.contains("multiple times") {
        return "leave one of the two out".into();
    }
    match SETTINGS.iter().find(|setting| setting.flag == flag && setting.takes == Takes::Runs) {
        Some(setting) => format!(
            "one run takes one; `kvgauge sweep` takes several from its file: {} = [\"…\", \"…\"]",
            setting.key
        ),
        None => "leave one of the two out".into(),
    }
}
