//! Codec names: parse and print.
//!
//! Grammar: `NAME` for keys and values alike, or `k:NAME/v:NAME`. A name is a preset, a control
//! (`f16`), or fields joined by `-` in the order of [`FIELDS`]; defaults are left out on print.
//! [`compose`] makes a name of fields said one by one.

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

/// One field of a name, under the key by which settings files say it apart from a name.
pub struct Field {
    pub key: &'static str,
    pub kind: FieldKind,
}

/// What a field looks like in a name.
pub enum FieldKind {
    /// A number behind these letters.
    Number(&'static str),
    /// One of these words.
    Word(&'static [&'static str]),
    /// The key, or nothing.
    Flag,
}

/// The fields in the order of a name.
pub const FIELDS: [Field; 10] = {
    use FieldKind::{Flag, Number, Word};
    const fn field(key: &'static str, kind: FieldKind) -> Field {
        Field { key, kind }
    }
    [
        field("bits", Number("int")),
        field("group", Number("g")),
        field("levels", Word(&["sym", "asym", "mid"])),
        field("ch", Flag),
        field("prerope", Flag),
        field("ctr", Flag),
        field("had", Flag),
        field("mse", Flag),
        field("s8", Flag),
        field("sink", Number("sink")),
    ]
};

/// Where `bits` and `group` stand in [`FIELDS`].
const BITS: usize = 0;
pub const GROUP: usize = 1;

