//! The runtime, held against straightforward code.

mod keys;
mod naive;
mod random;
mod session;

use cerium_ckks::evaluation_key::{EvaluationKey, KeyRequest};
use cerium_ckks::params::{Params, ParamsSpec};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A generator with a seed from the operating system, which is printed.
fn fresh_rng() -> ChaCha8Rng {
    let seed = getrandom::u64().expect("the operating system gives randomness");
    println!("seed {seed:#x}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// A number below `bound`.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound as u64) as usize
}

/// Canonical words: `counts` limbs modulo the primes of `basis`, one after the other.
fn random_limbs(
    rng: &mut ChaCha8Rng,
    params: &Params,
    primes: impl IntoIterator<Item = cerium_ckks::basis::PrimeIndex>,
) -> Vec<Vec<u32>> {
    let limb = |prime| {
        let q = params.modulus(prime).value();
        (0..params.n()).map(|_| rng.next_u32() % q).collect()
    };
    primes.into_iter().map(limb).collect()
}

/// A small insecure set.
fn small_params(log_n: u8) -> ParamsSpec {
    ParamsSpec::insecure(log_n, 30, 3, 2).expect("primes for a small set")
}

/// A key of random words: as good as any for the server's arithmetic.
fn random_key(rng: &mut ChaCha8Rng, params: &Params, request: KeyRequest) -> EvaluationKey {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let primes = request.digits(params).into_iter().flat_map(|_| request.basis(params).iter());
    let words = random_limbs(rng, params, primes).concat();
    EvaluationKey::new(params, request, seed, words).expect("a key of its size")
}
