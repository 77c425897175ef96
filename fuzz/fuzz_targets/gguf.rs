//! Any bytes as a GGUF model: an error, or a model whose every tensor was read and is finite.

#![no_main]

use candle_core::{DType, Device};
use kvgauge::hub::{Hub, HubOptions};
use kvgauge::model::source::ModelSource;
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));
static HUB: LazyLock<Hub> = LazyLock::new(|| {
    Hub::new(HubOptions::from_lookup(true, |_| None), Arc::new(())).expect("no request")
});

fuzz_target!(|data: &[u8]| {
    let path = FOLDER.path().join("model.gguf");
    fs::write(&path, data).expect("written");
    let Ok(open) = ModelSource::Gguf(path).open("model.gguf", &HUB) else { return };
    _ = open.tokenizer.encode_fast("It was the best of times", false);
    if let Ok(model) = open.load(DType::F32, &Device::Cpu) {
        assert_eq!(model.config(), &open.config);
        let hash = open.weights().expect("open already").provenance.files_sha256;
        assert_eq!(hash.len(), 1);
    }
});
