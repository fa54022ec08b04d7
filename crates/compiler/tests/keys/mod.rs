//! Keys and inputs of uniform words, which exact arithmetic does not mind.

use cerium_artifact::Artifact;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::evaluation_key::{EvaluationKey, KeyRequest};
use cerium_ckks::params::Params;
use rand::Rng;
use rand::rngs::StdRng;

/// Keys of a manifest.
pub(crate) fn uniform_keys(params: &Params, manifest: &[KeyRequest], rng: &mut StdRng) -> Vec<EvaluationKey> {
    let key = |request: &KeyRequest| {
        let basis = request.basis(params);
        let digits = request.digits(params).len();
        let mut b = Vec::with_capacity(request.words(params));
        for _ in 0..digits {
            for prime in basis.iter() {
                b.extend(uniform(params, prime, rng));
            }
        }
        EvaluationKey::new(params, *request, rng.random(), b).unwrap()
    };
    manifest.iter().map(key).collect()
}

/// Ciphertexts for all inputs of a program.
pub(crate) fn uniform_inputs(params: &Params, artifact: &Artifact, rng: &mut StdRng) -> Vec<Ciphertext> {
    let ports = artifact.inputs.iter().flat_map(|port| &port.ciphertexts);
    ports
        .map(|packed| {
            let basis = params.basis(packed.level);
            let limbs = (0..2).flat_map(|_| basis.iter());
            let words: Vec<u32> = limbs.flat_map(|p| uniform(params, p, rng)).collect();
            Ciphertext::new(params, packed.level, packed.scale, 2, words).unwrap()
        })
        .collect()
}

fn uniform(params: &Params, prime: PrimeIndex, rng: &mut StdRng) -> Vec<u32> {
    let q = params.modulus(prime).value();
    (0..params.n()).map(|_| rng.random_range(0..q)).collect()
}
