//! The likely intended name for an unknown one.

use super::elsewhere;
use super::fields::{FIELDS, Field, GROUP, TWO_CENTRE_FLAGS, place, shown};
use super::presets::PRESETS;
use crate::codec::packing::Packing;
use crate::codec::scheme::{MIN_GROUP, Scheme};
use crate::codec::tensor_codec::{Codec, TensorCodec};
use crate::codec::two_centre::FittedLevels;
use crate::error::Error;
use crate::nearest_word::nearest;

/// Compared with when a name is unknown, beside the presets.
const EXAMPLES: [&str; 5] =
    ["int4-g32", "int4-g128", "k:int4-g32/v:int4-g64", "k:int4-g64/v:f16", NOISE];

/// The control of an evaluation, which is no codec: alone, or `noise-NAME`.
pub(crate) const NOISE: &str = "noise";

/// A name longer than any codec's is not repeated in a hint.
const LONGEST: usize = 60;

/// The error for `name`, which was typed as `whole` or as a part of it.
pub(crate) fn no_codec(name: &str, whole: &str) -> Error {
    let (part, all) = (shown(name), shown(whole));
    Error::input(match name == whole {
        true => format!("codec `{all}`: no codec of that name"),
        false => format!("codec `{all}`: `{part}`: no codec of that name"),
    })
}

/// The same with a hint at the likely intended name.
pub(super) fn unknown(name: &str, whole: &str) -> Error {
    let meant = |name: String| format!("did you mean {name}?");
    let lower = name.trim().to_ascii_lowercase();
    let dashed = lower.replace('_', "-");
    let hint = if lower.is_empty() {
        Some("a name is expected, for example int4-g64 or q8_0; `kvgauge codecs` lists them".into())
    } else if name.chars().count() > LONGEST {
        None
    } else {
        otherwise_spelt(name, &lower)
            .or_else(|| as_pair(name))
            .map(meant)
            .or_else(|| several(name))
            .or_else(|| of_some_layers(&lower))
            .or_else(|| known_elsewhere(name))
            .or_else(|| with_fields(&lower))
            .or_else(|| {
                let known = respelled(&lower).or_else(|| reordered(&dashed));
                known.or_else(|| near(&dashed)).map(meant)
            })
    };
    no_codec(name, whole).hint(hint.unwrap_or_else(|| {
        "for example int4-g64, q8_0, f16 or k:int4-g32/v:int4-g64; `kvgauge codecs` lists them"
            .into()
    }))
}

/// The names in a list with commas, as a command line takes it. A comma that the list of a codec's
/// layers holds (`…@0,1,-1`), or that stands where a pair has its `/`, parts no names.
pub(crate) fn split_names(list: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut start = 0;
    for (at, _) in list.match_indices(',') {
        let (before, after) = (list[start..at].trim(), list[at + 1..].trim_start());
        let layer = before.contains(['@', '+'])
            && after.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let side = |text: &str, letters: [&str; 2]| letters.iter().any(|k| text.starts_with(k));
        let half = side(after, ["v:", "V:"]) && !before.contains('/')
            || side(after, ["k:", "K:"]) && side(before, ["v:", "V:"]) && !before.contains('/');
        if !layer && !half {
            names.push(before);
            start = at + 1;
        }
    }
    // A name alone is kept as it was typed.
    let last = &list[start..];
    names.push(if names.is_empty() { last } else { last.trim() });
    names
}

/// Whether `name` is a codec's, or that of noise as large as a codec's error.
fn is_name(name: &str) -> bool {
    let plain = |name: &str| match name.strip_prefix(NOISE) {
        Some("") => Scheme::DEFAULT.to_string(),
        // Noise is for what packs.
        Some(like) => like.strip_prefix('-').filter(|like| *like != "f16").unwrap_or("").into(),
        None => name.to_string(),
    };
    let pair = name.strip_prefix("k:").and_then(|pair| pair.split_once("/v:"));
    let plain = match pair {
        Some((key, value)) => format!("k:{}/v:{}", plain(key), plain(value)),
        None => plain(name),
    };
    plain.parse::<Codec>().is_ok()
}

/// A name whose case, spaces or Unicode dashes alone are unusual.
fn otherwise_spelt(name: &str, lower: &str) -> Option<String> {
    let plain = lower.replace(['‐', '‑', '–', '—', '−'], "-");
    (plain != name && is_name(&plain)).then_some(plain)
}

