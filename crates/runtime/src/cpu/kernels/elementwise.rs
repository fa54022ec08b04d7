//! Arithmetic on corresponding words.

use cerium_ckks::dispatch;
use cerium_ckks::isa::Isa;
use cerium_ckks::lanes::{Factor, Lanes, ModulusLanes};
use cerium_ckks::modulus::{Modulus, Shoup};

/// Defines a kernel by the value of one output vector. `m` is the modulus, and a constant operand is brought into
/// vector form once.
macro_rules! elementwise {
    (
        $(#[$meta:meta])*
        $name:ident($($operand:ident),+ $(; $constant:ident: $type:ty => $vector:expr)?) = |$m:ident| $value:expr
    ) => {
        $(#[$meta])*
        pub fn $name(isa: Isa, q: &Modulus, out: &mut [u32], $($operand: &[u32],)+ $($constant: $type)?) {
            #[inline(always)]
            unsafe fn run<V: Lanes>(q: &Modulus, out: &mut [u32], $($operand: &[u32],)+ $($constant: $type)?) {
                // SAFETY: the caller has the features of `V`, and all slices have the same length.
                unsafe {
                    let $m = ModulusLanes::<V>::new(q);
                    $(let $constant = $vector;)?
                    for i in (0..out.len()).step_by(V::LANES) {
                        $(let $operand = V::load($operand.as_ptr().add(i));)+
                        ($value).store(out.as_mut_ptr().add(i));
                    }
                }
            }
            $(assert_eq!($operand.len(), out.len(), "operands are as long as the output");)+
            let whole = out.len() - out.len() % MOST_LANES;
            let (out, out_rest) = out.split_at_mut(whole);
            {
                $(let $operand = &$operand[..whole];)+
                dispatch!(isa, run(q: &Modulus, out: &mut [u32], $($operand: &[u32],)+ $($constant: $type)?));
            }
            // SAFETY: a single word needs no features; the rest is equally long for all.
            unsafe { run::<u32>(q, out_rest, $(&$operand[whole..],)+ $($constant)?) }
        }
    };
}

/// Words of the widest vector; what is left over by it is done word by word.
const MOST_LANES: usize = 16;

elementwise! {
    /// `out = a + b mod q`.
    add(a, b) = |m| m.add(a, b)
}

elementwise! {
    /// `out = a - b mod q`.
    sub(a, b) = |m| m.sub(a, b)
}

elementwise! {
    /// `out = -a mod q`.
    neg(a) = |m| m.neg(a)
}

elementwise! {
    /// `out = a * b mod q`.
    mul(a, b) = |m| m.mul(a, b)
}

elementwise! {
    /// `out = a * b * 2^-32 mod q`: the plain product if one of the operands is in Montgomery form.
    mont_mul(a, b) = |m| m.mont_mul(a, b)
}

elementwise! {
    /// `out = a * c mod q` for a constant `c` prepared by [`Modulus::shoup`].
    mul_scalar(a; c: Shoup => Factor::<V>::splat(c)) = |m| m.mul_factor(a, c)
}

elementwise! {
    /// `out = a + c mod q` for a canonical constant `c`.
    add_scalar(a; c: u32 => V::splat(c)) = |m| m.add(a, c)
}

/// Products whose sum [`ModulusLanes::mont_reduce_4q`] can still reduce: `16 (q - 1)^2 < 2^34 q` as `q < 2^30`.
const MOST_PRODUCTS: usize = 16;

/// Words by which [`dot`] asks for its second operands in advance: evaluation keys and plaintexts, which come from memory.
/// The processor's own prefetching begins anew with every page of every operand.
const AHEAD: usize = 256;

/// Vectors that [`dot`] works on together.
const UNROLLED: usize = 4;

/// Where a stretch of [`Runs`] may begin: at multiples of this, or where a run begins.
pub const RUN_ALIGN: usize = UNROLLED * MOST_LANES;

/// A stretch of a limb whose words come in runs of equal ones, as those of a plaintext of short period do.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a> {
    /// One word for each run, from the run in which the stretch begins.
    words: &'a [u32],
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
        Runs { words: &compact[offset >> log_run..], log_run, phase }
    }

    /// Words of the stretch.
    fn len(&self) -> usize {
        (self.words.len() << self.log_run) - self.phase
    }
}

impl<'a> From<&'a [u32]> for Runs<'a> {
    /// Runs of one word.
    fn from(words: &'a [u32]) -> Runs<'a> {
        Runs { words, log_run: 0, phase: 0 }
    }
}

