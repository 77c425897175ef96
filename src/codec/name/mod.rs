//! Codec names: parse and print.
//!
//! Grammar: `NAME` for keys and values alike, or `k:NAME/v:NAME`. A name is a preset, a control
//! (`f16`, `noise`, `noise-NAME`), or fields joined by `-` in the order of [`FIELDS`]; defaults are
//! left out on print. What is said for both, but means nothing for values (`prerope`), holds for
//! the keys. [`compose`] makes a name of fields said one by one.

mod elsewhere;
mod hints;
mod presets;

use super::packing::Packing;
use super::scheme::{Levels, MIN_GROUP, Rotation, Scheme};
use super::tensor_codec::{Codec, TensorCodec};
use super::two_centre::{FittedLevels, TwoCentre};
use crate::error::{Error, Result};
use hints::unknown;
pub(crate) use hints::{nearest, split_names};
pub use presets::{PRESETS, Preset};
use std::fmt;
use std::str::FromStr;

const DEFAULT_GROUP: usize = 64;
const DEFAULT: Scheme = Scheme::int4(DEFAULT_GROUP);

impl TensorCodec {
    /// For keys and values alike, as far as it means anything for values.
    fn for_both(self) -> Codec {
        Codec { key: self, value: self.for_values() }
    }
}

/// One field of a name, under the key by which settings files say it apart from a name.
pub struct Field {
    pub key: &'static str,
    pub kind: FieldKind,
    /// A few words on it; [`Field::meaning`] has them all.
    what: &'static str,
}

impl Field {
    /// What it does, in a few words.
    pub fn meaning(&self) -> String {
        if self.key != "levels" {
            return self.what.into();
        }
        format!("{}: {}", self.what, Levels::NAMED.map(|named| named.what).join("; "))
    }

    /// Those it can be, but for numbers.
    fn words(&self) -> &[&'static str] {
        match &self.kind {
            FieldKind::Number(_) => &[],
            FieldKind::Word(words) => words,
            FieldKind::Flag => std::slice::from_ref(&self.key),
        }
    }
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
    const fn field(key: &'static str, kind: FieldKind, what: &'static str) -> Field {
        Field { key, kind, what }
    }
    [
        field("bits", Number("int"), "bits a code, 2 to 8; left out: 4"),
        field("group", Number("g"), "values that share a scale, 8 or more; left out: 64"),
        field("levels", Word(&LEVEL_WORDS), "levels"),
        field("ch", Flag, "groups run over the tokens of one channel"),
        field("prerope", Flag, "keys as they are before RoPE"),
        field("ctr", Flag, "the mean of each channel stored apart"),
        field("had", Flag, "Hadamard rotation of each head vector"),
        field("mse", Flag, "the scale searched for the least squared error"),
        field("s8", Flag, "scales in 8 bits"),
        field("sink", Number("sink"), "the first N tokens in 16 bits"),
    ]
};

/// The words of [`Levels::NAMED`].
const LEVEL_WORDS: [&str; Levels::NAMED.len()] = {
    let (mut words, mut index) = ([""; Levels::NAMED.len()], 0);
    while index < words.len() {
        words[index] = Levels::NAMED[index].word;
        index += 1;
    }
    words
};

/// Where `bits` and `group` stand in [`FIELDS`].
const BITS: usize = 0;
pub const GROUP: usize = 1;

/// Each field of [`FIELDS`] as it stands in a name; empty where it is left out.
pub type FieldTexts<'a> = [&'a str; FIELDS.len()];

/// Where the others stand.
const LEVELS: usize = 2;
const SINK: usize = 9;

/// Behind `tc16` or `tc19`, in this order.
const TWO_CENTRE_FLAGS: [&str; 2] = ["prerope", "shape"];

impl fmt::Display for TensorCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (presets::name_of(&self.for_both()), self) {
            (Some(name), _) => f.write_str(name),
            (None, TensorCodec::Noise(packing)) => write!(f, "noise-{packing}"),
            (None, TensorCodec::Packed(packing)) => write!(f, "{packing}"),
            (None, TensorCodec::F16) => f.write_str("f16"),
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = presets::name_of(&TensorCodec::Packed(*self).for_both()) {
            return f.write_str(name);
        }
        match self {
            Packing::Scheme(scheme) => write!(f, "{scheme}"),
            Packing::TwoCentre(codec) => write!(f, "{codec}"),
        }
    }
}

