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

/// Lines longer than `width` broken at spaces, what follows indented by four more than the line. A word
/// longer than that stays whole.
pub fn wrap(text: &str, width: usize) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let own = line.len() - line.trim_start_matches(' ').len();
        let indent = if own + 4 <= width / 2 { own + 4 } else { 2 };
        let (mut rest, mut room) = (line.trim_end_matches('\n'), width);
        while let Some(end) = break_of(rest, room) {
            out.push_str(rest[..end].trim_end());
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            rest = rest[end..].trim_start();
            room = width.saturating_sub(indent);
        }
        out.push_str(rest);
        out.push_str(&line[line.trim_end_matches('\n').len()..]);
    }
    out
}

/// Where a line longer than `room` is broken: at its last space within, or its first one beyond.
fn break_of(line: &str, room: usize) -> Option<usize> {
    line.char_indices().nth(room)?;
    // Not within what indents it.
    let begins = line.len() - line.trim_start().len();
    let spaces =
        || line.char_indices().enumerate().filter(|(_, (at, c))| *c == ' ' && *at > begins);
    let within = spaces().take_while(|(place, _)| *place <= room).last();
    within.or_else(|| spaces().next()).map(|(_, (at, _))| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(wrap("one two three\nfour\n", 80), "one two three\nfour\n");
        assert_eq!(wrap("one two three four", 9), "one two\n    three\n    four");
        assert_eq!(wrap("  one two", 6), "  one\n  two");
        // Counted in characters, and a word of a width of its own.
        assert_eq!(wrap("±1 %  ±2 %", 4), "±1 %\n  ±2\n  %");
        assert_eq!(wrap("a /a/long/path b\n", 6), "a\n  /a/long/path\n  b\n");
        assert_eq!(wrap("", 6), "");
    }
}
