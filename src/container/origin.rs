//! The metadata entry that `kvgauge extract` leaves in its files, as far as it is read here: the
//! rotary embeddings of the keys. Other programs may write it too; docs/kv-compress.md says how.

use super::TextMap;
use crate::codec::{RotaryEmbedding, RotaryPairs};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::HashMap;

/// The entry's key.
pub const KEY: &str = "kvgauge.extract";

/// The fields of the entry that compression needs; see [`crate::run::extract::Origin`].
#[derive(Deserialize)]
struct Origin {
    rope_frequencies: Option<Vec<f32>>,
    #[serde(default)]
    rotary: Vec<Entry>,
}

/// The number of layers of the model, where a file's metadata says it.
pub(super) fn layer_count(metadata: Option<&TextMap>) -> Result<Option<usize>> {
    #[derive(Deserialize)]
    struct Origin {
        layers: Option<usize>,
    }
    let Some(json) = metadata.and_then(|metadata| metadata.get(KEY)) else { return Ok(None) };
    let origin: Origin = serde_json::from_str(json)
        .map_err(|e| Error::input(e.to_string()).within(format!("metadata {KEY}")))?;
    Ok(origin.layers)
}

#[derive(Deserialize)]
struct Entry {
    /// Left out: all that no other entry names.
    layers: Option<Vec<usize>>,
    frequencies: Vec<f32>,
    pairs: RotaryPairs,
    head_dim: usize,
}

/// What a file says of the rotary embeddings of its keys.
#[derive(Debug, Default)]
pub(super) struct KeyRotations {
    embeddings: Vec<RotaryEmbedding>,
    /// Index of that of a layer.
    of_layer: HashMap<usize, usize>,
    /// Index of that of all others.
    of_others: Option<usize>,
}

impl KeyRotations {
    /// Of a file with this metadata; nothing where `kvgauge extract` did not make it.
    pub fn read(metadata: Option<&TextMap>) -> Result<Self> {
        match metadata.and_then(|metadata| metadata.get(KEY)) {
            Some(json) => Self::parse(json).map_err(|e| {
                e.within(format!("metadata {KEY}")).hint(
                    "docs/kv-compress.md says what it has of rotary embeddings; --rope-theta says one for all keys",
                )
            }),
            None => Ok(Self::default()),
        }
    }

    fn parse(json: &str) -> Result<Self> {
        let origin: Origin = serde_json::from_str(json).map_err(|e| Error::input(e.to_string()))?;
        let mut all = Self::default();
        if let Some(frequencies) = origin.rope_frequencies {
            all.of_others = Some(0);
            all.embeddings.push(RotaryEmbedding::halves(&frequencies));
        }
        for Entry { layers, frequencies, pairs, head_dim } in origin.rotary {
            // A table is made for every token of a tensor: no wider than its head vectors.
            if frequencies.len() > head_dim / 2 {
                return Err(Error::input(format!(
                    "rotary: expected at most {} frequencies, one a pair of {head_dim} channels, found {}",
                    head_dim / 2,
                    frequencies.len()
                )));
            }
            let index = all.embeddings.len();
            all.embeddings.push(RotaryEmbedding { frequencies, pairs, head_dim });
            let Some(layers) = layers else {
                if all.of_others.replace(index).is_some() {
                    return Err(Error::input("rotary: two embeddings for all layers"));
                }
                continue;
            };
            for layer in layers {
                if all.of_layer.insert(layer, index).is_some() {
                    return Err(Error::input(format!("rotary: two embeddings for layer {layer}")));
                }
            }
        }
        Ok(all)
    }

    /// That of the keys of a tensor of this name; `None`: nothing is said of any.
    pub fn of(&self, name: &str) -> Result<Option<&RotaryEmbedding>> {
        let layer = layer_of(name);
        let own = layer.and_then(|layer| self.of_layer.get(&layer)).or(self.of_others.as_ref());
        if let Some(index) = own {
            return Ok(self.embeddings.get(*index));
        }
        if self.of_layer.is_empty() {
            return Ok(None);
        }
        let (expected, found) = match layer {
            Some(layer) => (format!("the rotary embedding of layer {layer}"), "none of this layer"),
            None => {
                ("a layer in the tensor's name, as in layer.3.key".into(), "embeddings by layer")
            }
        };
        Err(Error::input(format!("prerope: expected {expected}, found {found} in metadata {KEY}"))
            .hint(
                "--rope-theta says one embedding for all keys; --exclude stores a tensor as it is",
            ))
    }
}

