//! The layers that a file's tensors belong to, and the codec of each.

use super::manifest::is_float;
use super::origin;
use super::safetensors::Header;
use crate::codec::{CacheCodec, Codec};
use crate::error::{Error, Result};

/// The codec of every tensor, by its layer.
pub enum FileLayers<'a> {
    /// All layers have the same.
    Uniform(&'a Codec),
    /// One a layer.
    Each(Vec<Codec>),
}

impl<'a> FileLayers<'a> {
    /// Of a file with this header. It has as many layers as `kvgauge extract` says in its metadata,
    /// or else as the highest layer in a tensor's name.
    ///
    /// # Errors
    /// A layer that the codec names and the file does not have; a file whose layers are not known.
    pub fn of(codec: &'a CacheCodec, header: &Header) -> Result<Self> {
        if codec.is_uniform() {
            return Ok(Self::Uniform(codec.base()));
        }
        let count = match origin::layer_count(header.metadata.as_ref())? {
            Some(count) => count,
            None => {
                let named = header.tensors.iter().filter(|tensor| is_float(tensor.info.dtype));
                let named = named.filter_map(|tensor| layer_of(&tensor.name));
                named.max().map_or(0, |last| last.saturating_add(1))
            }
        };
        if count == 0 && !header.tensors.is_empty() {
            return Err(Error::input(format!(
                "codec {codec}: expected layers in the tensors' names, found none"
            ))
            .hint("layer.3.key names one, and so does key_cache.3"));
        }
        if count > MOST_LAYERS {
            return Err(Error::input(format!(
                "codec {codec}: expected at most {MOST_LAYERS} layers, found {count}"
            )));
        }
        let layers = codec.of_layers(count).map_err(|e| e.within(format!("codec {codec}")))?;
        Ok(Self::Each(layers))
    }

    /// That of the tensor of this name.
    ///
    /// # Errors
    /// A name that does not say a layer, or one that is not there.
    pub fn codec_of(&self, name: &str) -> Result<&Codec> {
        let layers = match self {
            Self::Uniform(codec) => return Ok(codec),
            Self::Each(layers) => layers,
        };
        let layer = layer_of(name).ok_or_else(|| {
            Error::input("expected a layer in its name, as in layer.3.key, for codecs by layer")
        })?;
        layers.get(layer).ok_or_else(|| {
            let count = layers.len();
            Error::input(format!("expected one of {count} layers, 0 to {}", count - 1))
        })
    }
}

/// More than any model has; a codec is kept for each.
const MOST_LAYERS: usize = 1 << 16;

/// The layer of a tensor of this name: the number behind the word `layer` or `layers`, or in a name
/// without such a word the only number that stands alone: `past_key_values.3.key`, `key_cache.3`.
fn layer_of(name: &str) -> Option<usize> {
    origin::layer_of(name).or_else(|| {
        let words = || name.split(|c: char| !c.is_ascii_alphanumeric());
        let has_word = words().any(|word| matches!(word, "layer" | "layers"));
        let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_digit());
        let mut numbers = words().filter(is_number);
        let only = numbers.next().filter(|_| numbers.next().is_none() && !has_word);
        only?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::TextMap;

    fn header(names: &[&str], metadata: Option<&str>) -> Header {
        let entry = |json: &str| -> TextMap { [(origin::KEY.into(), json.into())].into() };
        let mut header = Header { metadata: metadata.map(entry), tensors: Vec::new() };
        for name in names {
            header.push(name.to_string(), safetensors::Dtype::F16, vec![1, 2, 8]).unwrap();
        }
        header
    }

    #[test]
    fn layers_by_name() {
        for (name, layer) in [
            ("layer.3.key", Some(3)),
            ("model.layers.12.self_attn.k", Some(12)),
            ("past_key_values.3.key", Some(3)),
            ("key_cache.3", Some(3)),
            ("k_3", Some(3)),
            ("3", Some(3)),
            ("past_key_values.3.0", None),
            ("layer.key", None),
            ("layer.key.3", None),
            ("layer.1.layer.2", None),
            ("k3", None),
            ("kv_cache", None),
            ("", None),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
    }

    #[test]
    fn every_tensor_has_the_codec_of_its_layer() {
        let codec: CacheCodec = "q4_0+q8_0@0,-1".parse().unwrap();
        let names = ["layer.0.key", "layer.1.key", "layer.2.key"];
        let found = |header: &Header, name: &str| {
            FileLayers::of(&codec, header).unwrap().codec_of(name).unwrap().to_string()
        };
        let by_name = header(&names, None);
        assert_eq!(names.map(|name| found(&by_name, name)), ["q8_0", "q4_0", "q8_0"]);
        // A file that holds the first of more layers.
        let of_ten = header(&names, Some(r#"{"layers":10}"#));
        assert_eq!(names.map(|name| found(&of_ten, name)), ["q8_0", "q4_0", "q4_0"]);
        let plain: CacheCodec = "q4_0".parse().unwrap();
        let nameless = header(&["kv"], None);
        let layers = FileLayers::of(&plain, &nameless).unwrap();
        assert_eq!(layers.codec_of("kv").unwrap().to_string(), "q4_0");
    }

    #[test]
    fn layers_that_are_not_there_are_refused() {
        let refused = |codec: &str, header: &Header, words: &str| {
            let codec: CacheCodec = codec.parse().unwrap();
            let error = match FileLayers::of(&codec, header) {
                Err(error) => error,
                Ok(layers) => layers.codec_of("kv").unwrap_err(),
            };
            assert!(error.to_string().contains(words), "{error}");
        };
        let two = header(&["layer.0.key", "layer.1.key", "kv"], None);
        refused("q4_0+q8_0@2", &two, "layer 2: expected one of 2 layers, 0 to 1 or -2 to -1");
        refused("q4_0+q8_0@-3", &two, "layer -3: expected one of 2 layers");
        refused("q4_0+q8_0@1", &two, "expected a layer in its name, as in layer.3.key");
        refused("q4_0+q8_0@1", &header(&["kv"], None), "expected layers in the tensors' names");
        let huge = header(&["layer.99999999.key"], None);
        refused("q4_0+q8_0@1", &huge, "expected at most 65536 layers, found 100000000");
        let fewer = header(&["layer.0.key", "layer.7.key"], Some(r#"{"layers":2}"#));
        let codec: CacheCodec = "q4_0+q8_0@1".parse().unwrap();
        let error = FileLayers::of(&codec, &fewer).unwrap().codec_of("layer.7.key").unwrap_err();
        assert!(error.to_string().contains("expected one of 2 layers, 0 to 1"), "{error}");
    }
}
