//! Codec names: parse and print.
//!
//! Grammar: `NAME` for keys and values alike, or `k:NAME/v:NAME`. A name is a preset, a control
//! (`f16`), or fields joined by `-` in the order of [`FIELDS`]; defaults are left out on print.

use super::{Codec, MIN_GROUP, TensorCodec};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

const DEFAULT_GROUP: usize = 64;

/// Names that are specified but not built: an honest error beats "unknown".
const PLANNED: [&str; 14] = [
    "noise", "kivi4", "q4_0", "q8_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "quanto4", "turbo4",
    "fp8-e4m3", "fp8-e5m2", "kvgauge4", "int8-g64",
];

/// The flag fields after `int4-g64`, in print order; only `sym`, the default, is built.
const FIELDS: [&str; 9] = ["sym", "asym", "mid", "ch", "prerope", "ctr", "had", "mse", "s8"];

/// Shown by hints, and compared with when a name is unknown.
const EXAMPLES: [&str; 6] =
    ["int4-g64", "int4-g32", "int4-g128", "f16", "k:int4-g32/v:int4-g64", "k:int4-g64/v:f16"];

impl fmt::Display for TensorCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorCodec::F16 => f.write_str("f16"),
            TensorCodec::Int4 { group } => write!(f, "int4-g{group}"),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key == self.value {
            write!(f, "{}", self.key)
        } else {
            write!(f, "k:{}/v:{}", self.key, self.value)
        }
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let whole = name;
        if let Some(pair) = name.strip_prefix("k:") {
            let Some((key, value)) = pair.split_once("/v:") else {
                return Err(Error::input(format!(
                    "codec `{name}`: expected k:NAME/v:NAME, found no `/v:`"
                ))
                .hint("for example k:int4-g32/v:int4-g64"));
            };
            return Ok(Codec {
                key: parse_tensor(key, whole)?,
                value: parse_tensor(value, whole)?,
            });
        }
        let codec = parse_tensor(name, whole)?;
        Ok(Codec { key: codec, value: codec })
    }
}

fn parse_tensor(name: &str, whole: &str) -> Result<TensorCodec> {
    if name == "f16" {
        return Ok(TensorCodec::F16);
    }
    if PLANNED.contains(&name) {
        return Err(not_built(name, whole));
    }
    let mut fields = name.split('-').peekable();
    match fields.next().and_then(|first| first.strip_prefix("int")) {
        Some("4") => {}
        Some("2" | "3" | "5" | "6" | "7" | "8") => return Err(not_built(name, whole)),
        Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(Error::input(format!(
                "codec `{whole}`: expected 2 to 8 bits a code, found {bits}"
            ))
            .hint("int4-g64 is the default"));
        }
        _ => return Err(unknown(whole)),
    }
    let mut group = DEFAULT_GROUP;
    if let Some(digits) = fields.peek().and_then(|field| field.strip_prefix('g')) {
        group = digits.parse().map_err(|_| unknown(whole))?;
        fields.next();
        if group < MIN_GROUP {
            return Err(Error::input(format!(
                "codec `{whole}`: expected a group size of at least {MIN_GROUP}, found {group}"
            ))
            .hint("32, 64 and 128 are usual"));
        }
    }
    for field in fields {
        let sink = field.strip_prefix("sink").is_some_and(|n| n.parse::<usize>().is_ok());
        match field {
            "sym" => {}
            _ if sink || FIELDS.contains(&field) => return Err(not_built(field, whole)),
            _ => return Err(unknown(whole)),
        }
    }
    Ok(TensorCodec::Int4 { group })
}

fn not_built(what: &str, whole: &str) -> Error {
    Error::input(format!(
        "codec `{whole}`: `{what}` is a known name, but kvgauge {} does not build it yet",
        env!("CARGO_PKG_VERSION")
    ))
    .hint("built today: int4-gN (symmetric, N at least 8), f16, and k:NAME/v:NAME of these")
}

fn unknown(name: &str) -> Error {
    let lower = name.to_ascii_lowercase().replace('_', "-");
    let nearest = EXAMPLES
        .iter()
        .chain(&PLANNED)
        .map(|known| (strsim::levenshtein(&lower, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 2);
    let hint = match nearest {
        Some((_, known)) => format!("did you mean {known}?"),
        None => "for example int4-g64, int4-g32, f16 or k:int4-g32/v:int4-g64".into(),
    };
    Error::input(format!("codec `{name}`: no codec of that name")).hint(hint)
}
