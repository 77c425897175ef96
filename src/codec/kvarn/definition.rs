//! KVarN as a name says it, and the sizes that follow for a tensor.

use crate::codec::geometry::Geometry;
use crate::codec::parts::{Part, PartElement, PartLayout, PartName};
use crate::error::{Error, Result};
use std::fmt;

/// Tokens of a tile.
pub(super) const TILE: usize = 128;

/// How one tensor is stored by KVarN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kvarn {
    /// Bits a code: 2 … 4.
    pub bits: u8,
    /// What shares a scale and a minimum.
    pub rows: TileRows,
}

/// The rows of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TileRows {
    /// Channels: of keys.
    Channels,
    /// Tokens: of values.
    Tokens,
}

impl Kvarn {
    /// Tokens that are stored together.
    pub const TILE: usize = TILE;

    /// Whether a tensor of this geometry can be stored.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        match geometry.head_dim.is_multiple_of(2) {
            true => Ok(()),
            false => Err(Error::input(format!(
                "kvarn: expected an even head vector, found {}",
                geometry.head_dim
            ))
            .hint("a Hadamard rotation works on blocks of a power of two")),
        }
    }

    /// The same for values.
    pub(in crate::codec) fn for_values(self) -> Self {
        Self { rows: TileRows::Tokens, ..self }
    }

    /// The parts of a tensor's payload in the order of a file. `source`: the 16-bit type that holds
    /// its values best.
    pub fn parts(
        &self,
        values: usize,
        geometry: &Geometry,
        source: PartElement,
    ) -> Vec<PartLayout> {
        let sizes = Sizes::new(self, values, geometry);
        let tiles = sizes.all_tiles();
        vec![
            Part::new(PartName::Tail, source, sizes.heads * sizes.tail * sizes.dim),
            Part::new(PartName::ColumnScales, PartElement::F16, tiles * sizes.columns),
            Part::new(PartName::Scales, PartElement::F16, tiles * sizes.rows),
            Part::new(PartName::Minima, PartElement::F16, tiles * sizes.rows),
            Part::new(PartName::Codes, PartElement::U8, tiles * sizes.code_bytes),
        ]
    }
}

/// The name it would have, had it no other.
impl fmt::Display for Kvarn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = if self.rows == TileRows::Tokens { "-by-token" } else { "" };
        write!(f, "kvarn{}{rows}", self.bits)
    }
}

/// The sizes of a tensor's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub heads: usize,
    /// Whole tiles of each head.
    pub tiles: usize,
    /// Tokens of each head behind them.
    pub tail: usize,
    pub dim: usize,
    pub rows: usize,
    pub columns: usize,
    /// Bytes of the codes of a tile.
    pub code_bytes: usize,
}

impl Sizes {
    pub fn new(codec: &Kvarn, values: usize, geometry: &Geometry) -> Self {
        let (heads, dim) = (geometry.heads(values), geometry.head_dim);
        // Of no values there may be any number of tokens, each of any length.
        let tokens = if heads == 0 { 0 } else { geometry.tokens };
        let (rows, columns) = match codec.rows {
            TileRows::Channels => (dim, TILE),
            TileRows::Tokens => (TILE, dim),
        };
        let bytes_of_a_channel = TILE / 8 * usize::from(codec.bits);
        let code_bytes = if tokens < TILE { 0 } else { dim * bytes_of_a_channel };
        Self { heads, tiles: tokens / TILE, tail: tokens % TILE, dim, rows, columns, code_bytes }
    }

    /// Tiles of the tensor.
    pub fn all_tiles(&self) -> usize {
        self.heads * self.tiles
    }

    /// Values of a tile.
    pub fn values(&self) -> usize {
        TILE * self.dim
    }

    /// The first value of a tile of all of them.
    pub fn start(&self, tile: usize) -> usize {
        let (head, tile) = (tile / self.tiles.max(1), tile % self.tiles.max(1));
        (head * (self.tiles * TILE + self.tail) + tile * TILE) * self.dim
    }
}
