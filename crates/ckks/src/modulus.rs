//! Arithmetic modulo one word-sized prime.
//!
//! A residue is *canonical* when it lies in `[0, q)`; everything stored in memory is canonical. Where a
//! function takes or gives a wider range, its documentation says so.
//!
//! Two ways of multiplying without division are offered: Montgomery (both operands vary; radix
//! `R = 2^32`) and Shoup (one operand is known beforehand and carries a precomputed quotient).

use crate::primes::is_prime;

/// What makes a number unusable as a [`Modulus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModulusError {
    /// The number lies outside the range the lazy kernels are proven for.
    #[error("modulus {0} is outside (2^20, 2^30): choose a prime of 21 to 30 bits")]
    OutOfRange(u32),
    /// The number has a proper divisor.
    #[error("modulus {0} is not prime: take one from `primes::ntt_primes_below`")]
    NotPrime(u32),
}

/// A prime `q` with `2^20 < q < 2^30` and the constants that make reduction modulo `q` cheap.
///
/// The upper bound leaves two spare bits in a word, so values in `[0, 4q)` fit; the kernels rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Modulus {
    q: u32,
    /// `q^-1 mod 2^32`.
    inv: u32,
    /// `R mod q`: one, in Montgomery form.
    r1: u32,
    /// `R^2 mod q = 2^64 mod q`: takes a residue to Montgomery form.
    r2: u32,
    /// `floor((2^64 - 1) / q)`, the Barrett quotient of [`Modulus::reduce_u64`].
    barrett: u64,
}

/// A constant factor `w` in `[0, q)` with `floor(w * 2^32 / q)` (Shoup's trick; Harvey, "Faster arithmetic
/// for number-theoretic transforms", 2014, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shoup {
    /// The factor, canonical, in normal form.
    pub w: u32,
    /// `floor(w * 2^32 / q)`.
    pub w_shoup: u32,
}

impl Modulus {
    /// Numbers up to and including this one are too small to be a modulus.
    pub const TOO_SMALL: u32 = 1 << 20;
    /// Numbers from this one on are too large to be a modulus.
    pub const TOO_LARGE: u32 = 1 << 30;

    /// Checks that `q` is a prime with `2^20 < q < 2^30` and computes its constants.
    ///
    /// # Errors
    /// [`ModulusError`] when `q` is out of range or composite.
    pub fn new(q: u32) -> Result<Self, ModulusError> {
        if q <= Self::TOO_SMALL || q >= Self::TOO_LARGE {
            return Err(ModulusError::OutOfRange(q));
        }
        if !is_prime(u64::from(q)) {
            return Err(ModulusError::NotPrime(q));
        }
        // Newton's iteration for the inverse modulo 2^32: an odd q is its own inverse modulo 8, and each
        // step doubles the number of correct bits: 3, 6, 12, 24, 48.
        let mut inv = q;
        for _ in 0..4 {
            inv = inv.wrapping_mul(2u32.wrapping_sub(q.wrapping_mul(inv)));
        }
        let r1 = ((1u64 << 32) % u64::from(q)) as u32;
        let r2 = (u64::from(r1) * u64::from(r1) % u64::from(q)) as u32;
        Ok(Self { q, inv, r1, r2, barrett: u64::MAX / u64::from(q) })
    }

    /// The prime itself.
    #[inline]
    pub const fn value(&self) -> u32 {
        self.q
    }

    /// `q^-1 mod 2^32`, for kernels that write out Montgomery's reduction.
    #[inline]
    pub const fn inverse_mod_word(&self) -> u32 {
        self.inv
    }

    /// `R mod q`: one, in Montgomery form.
    #[inline]
    pub const fn montgomery_one(&self) -> u32 {
        self.r1
    }

    /// `a + b mod q`. Operands and result canonical.
    #[inline]
    pub const fn add(&self, a: u32, b: u32) -> u32 {
        debug_assert!(a < self.q && b < self.q);
        self.reduce_once(a + b)
    }

    /// `a - b mod q`. Operands and result canonical.
    #[inline]
    pub const fn sub(&self, a: u32, b: u32) -> u32 {
        debug_assert!(a < self.q && b < self.q);
        // A negative difference wraps above 2^31, so the smaller of the two candidates is canonical.
        let d = a.wrapping_sub(b);
        let lifted = d.wrapping_add(self.q);
        if lifted < d { lifted } else { d }
    }

    /// `-a mod q`. Operand and result canonical.
    #[inline]
    pub const fn neg(&self, a: u32) -> u32 {
        debug_assert!(a < self.q);
        self.sub(0, a)
    }

