//! Scales as they are stored: the number formats, and what each makes of the scale that a group
//! wants.

use super::small_float::SmallFloat;
use crate::codec::convert::{half_value, rounded_to_half};
use crate::codec::parts::PartElement;
use crate::error::{Error, Result};
use half::f16;
use std::fmt;
use std::str::FromStr;

/// The format of the scales of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleFormat {
    /// Half precision.
    F16,
    /// Four bits of exponent and four of mantissa, no sign. `s8`
    Small,
    /// A power of two, 2^−127 … 2^127 (OCP Microscaling Formats 1.0): that of the largest
    /// magnitude, rounded down, over that of the largest level.
    E8m0,
    /// Floats of [`super::Levels::E4m3`] without a sign.
    E4m3,
    /// The same, times one f32 for the whole tensor that puts the largest scale at 448.
    E4m3OfTensor,
    /// Single precision, 10⁻⁶ at least: what vLLM has for each token and head.
    F32,
    /// The same, the low four bits of its mantissa a group's zero point: vLLM's of 4 bits.
    F32WithZero,
    /// None is stored: it is this one, whatever the values are.
    Fixed(FixedScale),
}

/// A scale that is known beforehand, as of a calibration: more than 0, finite and no subnormal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FixedScale(u32);

impl FixedScale {
    /// What engines have where nobody gives one.
    pub const ONE: Self = Self(1f32.to_bits());

    /// `None` of what is no scale.
    pub fn new(scale: f32) -> Option<Self> {
        (scale > 0.0 && scale.is_normal()).then_some(Self(scale.to_bits()))
    }

    /// The number.
    #[inline(always)]
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

/// With the fewest digits that give the f32 back, without an exponent.
impl fmt::Display for FixedScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl FromStr for FixedScale {
    type Err = Error;

    /// Decimal, with a point or without.
    fn from_str(text: &str) -> Result<Self> {
        let is_decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let scale = text.parse().ok().filter(|_| is_decimal).and_then(Self::new);
        scale.ok_or_else(|| {
            Error::input(format!("expected a scale, found `{}`", text.escape_debug()))
                .hint("a scale is a decimal number above 0, such as 0.05")
        })
    }
}

/// What is added up of an exponent of f32, and of E8M0.
const BIAS: i32 = 127;
/// vLLM's least scale of a token and head.
pub(super) const LEAST_F32: f32 = 1e-6;

/// A scale and a zero point in one number.
pub(super) struct ScaleAndZero {
    /// As it is decoded: without the bits that the zero point takes.
    pub scale: f32,
    /// A whole number from 0 to 15.
    pub zero: f32,
}

impl ScaleAndZero {
    const BITS: u32 = 15;

    /// Out of one number.
    #[inline(always)]
    pub fn of(packed: f32) -> Self {
        let bits = packed.to_bits();
        Self { scale: f32::from_bits(bits & !Self::BITS), zero: (bits & Self::BITS) as f32 }
    }

    /// In one number.
    #[inline(always)]
    pub fn packed(&self) -> f32 {
        f32::from_bits(self.scale.to_bits() & !Self::BITS | self.zero as u32)
    }
}

impl ScaleFormat {
    /// The elements of the part that has them; `None` where none is stored.
    pub(super) fn element(self) -> Option<PartElement> {
        match self {
            Self::F16 => Some(PartElement::F16),
            Self::Small => Some(PartElement::U8),
            Self::E8m0 => Some(PartElement::E8m0),
            Self::E4m3 | Self::E4m3OfTensor => Some(PartElement::E4m3),
            Self::F32 | Self::F32WithZero => Some(PartElement::F32),
            Self::Fixed(_) => None,
        }
    }

