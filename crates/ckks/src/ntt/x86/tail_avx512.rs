//! The last six stages with AVX-512: 64 consecutive words in four vectors.
//!
//! Number the words of the block by bits 5 to 0. A stage needs its bit to choose between vectors, so vectors
//! are transposed on the way: first bits (5, 4) choose the vector, then (3, 2), then (1, 0), at last (5, 0).
//! The other four number the lanes, in descending order.

use super::butterfly::{Factors, Tail};
use crate::lanes::{Factor, Lanes, ModulusLanes};
use std::arch::x86_64::*;

type Vector = __m512i;

/// Words by which the inverse, which begins here, asks for the limb in advance.
const AHEAD: usize = 768;

impl Tail for Vector {
    const LOG_TAIL: u32 = 6;

    #[inline(always)]
    unsafe fn forward_tails(
        q: &ModulusLanes<Self>,
        w: &Factors,
        start: *mut u32,
        first: usize,
        count: usize,
    ) {
        // One block alone is a chain of dependent instructions that leaves units idle; three fill the registers.
        // SAFETY: the caller has the features, and the blocks are within the `count` given.
        unsafe {
            let mut done = 0;
            while count - done > 4 {
                forward::<3>(q, w, start.add(done << Self::LOG_TAIL), first + done);
                done += 3;
            }
            while count - done > 1 {
                forward::<2>(q, w, start.add(done << Self::LOG_TAIL), first + done);
                done += 2;
            }
            if done < count {
                forward::<1>(q, w, start.add(done << Self::LOG_TAIL), first + done);
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
        // One block alone is a chain of dependent instructions that leaves units idle; three fill the registers.
        // SAFETY: the caller has the features, and the blocks are within the `count` given.
        unsafe {
            let mut done = 0;
            while count - done > 4 {
                inverse::<3>(q, w, start.add(done << Self::LOG_TAIL), first + done);
                done += 3;
            }
            while count - done > 1 {
                inverse::<2>(q, w, start.add(done << Self::LOG_TAIL), first + done);
                done += 2;
            }
            if done < count {
                inverse::<1>(q, w, start.add(done << Self::LOG_TAIL), first + done);
            }
        }
    }
}

/// From `[0, 4q)` to canonical, on `B` consecutive blocks; see [`Tail::forward_tails`].
///
/// # Safety
/// As for [`Tail::forward_tails`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn forward<const B: usize>(
    q: &ModulusLanes<Vector>,
    w: &Factors,
    start: *mut u32,
    first: usize,
) {
    // SAFETY: there are 64 words in a block, and the factors of stage `s` for block `b` start at
    // `first 2^s`.
    unsafe {
        let mut x: [[Vector; 4]; B] = std::array::from_fn(|b| load(start.add(64 * b)));
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let f = w.splat(first);
            q.butterfly(a, c, f);
            q.butterfly(b, d, f);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let (f, g) = (w.splat(2 * first), w.splat(2 * first + 1));
            q.butterfly(a, b, f);
            q.butterfly(c, d, g);
        }
        for x in &mut x {
            *x = transpose_quarters(*x);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let f = w.four(4 * first);
            q.butterfly(a, c, f);
            q.butterfly(b, d, f);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let [f, g] = w.eight(8 * first);
            q.butterfly(a, b, f);
            q.butterfly(c, d, g);
        }
        for x in &mut x {
            *x = transpose_within_quarters(*x);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let f = w.sixteen(16 * first);
            q.butterfly(a, c, f);
            q.butterfly(b, d, f);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let ([mut x, mut z], [mut y, mut t]) = (interleave(*a, *c), interleave(*b, *d));
            q.butterfly_canonical(&mut x, &mut y, w.sixteen(32 * first));
            q.butterfly_canonical(&mut z, &mut t, w.sixteen(32 * first + 16));
            ([*a, *b], [*c, *d]) = (interleave(x, y), interleave(z, t));
        }
        for (b, x) in x.into_iter().enumerate() {
            store(x, start.add(64 * b));
        }
    }
}

