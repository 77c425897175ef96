//! SHA-256 in lower-case hexadecimal.

use crate::container::source::Source;
use crate::error::Result;
use sha2::{Digest, Sha256};

pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of a file that is open, and stays so to be read.
pub fn source_sha256(source: &Source) -> Result<String> {
    let mut hasher = Sha256::new();
    source.read_through(|bytes| hasher.update(bytes))?;
    Ok(hex(&hasher.finalize()))
}
