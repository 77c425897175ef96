//! Codec names: parse and print.
//!
//! Grammar: `NAME` for keys and values alike, or `k:NAME/v:NAME`. A name is a preset, a control
//! (`f16`, `noise`, `noise-NAME`), or fields joined by `-` in the order of [`FIELDS`]; defaults are
//! left out on print. What is said for both, but means nothing for values (`prerope`), holds for
//! the keys. [`compose`] makes a name of fields said one by one.

mod hints;

use super::levels::Levels;
use super::packing::Packing;
use super::scheme::{PRESETS, Rotation, Scheme};
use super::two_centre::{FittedLevels, TwoCentre};
use super::{Codec, MIN_GROUP, TensorCodec};
use crate::error::{Error, Result};
pub(crate) use hints::nearest;
use hints::unknown;
use std::fmt;
use std::str::FromStr;

const DEFAULT_GROUP: usize = 64;
const DEFAULT: Scheme = Scheme::int4(DEFAULT_GROUP);

/// Presets that store keys and values differently.
const PAIRS: [(&str, Codec); 2] = {
    // KIVI (Liu et al. 2024) at four bits: keys by channel, values by token.
    const fn kivi4() -> Codec {
        let mut value = DEFAULT;
        value.levels = Levels::Asymmetric;
        let mut key = value;
        key.channel = true;
        pair(Packing::Scheme(key), Packing::Scheme(value))
    }
    const fn kvgauge4() -> Codec {
        use FittedLevels::{Nineteen, Sixteen};
        let key = TwoCentre { levels: Nineteen, prerope: true, shaped: true };
        let value = TwoCentre { levels: Sixteen, prerope: false, shaped: false };
        pair(Packing::TwoCentre(key), Packing::TwoCentre(value))
    }
    const fn pair(key: Packing, value: Packing) -> Codec {
        Codec { key: TensorCodec::Packed(key), value: TensorCodec::Packed(value) }
    }
    [("kivi4", kivi4()), ("kvgauge4", kvgauge4())]
};

/// One field of a name, under the key by which settings files say it apart from a name.
pub struct Field {
    pub key: &'static str,
    pub kind: FieldKind,
}