/// From canonical to `[0, 2q)`, on `B` consecutive blocks; see [`Tail::inverse_tails`].
///
/// # Safety
/// As for [`Tail::inverse_tails`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn inverse<const B: usize>(
    q: &ModulusLanes<Vector>,
    w: &Factors,
    start: *mut u32,
    first: usize,
) {
    // SAFETY: as in `forward`.
    unsafe {
        for k in 0..4 * B {
            Vector::prefetch(start.wrapping_add(AHEAD + 16 * k));
        }
        let mut x: [[Vector; 4]; B] = std::array::from_fn(|b| load(start.add(64 * b)));
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let ([mut x, mut y], [mut z, mut t]) = (deinterleave(*a, *b), deinterleave(*c, *d));
            q.inverse_butterfly(&mut x, &mut y, w.sixteen(32 * first));
            q.inverse_butterfly(&mut z, &mut t, w.sixteen(32 * first + 16));
            ([*a, *c], [*b, *d]) = (deinterleave(x, z), deinterleave(y, t));
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let f = w.sixteen(16 * first);
            q.inverse_butterfly(a, c, f);
            q.inverse_butterfly(b, d, f);
        }
        for x in &mut x {
            *x = transpose_within_quarters(*x);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let [f, g] = w.eight(8 * first);
            q.inverse_butterfly(a, b, f);
            q.inverse_butterfly(c, d, g);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let f = w.four(4 * first);
            q.inverse_butterfly(a, c, f);
            q.inverse_butterfly(b, d, f);
        }
        for x in &mut x {
            *x = transpose_quarters(*x);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let (f, g) = (w.splat(2 * first), w.splat(2 * first + 1));
            q.inverse_butterfly(a, b, f);
            q.inverse_butterfly(c, d, g);
        }
        for (i, [a, b, c, d]) in x.iter_mut().enumerate() {
            let first = first + i;
            let f = w.splat(first);
            q.inverse_butterfly(a, c, f);
            q.inverse_butterfly(b, d, f);
        }
        for (b, x) in x.into_iter().enumerate() {
            store(x, start.add(64 * b));
        }
    }
}

/// # Safety
/// As for [`Lanes::load`], for 64 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn load(block: *const u32) -> [Vector; 4] {
    // SAFETY: forwarded to the caller.
    unsafe { std::array::from_fn(|k| Vector::load(block.add(16 * k))) }
}

/// # Safety
/// As for [`Lanes::store`], for 64 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn store(vectors: [Vector; 4], block: *mut u32) {
    for (k, vector) in vectors.into_iter().enumerate() {
        // SAFETY: forwarded to the caller.
        unsafe { vector.store(block.add(16 * k)) }
    }
}

/// Factors that vary by lane, read from consecutive entries of the table.
///
/// # Safety
/// As for [`Factors::splat`], for all entries read.
impl Factors {
    /// Four factors, each for a quarter of the lanes: lanes (5, 4, 1, 0), factors (5, 4).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn four(&self, at: usize) -> Factor<Vector> {
        // SAFETY: forwarded to the caller.
        unsafe {
            let order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            let spread = |from: *const u32| {
                let words = _mm512_castsi128_si512(_mm_loadu_si128(from.add(at).cast()));
                _mm512_permutexvar_epi32(order, words)
            };
            let (w, even) = (spread(self.w), spread(self.w_shoup));
            Factor { w, even, odd: even }
        }
    }

    /// Eight factors for two vectors: vector 3, lanes (5, 4, 1, 0), factors (5, 4, 3).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn eight(&self, at: usize) -> [Factor<Vector>; 2] {
        // SAFETY: forwarded to the caller.
        unsafe {
            let w = _mm512_castsi256_si512(_mm256_loadu_si256(self.w.add(at).cast()));
            let w_shoup = _mm512_castsi256_si512(_mm256_loadu_si256(self.w_shoup.add(at).cast()));
            let spread = |order: Vector| {
                let even = _mm512_permutexvar_epi32(order, w_shoup);
                Factor { w: _mm512_permutexvar_epi32(order, w), even, odd: even }
            };
            [
                spread(_mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6)),
                spread(_mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7)),
            ]
        }
    }

    /// A factor for each lane, in the order of the lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn sixteen(&self, at: usize) -> Factor<Vector> {
        // SAFETY: forwarded to the caller.
        unsafe {
            let (w, even) = (Vector::load(self.w.add(at)), Vector::load(self.w_shoup.add(at)));
            Factor { w, even, odd: even.odd_lanes() }
        }
    }
}

/// Quarter `i` of vector `k` becomes quarter `k` of vector `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transpose_quarters([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
    let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xEE>(a, b));
    let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xEE>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0xDD>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0xDD>(ab_high, cd_high),
    ]
}

/// In each quarter, word `i` of vector `k` becomes word `k` of vector `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transpose_within_quarters([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The lanes of two vectors in turn: an exchange of the bit that chooses the vector with the lanes' lowest, and of that
/// with the highest.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn interleave(x: Vector, y: Vector) -> [Vector; 2] {
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    [_mm512_permutex2var_epi32(x, low, y), _mm512_permutex2var_epi32(x, high, y)]
}

/// Undoes [`interleave`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn deinterleave(x: Vector, y: Vector) -> [Vector; 2] {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    [_mm512_permutex2var_epi32(x, even, y), _mm512_permutex2var_epi32(x, odd, y)]
}
