//! The runtime, held against straightforward code.

mod collectives;
mod cuda;
mod failing;
mod keys;
mod naive;
mod ranks;
mod session;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// A generator with a seed from the operating system, which is printed.
fn fresh_rng() -> ChaCha8Rng {
    let seed = getrandom::u64().expect("the operating system gives randomness");
    println!("seed {seed:#x}");
    ChaCha8Rng::seed_from_u64(seed)
}
