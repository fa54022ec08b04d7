//! Public and evaluation keys.

use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::ciphertext::PublicKey;
use cerium_ckks::evaluation_key::{EvaluationKey, EvaluationKeyView, KeyKind, KeyRequest};
use cerium_ckks::isa::Isa;
use cerium_ckks::params::Params;
use cerium_ckks::rns::product_mod;
use cerium_ckks::uniform::uniform_limb;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::random::{SecretRng, fresh_seed};
use crate::sampling::{ERROR_BOUND, Small, gaussian};
use crate::secret_key::small_limb;
use crate::{ClientError, SecretKey};

/// Makes the public key: b = -a s + e over all of Q.
///
/// # Errors
/// A secret key of other parameters, and an operating system without randomness.
pub fn public_key(params: &Params, secret: &SecretKey) -> Result<PublicKey, ClientError> {
    secret.check(params)?;
    let seed = fresh_seed()?;
    let error = gaussian(&mut SecretRng::new()?, params.n());
    let mut b = vec![0; params.q_basis().len() * params.n()];
    b.par_chunks_exact_mut(params.n()).enumerate().for_each(|(limb, out)| {
        let prime = PrimeIndex(limb as u8);
        uniform_limb(&seed, 0, prime, params.modulus(prime), out);
        hide(params, prime, out, &secret.limb(params, prime), &error);
    });
    Ok(PublicKey::new(params, seed, b)?)
}

/// Makes one evaluation key ([`EvaluationKeyView`](cerium_ckks::evaluation_key::EvaluationKeyView) says what
/// it is), on all threads.
///
/// # Errors
/// A key that the parameters do not have, a secret key of other parameters, and an operating system without
/// randomness.
pub fn evaluation_key(
    params: &Params,
    secret: &SecretKey,
    request: KeyRequest,
) -> Result<EvaluationKey, ClientError> {
    secret.check(params)?;
    request.check(params)?;
    let seed = fresh_seed()?;
    let mut rng = SecretRng::new()?;
    let (basis, digits) = (request.basis(params), request.digits(params));
    let errors: Vec<_> = digits.iter().map(|_| gaussian(&mut rng, params.n())).collect();
    let switch = Switch::new(params, secret, request.kind);

    // The limbs of all digits by prime, so that s is transformed once for each.
    let mut b = vec![0; request.words(params)];
    let mut limbs: Vec<Vec<&mut [u32]>> = basis.iter().map(|_| Vec::with_capacity(digits.len())).collect();
    for (i, limb) in b.chunks_exact_mut(params.n()).enumerate() {
        limbs[i % basis.len()].push(limb);
    }
    let limbs: Vec<_> = basis.iter().zip(limbs).collect();
    limbs.into_par_iter().for_each(|(prime, limbs)| {
        let q = params.modulus(prime);
        let [from, to] = switch.limbs(params, secret, prime);
        let gadget = q.to_mont(product_mod(params, request.p_basis(params), prime));
        for (digit, out) in limbs.into_iter().enumerate() {
            uniform_limb(&seed, digit, prime, q, out);
            hide(params, prime, out, &to, &errors[digit]);
            if digits[digit].contains(prime) {
                for (b, &s) in out.iter_mut().zip(from.iter()) {
                    *b = q.add(*b, q.mont_mul(s, gadget));
                }
            }
        }
    });
    Ok(EvaluationKey::new(params, request, seed, b)?)
}

