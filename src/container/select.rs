//! Which tensors are compressed, and by which codec.

use super::layers::FileLayers;
use super::layout::Layout;
use super::manifest::{Coded, Coding, is_float};
use super::origin::KeyRotations;
use super::rotary::{RopeParameters, RotaryTables, Rotations};
use super::safetensors::{Header, Tensor};
use super::{geometry, unfit};
use crate::codec::{CacheCodec, Codec, Packing, TensorCodec};
use crate::error::{Error, Result};
use glob::Pattern;

/// A tensor of more values than this is worked on in pieces, which hold whole groups.
const LARGEST_GROUP: usize = 1 << 20;

/// The way to store the tensors of a file.
#[derive(Debug, Clone)]
pub struct Plan {
    /// That of keys and that of values, layer by layer.
    pub codec: CacheCodec,
    /// Only float tensors whose name matches one of these; empty: all.
    pub include: Vec<Pattern>,
    /// But none whose name matches one of these.
    pub exclude: Vec<Pattern>,
    /// The rotary embedding that the keys went through, for codecs that take them back; `None`: as
    /// the file's metadata says, which `kvgauge extract` writes.
    pub rope: Option<RopeParameters>,
    /// Which axis of the tensors is what: of all that are compressed.
    pub layout: Layout,
    /// Whether parts are entropy-coded where that makes them shorter.
    pub pack: bool,
}

/// Why a tensor is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExclusionReason {
    /// It is not F16, BF16 or F32.
    Type,
    /// Its name is left out by [`Plan::include`] or [`Plan::exclude`].
    Name,
    /// It is one value: a scale of the cache, a count, but no cache.
    OneValue,
    /// Its stored form would be larger.
    Grows,
}

/// How a tensor is stored: coded, or as it is.
pub(super) type Assignment = std::result::Result<Coded, ExclusionReason>;

/// The hint where a tensor stands in the way.
const EXCLUDE: &str = "--exclude stores a tensor as it is";

impl Plan {
    /// All float tensors by one codec.
    pub fn all(codec: CacheCodec) -> Self {
        Self {
            codec,
            include: Vec::new(),
            exclude: Vec::new(),
            rope: None,
            layout: Layout::default(),
            pack: false,
        }
    }

    /// The rotary embedding of the keys of each tensor, where its codec needs it and it is known.
    pub(super) fn rotations(&self, header: &Header, coded: &[Option<Coded>]) -> Result<Rotations> {
        let needing: Vec<Option<&Coded>> = coded
            .iter()
            .map(|coded| coded.as_ref().filter(|coded| coded.coding.needs_rope()))
            .collect();
        if needing.iter().all(Option::is_none) {
            return Ok(Rotations::default());
        }
        let said = match self.rope {
            Some(_) => KeyRotations::default(),
            None => KeyRotations::read(header.metadata.as_ref())?,
        };
        let mut own = Vec::with_capacity(needing.len());
        for (tensor, coded) in header.tensors.iter().zip(needing) {
            let embedding = match (coded, self.rope) {
                (None, _) => Ok(None),
                (Some(coded), Some(rope)) => {
                    rope.embedding(geometry(coded, None).head_dim).map(Some)
                }
                (Some(_), None) => said.of(&tensor.name).map(Option::<&_>::cloned),
            };
            own.push(embedding.map_err(|e| e.within(format!("tensor {}", tensor.name)))?);
        }
        Ok(Rotations::new(own.into_iter()))
    }

    /// Whether every codec can store its tensor.
    pub(super) fn check(
        &self,
        header: &Header,
        coded: &[Option<Coded>],
        rotary: &RotaryTables,
    ) -> Result<()> {
        match unfit(&header.tensors, coded.iter().map(Option::as_ref), rotary) {
            Some((name, error)) => Err(error.within(format!("tensor {name}")).hint(EXCLUDE)),
            None => Ok(()),
        }
    }

    /// How each tensor is stored.
    pub(super) fn assign(&self, header: &Header) -> Result<Vec<Assignment>> {
        self.layout.check()?;
        let found = |pattern: &Pattern| header.tensors.iter().any(|t| pattern.matches(&t.name));
        // A mistyped --exclude would compress what was to stay as it is.
        for (flag, patterns) in [("--include", &self.include), ("--exclude", &self.exclude)] {
            if let Some(pattern) = patterns.iter().find(|pattern| !found(pattern)) {
                return Err(Error::input(format!("{flag} {pattern}: no tensor of such a name"))
                    .hint("`kv-compress inspect FILE` lists the names; quote the pattern"));
            }
        }
        let layers = FileLayers::of(&self.codec, header)?;
        header.tensors.iter().map(|tensor| self.assignment_of(tensor, &layers)).collect()
    }

