//! The stored parts of a payload: the name, the element type and the bytes of each, together.

use super::element::{Element, Kind};

/// One stored part of a tensor. `Content`: the number of its elements ([`PartLayout`]), or its
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<Content> {
    /// Which part it is.
    pub name: PartName,
    /// The type of its elements.
    pub element: PartElement,
    /// Number of elements, or their little-endian bytes.
    pub content: Content,
}

/// A part of so many elements.
pub type PartLayout = Part<usize>;

/// The parts of payloads, in the order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartName {
    /// The values themselves, in f16: all that the `f16` control stores.
    Values,
    /// The tokens set apart, in 16 bits. [heads, sinks, head_dim]
    Sinks,
    /// The last tokens, too few for a tile, in 16 bits. [heads, tail, head_dim]
    Tail,
    /// Means over tokens. [heads, head_dim]
    Means,
    /// What all scales of groups are in units of. [1]
    TensorScale,
    /// Scales of the columns of tiles. [heads, tiles, columns]
    ColumnScales,
    /// Scales of groups, or of the rows of tiles. [groups]
    Scales,
    /// Minima of groups, or of the rows of tiles. [groups]
    Minima,
    /// Zero points of groups, in units of their scales. [groups]
    Zeros,
    /// Codes of values, packed.
    Codes,
}

impl PartName {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Values,
        Self::Sinks,
        Self::Tail,
        Self::Means,
        Self::TensorScale,
        Self::ColumnScales,
        Self::Scales,
        Self::Minima,
        Self::Zeros,
        Self::Codes,
    ];

    /// The name in a file, behind that of the tensor.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Values => "values",
            Self::Sinks => "sinks",
            Self::Tail => "tail",
            Self::Means => "means",
            Self::TensorScale => "tensor_scale",
            Self::ColumnScales => "column_scales",
            Self::Scales => "scales",
            Self::Minima => "minima",
            Self::Zeros => "zeros",
            Self::Codes => "codes",
        }
    }
}

/// The type of a part's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartElement {
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Single precision.
    F32,
    /// A byte.
    U8,
    /// A byte that is a power of two: 8 bits of exponent. 255 is not a number.
    E8m0,
    /// A byte that is a float of 4 bits of exponent and 3 of mantissa, not below 0.
    E4m3,
}

impl PartElement {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 | Self::E8m0 | Self::E4m3 => 1,
        }
    }

    /// The 16-bit type that holds values of `T` best: bf16 for bf16, else f16.
    pub fn half_of<T: Element>() -> Self {
        if T::KIND == Kind::Bf16 { Self::Bf16 } else { Self::F16 }
    }
}

impl<Content> Part<Content> {
    pub(super) fn new(name: PartName, element: PartElement, content: Content) -> Self {
        Self { name, element, content }
    }

    /// The same part with another content.
    pub(super) fn with<Other>(&self, content: Other) -> Part<Other> {
        Part { name: self.name, element: self.element, content }
    }
}

impl Part<&[u8]> {
    /// Whether its numbers are finite, and have no sign where they can have none, as every writer's
    /// are. Bytes are.
    pub fn is_finite(&self) -> bool {
        let exponent: u16 = match self.element {
            PartElement::U8 => return true,
            PartElement::E8m0 => return !self.content.contains(&0xff),
            PartElement::E4m3 => return self.content.iter().fold(true, |all, x| all & (*x < 0x7f)),
            PartElement::F32 => {
                let (words, _) = self.content.as_chunks::<4>();
                return words
                    .iter()
                    .fold(true, |all, word| all & f32::from_le_bytes(*word).is_finite());
            }
            PartElement::F16 => 0x7c00,
            PartElement::Bf16 => 0x7f80,
        };
        let (halves, _) = self.content.as_chunks::<2>();
        // All of them: a search that may stop early does not vectorise.
        halves
            .iter()
            .fold(true, |all, half| all & (u16::from_le_bytes(*half) & exponent != exponent))
    }
}
