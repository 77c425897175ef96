//! Strings from outside (names, paths, errors, config text) made fit for a place in a report.

/// Control characters, which XML cannot hold, and those that turn the direction of writing become
/// U+FFFD.
pub fn printable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        '\u{200e}' | '\u{200f}' | '\u{61c}' => '\u{fffd}',
        c => c,
    }
}

/// On one line, without what a terminal would take for a command.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().map(printable).collect()
}

/// Display width in an unknown sans-serif font, in pixels: an upper estimate, since fonts differ.
pub fn width(text: &str, font_size: f64) -> f64 {
    let em: f64 = text.chars().map(|c| if c.is_ascii() { 0.6 } else { 1.0 }).sum();
    em * font_size
}
