//! Work that may fall silent, and the signs of life it is watched for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::DownloadProgress;
use super::download::{NETWORK_HINT, RESUME_HINT};
use crate::{Error, Result};

/// Signs of life of one download, and what the caller gets to see of it.
pub(super) struct Watch {
    born: Instant,
    /// The last sign of life, in milliseconds after `born`.
    last_beat: AtomicU64,
    progress: Arc<dyn DownloadProgress>,
    stage: Mutex<Stage>,
}

/// How far the caller has followed a download.
#[derive(PartialEq)]
pub(super) enum Stage {
    Hidden,
    /// Between `start` and `finish`.
    Shown,
    /// The caller has its outcome and hears no more.
    Closed,
}

impl Watch {
    /// A watch whose first sign of life is now.
    pub(super) fn new(progress: Arc<dyn DownloadProgress>) -> Self {
        Self {
            born: Instant::now(),
            last_beat: AtomicU64::new(0),
            progress,
            stage: Mutex::new(Stage::Hidden),
        }
    }

    /// Notes a sign of life.
    pub(super) fn beat(&self) {
        let now = self.born.elapsed().as_millis() as u64;
        self.last_beat.store(now, Ordering::Relaxed);
    }

    /// The time since the last sign of life.
    pub(super) fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(last)
    }

    /// If the stage is `from`, tells the caller and goes on `to` the next.
    pub(super) fn step(&self, from: Stage, to: Stage, tell: impl FnOnce(&dyn DownloadProgress)) {
        self.beat();
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage == from {
            tell(self.progress.as_ref());
            *stage = to;
        }
    }

    /// Ends what the caller sees, whatever still happens.
    pub(super) fn close(&self) {
        self.step(Stage::Shown, Stage::Closed, |progress| progress.finish());
        self.step(Stage::Hidden, Stage::Closed, |_| {});
    }
}

/// Runs `work` on its own thread until it is done or shows no sign of life for `timeout`.
pub(super) fn watched<T: Send + 'static>(
    timeout: Duration,
    watch: &Watch,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, outcome) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("hub".to_string())
        .spawn(move || done.send(work()))
        .map_err(|error| Error::system(format!("no thread to download with: {error}")))?;
    loop {
        match outcome.recv_timeout(timeout.saturating_sub(watch.silence())) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Timeout) if watch.silence() < timeout => {}
            Err(RecvTimeoutError::Timeout) => {
                let message = format!("no byte for {} s", timeout.as_secs_f64());
                let hint = format!("{RESUME_HINT}; HF_HUB_DOWNLOAD_TIMEOUT sets the seconds");
                return Err(Error::network(message).hint(hint));
            }
            // The thread panicked: hf-hub asserts what a server ought to do.
            Err(RecvTimeoutError::Disconnected) => {
                let panic = thread.join().err();
                let text = panic.as_ref().and_then(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    text.or_else(|| panic.downcast_ref::<&str>().copied())
                });
                let text = text.unwrap_or("no reason given").replace('\n', " ");
                let message = format!("hf-hub gave up on an unexpected answer: {text}");
                return Err(Error::network(message).hint(NETWORK_HINT));
            }
        }
    }
}
