//! Golden files of compressed caches: `tests/data/NAME.kvc`, and what comes back from it,
//! `NAME.safetensors`. Every later version must read them.

use kvgauge::container::{Target, decompress};
use kvgauge::whole_file::Existing;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that were not there were written, to be looked at and committed.
#[derive(Default)]
pub struct GoldenFiles {
    written: Vec<String>,
}

impl GoldenFiles {
    /// As long as this version is what is written: `now` is the same bytes on every machine.
    #[track_caller]
    pub fn is_written(&mut self, name: &str, now: &Path) {
        let [packed, expected] = files(name);
        if !packed.exists() {
            fs::copy(now, &packed).unwrap();
            restore(&packed, &expected);
            self.written.push(name.into());
        }
        assert!(fs::read(now).unwrap() == fs::read(packed).unwrap(), "{name}: other bytes");
        self.is_read(name);
    }

    /// Whichever version wrote it.
    #[track_caller]
    pub fn is_read(&self, name: &str) {
        let folder = tempfile::tempdir().unwrap();
        let [packed, expected] = files(name);
        let restored = folder.path().join("restored");
        restore(&packed, &restored);
        let [restored, expected] = [restored, expected].map(|path| fs::read(path).unwrap());
        assert!(restored == expected, "{name}: other tensors");
    }

    /// Fails where some were written, which nobody has looked at.
    #[track_caller]
    pub fn were_there(self) {
        let written = self.written;
        assert!(
            written.is_empty(),
            "{written:?} were not there: look at what was written, commit it"
        );
    }
}

fn files(name: &str) -> [PathBuf; 2] {
    ["kvc", "safetensors"].map(|kind| Path::new("tests/data").join(format!("{name}.{kind}")))
}

fn restore(packed: &Path, output: &Path) {
    let target = Target { path: output, existing: Existing::Replace, sync: false };
    decompress(packed, target, &()).unwrap();
}