/// The number behind the word `layer` or `layers` of a name: of `layer.3.key`,
/// `model.layers.3.self_attn.key`. `None`: there is none, or there are several.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let mut numbers = words
        .windows(2)
        .filter(|pair| matches!(pair[0], "layer" | "layers"))
        .filter(|pair| pair[1].bytes().all(|c| c.is_ascii_digit()))
        .filter_map(|pair| pair[1].parse().ok());
    let first = numbers.next();
    first.filter(|_| numbers.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<KeyRotations> {
        KeyRotations::read(Some(&[(KEY.to_string(), json.to_string())].into()))
    }

    #[test]
    fn layers_by_name() {
        for (name, layer) in [
            ("layer.3.key", Some(3)),
            ("layer.12.value", Some(12)),
            ("model.layers.3.self_attn.k_proj", Some(3)),
            ("layers/07/k", Some(7)),
            ("cache_layer_5_key", Some(5)),
            ("3.key", None),
            ("layer.key", None),
            ("layer.3a.key", None),
            ("layer.+3.key", None),
            ("layer..3", None),
            ("player.3.key", None),
            ("layer.3.layer.4.key", None),
            ("layer.18446744073709551616.key", None),
            ("", None),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
    }

    #[test]
    fn embeddings_by_layer() {
        let nothing = KeyRotations::read(None).unwrap();
        assert_eq!(nothing.of("layer.0.key").unwrap(), None);
        assert_eq!(read("{}").unwrap().of("x").unwrap(), None);
        let one = read(r#"{"model":{},"rope_frequencies":[1.0,0.5]}"#).unwrap();
        for name in ["layer.0.key", "layer.9.key", "kv"] {
            assert_eq!(
                one.of(name).unwrap(),
                Some(&RotaryEmbedding::halves(&[1.0, 0.5])),
                "{name}"
            );
        }
        let by_layer = read(
            r#"{"rotary":[{"layers":[0,2],"frequencies":[1.0],"pairs":"neighbours","head_dim":8},
                          {"layers":[1],"frequencies":[],"pairs":"halves","head_dim":4}]}"#,
        )
        .unwrap();
        let partial =
            RotaryEmbedding { frequencies: vec![1.0], pairs: RotaryPairs::Neighbours, head_dim: 8 };
        assert_eq!(by_layer.of("layer.2.key").unwrap(), Some(&partial));
        assert_eq!(by_layer.of("layer.1.key").unwrap(), Some(&RotaryEmbedding::none(4)));
        for (name, words) in [
            ("layer.3.key", "expected the rotary embedding of layer 3, found none of this layer"),
            ("k_0", "expected a layer in the tensor's name, as in layer.3.key"),
        ] {
            let error = by_layer.of(name).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.hint_text().unwrap().contains("--rope-theta"));
        }
        let with_rest = read(
            r#"{"rotary":[{"layers":[1],"frequencies":[],"pairs":"halves","head_dim":8},
                          {"frequencies":[1.0],"pairs":"neighbours","head_dim":8}]}"#,
        )
        .unwrap();
        assert_eq!(with_rest.of("layer.1.key").unwrap(), Some(&RotaryEmbedding::none(8)));
        assert_eq!(with_rest.of("kv").unwrap(), Some(&partial));
    }

    #[test]
    fn entries_that_say_nothing() {
        let entry = r#"{"layers":[0],"frequencies":[1.0],"pairs":"halves","head_dim":2}"#;
        for (json, words) in [
            ("[", "EOF"),
            (r#"{"rope_frequencies":[null]}"#, "null"),
            (r#"{"rotary":[{"layers":[0],"frequencies":[1.0],"pairs":"halves"}]}"#, "head_dim"),
            (&entry.replace("halves", "thirds"), "rotary"),
            (&format!(r#"{{"rotary":[{entry},{entry}]}}"#), "two embeddings for layer 0"),
            (
                &format!(
                    r#"{{"rope_frequencies":[1.0],"rotary":[{}]}}"#,
                    entry.replace(r#""layers":[0],"#, "")
                ),
                "two embeddings for all layers",
            ),
            (
                &format!(r#"{{"rotary":[{}]}}"#, entry.replace(":2", ":1")),
                "expected at most 0 frequencies, one a pair of 1 channels, found 1",
            ),
            (&format!(r#"{{"rotary":[{}]}}"#, entry.replace("halves", "thirds")), "thirds"),
        ] {
            match read(json) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("metadata kvgauge.extract: "), "{text}");
                    assert!(text.contains(words), "{json}: {text}");
                }
                // An object without the fields says nothing, whatever else it has.
                Ok(found) => assert!(words == "rotary" && found.embeddings.is_empty(), "{json}"),
            }
        }
    }
}
