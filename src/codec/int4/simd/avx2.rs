//! AVX2, F16C and FMA: a register holds eight f32, and sixteen lanes are two registers.

use super::super::block::{BlockLayout, BlockOutcome};
use super::super::scalar::{self, MAX_CODE};
use super::drive::{
    CellLanes, Factors, GROUPS, Kernel, STORED_LEVELS, Stream, max_of, prefetch, saturating_scale,
};
use crate::codec::distortion::BATCH;
use crate::codec::element::{Element, Kind};
use crate::codec::exponent::PowerOfTwo;
use core::arch::x86_64::*;
use half::f16;

pub struct Avx2;

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

// SAFETY: what follows needs no more than the features named.
unsafe impl Kernel for Avx2 {
    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn factors<T: Element>(
        values: &[T],
        group: usize,
        down: PowerOfTwo,
        scales: &mut [f16],
        factors: &mut Factors,
    ) {
        let mut largest = [0.0; GROUPS];
        for (largest, group) in largest.iter_mut().zip(values.chunks_exact(group)) {
            *largest = absmax(group);
        }
        let mut halves = [0_u16; GROUPS];
        let (mut finite, mut in_range, mut plain) = (true, true, true);
        for at in (0..scales.len()).step_by(8) {
            // SAFETY: eight of sixteen.
            let largest = unsafe { _mm256_loadu_ps(largest.as_ptr().add(at)) };
            let absmax = times(largest, down);
            let scale = _mm256_div_ps(absmax, _mm256_set1_ps(MAX_CODE));
            let words = _mm256_cvtps_ph::<NEAREST>(scale);
            let rounded = _mm256_cvtph_ps(words);
            let zeros = _mm256_setzero_ps();
            let below = |a, b: f32| _mm256_cmp_ps::<_CMP_LT_OQ>(a, _mm256_set1_ps(b));
            let all = |mask| _mm256_movemask_ps(mask) == 0xff;
            let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(rounded, zeros);
            let usable = _mm256_and_ps(positive, below(rounded, f32::INFINITY));
            let zero = _mm256_cmp_ps::<_CMP_EQ_OQ>(absmax, zeros);
            let normal = _mm256_andnot_ps(below(rounded, f16::MIN_POSITIVE.to_f32_const()), usable);
            finite &= all(below(absmax, f32::INFINITY));
            in_range &= all(_mm256_or_ps(normal, zero));
            plain &= all(below(rounded, saturating_scale::<T>()));
            let inverse = _mm256_div_ps(_mm256_set1_ps(1.0), rounded);
            // SAFETY: eight of sixteen.
            unsafe {
                _mm_storeu_si128(halves.as_mut_ptr().add(at).cast(), words);
                let scales = factors.scales.as_mut_ptr().add(at);
                _mm256_storeu_ps(scales, _mm256_and_ps(usable, rounded));
                let inverses = factors.inverses.as_mut_ptr().add(at);
                _mm256_storeu_ps(inverses, _mm256_and_ps(usable, inverse));
            }
        }
        for (scale, bits) in scales.iter_mut().zip(halves) {
            *scale = f16::from_bits(bits);
        }
        (factors.finite, factors.in_range, factors.plain) = (finite, in_range, plain && in_range);
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn units<T: Element, const PLAIN: bool, const REGISTERS: usize>(
        stream: &mut Stream,
        factors: &Factors,
        values: &[T],
        codes: &mut [u8],
    ) {
        let Stream { up, down, group, cell, .. } = *stream;
        let mut sums = stream.sums.0.map(|lanes| load(&lanes));
        let (mut group_left, mut cell_left) = (stream.group_left, stream.cell_left);
        let table_of = |index: usize| {
            let scale = factors.scales[index];
            let table = decoded_magnitudes::<T, PLAIN>(scale, up);
            let table = if PLAIN { table } else { times(table, down) };
            (_mm256_set1_ps(factors.inverses[index]), table)
        };
        let mut index = stream.index;
        let mut filled = stream.cells.filled;
        let (mut inverse, mut table) = table_of(index);
        let unit = 16 * REGISTERS;
        for (values, codes) in values.chunks_exact(unit).zip(codes.chunks_exact_mut(unit / 2)) {
            if group_left == 0 {
                index += 1;
                (inverse, table) = table_of(index);
                group_left = group;
            }
            let mut quantised = [[_mm256_setzero_si256(); 2]; REGISTERS];
            for (register, q) in quantised.as_flattened_mut().iter_mut().enumerate() {
                // SAFETY: 8 values from here on lie in the unit.
                let x = unsafe { widen(values.as_ptr().add(8 * register)) };
                let x = if PLAIN { x } else { times(x, down) };
                let code = _mm256_mul_ps(x, inverse);
                *q = _mm256_cvtps_epi32(if PLAIN { code } else { clamp(code, MAX_CODE) });
                // The lookup takes the three lowest bits of a lane.
                let magnitude = _mm256_permutevar8x32_ps(table, _mm256_abs_epi32(*q));
                let sign = _mm256_and_ps(_mm256_castsi256_ps(*q), _mm256_set1_ps(-0.0));
                let e = _mm256_sub_ps(x, _mm256_or_ps(magnitude, sign));
                let half = register % 2;
                sums[0][half] = _mm256_fmadd_ps(x, x, sums[0][half]);
                sums[1][half] = _mm256_fmadd_ps(x, e, sums[1][half]);
                sums[2][half] = _mm256_fmadd_ps(e, e, sums[2][half]);
            }
            prefetch(values, codes);
            for (quantised, codes) in quantised.iter().zip(codes.chunks_exact_mut(8)) {
                pack(*quantised, codes);
            }
            group_left -= unit;
            cell_left -= unit;
            if cell_left == 0 {
                stream.cells.lanes[filled] = CellLanes(sums.map(|lanes| store(lanes)));
                filled += 1;
                sums = [[_mm256_setzero_ps(); 2]; 3];
                cell_left = cell;
            }
        }
        stream.cells.filled = filled;
        stream.sums = CellLanes(sums.map(|lanes| store(lanes)));
        (stream.index, stream.group_left, stream.cell_left) = (index, group_left, cell_left);
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn finish_cells(cells: &[CellLanes; BATCH], take: impl FnOnce(&[[f32; BATCH]; 3])) {
        let pairs = |a, b| _mm_add_ps(_mm_shuffle_ps::<0x44>(a, b), _mm_shuffle_ps::<0xee>(a, b));
        let mut sums = [[0.0; BATCH]; 3];
        for (index, cells) in cells.as_chunks::<4>().0.iter().enumerate() {
            for (sum, sums) in sums.iter_mut().enumerate() {
                // SAFETY: four of BATCH.
                unsafe {
                    let part = |cell: usize| {
                        let [low, high] = load(&cells[cell].0[sum]);
                        let eight = _mm256_add_ps(low, high);
                        let upper = _mm256_extractf128_ps::<1>(eight);
                        _mm_add_ps(_mm256_castps256_ps128(eight), upper)
                    };
                    let (ab, cd) = (pairs(part(0), part(1)), pairs(part(2), part(3)));
                    let even = _mm_shuffle_ps::<0x88>(ab, cd);
                    let four = _mm_add_ps(even, _mm_shuffle_ps::<0xdd>(ab, cd));
                    _mm_storeu_ps(sums.as_mut_ptr().add(4 * index), four);
                }
            }
        }
        take(&sums);
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn decompress_groups<T: Element, const PLAIN: bool>(
        codes: &[u8],
        scales: &[f16],
        group: usize,
        up: PowerOfTwo,
        out: &mut [T],
    ) {
        let groups = codes.chunks_exact(group / 2).zip(out.chunks_exact_mut(group));
        for ((codes, out), scale) in groups.zip(scales) {
            let scale = _mm256_cvtph_ps(_mm_set1_epi16(scale.to_bits().cast_signed()));
            let table = load(&STORED_LEVELS).map(|levels| {
                let values = _mm256_mul_ps(levels, scale);
                if PLAIN { values } else { clamp(times(values, up), max_of::<T>()) }
            });
            match T::KIND {
                // SAFETY: whole registers of this type.
                Kind::F32 => unsafe { expand_words(codes, table, out.as_mut_ptr().cast()) },
                // SAFETY: whole registers of this type.
                _ => unsafe {
                    expand_halves(
                        codes,
                        table.map(|half| narrow::<T>(half)),
                        out.as_mut_ptr().cast(),
                    );
                },
            }
        }
    }
}

/// [`scalar::compress_block`], vectorised by the compiler.
#[target_feature(enable = "avx2,f16c,fma")]
pub fn compress_scalar<T: Element>(
    values: &[T],
    layout: BlockLayout,
    exponent: i32,
    codes: &mut [u8],
    scales: &mut [f16],
) -> BlockOutcome {
    scalar::compress_block(values, layout, exponent, codes, scales)
}

/// [`scalar::decompress_block`], vectorised by the compiler.
#[target_feature(enable = "avx2,f16c,fma")]
pub fn decompress_scalar<T: Element>(
    codes: &[u8],
    scales: &[f16],
    group: usize,
    exponent: i32,
    out: &mut [T],
) {
    scalar::decompress_block(codes, scales, group, exponent, out);
}

/// The largest magnitude of one group.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn absmax<T: Element>(group: &[T]) -> f32 {
    // Magnitudes are ordered as their bits are.
    let max = |a, b| match T::KIND {
        Kind::F32 => _mm256_max_epu32(a, b),
        Kind::F16 | Kind::Bf16 => _mm256_max_epu16(a, b),
    };
    let magnitude = match T::KIND {
        Kind::F32 => _mm256_set1_epi32(0x7fff_ffff),
        Kind::F16 | Kind::Bf16 => _mm256_set1_epi16(0x7fff),
    };
    let mut largest = _mm256_setzero_si256();
    for chunk in group.chunks_exact(32 / size_of::<T>()) {
        // SAFETY: a whole register.
        let bits = unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) };
        largest = max(largest, _mm256_and_si256(bits, magnitude));
    }
    let (low, high) = (_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
    match T::KIND {
        Kind::F32 => {
            let four = _mm_max_epu32(low, high);
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0x4e>(four));
            let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0xb1>(two));
            f32::from_bits(_mm_cvtsi128_si32(one).cast_unsigned())
        }
        Kind::F16 | Kind::Bf16 => {
            // The largest is the complement of the smallest complement.
            let ones = _mm_set1_epi16(-1);
            let complement = _mm_xor_si128(_mm_max_epu16(low, high), ones);
            let smallest = _mm_minpos_epu16(complement);
            _mm256_cvtss_f32(widen_words::<T>(_mm_xor_si128(smallest, ones)))
        }
    }
}

