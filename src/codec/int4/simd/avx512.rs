//! AVX-512 (F, BW, DQ, VL): a register holds sixteen f32.

use super::super::scalar::MAX_CODE;
use super::drive::{
    CellLanes, Factors, Kernel, SIGNED_LEVELS, STORED_LEVELS, Stream, max_of, prefetch,
    saturating_scale,
};
use crate::codec::distortion::BATCH;
use crate::codec::element::{Element, Kind};
use crate::codec::exponent::PowerOfTwo;
use core::arch::x86_64::*;
use half::f16;

pub struct Avx512;

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// SAFETY: what follows needs no more than the features named.
unsafe impl Kernel for Avx512 {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn factors<T: Element>(
        values: &[T],
        group: usize,
        down: PowerOfTwo,
        scales: &mut [f16],
        factors: &mut Factors,
    ) {
        (factors.finite, factors.in_range, factors.plain) = (true, true, true);
        let factor_parts = factors.scales.chunks_mut(16).zip(factors.inverses.chunks_mut(16));
        let mut values = values;
        for (scales, (factor_scales, inverses)) in scales.chunks_mut(16).zip(factor_parts) {
            let (part, rest) = values.split_at(scales.len() * group);
            values = rest;
            let absmax = times(absmax_of_groups(part, group), down);
            let quotients = _mm512_div_ps(absmax, _mm512_set1_ps(MAX_CODE));
            let halves = _mm512_cvtps_ph::<NEAREST>(quotients);
            let rounded = _mm512_cvtph_ps(halves);
            let below = |a, b: f32| _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, _mm512_set1_ps(b));
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(rounded, _mm512_setzero_ps());
            let usable = positive & below(rounded, f32::INFINITY);
            let zero = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(absmax, _mm512_setzero_ps());
            let normal = usable & !below(rounded, f16::MIN_POSITIVE.to_f32_const());
            factors.finite &= below(absmax, f32::INFINITY) == u16::MAX;
            factors.in_range &= normal | zero == u16::MAX;
            factors.plain &= below(rounded, saturating_scale::<T>()) == u16::MAX;
            let inverse = _mm512_maskz_div_ps(usable, _mm512_set1_ps(1.0), rounded);
            let mut words = [f16::ZERO; 16];
            // SAFETY: sixteen lanes each.
            unsafe {
                let scale = _mm512_maskz_mov_ps(usable, rounded);
                _mm512_storeu_ps(factor_scales.as_mut_ptr(), scale);
                _mm512_storeu_ps(inverses.as_mut_ptr(), inverse);
                if scales.len() == 16 {
                    _mm256_storeu_si256(scales.as_mut_ptr().cast(), halves);
                } else {
                    _mm256_storeu_si256(words.as_mut_ptr().cast(), halves);
                    scales.copy_from_slice(&words[..scales.len()]);
                }
            }
        }
        factors.plain &= factors.in_range;
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
            let scale = _mm512_set1_ps(factors.scales[index]);
            let table = decoded_levels::<T, PLAIN>(scale, &SIGNED_LEVELS, up);
            let table = if PLAIN { table } else { times(table, down) };
            (_mm512_set1_ps(factors.inverses[index]), table)
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
            let mut quantised = [_mm512_setzero_si512(); REGISTERS];
            let mut x = [_mm512_setzero_ps(); REGISTERS];
            for (register, x) in x.iter_mut().enumerate() {
                // SAFETY: 16 values from here on lie in the unit.
                *x = unsafe { widen(values.as_ptr().add(16 * register)) };
                if !PLAIN {
                    *x = times(*x, down);
                }
            }
            let mut e = x;
            for ((q, x), e) in quantised.iter_mut().zip(&x).zip(&mut e) {
                let code = _mm512_mul_ps(*x, inverse);
                *q = _mm512_cvtps_epi32(if PLAIN { code } else { clamp(code, MAX_CODE) });
                // The lookup takes the four lowest bits of a lane.
                *e = _mm512_sub_ps(*x, _mm512_permutexvar_ps(*q, table));
            }
            for (x, e) in x.iter().zip(&e) {
                sums[0] = _mm512_fmadd_ps(*x, *x, sums[0]);
                sums[1] = _mm512_fmadd_ps(*x, *e, sums[1]);
                sums[2] = _mm512_fmadd_ps(*e, *e, sums[2]);
            }
            prefetch(values, codes);
            // SAFETY: as many codes.
            unsafe { pack(quantised, codes.as_mut_ptr()) };
            group_left -= unit;
            cell_left -= unit;
            if cell_left == 0 {
                stream.cells.lanes[filled] = CellLanes(sums.map(|lanes| store(lanes)));
                filled += 1;
                sums = [_mm512_setzero_ps(); 3];
                cell_left = cell;
            }
        }
        stream.cells.filled = filled;
        stream.sums = CellLanes(sums.map(|lanes| store(lanes)));
        (stream.index, stream.group_left, stream.cell_left) = (index, group_left, cell_left);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn finish_cells(cells: &[CellLanes; BATCH], take: impl FnOnce(&[[f32; BATCH]; 3])) {
        let mut sums = [[0.0; BATCH]; 3];
        for (index, cells) in cells.as_chunks::<16>().0.iter().enumerate() {
            for (sum, sums) in sums.iter_mut().enumerate() {
                let lanes = |cell: usize| load(&cells[cell].0[sum]);
                let sixteen = fold_transposed(lanes, |a, b| _mm512_add_ps(a, b));
                // SAFETY: sixteen of BATCH f32.
                unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(16 * index), sixteen) };
            }
        }
        take(&sums);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn decompress_groups<T: Element, const PLAIN: bool>(
        codes: &[u8],
        scales: &[f16],
        group: usize,
        up: PowerOfTwo,
        out: &mut [T],
    ) {
        let groups = codes.chunks_exact(group / 2).zip(out.chunks_exact_mut(group));
        for ((codes, out), scale) in groups.zip(scales) {
            let scale = _mm512_cvtph_ps(_mm256_set1_epi16(scale.to_bits().cast_signed()));
            let table = decoded_levels::<T, PLAIN>(scale, &STORED_LEVELS, up);
            match T::KIND {
                // SAFETY: whole registers of this type.
                Kind::F32 => unsafe { expand_words(codes, table, out.as_mut_ptr().cast()) },
                // SAFETY: whole registers of this type.
                _ => unsafe {
                    expand_halves(codes, narrow::<T>(table), out.as_mut_ptr().cast());
                },
            }
        }
    }
}