impl fmt::Display for TwoCentre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.levels {
            FittedLevels::Sixteen => "tc16",
            FittedLevels::Nineteen => "tc19",
        })?;
        let flags = [self.prerope, self.shaped];
        for (_, word) in flags.into_iter().zip(TWO_CENTRE_FLAGS).filter(|(said, _)| *said) {
            write!(f, "-{word}")?;
        }
        Ok(())
    }
}

/// The fields, whether they have a name of their own or not.
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "int{}-g{}", self.bits, self.group)?;
        // Those without a word are in presets only, which have names of their own.
        let [default, others @ ..] = Levels::NAMED;
        let levels = others.iter().find(|named| named.levels == self.levels);
        for (said, word) in [
            (levels.is_some(), levels.map_or(default.word, |named| named.word)),
            (self.channel, "ch"),
            (self.prerope, "prerope"),
            (self.centred, "ctr"),
            (self.rotation != Rotation::None, "had"),
            (self.searched, "mse"),
            (self.small_scales, "s8"),
        ] {
            if said {
                write!(f, "-{word}")?;
            }
        }
        if self.sink > 0 {
            write!(f, "-sink{}", self.sink)?;
        }
        Ok(())
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = presets::name_of(self) {
            return f.write_str(name);
        }
        if let (TensorCodec::Noise(key), TensorCodec::Noise(value)) = (self.key, self.value) {
            let like = Codec { key: TensorCodec::Packed(key), value: TensorCodec::Packed(value) };
            if let Some(name) = presets::name_of(&like) {
                return write!(f, "noise-{name}");
            }
        }
        if self.value == self.key.for_values() {
            write!(f, "{}", self.key)
        } else {
            write!(f, "k:{}/v:{}", self.key, self.value)
        }
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let refuse = |what: &str| Error::input(format!("codec `{}`: {what}", shown(name)));
        let Some(pair) = name.strip_prefix("k:") else { return parse_name(name, name) };
        let Some((key, value)) = pair.split_once("/v:") else {
            let error = refuse("expected k:NAME/v:NAME, found no `/v:`");
            return Err(error.hint(match hints::as_pair(name) {
                Some(pair) => format!("did you mean {pair}?"),
                None => "for example k:int4-g32/v:int4-g64".into(),
            }));
        };
        if value.split('-').any(|field| field == "prerope") {
            return Err(refuse("expected values without `prerope`: they have no position")
                .hint("say it for the keys only"));
        }
        Ok(Codec { key: parse_name(key, name)?.key, value: parse_name(value, name)?.value })
    }
}

/// As an error shows it: in a file a name can hold any character, and an error is one line.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

/// For keys and values; `whole` is what it was typed in.
fn parse_name(name: &str, whole: &str) -> Result<Codec> {
    if let Some(preset) = presets::find(name) {
        return Ok(preset);
    }
    if let Some(like) = name.strip_prefix("noise-") {
        // Noise like noise, or like f16, is no control of anything.
        let Codec { key, value } = parse_name(like, whole)?;
        return match (key, value) {
            (TensorCodec::Packed(key), TensorCodec::Packed(value)) => {
                Ok(Codec { key: TensorCodec::Noise(key), value: TensorCodec::Noise(value) })
            }
            _ => Err(hints::no_codec(name, whole)
                .hint("noise-NAME is for what packs: noise-q4_0, noise-kvgauge4")),
        };
    }
    let packing = match parse_two_centre(name) {
        Some(codec) => Packing::TwoCentre(codec),
        None => Packing::Scheme(parse_scheme(name, whole)?),
    };
    Ok(TensorCodec::Packed(packing).for_both())
}

