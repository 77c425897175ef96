//! Codec names: parse and print.
//!
//! Grammar: `NAME` for keys and values alike, or `k:NAME/v:NAME`. A name is a preset, the
//! control `f16`, or fields joined by `-` in the order of [`FIELDS`]; defaults are
//! left out on print. What is said for both, but means nothing for values (`prerope`), holds for
//! the keys. [`compose`] makes a name of fields given one by one. `by_layer.rs` has codecs of some
//! layers apart, `fixed_scale.rs` presets with a scale behind them.

mod by_layer;
mod elsewhere;
mod engines;
mod fields;
mod fixed_scale;
mod hints;
mod presets;
mod renamed;
mod shown;

use super::packing::Packing;
use super::scheme::{Levels, MIN_GROUP, Rotation, ScaleFormat, Scheme};
use super::tensor_codec::{Codec, TensorCodec};
use super::two_centre::{BlockRule, FittedLevels, TwoCentre};
use crate::error::{Error, Result};
pub(crate) use by_layer::Named;
pub(crate) use engines::{ENGINES, Engine};
pub(crate) use fields::{FIELDS, Field, FieldKind, FieldTexts, GROUP, compose};
use fields::{LEVELS, SINK, TWO_CENTRE_FLAGS, is_number, place, shown};
use hints::unknown;
pub(crate) use hints::{NOISE, no_codec, split_names};
pub(crate) use presets::{NOISE_PRESET, PRESETS, Preset};
pub(crate) use renamed::{RENAMED, lasting_name, todays_names};
pub(crate) use shown::shown_name;
use std::fmt;
use std::str::FromStr;

impl fmt::Display for TensorCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (presets::name_of(&self.for_both()), self) {
            (Some(name), _) => f.write_str(name),
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
            Packing::Kvarn(codec) => write!(f, "{codec}"),
        }
    }
}

impl fmt::Display for TwoCentre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.levels.word())?;
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
        if let Some(scale) = self.own_scale() {
            return fixed_scale::write(self, scale, f);
        }
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
            (self.scales == ScaleFormat::Small, "s8"),
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
        Self::of_name(name, name)
    }
}

impl Named for Codec {
    fn of_name(name: &str, whole: &str) -> Result<Self> {
        let [key, value] = parse_sides(name, whole, parse_codec_name)?;
        Ok(Self { key: key.key, value: value.value })
    }
}

/// Reads `NAME`, or the two of `k:NAME/v:NAME`, for keys and for values; `whole` is what it was
/// typed in. `parse` gets a name and the whole.
pub fn parse_sides<T: Copy>(
    name: &str,
    whole: &str,
    parse: impl Fn(&str, &str) -> Result<T>,
) -> Result<[T; 2]> {
    let refuse = |what: &str| Error::input(format!("codec `{}`: {what}", shown(whole)));
    let Some(pair) = name.strip_prefix("k:") else { return Ok([parse(name, whole)?; 2]) };
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
    Ok([parse(key, whole)?, parse(value, whole)?])
}

/// The codec of one name, for keys and values; `whole` is what it was typed in.
pub fn parse_codec_name(name: &str, whole: &str) -> Result<Codec> {
    if let Some(preset) = presets::find(name) {
        return Ok(preset);
    }
    if let Some(codec) = fixed_scale::parse(name, whole)? {
        return Ok(codec.for_both());
    }
    let packing = match parse_two_centre(name) {
        Some(codec) => Packing::TwoCentre(codec),
        None => Packing::Scheme(parse_scheme(name, whole)?),
    };
    Ok(TensorCodec::Packed(packing).for_both())
}

fn parse_two_centre(name: &str) -> Option<TwoCentre> {
    let (first, _) = name.split_once('-').unwrap_or((name, ""));
    let levels = FittedLevels::ALL.into_iter().find(|levels| levels.word() == first)?;
    let mut rest = &name[first.len()..];
    let said = TWO_CENTRE_FLAGS.map(|flag| {
        let after = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(flag));
        rest = after.unwrap_or(rest);
        after.is_some()
    });
    let [prerope, shaped] = said;
    let blocks = BlockRule::Largest;
    rest.is_empty().then_some(TwoCentre { levels, prerope, shaped, blocks })
}

fn parse_scheme(name: &str, whole: &str) -> Result<Scheme> {
    // Wrong order, a field twice or two kinds of levels are no names at all.
    if !name.split('-').map(place).is_sorted_by(|a, b| a.is_some() && a < b) {
        return Err(unknown(name, whole));
    }
    let mut fields = name.split('-');
    let mut scheme = Scheme::DEFAULT;
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
                "s8" => scheme.scales = ScaleFormat::Small,
                _ => return Err(unknown(name, whole)),
            },
        }
    }
    if !named.bits.contains(&scheme.bits) {
        let (word, found, least, most) =
            (named.word, scheme.bits, named.bits.start(), named.bits.end());
        return if found > *most {
            let what = format!("at most {most} bits with {word}, found {found}");
            refuse(what, &format!("from {} bits on, mid is as good", most + 1))
        } else {
            let what = format!("at least {least} bits with {word}, found {found}");
            refuse(what, "mid takes any number of bits")
        };
    }
    if scheme.scales == ScaleFormat::Small && scheme.levels == Levels::SignedExtreme {
        return refuse(
            "ext without s8: its scales have a sign".into(),
            "mid has 16 levels as well",
        );
    }
    Ok(scheme)
}

#[cfg(test)]
mod tests;
