//! The word that was meant by a misspelt one, for hints: codecs, settings, engines, models, commands.

/// The known word that `typed` was probably meant to be: at most half of its letters differ. Of equals
/// the one that begins so, and of such the first by alphabet.
pub(crate) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::levenshtein(typed, known), !known.starts_with(typed), known))
        .min()
        .filter(|(distance, _, known)| *distance <= known.len() / 2)
        .map(|(_, _, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_at_most_half_another() {
        let of = |typed: &str, known: &[&'static str]| nearest(typed, known.iter().copied());
        let commands = ["validate", "sweep", "tune", "codecs"];
        assert_eq!(of("sweep", &commands), Some("sweep"));
        assert_eq!(of("swep", &commands), Some("sweep"));
        assert_eq!(of("vaildate", &commands), Some("validate"));
        assert_eq!(of("quantise", &commands), None);
        assert_eq!(of("sweep", &[]), None);
        // Two letters of four, and three.
        assert_eq!(of("tuXX", &["tune"]), Some("tune"));
        assert_eq!(of("tXXX", &["tune"]), None);
        // Of five, two: a half is rounded down.
        assert_eq!(of("sweXX", &["sweep"]), Some("sweep"));
        assert_eq!(of("swXXX", &["sweep"]), None);
    }

    #[test]
    fn of_equally_near_words_the_one_that_begins_so_is_meant() {
        let of = |typed: &str, known: &[&'static str]| nearest(typed, known.iter().copied());
        assert_eq!(of("text", &["next", "texts"]), Some("texts"));
        assert_eq!(of("text", &["next", "best-text"]), Some("next"));
        // Neither begins so.
        assert_eq!(of("text", &["test", "next"]), Some("next"));
    }
}
