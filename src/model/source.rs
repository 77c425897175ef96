//! `--model`: what was typed → where it is → a loaded model with its tokenizer.

use super::{Gguf, Llama, ModelConfig, RopeScaling, Safetensors, oracle::WeightsRef};
use crate::builtin;
use crate::corpus::gguf_tokenizer;
use crate::error::{Error, Result};
use crate::hash;
use crate::hub::{Hub, HubRepo, RepoId};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenizers::Tokenizer;

/// What `--model` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    Builtin,
    /// A `.gguf` file.
    Gguf(PathBuf),
    /// A folder in Hugging Face layout.
    Folder(PathBuf),
    Hub(RepoId),
}

/// What identifies the model in a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// As typed.
    pub source: String,
    /// The hub's commit; `null` for local files and the embedded model.
    pub revision: Option<String>,
    /// SHA-256 of local files by name; empty for the hub, whose commit says it all.
    pub files_sha256: BTreeMap<String, String>,
}

/// Everything found out about a model before its weights are fetched, hashed or read.
pub struct OpenModel {
    pub config: ModelConfig,
    pub tokenizer: Tokenizer,
    /// The beginning-of-sequence token, if the model has one.
    pub bos_id: Option<u32>,
    /// Whether the model's tokenizer puts it before a text.
    pub adds_bos: bool,
    source: String,
    /// Of the small files, which were read.
    hashes: BTreeMap<String, String>,
    place: Place,
}

/// Where the weights are.
enum Place {
    Builtin,
    Gguf { path: PathBuf, gguf: Arc<Gguf> },
    Files(Files),
}

/// Weights that are there and open, and what identifies them.
#[derive(Clone)]
pub struct ModelWeights {
    pub weights: WeightsRef,
    pub provenance: Provenance,
}

const TAKES: &str =
    "--model takes builtin, OWNER/NAME[@REVISION], a Hugging Face folder or a .gguf file";

impl ModelSource {
    /// A path that exists or ends in `.gguf` is a path; `OWNER/NAME[@REVISION]` is the hub's.
    /// A path that can be nothing else must exist.
    pub fn parse(text: &str) -> Result<Self> {
        let path = Path::new(text);
        let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if text == "builtin" {
            Ok(Self::Builtin)
        } else if path.is_dir() {
            Ok(Self::Folder(path.into()))
        } else if is_gguf {
            path.metadata().map_err(|e| Error::io(path, &e).hint(TAKES))?;
            Ok(Self::Gguf(path.into()))
        } else if path.is_file() {
            Err(Error::input(format!(
                "{text}: expected a folder or a .gguf file, found another file"
            ))
            .hint("for safetensors name the folder that holds config.json"))
        } else if path.is_absolute() || text.starts_with('.') {
            Err(Error::io(path, &std::io::ErrorKind::NotFound.into()).hint(TAKES))
        } else {
            RepoId::model(text).map(Self::Hub).map_err(|_| {
                Error::input(format!(
                    "expected a repository's OWNER/NAME or an existing path, found `{text}`"
                ))
                .hint(TAKES)
            })
        }
    }

    /// `typed`: what the user wrote, which results echo.
    pub fn open(&self, typed: &str, hub: &Hub) -> Result<OpenModel> {
        match self {
            Self::Builtin => open_builtin(typed),
            Self::Gguf(path) => open_gguf(typed, path),
            Self::Folder(folder) => open_files(typed, Files::Folder(folder.clone())),
            Self::Hub(id) => open_files(typed, Files::Hub(Box::new(hub.repo(id.clone())))),
        }
    }
}

