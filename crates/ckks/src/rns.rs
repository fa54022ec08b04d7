//! Polynomials in residue number system form, with plainly written arithmetic: the oracle of the compiler's
//! polynomial and limb interpreters, and good enough for the client.
//!
//! Every function here has one obvious definition over the integers modulo the product of a basis; devices
//! compute the same words faster. All words are canonical. Functions panic when the shapes of their operands
//! do not fit, which the caller has to ensure.

use crate::automorphism::Automorphism;
use crate::basis::{Basis, PrimeIndex};
use crate::isa::Isa;
use crate::modulus::Modulus;
use crate::params::Params;

/// Most primes from which a base conversion converts.
pub const MOST_SOURCES: usize = 24;

/// What the words of a polynomial are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Domain {
    /// Coefficients, in natural order.
    Coefficient,
    /// Values at the roots of X^N + 1, in bit-reversed order ([`crate::ntt`]).
    Evaluation,
}

/// A polynomial of Z\[X\]/(X^N + 1) modulo the product of a basis: one limb of N canonical words for each
/// prime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poly {
    basis: Basis,
    domain: Domain,
    limbs: Vec<Vec<u32>>,
}

impl Poly {
    /// The polynomial 0.
    pub fn zero(params: &Params, basis: Basis, domain: Domain) -> Poly {
        Poly { basis, domain, limbs: vec![vec![0; params.n()]; basis.len()] }
    }

    /// A polynomial of the given limbs, canonical, one for each prime in order.
    pub fn from_limbs(basis: Basis, domain: Domain, limbs: Vec<Vec<u32>>) -> Poly {
        assert_eq!(limbs.len(), basis.len(), "a limb for each prime of {basis}");
        Poly { basis, domain, limbs }
    }

    /// A polynomial of words laid out `[limb][N]`, as in ciphertexts and keys.
    pub fn from_words(params: &Params, basis: Basis, domain: Domain, words: &[u32]) -> Poly {
        Poly::from_limbs(basis, domain, words.chunks_exact(params.n()).map(<[u32]>::to_vec).collect())
    }

    /// The polynomial with these integer coefficients (N of them).
    pub fn from_coefficients(params: &Params, basis: Basis, coefficients: &[i64]) -> Poly {
        assert_eq!(coefficients.len(), params.n(), "a coefficient for each power of X");
        let limb = |p| coefficients.iter().map(|&c| params.modulus(p).reduce_i64(c)).collect();
        Poly { basis, domain: Domain::Coefficient, limbs: basis.iter().map(limb).collect() }
    }

    /// The primes.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// What the words are.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// The limbs, in order of the primes.
    pub fn limbs(&self) -> &[Vec<u32>] {
        &self.limbs
    }

    /// Gives up the limbs.
    pub fn into_limbs(self) -> Vec<Vec<u32>> {
        self.limbs
    }

    /// All words, `[limb][N]`.
    pub fn to_words(&self) -> Vec<u32> {
        self.limbs.concat()
    }

    /// The limb modulo `prime`. Panics if the basis lacks it.
    pub fn limb(&self, prime: PrimeIndex) -> &[u32] {
        let position = self.basis.position(prime);
        &self.limbs[position.unwrap_or_else(|| panic!("{prime} is not in {}", self.basis))]
    }

    /// The sum.
    pub fn add(&self, params: &Params, other: &Poly) -> Poly {
        self.zip(params, other, Modulus::add)
    }

    /// The difference.
    pub fn sub(&self, params: &Params, other: &Poly) -> Poly {
        self.zip(params, other, Modulus::sub)
    }

    /// The negative.
    pub fn neg(&self, params: &Params) -> Poly {
        self.map(params, |q, _, word| q.neg(word))
    }

    /// The product; both in the evaluation domain.
    pub fn mul(&self, params: &Params, other: &Poly) -> Poly {
        assert_eq!(self.domain, Domain::Evaluation, "products are taken in the evaluation domain");
        self.zip(params, other, Modulus::mul)
    }

    /// The product with a plaintext or key in Montgomery form: `a b / 2^32`; both in the evaluation domain.
    pub fn mont_mul(&self, params: &Params, other: &Poly) -> Poly {
        assert_eq!(self.domain, Domain::Evaluation, "products are taken in the evaluation domain");
        self.zip(params, other, Modulus::mont_mul)
    }

    /// From normal to Montgomery form.
    pub fn to_mont(&self, params: &Params) -> Poly {
        self.map(params, |q, _, word| q.to_mont(word))
    }

    /// The product with a number given by its residues, one for each prime in order.
    pub fn mul_scalar(&self, params: &Params, residues: &[u32]) -> Poly {
        assert_eq!(residues.len(), self.limbs.len(), "a residue for each prime");
        self.map(params, |q, limb, word| q.mul(word, residues[limb]))
    }

    /// Adds a number, given by its residues, to every word: in the evaluation domain, adds it to the
    /// polynomial.
    pub fn add_scalar(&self, params: &Params, residues: &[u32]) -> Poly {
        assert_eq!(residues.len(), self.limbs.len(), "a residue for each prime");
        self.map(params, |q, limb, word| q.add(word, residues[limb]))
    }

