//! Arithmetic on corresponding words.

use cerium_ckks::dispatch;
use cerium_ckks::isa::Isa;
use cerium_ckks::lanes::{Factor, Lanes, ModulusLanes};
use cerium_ckks::modulus::{Modulus, Shoup};

use super::MOST_LANES;

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

elementwise! {
    /// `out = a`. For a few kilobytes in cache this is several times faster than what the standard library does.
    copy(a) = |_m| a
}

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

/// Defines a kernel of two operations by the value of one output vector, for operands `a` and `b` that may be the output
/// itself, and a constant `c` in vector form.
macro_rules! joined {
    ($(#[$meta:meta])* $name:ident = |$m:ident, $a:ident, $b:ident, $c:ident| $value:expr) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// All are valid for `len` words, for writing or reading. Each of `a` and `b` either is `out` or does not overlap it.
        pub unsafe fn $name(isa: Isa, q: &Modulus, out: *mut u32, $a: *const u32, $b: *const u32, $c: Shoup, len: usize) {
            #[inline(always)]
            unsafe fn run<V: Lanes>(
                q: &Modulus,
                out: *mut u32,
                $a: *const u32,
                $b: *const u32,
                $c: Shoup,
                range: [usize; 2],
            ) {
                // SAFETY: the caller has the features of `V`, and the operands are as long as it says; of a vector all is read
                // before it is written.
                unsafe {
                    let $m = ModulusLanes::<V>::new(q);
                    let $c = Factor::<V>::splat($c);
                    for i in (range[0]..range[1]).step_by(V::LANES) {
                        let ($a, $b) = (V::load($a.add(i)), V::load($b.add(i)));
                        ($value).store(out.add(i));
                    }
                }
            }
            let range = [0, len - len % MOST_LANES];
            dispatch!(
                isa,
                run(q: &Modulus, out: *mut u32, $a: *const u32, $b: *const u32, $c: Shoup, range: [usize; 2])
            );
            // SAFETY: a single word needs no features; the rest is forwarded to the caller.
            unsafe { run::<u32>(q, out, $a, $b, $c, [range[1], len]) }
        }
    };
}

joined! {
    /// `out = (a + b) * c mod q` for a constant `c` prepared by [`Modulus::shoup`].
    add_mul_scalar = |m, a, b, c| m.mul_factor(a.add(b), c)
}

joined! {
    /// `out = (a - b) * c mod q` for a constant `c` prepared by [`Modulus::shoup`].
    sub_mul_scalar = |m, a, b, c| m.mul_factor(a.add(m.q).sub(b), c)
}

joined! {
    /// `out = a * b * c * 2^-32 mod q` for a constant `c` prepared by [`Modulus::shoup`].
    mont_mul_scalar = |m, a, b, c| m.mul_factor(m.mont_mul(a, b), c)
}

joined! {
    /// `out = a * c + b mod q` for a constant `c` prepared by [`Modulus::shoup`].
    mul_scalar_add = |m, a, b, c| m.add(m.mul_factor(a, c), b)
}

joined! {
    /// `out = a * c - b mod q` for a constant `c` prepared by [`Modulus::shoup`].
    mul_scalar_sub = |m, a, b, c| m.sub(m.mul_factor(a, c), b)
}
