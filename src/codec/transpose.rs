//! Rows to columns.

use crate::lanes::{self, LANES};
use pulp::Simd;

/// [rows, columns] → [columns, rows], or with heads above each other [heads·rows, columns] where
/// `rows` is that of one head. In squares, whose rows fill the cache lines they are in.
#[inline(always)]
pub(super) fn transpose<S: Simd>(
    simd: S,
    from: &[f32],
    rows: usize,
    columns: usize,
    to: &mut [f32],
) {
    let size = (rows * columns).max(1);
    for (from, to) in from.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
        for row in (0..rows).step_by(LANES) {
            for column in (0..columns).step_by(LANES) {
                let (high, wide) = (LANES.min(rows - row), LANES.min(columns - column));
                let mut square = [[0f32; LANES]; LANES];
                let from = from[row * columns..].chunks(columns);
                for (lanes, from) in square[..high].iter_mut().zip(from) {
                    match from[column..][..wide].first_chunk() {
                        Some(from) => *lanes = *from,
                        None => lanes[..wide].copy_from_slice(&from[column..][..wide]),
                    }
                }
                lanes::transpose(simd, &mut square);
                let to = to[column * rows..].chunks_mut(rows);
                for (lanes, to) in square[..wide].iter().zip(to) {
                    match to[row..][..high].first_chunk_mut() {
                        Some(to) => *to = *lanes,
                        None => to[row..][..high].copy_from_slice(&lanes[..high]),
                    }
                }
            }
        }
    }
}
