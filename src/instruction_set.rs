//! The instruction set that figures depend on.

#[cfg(target_arch = "x86_64")]
use crate::model::bf16;
use candle_core::DType;

/// The instruction set that matrix products of a type and the loops around them are run with, chosen
/// when the program starts: it decides the order of sums, hence the last digits of perplexities.
/// Told apart are, on x86-64, AMX and AVX-512-BF16 (of bf16), AVX-512, AVX2 with FMA, and SSE2, NEON on
/// ARM, and other processors by their name. Caches of other sizes, which cut long sums elsewhere, are
/// not. Codecs store and decode the same bits on all of them.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
pub fn instruction_set(dtype: DType) -> &'static str {
    #[cfg(target_arch = "x86_64")]
    let bf16 = (dtype == DType::BF16).then(bf16::instructions).flatten();
    #[cfg(target_arch = "x86_64")]
    return match () {
        () if bf16 == Some("amx-bf16") => "x86-64 amx-bf16",
        () if bf16 == Some("avx512-bf16") => "x86-64 avx512-bf16",
        // The features that `gemm` asks for.
        () if is_x86_feature_detected!("avx512f") => "x86-64 avx512",
        () if is_x86_feature_detected!("fma") => "x86-64 avx2",
        () => "x86-64 sse2",
    };
    #[cfg(target_arch = "aarch64")]
    return "aarch64 neon";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return std::env::consts::ARCH;
}
