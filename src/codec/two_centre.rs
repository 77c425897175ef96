//! `kvgauge4`: two centres, a Hadamard rotation, levels fitted to what that leaves, and noise
//! shaping.
//!
//! What it is made of, each step for its reason:
//!
//! - **Keys before RoPE** (`prerope`): what repeats from token to token is there in full.
//! - **Two centres.** Keys (and less so values) of a head lie around their mean; but the first
//!   token, and a few later ones that models use in the same way, lie around the first token
//!   (attention sinks, Xiao et al. 2024). A token is stored as its difference to the nearer of the
//!   two, which one bit says. The first token is exact.
//! - **The mean is that of the tokens decoded so far**, taken anew at tokens 2, 3, 4, 6, 8, 12, 16,
//!   24 …: it takes no room, and a stream knows it.
//! - **Hadamard** (QuaRot, Ashkboos et al. 2024) in blocks of 64 channels makes what is left
//!   nearly Gaussian.
//! - **Levels** that code such a block with the least squared error (Lloyd 1982), with a scale of
//!   2^(k/8): 19 for keys, four codes in 17 bits, and 16 for values.
//! - **Noise shaping** (`shape`), known to the encoder only: queries weigh the channels that RoPE
//!   turns slowly most, so the error is moved to the others, each code taking up what earlier ones
//!   left (LDLQ, Chee et al. 2023). Data-free: the weights are constants.
//!
//! Numbers of one block, every step one rounding to f32: scale s = 2^(k/8), level
//! l(n) = n·(a + n²·(b + n²·c)), value = rotated (l(n)·s) + centre.

use super::element::Element;
use super::packing::PartType;
use super::scalar::PowerOfTwo;
use super::scheme::{Geometry, Part};
use super::transform::Rope;
use crate::error::{Error, Result};
use half::f16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Channels of a block at most: what shares a scale and a choice of centre.
const BLOCK: usize = 64;
/// Tokens worked on together, one in each lane of the widest registers.
const LANES: usize = 16;
type Lane = [f32; LANES];

/// How one tensor is stored with two centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TwoCentre {
    pub levels: FittedLevels,
    pub prerope: bool,
    pub shaped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FittedLevels {
    /// ±½, ±1½ … ±7½; 4 bits.
    Sixteen,
    /// −9 … 9; 4.25 bits.
    Nineteen,
}

/// Levels and how to find the nearest.
struct LevelCurve {
    /// Code 0 stands for this n.
    lowest: f32,
    /// Of l(n).
    level: [f32; 3],
    /// n of a value t in units of the scale: t·(c₀ + t²·(c₁ + t²·(c₂ + t²·c₃))), rounded to a
    /// code. An encoder may do otherwise.
    position: [f32; 4],
    /// What is larger counts as this large.
    reach: f32,
}

const SIXTEEN: LevelCurve = LevelCurve {
    lowest: -7.5,
    level: [0.109_445_1, 9.441_03e-5, 9.761_447e-6],
    position: [9.172_29, -1.622_747_3, -1.801_578_2, 1.391_444_1],
    reach: 1.26,
};
const NINETEEN: LevelCurve = LevelCurve {
    lowest: -9.0,
    level: [0.093_653_87, 2.897_904e-6, 4.539_905e-6],
    position: [10.748_083, -1.333_895_7, -2.668_33, 1.720_238_9],
    reach: 1.28,
};

impl FittedLevels {
    fn curve(self) -> &'static LevelCurve {
        match self {
            Self::Sixteen => &SIXTEEN,
            Self::Nineteen => &NINETEEN,
        }
    }

    /// Words of a block hold four codes each: their low 16 bits, and the highest one where codes
    /// are of 19 levels.
    fn code_bytes(self, block: usize) -> usize {
        let high = if self == Self::Nineteen { (block / 4).div_ceil(8) } else { 0 };
        block / 2 + high
    }

    fn count(self) -> f32 {
        match self {
            Self::Sixteen => 16.0,
            Self::Nineteen => 19.0,
        }
    }
}

