//! The stages whose stride is a whole number of vectors, up to four at a time in registers.
//!
//! The first passes sweep over the whole limb and leave independent blocks that fit the innermost cache;
//! then each block is finished, tail included, before the next is begun. The inverse goes the other way.

use super::butterfly::{Factors, Tail};
use crate::lanes::{Factor, ModulusLanes};
use crate::modulus::Shoup;
use crate::ntt::NttTable;

/// Base-2 logarithm of the words in a block that is finished at once: 16 KiB, half an L1 cache.
const LOG_CACHED: u32 = 12;

/// Words by which the first pass asks for the limb in advance. The processor's own prefetching begins anew with every
/// page of each of the streams.
const AHEAD: usize = 32;

/// A power-of-two number of words at `start`: block `index` of the `blocks` that make up the limb.
#[derive(Clone, Copy)]
struct Block {
    start: *mut u32,
    log_len: u32,
    blocks: usize,
    index: usize,
}

impl Block {
    fn whole(limb: &mut [u32]) -> Self {
        Self { start: limb.as_mut_ptr(), log_len: limb.len().ilog2(), blocks: 1, index: 0 }
    }

    /// Part `i` of this block cut into blocks of `2^log_len` words.
    ///
    /// # Safety
    /// The part must be within the block.
    #[inline(always)]
    unsafe fn part(&self, log_len: u32, i: usize) -> Self {
        let log_parts = self.log_len - log_len;
        Self {
            // SAFETY: forwarded to the caller.
            start: unsafe { self.start.add(i << log_len) },
            log_len,
            blocks: self.blocks << log_parts,
            index: (self.index << log_parts) + i,
        }
    }
}

/// How many stages to do at once when `stages` are left. Sixteen vectors fit the registers, but only in the
/// innermost cache do sixteen streams not displace one another: so threes while more than four are left.
fn radix(stages: u32) -> u32 {
    match stages {
        0..=4 => stages,
        5 => 2,
        _ => 3,
    }
}

/// The largest cached block that the passes over a limb of `2^log_len` words arrive at.
fn cached(mut log_len: u32, log_tail: u32) -> u32 {
    while log_len > LOG_CACHED {
        log_len -= radix(log_len - log_tail);
    }
    log_len
}

/// Coefficients to evaluations. Canonical in and out.
///
/// # Safety
/// As for [`Tail`]; `limb` has a power of two of words, from `2^LOG_TAIL` to the degree of the table.
#[inline(always)]
pub(super) unsafe fn forward<V: Tail>(table: &NttTable, limb: &mut [u32]) {
    let log_cached = cached(limb.len().ilog2(), V::LOG_TAIL);
    let whole = Block::whole(limb);
    // SAFETY: all blocks are parts of the limb, and the table has a factor for each group of each stage.
    unsafe {
        let q = ModulusLanes::<V>::new(&table.q);
        let w = Factors::of(&table.forward);
        forward_to(&q, &w, whole, log_cached);
        for i in 0..1 << (whole.log_len - log_cached) {
            let block = whole.part(log_cached, i);
            forward_to(&q, &w, block, V::LOG_TAIL);
            let tail = block.part(V::LOG_TAIL, 0);
            let count = 1 << (log_cached - V::LOG_TAIL);
            V::forward_tails(&q, &w, tail.start, tail.blocks + tail.index, count);
        }
    }
}

