//! How the bytes of a payload's parts are read where they are entropy-coded.

use super::entropy::Symbols;
use super::geometry::Geometry;
use super::kvarn::TileRows;
use super::packing::Packing;
use super::parts::{PartElement, PartName};
use super::tensor_codec::TensorCodec;
use super::two_centre::FittedLevels;

impl TensorCodec {
    /// The symbols of a part: codes by their channel, other numbers byte by byte, by their place in a
    /// head vector where there is one.
    pub fn symbols(&self, name: PartName, element: PartElement, geometry: &Geometry) -> Symbols {
        let dim = geometry.head_dim.max(1);
        let numbers = |elements| Symbols { bits: 8, element: element.bytes(), elements };
        let codes = |bits: u8, by_channel: bool| match by_channel {
            false => Symbols { bits, element: 1, elements: dim },
            // Neighbours are tokens of one channel, and alike: as many as fit.
            true => Symbols { bits: 8 / bits * bits, element: 1, elements: 1 },
        };
        match (self, name) {
            (_, PartName::Values | PartName::Sinks | PartName::Means) => numbers(dim),
            (Self::Packed(Packing::Scheme(scheme)), PartName::Codes) => {
                codes(scheme.bits, scheme.channel)
            }
            (Self::Packed(Packing::Kvarn(codec)), PartName::Codes) => {
                codes(codec.bits, codec.rows == TileRows::Channels)
            }
            (Self::Packed(Packing::Kvarn(codec)), name) => {
                let of_rows = matches!(name, PartName::Scales | PartName::Minima);
                let by_channel = of_rows == (codec.rows == TileRows::Channels);
                numbers(if by_channel || name == PartName::Tail { dim } else { 1 })
            }
            (Self::Packed(Packing::Scheme(scheme)), _) => {
                let group = scheme.of_heads(dim).group;
                let in_vector = !scheme.channel && group > 0 && dim.is_multiple_of(group);
                numbers(if in_vector { dim / group } else { 1 })
            }
            (Self::Packed(Packing::TwoCentre(codec)), _) => {
                let blocks = codec.blocks.blocks(dim);
                let count = blocks.as_ref().map_or(1, |blocks| blocks.count);
                match (name, codec.levels) {
                    (PartName::Codes, FittedLevels::Sixteen) => {
                        Symbols { bits: 4, element: 1, elements: dim }
                    }
                    (PartName::Codes, _) => {
                        let size = blocks.map_or(1, |blocks| blocks.size);
                        numbers(count * codec.levels.code_bytes(size))
                    }
                    _ => numbers(count),
                }
            }
            (Self::F16, _) => numbers(1),
        }
    }
}