/// Each field of [`FIELDS`] as it stands in a name; empty where it is left out.
pub type Parts<'a> = [&'a str; FIELDS.len()];

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
        // In a file a name can hold any character; an error is one line.
        let whole = &name.escape_debug().to_string();
        if let Some(pair) = name.strip_prefix("k:") {
            let Some((key, value)) = pair.split_once("/v:") else {
                return Err(Error::input(format!(
                    "codec `{whole}`: expected k:NAME/v:NAME, found no `/v:`"
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

/// The name of the codec with these fields for keys and values.
pub fn compose(key: &Parts, value: &Parts) -> String {
    let name = |parts: &Parts| {
        let bits = if parts[BITS].is_empty() { "int4" } else { parts[BITS] };
        let rest = parts[GROUP..].iter().filter(|part| !part.is_empty());
        rest.fold(bits.to_string(), |name, part| name + "-" + part)
    };
    if key == value { name(key) } else { format!("k:{}/v:{}", name(key), name(value)) }
}

fn parse_tensor(name: &str, whole: &str) -> Result<TensorCodec> {
    if name == "f16" {
        return Ok(TensorCodec::F16);
    }
    if PLANNED.contains(&name) {
        return Err(not_built(name, whole));
    }
    let mut fields = name.split('-').peekable();
    // Wrong order, a field twice or two kinds of levels are no names at all.
    let ordered = name.split('-').map(place).is_sorted_by(|a, b| a.is_some() && a < b);
    match fields.next().and_then(|first| first.strip_prefix("int")) {
        Some(bits) if !is_number(bits) || !ordered => return Err(unknown(whole)),
        Some("4") => {}
        Some("2" | "3" | "5" | "6" | "7" | "8") => return Err(not_built(name, whole)),
        Some(bits) => {
            return Err(Error::input(format!(
                "codec `{whole}`: expected 2 to 8 bits a code, found {bits}"
            ))
            .hint("int4-g64 is the default"));
        }
        None => return Err(unknown(whole)),
    }
    let mut group = DEFAULT_GROUP;
    if let Some(digits) = fields.next_if(|field| place(field) == Some(GROUP)) {
        let digits = &digits[1..];
        let refuse = |bound: &str, least: usize| {
            Err(Error::input(format!(
                "codec `{whole}`: expected a group size of at {bound} {least}, found {digits}"
            ))
            .hint("32, 64 and 128 are usual"))
        };
        // A limit that no tensor meets keeps products with the size inside 64 bits.
        group = match digits.parse::<u32>() {
            Ok(size) if size as usize >= MIN_GROUP => size as usize,
            Ok(_) => return refuse("least", MIN_GROUP),
            Err(_) => return refuse("most", u32::MAX as usize),
        };
    }
    match fields.find(|field| !matches!(*field, "sym" | "sink0")) {
        Some(field) => Err(not_built(field, whole)),
        None => Ok(TensorCodec::Int4 { group }),
    }
}

/// Where a field stands in a name; the three kinds of levels share one place.
fn place(field: &str) -> Option<usize> {
    FIELDS.iter().position(|known| match known.kind {
        FieldKind::Number(letters) => field.strip_prefix(letters).is_some_and(is_number),
        FieldKind::Word(words) => words.contains(&field),
        FieldKind::Flag => field == known.key,
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn not_built(what: &str, whole: &str) -> Error {
    Error::input(format!(
        "codec `{whole}`: `{what}` is a known name, but kvgauge {} does not build it yet",
        env!("CARGO_PKG_VERSION")
    ))
    .hint("built today: int4-gN (symmetric, N at least 8), f16, and k:NAME/v:NAME of these")
}

fn unknown(name: &str) -> Error {
    let lower = name.to_ascii_lowercase();
    let dashed = lower.replace('_', "-");
    let known = || EXAMPLES.into_iter().chain(PLANNED);
    let near = || nearest(&dashed, known()).map(str::to_string);
    let hint = match respelled(&lower).or_else(near) {
        Some(known) if known.parse::<Codec>().is_ok() => format!("did you mean {known}?"),
        Some(known) => format!("{known} is the nearest known name, but it is not built yet"),
        None => "for example int4-g64, int4-g32, f16 or k:int4-g32/v:int4-g64".into(),
    };
    Error::input(format!("codec `{name}`: no codec of that name")).hint(hint)
}

/// The known word that `typed` was probably meant to be: at most half of its letters differ.
pub(crate) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::levenshtein(typed, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .map(|(_, known)| known)
}

/// The name meant by one whose fields are all there, but in another order or dress, as in
/// `hadamard_int4_sym_g64` or `int4-64`.
fn respelled(lower: &str) -> Option<String> {
    let (mut bits, mut group, mut flags) = (None, None, Vec::new());
    for word in lower.split(|c: char| !c.is_ascii_alphanumeric()) {
        let word = if word == "hadamard" { "had" } else { word };
        let size = word.strip_prefix('g').unwrap_or(word);
        let is_size = |size: &str| size.parse().is_ok_and(|n: u32| n as usize >= MIN_GROUP);
        if matches!(word, "int2" | "int3" | "int4" | "int5" | "int6" | "int7" | "int8") {
            bits = Some(word);
        } else if is_size(size) {
            group = Some(size);
        } else {
            flags.push((place(word).filter(|place| *place > GROUP)?, word));
        }
    }
    flags.sort_unstable();
    let distinct = flags.is_sorted_by(|a, b| a.0 < b.0);
    let group = group.map(|size| format!("g{size}"));
    let flags = flags.into_iter().map(|(_, word)| word).filter(|word| *word != "sym");
    let fields: Vec<&str> = bits.into_iter().chain(group.as_deref()).chain(flags).collect();
    Some(fields.join("-")).filter(|name| distinct && bits.is_some() && name != lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        name.parse::<Codec>().expect_err(name).to_string()
    }

    fn hint(name: &str) -> String {
        name.parse::<Codec>().expect_err(name).hint_text().expect(name).to_string()
    }

    #[test]
    fn every_codec_that_is_built_survives_print_and_parse() {
        let groups = (MIN_GROUP..=300).chain([1 << 20, u32::MAX as usize]);
        let tensors: Vec<TensorCodec> =
            groups.map(|group| TensorCodec::Int4 { group }).chain([TensorCodec::F16]).collect();
        for (index, key) in tensors.iter().enumerate() {
            for value in [*key, tensors[tensors.len() - 1 - index], TensorCodec::F16] {
                let codec = Codec { key: *key, value };
                let name = codec.to_string();
                assert_eq!(name.parse::<Codec>().expect(&name), codec, "{name}");
            }
        }
    }

    #[test]
    fn defaults_are_accepted_and_left_out_on_print() {
        for (typed, printed) in [
            ("int4", "int4-g64"),
            ("int4-sym", "int4-g64"),
            ("int4-g32-sym", "int4-g32"),
            ("int4-g32-sink0", "int4-g32"),
            ("k:int4/v:int4-g64", "int4-g64"),
            ("k:f16/v:f16", "f16"),
            ("k:int4/v:f16", "k:int4-g64/v:f16"),
        ] {
            assert_eq!(typed.parse::<Codec>().expect(typed).to_string(), printed);
        }
    }

    #[test]
    fn names_of_the_grammar_that_are_not_built_say_so() {
        let flags = ["asym", "mid", "ch", "prerope", "ctr", "had", "mse", "s8", "sink4"];
        let with_flags = flags.map(|flag| format!("int4-g64-{flag}"));
        let all_flags = format!("int4-{}", flags[1..].join("-"));
        let bits = ["int2", "int3-g32", "int5", "int6", "int7", "int8-g128"].map(String::from);
        let planned = PLANNED.map(String::from);
        for name in with_flags.into_iter().chain([all_flags]).chain(bits).chain(planned) {
            assert!(message(&name).contains("does not build it yet"), "{name}");
            assert!(message(&format!("k:f16/v:{name}")).contains("does not build it yet"));
        }
    }

    #[test]
    fn fields_in_another_order_or_twice_are_no_name() {
        for name in [
            "int4-sym-g64",
            "int4-g64-g64",
            "int4-int4",
            "int8-g64-g64",
            "g64",
            "int4-g7-g64",
            "int4-g64-sym-sym",
            "int4-asym-sym",
            "int4-had-had",
            "int4-s8-had",
            "int4-sink4-had",
            "int4-sink",
            "int4-g",
            "int4-g+64",
            "int4-",
            "int4--g64",
            "-int4",
            " int4",
            "f16-g64",
            "int",
            "",
            "k:int4/v:",
            "k:/v:int4",
            "v:int4/k:int4",
            "k:k:int4/v:int4/v:int4",
        ] {
            assert!(message(name).contains("no codec of that name"), "{name}");
        }
        assert!(message("k:int4").contains("no `/v:`"));
        assert!(message("int9").contains("2 to 8 bits"));
        assert!(message("int4-g7").contains("at least 8, found 7"));
        assert!(message("int4-g4294967296").contains("at most 4294967295"));
    }

    #[test]
    fn a_composed_name_has_its_fields_in_order() {
        let nothing = Parts::default();
        assert_eq!(compose(&nothing, &nothing), "int4");
        let all = ["int3", "g32", "asym", "ch", "prerope", "ctr", "had", "mse", "s8", "sink4"];
        assert_eq!(compose(&all, &all), all.join("-"));
        assert!(all.iter().enumerate().all(|(index, part)| place(part) == Some(index)));
        let mut key = nothing;
        (key[GROUP], key[6]) = ("g32", "had");
        assert_eq!(compose(&key, &nothing), "k:int4-g32-had/v:int4");
    }

    #[test]
    fn hints_name_what_was_probably_meant() {
        for (typed, meant) in [
            ("int4-64", "did you mean int4-g64?"),
            ("int-4", "did you mean int4-g64?"),
            ("int4_g64", "did you mean int4-g64?"),
            ("INT4-G32", "did you mean int4-g32?"),
            ("int4_sym_g64", "did you mean int4-g64?"),
            ("int4-sym-g48", "did you mean int4-g48?"),
            ("fp16", "did you mean f16?"),
            ("int4_asym_g64", "int4-g64-asym is the nearest known name, but"),
            ("hadamard_int4_sym_g64", "int4-g64-had is the nearest known name, but"),
            ("kivi", "kivi4 is the nearest known name, but"),
            ("q4", "q4_0 is the nearest known name, but"),
            ("something-else", "for example int4-g64"),
        ] {
            assert!(hint(typed).starts_with(meant), "{typed}: {}", hint(typed));
        }
    }
}
