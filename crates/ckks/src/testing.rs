//! Randomness for tests: fresh each run, printed so that a failure can be replayed.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A generator with a seed from the operating system, which is printed.
pub(crate) fn fresh_rng() -> ChaCha8Rng {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the operating system gives randomness");
    let seed = u64::from_le_bytes(seed);
    println!("seed {seed:#x}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// `len` words below `bound`.
pub(crate) fn random_words(rng: &mut ChaCha8Rng, len: usize, bound: u32) -> Vec<u32> {
    (0..len).map(|_| rng.next_u32() % bound).collect()
}
