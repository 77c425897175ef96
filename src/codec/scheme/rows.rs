//! The rows of one unit, in vectors: to codes and back. All of it knows f32 only, so that it is
//! compiled once, not for each type.

use super::bits::{pack, unpack};
use super::definition::Scheme;
use super::groups;
use super::units::Unit;
use crate::codec::convert::half_value;
use crate::codec::element::Element;
use crate::codec::exponent::PowerOfTwo;
use crate::codec::geometry::Geometry;
use crate::codec::transpose::transpose;
use half::f16;
use pulp::{Simd, WithSimd};

/// Whether stored numbers are within the range of their types; see [`groups::StoredParams`].
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredRange {
    pub in_range: bool,
    pub overflow: f32,
}

impl StoredRange {
    pub const NOTHING: Self = Self { in_range: true, overflow: 0.0 };

    pub fn and(self, other: Self) -> Self {
        let overflow = self.overflow.max(other.overflow);
        Self { in_range: self.in_range & other.in_range, overflow }
    }
}

/// Buffers that a thread keeps from unit to unit.
#[derive(Default)]
pub(super) struct Buffers {
    pub rows: Vec<f32>,
    /// Rows with channels and tokens exchanged.
    pub transposed: Vec<f32>,
    pub codes: Vec<u8>,
}

/// The first `len` of a buffer that grows.
pub(super) fn at_least<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// One unit: rows → codes.
pub(super) struct Encode<'a> {
    pub context: RowContext<'a>,
    pub unit: &'a Unit,
    /// With the unit's rows.
    pub buffers: &'a mut Buffers,
    pub scales: &'a mut [u8],
    pub offsets: &'a mut [f16],
    pub codes: &'a mut [u8],
}

impl WithSimd for Encode<'_> {
    type Output = StoredRange;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> StoredRange {
        let Self { context, unit, .. } = self;
        let RowContext { geometry, scheme, .. } = context;
        let (dim, len) = (geometry.head_dim, unit.values(geometry));
        let Buffers { rows, transposed, codes } = self.buffers;
        let (rows, codes) = (at_least(rows, len), at_least(codes, len));
        for (index, rows) in unit.heads_mut(rows, geometry).enumerate() {
            context.forward(simd, rows, unit.first, unit.head + index);
        }
        let (line, _) = scheme.lines(unit.heads, unit.rows, dim);
        let lines: &[f32] = if scheme.channel {
            let transposed = at_least(transposed, len);
            transpose(simd, rows, unit.rows, dim, transposed);
            transposed
        } else {
            rows
        };
        // A value that overflowed on the way here may be lost on a group: infinities less each other.
        let in_range = f32::absmax(lines).is_finite();
        let mut range = StoredRange { in_range, overflow: 0.0 };
        let mut offsets = self.offsets.iter_mut();
        let mut scales = self.scales.chunks_exact_mut(scheme.scales.bytes().max(1));
        let line = line.max(1);
        for (line, codes) in lines.chunks(line).zip(codes.chunks_mut(line)) {
            for (group, codes) in line.chunks(scheme.group).zip(codes.chunks_mut(scheme.group)) {
                let RowContext { tensor_scale, passes, .. } = context;
                let params = groups::encode(simd, group, scheme, tensor_scale, passes, codes);
                let (in_range, overflow) = (params.in_range, params.overflow);
                range = range.and(StoredRange { in_range, overflow });
                if let Some(scale) = scales.next() {
                    scale.copy_from_slice(&params.scale_bits().to_le_bytes()[..scale.len()]);
                }
                if let Some(offset) = offsets.next() {
                    *offset = params.minimum();
                }
            }
        }
        pack(codes, scheme.bits, self.codes);
        range
    }
}

/// One unit: codes → rows, which are left in the buffers.
pub(super) struct Decode<'a> {
    pub context: RowContext<'a>,
    pub unit: &'a Unit,
    pub buffers: &'a mut Buffers,
    pub scales: &'a [u8],
    pub offsets: &'a [f16],
    pub codes: &'a [u8],
}

