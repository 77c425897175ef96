//! The rows of one unit, in vectors: to codes and back. All of it knows f32 only, so that it is
//! compiled once, not for each type.

use super::units::Unit;
use crate::codec::bits::{pack, unpack};
use crate::codec::element::Element;
use crate::codec::groups::{self, Side};
use crate::codec::scalar::PowerOfTwo;
use crate::codec::scheme::{Geometry, Rotation, Scheme};
use crate::codec::transform::{flip_signs, hadamard, hadamard_block};
use crate::lanes::{self, LANES};
use half::f16;
use pulp::{Simd, WithSimd};

/// How what is stored fits its types; see [`Side`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    pub in_range: bool,
    pub excess: f32,
}

impl Fit {
    pub const NOTHING: Self = Self { in_range: true, excess: 0.0 };

    pub fn and(self, other: Self) -> Self {
        Self { in_range: self.in_range & other.in_range, excess: self.excess.max(other.excess) }
    }
}

/// What a thread keeps from unit to unit.
#[derive(Default)]
pub(super) struct Buffers {
    pub rows: Vec<f32>,
    pub turned: Vec<f32>,
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
    pub geometry: &'a Geometry<'a>,
    pub scheme: &'a Scheme,
    pub exponent: i32,
    pub means: &'a [f16],
    pub sinks: usize,
    pub unit: Unit,
    /// With the unit's rows.
    pub buffers: &'a mut Buffers,
    pub scales: &'a mut [u8],
    pub minima: &'a mut [f16],
    pub codes: &'a mut [u8],
}

impl WithSimd for Encode<'_> {
    type Output = Fit;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Fit {
        let Self { geometry, scheme, unit, .. } = self;
        let (dim, len) = (geometry.head_dim, unit.values(geometry));
        let Buffers { rows, turned, codes } = self.buffers;
        let (rows, codes) = (at_least(rows, len), at_least(codes, len));
        let map = RowMap::new(scheme, geometry, self.exponent);
        for (index, rows) in unit.heads_mut(rows, geometry).enumerate() {
            let first = geometry.first + self.sinks + unit.first;
            map.forward(simd, rows, first, channel_means(self.means, unit.head + index, dim));
        }
        let (line, _) = scheme.lines(unit.heads, unit.rows, dim);
        let lines: &[f32] = if scheme.channel {
            let turned = at_least(turned, len);
            transpose(simd, rows, unit.rows, dim, turned);
            turned
        } else {
            rows
        };
        // What overflowed on the way here may be lost on a group: infinities less each other.
        let mut fit = Fit { in_range: f32::absmax(lines).is_finite(), excess: 0.0 };
        let mut minima = self.minima.iter_mut();
        let mut scales = self.scales.chunks_exact_mut(scheme.scale_bytes());
        let line = line.max(1);
        for (line, codes) in lines.chunks(line).zip(codes.chunks_mut(line)) {
            for (group, codes) in line.chunks(scheme.group).zip(codes.chunks_mut(scheme.group)) {
                let side: Side = groups::encode(simd, group, scheme, codes);
                fit = fit.and(Fit { in_range: side.in_range, excess: side.excess });
                if let Some(scale) = scales.next() {
                    scale.copy_from_slice(&side.scale_bits().to_le_bytes()[..scale.len()]);
                }
                if let Some(minimum) = minima.next() {
                    *minimum = side.minimum();
                }
            }
        }
        pack(codes, scheme.bits, self.codes);
        fit
    }
}

/// One unit: codes → rows, which are left in the buffers.
pub(super) struct Decode<'a> {
    pub geometry: &'a Geometry<'a>,
    pub scheme: &'a Scheme,
    pub exponent: i32,
    pub means: &'a [f16],
    pub sinks: usize,
    pub unit: Unit,
    pub buffers: &'a mut Buffers,
    pub scales: &'a [u8],
    pub minima: &'a [f16],
    pub codes: &'a [u8],
}

impl WithSimd for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { geometry, scheme, unit, .. } = self;
        let (dim, len) = (geometry.head_dim, unit.values(geometry));
        let Buffers { rows, turned, codes } = self.buffers;
        let (rows, codes) = (at_least(rows, len), at_least(codes, len));
        unpack(self.codes, scheme.bits, codes);
        let lines = if scheme.channel { at_least(turned, len) } else { &mut *rows };
        let (line, _) = scheme.lines(unit.heads, unit.rows, dim);
        let line = line.max(1);
        let mut minima = self.minima.iter();
        let mut scales = self.scales.chunks_exact(scheme.scale_bytes());
        for (line, codes) in lines.chunks_mut(line).zip(codes.chunks(line)) {
            for (group, codes) in line.chunks_mut(scheme.group).zip(codes.chunks(scheme.group)) {
                let scale = stored_scale(scales.next().unwrap_or_default());
                let minimum = minima.next().copied().unwrap_or_default();
                let minimum = groups::half_value(minimum.to_bits());
                groups::decode(codes, scheme, scale, minimum, group);
            }
        }
        if scheme.channel {
            transpose(simd, at_least(turned, len), dim, unit.rows, rows);
        }
        let map = RowMap::new(scheme, geometry, self.exponent);
        for (index, rows) in unit.heads_mut(rows, geometry).enumerate() {
            let means = channel_means(self.means, unit.head + index, dim);
            map.back(simd, rows, geometry.first + self.sinks + unit.first, means);
        }
    }
}

