//! Vectors of 16 words: AVX-512.

use super::{Lanes, RUNS};
use std::arch::x86_64::*;

/// The products of the even lanes, and those of the odd lanes.
type Wide = (__m512i, __m512i);

impl Lanes for __m512i {
    const LANES: usize = 16;
    type Wide = Wide;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_runs(from: *const u32, log_run: u32) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe {
            let words = match log_run {
                1 => _mm512_castsi256_si512(_mm256_loadu_si256(from.cast())),
                2 => _mm512_castsi128_si512(_mm_loadu_si128(from.cast())),
                _ => _mm512_castsi128_si512(_mm_loadl_epi64(from.cast())),
            };
            _mm512_permutexvar_epi32(Self::load(RUNS[log_run as usize - 1].as_ptr()), words)
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u32) {
        // SAFETY: a hint, without effect where nothing can be read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_add_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_sub_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_min_epu32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_mullo_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_high(self, even: Self, odd: Self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { Self::wide_high(self.wide_mul(self.odd_lanes(), even, odd)) }
    }
    #[inline(always)]
    unsafe fn odd_lanes(self) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { _mm512_castps_si512(_mm512_movehdup_ps(_mm512_castsi512_ps(self))) }
    }

    #[inline(always)]
    unsafe fn wide_zero() -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm512_setzero_si512(), _mm512_setzero_si512()) }
    }
    #[inline(always)]
    unsafe fn wide_mul(self, odd: Self, other: Self, other_odd: Self) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm512_mul_epu32(self, other), _mm512_mul_epu32(odd, other_odd)) }
    }
    #[inline(always)]
    unsafe fn wide_add(a: Wide, b: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm512_add_epi64(a.0, b.0), _mm512_add_epi64(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn wide_sub(a: Wide, b: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { (_mm512_sub_epi64(a.0, b.0), _mm512_sub_epi64(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn wide_settle(a: [Wide; 4]) -> [Wide; 4] {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { settle(a) }
    }
    #[inline(always)]
    unsafe fn wide_shift_right<const BITS: u32>(a: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe {
            let bits = _mm_cvtsi32_si128(BITS.cast_signed());
            (_mm512_srl_epi64(a.0, bits), _mm512_srl_epi64(a.1, bits))
        }
    }
    #[inline(always)]
    unsafe fn wide_shift_left<const BITS: u32>(a: Wide) -> Wide {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe {
            let bits = _mm_cvtsi32_si128(BITS.cast_signed());
            (_mm512_sll_epi64(a.0, bits), _mm512_sll_epi64(a.1, bits))
        }
    }
    #[inline(always)]
    unsafe fn wide_low(a: Wide) -> (Self, Self) {
        a
    }
    #[inline(always)]
    unsafe fn wide_high(a: Wide) -> Self {
        // SAFETY: forwarded to the caller, who has the features.
        unsafe { merge_high(a.0, a.1) }
    }
}

/// The high words of the double words in `evens` below those in `odds`.
#[inline]
#[target_feature(enable = "avx512f")]
fn merge_high(evens: __m512i, mut odds: __m512i) -> __m512i {
    // The high words of the odd products are in place; those of the even ones move down. LLVM makes two
    // shuffles of the intrinsics that say so.
    // SAFETY: the instruction only reads and writes the registers named; the function has its feature.
    unsafe {
        std::arch::asm!(
            "vmovshdup {odds} {{{mask}}}, {evens}",
            odds = inout(zmm_reg) odds,
            evens = in(zmm_reg) evens,
            mask = in(kreg) 0x5555u16,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    odds
}

/// See [`Lanes::wide_settle`].
#[inline]
#[target_feature(enable = "avx512f")]
fn settle([mut a, mut b, mut c, mut d]: [Wide; 4]) -> [Wide; 4] {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!(
            "/* {0} {1} {2} {3} {4} {5} {6} {7} */",
            inout(zmm_reg) a.0,
            inout(zmm_reg) a.1,
            inout(zmm_reg) b.0,
            inout(zmm_reg) b.1,
            inout(zmm_reg) c.0,
            inout(zmm_reg) c.1,
            inout(zmm_reg) d.0,
            inout(zmm_reg) d.1,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}
