//! Which tensors are compressed, and by which codec.

use super::geometry;
use super::layout::Layout;
use super::manifest::{Coded, Coding, is_float};
use super::safetensors::{Header, Tensor};
use crate::codec::{Codec, Packing, Rope, TensorCodec};
use crate::error::{Error, Result};
use glob::Pattern;
use serde::Deserialize;

/// A tensor of more values than this is worked on in pieces, which hold whole groups.
const LARGEST_GROUP: usize = 1 << 20;

/// What to do with the tensors of a file.
#[derive(Debug, Clone)]
pub struct Plan {
    pub codec: Codec,
    /// Only float tensors whose name matches one of these; empty: all.
    pub include: Vec<Pattern>,
    /// But none whose name matches one of these.
    pub exclude: Vec<Pattern>,
    /// Base of the rotary embedding that the keys went through, for codecs that take them back;
    /// `None`: as the file says, if `kvgauge extract` made it.
    pub rope_theta: Option<f32>,
    /// Which axis of the tensors is what: of all that are compressed.
    pub layout: Layout,
}

/// Why a tensor is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is not F16, BF16 or F32.
    Type,
    /// By [`Plan::include`] and [`Plan::exclude`].
    Excluded,
    /// It is one value: a scale of the cache, a count, but no cache.
    OneValue,
    /// What is stored of it would be larger.
    Grows,
}

/// What becomes of a tensor.
pub(super) type Fate = std::result::Result<Coded, Left>;

/// The hint where a tensor stands in the way.
const EXCLUDE: &str = "--exclude stores a tensor as it is";

impl Plan {
    /// All float tensors by one codec.
    pub fn all(codec: Codec) -> Self {
        Self {
            codec,
            include: Vec::new(),
            exclude: Vec::new(),
            rope_theta: None,
            layout: Layout::default(),
        }
    }

    /// What keys are taken back from, radians a position and pair of channels, if it is known.
    pub(super) fn rope(&self, header: &Header, coded: &[Option<Coded>]) -> Option<Vec<f32>> {
        let needing = coded.iter().flatten().find(|coded| coded.coding.needs_rope())?;
        match self.rope_theta {
            Some(theta) => Some(Rope::frequencies_of(theta, geometry(needing, None).head_dim)),
            None => {
                let origin = header.metadata.as_ref()?.get(crate::run::extract::METADATA)?;
                serde_json::from_str::<RopeOf>(origin).ok().map(|origin| origin.rope_frequencies)
            }
        }
    }

    /// Whether every codec can store its tensor.
    pub(super) fn check(
        &self,
        header: &Header,
        coded: &[Option<Coded>],
        rope: Option<&Rope>,
    ) -> Result<()> {
        let noise = |codec| matches!(codec, TensorCodec::Noise(_));
        if noise(self.codec.key) || noise(self.codec.value) {
            return Err(Error::input(format!("codec {}: stores nothing", self.codec))
                .hint("noise is a control for `kvgauge validate` and `kvgauge sweep`"));
        }
        for (tensor, coded) in header.tensors.iter().zip(coded) {
            let Some(coded) = coded else { continue };
            for packing in coded.coding.sides().iter().filter_map(TensorCodec::packing) {
                let fits = packing.check(&geometry(coded, rope));
                fits.map_err(|e| e.within(format!("tensor {}", tensor.name)).hint(EXCLUDE))?;
            }
        }
        Ok(())
    }

    /// What becomes of each tensor.
    pub(super) fn assign(&self, header: &Header) -> Result<Vec<Fate>> {
        self.layout.check()?;
        let found = |pattern: &Pattern| header.tensors.iter().any(|t| pattern.matches(&t.name));
        // A mistyped --exclude would compress what was to stay as it is.
        for (flag, patterns) in [("--include", &self.include), ("--exclude", &self.exclude)] {
            if let Some(pattern) = patterns.iter().find(|pattern| !found(pattern)) {
                return Err(Error::input(format!("{flag} {pattern}: no tensor of such a name"))
                    .hint("`kv-compress inspect FILE` lists the names; quote the pattern"));
            }
        }
        header.tensors.iter().map(|tensor| self.fate_of(tensor)).collect()
    }

    fn fate_of(&self, tensor: &Tensor) -> Result<Fate> {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(&tensor.name));
        let included = self.include.is_empty() || matches(&self.include);
        if !included || matches(&self.exclude) {
            return Ok(Err(Left::Excluded));
        }
        if tensor.values() == 1 {
            return Ok(Err(Left::OneValue));
        }
        if !is_float(tensor.info.dtype) {
            return Ok(Err(Left::Type));
        }
        let place = || format!("tensor {}", tensor.name);
        let form = self.layout.form(&tensor.info.shape);
        let form = form.map_err(|e| e.within(place()).hint(EXCLUDE))?;
        let coded = Coded { coding: self.coding_of(tensor)?, form };
        let shape = &tensor.info.shape;
        let sides = coded.coding.sides();
        let reading =
            sides.iter().find(|codec| codec.packing().is_some_and(Packing::reads_vectors));
        if let Some(codec) = reading
            && coded.form.shape.len() < 2
            && coded.form.values() > 0
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
        Ok(if grows { Err(Left::Grows) } else { Ok(coded) })
    }

    fn coding_of(&self, tensor: &Tensor) -> Result<Coding> {
        let coding = if self.layout.kv_axis.is_some() {
            Coding::Both(self.codec)
        } else if self.codec.key == self.codec.value {
            Coding::One(self.codec.key)
        } else {
            match Role::of(&tensor.name) {
                Some(Role::Key) => Coding::One(self.codec.key),
                Some(Role::Value) => Coding::One(self.codec.value),
                None => {
                    return Err(Error::input(format!(
                        "codec {}: tensor {}: expected `key` or `value` in its name",
                        self.codec, tensor.name
                    ))
                    .hint(
                        "--kv-axis says which axis has keys and values in one tensor; or --exclude \
                         it, or use one codec for all",
                    ));
                }
            }
        };
        let group = coding.sides().iter().filter_map(TensorCodec::group).max();
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

/// The part of [`crate::run::extract::Origin`] that is needed here.
#[derive(Deserialize)]
struct RopeOf {
    rope_frequencies: Vec<f32>,
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
