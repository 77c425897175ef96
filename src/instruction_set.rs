//! The instruction set that figures depend on.

/// The instruction set that matrix products and the loops around them are run with, chosen
/// when the program starts: it decides the order of sums, hence the last digits of perplexities.
/// Told apart are AVX-512, AVX2 with FMA, and SSE2 on x86-64, NEON on ARM, and other processors by
/// their name. Caches of other sizes, which cut long sums elsewhere, are not. Codecs store and
/// decode the same bits on all of them.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    return match () {
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