impl LevelCurve {
    #[inline(always)]
    fn level(&self, n: f32) -> f32 {
        let square = n * n;
        n * (self.level[0] + square * (self.level[1] + square * self.level[2]))
    }

    /// The code whose level is nearest to `t`, as a whole number, nearly always.
    #[inline(always)]
    fn code(&self, t: f32) -> f32 {
        let t = bounded(t, -self.reach, self.reach);
        let square = t * t;
        let [a, b, c, d] = self.position;
        let n = t * (a + square * (b + square * (c + square * d)));
        bounded(whole(n - self.lowest), 0.0, -2.0 * self.lowest)
    }
}

/// Like clamp, but compiled to two instructions whatever the bounds.
#[inline(always)]
fn bounded(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// Rounded to a whole number, of what is small.
#[inline(always)]
fn whole(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5·2²³
    (x + MAGIC) - MAGIC
}

/// 2^(j/8), rounded to f32.
const EIGHTHS: [f32; 8] = [
    1.0,
    1.090_507_7,
    1.189_207_1,
    1.296_839_6,
    std::f32::consts::SQRT_2,
    1.542_210_8,
    1.681_792_9,
    1.834_008_1,
];
/// 2^((2j+1)/16): where the nearest of them changes.
const BETWEEN: [f32; 8] = [
    1.044_273_7,
    1.138_788_6,
    1.241_857_8,
    1.354_255_5,
    1.476_826_2,
    1.610_490_3,
    1.756_252_2,
    1.915_206_6,
];
/// Scale codes are k + 64; 0 is the scale 0.
const SCALE_BIAS: i32 = 64;
const LARGEST_SCALE: i32 = 127;
/// Scale codes tried, from the one nearest to the largest magnitude down.
const SCALES_TRIED: i32 = 3;
/// In a scale's byte: the centre is the first token.
const FIRST: u8 = 0x80;

#[inline(always)]
fn scale(code: i32) -> f32 {
    let k = code - SCALE_BIAS;
    let power = f32::from_bits(((127 + (k >> 3)) as u32) << 23);
    if code <= 0 { 0.0 } else { EIGHTHS[(k & 7) as usize] * power }
}

/// 64 + 8·log₂ of a magnitude, rounded; below 0 for what is too small, 0 included.
#[inline(always)]
fn scale_code(magnitude: f32) -> i32 {
    let bits = magnitude.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x7f_ffff | 127 << 23);
    let eighths: i32 = BETWEEN.iter().map(|edge| i32::from(mantissa >= *edge)).sum();
    (8 * exponent + eighths + SCALE_BIAS).clamp(-1, 256)
}

/// What a query's energy is taken to be in each eighth of the rotary frequencies, the fastest
/// first: 1, 1, 1, 1, 1, 2.5, 4, 4. With H₈ = Had·diag(these)·Had = U·D·Uᵀ, U upper with a
/// diagonal of ones, code j takes up U[i][j] times the error of each code i before it.
const FEEDBACK: [[f32; 8]; 8] = [
    [
        1.0,
        -0.101_694_9,
        -0.143_686_5,
        -0.076_142_13,
        -0.407_142_9,
        0.180_722_9,
        0.302_521,
        0.096_774_2,
    ],
    [0.0, 1.0, -0.087_082_73, -0.137_055_8, 0.107_142_9, -0.426_506, 0.126_050_4, 0.290_322_6],
    [0.0, 0.0, 1.0, -0.076_142_13, 0.192_857_1, 0.072_289_16, -0.478_991_6, 0.096_774_2],
    [0.0, 0.0, 0.0, 1.0, 0.107_142_9, 0.173_494, 0.050_420_17, -0.483_871],
    [0.0, 0.0, 0.0, 0.0, 1.0, -0.180_722_9, -0.302_521, -0.096_774_2],
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -0.126_050_4, -0.290_322_6],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -0.096_774_2],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
];

