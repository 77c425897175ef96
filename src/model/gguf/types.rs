//! ggml's types of weights, by the number that a GGUF file gives them.

use super::dequantise::{self as blocks, Block, Decode};
use crate::error::{Error, Result};

/// A type of weights in GGUF files.
#[derive(Debug, Clone, Copy)]
pub struct WeightType {
    /// llama.cpp's name.
    pub name: &'static str,
    /// Values of a block. Rows are whole blocks.
    pub block: u64,
    /// Bytes of a block.
    pub bytes: u64,
    /// `None`: known by name only.
    decode: Option<Decode>,
}

fn read<T: Block<BYTES, VALUES>, const BYTES: usize, const VALUES: usize>(
    name: &'static str,
    _: T,
) -> WeightType {
    let decode: Decode = blocks::decode::<T, BYTES, VALUES>;
    WeightType { name, block: VALUES as u64, bytes: BYTES as u64, decode: Some(decode) }
}

fn named(name: &'static str, block: u64, bytes: u64) -> WeightType {
    WeightType { name, block, bytes, decode: None }
}

impl WeightType {
    /// IEEE half precision.
    pub fn f16() -> Self {
        read("F16", blocks::F16)
    }

    /// The upper half of f32.
    pub fn bf16() -> Self {
        read("BF16", blocks::Bf16)
    }

    /// The type with a number of ggml's; `None`: a number that ggml had not given away when this was
    /// written, or had taken back before there was GGUF.
    pub fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => read("F32", blocks::F32),
            1 => Self::f16(),
            2 => read("Q4_0", blocks::Q4_0),
            3 => read("Q4_1", blocks::Q4_1),
            6 => read("Q5_0", blocks::Q5_0),
            7 => read("Q5_1", blocks::Q5_1),
            8 => read("Q8_0", blocks::Q8_0),
            9 => read("Q8_1", blocks::Q8_1),
            10 => read("Q2_K", blocks::Q2K),
            11 => read("Q3_K", blocks::Q3K),
            12 => read("Q4_K", blocks::Q4K),
            13 => read("Q5_K", blocks::Q5K),
            14 => read("Q6_K", blocks::Q6K),
            15 => read("Q8_K", blocks::Q8K),
            16 => read("IQ2_XXS", blocks::Iq2Xxs),
            17 => read("IQ2_XS", blocks::Iq2Xs),
            18 => read("IQ3_XXS", blocks::Iq3Xxs),
            19 => read("IQ1_S", blocks::Iq1S),
            20 => read("IQ4_NL", blocks::Iq4Nl),
            21 => read("IQ3_S", blocks::Iq3S),
            22 => read("IQ2_S", blocks::Iq2S),
            23 => read("IQ4_XS", blocks::Iq4Xs),
            24 => named("I8", 1, 1),
            25 => named("I16", 1, 2),
            26 => named("I32", 1, 4),
            27 => named("I64", 1, 8),
            28 => read("F64", blocks::F64),
            29 => read("IQ1_M", blocks::Iq1M),
            30 => Self::bf16(),
            31 => named("Q4_0_4_4", 32, 18),
            32 => named("Q4_0_4_8", 32, 18),
            33 => named("Q4_0_8_8", 32, 18),
            34 => read("TQ1_0", blocks::Tq1_0),
            35 => read("TQ2_0", blocks::Tq2_0),
            36 => named("IQ4_NL_4_4", 32, 18),
            37 => named("IQ4_NL_4_8", 32, 18),
            38 => named("IQ4_NL_8_8", 32, 18),
            39 => read("MXFP4", blocks::MxFp4),
            40 => read("NVFP4", blocks::NvFp4),
            41 => read("Q1_0", blocks::Q1_0),
            42 => read("Q2_0", blocks::Q2_0),
            _ => return None,
        })
    }

    /// Bytes of as many values, which are whole blocks.
    pub fn bytes_of(&self, values: usize) -> u64 {
        values as u64 / self.block * self.bytes
    }

    /// Whether [`Self::dequantise`] can.
    pub fn is_read(&self) -> bool {
        self.decode.is_some()
    }

    /// Whole blocks → f32, the bits that `gguf-py` has. A scale that is infinite or NaN gives values
    /// that are. Allocates nothing.
    ///
    /// # Errors
    /// A type that is known by name only; `bytes` and `out` that are not as many whole blocks.
    pub fn dequantise(&self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        let name = self.name;
        let Some(decode) = self.decode else {
            return Err(Error::input(format!("weights of type {name} are not read")));
        };
        let blocks = out.len() as u64 / self.block;
        let (values, expected) = (blocks * self.block, blocks.checked_mul(self.bytes));
        if values != out.len() as u64 || expected != Some(bytes.len() as u64) {
            return Err(Error::input(format!(
                "{name}: expected blocks of {} values in {} bytes, found {} values in {} bytes",
                self.block,
                self.bytes,
                out.len(),
                bytes.len()
            )));
        }
        decode(bytes, out);
        Ok(())
    }
}

/// What to do about weights that are not read.
pub fn hint(number: u32) -> &'static str {
    match number {
        24..=27 => {
            "whole numbers are no weights: the file was written by another program than llama.cpp's, \
             or for another one"
        }
        36..=38 => {
            "llama.cpp took this type out of GGUF, and bitnet.cpp gave its number to one of its \
             own (I2_S, TL1): use the model in IQ4_NL, TQ2_0 or another type of llama.cpp's"
        }
        4 | 5 | 31..=33 => {
            "llama.cpp took this type out of GGUF and orders the blocks of Q4_0 by itself: use \
             the model in Q4_0 or another type"
        }
        97..400 => {
            "ik_llama.cpp has types of its own with numbers like this one, which llama.cpp does not \
             read either: use the model in one of llama.cpp's, for example Q4_K_M or IQ4_XS"
        }
        _ => {
            "ggml gave this number away after kvgauge was written, or the header is damaged: use the \
             model in another type of weights, for example Q4_K_M or Q8_0"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type that has a number is read, but for whole numbers and what was taken out again.
    #[test]
    fn blocks_are_checked() {
        let types: Vec<WeightType> = (0..500).filter_map(WeightType::of).collect();
        assert_eq!(types.iter().filter(|kind| kind.is_read()).count(), 31);
        for kind in types {
            let (values, bytes) = (kind.block as usize, kind.bytes as usize);
            let mut out = vec![f32::NAN; 2 * values + 1];
            let blocks = vec![0; 2 * bytes + 1];
            let outcome = kind.dequantise(&blocks[..2 * bytes], &mut out[..2 * values]);
            assert_eq!(outcome.is_ok(), kind.is_read(), "{}", kind.name);
            assert!(kind.dequantise(&[], &mut []).is_ok() == kind.is_read());
            if kind.is_read() {
                assert!(out[..2 * values].iter().all(|x| x.is_finite()), "{}", kind.name);
                assert!(out[2 * values].is_nan());
            }
            for (bytes, values) in [
                (2 * bytes + 1, 2 * values),
                (2 * bytes - 1, 2 * values),
                (bytes, 2 * values),
                (0, values),
            ] {
                let error = kind.dequantise(&blocks[..bytes], &mut out[..values]).unwrap_err();
                assert!(error.to_string().contains(kind.name), "{error}");
            }
        }
    }
}
