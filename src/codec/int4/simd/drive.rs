//! The way through a block that vector kernels share.

use super::super::block::{BlockLayout, BlockOutcome};
use super::super::scalar::{self, GroupScale};
use crate::codec::distortion::{BATCH, CELL_LANES, RunBuilder, add_lanes, is_trusted};
use crate::codec::element::{Element, Kind};
use crate::codec::exponent::PowerOfTwo;
use core::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
use half::{bf16, f16};

/// Groups whose scales are worked out together.
pub const GROUPS: usize = 32;
/// Values of a strip at most: it is read twice, the second time from the nearest cache.
const STRIP: usize = 2048;

/// The functions of one instruction set.
///
/// # Safety
///
/// All may be called only where the instruction set is available.
pub unsafe trait Kernel {
    /// Scales of at most [`GROUPS`] whole groups, as [`GroupScale::of`] says.
    unsafe fn factors<T: Element>(
        values: &[T],
        group: usize,
        down: PowerOfTwo,
        scales: &mut [f16],
        factors: &mut Factors,
    );

    /// Quantises and measures the stream's next values: whole units of `REGISTERS` · 16.
    /// `PLAIN`: the exponent is 0 and no group needs saturation.
    unsafe fn units<T: Element, const PLAIN: bool, const REGISTERS: usize>(
        stream: &mut Stream,
        factors: &Factors,
        values: &[T],
        codes: &mut [u8],
    );

    /// Hands on Σx², Σx·e and Σe² of cells, so that what is done with them is compiled for the
    /// instruction set.
    unsafe fn finish_cells(cells: &[CellLanes; BATCH], take: impl FnOnce(&[[f32; BATCH]; 3]));

    /// Decodes whole groups with finite scales. `PLAIN`: the exponent is 0, and 8 scales do not
    /// round to infinity.
    unsafe fn decompress_groups<T: Element, const PLAIN: bool>(
        codes: &[u8],
        scales: &[f16],
        group: usize,
        up: PowerOfTwo,
        out: &mut [T],
    );
}

/// How some groups are quantised.
#[repr(align(64))]
pub struct Factors {
    /// The factors of codes, 0 where the group has no usable scale, ...
    pub scales: [f32; GROUPS],
    /// ... and values.
    pub inverses: [f32; GROUPS],
    pub finite: bool,
    pub in_range: bool,
    /// Codes and decoded values need no saturation.
    pub plain: bool,
}

impl Factors {
    fn new() -> Self {
        let none = [0.0; GROUPS];
        Self { scales: none, inverses: none, finite: true, in_range: true, plain: true }
    }

    /// One group, from its largest magnitude over 2^exponent.
    fn of_one(absmax: f32, scale: &mut f16) -> Self {
        let group = GroupScale::of(absmax);
        *scale = group.rounded;
        let mut factors = Self::new();
        factors.inverses[0] = group.inverse;
        factors.scales[0] = if group.inverse > 0.0 { group.rounded.to_f32() } else { 0.0 };
        factors.finite = absmax.is_finite();
        factors.in_range = group.in_range;
        factors.plain = false;
        factors
    }
}

/// Lane sums of a cell: Σx², Σx·e and Σe².
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct CellLanes(pub [[f32; CELL_LANES]; 3]);

/// Cells that wait for their lanes to be added up: a batch, and what a strip may add to one that
/// is not full.
pub struct Cells {
    pub lanes: [CellLanes; 2 * BATCH],
    pub filled: usize,
}

/// Where a kernel stands.
pub struct Stream {
    pub up: PowerOfTwo,
    pub down: PowerOfTwo,
    pub group: usize,
    /// The group under way, among those of the strip, and its values to come.
    pub index: usize,
    pub group_left: usize,
    /// The cell under way.
    pub sums: CellLanes,
    /// Its values to come; then it moves to `cells`, and the next has `cell` values.
    pub cell_left: usize,
    pub cell: usize,
    pub cells: Cells,
}

/// Groups and head vectors are whole registers, and neither half of 2^exponent nor its inverse
/// over- or underflows.
pub fn suits(group: usize, head_dim: usize, exponent: i32) -> bool {
    group.is_multiple_of(CELL_LANES)
        && head_dim.is_multiple_of(CELL_LANES)
        && head_dim > 0
        && (-252..=252).contains(&exponent)
}