impl TwoCentre {
    /// Channels of a block: 64, or the largest power of two below it that divides the head vector.
    pub(super) fn block(head_dim: usize) -> usize {
        BLOCK.min(1 << head_dim.trailing_zeros())
    }

    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let dim = geometry.head_dim;
        if dim > 0 && Self::block(dim) < 8 {
            return Err(Error::input(format!(
                "two centres: expected head vectors of a multiple of 8 values, found {dim}"
            ))
            .hint("its blocks are powers of two"));
        }
        if self.prerope { geometry.check_rope() } else { Ok(()) }
    }

    /// See [`super::Packing::parts`].
    pub(super) fn parts(&self, values: usize, geometry: &Geometry) -> Vec<(Part, PartType, usize)> {
        let shape = Shape::new(self, values, geometry);
        let blocks = shape.heads * shape.rows * shape.blocks();
        vec![
            (Part::Sinks, PartType::Half, shape.heads * shape.dim),
            (Part::Scales, PartType::Byte, blocks),
            (Part::Codes, PartType::Byte, blocks * shape.bytes),
        ]
    }

    /// In the rotated block of a head vector of `head_dim`: how far apart the channels are that
    /// make up the eighths, `None` where they do not fit the block.
    fn eighths(&self, head_dim: usize) -> Option<usize> {
        match head_dim {
            // RoPE pairs channels i and i + 32: each half has all frequencies.
            64 if self.shaped => Some(4),
            128 if self.shaped => Some(8),
            _ => None,
        }
    }
}

/// Sizes of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    heads: usize,
    /// Tokens but the first.
    rows: usize,
    dim: usize,
    block: usize,
    /// Bytes of the codes of a block.
    bytes: usize,
}

impl Shape {
    fn new(codec: &TwoCentre, values: usize, geometry: &Geometry) -> Self {
        let heads = geometry.heads(values);
        let block = TwoCentre::block(geometry.head_dim.max(1));
        Self {
            heads,
            rows: geometry.tokens.saturating_sub(1),
            dim: geometry.head_dim,
            block,
            bytes: codec.levels.code_bytes(block),
        }
    }

    /// Blocks of a head vector.
    fn blocks(&self) -> usize {
        self.dim / self.block
    }
}

/// A tensor stored with two centres.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoCentrePayload {
    codec: TwoCentre,
    values: usize,
    shape: Shape,
    /// All numbers are stored divided by two to this power.
    pub exponent: i32,
    /// The first token, before RoPE if keys are. [heads, head_dim]
    first: Vec<f16>,
    /// Scale codes and choices of centre. [heads, tokens − 1, blocks]
    scales: Vec<u8>,
    /// [heads, tokens − 1, blocks, bytes]
    codes: Vec<u8>,
}

impl TwoCentrePayload {
    pub fn empty(codec: TwoCentre, values: usize, geometry: &Geometry) -> Self {
        let shape = Shape::new(&codec, values, geometry);
        let blocks = shape.heads * shape.rows * shape.blocks();
        Self {
            codec,
            values,
            shape,
            exponent: 0,
            first: vec![f16::ZERO; shape.heads * shape.dim],
            scales: vec![0; blocks],
            codes: vec![0; blocks * shape.bytes],
        }
    }

    /// `None` where a value is not finite.
    pub fn compress<T: Element>(
        values: &[T],
        codec: TwoCentre,
        geometry: &Geometry,
    ) -> Option<Self> {
        let absmax = T::absmax(values);
        if !absmax.is_finite() {
            return None;
        }
        let mut payload = Self::empty(codec, values.len(), geometry);
        // One optimistic pass; the rare tensor out of range is done again.
        if !payload.fill(values, geometry) {
            payload.exponent = exponent_for(absmax);
            payload.fill(values, geometry);
        }
        Some(payload)
    }

    /// Whether everything stored is in its type's range.
    fn fill<T: Element>(&mut self, values: &[T], geometry: &Geometry) -> bool {
        let (codec, shape, exponent) = (self.codec, self.shape, self.exponent);
        if self.values == 0 {
            return true;
        }
        let row = shape.dim;
        let per_head = shape.rows * shape.blocks();
        let heads = values
            .par_chunks_exact(geometry.tokens * row)
            .zip(self.first.par_chunks_exact_mut(row))
            .zip(chunks(&mut self.scales, per_head, shape.heads))
            .zip(chunks(&mut self.codes, per_head * shape.bytes, shape.heads));
        let encode = |(((values, first), scales), codes)| {
            let head = Head { codec, shape, exponent, geometry };
            Arch::new().dispatch(EncodeHead { head, values, first, scales, codes })
        };
        heads.map(encode).reduce(|| true, |a, b| a & b)
    }

