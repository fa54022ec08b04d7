//! Uniform polynomials grown from a seed, so that only the seed is stored: half of every key and of every
//! freshly encrypted ciphertext. How they grow is part of the wire format.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::basis::PrimeIndex;
use crate::modulus::Modulus;

/// A public seed. Fresh from the operating system for every object; it is no secret.
pub type Seed = [u8; 32];

/// Fills a limb with the uniform words in `[0, q)` that belong to (`seed`, `digit`, `prime`).
///
/// The key stream is ChaCha20 (20 rounds, 64-bit block counter from 0) under the key `seed`, with the 64-bit
/// stream number `256 digit + prime`; it is read as little-endian words. Each word is cut to its lowest b
/// bits, where 2^(b-1) < q < 2^b, and thrown away unless it is then below q. For objects without digits
/// `digit` is 0.
pub fn uniform_limb(seed: &Seed, digit: usize, prime: PrimeIndex, q: &Modulus, out: &mut [u32]) {
    let mut stream = ChaCha20Rng::from_seed(*seed);
    stream.set_stream((digit as u64) << 8 | u64::from(prime.0));
    let q = q.value();
    let mask = u32::MAX >> q.leading_zeros();
    for word in out {
        *word = loop {
            let candidate = stream.next_u32() & mask;
            if candidate < q {
                break candidate;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fresh_rng;

    #[test]
    fn words_are_canonical_uniform_and_their_own() {
        let mut seed = Seed::default();
        fresh_rng().fill_bytes(&mut seed);
        for q in [1_048_583, 805_306_457, 1_073_479_681] {
            let q = Modulus::new(q).unwrap();
            let limb = |digit, prime| {
                let mut limb = vec![0; 1 << 14];
                uniform_limb(&seed, digit, PrimeIndex(prime), &q, &mut limb);
                limb
            };
            let words = limb(1, 2);
            assert!(words.iter().all(|&w| w < q.value()));
            assert_eq!(words, limb(1, 2));
            assert!(words != limb(2, 1) && words != limb(0, 2) && words != limb(1, 3));
            // The mean of 2^14 uniform words lies within six deviations of q/2 but once in 10^9 runs.
            let mean = words.iter().map(|&w| f64::from(w)).sum::<f64>() / words.len() as f64;
            let deviation = f64::from(q.value()) / (12.0 * words.len() as f64).sqrt();
            assert!((mean - f64::from(q.value()) / 2.0).abs() < 6.0 * deviation);
        }
    }

    /// The wire format must not drift.
    #[test]
    fn the_stream_is_chacha20() {
        // RFC 8439 has no test vector with a 64-bit counter, but with counter and nonce zero the block
        // function is the same: its A.1 test vector 1 for the all-zero key begins 76 b8 e0 ad a0 f1 3d 90.
        let q = Modulus::new(1_073_479_681).unwrap();
        let mut limb = [0; 2];
        uniform_limb(&[0; 32], 0, PrimeIndex(0), &q, &mut limb);
        let expected = [0xade0_b876u32, 0x903d_f1a0].map(|word| word & 0x3fff_ffff);
        assert!(expected.iter().all(|&w| w < q.value()));
        assert_eq!(limb, expected);
    }
}