impl WithSimd for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { context, unit, .. } = self;
        let RowContext { geometry, scheme, .. } = context;
        let (dim, len) = (geometry.head_dim, unit.values(geometry));
        let Buffers { rows, transposed, codes } = self.buffers;
        let (rows, codes) = (at_least(rows, len), at_least(codes, len));
        unpack(self.codes, scheme.bits, codes);
        let lines = if scheme.channel { at_least(transposed, len) } else { &mut *rows };
        let (line, _) = scheme.lines(unit.heads, unit.rows, dim);
        let line = line.max(1);
        let mut offsets = self.offsets.iter();
        let mut scales = self.scales.chunks_exact(scheme.scales.bytes().max(1));
        for (line, codes) in lines.chunks_mut(line).zip(codes.chunks(line)) {
            for (group, codes) in line.chunks_mut(scheme.group).zip(codes.chunks(scheme.group)) {
                let scale = scheme.scales.value(scales.next().unwrap_or_default());
                let scale = scale * context.tensor_scale;
                let offset = offsets.next().copied().unwrap_or_default();
                let offset = half_value(offset.to_bits());
                groups::decode(codes, scheme, scale, offset, group);
            }
        }
        if scheme.channel {
            transpose(simd, at_least(transposed, len), dim, unit.rows, rows);
        }
        for (index, rows) in unit.heads_mut(rows, geometry).enumerate() {
            context.back(simd, rows, unit.first, unit.head + index);
        }
    }
}

/// Adds rows of one head, channel by channel, as the mean is taken of them.
pub(super) struct AddRows<'a> {
    pub context: RowContext<'a>,
    pub rows: &'a mut [f32],
    /// The first of them, sinks not counted.
    pub first: usize,
    pub sums: &'a mut [f64],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.context.before_rope(simd, self.rows, self.first);
        for row in self.rows.chunks_exact(self.context.geometry.head_dim) {
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
        }
    }
}

/// How the rows of a tensor are mapped before quantisation, and after it.
#[derive(Clone, Copy)]
pub(super) struct RowContext<'a> {
    pub geometry: &'a Geometry<'a>,
    pub scheme: &'a Scheme,
    pub exponent: i32,
    /// What stored scales are in units of.
    pub tensor_scale: f32,
    /// Of levels whose zero points take passes over all groups.
    pub passes: usize,
    /// [heads, head_dim]; none without `ctr`.
    pub means: &'a [f16],
    /// Tokens a head that are set apart.
    pub sinks: usize,
}

/// The first of the rows mapped is row `first` of `head`, sinks not counted.
impl RowContext<'_> {
    /// Scaled by the exponent and rotated back to position 0.
    #[inline(always)]
    fn before_rope<S: Simd>(&self, simd: S, rows: &mut [f32], first: usize) {
        PowerOfTwo::scale(-self.exponent, rows);
        self.rope(simd, true, rows, first);
    }

    #[inline(always)]
    fn forward<S: Simd>(&self, simd: S, rows: &mut [f32], first: usize, head: usize) {
        self.before_rope(simd, rows, first);
        self.centre(rows, head, |x, mean| *x -= mean);
        self.scheme.rotation.forward(simd, rows, self.geometry.head_dim);
    }

    #[inline(always)]
    fn back<S: Simd>(&self, simd: S, rows: &mut [f32], first: usize, head: usize) {
        self.scheme.rotation.back(simd, rows, self.geometry.head_dim);
        self.centre(rows, head, |x, mean| *x += mean);
        self.rope(simd, false, rows, first);
        PowerOfTwo::scale(self.exponent, rows);
    }

    #[inline(always)]
    fn rope<S: Simd>(&self, simd: S, back: bool, rows: &mut [f32], first: usize) {
        if let (true, Some(table)) = (self.scheme.prerope, self.geometry.rope) {
            table.rotate_rows(simd, self.geometry.first + self.sinks + first, back, rows);
        }
    }

    #[inline(always)]
    fn centre(&self, rows: &mut [f32], head: usize, step: impl Fn(&mut f32, f32)) {
        let dim = self.geometry.head_dim;
        let means = self.means.get(head * dim..(head + 1) * dim).unwrap_or_default();
        if means.is_empty() {
            return;
        }
        let means: Vec<f32> = means.iter().map(|mean| mean.to_f32()).collect();
        for row in rows.chunks_exact_mut(dim) {
            for (x, mean) in row.iter_mut().zip(&means) {
                step(x, *mean);
            }
        }
    }
}
