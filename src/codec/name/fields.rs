//! The fields that names are made of, in their order.

use crate::codec::scheme::Levels;

/// One field of a name, under the key by which settings files say it apart from a name.
pub struct Field {
    /// The key in `[grid]` of a settings file.
    pub key: &'static str,
    /// How it is written.
    pub kind: FieldKind,
    /// A few words on it; [`Field::meaning`] has them all.
    what: &'static str,
}

impl Field {
    /// Its effect, in a few words.
    pub fn meaning(&self) -> String {
        if self.key != "levels" {
            return self.what.into();
        }
        format!("{}: {}", self.what, Levels::NAMED.map(|named| named.what).join("; "))
    }

    /// The words it can be, but for numbers.
    pub(super) fn words(&self) -> &[&'static str] {
        match &self.kind {
            FieldKind::Number(_) => &[],
            FieldKind::Word(words) => words,
            FieldKind::Flag => std::slice::from_ref(&self.key),
        }
    }
}

/// The form of a field in a name.
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
pub(super) const LEVELS: usize = 2;
pub(super) const SINK: usize = 9;

/// Behind `tc16` and its like, in this order.
pub(super) const TWO_CENTRE_FLAGS: [&str; 2] = ["prerope", "shape"];

/// The name of the codec with these fields for keys and values.
pub fn compose(key: &FieldTexts, value: &FieldTexts) -> String {
    let name = |parts: &FieldTexts| {
        let bits = if parts[BITS].is_empty() { "int4" } else { parts[BITS] };
        let rest = parts[GROUP..].iter().filter(|part| !part.is_empty());
        rest.fold(bits.to_string(), |name, part| name + "-" + part)
    };
    if key == value { name(key) } else { format!("k:{}/v:{}", name(key), name(value)) }
}

/// The place of a field in [`FIELDS`]; the three kinds of levels share one place.
pub(super) fn place(field: &str) -> Option<usize> {
    FIELDS.iter().position(|known| match known.kind {
        FieldKind::Number(letters) => field.strip_prefix(letters).is_some_and(is_number),
        FieldKind::Word(words) => words.contains(&field),
        FieldKind::Flag => field == known.key,
    })
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// As an error shows it: in a file a name can hold any character, and an error is one line.
pub(super) fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}