/// Whether a key was made from this secret: the errors of its first limb are small. Under any other secret they
/// are uniform.
pub(crate) fn is_of_secret(params: &Params, secret: &SecretKey, key: EvaluationKeyView<'_>) -> bool {
    let request = key.request();
    // The first prime of the first digit, so that the gadget is not zero.
    let first = request.digits(params).first().and_then(|digit| digit.iter().next());
    let Some((prime, b)) = first.and_then(|prime| Some((prime, key.b(0, prime)?))) else { return false };
    let q = params.modulus(prime);
    let [from, to] = Switch::new(params, secret, request.kind).limbs(params, secret, prime);
    let gadget = q.to_mont(product_mod(params, request.p_basis(params), prime));
    let mut error = Zeroizing::new(vec![0; params.n()]);
    key.expand_a(params, 0, prime, &mut error);
    for (((e, &b), &from), &to) in error.iter_mut().zip(b).zip(from.iter()).zip(to.iter()) {
        *e = q.from_mont(q.sub(q.add(b, q.mont_mul(*e, to)), q.mont_mul(from, gadget)));
    }
    params.ntt(prime).inverse(Isa::detect(), &mut error);
    let bound = ERROR_BOUND as u32;
    error.iter().all(|&e| e <= bound || e >= q.value() - bound)
}

/// From which secret to which a key switches, in terms of s.
enum Switch {
    /// From s^2 to s.
    Square,
    /// From s to s(X^(1/g)).
    Permuted(Box<Automorphism>),
    /// From s to the sparse secret.
    ToSparse(Small),
    /// From the sparse secret to s.
    FromSparse(Small),
}

impl Switch {
    fn new(params: &Params, secret: &SecretKey, kind: KeyKind) -> Switch {
        let log_n = params.log_n();
        match kind {
            KeyKind::Relinearization => Switch::Square,
            KeyKind::Rotation(_) | KeyKind::Conjugation => {
                let inverse = inverse_element(log_n, kind.galois_element(log_n));
                Switch::Permuted(Box::new(Automorphism::new(log_n, inverse)))
            }
            KeyKind::ToSparse => Switch::ToSparse(secret.sparse()),
            KeyKind::FromSparse => Switch::FromSparse(secret.sparse()),
        }
    }

    /// The source and the target modulo a prime: evaluation domain, Montgomery form.
    fn limbs(&self, params: &Params, secret: &SecretKey, prime: PrimeIndex) -> [Zeroizing<Vec<u32>>; 2] {
        let s = secret.limb(params, prime);
        let q = params.modulus(prime);
        match self {
            Switch::Square => {
                let square = Zeroizing::new(s.iter().map(|&s| q.mont_mul(s, s)).collect());
                [square, s]
            }
            Switch::Permuted(sigma) => {
                let mut moved = Zeroizing::new(vec![0; params.n()]);
                sigma.permute(Isa::detect(), &mut moved, 0, &s);
                [s, moved]
            }
            Switch::ToSparse(t) => [s, Zeroizing::new(small_limb(params, prime, t))],
            Switch::FromSparse(t) => [Zeroizing::new(small_limb(params, prime, t)), s],
        }
    }
}

/// Replaces a by b = -a s + e. `s` and the result are in Montgomery form, a is its own Montgomery form.
fn hide(params: &Params, prime: PrimeIndex, a: &mut [u32], s: &[u32], error: &[i8]) {
    let q = params.modulus(prime);
    let error = Zeroizing::new(small_limb(params, prime, error));
    for ((a, &s), &e) in a.iter_mut().zip(s).zip(error.iter()) {
        *a = q.sub(e, q.mont_mul(*a, s));
    }
}

/// The inverse of an odd number modulo 2N.
fn inverse_element(log_n: u32, galois: u32) -> u32 {
    // Newton's iteration; an odd number is its own inverse modulo 8, and every step doubles the bits.
    let inverse = (0..4).fold(galois, |x, _| x.wrapping_mul(2u32.wrapping_sub(galois.wrapping_mul(x))));
    inverse & ((2 << log_n) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_elements() {
        for log_n in [4, 11, 17] {
            for galois in [1, 5, 25, 125, (2 << log_n) - 1] {
                let product = u64::from(galois) * u64::from(inverse_element(log_n, galois));
                assert_eq!(product % (2 << log_n), 1);
            }
        }
    }
}
