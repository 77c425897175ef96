//! `kvgauge codecs`.

use super::{Outcome, output};
use crate::error::Result;
use crate::report;
use crate::run::listing::{self, Listing};
use clap::Args;
use std::fmt::Write;

/// The arguments of `kvgauge codecs`.
#[derive(Args)]
pub struct Arguments {
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Prints the list.
    pub fn run(self) -> Result<Outcome> {
        let listing = listing::listing()?;
        match self.json {
            true => output::print(&report::json(&listing)?)?,
            false => output::print_text(&table(&listing))?,
        }
        Ok(Outcome::Done)
    }
}

/// Where a codec runs and how it is asked for there; whose it is and that no engine has it.
fn whose(codec: &listing::Listed) -> Vec<String> {
    if !codec.runs_on.is_empty() {
        return codec.runs_on.iter().map(|on| format!("{}: {}", on.engine, on.flag)).collect();
    }
    vec![match (&codec.flag, codec.engine) {
        (None, "control") => "control".into(),
        (None, "kvgauge") => "kvgauge only".into(),
        (None, origin) => format!("kvgauge only, {origin}"),
        (Some(flag), origin) => format!("{origin}: {flag}"),
    }]
}

/// For a terminal: each codec in two or three lines, since what it stands for is long.
fn table(listing: &Listing) -> String {
    let on = &listing.measured_on;
    let [small, large] = on.head_dims;
    let mut out = format!(
        "Bits a value of keys and values together, from payloads of {} tokens on {} KV heads,\n\
         at head size {small} and at {large}.\n\n",
        on.tokens, on.kv_heads
    );
    let width = |text: &dyn Fn(&listing::Listed) -> usize| {
        listing.codecs.iter().map(text).max().unwrap_or(0)
    };
    let name = width(&|codec| codec.codec.len());
    for codec in &listing.codecs {
        let bits: Vec<String> =
            codec.bits_per_value.iter().map(|bits| format!("{bits:5.2}")).collect();
        _ = writeln!(out, "{:<name$}  {}  {}", codec.codec, bits.join("  "), codec.what);
        let indent = name + 2 + 7 * bits.len();
        for whose in whose(codec) {
            _ = writeln!(out, "{:indent$}{whose}", "");
        }
        if !codec.needs.is_empty() {
            _ = writeln!(out, "{:indent$}needs {}", "", codec.needs.join("; "));
        }
    }
    out.push_str(
        "\nOther names are made of fields in this order, joined by -, defaults left out:\n",
    );
    let spelt = |field: &listing::ListedField| field.spelt.join(" ");
    let width = listing.fields.iter().map(|field| spelt(field).len()).max().unwrap_or(0);
    for field in &listing.fields {
        _ = writeln!(out, "{:<width$}  {}", spelt(field), field.what.replace('`', ""));
    }
    out.push_str(
        "\nk:NAME/v:NAME sets keys and values apart: k:q8_0/v:q4_0. For example int3-g32-asym-had.\n\
         BASE+NAME@LAYERS sets layers apart: kvgauge4+q8_0@0,1,-1; -1 is the last.\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the tables of codecs and of fields in `docs/codecs.md`.
    fn documented(listing: &Listing) -> String {
        let mut rows = String::new();
        for codec in &listing.codecs {
            let bits: Vec<String> =
                codec.bits_per_value.iter().map(|bits| format!("{bits:.2}")).collect();
            let bits = match &bits[..] {
                [one, other] if one == other => one.clone(),
                _ => bits.join(", "),
            };
            let marked = |whose: String| match whose.split_once(": ") {
                Some((engine, flag)) => format!("{engine}: `{flag}`"),
                None => whose,
            };
            let whose: Vec<String> = whose(codec).into_iter().map(marked).collect();
            let whose = whose.join("; ");
            let needs = codec.needs.join("; ");
            _ = writeln!(
                rows,
                "| `{}` | {} | {whose} | {bits} | {needs} |",
                codec.codec, codec.what
            );
        }
        for field in &listing.fields {
            let spelt: Vec<String> = field.spelt.iter().map(|word| format!("`{word}`")).collect();
            _ = writeln!(rows, "| {} | {} |", spelt.join(", "), field.what);
        }
        rows
    }

    #[test]
    fn the_documentation_has_these_tables() {
        let page = std::fs::read_to_string("docs/codecs.md").unwrap();
        let rows = documented(&listing::listing().unwrap());
        for row in rows.lines() {
            let row = row.replace("|  |", "| |");
            assert!(page.lines().any(|line| line == row), "docs/codecs.md: expected\n{rows}");
        }
        // And none that the program does not list.
        let tables = page.split("\n## Every codec\n").nth(1).expect("the section");
        let tables = tables.split("\n## ").next().expect("its end");
        let found = tables.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(found, rows.lines().count());
    }

    #[test]
    fn the_table_fits_a_terminal() {
        for line in table(&listing::listing().unwrap()).lines() {
            let width = line.chars().count();
            assert!(width <= 190 && !line.ends_with(' '), "{width} columns: {line}");
        }
    }
}
