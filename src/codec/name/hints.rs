//! What a name that is none was probably meant to be.

use super::{FIELDS, Field, GROUP, TWO_CENTRE_FLAGS, place, presets};
use crate::codec::MIN_GROUP;
use crate::error::Error;

/// Shown by hints, and compared with when a name is unknown.
const EXAMPLES: [&str; 7] = [
    "int4-g64",
    "int4-g32",
    "int4-g128",
    "f16",
    "k:int4-g32/v:int4-g64",
    "k:int4-g64/v:f16",
    "noise",
];

pub(super) fn unknown(name: &str) -> Error {
    let lower = name.to_ascii_lowercase();
    let dashed = lower.replace('_', "-");
    let two_centres = two_centre_names();
    let mut known: Vec<&str> = EXAMPLES.into_iter().chain(presets()).collect();
    known.extend(two_centres.iter().map(String::as_str));
    let near = || nearest(&dashed, known.into_iter()).map(str::to_string);
    let hint = match respelled(&lower).or_else(|| reordered(&dashed)).or_else(near) {
        Some(known) => format!("did you mean {known}?"),
        None => "for example int4-g64, int4-g32, f16 or k:int4-g32/v:int4-g64".into(),
    };
    Error::input(format!("codec `{name}`: no codec of that name")).hint(hint)
}

fn two_centre_names() -> Vec<String> {
    let [prerope, shape] = TWO_CENTRE_FLAGS;
    let tails = [vec![], vec![prerope], vec![shape], vec![prerope, shape]];
    let name = |levels, tail: &[&str]| [&[levels], tail].concat().join("-");
    tails.iter().flat_map(|tail| ["tc16", "tc19"].map(|levels| name(levels, tail))).collect()
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