/// `out = sum_i a_i * b_i * 2^-32 mod q` over the pairs `(a_i, b_i)`: the plain sum of products if each pair has one
/// operand in Montgomery form. Zero for no pairs. What comes from memory rather than cache had better be second; the second
/// operands may be longer than the output.
pub fn dot(isa: Isa, q: &Modulus, out: &mut [u32], pairs: &[(&[u32], Runs<'_>)]) {
    for (a, b) in pairs {
        assert!(a.len() == out.len() && b.len() >= out.len(), "operands are as long as the output");
    }
    let whole = out.len() - out.len() % MOST_LANES;
    let (out, out_rest) = out.split_at_mut(whole);
    dispatch!(isa, dot_run(q: &Modulus, out: &mut [u32], pairs: &[(&[u32], Runs<'_>)]));
    // SAFETY: a single word needs no features; the pairs are as long as both parts of the output together.
    unsafe { dot_vectors::<u32, 1>(q, out_rest, pairs, whole) }
}

/// [`dot`] for a whole number of vectors.
///
/// # Safety
/// As for [`Lanes`]; the pairs are at least as long as the output.
#[inline(always)]
unsafe fn dot_run<V: Lanes>(q: &Modulus, out: &mut [u32], pairs: &[(&[u32], Runs<'_>)]) {
    let unrolled = out.len() - out.len() % (UNROLLED * V::LANES);
    let (out, out_rest) = out.split_at_mut(unrolled);
    // SAFETY: forwarded to the caller.
    unsafe {
        dot_vectors::<V, UNROLLED>(q, out, pairs, 0);
        dot_vectors::<V, 1>(q, out_rest, pairs, unrolled);
    }
}

/// [`dot`] for the stretch of the pairs that begins at `start`, `COUNT` vectors at a time.
///
/// # Safety
/// As for [`Lanes`]; the output is a whole number of times `COUNT` vectors, `start` a multiple of a vector, and the pairs
/// reach to the end of the stretch.
#[inline(always)]
unsafe fn dot_vectors<V: Lanes, const COUNT: usize>(
    q: &Modulus,
    out: &mut [u32],
    pairs: &[(&[u32], Runs<'_>)],
    start: usize,
) {
    // SAFETY: forwarded to the caller.
    unsafe {
        let m = ModulusLanes::<V>::new(q);
        for i in (0..out.len()).step_by(COUNT * V::LANES) {
            let mut totals = [V::splat(0); COUNT];
            for pairs in pairs.chunks(MOST_PRODUCTS) {
                let mut sums = [V::wide_zero(); COUNT];
                for (a, b) in pairs {
                    let a = a.as_ptr().add(start + i);
                    let at = b.phase + start + i;
                    if b.log_run == 0 {
                        let b = b.words.as_ptr().add(at);
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let b = b.add(v * V::LANES);
                            V::prefetch(b.wrapping_add(AHEAD));
                            let b = V::load(b);
                            *sum = add_product(*sum, V::load(a.add(v * V::LANES)), b, b.odd_lanes());
                        }
                        continue;
                    }
                    // The other runs are of two words at least, so that neighbouring lanes hold the same word.
                    let words = b.words.as_ptr();
                    let run = 1 << b.log_run;
                    if run >= COUNT * V::LANES {
                        let b = V::splat(*words.add(at >> b.log_run));
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = add_product(*sum, V::load(a.add(v * V::LANES)), b, b);
                        }
                    } else if run >= V::LANES {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let b = V::splat(*words.add((at + v * V::LANES) >> b.log_run));
                            *sum = add_product(*sum, V::load(a.add(v * V::LANES)), b, b);
                        }
                    } else {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let b = V::load_runs(words.add((at + v * V::LANES) >> b.log_run), b.log_run);
                            *sum = add_product(*sum, V::load(a.add(v * V::LANES)), b, b);
                        }
                    }
                }
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total = m.add(*total, m.mont_reduce_4q(sum));
                }
            }
            for (v, total) in totals.into_iter().enumerate() {
                total.store(out.as_mut_ptr().add(i + v * V::LANES));
            }
        }
    }
}

/// `sum + a * b`, given the odd lanes of `b`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn add_product<V: Lanes>(sum: V::Wide, a: V, b: V, b_odd: V) -> V::Wide {
    // SAFETY: forwarded to the caller.
    unsafe { V::wide_add(sum, a.wide_mul(a.odd_lanes(), b, b_odd)) }
}