    /// Writes the decoded values. `geometry` is that of compression.
    pub fn decompress<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        assert_eq!(out.len(), self.values, "output of another length than the payload");
        if self.values == 0 {
            return;
        }
        let (codec, shape, exponent) = (self.codec, self.shape, self.exponent);
        let row = shape.dim;
        let per_head = shape.rows * shape.blocks();
        out.par_chunks_exact_mut(geometry.tokens * row).enumerate().for_each(|(index, out)| {
            let blocks = index * per_head..(index + 1) * per_head;
            Arch::new().dispatch(DecodeHead {
                head: Head { codec, shape, exponent, geometry },
                first: &self.first[index * row..][..row],
                scales: &self.scales[blocks.clone()],
                codes: &self.codes[blocks.start * shape.bytes..blocks.end * shape.bytes],
                out,
            });
        });
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values
    }

    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// The bytes of each part, in order.
    pub fn parts(&self) -> Vec<&[u8]> {
        vec![bytemuck::cast_slice(&self.first), &self.scales, &self.codes]
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<&mut [u8]> {
        vec![bytemuck::cast_slice_mut(&mut self.first), &mut self.scales, &mut self.codes]
    }

    /// Whether all numbers but codes are finite, as every writer's are.
    pub fn is_finite(&self) -> bool {
        self.first.iter().all(|half| half.is_finite())
    }
}

/// Puts the largest magnitude between 2² and 2³: less its centre and rotated, a block of 64 stays
/// below the largest scale.
fn exponent_for(absmax: f32) -> i32 {
    f64::from(absmax).log2().floor() as i32 - 2
}

/// A chunk for each head, of no bytes too.
fn chunks(bytes: &mut [u8], size: usize, heads: usize) -> rayon::vec::IntoIter<&mut [u8]> {
    let mut rest = bytes;
    let chunk = |_| rest.split_off_mut(..size).unwrap_or_default();
    (0..heads).map(chunk).collect::<Vec<_>>().into_par_iter()
}

/// What the heads of a tensor have in common.
#[derive(Clone, Copy)]
struct Head<'a> {
    codec: TwoCentre,
    shape: Shape,
    exponent: i32,
    geometry: &'a Geometry<'a>,
}

impl Head<'_> {
    fn rope(&self) -> Option<&Rope> {
        self.geometry.rope.filter(|_| self.codec.prerope)
    }

    /// Rows of one head, the first at token `token`: widened, scaled, before RoPE.
    #[inline(always)]
    fn widen<T: Element>(&self, values: &[T], token: usize, rows: &mut [f32]) {
        T::widen(values, rows);
        if self.exponent != 0 {
            let down = PowerOfTwo::new(-self.exponent);
            rows.iter_mut().for_each(|x| *x = down.times(*x));
        }
        if let Some(rope) = self.rope() {
            for (index, row) in rows.chunks_exact_mut(self.shape.dim).enumerate() {
                rope.turn(self.geometry.first + token + index, true, row);
            }
        }
    }

    /// The way back.
    #[inline(always)]
    fn narrow<T: Element>(&self, rows: &mut [f32], token: usize, out: &mut [T]) {
        if let Some(rope) = self.rope() {
            for (index, row) in rows.chunks_exact_mut(self.shape.dim).enumerate() {
                rope.turn(self.geometry.first + token + index, false, row);
            }
        }
        if self.exponent != 0 {
            let up = PowerOfTwo::new(self.exponent);
            rows.iter_mut().for_each(|x| *x = up.times(*x));
        }
        T::narrow_saturating(rows, out);
    }

    /// Tokens from 1 on in runs that have one mean.
    fn segments(&self) -> Vec<std::ops::Range<usize>> {
        let end = self.shape.rows + 1;
        let starts = (1..usize::BITS - 1).flat_map(|n| [1 << n, 3 << (n - 1)]);
        let starts: Vec<usize> =
            [1].into_iter().chain(starts.take_while(|start| *start < end)).collect();
        let ends = starts.iter().skip(1).copied().chain([end]);
        starts.iter().zip(ends).map(|(start, end)| *start..end).filter(|s| !s.is_empty()).collect()
    }
}