    /// The same polynomial in the evaluation domain; it must be in the coefficient domain.
    pub fn ntt(mut self, params: &Params) -> Poly {
        assert_eq!(self.domain, Domain::Coefficient, "the NTT takes coefficients");
        for (limb, prime) in self.limbs.iter_mut().zip(self.basis.iter()) {
            params.ntt(prime).forward(Isa::detect(), limb);
        }
        self.domain = Domain::Evaluation;
        self
    }

    /// The same polynomial in the coefficient domain; it must be in the evaluation domain.
    pub fn intt(mut self, params: &Params) -> Poly {
        assert_eq!(self.domain, Domain::Evaluation, "the inverse NTT takes evaluations");
        for (limb, prime) in self.limbs.iter_mut().zip(self.basis.iter()) {
            params.ntt(prime).inverse(Isa::detect(), limb);
        }
        self.domain = Domain::Coefficient;
        self
    }

    /// a(X^g) for an odd g below 2N, in either domain.
    pub fn automorphism(&self, params: &Params, galois: u32) -> Poly {
        let sigma = Automorphism::new(params.log_n(), galois);
        let limbs = self.basis.iter().zip(&self.limbs).map(|(prime, limb)| match self.domain {
            Domain::Coefficient => sigma.apply_to_coefficients(params.modulus(prime), limb),
            Domain::Evaluation => {
                let mut out = vec![0; limb.len()];
                sigma.permute(Isa::detect(), &mut out, 0, limb);
                out
            }
        });
        Poly { basis: self.basis, domain: self.domain, limbs: limbs.collect() }
    }

    /// The residues modulo fewer primes.
    pub fn restrict(&self, basis: Basis) -> Poly {
        let limbs = basis.iter().map(|prime| self.limb(prime).to_vec());
        Poly { basis, domain: self.domain, limbs: limbs.collect() }
    }

    /// Converts to another basis, which may share primes with the first: the residues of the representative x
    /// of the polynomial in \[-Q/2, Q/2\], for Q the product of the first basis. Coefficient domain, at most
    /// [`MOST_SOURCES`] primes.
    ///
    /// Computed with fixed-point numbers (Halevi, Polyakov and Shoup, An Improved RNS Variant of the BFV
    /// Homomorphic Encryption Scheme, 2019, section 2.2, with integers in the place of floats so that every
    /// device agrees). With y_i = x_i (Q/q_i)^-1 mod q_i, x is `sum y_i Q/q_i - v Q` for the integer v
    /// nearest to `sum y_i/q_i`. The fraction is taken to 56 bits, so where x is within 2^-21 Q of Q/2 or
    /// -Q/2 the representative may be the one on the other side, in error by Q and still congruent.
    pub fn base_convert(&self, params: &Params, target: Basis) -> Poly {
        assert_eq!(self.domain, Domain::Coefficient, "base conversion takes coefficients");
        assert!(
            (1..=MOST_SOURCES).contains(&self.basis.len()),
            "base conversion takes 1 to {MOST_SOURCES} primes"
        );
        let scaled: Vec<Vec<u32>> = self
            .basis
            .iter()
            .map(|prime| {
                let q = params.modulus(prime);
                let cofactor = product_mod(params, without(self.basis, prime), prime);
                let inverse = q.inv(cofactor).expect("distinct primes are invertible modulo each other");
                self.limb(prime).iter().map(|&x| q.mul(x, inverse)).collect()
            })
            .collect();
        let fractions: Vec<u64> =
            self.basis.iter().map(|p| (1u64 << 56) / u64::from(params.modulus(p).value())).collect();
        let quotient = |i: usize| -> u64 {
            let sum: u64 = scaled.iter().zip(&fractions).map(|(y, f)| u64::from(y[i]) * f).sum();
            (sum + (1 << 55)) >> 56
        };
        let limbs = target.iter().map(|prime| {
            let p = params.modulus(prime);
            let cofactors: Vec<u32> = self
                .basis
                .iter()
                .map(|source| product_mod(params, without(self.basis, source), prime))
                .collect();
            let whole = product_mod(params, self.basis, prime);
            (0..params.n())
                .map(|i| {
                    let sum =
                        scaled.iter().zip(&cofactors).fold(0, |sum, (y, &c)| p.add(sum, p.mul(y[i], c)));
                    p.sub(sum, p.mul(p.reduce_u64(quotient(i)), whole))
                })
                .collect()
        });
        Poly { basis: target, domain: Domain::Coefficient, limbs: limbs.collect() }
    }