/// Stores codes −7…7 as nibbles, code + 8.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn pack([a, b]: [__m256i; 2], codes: &mut [u8]) {
    // Words in order, then bytes in the low half of each lane.
    let words = _mm256_permute4x64_epi64::<0xd8>(_mm256_packs_epi32(a, b));
    let bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
    // low + 16 · high for each pair of bytes, and 8 + 16 · 8, which makes it 17…255.
    let pairs = _mm_maddubs_epi16(_mm_set1_epi16(0x1001), bytes);
    let pairs = _mm_add_epi16(pairs, _mm_set1_epi16(0x88));
    let nibbles = _mm_packus_epi16(pairs, pairs);
    codes.copy_from_slice(&_mm_cvtsi128_si64(nibbles).to_le_bytes());
}

/// # Safety
///
/// `codes` are whole runs of eight bytes; `out` holds two values for each.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn expand_words(codes: &[u8], [negative, positive]: [__m256; 2], mut out: *mut f32) {
    for codes in codes.as_chunks::<4>().0 {
        let bytes = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(*codes)));
        // The low nibble to the even lane, the high one to the odd lane; a lookup takes the
        // three lowest bits of a lane, and the fourth, in the sign, chooses between two.
        let levels = _mm256_or_si256(bytes, _mm256_slli_epi64::<28>(bytes));
        let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(levels));
        let values = _mm256_blendv_ps(
            _mm256_permutevar8x32_ps(negative, levels),
            _mm256_permutevar8x32_ps(positive, levels),
            upper,
        );
        // SAFETY: eight values.
        unsafe {
            _mm256_storeu_ps(out, values);
            out = out.add(8);
        }
    }
}