fn widened(halves: &[f16]) -> Vec<f32> {
    halves.iter().map(|half| half.to_f32()).collect()
}

/// The mean of what was decoded so far, channel by channel, as f16; 0 without any.
struct RunningMean {
    sums: Vec<f64>,
    tokens: usize,
}

impl RunningMean {
    fn new(dim: usize) -> Self {
        Self { sums: vec![0.0; dim], tokens: 0 }
    }

    /// One row after the other.
    #[inline(always)]
    fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.sums.len()) {
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
            self.tokens += 1;
        }
    }

    fn mean(&self) -> Vec<f32> {
        let tokens = self.tokens.max(1) as f64;
        self.sums.iter().map(|sum| f16::from_f32((sum / tokens) as f32).to_f32()).collect()
    }
}

struct EncodeHead<'a, T> {
    head: Head<'a>,
    /// [tokens, head_dim]
    values: &'a [T],
    first: &'a mut [f16],
    scales: &'a mut [u8],
    codes: &'a mut [u8],
}

impl<T: Element> WithSimd for EncodeHead<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let Self { head, values, first, scales, codes } = self;
        let Shape { dim, block, bytes, .. } = head.shape;
        let blocks = head.shape.blocks();
        let mut rows = vec![0f32; LANES * dim];
        head.widen(&values[..dim], 0, &mut rows[..dim]);
        for (half, x) in first.iter_mut().zip(&rows) {
            *half = f16::from_f32(*x);
        }
        let mut in_range = first.iter().all(|half| half.is_finite());
        let first = widened(first);
        let mut decoded = vec![0f32; LANES * dim];
        let mut running = RunningMean::new(dim);
        let (levels, eighths) = (head.codec.levels, head.codec.eighths(dim));
        for segment in head.segments() {
            let mean = running.mean();
            for start in segment.clone().step_by(LANES) {
                let tokens = LANES.min(segment.end - start);
                let rows = &mut rows[..tokens * dim];
                head.widen(&values[start * dim..][..tokens * dim], start, rows);
                let decoded = &mut decoded[..tokens * dim];
                for index in 0..blocks {
                    let channels = index * block..(index + 1) * block;
                    let at = (start - 1) * blocks + index;
                    let tile = Tile {
                        levels,
                        dim,
                        blocks,
                        bytes,
                        tokens,
                        mean: &mean[channels.clone()],
                        first: &first[channels.clone()],
                        channels,
                    };
                    let (scales, codes) = (&mut scales[at..], &mut codes[at * bytes..]);
                    in_range &= match block {
                        64 => tile.encode::<64>(eighths, rows, scales, codes, decoded),
                        32 => tile.encode::<32>(eighths, rows, scales, codes, decoded),
                        16 => tile.encode::<16>(eighths, rows, scales, codes, decoded),
                        _ => tile.encode::<8>(eighths, rows, scales, codes, decoded),
                    };
                }
                running.add(decoded);
            }
        }
        in_range
    }
}

struct DecodeHead<'a, T> {
    head: Head<'a>,
    first: &'a [f16],
    scales: &'a [u8],
    codes: &'a [u8],
    /// [tokens, head_dim]
    out: &'a mut [T],
}

