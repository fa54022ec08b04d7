//! The last four stages with AVX2: 16 consecutive words in two vectors.
//!
//! Number the words of the block by bits 3 to 0. A stage needs its bit to choose between the two vectors, so
//! each shuffle exchanges the bit of the stage done with the bit of the next one.

use super::butterfly::{Factors, Tail};
use crate::lanes::{Factor, Lanes, ModulusLanes};
use std::arch::x86_64::*;

type Vector = __m256i;

impl Tail for Vector {
    const LOG_TAIL: u32 = 4;

    #[inline(always)]
    unsafe fn forward_tails(
        q: &ModulusLanes<Self>,
        w: &Factors,
        start: *mut u32,
        first: usize,
        count: usize,
    ) {
        // Two blocks at a time: one alone is a chain of dependent instructions that leaves units idle.
        // SAFETY: the caller has the features, and the blocks are within the `count` given.
        unsafe {
            if count == 1 {
                return forward::<1>(q, w, start, first);
            }
            for b in (0..count).step_by(2) {
                forward::<2>(q, w, start.add(b << Self::LOG_TAIL), first + b);
            }
        }
    }

    #[inline(always)]
    unsafe fn inverse_tails(
        q: &ModulusLanes<Self>,
        w: &Factors,
        start: *mut u32,
        first: usize,
        count: usize,
    ) {
        // Two blocks at a time: one alone is a chain of dependent instructions that leaves units idle.
        // SAFETY: the caller has the features, and the blocks are within the `count` given.
        unsafe {
            if count == 1 {
                return inverse::<1>(q, w, start, first);
            }
            for b in (0..count).step_by(2) {
                inverse::<2>(q, w, start.add(b << Self::LOG_TAIL), first + b);
            }
        }
    }
}

/// From `[0, 4q)` to canonical, on `B` consecutive blocks; see [`Tail::forward_tails`].
///
/// # Safety
/// As for [`Tail::forward_tails`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn forward<const B: usize>(
    q: &ModulusLanes<Vector>,
    w: &Factors,
    start: *mut u32,
    first: usize,
) {
    // SAFETY: there are 16 words in a block, and the factors of stage `s` for block `b` start at
    // `(first + b) 2^s`.
    unsafe {
        let mut x: [(Vector, Vector); B] = std::array::from_fn(|b| load(start.add(16 * b)));
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.butterfly(x, y, w.splat(first + b));
            (*x, *y) = exchange_halves(*x, *y);
        }
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.butterfly(x, y, w.two(2 * (first + b)));
            (*x, *y) = (_mm256_unpacklo_epi64(*x, *y), _mm256_unpackhi_epi64(*x, *y));
        }
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.butterfly(x, y, w.four_pairs(4 * (first + b)));
            (*x, *y) = even_and_odd(*x, *y);
        }
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.butterfly_canonical(x, y, w.eight_swapped(8 * (first + b)));
        }
        for (b, (x, y)) in x.into_iter().enumerate() {
            // From lanes (3, 1, 2) back to (2, 1, 0), bit 3 choosing the vector.
            let (x, y) = (_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y));
            let (x, y) = (_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y));
            store(exchange_halves(x, y), start.add(16 * b));
        }
    }
}

