//! Encryption.

use cerium_ckks::basis::{Level, Scale};
use cerium_ckks::ciphertext::{Ciphertext, CiphertextError, PublicKey, SeededCiphertext};
use cerium_ckks::encoding::Encoder;
use cerium_ckks::isa::Isa;
use cerium_ckks::params::Params;
use cerium_ckks::uniform::uniform_limb;
use num_complex::Complex64;
use zeroize::Zeroizing;

use crate::random::{SecretRng, fresh_seed};
use crate::sampling::{gaussian, ternary};
use crate::secret_key::small_limb;
use crate::{ClientError, SecretKey};

/// Encrypts slots (of any power-of-two period) under the secret key: `c_1` uniform from a seed, and
/// `c_0 = m - c_1 s + e`. Half the size and less noise than with the public key: the way of a client that
/// holds the secret. The error of a slot has a standard deviation of `sqrt(N) ERROR_DEVIATION / scale`.
///
/// # Errors
/// A key of other parameters, a message that cannot be encoded, a level that does not exist, and an operating
/// system without randomness.
pub fn encrypt_with_secret_key<T: Copy + Into<Complex64>>(
    params: &Params,
    encoder: &Encoder,
    secret: &SecretKey,
    slots: &[T],
    level: Level,
    scale: Scale,
) -> Result<SeededCiphertext, ClientError> {
    secret.check(params)?;
    let message = encode(params, encoder, slots, level, scale)?;
    let seed = fresh_seed()?;
    let error = gaussian(&mut SecretRng::new()?, params.n());
    let mut c0 = Vec::with_capacity(params.basis(level).len() * params.n());
    for (prime, mut message) in params.basis(level).iter().zip(message) {
        let q = params.modulus(prime);
        // c_1 is in normal form, s in Montgomery form, so their product is in normal form.
        let mut c1 = vec![0; params.n()];
        uniform_limb(&seed, 0, prime, q, &mut c1);
        add_small(q, &mut message, &error);
        params.ntt(prime).forward(Isa::detect(), &mut message);
        let s = secret.limb(params, prime);
        let masked = message.iter().zip(&c1).zip(s.iter()).map(|((&m, &a), &s)| q.sub(m, q.mont_mul(a, s)));
        c0.extend(masked);
    }
    Ok(SeededCiphertext::new(params, level, scale, seed, c0)?)
}

/// Encrypts slots (of any power-of-two period) under the public key (b, a): `(v b + e_0 + m, v a + e_1)` for
/// a fresh ternary v. The error of a slot has a standard deviation of about `N ERROR_DEVIATION / scale`.
///
/// # Errors
/// As [`encrypt_with_secret_key`].
pub fn encrypt_with_public_key<T: Copy + Into<Complex64>>(
    params: &Params,
    encoder: &Encoder,
    key: &PublicKey,
    slots: &[T],
    level: Level,
    scale: Scale,
) -> Result<Ciphertext, ClientError> {
    if key.digest() != params.digest() {
        let (expected, found) = (params.digest(), key.digest());
        return Err(ClientError::OtherParameters { what: "the public key", expected, found });
    }
    let message = encode(params, encoder, slots, level, scale)?;
    let mut rng = SecretRng::new()?;
    let v = ternary(&mut rng, params.n(), params.n() / 2);
    let errors = [gaussian(&mut rng, params.n()), gaussian(&mut rng, params.n())];
    let (mut words, mut c1) = (Vec::new(), Vec::new());
    for (prime, mut message) in params.basis(level).iter().zip(message) {
        let q = params.modulus(prime);
        add_small(q, &mut message, &errors[0]);
        params.ntt(prime).forward(Isa::detect(), &mut message);
        let mut error = Zeroizing::new(vec![0; params.n()]);
        add_small(q, &mut error, &errors[1]);
        params.ntt(prime).forward(Isa::detect(), &mut error);
        let mut a = vec![0; params.n()];
        uniform_limb(key.seed(), 0, prime, q, &mut a);
        // v and the key are in Montgomery form, so their product is too.
        let v = Zeroizing::new(small_limb(params, prime, &v));
        let add_masked = |k: &[u32], m: &[u32], out: &mut Vec<u32>| {
            let products = k.iter().zip(v.iter()).map(|(&k, &v)| q.from_mont(q.mont_mul(k, v)));
            out.extend(products.zip(m).map(|(product, &m)| q.add(product, m)));
        };
        add_masked(key.b(prime), &message, &mut words);
        add_masked(&a, &error, &mut c1);
    }
    words.append(&mut c1);
    Ok(Ciphertext::new(params, level, scale, 2, words)?)
}

/// The message in the coefficient domain, wiped when dropped.
fn encode<T: Copy + Into<Complex64>>(
    params: &Params,
    encoder: &Encoder,
    slots: &[T],
    level: Level,
    scale: Scale,
) -> Result<Vec<Zeroizing<Vec<u32>>>, ClientError> {
    if level > params.max_level() {
        return Err(CiphertextError::Level { level, top: params.max_level() }.into());
    }
    let message = encoder.encode(params, slots, params.basis(level), scale)?;
    Ok(message.into_limbs().into_iter().map(Zeroizing::new).collect())
}

/// Adds small coefficients to canonical ones.
fn add_small(q: &cerium_ckks::modulus::Modulus, limb: &mut [u32], small: &[i8]) {
    for (word, &c) in limb.iter_mut().zip(small) {
        // Without a branch on the sign: q is added where the coefficient is negative.
        let residue = (i32::from(c) + (i32::from(c) >> 31 & q.value() as i32)) as u32;
        *word = q.add(*word, residue);
    }
}
