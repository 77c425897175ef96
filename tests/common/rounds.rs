//! How long tests with random damage go on.

use std::time::{Duration, Instant};

/// So many rounds, or with `KVGAUGE_FUZZ_SECONDS` as many as fit into that time.
pub fn rounds(usual: usize) -> impl Iterator<Item = usize> {
    let seconds = std::env::var("KVGAUGE_FUZZ_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("KVGAUGE_FUZZ_SECONDS: whole seconds"));
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    (0..).take_while(move |round| match end {
        Some(end) => Instant::now() < end,
        None => *round < usual,
    })
}