/// The largest magnitude of each group, in lanes. Lanes without a group repeat the last.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn absmax_of_groups<T: Element>(values: &[T], group: usize) -> __m512 {
    match group * size_of::<T>() {
        64 => transposed_absmax::<T, 1>(values, group),
        128 => transposed_absmax::<T, 2>(values, group),
        256 => transposed_absmax::<T, 4>(values, group),
        _ => transposed_absmax::<T, 0>(values, group),
    }
}

/// `REGISTERS` that a group has, or 0 for any number and a half.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transposed_absmax<T: Element, const REGISTERS: usize>(values: &[T], group: usize) -> __m512 {
    // Magnitudes are ordered as their bits are.
    let max = |a, b| match T::KIND {
        Kind::F32 => _mm512_max_epu32(a, b),
        Kind::F16 | Kind::Bf16 => _mm512_max_epu16(a, b),
    };
    let magnitude = match T::KIND {
        Kind::F32 => _mm512_set1_epi32(0x7fff_ffff),
        Kind::F16 | Kind::Bf16 => _mm512_set1_epi16(0x7fff),
    };
    let last = values.len() - group;
    let largest = |index: usize| {
        let start = last.min(index * group);
        // SAFETY: where a group starts.
        let group_bytes = unsafe { values.as_ptr().add(start).cast::<u8>() };
        // SAFETY: within the group.
        let bits = |at: usize| unsafe {
            _mm512_and_si512(_mm512_loadu_si512(group_bytes.add(at).cast()), magnitude)
        };
        let largest = match REGISTERS {
            1 => bits(0),
            2 => max(bits(0), bits(64)),
            4 => max(max(bits(0), bits(64)), max(bits(128), bits(192))),
            _ => {
                let len = group * size_of::<T>();
                let (mut largest, mut at) = (_mm512_setzero_si512(), 0);
                while at + 64 <= len {
                    largest = max(largest, bits(at));
                    at += 64;
                }
                if at < len {
                    // SAFETY: half a register, within the group.
                    let half = unsafe { _mm256_loadu_si256(group_bytes.add(at).cast()) };
                    let half = _mm512_and_si512(_mm512_zextsi256_si512(half), magnitude);
                    largest = max(largest, half);
                }
                largest
            }
        };
        _mm512_castsi512_ps(largest)
    };
    let fold = |a, b| _mm512_castsi512_ps(max(_mm512_castps_si512(a), _mm512_castps_si512(b)));
    let bits = _mm512_castps_si512(fold_transposed(largest, fold));
    match T::KIND {
        Kind::F32 => _mm512_castsi512_ps(bits),
        Kind::F16 | Kind::Bf16 => {
            let bits = _mm512_max_epu16(bits, _mm512_srli_epi32::<16>(bits));
            widen_words::<T>(_mm512_cvtepi32_epi16(bits))
        }
    }
}

