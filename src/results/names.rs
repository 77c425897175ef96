//! Names of models, texts and codecs for headlines.

use crate::codec::{Codec, preset_name};

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

/// A codec by the name that people have for it, where results call it by its fields.
pub fn codec_name(codec: &str) -> &str {
    codec.parse::<Codec>().ok().as_ref().and_then(preset_name).unwrap_or(codec)
}

/// What a report calls sources that have one name: as much of the end of each path as tells them apart,
/// and so the whole where one is the end of another.
pub fn apart<'a>(
    sources: impl Iterator<Item = &'a str> + Clone,
    name: impl Fn(&str) -> &str,
) -> impl Fn(&str) -> Option<String> {
    let sources: Vec<String> = sources.map(String::from).collect();
    let names: Vec<String> = sources.iter().map(|source| name(source).into()).collect();
    move |source| {
        let own = name(source);
        let others = sources.iter().zip(&names).filter(|(_, name)| *name == own);
        let others: Vec<&String> =
            others.map(|(other, _)| other).filter(|o| *o != source).collect();
        if others.is_empty() {
            return None;
        }
        let starts = source.rmatch_indices(['/', '\\']).map(|(at, _)| &source[at + 1..]);
        let tail = starts.into_iter().find(|tail| others.iter().all(|o| !o.ends_with(tail)));
        Some(tail.unwrap_or(source).into())
    }
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
    fn sources_of_one_name_are_told_apart() {
        let all = ["/m/q4/a.gguf", "/m/q8/a.gguf", "b.gguf", "a.gguf"];
        let apart = apart(all.iter().copied(), model_name);
        let told = all.map(|source| apart(source).unwrap_or("-".into()));
        assert_eq!(told, ["q4/a.gguf", "q8/a.gguf", "-", "a.gguf"]);
    }

    #[test]
    fn codecs_have_the_names_that_people_have_for_them() {
        for (codec, name) in [
            ("k:int2-g32-asym-ch/v:int2-g32-asym", "kivi2"),
            ("int6-g32-ext", "q6_0"),
            ("q4_0-had", "q4_0-had"),
            ("int4-g64-asym", "int4-g64-asym"),
            ("kvgauge4+q8_0@0", "kvgauge4+q8_0@0"),
            ("noise-q4_0", "noise-q4_0"),
        ] {
            assert_eq!(codec_name(codec), name);
        }
    }

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
