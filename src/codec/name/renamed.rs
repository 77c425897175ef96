//! Names that meant another codec to former versions of the program.
//!
//! Their files say by the version of their format which meaning it is, and their logs by the version
//! of each line.

/// What a codec was called, and is. What the first name is today is another codec.
pub const RENAMED: [(&str, &str); 2] =
    [("fp8-e4m3", "fp8-e4m3-per-tensor"), ("fp8-e5m2", "fp8-e5m2-per-tensor")];

/// A text that names codecs as former versions did, with today's names: a codec's name, a settings
/// file, a command line. Parts of paths are no names.
pub fn todays_names(text: &str) -> String {
    replaced(text, |word| {
        RENAMED.iter().find(|(former, _)| *former == word).map(|(_, today)| (*today).into())
    })
}

/// What ids are made of in the place of a codec's name: as long as a codec stays the same, so does
/// this, and no two codecs of any versions share one.
pub fn lasting_name(codec: &str) -> String {
    replaced(codec, |word| {
        RENAMED.iter().find_map(|(former, today)| match word {
            _ if word == *today => Some((*former).into()),
            _ if word == *former => Some(format!("{former} of today")),
            _ => None,
        })
    })
}

/// `text` with other words where `replace` gives some: runs of letters, digits, `-` and `_`, less a
/// `noise-` before them.
fn replaced(text: &str, replace: impl Fn(&str) -> Option<String>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
        out += before;
        let name = word.strip_prefix("noise-").unwrap_or(word);
        let in_path = out.ends_with(['/', '\\', '.'])
            || after.starts_with(['\\', '.'])
            || after.starts_with('/') && !after.starts_with("/v:");
        out += &word[..word.len() - name.len()];
        match replace(name).filter(|_| !in_path) {
            Some(other) => out += &other,
            None => out += name,
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_and_nothing_else() {
        for (former, today) in [
            ("fp8-e4m3", "fp8-e4m3-per-tensor"),
            ("k:fp8-e4m3/v:fp8-e5m2", "k:fp8-e4m3-per-tensor/v:fp8-e5m2-per-tensor"),
            ("noise-fp8-e5m2", "noise-fp8-e5m2-per-tensor"),
            ("noise-k:fp8-e4m3/v:q4_0", "noise-k:fp8-e4m3-per-tensor/v:q4_0"),
            ("codec = [\"fp8-e4m3\", 'q4_0']", "codec = [\"fp8-e4m3-per-tensor\", 'q4_0']"),
            ("--codec=fp8-e4m3,q8_0", "--codec=fp8-e4m3-per-tensor,q8_0"),
            ("sweep out/fp8-e4m3 fp8-e4m3.toml", "sweep out/fp8-e4m3 fp8-e4m3.toml"),
            ("fp8-e4m3/a.toml ../fp8-e5m2", "fp8-e4m3/a.toml ../fp8-e5m2"),
            ("fp8_e4m3 fp8-e4m3-x xfp8-e4m3 – fp8", "fp8_e4m3 fp8-e4m3-x xfp8-e4m3 – fp8"),
            ("", ""),
        ] {
            assert_eq!(todays_names(former), today);
        }
    }

    /// A codec keeps what its ids are made of, and the one that took its name over has another.
    #[test]
    fn ids_outlast_names() {
        for former in ["fp8-e4m3", "k:fp8-e5m2/v:fp8-e4m3", "noise-k:f16/v:fp8-e5m2"] {
            assert_eq!(lasting_name(&todays_names(former)), former);
            assert_ne!(lasting_name(former), former);
        }
        for same in ["int4-g64", "k:q8_0/v:q4_0", "fp8-per-token-head", "noise"] {
            assert_eq!(lasting_name(same), same);
        }
    }
}
