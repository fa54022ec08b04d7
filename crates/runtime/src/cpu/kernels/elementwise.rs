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

/// Words by which [`dot`] asks for its second operands in advance: evaluation keys, which come from memory. The
/// processor's own prefetching begins anew with every page of every operand.
const AHEAD: usize = 256;

/// `out = sum_i a_i * b_i * 2^-32 mod q` over the pairs `(a_i, b_i)`: the plain sum of products if each pair has one
/// operand in Montgomery form. Zero for no pairs. What comes from memory rather than cache had better be second.
pub fn dot(isa: Isa, q: &Modulus, out: &mut [u32], pairs: &[(&[u32], &[u32])]) {
    for (a, b) in pairs {
        assert!(a.len() == out.len() && b.len() == out.len(), "operands are as long as the output");
    }
    let whole = out.len() - out.len() % MOST_LANES;
    let (out, out_rest) = out.split_at_mut(whole);
    let start = 0;
    dispatch!(isa, dot_run(q: &Modulus, out: &mut [u32], pairs: &[(&[u32], &[u32])], start: usize));
    // SAFETY: a single word needs no features; the pairs are as long as both parts of the output together.
    unsafe { dot_run::<u32>(q, out_rest, pairs, whole) }
}

/// [`dot`] for the stretch of the pairs that begins at `start`.
///
/// # Safety
/// As for [`Lanes`]; the output is a whole number of vectors, and the pairs reach to its end.
#[inline(always)]
unsafe fn dot_run<V: Lanes>(q: &Modulus, out: &mut [u32], pairs: &[(&[u32], &[u32])], start: usize) {
    // SAFETY: forwarded to the caller.
    unsafe {
        let m = ModulusLanes::<V>::new(q);
        for i in (0..out.len()).step_by(V::LANES) {
            let mut total = V::splat(0);
            for pairs in pairs.chunks(MOST_PRODUCTS) {
                let mut sum = V::wide_zero();
                for (a, b) in pairs {
                    let (a, b) = (a.as_ptr().add(start + i), b.as_ptr().add(start + i));
                    V::prefetch(b.wrapping_add(AHEAD));
                    let (a, b) = (V::load(a), V::load(b));
                    sum = V::wide_add(sum, a.wide_mul(a.odd_lanes(), b, b.odd_lanes()));
                }
                total = m.add(total, m.mont_reduce_4q(sum));
            }
            total.store(out.as_mut_ptr().add(i));
        }
    }
}
