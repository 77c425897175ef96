//! Which engine has which codec, and what it calls it there: one table for `--engine`, `kvgauge
//! codecs` and `docs/codecs.md`.

use super::presets;
use crate::codec::tensor_codec::Codec;

/// A program that serves models.
#[derive(Debug, PartialEq, Eq)]
pub struct Engine {
    pub name: &'static str,
    /// How a codec is asked for; `{}` is its word.
    flag: &'static str,
    /// The words of its flag, and the presets that are these codecs value for value. Where the flag has
    /// several words for one, the first is shown.
    codecs: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const ENGINES: [Engine; 9] = [
    Engine {
        name: "llama.cpp",
        flag: "-ctk {} -ctv {}",
        codecs: &[
            ("q8_0", "q8_0-had"),
            ("q5_1", "q5_1-had"),
            ("q5_0", "q5_0-had"),
            ("q4_1", "q4_1-had"),
            ("q4_0", "q4_0-had"),
            ("iq4_nl", "iq4_nl-had"),
        ],
    },
    Engine {
        name: "llama.cpp-unrotated",
        flag: "LLAMA_ATTN_ROT_DISABLE=1, -ctk {} -ctv {}",
        codecs: &[
            ("q8_0", "q8_0"),
            ("q5_1", "q5_1"),
            ("q5_0", "q5_0"),
            ("q4_1", "q4_1"),
            ("q4_0", "q4_0"),
            ("iq4_nl", "iq4_nl"),
        ],
    },
    // As it quantises on CUDA, where its q4_0 has another scale than ggml's.
    Engine {
        name: "ik_llama.cpp",
        flag: "-ctk {} -ctv {}",
        codecs: &[
            ("q8_0", "q8_0"),
            ("q6_0", "q6_0"),
            ("q5_1", "q5_1"),
            ("q5_0", "q5_0"),
            ("q4_1", "q4_1"),
            ("iq4_nl", "iq4_nl"),
        ],
    },
    Engine {
        name: "vLLM",
        flag: "--kv-cache-dtype {}",
        codecs: &[
            ("fp8_e4m3", "fp8-e4m3"),
            ("fp8", "fp8-e4m3"),
            ("fp8_e5m2", "fp8-e5m2"),
            ("fp8_per_token_head", "fp8-per-token-head"),
            ("int8_per_token_head", "int8-per-token-head"),
            ("int4_per_token_head", "int4-per-token-head"),
            ("nvfp4", "nvfp4"),
        ],
    },
    Engine {
        name: "SGLang",
        flag: "--kv-cache-dtype {}",
        codecs: &[("fp8_e4m3", "fp8-e4m3"), ("fp8_e5m2", "fp8-e5m2")],
    },
    Engine {
        name: "TensorRT-LLM",
        flag: "KvCacheConfig(dtype=\"{}\")",
        codecs: &[("fp8", "fp8-e4m3")],
    },
    Engine {
        name: "Transformers",
        flag: "QuantizedCache(\"quanto\", model.config, nbits={})",
        codecs: &[("4", "quanto4"), ("2", "quanto2")],
    },
    Engine {
        name: "exllamav3",
        flag: "-cq {}",
        codecs: &[
            ("8", "exllamav3-8"),
            ("7", "exllamav3-7"),
            ("6", "exllamav3-6"),
            ("5", "exllamav3-5"),
            ("4", "exllamav3-4"),
            ("3", "exllamav3-3"),
            ("2", "exllamav3-2"),
        ],
    },
    Engine {
        name: "MLX",
        flag: "--kv-bits {} --quantized-kv-start 0",
        codecs: &[
            ("8", "mlx8"),
            ("6", "mlx6"),
            ("5", "mlx5"),
            ("4", "mlx4"),
            ("3", "mlx3"),
            ("2", "mlx2"),
        ],
    },
];

impl Engine {
    /// Of a name in any case.
    pub fn find(name: &str) -> Option<&'static Self> {
        ENGINES.iter().find(|engine| engine.name.eq_ignore_ascii_case(name))
    }

    /// The words of its flag.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.codecs.iter().map(|(word, _)| *word)
    }

    /// The codec that its flag has this word for.
    pub fn codec(&self, word: &str) -> Option<Codec> {
        let (_, preset) = self.codecs.iter().find(|(known, _)| *known == word)?;
        presets::find(preset)
    }

    /// Its flag for a codec, where it has it: with one word, or with one for keys and one for values where
    /// the flag has a place for each.
    pub fn flag_of(&self, codec: &Codec) -> Option<String> {
        let word = |same: fn(&Codec, &Codec) -> bool| {
            let is = |preset: &str| presets::find(preset).is_some_and(|known| same(&known, codec));
            self.codecs.iter().find(|(_, preset)| is(preset)).map(|(word, _)| *word)
        };
        if let Some(word) = word(|known, codec| known == codec) {
            return Some(self.flag.replace("{}", word));
        }
        let key = word(|known, codec| known.key == codec.key)?;
        let value = word(|known, codec| known.value == codec.value)?;
        let filled = self.flag.replacen("{}", key, 1);
        filled.contains("{}").then(|| filled.replacen("{}", value, 1))
    }

    /// Its flag for a preset, where it has it.
    pub fn flag(&self, preset: &str) -> Option<String> {
        let (word, _) = self.codecs.iter().find(|(_, known)| *known == preset)?;
        Some(self.flag.replace("{}", word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_codec() {
        for engine in &ENGINES {
            assert_eq!(Engine::find(&engine.name.to_uppercase()), Some(engine));
            for (word, preset) in engine.codecs {
                assert!(engine.codec(word).is_some(), "{}: {word}", engine.name);
                assert!(engine.flag(preset).is_some_and(|flag| !flag.contains('{')), "{preset}");
            }
        }
        let [rotated, plain, vllm] = ["llama.cpp", "llama.cpp-unrotated", "vllm"]
            .map(|name| Engine::find(name).expect(name));
        assert_eq!(vllm.flag("fp8-e4m3").unwrap(), "--kv-cache-dtype fp8_e4m3");
        assert_eq!(rotated.codec("q4_0"), presets::find("q4_0-had"));
        assert_eq!(plain.codec("q4_0"), presets::find("q4_0"));
        assert_eq!((rotated.codec("nf4"), rotated.flag("turbo4")), (None, None));
        assert_eq!(Engine::find("ollama"), None);
    }

    #[test]
    fn a_codec_has_the_flag_that_means_it() {
        let flag = |engine: &str, codec: &str| {
            Engine::find(engine).unwrap().flag_of(&codec.parse().unwrap())
        };
        let told = |engine: &str, codec: &str| flag(engine, codec).unwrap();
        assert_eq!(told("llama.cpp", "q4_0-had"), "-ctk q4_0 -ctv q4_0");
        assert_eq!(told("llama.cpp", "k:q8_0-had/v:q4_0-had64"), "-ctk q8_0 -ctv q4_0");
        assert_eq!(told("ik_llama.cpp", "int6-g32-ext"), "-ctk q6_0 -ctv q6_0");
        assert_eq!(told("vllm", "fp8-e4m3"), "--kv-cache-dtype fp8_e4m3");
        // One word for both sides, and codecs of others.
        assert_eq!(flag("vllm", "k:fp8-e4m3/v:fp8-e5m2"), None);
        assert_eq!(flag("llama.cpp", "q4_0"), None);
        assert_eq!(flag("llama.cpp", "k:q8_0-had/v:kvgauge4"), None);
    }
}
