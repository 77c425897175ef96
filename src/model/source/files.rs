//! A folder in Hugging Face layout, local or the hub's, and what to say where it is another.

use super::{file_name, read};
use crate::error::{Error, Result};
use crate::hash;
use crate::hub::HubRepo;
use crate::model::json;
use std::path::{Path, PathBuf};

pub(super) enum Files {
    Folder(PathBuf),
    Hub(Box<HubRepo>),
}

pub(super) struct WeightFiles {
    pub paths: Vec<PathBuf>,
    /// The index's name and SHA-256, if there is one.
    pub index: Option<(String, String)>,
}

const INDEX: &str = "model.safetensors.index.json";
const HOLDS: &str = "a Hugging Face folder holds config.json, tokenizer.json and *.safetensors";

impl Files {
    fn missing(&self, name: &str, found: &str) -> Error {
        Error::input(format!("{self}: expected {name}, found {found}"))
    }

    pub fn optional(&self, name: &str) -> Result<Option<PathBuf>> {
        match self {
            Files::Hub(repo) => repo.get_optional(name),
            Files::Folder(folder) => Ok(Some(folder.join(name)).filter(|path| path.is_file())),
        }
    }

    /// The first of several that is there.
    fn any_of<'a>(&self, names: &[&'a str]) -> Result<Option<&'a str>> {
        for name in names {
            if self.optional(name)?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Names in a local folder, sorted; of a repository nothing can be listed.
    fn names(&self) -> Vec<String> {
        let Files::Folder(folder) = self else { return Vec::new() };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    fn ending(&self, end: &str) -> Vec<String> {
        self.names().into_iter().filter(|name| name.ends_with(end)).collect()
    }

    pub fn config(&self) -> Result<PathBuf> {
        const NAME: &str = "config.json";
        if let Some(path) = self.optional(NAME)? {
            return Ok(path);
        }
        if let Some(path) = self.optional("adapter_config.json")? {
            let config = json::parse(&path.display().to_string(), &read(&path)?)?;
            let base = config["base_model_name_or_path"].as_str().unwrap_or("its base model");
            let error = self.missing(NAME, &format!("an adapter of {base} (adapter_config.json)"));
            return Err(error.hint(format!(
                "an adapter is no model of its own: merge it into {base} with peft's \
                 merge_and_unload, save that, and name the folder"
            )));
        }
        if self.optional("params.json")?.is_some() {
            return Err(self.missing(NAME, "params.json, the layout of the model's authors").hint(
                "use the repository in Hugging Face layout (often of the same name with -hf), or \
                 convert it with transformers",
            ));
        }
        if let Files::Folder(folder) = self {
            if let Some(snapshot) = snapshot(folder) {
                return Err(self
                    .missing(NAME, "the hub's cache of a repository")
                    .hint(format!("name the snapshot in it: {}", snapshot.display())));
            }
            if let [one, ..] = self.ending(".gguf").as_slice() {
                let file = folder.join(one);
                return Err(self
                    .missing(NAME, one)
                    .hint(format!("name the GGUF file itself: --model {}", file.display())));
            }
        }
        Err(self.missing(NAME, "no such file").hint(match self {
            Files::Folder(_) => HOLDS,
            Files::Hub(_) => {
                "a repository of GGUF files has none: save the file of your choice and name it"
            }
        }))
    }

    pub fn tokenizer(&self) -> Result<PathBuf> {
        const NAME: &str = "tokenizer.json";
        if let Some(path) = self.optional(NAME)? {
            return Ok(path);
        }
        let other = ["tokenizer.model", "vocab.json", "tekken.json", "spiece.model"];
        let Some(found) = self.any_of(&other)? else {
            let hint = match self {
                Files::Folder(_) => HOLDS,
                Files::Hub(_) => {
                    "the repository has no tokenizer: models that were made from \
                                  another often use that one's"
                }
            };
            return Err(self.missing(NAME, "no such file").hint(hint));
        };
        Err(self.missing(NAME, &format!("only {found}, a tokenizer of another form")).hint(
            "transformers makes the missing file: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        ))
    }

    /// `model.safetensors`, or the shards that the index names, and that index.
    pub fn weights(&self) -> Result<WeightFiles> {
        if let Some(path) = self.optional("model.safetensors")? {
            return Ok(WeightFiles { paths: vec![path], index: None });
        }
        let Some(path) = self.optional(INDEX)? else { return Err(self.no_weights()?) };
        let bytes = read(&path)?;
        let names = shards(&path, &bytes)?;
        let paths = names.iter().map(|name| {
            self.optional(name)?.ok_or_else(|| {
                self.missing(name, "no such file").within(INDEX).hint(
                    "the index names it: put this one file beside the others, which may stay as \
                     they are",
                )
            })
        });
        let paths = paths.collect::<Result<_>>()?;
        Ok(WeightFiles { paths, index: Some((file_name(&path), hash::sha256(&bytes))) })
    }

    fn no_weights(&self) -> Result<Error> {
        let expected = format!("model.safetensors or {INDEX}");
        let safetensors = self.ending(".safetensors");
        let sharded = safetensors.iter().find(|name| name.contains("-of-"));
        if let Some(shard) = sharded {
            return Ok(self
                .missing(&expected, &format!("shards ({shard}) without their index"))
                .hint(format!("put {INDEX} beside them: it is a small file of the repository")));
        }
        let other = ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5"];
        if let Some(found) = self.any_of(&other)? {
            return Ok(self.missing(&expected, found).hint(
                "convert it with transformers: \
                 AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            ));
        }
        let found = safetensors.first().or(self.ending(".gguf").first()).cloned();
        Ok(match found {
            Some(found) => self.missing(&expected, &found).hint(if found.ends_with(".gguf") {
                "a GGUF file is a model of its own: name the file"
            } else {
                "weights of that name are in another layout than Hugging Face's"
            }),
            None => self.missing(&expected, "neither").hint(
                "only safetensors weights and GGUF files are read; an incomplete clone or \
                 download has neither",
            ),
        })
    }
}

/// The names in an index, each once.
fn shards(path: &Path, bytes: &[u8]) -> Result<Vec<String>> {
    let place = path.display().to_string();
    let index = json::parse(&place, bytes)?;
    let wrong = |what: String| {
        Error::input(format!("{place}: weight_map: {what}"))
            .hint("an index maps every tensor to a file beside it, as transformers writes it")
    };
    let map = index["weight_map"].as_object().ok_or_else(|| wrong("missing".into()))?;
    let mut names = Vec::new();
    for file in map.values() {
        let name = file.as_str().ok_or_else(|| wrong("expected file names".into()))?;
        if name.is_empty() || name.contains(['/', '\\', '\0']) || matches!(name, "." | "..") {
            return Err(wrong(format!("expected plain file names, found {name:?}")));
        }
        names.push(name.to_string());
    }
    if names.is_empty() {
        return Err(wrong("expected tensors, found none".into()));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The newest files of a `models--OWNER--NAME` folder.
fn snapshot(folder: &Path) -> Option<PathBuf> {
    let commit = std::fs::read_to_string(folder.join("refs/main")).ok();
    let snapshots = folder.join("snapshots");
    let named = commit.map(|commit| snapshots.join(commit.trim())).filter(|path| path.is_dir());
    named.or_else(|| {
        let entries = std::fs::read_dir(&snapshots).ok()?.flatten();
        entries.map(|entry| entry.path()).find(|path| path.is_dir())
    })
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Files::Folder(folder) => write!(f, "{}", folder.display()),
            Files::Hub(repo) => write!(f, "{}", repo.id()),
        }
    }
}