impl<T: Element> WithSimd for DecodeHead<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { head, first, scales, codes, out } = self;
        let Shape { dim, block, bytes, .. } = head.shape;
        let blocks = head.shape.blocks();
        let first = widened(first);
        head.narrow(&mut first.clone(), 0, &mut out[..dim]);
        let mut running = RunningMean::new(dim);
        let mut rows = vec![0f32; LANES * dim];
        for segment in head.segments() {
            let mean = running.mean();
            for start in segment.clone().step_by(LANES) {
                let tokens = LANES.min(segment.end - start);
                let rows = &mut rows[..tokens * dim];
                for index in 0..blocks {
                    let channels = index * block..(index + 1) * block;
                    let at = (start - 1) * blocks + index;
                    let tile = Tile {
                        levels: head.codec.levels,
                        dim,
                        blocks,
                        bytes,
                        tokens,
                        mean: &mean[channels.clone()],
                        first: &first[channels.clone()],
                        channels,
                    };
                    let (scales, codes) = (&scales[at..], &codes[at * bytes..]);
                    match block {
                        64 => tile.decode::<64>(scales, codes, rows),
                        32 => tile.decode::<32>(scales, codes, rows),
                        16 => tile.decode::<16>(scales, codes, rows),
                        _ => tile.decode::<8>(scales, codes, rows),
                    }
                }
                running.add(rows);
                head.narrow(rows, start, &mut out[start * dim..][..tokens * dim]);
            }
        }
    }
}

/// Up to [`LANES`] tokens of one block of channels. Inside, a token has a lane of its own.
///
/// Stored parts begin at the block of the first token; the same block of the next is `blocks`
/// further.
struct Tile<'a> {
    levels: FittedLevels,
    dim: usize,
    blocks: usize,
    /// Of the codes of a block.
    bytes: usize,
    tokens: usize,
    channels: std::ops::Range<usize>,
    mean: &'a [f32],
    first: &'a [f32],
}