/// Evaluations to coefficients, each times `scale`. Canonical in and out. Evaluations that are not in the limb come from
/// `from`, which is as long.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
pub(super) unsafe fn inverse<V: Tail>(
    table: &NttTable,
    limb: &mut [u32],
    from: Option<&[u32]>,
    scale: Shoup,
) {
    let from = from.map(<[u32]>::as_ptr);
    let whole = Block::whole(limb);
    let last = (whole.log_len - V::LOG_TAIL).min(3);
    let log_last = whole.log_len - last;
    let log_cached = cached(log_last, V::LOG_TAIL);
    // The last stage has one factor. Multiplied by the scale it does both.
    let factor = table.q.shoup(table.q.mul(table.inverse.at(whole.blocks).w, scale.w));
    // SAFETY: as in `forward`.
    unsafe {
        let q = ModulusLanes::<V>::new(&table.q);
        let w = Factors::of(&table.inverse);
        for i in 0..1 << (whole.log_len - log_cached) {
            let block = whole.part(log_cached, i);
            let tail = block.part(V::LOG_TAIL, 0);
            let count = 1 << (log_cached - V::LOG_TAIL);
            if let Some(from) = from {
                // A block stays in the innermost cache until it is finished: that costs little more than reading it.
                std::ptr::copy_nonoverlapping(from.add(i << log_cached), block.start, 1 << log_cached);
            }
            V::inverse_tails(&q, &w, tail.start, tail.blocks + tail.index, count);
            inverse_from(&q, &w, block, V::LOG_TAIL);
        }
        for i in 0..1 << last {
            inverse_from(&q, &w, whole.part(log_last, i), log_cached);
        }
        let scaling = [Factor::splat(scale), Factor::splat(factor)];
        match last {
            0 => last_inverse_pass::<V, 0, 1>(&q, &w, whole, scaling),
            1 => last_inverse_pass::<V, 1, 2>(&q, &w, whole, scaling),
            2 => last_inverse_pass::<V, 2, 4>(&q, &w, whole, scaling),
            _ => last_inverse_pass::<V, 3, 8>(&q, &w, whole, scaling),
        }
    }
}

/// Forward passes over `block` until its independent parts have `2^log_len` words.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
unsafe fn forward_to<V: Tail>(q: &ModulusLanes<V>, w: &Factors, block: Block, log_len: u32) {
    let mut at = block.log_len;
    while at > log_len {
        let stages = radix(at - log_len);
        for i in 0..1 << (block.log_len - at) {
            // SAFETY: the part is within the block; the rest is forwarded.
            unsafe {
                let part = block.part(at, i);
                match stages {
                    1 => forward_pass::<V, 1, 2>(q, w, part),
                    2 => forward_pass::<V, 2, 4>(q, w, part),
                    3 => forward_pass::<V, 3, 8>(q, w, part),
                    _ => forward_pass::<V, 4, 16>(q, w, part),
                }
            }
        }
        at -= stages;
    }
}

/// Undoes [`forward_to`], last stage first.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
unsafe fn inverse_from<V: Tail>(q: &ModulusLanes<V>, w: &Factors, block: Block, log_len: u32) {
    let mut at = log_len;
    while at < block.log_len {
        let stages = radix(block.log_len - at);
        at += stages;
        for i in 0..1 << (block.log_len - at) {
            // SAFETY: the part is within the block; the rest is forwarded.
            unsafe {
                let part = block.part(at, i);
                match stages {
                    1 => inverse_pass::<V, 1, 2>(q, w, part),
                    2 => inverse_pass::<V, 2, 4>(q, w, part),
                    3 => inverse_pass::<V, 3, 8>(q, w, part),
                    _ => inverse_pass::<V, 4, 16>(q, w, part),
                }
            }
        }
    }
}

/// `STAGES` stages of the forward transform on `block`, on `RADIX = 2^STAGES` vectors at a time.
///
/// # Safety
/// As for [`forward`]; the block has at least `RADIX` vectors.
#[inline(always)]
unsafe fn forward_pass<V: Tail, const STAGES: usize, const RADIX: usize>(
    q: &ModulusLanes<V>,
    w: &Factors,
    block: Block,
) {
    let stride = (1 << block.log_len) / RADIX;
    // SAFETY: vector `k` of iteration `at` starts at word `at + k stride` of the block, and group `g` of stage
    // `s` is number `index 2^s + g` of the `blocks 2^s` of its stage.
    unsafe {
        let mut at = block.start;
        let end = at.add(stride);
        while at < end {
            let mut x = [V::load(at); RADIX];
            for (k, x) in x.iter_mut().enumerate() {
                *x = V::load(at.add(k * stride));
                if block.blocks == 1 {
                    V::prefetch(at.wrapping_add(k * stride + AHEAD));
                }
            }
            for s in 0..STAGES {
                let half = RADIX >> (s + 1);
                for g in 0..1 << s {
                    let factor = w.splat((block.blocks << s) + (block.index << s) + g);
                    for k in 2 * half * g..2 * half * g + half {
                        let (low, high) = x.split_at_mut(k + half);
                        q.butterfly(&mut low[k], &mut high[0], factor);
                    }
                }
            }
            for (k, x) in x.into_iter().enumerate() {
                x.store(at.add(k * stride));
            }
            at = at.add(V::LANES);
        }
    }
}

