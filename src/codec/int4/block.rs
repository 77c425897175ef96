//! A block of a tensor, and what compressing one finds.

use crate::codec::distortion::DistortionRun;

/// The place of a block in its tensor.
#[derive(Debug, Clone, Copy)]
pub struct BlockLayout {
    /// Consecutive values that share a scale; at least 1.
    pub group: usize,
    /// Consecutive values of a head vector.
    pub head_dim: usize,
    /// Index of the block's first value in the tensor: a multiple of the group, and even.
    pub start: usize,
}

/// The result of [`compress_block`](super::compress_block) beside codes and scales.
#[derive(Debug, Clone, Copy)]
pub struct BlockOutcome {
    /// All values are finite. If not, codes, scales and distortion are meaningless.
    pub finite: bool,
    /// Every non-zero group's scale is finite and at least 2⁻¹⁴. If not, and the exponent was
    /// 0, the tensor wants another one: see [`exponent_for`](super::exponent_for).
    pub in_range: bool,
    /// Between the values and what [`decompress_block`](super::decompress_block) gives for them in
    /// the same type.
    pub distortion: DistortionRun,
}
