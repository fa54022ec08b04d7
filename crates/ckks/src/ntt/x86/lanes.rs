//! Vectors of words, and the butterflies on them.

use crate::modulus::Shoup;
use crate::ntt::Twiddles;
use std::arch::x86_64::*;

/// A vector of [`LANES`](Lanes::LANES) words with the few operations a butterfly needs.
///
/// # Safety
/// Every method may be called only from a function compiled with the features of the vector type, and is
/// inlined into it. Pointers must be valid for [`LANES`](Lanes::LANES) words; no alignment is needed.
pub(super) trait Lanes: Copy {
    /// Words in a vector.
    const LANES: usize;
    /// Base-2 logarithm of the block that the tail transforms.
    const LOG_TAIL: u32;

    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(self, to: *mut u32);
    unsafe fn splat(word: u32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// The low words of the products.
    unsafe fn mul_low(self, other: Self) -> Self;
    /// The high words of the products. `other` is given twice: in `even` only the even lanes count, in `odd`
    /// the factors of the odd lanes are expected one lane lower.
    unsafe fn mul_high(self, even: Self, odd: Self) -> Self;

    /// The last `LOG_TAIL` stages on `count` blocks of `2^LOG_TAIL` words at `start`, from `[0, 4q)` to
    /// canonical. `first` is the index of the factor of the first block in the first of these stages.
    unsafe fn forward_tails(q: &Prime<Self>, w: &Factors, start: *mut u32, first: usize, count: usize);
    /// The first `LOG_TAIL` stages of the inverse, from canonical to `[0, 2q)`.
    unsafe fn inverse_tails(q: &Prime<Self>, w: &Factors, start: *mut u32, first: usize, count: usize);
}

/// The prime in every lane.
#[derive(Clone, Copy)]
pub(super) struct Prime<V> {
    pub(super) q: V,
    pub(super) twice: V,
}

/// A factor of each lane, as [`Lanes::mul_high`] wants it.
#[derive(Clone, Copy)]
pub(super) struct Factor<V> {
    pub(super) w: V,
    pub(super) even: V,
    pub(super) odd: V,
}

/// Pointers to the twiddle factors of a table, whose index is bounded by the number of groups.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) w: *const u32,
    pub(super) w_shoup: *const u32,
}

impl Factors {
    pub(super) fn of(twiddles: &Twiddles) -> Self {
        Self { w: twiddles.w.as_ptr(), w_shoup: twiddles.w_shoup.as_ptr() }
    }

    /// Factor `index` in every lane.
    ///
    /// # Safety
    /// As for [`Lanes`]; the index must be within the table.
    #[inline(always)]
    pub(super) unsafe fn splat<V: Lanes>(&self, index: usize) -> Factor<V> {
        // SAFETY: the caller keeps the index within the table.
        unsafe { Factor::splat(Shoup { w: *self.w.add(index), w_shoup: *self.w_shoup.add(index) }) }
    }
}

impl<V: Lanes> Factor<V> {
    /// One factor in every lane.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn splat(factor: Shoup) -> Self {
        // SAFETY: forwarded to the caller.
        unsafe {
            let even = V::splat(factor.w_shoup);
            Self { w: V::splat(factor.w), even, odd: even }
        }
    }
}

/// The arithmetic of the butterflies.
///
/// # Safety
/// All as for [`Lanes`].
impl<V: Lanes> Prime<V> {
    #[inline(always)]
    pub(super) unsafe fn new(q: u32) -> Self {
        // SAFETY: forwarded to the caller.
        unsafe { Self { q: V::splat(q), twice: V::splat(2 * q) } }
    }

    /// From `[0, 4q)` to `[0, 2q)`: a negative difference wraps and is then the larger of the two.
    #[inline(always)]
    pub(super) unsafe fn below_2q(&self, x: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { x.min(x.sub(self.twice)) }
    }

    /// From `[0, 2q)` to canonical.
    #[inline(always)]
    pub(super) unsafe fn canonical(&self, x: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { x.min(x.sub(self.q)) }
    }

    /// A number in `[0, 2q)` congruent to `w y`, for any words `y`.
    #[inline(always)]
    pub(super) unsafe fn mul(&self, y: V, f: Factor<V>) -> V {
        // SAFETY: forwarded to the caller.
        unsafe {
            let quotient = y.mul_high(f.even, f.odd);
            y.mul_low(f.w).sub(quotient.mul_low(self.q))
        }
    }

    /// `(x + w y, x - w y)`. In and out `[0, 4q)`.
    #[inline(always)]
    pub(super) unsafe fn butterfly(&self, x: &mut V, y: &mut V, f: Factor<V>) {
        // SAFETY: forwarded to the caller.
        unsafe {
            let sum = self.below_2q(*x);
            let t = self.mul(*y, f);
            *x = sum.add(t);
            *y = sum.add(self.twice).sub(t);
        }
    }

