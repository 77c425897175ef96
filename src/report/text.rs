//! Strings from outside (names, paths, errors, config text) made fit for a place in a report.

/// For text and double-quoted attributes of HTML and XML. Control characters, which XML
/// cannot hold, and those that change the direction of writing become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(printable(c)),
        }
    }
    out
}

/// What [`escape`] does to control characters, without escaping the others.
pub fn printable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        // What turns the direction of what follows.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_markup_is_text() {
        assert_eq!(
            escape("<b a='1' c=\"2\">&\0"),
            "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\u{fffd}"
        );
        assert_eq!(escape("k:int4-g64/v:f16, +1 … 2"), "k:int4-g64/v:f16, +1 … 2");
    }
}