/// # Safety
///
/// `codes` are whole runs of eight bytes; `out` holds two values for each.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn expand_halves(codes: &[u8], [negative, positive]: [__m128i; 2], mut out: *mut u16) {
    // The table's low bytes and its high bytes.
    let byte = _mm_set1_epi16(0xff);
    let low = _mm_packus_epi16(_mm_and_si128(negative, byte), _mm_and_si128(positive, byte));
    let high = _mm_packus_epi16(_mm_srli_epi16::<8>(negative), _mm_srli_epi16::<8>(positive));
    let (low, high) = (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high));
    let chunks = codes.chunks_exact(16);
    let rest = chunks.remainder();
    // Sixteen bytes to 32 values: those of the first and third quarter, of the second and last.
    let expand = |bytes: __m128i| {
        let words = _mm256_cvtepu8_epi16(bytes);
        let nibbles = _mm256_or_si256(words, _mm256_slli_epi16::<4>(words));
        let levels = _mm256_and_si256(nibbles, _mm256_set1_epi8(0xf));
        let low = _mm256_shuffle_epi8(low, levels);
        let high = _mm256_shuffle_epi8(high, levels);
        (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high))
    };
    // SAFETY: as many bytes, and two values for each.
    unsafe {
        for codes in chunks {
            let (a, b) = expand(_mm_loadu_si128(codes.as_ptr().cast()));
            _mm256_storeu_si256(out.cast(), _mm256_permute2x128_si256::<0x20>(a, b));
            _mm256_storeu_si256(out.add(16).cast(), _mm256_permute2x128_si256::<0x31>(a, b));
            out = out.add(32);
        }
        if !rest.is_empty() {
            let (a, b) = expand(_mm_loadl_epi64(rest.as_ptr().cast()));
            _mm256_storeu_si256(out.cast(), _mm256_permute2x128_si256::<0x20>(a, b));
        }
    }
}

