//! The line that a test prints when something it needs is not there.

use std::io::Write;

/// One line that the test harness does not swallow; a failure where nothing may be skipped
/// (`KVGAUGE_NO_SKIP`, as `.ci/run` sets it).
pub fn skip(what: &str, why: &str) {
    let must_run = std::env::var_os("KVGAUGE_NO_SKIP").is_some();
    assert!(!must_run, "{what} may not be skipped: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