    /// `a * b mod q` for any words `a` and `b`; the result is canonical.
    #[inline]
    pub const fn mul(&self, a: u32, b: u32) -> u32 {
        self.reduce_u64(a as u64 * b as u64)
    }

    /// `base^exponent mod q` for a canonical base; the result is canonical, and `0^0 = 1`.
    pub const fn pow(&self, base: u32, mut exponent: u64) -> u32 {
        let mut square = self.to_mont(base);
        let mut power = self.r1;
        while exponent != 0 {
            if exponent & 1 == 1 {
                power = self.mont_mul(power, square);
            }
            square = self.mont_mul(square, square);
            exponent >>= 1;
        }
        self.from_mont(power)
    }

    /// `a^-1 mod q` for a canonical `a`; `None` for zero. The result is canonical.
    pub const fn inv(&self, a: u32) -> Option<u32> {
        if a == 0 { None } else { Some(self.pow(a, self.q as u64 - 2)) }
    }

    /// `a * R mod q` for any word `a`; the result is canonical.
    #[inline]
    pub const fn to_mont(&self, a: u32) -> u32 {
        self.mont_mul(a, self.r2)
    }

    /// `a * R^-1 mod q` for any word `a`; the result is canonical.
    #[inline]
    pub const fn from_mont(&self, a: u32) -> u32 {
        self.mont_reduce(a as u64)
    }

    /// `a * b * R^-1 mod q` for any words with `a * b < q * 2^32` (so it is enough that one of them is
    /// canonical); the result is canonical.
    #[inline]
    pub const fn mont_mul(&self, a: u32, b: u32) -> u32 {
        self.mont_reduce(a as u64 * b as u64)
    }

    /// `x * R^-1 mod q` for `x < q * 2^32`; the result is canonical.
    ///
    /// Montgomery, "Modular multiplication without trial division", 1985, in the subtracting form: the low
    /// words of `x` and `m * q` are equal by the choice of `m`, so the high words alone give the quotient.
    #[inline]
    pub const fn mont_reduce(&self, x: u64) -> u32 {
        debug_assert!(x < (self.q as u64) << 32);
        let m = (x as u32).wrapping_mul(self.inv);
        let high = (x >> 32) as u32;
        let cancelled = ((m as u64 * self.q as u64) >> 32) as u32;
        self.sub(high, cancelled)
    }

    /// `x mod q` for any `x`; the result is canonical.
    #[inline]
    pub const fn reduce_u64(&self, x: u64) -> u32 {
        // The quotient estimate is at most one too small (Barrett), so the remainder is below 2q.
        let quotient = ((x as u128 * self.barrett as u128) >> 64) as u64;
        self.reduce_once(x.wrapping_sub(quotient.wrapping_mul(self.q as u64)) as u32)
    }

    /// `x mod q` for any `x`; the result is canonical, also for negative `x`.
    #[inline]
    pub const fn reduce_i64(&self, x: i64) -> u32 {
        let r = self.reduce_u64(x.unsigned_abs());
        if x < 0 { self.neg(r) } else { r }
    }

    /// `x mod q` for any `x`; the result is canonical.
    #[inline]
    pub const fn reduce_u128(&self, x: u128) -> u32 {
        let high = self.reduce_u64((x >> 64) as u64);
        self.add(self.mul(high, self.r2), self.reduce_u64(x as u64))
    }

    /// `x mod q` for any `x`; the result is canonical, also for negative `x`.
    #[inline]
    pub const fn reduce_i128(&self, x: i128) -> u32 {
        let r = self.reduce_u128(x.unsigned_abs());
        if x < 0 { self.neg(r) } else { r }
    }

    /// The representative of a canonical `a` in `[-q/2, q/2]`.
    #[inline]
    pub const fn centered(&self, a: u32) -> i32 {
        debug_assert!(a < self.q);
        if a > self.q / 2 { a as i32 - self.q as i32 } else { a as i32 }
    }

    /// Prepares the canonical factor `w` for [`Modulus::mul_shoup`].
    #[inline]
    pub const fn shoup(&self, w: u32) -> Shoup {
        debug_assert!(w < self.q);
        Shoup { w, w_shoup: (((w as u64) << 32) / self.q as u64) as u32 }
    }

    /// `a * w mod q` for any word `a`; the result is canonical.
    #[inline]
    pub const fn mul_shoup(&self, a: u32, factor: Shoup) -> u32 {
        self.reduce_once(self.mul_shoup_lazy(a, factor))
    }