/// [`scalar::compress_block`] where it [`suits`].
///
/// # Safety
///
/// `K` is available.
pub unsafe fn compress<K: Kernel, T: Element>(
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &mut [u8],
    scales: &mut [f16],
) -> BlockOutcome {
    let whole =
        |unit: usize| layout.group.is_multiple_of(unit) && layout.head_dim.is_multiple_of(unit);
    // SAFETY: by contract.
    unsafe {
        if whole(4 * CELL_LANES) {
            compress_units::<K, T, 4>(values, layout, exponent, codes, scales)
        } else if whole(2 * CELL_LANES) {
            compress_units::<K, T, 2>(values, layout, exponent, codes, scales)
        } else {
            compress_units::<K, T, 1>(values, layout, exponent, codes, scales)
        }
    }
}

unsafe fn compress_units<K: Kernel, T: Element, const REGISTERS: usize>(
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &mut [u8],
    scales: &mut [f16],
) -> BlockOutcome {
    let BlockLayout { group, head_dim, .. } = layout;
    let unit = REGISTERS * CELL_LANES;
    // No more than BATCH cells end in a strip.
    let strip = STRIP.min(BATCH.saturating_mul(head_dim)) / unit * unit;
    let mut run = RunBuilder::new(head_dim, layout.start, exponent);
    let mut stream = Stream {
        up: PowerOfTwo::new(exponent),
        down: PowerOfTwo::new(-exponent),
        group,
        index: 0,
        group_left: group,
        sums: CellLanes([[0.0; CELL_LANES]; 3]),
        cell_left: usize::MAX,
        cell: head_dim,
        cells: Cells { lanes: [CellLanes([[0.0; CELL_LANES]; 3]); 2 * BATCH], filled: 0 },
    };
    let mut in_range = true;
    // The groups of a strip, and the way from their largest magnitudes to their scales. It is a
    // chain of slow instructions: the next strip's is under way while this one is quantised.
    let down = stream.down;
    let survey = |first: usize, scales: &mut [f16], factors: &mut Factors| {
        let start = first * group;
        let whole_groups = (values.len() - start) / group;
        let count = (strip / group).clamp(1, GROUPS).min(whole_groups.max(1));
        let end = values.len().min(start + count * group);
        if whole_groups > 0 {
            let scales = &mut scales[first..first + count];
            // SAFETY: available, by contract.
            unsafe { K::factors(&values[start..end], group, down, scales, factors) };
        } else {
            let absmax = down.times(T::absmax(&values[start..end]));
            *factors = Factors::of_one(absmax, &mut scales[first]);
        }
        (first + count, end)
    };
    let (mut now, mut ahead) = (&mut Factors::new(), &mut Factors::new());
    let mut next = (0, 0);
    if !values.is_empty() {
        next = survey(0, scales, ahead);
    }
    let mut at = 0;
    // The cell under way.
    let (mut cell_start, mut cell_left) = (0, run.next_cell());
    while at < values.len() {
        std::mem::swap(&mut now, &mut ahead);
        let (first, end) = next;
        if first < scales.len() {
            next = survey(first, scales, ahead);
        }
        if !now.finite {
            return BlockOutcome { finite: false, in_range, distortion: Default::default() };
        }
        in_range &= now.in_range;
        let plain = exponent == 0 && now.plain;
        let units =
            if plain { K::units::<T, true, REGISTERS> } else { K::units::<T, false, REGISTERS> };
        (stream.index, stream.group_left) = (0, group);
        while at < end {
            let vectors = run.cells_are_vectors();
            let part = (end - at).min(strip).min(if vectors { strip } else { cell_left });
            if part >= unit {
                let part = part / unit * unit;
                stream.cell_left = if vectors { cell_left } else { usize::MAX };
                let next = at + part;
                // SAFETY: available, by contract.
                unsafe { units(&mut stream, now, &values[at..next], &mut codes[at / 2..next / 2]) };
                cell_left = if vectors { stream.cell_left } else { cell_left - part };
                at = next;
            } else {
                // The block's last values, filled up with zeros, which change no sum.
                let mut padded = ([T::default(); 4 * CELL_LANES], [0; 2 * CELL_LANES]);
                padded.0[..part].copy_from_slice(&values[at..end]);
                stream.cell_left = usize::MAX;
                // SAFETY: available, by contract.
                unsafe { units(&mut stream, now, &padded.0[..unit], &mut padded.1[..unit / 2]) };
                let codes = &mut codes[at / 2..];
                codes.copy_from_slice(&padded.1[..codes.len()]);
                cell_left -= part;
                at = end;
            }
            let last = at == values.len();
            while stream.cells.filled >= BATCH || (last && stream.cells.filled > 0) {
                let count = stream.cells.filled.min(BATCH);
                let take = |sums: &[[f32; BATCH]; 3]| {
                    run.add_vectors(sums, count, |index| {
                        let start = cell_start + index * head_dim;
                        let cell = &values[start..start + head_dim];
                        scalar::measure_exactly(cell, start, group, exponent, codes, scales)
                    });
                };
                if let Some(batch) = stream.cells.lanes.first_chunk() {
                    // SAFETY: available, by contract.
                    unsafe { K::finish_cells(batch, take) };
                }
                stream.cells.lanes.copy_within(BATCH..BATCH + stream.cells.filled - count, 0);
                stream.cells.filled -= count;
                cell_start += count * head_dim;
            }
            if cell_left == 0 || (last && at > cell_start) {
                let CellLanes(lanes) = stream.sums;
                stream.sums = CellLanes([[0.0; CELL_LANES]; 3]);
                let mut sums = lanes.map(|lanes| f64::from(add_lanes(lanes)));
                if !is_trusted(sums[0], sums[1], sums[2]) {
                    let cell = &values[cell_start..at];
                    sums =
                        scalar::measure_exactly(cell, cell_start, group, exponent, codes, scales);
                }
                run.add(sums, at - cell_start);
                (cell_start, cell_left) = (at, run.next_cell());
            }
        }
    }
    BlockOutcome { finite: true, in_range, distortion: run.finish() }
}

