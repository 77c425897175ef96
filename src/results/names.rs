//! Names of models and texts for headlines.

use std::collections::{BTreeMap, BTreeSet};

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

/// What headlines call the models and texts of one run: those of one name get as much of the end of their
/// paths as tells them apart, and so the whole where one is the end of another.
#[derive(Debug, Clone, Default)]
pub struct Headlines {
    /// By source, of those alone that need it.
    models: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
}

impl Headlines {
    /// `sources`: every model with its text, as asked for.
    pub fn of<'a>(sources: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let (models, texts): (BTreeSet<&str>, BTreeSet<&str>) = sources.unzip();
        Self { models: apart(&models, model_name), texts: apart(&texts, text_name) }
    }

    /// A model as asked for.
    pub fn model<'a>(&'a self, source: &'a str) -> &'a str {
        self.models.get(source).map_or_else(|| model_name(source), String::as_str)
    }

    /// A text as asked for.
    pub fn text<'a>(&'a self, source: &'a str) -> &'a str {
        self.texts.get(source).map_or_else(|| text_name(source), String::as_str)
    }

    /// Where the name alone would be another model's as well.
    pub fn longer_model(&self, source: &str) -> Option<String> {
        self.models.get(source).cloned()
    }

    /// Where the name alone would be another text's as well.
    pub fn longer_text(&self, source: &str) -> Option<String> {
        self.texts.get(source).cloned()
    }
}

/// The sources whose names others have too, each with what tells it apart.
fn apart(sources: &BTreeSet<&str>, name: impl Fn(&str) -> &str) -> BTreeMap<String, String> {
    let mut of_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        of_name.entry(name(source)).or_default().push(source);
    }
    let tail = |source: &str, all: &[&str]| -> String {
        let starts = source.rmatch_indices(['/', '\\']).map(|(at, _)| &source[at + 1..]);
        let alone =
            |tail: &&str| all.iter().all(|other| *other == source || !other.ends_with(tail));
        starts.into_iter().find(alone).unwrap_or(source).into()
    };
    let (tail, several) = (&tail, of_name.values().filter(|all| all.len() > 1));
    several.flat_map(|all| all.iter().map(move |one| (one.to_string(), tail(one, all)))).collect()
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
        let headlines = Headlines::of(all.iter().map(|model| (*model, "t/x.txt")));
        let told = all.map(|source| headlines.model(source));
        assert_eq!(told, ["q4/a.gguf", "q8/a.gguf", "b.gguf", "a.gguf"]);
        assert_eq!(headlines.longer_model("b.gguf"), None);
        assert_eq!(headlines.longer_model("a.gguf").unwrap(), "a.gguf");
        assert_eq!(headlines.text("t/x.txt"), "x.txt");
        // One that is not of this run.
        assert_eq!(headlines.model("/other/a.gguf"), "a.gguf");
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
