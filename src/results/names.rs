//! Names of models and texts for headlines.

/// A model as a headline names it: as on the hub, or the last part of a path, so that a report can be
/// shared. Results keep what was asked for.
pub fn model_name(source: &str) -> &str {
    let local = source.starts_with(['/', '.', '~']) || source.contains('\\');
    let file = source.to_ascii_lowercase().ends_with(".gguf");
    let of_hub = !local && !file && source.matches('/').count() == 1;
    if of_hub { source } else { last_part(source) }
}

/// A text as a headline names it: the last part of a path.
pub fn text_name(source: &str) -> &str {
    last_part(source)
}

fn last_part(path: &str) -> &str {
    let path = path.trim_end_matches(['/', '\\']);
    match path.rsplit(['/', '\\']).next() {
        Some(name) if !["", ".", ".."].contains(&name) => name,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headlines_name_no_path() {
        for (source, name) in [
            ("builtin", "builtin"),
            ("OWNER/NAME@main", "OWNER/NAME@main"),
            ("/home/me/models/llama", "llama"),
            ("models/a.Q4_K_M.gguf", "a.Q4_K_M.gguf"),
            ("../OWNER/NAME/", "NAME"),
            ("./x", "x"),
            ("~/x", "x"),
            (r"C:\models\x.gguf", "x.gguf"),
            ("a/b/c", "c"),
            ("..", ".."),
            ("", ""),
        ] {
            assert_eq!(model_name(source), name);
        }
        let texts = ["wikitext-2", "data/wiki.test.raw", "/tmp/a b.txt"].map(text_name);
        assert_eq!(texts, ["wikitext-2", "wiki.test.raw", "a b.txt"]);
    }
}
