//! The search for NTT-friendly primes and their roots of unity.

use crate::modulus::Modulus;

/// Whether `n` is prime.
///
/// Miller-Rabin with the first twelve primes as bases, which is a proof for every 64-bit number
/// (Sorenson and Webster, "Strong pseudoprimes to twelve prime bases", 2017).
pub fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    for base in BASES {
        if n.is_multiple_of(base) {
            return n == base;
        }
    }
    let mul = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(n)) as u64;
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    BASES.iter().all(|&base| {
        let (mut power, mut square, mut exponent) = (1, base, odd);
        while exponent != 0 {
            if exponent & 1 == 1 {
                power = mul(power, square);
            }
            square = mul(square, square);
            exponent >>= 1;
        }
        if power == 1 || power == n - 1 {
            return true;
        }
        (1..twos).any(|_| {
            power = mul(power, power);
            power == n - 1
        })
    })
}

/// The primes `q = 1 mod 2^(log_n + 1)` with `q < bound` that a [`Modulus`] accepts, largest first.
///
/// `log_n` is the base-2 logarithm of the ring degree, at most 28.
pub fn ntt_primes_below(log_n: u32, bound: u32) -> impl Iterator<Item = Modulus> {
    let step = 2u32 << log_n;
    let bound = bound.min(Modulus::TOO_LARGE);
    // The largest number below the bound that is 1 modulo the step.
    let first = bound.saturating_sub(2) / step * step + 1;
    std::iter::successors(Some(first), move |&q| q.checked_sub(step))
        .take_while(|&q| q > Modulus::TOO_SMALL)
        .filter_map(|q| Modulus::new(q).ok())
}

/// The primes `q = 1 mod 2^(log_n + 1)` with `q > bound` that a [`Modulus`] accepts, smallest first.
///
/// `log_n` is the base-2 logarithm of the ring degree, at most 28.
pub fn ntt_primes_above(log_n: u32, bound: u32) -> impl Iterator<Item = Modulus> {
    let step = 2u32 << log_n;
    let bound = bound.max(Modulus::TOO_SMALL);
    // The smallest number above the bound that is 1 modulo the step.
    let first = bound.div_ceil(step).checked_mul(step).and_then(|q| q.checked_add(1));
    std::iter::successors(first, move |&q| q.checked_add(step))
        .take_while(|&q| q < Modulus::TOO_LARGE)
        .filter_map(|q| Modulus::new(q).ok())
}

/// The primitive `2N`-th root of unity modulo `q` that the NTT of degree `N = 2^log_n` is built on:
/// `g^((q - 1) / 2N)` for the smallest `g >= 2` that makes it primitive. `None` unless `q = 1 mod 2N`.
///
/// The power is primitive exactly when `g` is no square, so `g` does not depend on `N`, and the root for
/// degree `N / 2^k` is the root for degree `N` raised to `2^k`.
pub fn primitive_root(q: &Modulus, log_n: u32) -> Option<u32> {
    let order = 2u64 << log_n;
    let group = u64::from(q.value() - 1);
    if !group.is_multiple_of(order) {
        return None;
    }
    let minus_one = q.value() - 1;
    let nonsquare = (2..q.value()).find(|&g| q.pow(g, group / 2) == minus_one)?;
    Some(q.pow(nonsquare, group / order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primality_agrees_with_trial_division() {
        let naive = |n: u64| n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        for n in (0..5_000).chain((1 << 30) - 300..1 << 30) {
            assert_eq!(is_prime(n), naive(n), "{n}");
        }
    }

    #[test]
    fn strong_pseudoprimes_are_composite() {
        // The least strong pseudoprimes to the first 1, 2, 3, 4, 5, 7 and 9 prime bases (OEIS A014233).
        for n in [
            2_047,
            1_373_653,
            25_326_001,
            3_215_031_751,
            2_152_302_898_747,
            341_550_071_728_321,
            3_825_123_056_546_413_051,
        ] {
            assert!(!is_prime(n), "{n}");
        }
        assert!(is_prime(18_446_744_073_709_551_557));
        assert!(!is_prime(u64::MAX));
    }

    #[test]
    fn both_directions_find_the_same_primes() {
        for log_n in [4, 13, 17] {
            let (low, high) = (1 << 28, (1 << 28) + (1 << 24));
            let mut down: Vec<u32> =
                ntt_primes_below(log_n, high).map(|q| q.value()).take_while(|&q| q > low).collect();
            down.reverse();
            let up: Vec<u32> =
                ntt_primes_above(log_n, low).map(|q| q.value()).take_while(|&q| q < high).collect();
            assert_eq!(up, down);
            let exhaustive = (low + 1..high)
                .step_by(2 << log_n)
                .filter(|&q| is_prime(q.into()))
                .inspect(|q| assert_eq!(q % (2 << log_n), 1));
            assert!(exhaustive.eq(up.iter().copied()));
        }
    }

    #[test]
    fn bounds_are_exclusive() {
        let q = ntt_primes_below(16, 1 << 30).next().unwrap().value();
        assert_eq!(q, 1_073_479_681);
        assert!(ntt_primes_below(16, q).next().unwrap().value() < q);
        assert!(ntt_primes_above(16, q).next().is_none_or(|next| next.value() > q));
        assert_eq!(ntt_primes_above(16, q - 1).next().unwrap().value(), q);
        assert_eq!(ntt_primes_below(16, 0).count(), 0);
        assert_eq!(ntt_primes_above(16, u32::MAX).count(), 0);
    }

    #[test]
    fn roots_are_primitive_and_consistent_between_degrees() {
        for q in ntt_primes_below(17, 1 << 30).take(5).chain(ntt_primes_above(17, 1 << 25).take(5)) {
            let root = primitive_root(&q, 17).unwrap();
            for log_n in 4..=17 {
                let smaller = primitive_root(&q, log_n).unwrap();
                assert_eq!(smaller, q.pow(root, 1 << (17 - log_n)));
                assert_eq!(q.pow(smaller, 1 << log_n), q.value() - 1);
            }
        }
        let q = Modulus::new(1_048_583).unwrap();
        assert_eq!(primitive_root(&q, 4), None);
    }
}