impl OpenModel {
    /// Fetches, hashes and opens the weight files; no tensor is read yet.
    pub fn weights(&self) -> Result<ModelWeights> {
        let mut files_sha256 = self.hashes.clone();
        let mut revision = None;
        let weights: WeightsRef = match &self.place {
            Place::Builtin => {
                files_sha256.insert("model.safetensors".into(), hash::sha256(builtin::WEIGHTS));
                Arc::new(Safetensors::from_static("builtin model.safetensors", builtin::WEIGHTS)?)
            }
            Place::Gguf { path, gguf } => {
                files_sha256.insert(file_name(path), hash::file_sha256(path)?);
                gguf.clone()
            }
            Place::Files(files) => {
                let (weights, index) = files.weights()?;
                match files {
                    Files::Hub(repo) => {
                        revision = repo.commit();
                        files_sha256.clear();
                    }
                    Files::Folder(_) => {
                        for path in weights.iter().chain(&index) {
                            files_sha256.insert(file_name(path), hash::file_sha256(path)?);
                        }
                    }
                }
                Arc::new(Safetensors::open(&weights)?)
            }
        };
        let provenance = Provenance { source: self.source.clone(), revision, files_sha256 };
        Ok(ModelWeights { weights, provenance })
    }

    pub fn load(&self, dtype: DType, device: &Device) -> Result<Llama> {
        Llama::load(&self.config, self.weights()?.weights.as_ref(), dtype, device)
    }
}

fn open_builtin(typed: &str) -> Result<OpenModel> {
    let tokenizer = parse_tokenizer("builtin tokenizer.json", builtin::TOKENIZER)?;
    let config = ModelConfig::from_hf(builtin::CONFIG)?;
    let hashes = [("config.json", builtin::CONFIG), ("tokenizer.json", builtin::TOKENIZER)];
    Ok(OpenModel {
        bos_id: config.bos_token_id,
        adds_bos: template_bos(&tokenizer)?.is_some(),
        config,
        tokenizer,
        source: typed.into(),
        hashes: hashes.map(|(name, bytes)| (name.into(), hash::sha256(bytes))).into(),
        place: Place::Builtin,
    })
}

fn open_gguf(typed: &str, path: &Path) -> Result<OpenModel> {
    let gguf = Gguf::open(path).map_err(|e| e.hint(TAKES))?;
    let mut config = gguf.config()?;
    if let Some(mut divisors) = gguf.rope_divisors(config.head_dim)? {
        // llama.cpp applies both.
        if let RopeScaling::Linear { factor } = config.rope_scaling {
            divisors.iter_mut().for_each(|divisor| *divisor *= factor);
        }
        config.rope_scaling = RopeScaling::Divisors(divisors);
    }
    let tokenizer =
        gguf_tokenizer::from_gguf(&gguf.content.metadata).map_err(|e| e.within(path.display()))?;
    config.bos_token_id = tokenizer.bos_id;
    Ok(OpenModel {
        bos_id: tokenizer.bos_id,
        adds_bos: tokenizer.add_bos,
        tokenizer: tokenizer.tokenizer,
        source: typed.into(),
        hashes: BTreeMap::new(),
        place: Place::Gguf {
            path: path.into(),
            gguf: Arc::new(gguf.with_heads(config.heads, config.kv_heads)),
        },
        config,
    })
}

/// A folder in Hugging Face layout, local or the hub's.
enum Files {
    Folder(PathBuf),
    Hub(Box<HubRepo>),
}

impl Files {
    fn get(&self, name: &str) -> Result<PathBuf> {
        match self {
            Files::Hub(repo) => repo.get(name),
            Files::Folder(folder) => self.optional(name)?.ok_or_else(|| {
                Error::input(format!("{}: expected {name}, found no such file", folder.display()))
                    .hint(
                        "a Hugging Face folder holds config.json, tokenizer.json and *.safetensors",
                    )
            }),
        }
    }

    fn optional(&self, name: &str) -> Result<Option<PathBuf>> {
        match self {
            Files::Hub(repo) => repo.get_optional(name),
            Files::Folder(folder) => Ok(Some(folder.join(name)).filter(|path| path.is_file())),
        }
    }

