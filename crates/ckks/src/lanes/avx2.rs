//! Vectors of 8 words: AVX2.

use super::{Lanes, RUNS};
use std::arch::x86_64::*;

/// The products of the even lanes, and those of the odd lanes.
type Wide = (__m256i, __m256i);

impl Lanes for __m256i {
    const LANES: usize = 8;
    type Wide = Wide;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_runs(from: *const u32, log_run: u32) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe {
            let words = match log_run {
                1 => _mm256_castsi128_si256(_mm_loadu_si128(from.cast())),
                _ => _mm256_castsi128_si256(_mm_loadl_epi64(from.cast())),
            };
            _mm256_permutevar8x32_epi32(words, Self::load(RUNS[log_run as usize - 1].as_ptr()))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u32) {
        // SAFETY: a hint, without effect where nothing can be read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_set1_epi32(word.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_add_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_sub_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_min_epu32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_mullo_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_high(self, even: Self, odd: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { Self::wide_high(self.wide_mul(self.odd_lanes(), even, odd)) }
    }
    #[inline(always)]
    unsafe fn odd_lanes(self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_shuffle_epi32::<0b11_11_01_01>(self) }
    }

    #[inline(always)]
    unsafe fn wide_zero() -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }
    #[inline(always)]
    unsafe fn wide_mul(self, odd: Self, other: Self, other_odd: Self) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm256_mul_epu32(self, other), _mm256_mul_epu32(odd, other_odd)) }
    }
    #[inline(always)]
    unsafe fn wide_add(a: Wide, b: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm256_add_epi64(a.0, b.0), _mm256_add_epi64(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn wide_sub(a: Wide, b: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm256_sub_epi64(a.0, b.0), _mm256_sub_epi64(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn wide_shift_right<const BITS: u32>(a: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe {
            let bits = _mm_cvtsi32_si128(BITS.cast_signed());
            (_mm256_srl_epi64(a.0, bits), _mm256_srl_epi64(a.1, bits))
        }
    }
    #[inline(always)]
    unsafe fn wide_shift_left<const BITS: u32>(a: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe {
            let bits = _mm_cvtsi32_si128(BITS.cast_signed());
            (_mm256_sll_epi64(a.0, bits), _mm256_sll_epi64(a.1, bits))
        }
    }
    #[inline(always)]
    unsafe fn wide_low(a: Wide) -> (Self, Self) {
        a
    }
    #[inline(always)]
    unsafe fn wide_high(a: Wide) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm256_blend_epi32::<0b1010_1010>(a.0.odd_lanes(), a.1) }
    }
}