#[inline(always)]
fn stored_scale(bytes: &[u8]) -> f32 {
    match *bytes {
        [small] => groups::small_scale(small),
        [low, high] => groups::half_value(u16::from_le_bytes([low, high])),
        _ => 0.0,
    }
}

/// Those of one head; none where there are none.
fn channel_means(means: &[f16], head: usize, dim: usize) -> &[f16] {
    means.get(head * dim..(head + 1) * dim).unwrap_or_default()
}

/// [rows, columns] → [columns, rows], or with heads above each other [heads·rows, columns] where
/// `rows` is that of one head. In squares, whose rows fill the cache lines they are in.
#[inline(always)]
fn transpose<S: Simd>(simd: S, from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
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

/// Adds rows of one head, channel by channel, as the mean is taken of them.
pub(super) struct AddRows<'a> {
    pub geometry: &'a Geometry<'a>,
    pub scheme: &'a Scheme,
    pub exponent: i32,
    pub rows: &'a mut [f32],
    /// Position of the first of them.
    pub first: usize,
    pub sums: &'a mut [f64],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let map = RowMap::new(self.scheme, self.geometry, self.exponent);
        map.unturned(simd, self.rows, self.first);
        for row in self.rows.chunks_exact(self.geometry.head_dim) {
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
        }
    }
}

/// What happens to rows before quantisation, and after it.
struct RowMap<'a> {
    scheme: &'a Scheme,
    geometry: &'a Geometry<'a>,
    exponent: i32,
    block: usize,
}

impl<'a> RowMap<'a> {
    fn new(scheme: &'a Scheme, geometry: &'a Geometry, exponent: i32) -> Self {
        Self { scheme, geometry, exponent, block: hadamard_block(geometry.head_dim.max(1)) }
    }

    /// Scaled by the exponent and turned back to position 0. The first row is at `position`.
    #[inline(always)]
    fn unturned<S: Simd>(&self, simd: S, rows: &mut [f32], position: usize) {
        if self.exponent != 0 {
            let down = PowerOfTwo::new(-self.exponent);
            for x in rows.iter_mut() {
                *x = down.times(*x);
            }
        }
        if let (true, Some(rope)) = (self.scheme.prerope, self.geometry.rope) {
            for (index, row) in rows.chunks_exact_mut(self.geometry.head_dim).enumerate() {
                rope.turn(simd, position + index, true, row);
            }
        }
    }

    #[inline(always)]
    fn forward<S: Simd>(&self, simd: S, rows: &mut [f32], position: usize, means: &[f16]) {
        self.unturned(simd, rows, position);
        self.centre(rows, means, |x, mean| *x -= mean);
        if self.scheme.rotation == Rotation::SignedHadamard {
            for row in rows.chunks_exact_mut(self.geometry.head_dim) {
                flip_signs(row);
            }
        }
        if self.scheme.rotation != Rotation::None {
            hadamard(simd, rows, self.block);
        }
    }

    #[inline(always)]
    fn back<S: Simd>(&self, simd: S, rows: &mut [f32], position: usize, means: &[f16]) {
        if self.scheme.rotation != Rotation::None {
            hadamard(simd, rows, self.block);
        }
        if self.scheme.rotation == Rotation::SignedHadamard {
            for row in rows.chunks_exact_mut(self.geometry.head_dim) {
                flip_signs(row);
            }
        }
        self.centre(rows, means, |x, mean| *x += mean);
        if let (true, Some(rope)) = (self.scheme.prerope, self.geometry.rope) {
            for (index, row) in rows.chunks_exact_mut(self.geometry.head_dim).enumerate() {
                rope.turn(simd, position + index, false, row);
            }
        }
        if self.exponent != 0 {
            let up = PowerOfTwo::new(self.exponent);
            for x in rows.iter_mut() {
                *x = up.times(*x);
            }
        }
    }

    #[inline(always)]
    fn centre(&self, rows: &mut [f32], means: &[f16], step: impl Fn(&mut f32, f32)) {
        if means.is_empty() {
            return;
        }
        let means: Vec<f32> = means.iter().map(|mean| mean.to_f32()).collect();
        for row in rows.chunks_exact_mut(self.geometry.head_dim) {
            for (x, mean) in row.iter_mut().zip(&means) {
                step(x, *mean);
            }
        }
    }
}
