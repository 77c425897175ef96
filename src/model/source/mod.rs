//! `--model`: what was typed → where it is → a loaded model with its tokenizer.

mod files;
mod tokenizer;

use super::{
    Gguf, KvScales, Model, ModelConfig, Safetensors, architectures, json, oracle::WeightsRef,
};
use crate::builtin;
use crate::corpus::gguf_tokenizer;
use crate::error::{Error, Result};
use crate::hash;
use crate::hub::{Hub, RepoId};
use crate::nearest_word::nearest;
use crate::sniff::{self, Kind};
use candle_core::{DType, Device};
use files::Files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenizers::Tokenizer;

/// The place that `--model` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The model in the binary.
    Builtin,
    /// A `.gguf` file, or any part of a split one.
    Gguf(PathBuf),
    /// A folder in Hugging Face layout.
    Folder(PathBuf),
    /// A repository of the hub.
    Hub(RepoId),
}

/// The model's identity in a result.
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
    /// The model's configuration.
    pub config: ModelConfig,
    /// Text to token ids.
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
    Gguf(Arc<Gguf>),
    Files(Files),
}

/// Weights that are there and open, and what identifies them.
#[derive(Clone)]
pub struct ModelWeights {
    /// Its weights, read on demand.
    pub weights: WeightsRef,
    /// Its identity, hashes included.
    pub provenance: Provenance,
    /// The folder of its files, if they hold scales of a cache ([`kv_scales`]).
    pub kv_scales_folder: Option<PathBuf>,
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
            Err(refuse_file(path)?)
        } else if path.is_absolute() || text.starts_with('.') {
            Err(Error::io(path, &std::io::ErrorKind::NotFound.into()).hint(TAKES))
        } else {
            RepoId::model(text).map(Self::Hub).map_err(|_| {
                let meant = nearest(text, std::iter::once("builtin"));
                let meant = meant.map(|name| format!("did you mean {name}? "));
                Error::input(format!(
                    "expected a repository's OWNER/NAME or an existing path, found `{text}`"
                ))
                .hint(meant.unwrap_or_default() + TAKES)
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

/// The scales of a cache that a checkpoint holds: a safetensors file, or a folder in Hugging Face layout.
///
/// # Errors
/// Those of opening; what holds none.
pub fn kv_scales(checkpoint: &Path) -> Result<KvScales> {
    let paths = match checkpoint.is_dir() {
        true => Files::Folder(checkpoint.into()).weights()?.paths,
        false => vec![checkpoint.into()],
    };
    let scales = Safetensors::open(&paths)?.kv_scales()?;
    if scales.is_empty() {
        let place = checkpoint.display();
        return Err(Error::input(format!("{place}: expected scales of a cache, found none"))
            .hint("checkpoints have them as model.layers.N.self_attn.k_scale and v_scale"));
    }
    Ok(scales)
}

impl OpenModel {
    /// Fetches, hashes and opens the weight files; no tensor is read yet.
    pub fn weights(&self) -> Result<ModelWeights> {
        let mut files_sha256 = self.hashes.clone();
        let (mut revision, mut kv_scales_folder) = (None, None);
        let weights: WeightsRef = match &self.place {
            Place::Builtin => {
                files_sha256.insert("model.safetensors".into(), hash::sha256(builtin::WEIGHTS));
                Arc::new(Safetensors::from_static("builtin model.safetensors", builtin::WEIGHTS)?)
            }
            Place::Gguf(gguf) => {
                files_sha256.extend(gguf.sha256()?);
                gguf.clone()
            }
            Place::Files(files) => {
                let files::WeightFiles { paths, index } = files.weights()?;
                let weights = Safetensors::open(&paths)?;
                match files {
                    Files::Hub(repo) => {
                        revision = repo.commit();
                        files_sha256.clear();
                    }
                    Files::Folder(_) => {
                        let names = paths.iter().map(|path| file_name(path));
                        files_sha256.extend(names.zip(weights.sha256()?).chain(index));
                    }
                }
                let half = architectures::by_class(&self.config.architecture)
                    .is_some_and(|architecture| !architecture.text_half.is_empty());
                let weights = if half { weights.text_half()? } else { weights };
                if weights.has_kv_scales() {
                    let folder = paths.first().and_then(|path| path.parent());
                    kv_scales_folder = folder.map(Path::to_path_buf);
                }
                Arc::new(weights)
            }
        };
        let provenance = Provenance { source: self.source.clone(), revision, files_sha256 };
        Ok(ModelWeights { weights, provenance, kv_scales_folder })
    }

    /// Bytes of the weights as they are stored, where they can stay so ([`Model::load_packed`]).
    pub fn packed_bytes(&self) -> Option<u64> {
        match &self.place {
            Place::Gguf(gguf) => Some(gguf.tensor_bytes()),
            Place::Builtin | Place::Files(_) => None,
        }
    }

    /// The model, its weights read and checked.
    ///
    /// # Errors
    /// Weights that are not there, of another shape or not finite; tensors that the model does not use.
    pub fn load(&self, dtype: DType, device: &Device) -> Result<Model> {
        Model::load(&self.config, self.weights()?.weights.as_ref(), dtype, device)
    }
}

fn open_builtin(typed: &str) -> Result<OpenModel> {
    let tokenizer = tokenizer::parse("builtin tokenizer.json", builtin::TOKENIZER)?;
    let config = ModelConfig::from_hf(builtin::CONFIG)?;
    let hashes = [("config.json", builtin::CONFIG), ("tokenizer.json", builtin::TOKENIZER)];
    Ok(OpenModel {
        bos_id: config.bos_token_id,
        adds_bos: tokenizer::template_bos("builtin tokenizer.json", &tokenizer)?.is_some(),
        config,
        tokenizer,
        source: typed.into(),
        hashes: hashes.map(|(name, bytes)| (name.into(), hash::sha256(bytes))).into(),
        place: Place::Builtin,
    })
}

fn open_gguf(typed: &str, path: &Path) -> Result<OpenModel> {
    let gguf = Gguf::open(path).map_err(|e| e.hint(TAKES))?;
    let mut config = gguf.config.clone();
    let tokenizer = gguf_tokenizer::from_gguf(gguf.metadata()).map_err(|e| {
        e.within(path.display()).hint(
            "the tokenizer in the file is not as converters write it: convert the model again \
             with a current llama.cpp, or use its Hugging Face folder",
        )
    })?;
    config.bos_token_id = tokenizer.bos_id;
    Ok(OpenModel {
        bos_id: tokenizer.bos_id,
        adds_bos: tokenizer.add_bos,
        tokenizer: tokenizer.tokenizer,
        source: typed.into(),
        hashes: BTreeMap::new(),
        place: Place::Gguf(Arc::new(gguf)),
        config,
    })
}

fn open_files(typed: &str, files: Files) -> Result<OpenModel> {
    let mut hashes = BTreeMap::new();
    let mut read = |path: &Path| -> Result<Vec<u8>> {
        let bytes = read(path)?;
        hashes.insert(file_name(path), hash::sha256(&bytes));
        Ok(bytes)
    };
    let config_path = files.config()?;
    let config = ModelConfig::from_hf(&read(&config_path)?)
        .map_err(|e| e.within(config_path.parent().unwrap_or(Path::new("")).display()))?;
    let tokenizer_path = files.tokenizer()?;
    let place = tokenizer_path.display().to_string();
    let tokenizer = tokenizer::parse(&place, &read(&tokenizer_path)?)?;
    let settings = match files.optional("tokenizer_config.json")? {
        Some(path) => json::parse(&path.display().to_string(), &read(&path)?)?,
        None => serde_json::Value::Null,
    };
    let bos = tokenizer::bos(&place, &tokenizer, &settings, config.bos_token_id)?;
    Ok(OpenModel {
        config,
        tokenizer,
        bos_id: bos.id,
        adds_bos: bos.added,
        source: typed.into(),
        hashes,
        place: Place::Files(files),
    })
}

/// The error for a file that is neither a folder nor named `.gguf`.
fn refuse_file(path: &Path) -> Result<Error> {
    let failed = |e| Error::io(path, &e).hint(TAKES);
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(sniff::ENOUGH as u64).read_to_end(&mut start).map_err(failed)?;
    let found = sniff::sniff(&start);
    let error = Error::input(format!(
        "{}: expected a folder or a .gguf file, found {}",
        path.display(),
        found.map_or("another file", Kind::name)
    ));
    Ok(error.hint(match found {
        Some(Kind::Json) => "name the folder that holds config.json",
        Some(kind) => kind.hint(),
        None => TAKES,
    }))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|e| Error::io(path, &e).hint("the model needs this file: can it be read?"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
