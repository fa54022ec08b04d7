//! Large integers to residues in Montgomery form: most of the work of encoding for many primes.

use crate::dispatch;
use crate::isa::Isa;
use crate::lanes::{Lanes, ModulusLanes};
use crate::modulus::Modulus;

/// Words of the widest vector; what is left over by it is done word by word.
const MOST_LANES: usize = 16;

/// Integers of 64 bits, ready to be reduced modulo many primes: the low words of `c + 2^63`, then the high ones.
#[derive(Clone, Copy)]
pub(super) struct Integers<'a> {
    low: &'a [u32],
    high: &'a [u32],
}

impl<'a> Integers<'a> {
    /// Those of two words each.
    pub(super) fn of(words: &'a [u32]) -> Integers<'a> {
        let (low, high) = words.split_at(words.len() / 2);
        assert_eq!(low.len(), high.len(), "two words an integer");
        Integers { low, high }
    }

    /// The words of integers, or `None` if one of them has more than 64 bits.
    pub(super) fn words(integers: &[i128]) -> Option<Vec<u32>> {
        let mut words = vec![0; 2 * integers.len()];
        let (low, high) = words.split_at_mut(integers.len());
        for ((low, high), &c) in low.iter_mut().zip(high).zip(integers) {
            let shifted = i64::try_from(c).ok()?.cast_unsigned() ^ 1 << 63;
            (*low, *high) = (shifted as u32, (shifted >> 32) as u32);
        }
        Some(words)
    }

    /// `out = c * 2^32 mod q`, canonical.
    pub(super) fn to_mont(self, isa: Isa, q: &Modulus, out: &mut [u32]) {
        let Integers { low, high } = self;
        assert_eq!(low.len(), out.len(), "one residue for each integer");
        let whole = out.len() - out.len() % MOST_LANES;
        let (out, out_rest) = out.split_at_mut(whole);
        let (low, low_rest) = low.split_at(whole);
        let (high, high_rest) = high.split_at(whole);
        dispatch!(isa, run(q: &Modulus, out: &mut [u32], low: &[u32], high: &[u32]));
        // SAFETY: a single word needs no features; the rest is equally long for all.
        unsafe { run::<u32>(q, out_rest, low_rest, high_rest) }
    }
}

/// With R = 2^32 and words a and b, `(a + b R - 2^63) R` is `a R^2 R^-1 + b R^3 R^-1 - 2^63 R`: two Montgomery products.
///
/// # Safety
/// As for [`Lanes`]; all slices have the same length, a whole number of vectors.
#[inline(always)]
unsafe fn run<V: Lanes>(q: &Modulus, out: &mut [u32], low: &[u32], high: &[u32]) {
    // SAFETY: forwarded to the caller.
    unsafe {
        let m = ModulusLanes::<V>::new(q);
        let square = q.to_mont(q.montgomery_one());
        let (r2, r3) = (V::splat(square), V::splat(q.to_mont(square)));
        let shift = V::splat(q.to_mont(q.pow(2, 63)));
        for i in (0..out.len()).step_by(V::LANES) {
            let low = m.mont_mul(V::load(low.as_ptr().add(i)), r2);
            let high = m.mont_mul(V::load(high.as_ptr().add(i)), r3);
            m.sub(m.add(low, high), shift).store(out.as_mut_ptr().add(i));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_core::RngCore;

    use super::*;
    use crate::primes::{ntt_primes_above, ntt_primes_below};
    use crate::testing::fresh_rng;

    #[test]
    fn residues_agree_with_the_modulus_on_every_instruction_set() {
        let mut rng = fresh_rng();
        let mut integers: Vec<i128> = (0..70).map(|_| (rng.next_u64().cast_signed()).into()).collect();
        integers.extend([0, 1, -1, i64::MAX.into(), i64::MIN.into()]);
        let words = Integers::words(&integers).unwrap();
        for q in [
            ntt_primes_below(16, Modulus::TOO_LARGE).next().unwrap(),
            ntt_primes_above(4, Modulus::TOO_SMALL).next().unwrap(),
        ] {
            let expected: Vec<u32> = integers.iter().map(|&c| q.to_mont(q.reduce_i128(c))).collect();
            for isa in Isa::available() {
                let mut out = vec![u32::MAX; integers.len()];
                Integers::of(&words).to_mont(isa, &q, &mut out);
                assert_eq!(out, expected, "{isa} modulo {}", q.value());
            }
        }
        assert!(Integers::words(&[1 << 63]).is_none());
    }
}