    fn assignment_of(&self, tensor: &Tensor, layers: &FileLayers) -> Result<Assignment> {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(&tensor.name));
        let included = self.include.is_empty() || matches(&self.include);
        if !included || matches(&self.exclude) {
            return Ok(Err(ExclusionReason::Name));
        }
        if tensor.values() == 1 {
            return Ok(Err(ExclusionReason::OneValue));
        }
        if !is_float(tensor.info.dtype) {
            return Ok(Err(ExclusionReason::Type));
        }
        let place = || format!("tensor {}", tensor.name);
        let view = self.layout.view(&tensor.info.shape);
        let view = view.map_err(|e| e.within(place()).hint(EXCLUDE))?;
        let codec = layers.codec_of(&tensor.name).map_err(|e| e.within(place()).hint(EXCLUDE))?;
        let coded = Coded { coding: self.coding_of(tensor, codec)?, view };
        let shape = &tensor.info.shape;
        let codecs = coded.coding.codecs();
        let reading =
            codecs.iter().find(|codec| codec.packing().is_some_and(Packing::reads_vectors));
        if let Some(codec) = reading
            && coded.view.shape.len() < 2
            && coded.view.values() > 0
        {
            let besides = self.layout.besides();
            return Err(Error::input(format!(
                "{}: codec {codec}: expected [tokens, head_dim] or more axes{besides}, found shape \
                 {shape:?}",
                place()
            ))
            .hint("such a codec tells tokens from channels; --exclude stores a tensor as it is"));
        }
        let grows = coded.stored_bytes(tensor.info.dtype) > tensor.bytes() as u128;
        Ok(if grows { Err(ExclusionReason::Grows) } else { Ok(coded) })
    }

    /// `codec`: that of its layer.
    fn coding_of(&self, tensor: &Tensor, codec: &Codec) -> Result<Coding> {
        let coding = if self.layout.kv_axis.is_some() {
            Coding::Both(*codec)
        } else if codec.key == codec.value {
            Coding::One(codec.key)
        } else {
            match Role::of(&tensor.name) {
                Some(Role::Key) => Coding::One(codec.key),
                Some(Role::Value) => Coding::One(codec.value),
                None => {
                    return Err(Error::input(format!(
                        "codec {codec}: tensor {}: expected `key` or `value` in its name",
                        tensor.name
                    ))
                    .hint(
                        "--kv-axis says which axis has keys and values in one tensor; or --exclude \
                         it, or use one codec for all",
                    ));
                }
            }
        };
        let group = coding.codecs().iter().filter_map(TensorCodec::group).max();
        if let Some(group) = group.filter(|group| *group > LARGEST_GROUP)
            && tensor.values() > LARGEST_GROUP
        {
            return Err(Error::input(format!(
                "tensor {}: expected a group of at most {LARGEST_GROUP} values, found {group}",
                tensor.name
            ))
            .hint("32, 64 and 128 are usual"));
        }
        Ok(coding)
    }
}

#[derive(Debug, PartialEq)]
enum Role {
    Key,
    Value,
}

impl Role {
    /// By the last word of the name that says so: `layer.3.key`, `past_key_values.3.value`,
    /// `key_cache.3`, `k_3`. The two words in one, as in `past_key_values.3.0`, say nothing.
    fn of(name: &str) -> Option<Self> {
        let role = |word: &str| match word.to_ascii_lowercase().as_str() {
            "key" | "keys" | "k" => Some(Role::Key),
            "value" | "values" | "v" => Some(Role::Value),
            _ => None,
        };
        let mut words = name.rsplit(|c: char| !c.is_ascii_alphanumeric()).map(role).peekable();
        while let Some(word) = words.next() {
            let both = word == Some(Role::Value)
                && words.next_if(|before| *before == Some(Role::Key)).is_some();
            if word.is_some() && !both {
                return word;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_by_name() {
        for name in ["layer.3.key", "past_key_values.3.key", "key_cache.3", "blocks/0/K", "k_3"] {
            assert_eq!(Role::of(name), Some(Role::Key), "{name}");
        }
        for name in ["layer.3.value", "past_key_values.3.value", "value_cache.0", "V"] {
            assert_eq!(Role::of(name), Some(Role::Value), "{name}");
        }
        for name in ["", "monkey", "layer.3.keyed", "valued", "past_key_values.0.1", "kv.k_v"] {
            assert_eq!(Role::of(name), None, "{name}");
        }
    }
}
