//! The `f16` control in blocks: values rounded to f16.

use super::distortion::{DistortionRun, RunBuilder, exact_cell_sums};
use super::element::Element;
use half::f16;

/// Rounds `values`, of which the first has index `start` in the tensor; the distortion is
/// `None` if one of them is not finite. Single-threaded.
pub fn compress_halves<T: Element>(
    values: &[T],
    head_dim: usize,
    start: usize,
    halves: &mut [f16],
) -> Option<DistortionRun> {
    const CHUNK: usize = 256;
    if !T::absmax(values).is_finite() {
        return None;
    }
    let mut run = RunBuilder::new(head_dim, start, 0);
    let (mut wide, mut decoded) = ([0f32; CHUNK], [T::default(); CHUNK]);
    let mut done = 0;
    while done < values.len() {
        let len = run.next_cell().min(values.len() - done).min(CHUNK);
        let (values, halves) = (&values[done..done + len], &mut halves[done..done + len]);
        T::widen(values, &mut wide[..len]);
        // A served f16 cache holds the largest finite value, not infinity.
        f16::narrow_saturating(&wide[..len], halves);
        decompress_halves(halves, &mut decoded[..len]);
        run.add(exact_cell_sums(values, &decoded[..len], 0), len);
        done += len;
    }
    Some(run.finish())
}

/// Writes the decoded values. Single-threaded.
pub fn decompress_halves<T: Element>(halves: &[f16], out: &mut [T]) {
    const CHUNK: usize = 256;
    let mut wide = [0f32; CHUNK];
    for (halves, out) in halves.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        let wide = &mut wide[..halves.len()];
        f16::widen(halves, wide);
        T::narrow_saturating(wide, out);
    }
}
