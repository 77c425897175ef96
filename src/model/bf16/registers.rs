//! Products with sums in registers: each pair of a row against the same pair of 32 rows of a panel, whose
//! sums are in two registers of AVX-512. 14 rows fill 28 of 32.

use super::{PANEL, Piece};

/// Lanes of a register of sums.
const LANES: usize = 16;
/// Rows whose sums are in registers.
const ROWS: usize = 14;

/// Sums in a register, and the instruction.
trait Sums: Copy {
    /// A register of pairs.
    type Pairs: Copy;

    fn zero() -> Self;
    fn load(values: &[f32; LANES]) -> Self;
    fn store(self, values: &mut [f32; LANES], factor: f32);
    fn pairs(values: &[u32; LANES]) -> Self::Pairs;
    /// In each lane: adds the products of both pairs' second and first.
    fn add(self, pair: u32, pairs: Self::Pairs) -> Self;
}

/// What the instruction does, lane by lane, on any processor.
pub fn multiply_emulated(piece: &Piece, out: &mut [&mut [f32]]) {
    by_rows::<Emulated>(piece, out);
}

#[inline(always)]
fn by_rows<S: Sums>(piece: &Piece, out: &mut [&mut [f32]]) {
    macro_rules! of_rows {
        ($left:ident, $out:ident, $($rows:literal)*) => {
            match $out.len() {
                $($rows => some_rows::<S, $rows>(piece, $left, $out),)*
                _ => unreachable!("at most {ROWS} rows"),
            }
        };
    }
    for (block, out) in out.chunks_mut(ROWS).enumerate() {
        let left = &piece.left[block * ROWS * piece.stride..];
        of_rows!(left, out, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
}

#[inline(always)]
fn some_rows<S: Sums, const N: usize>(piece: &Piece, left: &[u32], out: &mut [&mut [f32]]) {
    let panel = &piece.panel[..piece.depth];
    // As long as the panel: no check in the loop below.
    let left: [&[u32]; N] =
        std::array::from_fn(|index| &left[index * piece.stride..][..panel.len()]);
    let mut sums = [[S::zero(); 2]; N];
    if piece.goes_on {
        for (sums, row) in sums.iter_mut().zip(out.iter_mut()) {
            let mut whole = [0f32; PANEL];
            let row = piece.columns(row);
            whole[..row.len()].copy_from_slice(row);
            let halves = whole.as_chunks().0;
            *sums = [S::load(&halves[0]), S::load(&halves[1])];
        }
    }
    for (index, pairs) in panel.iter().enumerate() {
        let halves: &[[u32; LANES]] = pairs.as_chunks().0;
        let (low, high) = (S::pairs(&halves[0]), S::pairs(&halves[1]));
        for (sums, left) in sums.iter_mut().zip(&left) {
            let pair = left[index];
            *sums = [sums[0].add(pair, low), sums[1].add(pair, high)];
        }
    }
    for (sums, row) in sums.into_iter().zip(out) {
        let row = piece.columns(row);
        match row.as_chunks_mut::<LANES>() {
            ([low, high], []) => {
                sums[0].store(low, piece.factor);
                sums[1].store(high, piece.factor);
            }
            _ => {
                let mut whole = [[0f32; LANES]; 2];
                sums[0].store(&mut whole[0], piece.factor);
                sums[1].store(&mut whole[1], piece.factor);
                row.copy_from_slice(&whole.as_flattened()[..row.len()]);
            }
        }
    }
}

/// Each product is exact, and each addition rounds.
#[derive(Clone, Copy)]
struct Emulated([f32; LANES]);

impl Sums for Emulated {
    type Pairs = [u32; LANES];

    fn zero() -> Self {
        Self([0.0; LANES])
    }

    fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    fn store(self, values: &mut [f32; LANES], factor: f32) {
        *values = self.0.map(|sum| factor * sum);
    }

    fn pairs(values: &[u32; LANES]) -> [u32; LANES] {
        *values
    }

    fn add(mut self, pair: u32, pairs: [u32; LANES]) -> Self {
        let halves = |pair: u32| (f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000));
        let (low, high) = halves(pair);
        for (sum, pair) in self.0.iter_mut().zip(pairs) {
            let of_lane = halves(pair);
            *sum += high * of_lane.1;
            *sum += low * of_lane.0;
        }
        self
    }
}

/// Whether Intel made this processor.
#[cfg(target_arch = "x86_64")]
pub fn is_of_intel() -> bool {
    // SAFETY: every x86-64 has the instruction (and newer compilers know).
    #[allow(unsafe_code, unused_unsafe)]
    let name = unsafe { core::arch::x86_64::__cpuid(0) };
    [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(target_arch = "x86_64")]
pub use native::multiply_natively;

#[cfg(target_arch = "x86_64")]
mod native {
    #![allow(unsafe_code)]

    use super::{LANES, Piece, Sums, by_rows};
    use core::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    use core::mem::transmute;

    /// The caller has checked that the processor has AVX-512 and AVX-512-BF16.
    pub fn multiply_natively(piece: &Piece, out: &mut [&mut [f32]]) {
        debug_assert!(is_x86_feature_detected!("avx512bf16"));
        // SAFETY: the processor has the features.
        unsafe { with_features(piece, out) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn with_features(piece: &Piece, out: &mut [&mut [f32]]) {
        by_rows::<Native>(piece, out);
    }

    /// Only within [`with_features`].
    #[derive(Clone, Copy)]
    struct Native(__m512);

    impl Sums for Native {
        type Pairs = __m512i;

        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the processor has AVX-512, here and below.
            Self(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: as many values as lanes.
            Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, values: &mut [f32; LANES], factor: f32) {
            // SAFETY: as many values as lanes.
            unsafe {
                let values = values.as_mut_ptr();
                _mm512_storeu_ps(values, _mm512_mul_ps(self.0, _mm512_set1_ps(factor)));
            }
        }

        #[inline(always)]
        fn pairs(values: &[u32; LANES]) -> __m512i {
            // SAFETY: as many values as lanes.
            unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
        }

        #[inline(always)]
        fn add(self, pair: u32, pairs: __m512i) -> Self {
            // SAFETY: registers of one size, whatever is in them.
            unsafe {
                let pair = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32));
                Self(_mm512_dpbf16_ps(self.0, pair, transmute::<__m512i, __m512bh>(pairs)))
            }
        }
    }
}
