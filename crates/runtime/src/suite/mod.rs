//! Programs to hold devices against each other.
//!
//! [`random`] programs, for one device or several, use kernels of every class in every shape that the format allows, in functions that call each other,
//! with keys and inputs of random words: nothing of them has a meaning, but all of it has one right result.

pub mod collectives;
pub mod random;

use cerium_artifact::Artifact;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::evaluation_key::{EvaluationKey, KeyRequest};
use cerium_ckks::params::Params;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::device::Device;
use crate::progress::silent;
use crate::{KeyStore, Session, SessionError};

/// A program with all that a session and a run of it need.
#[derive(Debug)]
pub struct Case {
    /// The program.
    pub artifact: Artifact,
    /// Its parameters.
    pub params: Params,
    /// Its keys, in the order of the manifest.
    pub keys: Vec<EvaluationKey>,
    /// Its inputs.
    pub inputs: Vec<Ciphertext>,
}

impl Case {
    /// A random program in a ring of degree `2^log_n`, from 4 to 17, with keys and input of random words.
    pub fn random(rng: &mut ChaCha8Rng, log_n: u8) -> Case {
        Case::random_on(rng, log_n, 1)
    }

    /// As [`Case::random`], for any number of devices.
    pub fn random_on(rng: &mut ChaCha8Rng, log_n: u8, devices: usize) -> Case {
        let artifact = random::artifact(rng, log_n, devices);
        let params = artifact.validate().expect("random programs are valid");
        let keys = artifact.keys.iter().map(|&request| random_key(rng, &params, request)).collect();
        let inputs = artifact.inputs.iter().flat_map(|port| &port.ciphertexts);
        let inputs = inputs.map(|at| {
            let basis = params.basis(at.level);
            let words = random_limbs(rng, &params, basis.iter().chain(basis.iter())).concat();
            Ciphertext::new(&params, at.level, at.scale, 2, words).expect("words of its size")
        });
        let inputs = inputs.collect();
        Case { artifact, params, keys, inputs }
    }

    /// A session of the program on a device.
    pub fn session(&self, device: Box<dyn Device>) -> Result<Session, SessionError> {
        let keys = KeyStore::from_keys(&self.params, &self.artifact.keys, self.keys.clone(), 0, &silent)?;
        Session::new(&self.artifact, keys, device, 0, &silent)
    }
}

/// A number below `bound`.
pub fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound as u64) as usize
}

/// Canonical words: a limb modulo each of `primes`.
pub fn random_limbs(
    rng: &mut ChaCha8Rng,
    params: &Params,
    primes: impl IntoIterator<Item = PrimeIndex>,
) -> Vec<Vec<u32>> {
    let limb = |prime| {
        let q = params.modulus(prime).value();
        (0..params.n()).map(|_| rng.next_u32() % q).collect()
    };
    primes.into_iter().map(limb).collect()
}

/// A key of random words: as good as any for the server's arithmetic.
pub fn random_key(rng: &mut ChaCha8Rng, params: &Params, request: KeyRequest) -> EvaluationKey {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let primes = request.digits(params).into_iter().flat_map(|_| request.basis(params).iter());
    let words = random_limbs(rng, params, primes).concat();
    EvaluationKey::new(params, request, seed, words).expect("a key of its size")
}