    /// Bytes of a stored scale.
    #[inline(always)]
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::Small | Self::E8m0 | Self::E4m3 | Self::E4m3OfTensor => 1,
            Self::F32 | Self::F32WithZero => 4,
            Self::Fixed(_) => 0,
        }
    }

    /// Whether a tensor whose scales leave the range is stored with an exponent. Formats of other
    /// engines have no such thing: there a scale ends at the end of its range.
    #[inline(always)]
    pub(super) fn has_exponent(self) -> bool {
        matches!(self, Self::F16 | Self::Small)
    }

    /// The scale as it is stored, in units of the tensor's, and whether that is in range.
    #[inline(always)]
    pub(super) fn stored(self, exact: f32) -> (f32, bool) {
        match self {
            Self::F16 => stored_half(exact),
            Self::Small => stored_small(exact),
            Self::E4m3 | Self::E4m3OfTensor => {
                (SmallFloat::E4M3.magnitude(SmallFloat::E4M3.nearest(exact)), true)
            }
            Self::F32 => (exact.max(LEAST_F32), true),
            // Made as they are stored.
            Self::F32WithZero => (exact, exact.is_finite()),
            Self::E8m0 | Self::Fixed(_) => (exact, true),
        }
    }

    /// The largest that can be stored, of the formats that may need an exponent.
    #[inline(always)]
    pub(super) fn largest(self) -> f32 {
        match self {
            Self::Small => LARGEST_SMALL,
            _ => f16::MAX.to_f32_const(),
        }
    }

    /// The bits of a scale that [`ScaleFormat::stored`] gave.
    #[inline(always)]
    pub(super) fn to_bits(self, stored: f32) -> u32 {
        match self {
            Self::F16 => u32::from(f16::from_f32(stored).to_bits()),
            Self::Small => u32::from(nearest_small(stored)),
            Self::E8m0 => stored.to_bits() >> 23,
            Self::E4m3 | Self::E4m3OfTensor => u32::from(SmallFloat::E4M3.nearest(stored)),
            Self::F32 | Self::F32WithZero => stored.to_bits(),
            Self::Fixed(_) => 0,
        }
    }

    /// The scale of stored bytes, in units of the tensor's, with its zero point where it has one; 0
    /// where there are none.
    #[inline(always)]
    pub(super) fn value(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::Fixed(scale), _) => scale.get(),
            (Self::Small, [code]) => small_scale(*code),
            (Self::E8m0, [code]) => power_of_two(i32::from(*code) - BIAS),
            (_, [code]) => SmallFloat::E4M3.magnitude(*code),
            (_, [low, high]) => half_value(u16::from_le_bytes([*low, *high])),
            (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            _ => 0.0,
        }
    }
}

/// The power of two that a block of this largest magnitude shares, for levels whose largest is of
/// `largest_power`: the power of two of the magnitude, rounded down, over it, as the specification
/// of the formats has it.
#[inline(always)]
pub(super) fn shared_scale(absmax: f32, largest_power: i32) -> f32 {
    // A subnormal number's exponent reads as −127, below the least scale as it is.
    power_of_two((absmax.to_bits() >> 23) as i32 - BIAS - largest_power)
}

/// 2^n, 2^−127 at least.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    let least = f32::from_bits(1 << 22);
    if n <= -BIAS { least } else { f32::from_bits(((n + BIAS) as u32) << 23) }
}

/// The scale as it is stored in an f16, and whether that is in range.
#[inline(always)]
pub(super) fn stored_half(exact: f32) -> (f32, bool) {
    let scale = rounded_to_half(exact);
    let size = scale.abs();
    let fits = (size >= f16::MIN_POSITIVE.to_f32_const()) & (size < f32::INFINITY);
    (scale, (exact == 0.0) | fits)
}

/// The same in a byte.
#[inline(always)]
pub(super) fn stored_small(exact: f32) -> (f32, bool) {
    // Half a step more or less than what there is rounds to it.
    let fits = (0.97 * SMALLEST_SMALL..1.016 * LARGEST_SMALL).contains(&exact);
    (small_scale(nearest_small(exact)), (exact == 0.0) | fits)
}

/// Scales in 8 bits: four of exponent, four of mantissa, no sign; (1 + m/16) · 2^(e − 12). Code 0
/// is 0.
const SMALL_BIAS: u32 = 12;
const SMALLEST_SMALL: f32 = 17.0 / 16.0 / 4096.0;
const LARGEST_SMALL: f32 = 31.0 / 16.0 * 8.0;

/// The scale of an 8-bit code.
#[inline(always)]
fn small_scale(code: u8) -> f32 {
    let bits = (u32::from(code) << 19) + ((127 - SMALL_BIAS) << 23);
    if code == 0 { 0.0 } else { f32::from_bits(bits) }
}

/// The nearest in size, halves up; at least 1 for what is more than 0.
#[inline(always)]
fn nearest_small(scale: f32) -> u8 {
    let rounded = (scale.to_bits() + (1 << 18)) >> 19;
    let code = rounded.saturating_sub((127 - SMALL_BIAS) << 4).clamp(1, 255);
    if scale > 0.0 { code as u8 } else { 0 }
}