    /// The exact division `(a T - c) / B` for T and B the products of `times` and `by`, over the basis of
    /// `c`. Where a prime of `times` is not in the basis of `a`, a T is 0 modulo it. Both in the same domain.
    ///
    /// With c the centered residue of a T modulo B, converted to the target basis, this is a T/B rounded to
    /// the nearest integer: `mod_down` for T = 1 and B = P, rescaling for T the primes that enter and B those
    /// that leave.
    pub fn divide(params: &Params, a: &Poly, c: &Poly, by: Basis, times: Basis) -> Poly {
        assert_eq!(a.domain, c.domain, "both operands are in one domain");
        assert!(by.intersection(c.basis).is_empty(), "cannot divide by {by} over {}", c.basis);
        let limbs = c.basis.iter().map(|prime| {
            let q = params.modulus(prime);
            let factor = product_mod(params, times, prime);
            let inverse = q.inv(product_mod(params, by, prime)).expect("coprime to a prime outside");
            let c = c.limb(prime).iter();
            if a.basis.contains(prime) {
                let a = a.limb(prime).iter();
                a.zip(c).map(|(&a, &c)| q.mul(q.sub(q.mul(a, factor), c), inverse)).collect()
            } else {
                assert_eq!(factor, 0, "{prime} is neither in {} nor in {times}", a.basis);
                c.map(|&c| q.mul(q.neg(c), inverse)).collect()
            }
        });
        Poly { basis: c.basis, domain: c.domain, limbs: limbs.collect() }
    }

    /// The coefficients as integers in (-Q/2, Q/2); coefficient domain.
    #[cfg(test)]
    fn to_integers(&self, params: &Params) -> Vec<num_bigint::BigInt> {
        self.compose(params, |digits, moduli| {
            digits.iter().zip(moduli).rev().fold(num_bigint::BigInt::ZERO, |x, (&digit, &q)| x * q + digit)
        })
    }

    /// The coefficients in (-Q/2, Q/2), each within a few units in the last place; coefficient domain.
    pub fn to_floats(&self, params: &Params) -> Vec<f64> {
        // Balanced digits cannot cancel: what is below the leading digit is less than half of it.
        self.compose(params, |digits, moduli| {
            digits.iter().zip(moduli).rev().fold(0.0, |x, (&d, &q)| x * f64::from(q) + f64::from(d))
        })
    }

    /// Garner's algorithm: writes each coefficient as `d_0 + q_0 (d_1 + q_1 (d_2 + ...))` with balanced
    /// digits,
    /// |d_i| < q_i/2, which is unique and centered, and lets `horner` evaluate the digits.
    fn compose<T>(&self, params: &Params, horner: impl Fn(&[i32], &[u32]) -> T) -> Vec<T> {
        assert_eq!(self.domain, Domain::Coefficient, "composition takes coefficients");
        let moduli: Vec<&Modulus> = self.basis.iter().map(|p| params.modulus(p)).collect();
        let values: Vec<u32> = moduli.iter().map(|q| q.value()).collect();
        let inverses: Vec<Vec<u32>> = moduli
            .iter()
            .enumerate()
            .map(|(i, q)| {
                let inverse = |&p: &u32| q.inv(q.reduce_u64(p.into())).expect("distinct primes");
                values[..i].iter().map(inverse).collect()
            })
            .collect();
        let mut digits = vec![0i32; moduli.len()];
        (0..params.n())
            .map(|j| {
                for (i, q) in moduli.iter().enumerate() {
                    let rest = digits[..i]
                        .iter()
                        .zip(&inverses[i])
                        .fold(self.limbs[i][j], |x, (&digit, &inverse)| {
                            q.mul(q.sub(x, q.reduce_i64(digit.into())), inverse)
                        });
                    digits[i] = q.centered(rest);
                }
                horner(&digits, &values)
            })
            .collect()
    }

    fn map(&self, params: &Params, f: impl Fn(&Modulus, usize, u32) -> u32) -> Poly {
        let limbs = self.basis.iter().zip(&self.limbs).enumerate();
        let limbs = limbs.map(|(i, (prime, limb))| {
            let q = params.modulus(prime);
            limb.iter().map(|&word| f(q, i, word)).collect()
        });
        Poly { basis: self.basis, domain: self.domain, limbs: limbs.collect() }
    }

    fn zip(&self, params: &Params, other: &Poly, f: impl Fn(&Modulus, u32, u32) -> u32) -> Poly {
        assert_eq!(
            (self.basis, self.domain),
            (other.basis, other.domain),
            "operands of one basis and domain"
        );
        let limbs = self.basis.iter().zip(self.limbs.iter().zip(&other.limbs)).map(|(prime, (a, b))| {
            let q = params.modulus(prime);
            a.iter().zip(b).map(|(&a, &b)| f(q, a, b)).collect()
        });
        Poly { basis: self.basis, domain: self.domain, limbs: limbs.collect() }
    }
}

/// The product of a basis modulo a prime; 1 for the empty basis.
pub fn product_mod(params: &Params, basis: Basis, prime: PrimeIndex) -> u32 {
    let q = params.modulus(prime);
    basis.iter().fold(1, |product, p| q.mul(product, params.modulus(p).value()))
}

fn without(basis: Basis, prime: PrimeIndex) -> Basis {
    basis.minus([prime].into_iter().collect())
}

#[cfg(test)]
mod tests;
