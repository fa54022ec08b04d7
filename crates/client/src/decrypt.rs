//! Decryption.

use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::params::Params;
use cerium_ckks::rns::{Domain, Poly};
use num_complex::Complex64;

use crate::random::SecretRng;
use crate::sampling::normal_pair;
use crate::{ClientError, ERROR_DEVIATION, SecretKey};

/// Decrypts all N/2 slots.
///
/// The result is for the owner of the key. An approximate decryption contains the noise of the ciphertext,
/// and that noise is linear in the secret: whoever sees exact results together with the ciphertexts can solve
/// for the key (Li and Micciancio, On the Security of Homomorphic Encryption on Approximate Numbers, 2021:
/// CKKS is not IND-CPA-D secure). Results that are passed on, published, or answered to a server go through
/// [`decrypt_for_sharing`].
///
/// # Errors
/// A key or ciphertext of other parameters.
pub fn decrypt(
    params: &Params,
    encoder: &Encoder,
    secret: &SecretKey,
    ciphertext: &Ciphertext,
) -> Result<Vec<Complex64>, ClientError> {
    let message = phase(params, secret, ciphertext)?;
    Ok(encoder.decode(params, &message, ciphertext.scale()))
}

/// Decrypts all N/2 slots and drowns the decryption error in fresh Gaussian noise, of standard deviation
/// 2^-`precision` in each slot, so that the result can be shared (noise flooding).
///
/// How much noise is enough depends on the error that the ciphertext carries: for k-bit security over q
/// shared results the noise must exceed it by a factor of about sqrt(12 q) 2^(k/2) (Li, Micciancio, Schultz
/// and Sorrell, Securing Approximate Homomorphic Encryption Using Differential Privacy, 2022, section 4). The
/// estimate that the compiler prints for each output is that error; a classification usually needs far fewer
/// bits than it has to spare.
///
/// # Errors
/// A key or ciphertext of other parameters, a precision at which the noise would be no larger than that of a
/// fresh encryption, and an operating system without randomness.
pub fn decrypt_for_sharing(
    params: &Params,
    encoder: &Encoder,
    secret: &SecretKey,
    ciphertext: &Ciphertext,
    precision: u32,
) -> Result<Vec<Complex64>, ClientError> {
    let message = phase(params, secret, ciphertext)?;
    // A slot is a sum of N coefficients turned by roots of unity: deviation sqrt(N) times theirs.
    let log_deviation = ciphertext.scale().log2() - f64::from(params.log_n()) / 2.0 - f64::from(precision);
    let room = log_deviation - ERROR_DEVIATION.log2();
    if room <= 0.0 {
        let most = (f64::from(precision) + room).floor().max(0.0) as u32;
        return Err(ClientError::Precision { precision, most });
    }
    let mut rng = SecretRng::new()?;
    let deviation = log_deviation.exp2();
    // Deviations are at most a scale, so that the noise fits an i64.
    let noise =
        (0..params.n() / 2).flat_map(|_| normal_pair(&mut rng)).map(|x| (x * deviation).round() as i64);
    let noise = Poly::from_coefficients(params, message.basis(), &noise.collect::<Vec<_>>());
    Ok(encoder.decode(params, &message.add(params, &noise), ciphertext.scale()))
}

/// c_0 + c_1 s + c_2 s^2, in the coefficient domain.
pub(crate) fn phase(
    params: &Params,
    secret: &SecretKey,
    ciphertext: &Ciphertext,
) -> Result<Poly, ClientError> {
    secret.check(params)?;
    if ciphertext.digest() != params.digest() {
        let (expected, found) = (params.digest(), ciphertext.digest());
        return Err(ClientError::OtherParameters { what: "the ciphertext", expected, found });
    }
    let basis = params.basis(ciphertext.level());
    let limbs = basis.iter().enumerate().map(|(limb, prime)| {
        let (q, s) = (params.modulus(prime), secret.limb(params, prime));
        // Horner's rule from the last polynomial down.
        let mut sum = ciphertext.limb(ciphertext.polynomials() - 1, limb).to_vec();
        for polynomial in (0..ciphertext.polynomials() - 1).rev() {
            for ((sum, &s), &c) in sum.iter_mut().zip(s.iter()).zip(ciphertext.limb(polynomial, limb)) {
                *sum = q.add(q.mont_mul(*sum, s), c);
            }
        }
        sum
    });
    Ok(Poly::from_limbs(basis, Domain::Evaluation, limbs.collect()).intt(params))
}
