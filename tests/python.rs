//! The Python package's own tests, on the binaries of this build.

#[path = "common/skip.rs"]
mod skip;

use std::process::{Command, Stdio};

#[test]
fn the_python_package() {
    let python = std::env::var_os("KVGAUGE_PYTHON").unwrap_or_else(|| "python3".into());
    let ready = Command::new(&python)
        .args(["-c", "import numpy, safetensors"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !ready.is_ok_and(|status| status.success()) {
        return skip::skip("the Python package", "no python3 with numpy and safetensors");
    }
    let output = Command::new(&python)
        .args(["-m", "unittest", "discover", "-s", "python/tests"])
        .env("PYTHONPATH", "python")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("KVGAUGE_KV_COMPRESS", env!("CARGO_BIN_EXE_kv-compress"))
        .env("KVGAUGE_BINARY", env!("CARGO_BIN_EXE_kvgauge"))
        .output()
        .expect("it was there a moment ago");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("Ran 0 tests"), "{told}");
}