impl Field {
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
    const fn field(key: &'static str, kind: FieldKind) -> Field {
        Field { key, kind }
    }
    [
        field("bits", Number("int")),
        field("group", Number("g")),
        field("levels", Word(&["sym", "asym", "mid", "ext", "lm"])),
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

/// Where the others stand.
const LEVELS: usize = 2;
const SINK: usize = 9;

/// Behind `tc16` or `tc19`, in this order.
const TWO_CENTRE_FLAGS: [&str; 2] = ["prerope", "shape"];

/// All presets.
fn presets() -> impl Iterator<Item = &'static str> {
    PAIRS.iter().map(|(name, _)| *name).chain(PRESETS.iter().map(|(name, _)| *name))
}

impl fmt::Display for TensorCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorCodec::F16 => f.write_str("f16"),
            TensorCodec::Packed(packing) => write!(f, "{packing}"),
            TensorCodec::Noise(packing) if *packing == Packing::Scheme(DEFAULT) => {
                f.write_str("noise")
            }
            TensorCodec::Noise(packing) => write!(f, "noise-{packing}"),
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = PRESETS.iter().find(|(_, preset)| preset == self) {
            return f.write_str(name);
        }
        write!(f, "int{}-g{}", self.bits, self.group)?;
        let levels = Levels::WORDS.iter().find(|(_, levels)| *levels == self.levels);
        let levels = levels.map_or("sym", |(word, _)| *word);
        for (said, word) in [
            (levels != "sym", levels),
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
        if let Some((name, _)) = PAIRS.iter().find(|(_, pair)| pair == self) {
            return f.write_str(name);
        }
        if let (TensorCodec::Noise(key), TensorCodec::Noise(value)) = (self.key, self.value) {
            let like = Codec { key: TensorCodec::Packed(key), value: TensorCodec::Packed(value) };
            if let Some((name, _)) = PAIRS.iter().find(|(_, pair)| *pair == like) {
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
        // In a file a name can hold any character; an error is one line.
        let whole = &name.escape_debug().to_string();
        let Some(pair) = name.strip_prefix("k:") else { return parse_name(name, whole) };
        let Some((key, value)) = pair.split_once("/v:") else {
            return Err(Error::input(format!(
                "codec `{whole}`: expected k:NAME/v:NAME, found no `/v:`"
            ))
            .hint("for example k:int4-g32/v:int4-g64"));
        };
        if value.split('-').any(|field| field == "prerope") {
            return Err(Error::input(format!(
                "codec `{whole}`: expected values without `prerope`: they have no position"
            ))
            .hint("say it for the keys only"));
        }
        Ok(Codec { key: parse_name(key, whole)?.key, value: parse_name(value, whole)?.value })
    }
}

/// For keys and values.
fn parse_name(name: &str, whole: &str) -> Result<Codec> {
    let both = |codec: TensorCodec| Codec { key: codec, value: codec.for_values() };
    if name == "f16" {
        return Ok(both(TensorCodec::F16));
    }
    if let Some((_, pair)) = PAIRS.iter().find(|(preset, _)| *preset == name) {
        return Ok(*pair);
    }
    let loud = match name.strip_prefix("noise") {
        Some("") => Some("int4-g64"),
        Some(rest) => rest.strip_prefix('-'),
        None => None,
    };
    if let Some(like) = loud {
        // Noise like noise, or like f16, is no control of anything.
        let Codec { key, value } = parse_name(like, whole)?;
        return match (key, value) {
            (TensorCodec::Packed(key), TensorCodec::Packed(value)) => {
                Ok(Codec { key: TensorCodec::Noise(key), value: TensorCodec::Noise(value) })
            }
            _ => Err(unknown(whole)),
        };
    }
    let packing = match parse_two_centre(name) {
        Some(codec) => Packing::TwoCentre(codec),
        None => Packing::Scheme(parse_scheme(name, whole)?),
    };
    Ok(both(TensorCodec::Packed(packing)))
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
pub fn compose(key: &Parts, value: &Parts) -> String {
    let name = |parts: &Parts| {
        let bits = if parts[BITS].is_empty() { "int4" } else { parts[BITS] };
        let rest = parts[GROUP..].iter().filter(|part| !part.is_empty());
        rest.fold(bits.to_string(), |name, part| name + "-" + part)
    };
    if key == value { name(key) } else { format!("k:{}/v:{}", name(key), name(value)) }
}

fn parse_scheme(name: &str, whole: &str) -> Result<Scheme> {
    if let Some((_, preset)) = PRESETS.iter().find(|(preset, _)| *preset == name) {
        return Ok(*preset);
    }
    // Wrong order, a field twice or two kinds of levels are no names at all.
    if !name.split('-').map(place).is_sorted_by(|a, b| a.is_some() && a < b) {
        return Err(unknown(whole));
    }
    let mut fields = name.split('-');
    let mut scheme = DEFAULT;
    let refuse = |what: String, hint: &str| {
        Err(Error::input(format!("codec `{whole}`: expected {what}")).hint(hint))
    };
    scheme.bits = match fields.next().and_then(|first| first.strip_prefix("int")) {
        Some(bits) if !is_number(bits) => return Err(unknown(whole)),
        Some(bits) => match bits.parse() {
            Ok(bits @ 2..=8) => bits,
            _ => {
                let what = format!("2 to 8 bits a code, found {bits}");
                return refuse(what, "int4-g64 is the default");
            }
        },
        None => return Err(unknown(whole)),
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
                let word = Levels::WORDS.iter().find(|(word, _)| *word == field);
                scheme.levels = word.map_or(scheme.levels, |(_, levels)| *levels);
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
                _ => return Err(unknown(whole)),
            },
        }
    }
    if scheme.bits > scheme.levels.max_bits() {
        let what = format!("at most {} bits with lm, found {}", 5, scheme.bits);
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
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        name.parse::<Codec>().expect_err(name).to_string()
    }

    fn hint(name: &str) -> String {
        name.parse::<Codec>().expect_err(name).hint_text().expect(name).to_string()
    }

    /// Every combination of fields that is a name, for a few sizes.
    fn schemes() -> Vec<Scheme> {
        let flags = |index: usize| [0, 1, 2, 3, 4, 5].map(|bit| index >> bit & 1 == 1);
        let mut all = Vec::new();
        for (group, sink) in [(64, 0), (MIN_GROUP, 1), (48, 4), (u32::MAX as usize, 12)] {
            for (bits, (_, levels)) in (2..=8).flat_map(|b| Levels::WORDS.map(|word| (b, word))) {
                for [channel, prerope, centred, had, searched, small_scales] in (0..64).map(flags) {
                    let rotation = if had { Rotation::Hadamard } else { Rotation::None };
                    let scheme = Scheme {
                        bits,
                        group,
                        levels,
                        channel,
                        prerope,
                        centred,
                        rotation,
                        searched,
                        small_scales,
                        sink,
                    };
                    let signed = levels == Levels::SignedExtreme && small_scales;
                    if bits <= levels.max_bits() && !signed {
                        all.push(scheme);
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_codec_survives_print_and_parse() {
        let survives = |codec: Codec| {
            let name = codec.to_string();
            assert_eq!(name.parse::<Codec>().expect(&name), codec, "{name}");
        };
        let int4 = TensorCodec::int4(64);
        let presets = PRESETS.iter().map(|(_, preset)| *preset);
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let centres = flags.into_iter().flat_map(|(prerope, shaped)| {
            [FittedLevels::Sixteen, FittedLevels::Nineteen]
                .map(|levels| Packing::TwoCentre(TwoCentre { levels, prerope, shaped }))
        });
        let packings = schemes().into_iter().chain(presets).map(Packing::Scheme).chain(centres);
        for packing in packings {
            for key in [TensorCodec::Packed(packing), TensorCodec::Noise(packing)] {
                let value = key.for_values();
                survives(Codec { key, value });
                survives(Codec { key, value: int4 });
                survives(Codec { key: TensorCodec::F16, value });
            }
        }
        for (name, pair) in PAIRS {
            assert_eq!(pair.to_string(), name);
            survives(pair);
            survives(Codec { key: pair.value, value: pair.key.for_values() });
            let noise = format!("noise-{name}");
            assert_eq!(noise.parse::<Codec>().expect(&noise).to_string(), noise);
        }
        for (name, preset) in PRESETS {
            assert_eq!(preset.to_string(), name);
            assert_eq!(parse_scheme(name, name).expect(name), preset);
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
            ("int4-g32-ext", "q4_0"),
            ("k:int4-g64-asym-ch/v:int4-asym", "kivi4"),
            ("k:kivi4/v:kivi4", "kivi4"),
            ("k:f16/v:kivi4", "k:f16/v:int4-g64-asym"),
            ("int4-prerope", "int4-g64-prerope"),
            ("k:int4-prerope/v:int4", "int4-g64-prerope"),
            ("noise-int4", "noise"),
            ("noise-int8", "noise-int8-g64"),
        ] {
            assert_eq!(typed.parse::<Codec>().expect(typed).to_string(), printed);
        }
    }

    #[test]
    fn what_cannot_be_combined_says_why() {
        assert!(message("int6-lm").contains("at most 5 bits with lm, found 6"));
        assert!(message("int4-ext-s8").contains("its scales have a sign"));
        assert!(message("k:int4/v:int4-prerope").contains("they have no position"));
        assert!(message("int4-sink99999999999").contains("at most 4294967295 sinks"));
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
            "noise-",
            "noise-f16",
            "noise-noise",
            "noise-k:int4/v:int4",
            "q4_0-had",
            "tc17",
            "tc19-shape-prerope",
            "tc19-",
            "tc19-g64",
            "noiseint4",
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
            ("int4_asym_g64", "did you mean int4-g64-asym?"),
            ("hadamard_int4_sym_g64", "did you mean int4-g64-had?"),
            ("kivi", "did you mean kivi4?"),
            ("q4", "did you mean q4_0?"),
            ("q4-0", "did you mean q4_0?"),
            ("int4-g64-hadd", "did you mean int4-g64-had?"),
            ("int4-g64-assym-mse", "did you mean int4-g64-asym-mse?"),
            ("tc17", "did you mean tc16?"),
            ("tc19-shap", "did you mean tc19-shape?"),
            ("tc16_prerope", "did you mean tc16-prerope?"),
            ("tc19-shape-prerope", "did you mean tc19-prerope-shape?"),
            ("something-else", "for example int4-g64"),
        ] {
            assert!(hint(typed).starts_with(meant), "{typed}: {}", hint(typed));
        }
    }
}