    /// `model.safetensors`, or the shards that the index names, and that index.
    fn weights(&self) -> Result<(Vec<PathBuf>, Option<PathBuf>)> {
        const INDEX: &str = "model.safetensors.index.json";
        if let Some(path) = self.optional("model.safetensors")? {
            return Ok((vec![path], None));
        }
        let Some(path) = self.optional(INDEX)? else {
            return Err(Error::input(format!(
                "{self}: expected model.safetensors or {INDEX}, found neither"
            ))
            .hint("only safetensors weights are read; for pytorch_model.bin convert them first"));
        };
        let wrong = |what: &str| {
            Error::input(format!("{}: {what}", path.display()))
                .hint("the index is damaged or cut short: download it again")
        };
        let index: serde_json::Value = serde_json::from_slice(&read(&path)?)
            .map_err(|e| wrong(&format!("not valid JSON: {e}")))?;
        let map = index["weight_map"].as_object().ok_or_else(|| wrong("weight_map: missing"))?;
        let mut shards: Vec<&str> = map
            .values()
            .map(|file| file.as_str().ok_or_else(|| wrong("weight_map: expected file names")))
            .collect::<Result<_>>()?;
        shards.sort_unstable();
        shards.dedup();
        if let Some(outside) = shards.iter().find(|name| name.contains(['/', '\\'])) {
            return Err(wrong(&format!("weight_map: expected plain file names, found {outside}")));
        }
        let shard = |name| self.get(name).map_err(|e| e.within(INDEX));
        let shards = shards.into_iter().map(shard).collect::<Result<_>>()?;
        Ok((shards, Some(path)))
    }
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Files::Folder(folder) => write!(f, "{}", folder.display()),
            Files::Hub(_) => f.write_str("the repository"),
        }
    }
}

fn open_files(typed: &str, files: Files) -> Result<OpenModel> {
    let mut hashes = BTreeMap::new();
    let mut read = |path: &Path| -> Result<Vec<u8>> {
        let bytes = read(path)?;
        hashes.insert(file_name(path), hash::sha256(&bytes));
        Ok(bytes)
    };
    let config_path = files.get("config.json")?;
    let config = ModelConfig::from_hf(&read(&config_path)?)
        .map_err(|e| e.within(config_path.parent().unwrap_or(Path::new("")).display()))?;
    let tokenizer_path = files.get("tokenizer.json")?;
    let tokenizer =
        parse_tokenizer(&tokenizer_path.display().to_string(), &read(&tokenizer_path)?)?;
    let settings = match files.optional("tokenizer_config.json")? {
        Some(path) => serde_json::from_slice(&read(&path)?).map_err(|e| {
            Error::input(format!("{}: not valid JSON: {e}", path.display()))
                .hint("the file is damaged or cut short: download it again")
        })?,
        None => serde_json::Value::Null,
    };
    let template = template_bos(&tokenizer)?;
    let named = &settings["bos_token"];
    let named = named.as_str().or(named["content"].as_str());
    let bos_id = template
        .or_else(|| named.and_then(|token| tokenizer.token_to_id(token)))
        .or(config.bos_token_id);
    // transformers' Llama tokenizers follow this key whatever the template says; the general
    // class follows the template.
    let is_llama = settings["tokenizer_class"]
        .as_str()
        .is_some_and(|class| class.starts_with("LlamaTokenizer"));
    let key = settings["add_bos_token"].as_bool().filter(|_| is_llama);
    Ok(OpenModel {
        config,
        tokenizer,
        bos_id,
        adds_bos: key.unwrap_or(template.is_some()),
        source: typed.into(),
        hashes,
        place: Place::Files(files),
    })
}

/// The token that the tokenizer itself puts before a text, if it puts exactly one more there
/// than without special tokens.
fn template_bos(tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let encode = |special: bool| {
        tokenizer
            .encode_fast("a", special)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| Error::input(format!("tokenizer.json: cannot encode: {e}")))
    };
    let (with, without) = (encode(true)?, encode(false)?);
    let differs = with.first() != without.first() && with.get(1) == without.first();
    Ok(with.first().copied().filter(|_| differs))
}

fn parse_tokenizer(place: &str, bytes: &[u8]) -> Result<Tokenizer> {
    let broken = |what: String| {
        Error::input(format!("{place}: not a tokenizer: {what}"))
            .hint("the file is damaged or newer than this program: download it again")
    };
    // tokenizers panics where a decoder's JSON is broken: find that out first.
    serde_json::from_slice::<serde_json::Value>(bytes).map_err(|e| broken(e.to_string()))?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| broken(e.to_string()))?;
    // Some repositories ship with truncation on: a text of any length must come out whole.
    tokenizer
        .with_truncation(None)
        .map_err(|e| Error::input(format!("{place}: truncation cannot be turned off: {e}")))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, &e))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