impl Tile<'_> {
    /// `rows` and `decoded`: [tokens, head_dim], before RoPE. Gives whether all scales are there.
    #[inline(always)]
    fn encode<const N: usize>(
        &self,
        eighths: Option<usize>,
        rows: &[f32],
        scales: &mut [u8],
        codes: &mut [u8],
        decoded: &mut [f32],
    ) -> bool {
        let curve = self.levels.curve();
        let mut y = [[0f32; LANES]; N];
        for (lane, row) in rows.chunks_exact(self.dim).enumerate() {
            for (y, x) in y.iter_mut().zip(&row[self.channels.clone()]) {
                y[lane] = *x;
            }
        }
        let is_first = self.subtract_nearer(&mut y);
        rotate(&mut y);

        let mut largest = [0f32; LANES];
        for y in &y {
            for lane in 0..LANES {
                let size = y[lane].abs();
                largest[lane] = if size > largest[lane] { size } else { largest[lane] };
            }
        }
        let (chosen, in_range) = choose_scales(curve, &y, &largest);
        let unit = chosen.map(scale);
        let inverse = unit.map(|unit| if unit > 0.0 { 1.0 / unit } else { 0.0 });
        // y becomes what it is decoded to.
        let mut digits = [[0f32; LANES]; N];
        match eighths {
            Some(apart) => shaped(curve, &mut y, &unit, &inverse, apart, &mut digits),
            None => {
                for (digit, y) in digits.iter_mut().zip(&mut y) {
                    for lane in 0..LANES {
                        digit[lane] = curve.code(y[lane] * inverse[lane]);
                        y[lane] = curve.level(digit[lane] + curve.lowest) * unit[lane];
                    }
                }
            }
        }
        self.pack(&digits, codes);
        for lane in 0..self.tokens {
            let first = if is_first[lane] > 0.0 { FIRST } else { 0 };
            scales[lane * self.blocks] = chosen[lane].clamp(0, LARGEST_SCALE) as u8 | first;
        }
        self.back(&mut y, &is_first, decoded);
        in_range
    }

    /// `rows`: [tokens, head_dim], before RoPE.
    #[inline(always)]
    fn decode<const N: usize>(&self, scales: &[u8], codes: &[u8], rows: &mut [f32]) {
        let curve = self.levels.curve();
        let mut y = [[0f32; LANES]; N];
        self.unpack(codes, &mut y);
        let (mut unit, mut is_first) = ([0f32; LANES], [0f32; LANES]);
        for lane in 0..self.tokens {
            let byte = scales[lane * self.blocks];
            unit[lane] = scale(i32::from(byte & !FIRST));
            is_first[lane] = if byte & FIRST != 0 { 1.0 } else { 0.0 };
        }
        for y in &mut y {
            for lane in 0..LANES {
                y[lane] = curve.level(y[lane] + curve.lowest) * unit[lane];
            }
        }
        self.back(&mut y, &is_first, rows);
    }

    /// Rotates back, adds the centre, and writes rows.
    #[inline(always)]
    fn back<const N: usize>(&self, y: &mut [Lane; N], is_first: &Lane, rows: &mut [f32]) {
        rotate(y);
        for ((y, mean), first) in y.iter_mut().zip(self.mean).zip(self.first) {
            for lane in 0..LANES {
                y[lane] += if is_first[lane] > 0.0 { *first } else { *mean };
            }
        }
        for (lane, row) in rows.chunks_exact_mut(self.dim).enumerate() {
            for (x, y) in row[self.channels.clone()].iter_mut().zip(&*y) {
                *x = y[lane];
            }
        }
    }

    /// Leaves what is left without the nearer centre; 1 where that is the first token.
    #[inline(always)]
    fn subtract_nearer<const N: usize>(&self, y: &mut [Lane; N]) -> Lane {
        let (mut to_mean, mut to_first) = ([0f32; LANES], [0f32; LANES]);
        for ((y, mean), first) in y.iter().zip(self.mean).zip(self.first) {
            for lane in 0..LANES {
                let (a, b) = (y[lane] - mean, y[lane] - first);
                to_mean[lane] += a * a;
                to_first[lane] += b * b;
            }
        }
        let mut is_first = [0f32; LANES];
        for lane in 0..LANES {
            is_first[lane] = if to_first[lane] < to_mean[lane] { 1.0 } else { 0.0 };
        }
        for ((y, mean), first) in y.iter_mut().zip(self.mean).zip(self.first) {
            for lane in 0..LANES {
                y[lane] -= if is_first[lane] > 0.0 { *first } else { *mean };
            }
        }
        is_first
    }

    /// Four codes a word, of L levels: word w holds those of channels w, w + N/4, w + N/2 and
    /// w + 3N/4, c₀ + L·(c₁ + L·(c₂ + L·c₃)). The low 16 bits of all words come first, two bytes
    /// each; then, of 19 levels, the highest bits, eight a byte, the first lowest.
    #[inline(always)]
    fn pack<const N: usize>(&self, digits: &[Lane; N], codes: &mut [u8]) {
        let count = self.levels.count();
        let quarter = N / 4;
        let mut words = [[0u32; LANES]; BLOCK / 4];
        let mut high = [0u32; LANES];
        for (index, word) in words[..quarter].iter_mut().enumerate() {
            for lane in 0..LANES {
                let four = [0, 1, 2, 3].map(|part| digits[index + part * quarter][lane]);
                let sum = four[0] + count * (four[1] + count * (four[2] + count * four[3]));
                // Whole numbers below 2²³ are the low bits of their sum with it.
                word[lane] = (sum + 8_388_608.0).to_bits() & 0x7f_ffff;
                high[lane] |= (word[lane] >> 16) << index;
            }
        }
        for lane in 0..self.tokens {
            let out = &mut codes[lane * self.blocks * self.bytes..][..self.bytes];
            let (low, top) = out.split_at_mut(N / 2);
            for (low, word) in low.as_chunks_mut::<2>().0.iter_mut().zip(&words) {
                *low = (word[lane] as u16).to_le_bytes();
            }
            top.copy_from_slice(&high[lane].to_le_bytes()[..top.len()]);
        }
    }

    /// Digits as f32. A word beyond the largest, which no writer writes, has a last code that is
    /// too large: it counts as the largest.
    #[inline(always)]
    fn unpack<const N: usize>(&self, codes: &[u8], digits: &mut [Lane; N]) {
        let count = self.levels.count();
        let quarter = N / 4;
        let mut words = [[0u32; LANES]; BLOCK / 4];
        for lane in 0..self.tokens {
            let own = &codes[lane * self.blocks * self.bytes..][..self.bytes];
            let (low, top) = own.split_at(N / 2);
            let mut high = [0u8; 4];
            high[..top.len()].copy_from_slice(top);
            let high = u32::from_le_bytes(high);
            for (index, (low, word)) in low.as_chunks::<2>().0.iter().zip(&mut words).enumerate() {
                word[lane] = u32::from(u16::from_le_bytes(*low)) | (high >> index & 1) << 16;
            }
        }
        let share = 1.0 / count;
        for (index, word) in words[..quarter].iter().enumerate() {
            for lane in 0..LANES {
                let mut left = word[lane] as f32;
                for part in 0..3 {
                    // Half a step off the border, hence exact.
                    let more = ((left + 0.5) * share).floor();
                    digits[index + part * quarter][lane] = left - count * more;
                    left = more;
                }
                digits[index + 3 * quarter][lane] = if left < count { left } else { count - 1.0 };
            }
        }
    }
}

