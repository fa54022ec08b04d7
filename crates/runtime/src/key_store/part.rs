//! Which limbs of evaluation keys a device reads.

use std::collections::BTreeSet;

use cerium_artifact::{Artifact, DeviceId, Operand, Step};
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::evaluation_key::KeyRequest;
use cerium_ckks::params::Params;

/// The part of the keys of a manifest that a device reads: limbs, each with both halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// For each key of the manifest primes and digits, in the order in which they lie in memory.
    keys: Vec<Vec<(PrimeIndex, usize)>>,
}

impl KeyPart {
    /// Everything.
    pub fn whole(params: &Params, manifest: &[KeyRequest]) -> KeyPart {
        let limbs = |request: &KeyRequest| {
            let digits = request.digits(params).len();
            request
                .basis(params)
                .iter()
                .flat_map(|prime| (0..digits).map(move |digit| (prime, digit)))
                .collect()
        };
        KeyPart { keys: manifest.iter().map(limbs).collect() }
    }

    /// What the functions of one device of a validated artifact read.
    pub fn of(artifact: &Artifact, device: DeviceId) -> KeyPart {
        let mut keys = vec![BTreeSet::new(); artifact.keys.len()];
        for step in artifact.functions(device).iter().flat_map(|function| &function.steps) {
            let Step::Launch(kernel) = step else { continue };
            for load in kernel.body.blocks().flat_map(|block| &block.loads) {
                if let Operand::Key { key, digit, prime, .. } = *load {
                    keys[key as usize].insert((prime, usize::from(digit)));
                }
            }
        }
        KeyPart { keys: keys.into_iter().map(|limbs| limbs.into_iter().collect()).collect() }
    }

    /// For each device of an artifact that is valid for `params` its part: all of it if there is only one device.
    pub fn all(artifact: &Artifact, params: &Params) -> Vec<KeyPart> {
        match artifact.programs.len() {
            1 => vec![KeyPart::whole(params, &artifact.keys)],
            _ => artifact.devices().map(|device| KeyPart::of(artifact, device)).collect(),
        }
    }

    /// Bytes of both halves of its limbs.
    pub fn bytes(&self, params: &Params) -> u64 {
        let limbs: usize = self.keys.iter().map(Vec::len).sum();
        8 * limbs as u64 * params.n() as u64
    }

    /// Primes and digits of a key, those of a prime together.
    pub(super) fn key(&self, key: usize) -> &[(PrimeIndex, usize)] {
        &self.keys[key]
    }
}
