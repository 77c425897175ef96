//! Which engine has which codec, and what it calls it there: one table for `--engine`, `kvgauge
//! codecs` and `docs/codecs.md`.

use crate::codec::by_layer::CacheCodec;
use crate::codec::tensor_codec::Codec;

/// A program that serves models.
#[derive(Debug, PartialEq, Eq)]
pub struct Engine {
    pub name: &'static str,
    /// How a codec is asked for; `{}` is its word.
    flag: &'static str,
    /// The words of its flag, and the codecs that are these value for value: presets, or of an engine
    /// that leaves some layers alone whatever it is told, `PRESET+NAME@LAYERS`. Where the flag has several
    /// words for one, the first is shown.
    codecs: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const ENGINES: [Engine; 12] = [
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
    // llama.cpp's rotation and types, and five of its own. Its CPUs and its GPUs differ in q6_0.
    Engine {
        name: "BeeLlama",
        flag: "-ctk {} -ctv {}",
        codecs: &[
            ("q8_0", "q8_0-had"),
            ("q6_1", "q6_1-had"),
            ("q5_1", "q5_1-had"),
            ("q5_0", "q5_0-had"),
            ("q4_1", "q4_1-had"),
            ("q4_0", "q4_0-had"),
            ("iq4_nl", "iq4_nl-had"),
            ("q3_1", "q3_1-had"),
            ("q3_0", "q3_0-had"),
            ("q2_1", "q2_1-had"),
            ("q2_0", "q2_0-had"),
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
            // Two layers at each end stay as they are, as in any model of attention alone.
            ("turboquant_k8v4", "turboquant-k8v4+f16@0-1,-2--1"),
            ("turboquant_4bit_nc", "turboquant-4bit-nc+f16@0-1,-2--1"),
            ("turboquant_k3v4_nc", "turboquant-k3v4-nc+f16@0-1,-2--1"),
            ("turboquant_3bit_nc", "turboquant-3bit-nc+f16@0-1,-2--1"),
        ],
    },
    // The fork of its authors: the first 128 tokens are exact there, and the last ones up to a whole tile.
    Engine {
        name: "vLLM-KVarN",
        flag: "--kv-cache-dtype {} --block-size 128",
        codecs: &[("kvarn_k4v2_g128", "kvarn-k4v2"), ("kvarn_k4v4_g128", "kvarn4")],
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
    // With groups along head vectors, as its documentation says to use it, and in single precision.
    Engine {
        name: "Transformers-HQQ",
        flag: "QuantizedCache(\"hqq\", model.config, nbits={}, axis_key=1, axis_value=1)",
        codecs: &[("4", "hqq4"), ("2", "hqq2")],
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
    pub fn codec(&self, word: &str) -> Option<CacheCodec> {
        let (_, name) = self.codecs.iter().find(|(known, _)| *known == word)?;
        name.parse().ok()
    }

    /// Its flag for a codec, where it has it: with one word, or with one for keys and one for values where
    /// the flag has a place for each.
    pub fn flag_of(&self, codec: &CacheCodec) -> Option<String> {
        let known = || {
            let of = |(word, name): &(&'static str, &str)| Some((*word, name.parse().ok()?));
            self.codecs.iter().filter_map(of)
        };
        if let Some((word, _)) = known().find(|(_, known): &(_, CacheCodec)| known == codec) {
            return Some(self.flag.replace("{}", word));
        }
        let wanted = codec.is_uniform().then(|| codec.base())?;
        let word = |same: &dyn Fn(&Codec) -> bool| {
            known()
                .find(|(_, known)| known.is_uniform() && same(known.base()))
                .map(|(word, _)| word)
        };
        let key = word(&|known| known.key == wanted.key)?;
        let value = word(&|known| known.value == wanted.value)?;
        let filled = self.flag.replacen("{}", key, 1);
        filled.contains("{}").then(|| filled.replacen("{}", value, 1))
    }

    /// Its flag for a preset, where it has it, for all layers or for most.
    pub fn flag(&self, preset: &str) -> Option<String> {
        let base = |name: &str| name.split_once('+').map_or(name, |(base, _)| base) == preset;
        let (word, _) = self.codecs.iter().find(|(_, name)| base(name))?;
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
            for (word, name) in engine.codecs {
                assert!(engine.codec(word).is_some(), "{}: {word}", engine.name);
                let preset = name.split('+').next().expect(name);
                assert!(engine.flag(preset).is_some_and(|flag| !flag.contains('{')), "{preset}");
            }
        }
        let [rotated, plain, vllm] = ["llama.cpp", "llama.cpp-unrotated", "vllm"]
            .map(|name| Engine::find(name).expect(name));
        assert_eq!(vllm.flag("fp8-e4m3").unwrap(), "--kv-cache-dtype fp8_e4m3");
        let word = |engine: &Engine, word| engine.codec(word).expect(word).to_string();
        assert_eq!(word(rotated, "q4_0"), "q4_0-had");
        assert_eq!(word(plain, "q4_0"), "q4_0");
        assert_eq!(vllm.flag("turboquant-k8v4").unwrap(), "--kv-cache-dtype turboquant_k8v4");
        assert_eq!(word(vllm, "turboquant_3bit_nc"), "turboquant-3bit-nc+f16@0-1,-2--1");
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