/// Sixteen registers, each folded to one lane of the result in halves: lanes i and i + 8, then i
/// and i + 4, i + 2, i + 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn fold_transposed(
    register: impl Fn(usize) -> __m512,
    fold: impl Fn(__m512, __m512) -> __m512,
) -> __m512 {
    let halves =
        |a, b| fold(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
    let quarters = |index: usize| {
        let ab = halves(register(index), register(index + 4));
        let cd = halves(register(index + 8), register(index + 12));
        fold(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd))
    };
    let eighths = |a, b| {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
        fold(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
    };
    let (a, b) = (eighths(quarters(0), quarters(1)), eighths(quarters(2), quarters(3)));
    fold(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b))
}

/// Stores codes −7…7 as nibbles, code + 8.
///
/// # Safety
///
/// Eight bytes for each register lie at `codes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack<const REGISTERS: usize>(quantised: [__m512i; REGISTERS], codes: *mut u8) {
    // low + 16 · high for each pair of bytes, and 8 + 16 · 8, modulo 256.
    let weights = _mm512_set1_epi16(0x1001);
    let zero_levels = _mm256_set1_epi8(0x88_u8.cast_signed());
    // SAFETY: by contract.
    unsafe {
        match REGISTERS {
            4 => {
                let ab = _mm512_packs_epi32(quantised[0], quantised[1]);
                let cd = _mm512_packs_epi32(quantised[2], quantised[3]);
                // Each 128-bit lane holds four codes of each register.
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                let bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ab, cd));
                let nibbles = _mm512_cvtepi16_epi8(_mm512_maddubs_epi16(weights, bytes));
                _mm256_storeu_si256(codes.cast(), _mm256_add_epi8(nibbles, zero_levels));
            }
            2 => {
                let ab = _mm512_packs_epi32(quantised[0], quantised[1]);
                let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
                let bytes = _mm512_cvtepi16_epi8(_mm512_permutexvar_epi64(order, ab));
                let pairs = _mm256_maddubs_epi16(_mm512_castsi512_si256(weights), bytes);
                let zero_levels = _mm256_castsi256_si128(zero_levels);
                let nibbles = _mm_add_epi8(_mm256_cvtepi16_epi8(pairs), zero_levels);
                _mm_storeu_si128(codes.cast(), nibbles);
            }
            _ => {
                let bytes = _mm512_cvtepi32_epi8(quantised[0]);
                let pairs = _mm_maddubs_epi16(_mm512_castsi512_si128(weights), bytes);
                let zero_levels = _mm256_castsi256_si128(zero_levels);
                let nibbles = _mm_add_epi8(_mm_cvtepi16_epi8(pairs), zero_levels);
                _mm_storel_epi64(codes.cast(), nibbles);
            }
        }
    }
}

