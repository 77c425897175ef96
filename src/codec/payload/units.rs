//! What a tensor is cut into: see [`super`].

use crate::codec::scheme::{Geometry, PartSizes, Scheme, steps};

/// Values of a unit that need not be larger: 16 KiB of f32.
pub(super) const UNIT: usize = 1 << 12;

/// Rows `first .. first + rows`, sinks not counted, of each of `heads` heads from `head` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    pub head: usize,
    pub heads: usize,
    pub first: usize,
    pub rows: usize,
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

    pub fn groups(&self, scheme: &Scheme, geometry: &Geometry) -> usize {
        scheme.groups(self.heads, self.rows, geometry.head_dim)
    }
}

pub(super) struct Units {
    heads: usize,
    body: usize,
    heads_at_once: usize,
    rows_at_once: usize,
}

impl Units {
    pub fn new(scheme: &Scheme, sizes: &PartSizes, geometry: &Geometry) -> Self {
        let (heads, body, dim) = (sizes.heads, sizes.body, geometry.head_dim.max(1));
        let whole_bytes = (dim * usize::from(scheme.bits)).is_multiple_of(8);
        let head_bytes = (body * dim * usize::from(scheme.bits)).is_multiple_of(8);
        let (heads_at_once, rows_at_once) = if scheme.channel && head_bytes {
            (1, body)
        } else if !scheme.channel && dim.is_multiple_of(scheme.group) && whole_bytes {
            (1, UNIT.div_ceil(dim))
        } else {
            (heads, body)
        };
        Self { heads, body, heads_at_once, rows_at_once }
    }

    pub fn iter(&self) -> impl Iterator<Item = Unit> {
        steps(self.heads, self.heads_at_once).flat_map(move |heads| {
            steps(self.body, self.rows_at_once).map(move |rows| Unit {
                head: heads.start,
                heads: heads.len(),
                first: rows.start,
                rows: rows.len(),
            })
        })
    }
}