/// [`scalar::decompress_block`] where it [`suits`].
///
/// # Safety
///
/// `K` is available.
pub unsafe fn decompress<K: Kernel, T: Element>(
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    out: &mut [T],
) {
    let mut whole = out.len() / group;
    let largest = f16::absmax(scales);
    // An infinite scale makes NaN of zeros; only a damaged file has one.
    if !largest.is_finite() {
        whole = 0;
    }
    // Code −8, which nothing writes, is decoded as well.
    let plain = exponent == 0 && 8.0 / 7.0 * largest < saturating_scale::<T>();
    let (vector_codes, codes) = codes.split_at(whole * group / 2);
    let (vector_scales, scales) = scales.split_at(whole);
    let (vector_out, out) = out.split_at_mut(whole * group);
    let up = PowerOfTwo::new(exponent);
    // SAFETY: available, by contract.
    unsafe {
        if plain {
            K::decompress_groups::<T, true>(vector_codes, vector_scales, group, up, vector_out);
        } else {
            K::decompress_groups::<T, false>(vector_codes, vector_scales, group, up, vector_out);
        }
    }
    scalar::decompress_block(codes, scales, group, exponent, out);
}

/// Asks for values and codes that lie ahead of these. The hardware does so too, but late for a
/// stream that is worked on in strips: two of them lie between, of which the second has been
/// read for its scales.
#[inline(always)]
pub fn prefetch<T>(values: &[T], codes: &[u8]) {
    let ahead = values.as_ptr().wrapping_add(3 * STRIP).cast::<i8>();
    for line in (0..size_of_val(values)).step_by(64) {
        // SAFETY: a hint, for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line)) };
    }
    let ahead = codes.as_ptr().wrapping_add(3 * STRIP / 2).cast::<i8>();
    // SAFETY: a hint, for any address.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(ahead) };
}

/// The largest finite number.
pub fn max_of<T: Element>() -> f32 {
    match T::KIND {
        Kind::F16 => f16::MAX.to_f32_const(),
        Kind::Bf16 => bf16::MAX.to_f32_const(),
        Kind::F32 => f32::MAX,
    }
}

/// Scales from here on need saturation, when codes are 7 at most and the exponent is 0: 7 scales
/// would round to infinity.
pub fn saturating_scale<T: Element>() -> f32 {
    match T::KIND {
        Kind::F16 => 65_520.0 / 7.0,
        Kind::Bf16 | Kind::F32 => f32::INFINITY,
    }
}

/// Codes in the order of their four lowest bits.
pub const SIGNED_LEVELS: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0];
/// Codes in the order in which they are stored.
pub const STORED_LEVELS: [f32; 16] =
    [-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
