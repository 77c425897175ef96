//! Which tensors are compressed, and by which codec.

use super::manifest::is_float;
use super::safetensors::{Header, Tensor};
use crate::codec::{Codec, Geometry, Packing, Rope, TensorCodec};
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
}

impl Plan {
    /// All float tensors by one codec.
    pub fn all(codec: Codec) -> Self {
        Self { codec, include: Vec::new(), exclude: Vec::new(), rope_theta: None }
    }

    /// What keys are taken back from, radians a position and pair of channels, if it is known.
    pub(super) fn rope(&self, header: &Header, codecs: &[Option<TensorCodec>]) -> Option<Vec<f32>> {
        let needs = |codec: &TensorCodec| codec.packing().is_some_and(Packing::prerope);
        let mut tensors = header.tensors.iter().zip(codecs);
        let (tensor, _) = tensors.find(|(_, codec)| codec.as_ref().is_some_and(needs))?;
        match self.rope_theta {
            Some(theta) => Some(Rope::frequencies_of(theta, tensor.head_dim())),
            None => {
                let origin = header.metadata.as_ref()?.get(crate::extract::METADATA)?;
                serde_json::from_str::<RopeOf>(origin).ok().map(|origin| origin.rope_frequencies)
            }
        }
    }

    /// Whether every codec can store its tensor.
    pub(super) fn check(
        &self,
        header: &Header,
        codecs: &[Option<TensorCodec>],
        rope: Option<&Rope>,
    ) -> Result<()> {
        let noise = |codec| matches!(codec, TensorCodec::Noise(_));
        if noise(self.codec.key) || noise(self.codec.value) {
            return Err(Error::input(format!("codec {}: stores nothing", self.codec))
                .hint("noise is a control for `kvgauge validate` and `kvgauge sweep`"));
        }
        for (tensor, codec) in header.tensors.iter().zip(codecs) {
            if let Some(scheme) = codec.as_ref().and_then(TensorCodec::packing) {
                let geometry = Geometry { rope, ..Geometry::of_shape(&tensor.info.shape) };
                let fits = scheme.check(&geometry);
                fits.map_err(|e| e.within(format!("tensor {}", tensor.name)))?;
            }
        }
        Ok(())
    }

    /// The codec of each tensor; `None`: stored unchanged.
    pub fn assign(&self, header: &Header) -> Result<Vec<Option<TensorCodec>>> {
        let found = |pattern: &Pattern| header.tensors.iter().any(|t| pattern.matches(&t.name));
        // A mistyped --exclude would compress what was to stay as it is.
        for (flag, patterns) in [("--include", &self.include), ("--exclude", &self.exclude)] {
            if let Some(pattern) = patterns.iter().find(|pattern| !found(pattern)) {
                return Err(Error::input(format!("{flag} {pattern}: no tensor of such a name"))
                    .hint("`kv-compress inspect FILE` lists the names; quote the pattern"));
            }
        }
        header.tensors.iter().map(|tensor| self.codec_of(tensor)).collect()
    }

    fn codec_of(&self, tensor: &Tensor) -> Result<Option<TensorCodec>> {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(&tensor.name));
        let included = self.include.is_empty() || matches(&self.include);
        if !is_float(tensor.info.dtype) || !included || matches(&self.exclude) {
            return Ok(None);
        }
        let codec = if self.codec.key == self.codec.value {
            self.codec.key
        } else {
            match Role::of(&tensor.name) {
                Some(Role::Key) => self.codec.key,
                Some(Role::Value) => self.codec.value,
                None => {
                    return Err(Error::input(format!(
                        "codec {}: tensor {}: expected `key` or `value` in its name",
                        self.codec, tensor.name
                    ))
                    .hint("--exclude it, or use one codec for all"));
                }
            }
        };
        if let Some(group) = codec.group().filter(|group| *group > LARGEST_GROUP)
            && tensor.values() > LARGEST_GROUP
        {
            return Err(Error::input(format!(
                "tensor {}: expected a group of at most {LARGEST_GROUP} values, found {group}",
                tensor.name
            ))
            .hint("32, 64 and 128 are usual"));
        }
        Ok(Some(codec))
    }
}

/// The part of [`crate::extract::Origin`] that is needed here.
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