    /// [`butterfly`](Self::butterfly) with canonical results.
    #[inline(always)]
    pub(super) unsafe fn butterfly_canonical(&self, x: &mut V, y: &mut V, f: Factor<V>) {
        // SAFETY: forwarded to the caller.
        unsafe {
            let sum = self.canonical(self.below_2q(*x));
            let t = self.canonical(self.mul(*y, f));
            *x = self.canonical(sum.add(t));
            let difference = sum.sub(t);
            *y = difference.min(difference.add(self.q));
        }
    }

    /// `(x + y, w (x - y))`. In and out `[0, 2q)`.
    #[inline(always)]
    pub(super) unsafe fn inverse_butterfly(&self, x: &mut V, y: &mut V, f: Factor<V>) {
        // SAFETY: forwarded to the caller.
        unsafe {
            let difference = x.add(self.twice).sub(*y);
            *x = self.below_2q(x.add(*y));
            *y = self.mul(difference, f);
        }
    }
}

impl Lanes for __m512i {
    const LANES: usize = 16;
    const LOG_TAIL: u32 = 6;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: forwarded to the caller, here and below: features and pointers are as the trait asks.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: see `load`.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_add_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_sub_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_min_epu32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_mullo_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_high(self, even: Self, odd: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            let evens = _mm512_mul_epu32(self, even);
            let odds = _mm512_mul_epu32(odd_lanes(self), odd);
            merge_high(evens, odds)
        }
    }
    #[inline(always)]
    unsafe fn forward_tails(q: &Prime<Self>, w: &Factors, start: *mut u32, first: usize, count: usize) {
        // Two blocks at a time: one alone is a chain of dependent instructions that leaves units idle.
        // SAFETY: see `load`; the blocks are within the `count` given.
        unsafe {
            if count == 1 {
                return super::tail_avx512::forward::<1>(q, w, start, first);
            }
            for b in (0..count).step_by(2) {
                super::tail_avx512::forward::<2>(q, w, start.add(b << Self::LOG_TAIL), first + b);
            }
        }
    }
    #[inline(always)]
    unsafe fn inverse_tails(q: &Prime<Self>, w: &Factors, start: *mut u32, first: usize, count: usize) {
        // Two blocks at a time: one alone is a chain of dependent instructions that leaves units idle.
        // SAFETY: see `load`; the blocks are within the `count` given.
        unsafe {
            if count == 1 {
                return super::tail_avx512::inverse::<1>(q, w, start, first);
            }
            for b in (0..count).step_by(2) {
                super::tail_avx512::inverse::<2>(q, w, start.add(b << Self::LOG_TAIL), first + b);
            }
        }
    }
}

/// The high words of 64-bit products, from those of the even lanes and those of the odd lanes.
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

/// The odd lanes, each copied one lane lower.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn odd_lanes(x: __m512i) -> __m512i {
    // SAFETY: forwarded to the caller.
    unsafe { _mm512_castps_si512(_mm512_movehdup_ps(_mm512_castsi512_ps(x))) }
}

impl Lanes for __m256i {
    const LANES: usize = 8;
    const LOG_TAIL: u32 = 4;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: forwarded to the caller, here and below: features and pointers are as the trait asks.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: see `load`.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm256_set1_epi32(word.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm256_add_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm256_sub_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm256_min_epu32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm256_mullo_epi32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_high(self, even: Self, odd: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            let evens = _mm256_mul_epu32(self, even);
            let odds = _mm256_mul_epu32(_mm256_shuffle_epi32::<0b11_11_01_01>(self), odd);
            _mm256_blend_epi32::<0b1010_1010>(_mm256_shuffle_epi32::<0b11_11_01_01>(evens), odds)
        }
    }
    #[inline(always)]
    unsafe fn forward_tails(q: &Prime<Self>, w: &Factors, start: *mut u32, first: usize, count: usize) {
        // Two blocks at a time: one alone is a chain of dependent instructions that leaves units idle.
        // SAFETY: see `load`; the blocks are within the `count` given.
        unsafe {
            if count == 1 {
                return super::tail_avx2::forward::<1>(q, w, start, first);
            }
            for b in (0..count).step_by(2) {
                super::tail_avx2::forward::<2>(q, w, start.add(b << Self::LOG_TAIL), first + b);
            }
        }
    }
    #[inline(always)]
    unsafe fn inverse_tails(q: &Prime<Self>, w: &Factors, start: *mut u32, first: usize, count: usize) {
        // Two blocks at a time: one alone is a chain of dependent instructions that leaves units idle.
        // SAFETY: see `load`; the blocks are within the `count` given.
        unsafe {
            if count == 1 {
                return super::tail_avx2::inverse::<1>(q, w, start, first);
            }
            for b in (0..count).step_by(2) {
                super::tail_avx2::inverse::<2>(q, w, start.add(b << Self::LOG_TAIL), first + b);
            }
        }
    }
}
