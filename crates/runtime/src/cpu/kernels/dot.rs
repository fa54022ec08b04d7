//! Sums of products.

use std::marker::PhantomData;

use cerium_ckks::dispatch;
use cerium_ckks::isa::Isa;
use cerium_ckks::lanes::{Lanes, ModulusLanes};
use cerium_ckks::modulus::Modulus;

use super::MOST_LANES;

/// Products whose sum [`ModulusLanes::mont_reduce_4q`] can still reduce: `16 (q - 1)^2 < 2^34 q` as `q < 2^30`.
const MOST_PRODUCTS: usize = 16;

/// Vectors that are worked on together.
const UNROLLED: usize = 4;

/// Where a stretch of [`Runs`] may begin: at multiples of this, or where a run begins.
pub const RUN_ALIGN: usize = UNROLLED * MOST_LANES;

/// A stretch of a limb whose words come in runs of equal ones, as those of a plaintext of short period do.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a> {
    /// One word for each run, from the run in which the stretch begins. Plain words may be an output of the sum.
    words: *const u32,
    count: usize,
    limb: PhantomData<&'a [u32]>,
    /// Base-2 logarithm of the words of a run.
    log_run: u32,
    /// Words of the first run that stand before the stretch.
    phase: usize,
}

impl<'a> Runs<'a> {
    /// The stretch from `offset` on of the limb in which each word of `compact` stands for a run of `2^log_run`.
    ///
    /// # Panics
    /// If `offset` is neither the beginning of a run nor a multiple of [`RUN_ALIGN`], or is beyond the limb.
    pub fn new(compact: &'a [u32], log_run: u32, offset: usize) -> Runs<'a> {
        let phase = offset & ((1 << log_run) - 1);
        assert!(phase.is_multiple_of(RUN_ALIGN), "a stretch begins at word {phase} of a run");
        let compact = &compact[offset >> log_run..];
        Runs { words: compact.as_ptr(), count: compact.len(), limb: PhantomData, log_run, phase }
    }

    /// Runs of one word: `count` words.
    pub fn words(words: *const u32, count: usize) -> Runs<'a> {
        Runs { words, count, limb: PhantomData, log_run: 0, phase: 0 }
    }

    /// Words of the stretch.
    fn len(&self) -> usize {
        (self.count << self.log_run) - self.phase
    }
}

/// A term of `OUTS` sums of products, which have the second factor in common. The second factor may be longer than the
/// output.
pub type Term<'a, const OUTS: usize> = ([*const u32; OUTS], Runs<'a>);

