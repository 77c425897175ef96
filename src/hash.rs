//! SHA-256 in lower-case hexadecimal.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn file_sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(|e| Error::io(path, &e))?;
    Ok(hex(&hasher.finalize()))
}