/// From canonical to `[0, 2q)`, on `B` consecutive blocks; see [`Tail::inverse_tails`].
///
/// # Safety
/// As for [`Tail::inverse_tails`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn inverse<const B: usize>(
    q: &ModulusLanes<Vector>,
    w: &Factors,
    start: *mut u32,
    first: usize,
) {
    // SAFETY: as in `forward`.
    unsafe {
        let mut x: [(Vector, Vector); B] = std::array::from_fn(|b| {
            let (x, y) = load(start.add(16 * b));
            let (x, y) = exchange_halves(x, y);
            let (x, y) = (_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y));
            even_and_odd(x, y)
        });
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.inverse_butterfly(x, y, w.eight_swapped(8 * (first + b)));
            (*x, *y) = (_mm256_unpacklo_epi32(*x, *y), _mm256_unpackhi_epi32(*x, *y));
        }
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.inverse_butterfly(x, y, w.four_pairs(4 * (first + b)));
            (*x, *y) = (_mm256_unpacklo_epi64(*x, *y), _mm256_unpackhi_epi64(*x, *y));
        }
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.inverse_butterfly(x, y, w.two(2 * (first + b)));
            (*x, *y) = exchange_halves(*x, *y);
        }
        for (b, (x, y)) in x.iter_mut().enumerate() {
            q.inverse_butterfly(x, y, w.splat(first + b));
        }
        for (b, x) in x.into_iter().enumerate() {
            store(x, start.add(16 * b));
        }
    }
}

/// # Safety
/// As for [`Lanes::load`], for 16 words.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(block: *const u32) -> (Vector, Vector) {
    // SAFETY: forwarded to the caller.
    unsafe { (Vector::load(block), Vector::load(block.add(8))) }
}

/// # Safety
/// As for [`Lanes::store`], for 16 words.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store((x, y): (Vector, Vector), block: *mut u32) {
    // SAFETY: forwarded to the caller.
    unsafe {
        x.store(block);
        y.store(block.add(8));
    }
}

/// Factors that vary by lane, read from consecutive entries of the table.
///
/// # Safety
/// As for [`Factors::splat`], for all entries read.
impl Factors {
    /// Lanes (3, 1, 0), factors 3.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn two(&self, at: usize) -> Factor<Vector> {
        // SAFETY: forwarded to the caller.
        unsafe {
            let order = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
            let spread = |from: *const u32| {
                let words = _mm256_castsi128_si256(_mm_loadl_epi64(from.add(at).cast()));
                _mm256_permutevar8x32_epi32(words, order)
            };
            let (w, even) = (spread(self.w), spread(self.w_shoup));
            Factor { w, even, odd: even }
        }
    }

    /// Lanes (3, 2, 0), factors (3, 2).
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn four_pairs(&self, at: usize) -> Factor<Vector> {
        // SAFETY: forwarded to the caller.
        unsafe {
            let order = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
            let spread = |from: *const u32| {
                let words = _mm256_castsi128_si256(_mm_loadu_si128(from.add(at).cast()));
                _mm256_permutevar8x32_epi32(words, order)
            };
            let (w, even) = (spread(self.w), spread(self.w_shoup));
            Factor { w, even, odd: even }
        }
    }

    /// Lanes (3, 1, 2), factors (3, 2, 1).
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn eight_swapped(&self, at: usize) -> Factor<Vector> {
        // SAFETY: forwarded to the caller.
        unsafe {
            let order = _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7);
            let w = _mm256_permutevar8x32_epi32(Vector::load(self.w.add(at)), order);
            let even = _mm256_permutevar8x32_epi32(Vector::load(self.w_shoup.add(at)), order);
            Factor { w, even, odd: even.odd_lanes() }
        }
    }
}

/// The upper half of `x` for the lower half of `y`.
#[inline]
#[target_feature(enable = "avx2")]
fn exchange_halves(x: Vector, y: Vector) -> (Vector, Vector) {
    (_mm256_permute2x128_si256::<0x20>(x, y), _mm256_permute2x128_si256::<0x31>(x, y))
}

/// In each half, the even words of both, then the odd words of both.
#[inline]
#[target_feature(enable = "avx2")]
fn even_and_odd(x: Vector, y: Vector) -> (Vector, Vector) {
    let (x, y) = (_mm256_castsi256_ps(x), _mm256_castsi256_ps(y));
    let (even, odd) = (_mm256_shuffle_ps::<0x88>(x, y), _mm256_shuffle_ps::<0xDD>(x, y));
    (_mm256_castps_si256(even), _mm256_castps_si256(odd))
}