/// The values of codes 0…7, rounded to `T`; −1…−7 are the same with a sign.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn decoded_magnitudes<T: Element, const PLAIN: bool>(scale: f32, up: PowerOfTwo) -> __m256 {
    let codes = _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0);
    let mut values = _mm256_mul_ps(codes, _mm256_set1_ps(scale));
    if !PLAIN {
        values = clamp(times(values, up), max_of::<T>());
    }
    match T::KIND {
        Kind::F32 => values,
        Kind::F16 | Kind::Bf16 => widen_words::<T>(narrow::<T>(values)),
    }
}

/// Rounds to nearest even; values are finite and none rounds to infinity.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn narrow<T: Element>(values: __m256) -> __m128i {
    if T::KIND == Kind::F16 {
        return _mm256_cvtps_ph::<NEAREST>(values);
    }
    let bits = _mm256_castps_si256(values);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    let words = _mm256_srli_epi32::<16>(bits);
    _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn widen_words<T: Element>(words: __m128i) -> __m256 {
    match T::KIND {
        Kind::F16 => _mm256_cvtph_ps(words),
        _ => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(words))),
    }
}

/// # Safety
///
/// Eight values lie at `values`.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn widen<T: Element>(values: *const T) -> __m256 {
    // SAFETY: by contract.
    unsafe {
        match T::KIND {
            Kind::F32 => _mm256_loadu_ps(values.cast()),
            _ => widen_words::<T>(_mm_loadu_si128(values.cast())),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn clamp(values: __m256, max: f32) -> __m256 {
    let least = _mm256_max_ps(values, _mm256_set1_ps(-max));
    _mm256_min_ps(least, _mm256_set1_ps(max))
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn times(values: __m256, unit: PowerOfTwo) -> __m256 {
    _mm256_mul_ps(_mm256_mul_ps(values, _mm256_set1_ps(unit.0)), _mm256_set1_ps(unit.1))
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn load(lanes: &[f32; 16]) -> [__m256; 2] {
    // SAFETY: sixteen f32.
    unsafe { [_mm256_loadu_ps(lanes.as_ptr()), _mm256_loadu_ps(lanes.as_ptr().add(8))] }
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn store([low, high]: [__m256; 2]) -> [f32; 16] {
    let mut out = [0.0; 16];
    // SAFETY: sixteen f32.
    unsafe {
        _mm256_storeu_ps(out.as_mut_ptr(), low);
        _mm256_storeu_ps(out.as_mut_ptr().add(8), high);
    }
    out
}
