//! Pieces of a file, worked on by all cores, taken up in order.

use crate::error::Result;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Values a piece holds, about: what a thread takes at a time and writes at once. Large writes
/// cost the system less a byte.
pub const PIECE: usize = 1 << 20;
/// Values quantised at a time, about: 256 KiB of f16, which stay in a core's cache between being
/// read, quantised and checked.
pub const BLOCK: usize = 1 << 17;
/// Pieces whose results are in memory at once.
const BATCH: usize = 4096;

/// Memory that a thread uses again for each of its pieces. Grows to the largest asked for.
#[derive(Default)]
pub struct Buffer(Vec<u64>);

impl Buffer {
    /// `len` values, of any content.
    pub fn values<T: bytemuck::Pod>(&mut self, len: usize) -> &mut [T] {
        let words = (len * size_of::<T>()).div_ceil(size_of::<u64>());
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
}

/// The buffers a thread keeps from piece to piece.
#[derive(Default)]
pub struct Buffers {
    pub values: Buffer,
    pub codes: Buffer,
    pub scales: Buffer,
}

/// Calls `work` for every job, on all threads, and `take` with the results in the jobs' order,
/// on this one. Ends with the first error in that order. `S` is what a thread keeps.
pub fn in_order<J: Send + Sync, S: Default, R: Send>(
    jobs: impl Iterator<Item = J>,
    work: impl Fn(&mut S, &J) -> Result<R> + Sync,
    mut take: impl FnMut(&J, R) -> Result<()>,
) -> Result<()> {
    let mut jobs = jobs.peekable();
    while jobs.peek().is_some() {
        let batch: Vec<J> = jobs.by_ref().take(BATCH).collect();
        // A small file is not worth starting threads for.
        if let [job] = batch.as_slice() {
            take(job, work(&mut S::default(), job)?)?;
            continue;
        }
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let run = |_| {
            let (mut state, mut results) = (S::default(), Vec::new());
            while !failed.load(Relaxed) {
                let index = next.fetch_add(1, Relaxed);
                let Some(job) = batch.get(index) else { break };
                let result = work(&mut state, job);
                failed.fetch_or(result.is_err(), Relaxed);
                results.push((index, result));
            }
            results
        };
        let threads = rayon::current_num_threads().min(batch.len());
        let mut results: Vec<_> = (0..threads).into_par_iter().flat_map_iter(run).collect();
        results.sort_unstable_by_key(|(index, _)| *index);
        // Jobs are handed out in order, so none is missing before the first error.
        for (job, (_, result)) in batch.iter().zip(results) {
            take(job, result?)?;
        }
    }
    Ok(())
}