    /// A number in `[0, 2q)` congruent to `a * w` for any word `a`.
    #[inline]
    pub const fn mul_shoup_lazy(&self, a: u32, factor: Shoup) -> u32 {
        let quotient = ((a as u64 * factor.w_shoup as u64) >> 32) as u32;
        a.wrapping_mul(factor.w).wrapping_sub(quotient.wrapping_mul(self.q))
    }

    /// From `[0, 2q)` to canonical.
    #[inline]
    pub const fn reduce_once(&self, a: u32) -> u32 {
        debug_assert!(a < 2 * self.q);
        let d = a.wrapping_sub(self.q);
        if d < a { d } else { a }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fresh_rng;
    use rand_core::RngCore;

    /// The smallest and largest primes allowed, NTT primes, and one without structure.
    const PRIMES: [u32; 5] = [1_048_583, 1_073_741_789, 1_073_479_681, 33_292_289, 998_244_353];

    #[test]
    fn rejects_what_is_no_modulus() {
        assert_eq!(Modulus::new(0), Err(ModulusError::OutOfRange(0)));
        assert_eq!(Modulus::new(1 << 20), Err(ModulusError::OutOfRange(1 << 20)));
        assert_eq!(Modulus::new(1 << 30), Err(ModulusError::OutOfRange(1 << 30)));
        assert_eq!(Modulus::new((1 << 30) - 1), Err(ModulusError::NotPrime((1 << 30) - 1)));
    }

    #[test]
    fn agrees_with_wide_integers() {
        let mut rng = fresh_rng();
        for prime in PRIMES {
            let q = Modulus::new(prime).unwrap();
            let wide = u128::from(prime);
            let r_inv = u128::from(q.inv(q.montgomery_one()).unwrap());
            for round in 0..2_000 {
                // Residues at the ends of their range now and then.
                let mut residue = || match rng.next_u32() % 8 {
                    0 => 0,
                    1 => prime - 1,
                    _ => rng.next_u32() % prime,
                };
                let (a, b) = (residue(), residue());
                let word = if round % 8 == 0 { u32::MAX } else { rng.next_u32() };
                let (wa, wb, ww) = (u128::from(a), u128::from(b), u128::from(word));
                let is = |got: u32, want: u128| assert_eq!(u128::from(got), want, "q {prime} a {a} b {b}");
                is(q.add(a, b), (wa + wb) % wide);
                is(q.sub(a, b), (wide + wa - wb) % wide);
                is(q.neg(a), (wide - wa) % wide);
                is(q.mul(word, b), ww * wb % wide);
                is(q.mont_mul(word, b), ww * wb * r_inv % wide);
                is(q.to_mont(word), (ww << 32) % wide);
                is(q.from_mont(word), ww * r_inv % wide);
                is(q.mul_shoup(word, q.shoup(b)), ww * wb % wide);
                assert!(q.mul_shoup_lazy(word, q.shoup(b)) < 2 * prime);
                if let Some(inverse) = q.inv(a) {
                    assert_eq!(q.mul(a, inverse), 1);
                }
                let centered = q.centered(a);
                assert_eq!(q.reduce_i64(centered.into()), a);
                assert!(2 * centered.unsigned_abs() < prime);
            }
        }
    }

    #[test]
    fn reduces_wide_integers() {
        let mut rng = fresh_rng();
        for prime in PRIMES {
            let q = Modulus::new(prime).unwrap();
            let euclid = |x: i128| x.rem_euclid(i128::from(prime)) as u32;
            for x in [0, 1, -1, i64::MAX.into(), i64::MIN.into(), i128::MAX, i128::MIN] {
                assert_eq!(q.reduce_i128(x), euclid(x));
            }
            assert_eq!(q.reduce_u64(u64::MAX), euclid(u64::MAX.into()));
            assert_eq!(q.reduce_i64(i64::MIN), euclid(i64::MIN.into()));
            for _ in 0..2_000 {
                let (high, low) = (rng.next_u64(), rng.next_u64());
                let wide = ((i128::from(high) << 64) | i128::from(low)) >> (rng.next_u32() % 128);
                assert_eq!(q.reduce_i128(wide), euclid(wide));
                assert_eq!(q.reduce_u64(low), euclid(low.into()));
                assert_eq!(q.reduce_i64(low as i64), euclid((low as i64).into()));
            }
        }
    }

    #[test]
    fn powers() {
        let q = Modulus::new(998_244_353).unwrap();
        assert_eq!(q.pow(3, 0), 1);
        assert_eq!(q.pow(0, 5), 0);
        assert_eq!(q.pow(3, 5), 243);
        assert_eq!(q.pow(3, 998_244_352), 1);
        assert_eq!(q.inv(0), None);
    }
}
