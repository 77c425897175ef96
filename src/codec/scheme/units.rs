//! The units that a tensor is worked on in: see [`super::payload`].

use super::bits::packed_len;
use super::definition::{Scheme, TokenCounts};
use crate::codec::geometry::Geometry;
use std::ops::Range;

/// Values of a unit that need not be larger: 16 KiB of f32.
pub(super) const UNIT: usize = 1 << 12;

/// Rows `first .. first + rows`, sinks not counted, of each of `heads` heads from `head` on.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub head: usize,
    pub heads: usize,
    pub first: usize,
    pub rows: usize,
    /// Its share of the scales, bytes; of the minima or zero points; and of the codes, bytes.
    pub scales: Range<usize>,
    pub offsets: Range<usize>,
    pub codes: Range<usize>,
}

impl Unit {
    pub fn values(&self, geometry: &Geometry) -> usize {
        self.heads * self.rows * geometry.head_dim
    }

    /// The rows of each head, of all rows of the unit.
    pub fn heads_mut<'r>(
        &self,
        rows: &'r mut [f32],
        geometry: &Geometry,
    ) -> std::slice::ChunksExactMut<'r, f32> {
        rows.chunks_exact_mut((self.rows * geometry.head_dim).max(1))
    }
}

/// The units of a tensor in order, each with its share of every part.
pub(super) fn units(
    scheme: &Scheme,
    counts: TokenCounts,
    geometry: &Geometry,
) -> impl Iterator<Item = Unit> {
    let TokenCounts { heads, quantised, .. } = counts;
    let dim = geometry.head_dim;
    let whole_bytes = |rows: usize| (rows * usize::from(scheme.bits)).is_multiple_of(8);
    let (heads_at_once, rows_at_once) = if scheme.channel && whole_bytes(quantised * dim.max(1)) {
        (1, quantised)
    } else if !scheme.channel && dim.max(1).is_multiple_of(scheme.group) && whole_bytes(dim.max(1))
    {
        (1, UNIT.div_ceil(dim.max(1)))
    } else {
        (heads, quantised)
    };
    let next = |at: &mut usize, len: usize| {
        *at += len;
        *at - len..*at
    };
    let (mut scales, mut offsets, mut codes) = (0, 0, 0);
    steps(heads, heads_at_once)
        .flat_map(move |heads| {
            steps(quantised, rows_at_once).map(move |rows| (heads.clone(), rows))
        })
        .map(move |(heads, rows)| {
            let groups = scheme.groups(heads.len(), rows.len(), dim);
            let has_offset = scheme.levels.offsets().is_some();
            let values = heads.len() * rows.len() * dim;
            Unit {
                head: heads.start,
                heads: heads.len(),
                first: rows.start,
                rows: rows.len(),
                scales: next(&mut scales, scheme.scales.bytes() * groups),
                offsets: next(&mut offsets, if has_offset { groups } else { 0 }),
                codes: next(&mut codes, packed_len(values, scheme.bits)),
            }
        })
}

/// Ranges of `total` in steps of `step`.
pub(super) fn steps(total: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total).step_by(step.max(1)).map(move |start| start..(start + step).min(total))
}
