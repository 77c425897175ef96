//! Any bytes as a compressed file: an error or whole tensors, never a panic.

#![no_main]

use kvgauge::container::{Target, decompress, inspect, read_file};
use kvgauge::whole_file::Existing;
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::sync::LazyLock;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

/// Writes the right checksum where the header's belongs.
fn repaired(data: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = br#"{"__metadata__":{"kvgauge":"{\"header_crc32\":\""#;
    let mut bytes = data.to_vec();
    let Some((length, _)) = data.split_first_chunk::<8>() else { return bytes };
    let Some(end) = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|n| n.checked_add(8))
    else {
        return bytes;
    };
    let at = 8 + MARK.len();
    if end < at + 8 || end > bytes.len() || !bytes[8..].starts_with(MARK) {
        return bytes;
    }
    bytes[at..at + 8].copy_from_slice(b"00000000");
    let crc32 = format!("{:08x}", crc32fast::hash(&bytes[..end]));
    bytes[at..at + 8].copy_from_slice(crc32.as_bytes());
    bytes
}

fuzz_target!(|data: &[u8]| {
    let (input, output) = (FOLDER.path().join("in"), FOLDER.path().join("out"));
    fs::write(&input, repaired(data)).expect("written");
    _ = inspect(&input, true, &());
    if let Ok(file) = read_file(&input) {
        let names: Vec<String> = file.names().map(String::from).collect();
        for name in names {
            let values = file.get_tensor_f32(&name);
            let (_, shape) = file.info(&name).expect("a name of the file");
            let expected: usize = shape.iter().product();
            assert!(values.map_or(expected, |values| values.len()) == expected);
        }
    }
    let target = Target { path: &output, existing: Existing::Replace, sync: false };
    if decompress(&input, target, &()).is_ok() {
        let restored = fs::read(&output).expect("restored");
        safetensors::SafeTensors::deserialize(&restored).expect("a safetensors file");
    }
});
