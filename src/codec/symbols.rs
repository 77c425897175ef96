//! How the bytes of a payload's parts are read where they are entropy-coded.

use super::entropy::{SymbolForm, Symbols};
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
        let of_bits =
            |bits, elements| Symbols { form: SymbolForm::Bits(bits), element: 1, elements };
        let numbers = |elements| Symbols { element: element.bytes(), ..of_bits(8, elements) };
        let codes = |bits: u8, by_channel: bool| match by_channel {
            false => of_bits(bits, dim),
            // Neighbours are tokens of one channel, and alike: as many as fit.
            true => of_bits(8 / bits * bits, 1),
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
                    (PartName::Codes, FittedLevels::Sixteen) => of_bits(4, dim),
                    (PartName::Codes, levels) => match blocks {
                        Some(blocks) if levels == FittedLevels::Nineteen => {
                            let form = SymbolForm::Words(blocks.size as u8);
                            Symbols { form, element: 1, elements: dim }
                        }
                        Some(blocks) => numbers(count * levels.code_bytes(blocks.size)),
                        None => numbers(1),
                    },
                    _ => numbers(count),
                }
            }
            (Self::F16, _) => numbers(1),
        }
    }
}
