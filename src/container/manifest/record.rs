//! The manifest's record of one tensor.

use super::super::layout::Layout;
use super::parts::{Coded, Coding};
use super::{BLANK, not_null};
use crate::codec::{BlockRule, CacheCodec, Codec, TensorCodec};
use crate::error::{Error, Result};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

/// How a tensor that is stored as it was names its codec.
const UNCHANGED: &str = "none";
/// The exponents that an f32 tensor can need, with room.
const EXPONENTS: std::ops::RangeInclusive<i32> = -200..=200;

/// One tensor of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Of its stored parts, one after the other; eight hexadecimal digits.
    pub crc32: String,
    /// Left out where it is the file's and that is one for all tensors.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub(super) codec: Option<String>,
    /// Of a tensor with codes: what is stored of it is divided by two to this power.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    exponent: Option<i32>,
    /// The same of a tensor of keys and values, of each; 0 for those in f16.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    exponents: Option<[i32; 2]>,
    /// Of a tensor whose codec takes keys before RoPE, in a file that has several: the index of
    /// their rotary embedding in [`super::Manifest::rotary`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub rotary: Option<usize>,
    /// Channels of a block of two centres, where that is not a run of a power of two.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub block: Option<usize>,
    /// Of a tensor with packed parts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub packed: Option<PackedParts>,
}

/// Which parts of a tensor are packed, one of them at least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedParts {
    /// Bytes of each of its parts; 0 of one that is not packed.
    pub bytes: Vec<u64>,
    /// Of its parts as they were before, one after the other; eight hexadecimal digits.
    pub crc32: String,
}

impl Record {
    /// Of a tensor of a file of codec `of_file`, as yet without checksum and exponents.
    pub fn new(
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        of_file: &CacheCodec,
        coded: Option<&Coded>,
    ) -> Self {
        let block = coded.and_then(Coded::block);
        let (codec, exponent, exponents) = match coded.map(|coded| coded.coding) {
            None => (Some(UNCHANGED.into()), None, None),
            Some(Coding::Both(own)) => {
                ((!of_file.is_uniform()).then(|| own.to_string()), None, Some([0, 0]))
            }
            Some(Coding::One(own)) => (
                (!is_one_for_all(of_file)).then(|| own.to_string()),
                matches!(own, TensorCodec::Packed(_)).then_some(0),
                None,
            ),
        };
        let (name, shape) = (name.to_string(), shape.to_vec());
        let (crc32, rotary) = (BLANK.into(), None);
        let packed = None;
        Self { name, dtype, shape, crc32, codec, exponent, exponents, rotary, block, packed }
    }

    /// With the longest numbers.
    pub fn longest(&mut self) {
        let most = *EXPONENTS.start();
        self.exponent = self.exponent.map(|_| most);
        self.exponents = self.exponents.map(|_| [most; 2]);
    }

    /// That of the tensor, or that of keys and that of values; none without codes.
    pub fn exponents(&self) -> Vec<i32> {
        match self.exponents {
            Some(both) => both.to_vec(),
            None => self.exponent.into_iter().collect(),
        }
    }

    /// `found`: as [`Record::exponents`] gives them.
    pub fn set_exponents(&mut self, found: &[i32]) {
        if let [first, ..] = *found {
            self.exponent = self.exponent.map(|_| first);
        }
        if let [key, value] = *found {
            self.exponents = self.exponents.map(|_| [key, value]);
        }
    }

    /// How it is stored; `None`: unchanged. `of_file`: what holds where it names no codec.
    pub fn coded(&self, of_file: &CacheCodec, layout: &Layout) -> Result<Option<Coded>> {
        let is_pair = layout.kv_axis.is_some();
        let is_named = if is_pair { !of_file.is_uniform() } else { !is_one_for_all(of_file) };
        let no_exponent = self.exponent.is_none() && self.exponents.is_none();
        let coding = match self.codec.as_deref() {
            Some(UNCHANGED) if no_exponent && self.block.is_none() && self.packed.is_none() => {
                return Ok(None);
            }
            None if is_named => return Err(self.odd_codec(of_file)),
            None if is_pair => Coding::Both(*of_file.base()),
            None => Coding::One(of_file.base().key),
            Some(own) if is_named && is_pair => {
                let found = of_file.each().find(|codec| codec.to_string() == own);
                Coding::Both(*found.ok_or_else(|| self.odd_codec(of_file))?)
            }
            Some(own) if is_named => {
                let mut sides = of_file.each().flat_map(|codec| [codec.key, codec.value]);
                let found = sides.find(|codec| codec.to_string() == own);
                Coding::One(found.ok_or_else(|| self.odd_codec(of_file))?)
            }
            _ => return Err(self.odd_codec(of_file)),
        };
        if !is_float(self.dtype) {
            return Err(Error::input(format!("codec {coding} for a tensor of {:?}", self.dtype)));
        }
        // Sizes are multiplied below, and by 8 bits.
        let size = self.shape.iter().try_fold(1usize, |size, d| size.checked_mul(*d));
        if !self.shape.contains(&0) && size.is_none_or(|size| size >= usize::MAX / 64) {
            return Err(Error::input(format!("shape {:?}: too large", self.shape)));
        }
        let within = |exponent: i32| EXPONENTS.contains(&exponent);
        let has_codes = |codec| matches!(codec, TensorCodec::Packed(_));
        let fitting = match (coding, self.exponent, self.exponents) {
            (Coding::One(codec), Some(e), None) => has_codes(codec) && within(e),
            (Coding::One(codec), None, None) => !has_codes(codec),
            (Coding::Both(codec), None, Some(both)) => {
                let fits = |(codec, e)| if has_codes(codec) { within(e) } else { e == 0 };
                [codec.key, codec.value].into_iter().zip(both).all(fits)
            }
            _ => false,
        };
        if !fitting {
            let found = self.exponents();
            return Err(Error::input(format!("codec {coding} with exponents {found:?}")));
        }
        let coded = Coded { coding, view: layout.view(&self.shape)? };
        match self.block {
            // As versions before the fifth have them.
            None => Ok(Some(coded.cut_by(BlockRule::PowersOfTwo))),
            Some(_) if coded.block() == self.block => Ok(Some(coded)),
            Some(block) => Err(Error::input(format!(
                "codec {coding} with blocks of {block}, expected {:?}",
                coded.block()
            ))),
        }
    }

    fn odd_codec(&self, of_file: &CacheCodec) -> Error {
        Error::input(format!("codec {:?} in a file of {of_file}", self.codec))
    }

    /// Its codec, for people.
    pub fn codec_name<'a>(&'a self, of_file: &'a str) -> &'a str {
        self.codec.as_deref().unwrap_or(of_file)
    }
}

/// Whether all tensors of a file have one codec, keys and values alike.
fn is_one_for_all(of_file: &CacheCodec) -> bool {
    let Codec { key, value } = of_file.base();
    of_file.is_uniform() && key == value
}

/// The types that are compressed; all others are stored as they are.
pub fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32)
}