/// `out = sum_i a_i * b_i * 2^-32 mod q` over the terms `(a_i, b_i)`, for `len` words: the plain sum of products if each term has
/// one factor in Montgomery form. Zero for no terms. `added` are added.
///
/// # Safety
/// The output, first factors and what is added are valid for `len` words, and so are second factors that are plain words. Each of
/// these either is the output or does not overlap it.
///
/// # Panics
/// When a second factor is shorter.
pub unsafe fn dot(
    isa: Isa,
    q: &Modulus,
    outs: [*mut u32; 1],
    len: usize,
    terms: &[Term<'_, 1>],
    added: [&[*const u32]; 1],
) {
    check(len, terms);
    let whole = len - len % MOST_LANES;
    dispatch!(
        isa,
        run_one(q: &Modulus, outs: [*mut u32; 1], whole: usize, terms: &[Term<'_, 1>], added: [&[*const u32]; 1])
    );
    // SAFETY: a single word needs no features; the terms are as long as the output.
    unsafe { run_vectors::<u32, 1, 1>(q, outs, whole..len, terms, added) }
}

/// Two sums as in [`dot`], whose second factors are the same: each is read once.
///
/// # Safety
/// As for [`dot`], for both outputs, which do not overlap.
///
/// # Panics
/// As for [`dot`].
pub unsafe fn dot_pair(
    isa: Isa,
    q: &Modulus,
    outs: [*mut u32; 2],
    len: usize,
    terms: &[Term<'_, 2>],
    added: [&[*const u32]; 2],
) {
    check(len, terms);
    let whole = len - len % MOST_LANES;
    dispatch!(
        isa,
        run_two(q: &Modulus, outs: [*mut u32; 2], whole: usize, terms: &[Term<'_, 2>], added: [&[*const u32]; 2])
    );
    // SAFETY: a single word needs no features; the terms are as long as the outputs.
    unsafe { run_vectors::<u32, 1, 2>(q, outs, whole..len, terms, added) }
}

fn check<const OUTS: usize>(len: usize, terms: &[Term<'_, OUTS>]) {
    assert!(terms.iter().all(|(_, b)| b.len() >= len), "second factors are as long as the output");
}

/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn run_one<V: Lanes>(
    q: &Modulus,
    outs: [*mut u32; 1],
    len: usize,
    terms: &[Term<'_, 1>],
    added: [&[*const u32]; 1],
) {
    // SAFETY: forwarded to the caller.
    unsafe { run::<V, 1>(q, outs, len, terms, added) }
}

/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn run_two<V: Lanes>(
    q: &Modulus,
    outs: [*mut u32; 2],
    len: usize,
    terms: &[Term<'_, 2>],
    added: [&[*const u32]; 2],
) {
    // SAFETY: forwarded to the caller.
    unsafe { run::<V, 2>(q, outs, len, terms, added) }
}

/// The sums for the first `len` words.
///
/// # Safety
/// As for [`Lanes`]; outputs and factors are at least as long, and this is a whole number of vectors.
#[inline(always)]
unsafe fn run<V: Lanes, const OUTS: usize>(
    q: &Modulus,
    outs: [*mut u32; OUTS],
    len: usize,
    terms: &[Term<'_, OUTS>],
    added: [&[*const u32]; OUTS],
) {
    let unrolled = len - len % (UNROLLED * V::LANES);
    // SAFETY: forwarded to the caller.
    unsafe {
        run_vectors::<V, UNROLLED, OUTS>(q, outs, 0..unrolled, terms, added);
        run_vectors::<V, 1, OUTS>(q, outs, unrolled..len, terms, added);
    }
}

/// The sums for a range of words, `COUNT` vectors at a time.
///
/// # Safety
/// As for [`dot`] and [`Lanes`]; outputs and factors reach to the end of the range, which is a whole number of times `COUNT` vectors and
/// begins at a multiple of a vector.
#[inline(always)]
unsafe fn run_vectors<V: Lanes, const COUNT: usize, const OUTS: usize>(
    q: &Modulus,
    outs: [*mut u32; OUTS],
    range: std::ops::Range<usize>,
    terms: &[Term<'_, OUTS>],
    added: [&[*const u32]; OUTS],
) {
    // SAFETY: forwarded to the caller.
    unsafe {
        let m = ModulusLanes::<V>::new(q);
        // What an output may be is read before it is written, word by word.
        for i in range.step_by(COUNT * V::LANES) {
            let mut totals = [[V::splat(0); COUNT]; OUTS];
            for terms in terms.chunks(MOST_PRODUCTS) {
                let mut sums = [[V::wide_zero(); COUNT]; OUTS];
                for (a, b) in terms {
                    let b = load_runs::<V, COUNT>(b, i);
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = a.add(i);
                        for (v, (sum, (b, b_odd))) in sums.iter_mut().zip(b).enumerate() {
                            let a = V::load(a.add(v * V::LANES));
                            *sum = V::wide_add(*sum, a.wide_mul(a.odd_lanes(), b, b_odd));
                        }
                    }
                }
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    for (total, sum) in totals.iter_mut().zip(sums) {
                        *total = m.add(*total, m.mont_reduce_4q(sum));
                    }
                }
            }
            for (totals, added) in totals.iter_mut().zip(added) {
                for added in added {
                    for (v, total) in totals.iter_mut().enumerate() {
                        *total = m.add(*total, V::load(added.add(i + v * V::LANES)));
                    }
                }
            }
            for (out, totals) in outs.iter().zip(totals) {
                for (v, total) in totals.into_iter().enumerate() {
                    total.store(out.add(i + v * V::LANES));
                }
            }
        }
    }
}

/// `COUNT` vectors of the stretch from word `i` on, with the odd lanes of each.
///
/// # Safety
/// As for [`Lanes`]; the words are within the stretch, and `i` is a multiple of a vector.
#[inline(always)]
unsafe fn load_runs<V: Lanes, const COUNT: usize>(b: &Runs<'_>, i: usize) -> [(V, V); COUNT] {
    let (words, at, run) = (b.words, b.phase + i, 1 << b.log_run);
    // SAFETY: forwarded to the caller.
    unsafe {
        let mut out = [(V::splat(0), V::splat(0)); COUNT];
        if run == 1 {
            for (v, out) in out.iter_mut().enumerate() {
                let b = V::load(words.add(at + v * V::LANES));
                *out = (b, b.odd_lanes());
            }
            return out;
        }
        // The other runs are of two words at least, so that neighbouring lanes hold the same word.
        if run >= COUNT * V::LANES {
            let b = V::splat(*words.add(at >> b.log_run));
            return [(b, b); COUNT];
        }
        for (v, out) in out.iter_mut().enumerate() {
            let from = words.add((at + v * V::LANES) >> b.log_run);
            let b = if run >= V::LANES { V::splat(*from) } else { V::load_runs(from, b.log_run) };
            *out = (b, b);
        }
        out
    }
}
