//! The secret key.

use std::fmt;

use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::isa::Isa;
use cerium_ckks::params::{Params, ParamsDigest, SPARSE_WEIGHT};
use cerium_ckks::wire::{self, HEADER, Kind, WireError};
use zeroize::Zeroizing;

use crate::ClientError;
use crate::random::SecretRng;
use crate::sampling::{Small, ternary};

/// What the key derivation is for; part of the format, since keys made at different times must agree.
const SPARSE_CONTEXT: &str = "Cerium 2026-11 sparse secret of bootstrapping";

/// A ternary secret s of Hamming weight N/2. Wiped from memory when dropped.
pub struct SecretKey {
    digest: ParamsDigest,
    coefficients: Small,
}

impl SecretKey {
    /// A fresh key.
    ///
    /// # Errors
    /// Insecure parameters, and an operating system without randomness.
    pub fn generate(params: &Params) -> Result<SecretKey, ClientError> {
        if params.is_insecure() {
            return Err(ClientError::Insecure { name: params.name().to_owned() });
        }
        SecretKey::generate_insecure(params)
    }

    /// A fresh key under any parameters, insecure ones for tests included.
    ///
    /// # Errors
    /// An operating system without randomness.
    pub fn generate_insecure(params: &Params) -> Result<SecretKey, ClientError> {
        let coefficients = ternary(&mut SecretRng::new()?, params.n(), params.n() / 2);
        Ok(SecretKey { digest: params.digest(), coefficients })
    }

    /// The parameter set it was made under.
    pub fn digest(&self) -> ParamsDigest {
        self.digest
    }

    /// Checks that the key belongs to `params`.
    pub(crate) fn check(&self, params: &Params) -> Result<(), ClientError> {
        if self.digest != params.digest() {
            let (expected, found) = (params.digest(), self.digest);
            return Err(ClientError::OtherParameters { what: "the secret key", expected, found });
        }
        Ok(())
    }

    /// s modulo a prime: evaluation domain, Montgomery form.
    pub(crate) fn limb(&self, params: &Params, prime: PrimeIndex) -> Zeroizing<Vec<u32>> {
        Zeroizing::new(small_limb(params, prime, &self.coefficients))
    }

    /// The sparse secret of bootstrapping: ternary, of weight [`SPARSE_WEIGHT`]. It is derived from the key, so that it need not be kept and the keys that switch to it and
    /// back agree whenever they are made. To whoever does not know s it is as good as independent of s
    /// (BLAKE3's key derivation, and ChaCha20 behind it), and it tells nothing about s.
    pub(crate) fn sparse(&self) -> Small {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_derive_key(SPARSE_CONTEXT));
        hasher.update(&self.digest.0).update(bytemuck::cast_slice(&self.coefficients));
        let seed = Zeroizing::new(*Zeroizing::new(hasher.finalize()).as_bytes());
        ternary(&mut SecretRng::from_seed(&seed), self.coefficients.len(), SPARSE_WEIGHT)
    }

    /// The key as bytes: a frame of the wire format whose payload is N coefficients of a byte each, 0, 1 or
    /// 255.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let payload: &[u8] = bytemuck::cast_slice(&self.coefficients);
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER + payload.len()));
        bytes.extend(wire::header(Kind::Secret, self.digest, &[payload]));
        bytes.extend(payload);
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes).
    pub(crate) fn from_bytes(params: &Params, bytes: &[u8]) -> Result<SecretKey, WireError> {
        let kind = Kind::Secret;
        let payload = wire::open_under(params, kind, bytes)?;
        if payload.len() != params.n() {
            return Err(WireError::Malformed {
                kind,
                reason: "it has not one coefficient for each power of X",
            });
        }
        let coefficients: Small = Zeroizing::new(bytemuck::cast_slice(payload).to_vec());
        let weight = coefficients.iter().filter(|&&c| c != 0).count();
        if coefficients.iter().any(|c| !(-1..=1).contains(c)) || weight != params.n() / 2 {
            return Err(WireError::Malformed {
                kind,
                reason: "its coefficients are not those of a secret key",
            });
        }
        Ok(SecretKey { digest: params.digest(), coefficients })
    }
}

/// A polynomial of small coefficients modulo a prime: evaluation domain, Montgomery form.
pub(crate) fn small_limb(params: &Params, prime: PrimeIndex, coefficients: &[i8]) -> Vec<u32> {
    let q = params.modulus(prime);
    let mut limb: Vec<u32> = coefficients
        .iter()
        // Without a branch on the sign: q is added where the coefficient is negative.
        .map(|&c| (i32::from(c) + (i32::from(c) >> 31 & q.value() as i32)) as u32)
        .map(|word| q.to_mont(word))
        .collect();
    params.ntt(prime).forward(Isa::detect(), &mut limb);
    limb
}

impl fmt::Debug for SecretKey {
    /// Prints nothing secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of parameters {})", self.digest)
    }
}
