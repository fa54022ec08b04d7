//! Randomness from the operating system, stretched.

use cerium_ckks::uniform::Seed;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use zeroize::Zeroizing;

use crate::ClientError;

/// A generator of secrets; its state is overwritten when it is dropped.
pub(crate) struct SecretRng(ChaCha20Rng);

impl SecretRng {
    /// A new generator.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub(crate) fn new() -> Result<SecretRng, ClientError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut seed[..]).map_err(ClientError::Randomness)?;
        Ok(SecretRng::from_seed(&seed))
    }

    /// The generator that a secret seed determines.
    pub(crate) fn from_seed(seed: &Zeroizing<[u8; 32]>) -> SecretRng {
        SecretRng(ChaCha20Rng::from_seed(**seed))
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number below `bound`, which is not zero, by rejection.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let mask = u32::MAX >> (bound - 1).max(1).leading_zeros();
        loop {
            let candidate = self.0.next_u32() & mask;
            if candidate < bound {
                return candidate;
            }
        }
    }

    /// A uniform number in (0, 1], of 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

impl Drop for SecretRng {
    fn drop(&mut self) {
        self.0 = ChaCha20Rng::from_seed([0; 32]);
        // Keeps the compiler from leaving out a write that nobody reads.
        std::hint::black_box(&self.0);
    }
}

/// A fresh seed for a uniform polynomial; public.
///
/// # Errors
/// If the operating system has no randomness to give.
pub(crate) fn fresh_seed() -> Result<Seed, ClientError> {
    let mut seed = Seed::default();
    getrandom::fill(&mut seed).map_err(ClientError::Randomness)?;
    Ok(seed)
}
