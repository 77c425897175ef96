//! ggml's types of weights, by the number that a GGUF file gives them.

use candle_core::quantized::GgmlDType;

/// One type: a block of `block` values takes `bytes`.
#[derive(Debug, Clone, Copy)]
pub struct WeightType {
    pub name: &'static str,
    pub block: u64,
    pub bytes: u64,
    /// `None`: known by name only.
    pub read_as: Option<GgmlDType>,
}

const fn read(name: &'static str, block: u64, bytes: u64, read_as: GgmlDType) -> WeightType {
    WeightType { name, block, bytes, read_as: Some(read_as) }
}

const fn named(name: &'static str, block: u64, bytes: u64) -> WeightType {
    WeightType { name, block, bytes, read_as: None }
}

/// The types that are read, for hints.
pub const READ: &str =
    "F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, Q6_K, Q5_K, Q4_K, Q3_K and Q2_K";

/// `None`: a number that ggml had not given away when this was written.
pub fn weight_type(number: u32) -> Option<WeightType> {
    Some(match number {
        0 => read("F32", 1, 4, GgmlDType::F32),
        1 => read("F16", 1, 2, GgmlDType::F16),
        2 => read("Q4_0", 32, 18, GgmlDType::Q4_0),
        3 => read("Q4_1", 32, 20, GgmlDType::Q4_1),
        6 => read("Q5_0", 32, 22, GgmlDType::Q5_0),
        7 => read("Q5_1", 32, 24, GgmlDType::Q5_1),
        8 => read("Q8_0", 32, 34, GgmlDType::Q8_0),
        9 => named("Q8_1", 32, 36),
        10 => read("Q2_K", 256, 84, GgmlDType::Q2K),
        11 => read("Q3_K", 256, 110, GgmlDType::Q3K),
        12 => read("Q4_K", 256, 144, GgmlDType::Q4K),
        13 => read("Q5_K", 256, 176, GgmlDType::Q5K),
        14 => read("Q6_K", 256, 210, GgmlDType::Q6K),
        15 => named("Q8_K", 256, 292),
        16 => named("IQ2_XXS", 256, 66),
        17 => named("IQ2_XS", 256, 74),
        18 => named("IQ3_XXS", 256, 98),
        19 => named("IQ1_S", 256, 50),
        20 => named("IQ4_NL", 32, 18),
        21 => named("IQ3_S", 256, 110),
        22 => named("IQ2_S", 256, 82),
        23 => named("IQ4_XS", 256, 136),
        24 => named("I8", 1, 1),
        25 => named("I16", 1, 2),
        26 => named("I32", 1, 4),
        27 => named("I64", 1, 8),
        28 => named("F64", 1, 8),
        29 => named("IQ1_M", 256, 56),
        30 => read("BF16", 1, 2, GgmlDType::BF16),
        // Taken out of ggml again: blocks of Q4_0 and IQ4_NL in another order.
        31 => named("Q4_0_4_4", 32, 18),
        32 => named("Q4_0_4_8", 32, 18),
        33 => named("Q4_0_8_8", 32, 18),
        34 => named("TQ1_0", 256, 54),
        35 => named("TQ2_0", 256, 66),
        36 => named("IQ4_NL_4_4", 32, 18),
        37 => named("IQ4_NL_4_8", 32, 18),
        38 => named("IQ4_NL_8_8", 32, 18),
        39 => named("MXFP4", 32, 17),
        40 => named("NVFP4", 64, 36),
        41 => named("Q1_0", 128, 18),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where candle has the type, it has the same blocks.
    #[test]
    fn blocks_are_candles() {
        let read: Vec<WeightType> =
            (0..64).filter_map(weight_type).filter(|kind| kind.read_as.is_some()).collect();
        assert_eq!(read.len(), 13);
        for kind in read {
            let candle = kind.read_as.unwrap();
            let expected = (candle.block_size() as u64, candle.type_size() as u64);
            assert_eq!((kind.block, kind.bytes), expected, "{}", kind.name);
            assert!(READ.contains(kind.name), "{}", kind.name);
        }
    }
}