/// # Safety
///
/// `codes` are whole runs of eight bytes; `out` holds two values for each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn expand_words(codes: &[u8], table: __m512, mut out: *mut f32) {
    for codes in codes.chunks_exact(8) {
        // SAFETY: eight bytes, sixteen values.
        unsafe {
            let bytes = _mm512_cvtepu8_epi64(_mm_loadl_epi64(codes.as_ptr().cast()));
            // The low nibble to the even lane, the high one to the odd lane; the lookup takes
            // the four lowest bits of a lane.
            let levels = _mm512_or_si512(bytes, _mm512_slli_epi64::<28>(bytes));
            _mm512_storeu_ps(out, _mm512_permutexvar_ps(levels, table));
            out = out.add(16);
        }
    }
}

/// # Safety
///
/// `codes` are whole runs of eight bytes; `out` holds two values for each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn expand_halves(codes: &[u8], table: __m256i, mut out: *mut u16) {
    // The lookup takes the five lowest bits of a lane: the table twice makes it four.
    let table = _mm512_broadcast_i64x4(table);
    let chunks = codes.chunks_exact(16);
    let rest = chunks.remainder();
    // SAFETY: as many bytes, and two values for each.
    unsafe {
        for codes in chunks {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
            let levels = _mm512_or_si512(bytes, _mm512_slli_epi32::<12>(bytes));
            _mm512_storeu_si512(out.cast(), _mm512_permutexvar_epi16(levels, table));
            out = out.add(32);
        }
        if !rest.is_empty() {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(rest.as_ptr().cast()));
            let levels = _mm256_or_si256(bytes, _mm256_slli_epi32::<12>(bytes));
            let table = _mm512_castsi512_si256(table);
            _mm256_storeu_si256(out.cast(), _mm256_permutexvar_epi16(levels, table));
        }
    }
}

/// The values of levels, rounded to `T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn decoded_levels<T: Element, const PLAIN: bool>(
    scale: __m512,
    levels: &[f32; 16],
    up: PowerOfTwo,
) -> __m512 {
    let mut values = _mm512_mul_ps(load(levels), scale);
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn narrow<T: Element>(values: __m512) -> __m256i {
    if T::KIND == Kind::F16 {
        return _mm512_cvtps_ph::<NEAREST>(values);
    }
    let bits = _mm512_castps_si512(values);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen_words<T: Element>(words: __m256i) -> __m512 {
    match T::KIND {
        Kind::F16 => _mm512_cvtph_ps(words),
        _ => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words))),
    }
}

/// # Safety
///
/// Sixteen values lie at `values`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn widen<T: Element>(values: *const T) -> __m512 {
    // SAFETY: by contract.
    unsafe {
        match T::KIND {
            Kind::F32 => _mm512_loadu_ps(values.cast()),
            _ => widen_words::<T>(_mm256_loadu_si256(values.cast())),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn clamp(values: __m512, max: f32) -> __m512 {
    let least = _mm512_max_ps(values, _mm512_set1_ps(-max));
    _mm512_min_ps(least, _mm512_set1_ps(max))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn times(values: __m512, unit: PowerOfTwo) -> __m512 {
    _mm512_mul_ps(_mm512_mul_ps(values, _mm512_set1_ps(unit.0)), _mm512_set1_ps(unit.1))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn load(lanes: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen f32.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn store(lanes: __m512) -> [f32; 16] {
    let mut out = [0.0; 16];
    // SAFETY: sixteen f32.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), lanes) };
    out
}