/// `k:A/v:B` of two names with something else between or before them: `q8_0/q4_0`, `k:A,v:B`,
/// `K=A V=B`. Names known elsewhere stay as they are: their own hint comes next.
pub(super) fn as_pair(name: &str) -> Option<String> {
    let lower = name.trim().to_ascii_lowercase();
    let mut parts = lower.split(['/', ',', ';', '|', '&', ' ']).filter(|part| !part.is_empty());
    let (first, second) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let side = |part: &str| -> (Option<char>, String) {
        let (word, rest) = part.split_once([':', '=']).unwrap_or(("", part));
        match word {
            "k" | "key" | "keys" | "ctk" => (Some('k'), rest.into()),
            "v" | "value" | "values" | "ctv" => (Some('v'), rest.into()),
            _ => (None, part.into()),
        }
    };
    let (key, value) = match (side(first), side(second)) {
        ((Some('v'), value), (Some('k'), key)) => (key, value),
        ((None, _), (None, _)) if !lower.contains(['/', '|', '&']) => return None,
        ((None | Some('k'), key), (None | Some('v'), value)) => (key, value),
        _ => return None,
    };
    let pair = format!("k:{key}/v:{value}");
    (pair != name && is_name(&pair)).then_some(pair)
}

/// A list where one name is taken.
fn several(name: &str) -> Option<String> {
    let names: Vec<&str> = name.split([',', ';', ' ']).map(str::trim).collect();
    let [_, _, ..] = names[..] else { return None };
    names.iter().all(|name| is_name(name)).then(|| {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        format!("one name here; a settings file lists them: codec = [{}]", quoted.join(", "))
    })
}

/// A name of another engine's, or a pair with one.
fn known_elsewhere(name: &str) -> Option<String> {
    let side = |part: &'_ str| -> String {
        let part = part.trim();
        let letter = part.split_once(':').filter(|(k, _)| matches!(*k, "k" | "K" | "v" | "V"));
        letter.map_or(part, |(_, rest)| rest).to_string()
    };
    std::iter::once(name.trim().to_string())
        .chain(name.split(['/', ',']).map(side))
        .find_map(|name| Some(elsewhere::find(&name)?.hint(&shown(&name))))
}

/// Codecs of some layers alone, in the ways people write them.
fn of_some_layers(lower: &str) -> Option<String> {
    let digit = |text: &str| text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    let word = |word: &str| lower.split(word).skip(1).any(digit);
    let range = lower.split_once(':').is_some_and(|(before, _)| {
        !before.is_empty() && before.chars().all(|c| c.is_ascii_digit() || "-,l*".contains(c))
    });
    let layers = lower.contains('@')
        || range
        || ["first", "last", "skip", "layer"].map(word).contains(&true);
    layers.then(|| {
        "codecs of some layers are said behind one for all others, as in int4-g64+q8_0@0,1,-1; \
         validate --attribute says what each layer costs"
            .into()
    })
}

/// A preset with fields behind it, as in `q4_0-had`.
fn with_fields(lower: &str) -> Option<String> {
    let preset = PRESETS.iter().filter(|preset| {
        lower.strip_prefix(preset.name).is_some_and(|rest| rest.starts_with(['-', '_']))
    });
    let preset = preset.max_by_key(|preset| preset.name.len())?;
    let rest = lower[preset.name.len()..].replace('_', "-");
    if !rest[1..].split('-').all(|field| place(field).is_some_and(|place| place > GROUP)) {
        return None;
    }
    let fields = match preset.codec.key {
        TensorCodec::Packed(Packing::Scheme(scheme)) => scheme.to_string(),
        _ => String::new(),
    };
    let short = preset.name;
    if short == fields {
        return None;
    }
    // Levels that only a preset has are no fields: those would be of another codec.
    let same = fields.parse::<Codec>().is_ok_and(|codec| codec == preset.codec);
    let longer = format!("{fields}{rest}");
    let parses = |name: &String| name.parse::<Codec>().is_ok();
    let name = Some(longer.clone()).filter(parses).or_else(|| respelled(&longer).filter(parses));
    Some(match name.filter(|_| same) {
        Some(name) => format!("did you mean {name}? {short} is {fields}"),
        None => format!(
            "{short} takes no further fields; a name made of fields starts with its bits, as in \
             int4-g32-asym-had"
        ),
    })
}

/// The nearest of all names.
fn near(dashed: &str) -> Option<String> {
    let two_centres = two_centre_names();
    let known = EXAMPLES.into_iter().chain(PRESETS.iter().map(|preset| preset.name));
    nearest(dashed, known.chain(two_centres.iter().map(String::as_str))).map(str::to_string)
}

fn two_centre_names() -> Vec<String> {
    let [prerope, shape] = TWO_CENTRE_FLAGS;
    let tails = [vec![], vec![prerope], vec![shape], vec![prerope, shape]];
    let name = |levels, tail: &[&str]| [&[levels], tail].concat().join("-");
    tails
        .iter()
        .flat_map(|tail| FittedLevels::ALL.map(|levels| name(levels.word(), tail)))
        .collect()
}

/// The name with two centres that has the same fields.
fn reordered(dashed: &str) -> Option<String> {
    let sorted = |name: &str| {
        let mut fields: Vec<String> = name.split('-').map(str::to_string).collect();
        fields.sort_unstable();
        fields
    };
    two_centre_names().into_iter().find(|name| sorted(name) == sorted(dashed))
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
            let known = || FIELDS.iter().flat_map(Field::words).copied();
            let word = if place(word).is_some() { word } else { nearest(word, known())? };
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