/// The inverse of [`forward_pass`], but for a factor of `RADIX`. In and out `[0, 2q)`.
///
/// # Safety
/// As for [`forward_pass`].
#[inline(always)]
unsafe fn inverse_pass<V: Tail, const STAGES: usize, const RADIX: usize>(
    q: &ModulusLanes<V>,
    w: &Factors,
    block: Block,
) {
    let stride = (1 << block.log_len) / RADIX;
    // SAFETY: as in `forward_pass`.
    unsafe {
        let mut at = block.start;
        let end = at.add(stride);
        while at < end {
            let mut x = [V::load(at); RADIX];
            for (k, x) in x.iter_mut().enumerate() {
                *x = V::load(at.add(k * stride));
            }
            for s in (0..STAGES).rev() {
                inverse_stage(q, w, block, &mut x, s);
            }
            for (k, x) in x.into_iter().enumerate() {
                x.store(at.add(k * stride));
            }
            at = at.add(V::LANES);
        }
    }
}

/// The [`inverse_pass`] that ends the transform of the whole limb, with all words multiplied by the first factor of
/// `scaling`; the second is that times the factor of the last stage. From `[0, 2q)` to canonical.
///
/// # Safety
/// As for [`forward_pass`].
#[inline(always)]
unsafe fn last_inverse_pass<V: Tail, const STAGES: usize, const RADIX: usize>(
    q: &ModulusLanes<V>,
    w: &Factors,
    whole: Block,
    scaling: [Factor<V>; 2],
) {
    let stride = (1 << whole.log_len) / RADIX;
    // SAFETY: as in `forward_pass`.
    unsafe {
        let mut at = whole.start;
        let end = at.add(stride);
        while at < end {
            let mut x = [V::load(at); RADIX];
            for (k, x) in x.iter_mut().enumerate() {
                *x = V::load(at.add(k * stride));
            }
            for s in (1..STAGES).rev() {
                inverse_stage(q, w, whole, &mut x, s);
            }
            let (low, high) = x.split_at_mut(RADIX.div_ceil(2));
            if STAGES == 0 {
                low[0] = q.mul_factor(low[0], scaling[0]);
            }
            for (x, y) in low.iter_mut().zip(high) {
                let difference = x.add(q.twice).sub(*y);
                *x = q.mul_factor(x.add(*y), scaling[0]);
                *y = q.mul_factor(difference, scaling[1]);
            }
            for (k, x) in x.into_iter().enumerate() {
                x.store(at.add(k * stride));
            }
            at = at.add(V::LANES);
        }
    }
}

/// Stage `s` of a pass of the inverse. In and out `[0, 2q)`.
///
/// # Safety
/// As for [`forward_pass`].
#[inline(always)]
unsafe fn inverse_stage<V: Tail, const RADIX: usize>(
    q: &ModulusLanes<V>,
    w: &Factors,
    block: Block,
    x: &mut [V; RADIX],
    s: usize,
) {
    let half = RADIX >> (s + 1);
    for g in 0..1 << s {
        // SAFETY: as in `forward_pass`.
        unsafe {
            let factor = w.splat((block.blocks << s) + (block.index << s) + g);
            for k in 2 * half * g..2 * half * g + half {
                let (low, high) = x.split_at_mut(k + half);
                q.inverse_butterfly(&mut low[k], &mut high[0], factor);
            }
        }
    }
}