fn parse_two_centre(name: &str) -> Option<TwoCentre> {
    let (levels, rest) = match name.split_at_checked(4)? {
        ("tc16", rest) => (FittedLevels::Sixteen, rest),
        ("tc19", rest) => (FittedLevels::Nineteen, rest),
        _ => return None,
    };
    let mut rest = rest;
    let said = TWO_CENTRE_FLAGS.map(|flag| {
        let after = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(flag));
        rest = after.unwrap_or(rest);
        after.is_some()
    });
    let [prerope, shaped] = said;
    rest.is_empty().then_some(TwoCentre { levels, prerope, shaped })
}

/// The name of the codec with these fields for keys and values.
pub fn compose(key: &FieldTexts, value: &FieldTexts) -> String {
    let name = |parts: &FieldTexts| {
        let bits = if parts[BITS].is_empty() { "int4" } else { parts[BITS] };
        let rest = parts[GROUP..].iter().filter(|part| !part.is_empty());
        rest.fold(bits.to_string(), |name, part| name + "-" + part)
    };
    if key == value { name(key) } else { format!("k:{}/v:{}", name(key), name(value)) }
}

fn parse_scheme(name: &str, whole: &str) -> Result<Scheme> {
    // Wrong order, a field twice or two kinds of levels are no names at all.
    if !name.split('-').map(place).is_sorted_by(|a, b| a.is_some() && a < b) {
        return Err(unknown(name, whole));
    }
    let mut fields = name.split('-');
    let mut scheme = DEFAULT;
    let [mut named, ..] = Levels::NAMED;
    let refuse = |what: String, hint: &str| {
        Err(Error::input(format!("codec `{}`: expected {what}", shown(whole))).hint(hint))
    };
    scheme.bits = match fields.next().and_then(|first| first.strip_prefix("int")) {
        Some(bits) if !is_number(bits) => return Err(unknown(name, whole)),
        Some(bits) => match bits.parse() {
            Ok(bits @ 2..=8) => bits,
            _ => {
                let what = format!("2 to 8 bits a code, found {bits}");
                return refuse(what, "int4-g64 is the default");
            }
        },
        None => return Err(unknown(name, whole)),
    };
    for field in fields {
        match place(field) {
            Some(GROUP) => {
                let digits = &field[1..];
                let sizes = "32, 64 and 128 are usual";
                // A limit that no tensor meets keeps products with the size inside 64 bits.
                scheme.group = match digits.parse::<u32>() {
                    Ok(size) if size as usize >= MIN_GROUP => size as usize,
                    Ok(_) => {
                        let what = format!("a group size of at least {MIN_GROUP}, found {digits}");
                        return refuse(what, sizes);
                    }
                    Err(_) => {
                        let most = u32::MAX;
                        let what = format!("a group size of at most {most}, found {digits}");
                        return refuse(what, sizes);
                    }
                };
            }
            Some(LEVELS) => {
                if let Some(found) = Levels::NAMED.into_iter().find(|named| named.word == field) {
                    (scheme.levels, named) = (found.levels, found);
                }
            }
            Some(SINK) => {
                let digits = &field["sink".len()..];
                scheme.sink = match digits.parse::<u32>() {
                    Ok(sink) => sink as usize,
                    Err(_) => {
                        let what = format!("at most {} sinks, found {digits}", u32::MAX);
                        return refuse(what, "sink4 is usual");
                    }
                };
            }
            _ => match field {
                "ch" => scheme.channel = true,
                "prerope" => scheme.prerope = true,
                "ctr" => scheme.centred = true,
                "had" => scheme.rotation = Rotation::Hadamard,
                "mse" => scheme.searched = true,
                "s8" => scheme.small_scales = true,
                _ => return Err(unknown(name, whole)),
            },
        }
    }
    if scheme.bits > named.max_bits {
        let (most, word, found) = (named.max_bits, named.word, scheme.bits);
        let what = format!("at most {most} bits with {word}, found {found}");
        return refuse(what, "from 6 bits on, mid is as good");
    }
    if scheme.small_scales && scheme.levels == Levels::SignedExtreme {
        return refuse(
            "ext without s8: its scales have a sign".into(),
            "mid has 16 levels as well",
        );
    }
    Ok(scheme)
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

#[cfg(test)]
mod tests;