/// [`super::transform::hadamard`], a token in each lane.
#[inline(always)]
fn rotate<const N: usize>(y: &mut [Lane; N]) {
    let mut distance = 1;
    while distance < N {
        for pair in y.chunks_exact_mut(2 * distance) {
            let (a, b) = pair.split_at_mut(distance);
            for (a, b) in a.iter_mut().zip(b) {
                for lane in 0..LANES {
                    (a[lane], b[lane]) = (a[lane] + b[lane], a[lane] - b[lane]);
                }
            }
        }
        distance *= 2;
    }
    let scale = (1.0 / (N as f64).sqrt()) as f32;
    for y in y {
        y.iter_mut().for_each(|y| *y *= scale);
    }
}

/// The scale codes of least squared error, the largest of equals, and whether all are there.
#[inline(always)]
fn choose_scales<const N: usize>(
    curve: &LevelCurve,
    y: &[Lane; N],
    largest: &Lane,
) -> ([i32; LANES], bool) {
    let nearest = largest.map(scale_code);
    let (mut chosen, mut least) = (nearest, [f32::INFINITY; LANES]);
    for down in 0..SCALES_TRIED {
        let code = nearest.map(|code| (code - down).min(LARGEST_SCALE));
        let unit = code.map(scale);
        let inverse = unit.map(|unit| if unit > 0.0 { 1.0 / unit } else { 0.0 });
        let mut error = [0f32; LANES];
        for y in y {
            for lane in 0..LANES {
                let n = curve.code(y[lane] * inverse[lane]) + curve.lowest;
                let left = curve.level(n) * unit[lane] - y[lane];
                error[lane] += left * left;
            }
        }
        for lane in 0..LANES {
            let better = error[lane] < least[lane];
            least[lane] = if better { error[lane] } else { least[lane] };
            chosen[lane] = if better { code[lane] } else { chosen[lane] };
        }
    }
    let fits = |(code, largest): (&i32, &f32)| {
        *largest == 0.0 || (SCALES_TRIED..=LARGEST_SCALE).contains(code)
    };
    let in_range = nearest.iter().zip(largest).map(fits).fold(true, |all, fits| all & fits);
    (chosen, in_range)
}

/// Codes that take up errors of earlier ones, `apart` from each other.
#[inline(always)]
fn shaped<const N: usize>(
    curve: &LevelCurve,
    y: &mut [Lane; N],
    unit: &Lane,
    inverse: &Lane,
    apart: usize,
    digits: &mut [Lane; N],
) {
    // The first channel of each eighth; the others are `apart` from it.
    for start in (0..N).filter(|start| (start / apart).is_multiple_of(8)) {
        let mut errors = [[0f32; LANES]; 8];
        for eighth in 0..8 {
            let at = start + eighth * apart;
            let mut wanted = y[at];
            for before in 0..eighth {
                for lane in 0..LANES {
                    wanted[lane] -= FEEDBACK[before][eighth] * errors[before][lane];
                }
            }
            for lane in 0..LANES {
                let code = curve.code(wanted[lane] * inverse[lane]);
                let decoded = curve.level(code + curve.lowest) * unit[lane];
                digits[at][lane] = code;
                errors[eighth][lane] = decoded - y[at][lane];
                y[at][lane] = decoded;
            }
        }
    }
}
