//! The automorphisms `a(X) -> a(X^g)` of the ring, which rotate and conjugate slots.
//!
//! In the evaluation domain an automorphism only permutes words. With evaluations in bit-reversed order
//! an aligned block of 16 words comes from one aligned block of 16, in one of at most 16 orders: place
//! `j = 16 J + l` holds the exponent `e = 2 bitrev(J) + 1 + (N/8) bitrev4(l)`, and in `g * e mod 2N` the
//! part below `N/8` depends on `J` alone, while the part above is `c(J) + g * bitrev4(l) mod 16`. So the
//! table is one word a block, and a block is moved by one load, one permutation and one store.

use crate::isa::Isa;
use crate::modulus::Modulus;

/// Words in a block that an automorphism moves as a whole.
pub const BLOCK: usize = 16;

/// The Galois element `5^rotation mod 2N` that rotates the `N/2` slots to the left by `rotation`
/// (`out[i] = in[i + rotation]`); negative rotations go to the right.
pub fn galois_element(log_n: u32, rotation: i64) -> u32 {
    let slots = 1i64 << (log_n - 1);
    let mask = (2u32 << log_n) - 1;
    let mut exponent = rotation.rem_euclid(slots);
    let (mut element, mut square) = (1u32, 5u32);
    while exponent != 0 {
        if exponent & 1 == 1 {
            element = element.wrapping_mul(square) & mask;
        }
        square = square.wrapping_mul(square) & mask;
        exponent >>= 1;
    }
    element
}

/// The Galois element `2N - 1` that conjugates every slot.
pub fn conjugation_element(log_n: u32) -> u32 {
    (2u32 << log_n) - 1
}

/// One automorphism `X -> X^g` of the ring of degree `2^log_n`, as a permutation of evaluations.
#[derive(Clone, Debug)]
pub struct Automorphism {
    log_n: u32,
    element: u32,
    /// For each block of the output `16 * source block + order`.
    blocks: Vec<u32>,
    /// `orders[c][l]`: which word of the source block goes to place `l`.
    orders: [[u32; BLOCK]; BLOCK],
}

impl Automorphism {
    /// The automorphism with Galois element `element`, an odd number below `2^(log_n + 1)`, of the ring of
    /// degree `2^log_n`, `log_n` in `4..=28`.
    ///
    /// # Panics
    /// When the element is even or too large, or the degree out of range: no such automorphism exists.
    pub fn new(log_n: u32, element: u32) -> Self {
        assert!((4..=28).contains(&log_n), "no automorphism table of degree 2^{log_n}");
        assert!(
            element % 2 == 1 && element < 2 << log_n,
            "Galois element {element} is not odd and below 2^{}",
            log_n + 1
        );
        let log_blocks = log_n - 4;
        let blocks = (0..1u32 << log_blocks)
            .map(|j| {
                // All exponents are below 2^30 and odd; `half` is (g e - 1) / 2 modulo N.
                let exponent = 2 * reverse(j, log_blocks) + 1;
                let half = (element.wrapping_mul(exponent) & ((2 << log_n) - 1)) >> 1;
                let source = reverse(half & ((1 << log_blocks) - 1), log_blocks);
                source * BLOCK as u32 + (half >> log_blocks)
            })
            .collect();
        let orders = std::array::from_fn(|c| {
            std::array::from_fn(|l| {
                reverse((c as u32).wrapping_add(element.wrapping_mul(reverse(l as u32, 4))) & 15, 4)
            })
        });
        Self { log_n, element, blocks, orders }
    }

    /// The Galois element.
    pub fn element(&self) -> u32 {
        self.element
    }

    /// Base-2 logarithm of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.log_n
    }

    /// Where the words of an aligned stretch of the permuted limb come from: the stretch of `len` words at `offset` is made of
    /// those of the aligned stretch of as many words that begins here.
    ///
    /// # Panics
    /// Unless `len` is a power of two of at least [`BLOCK`], and `offset` a multiple of it within the limb.
    #[inline]
    pub fn source(&self, offset: usize, len: usize) -> usize {
        assert!(
            len.is_power_of_two() && len >= BLOCK && offset.is_multiple_of(len),
            "no stretch of the limb"
        );
        // The lowest four bits of the entry, the order, are cut off with the rest.
        self.blocks[offset / BLOCK] as usize & !(len - 1)
    }

    /// Writes the part of the permuted limb that starts at word `offset`: `out[i] = (sigma a)[offset + i]`. Given is the
    /// whole limb `a`, or of it only an aligned stretch of a power of two of words that holds those of the part, as
    /// [`source`](Self::source) tells. Evaluation domain; any words, which are only moved.
    ///
    /// # Panics
    /// Unless `a` has a power of two of words, at least as many as `out` and at most `N`, and `offset` and `out.len()` are
    /// multiples of [`BLOCK`] within the limb.
    pub fn permute(&self, isa: Isa, out: &mut [u32], offset: usize, a: &[u32]) {
        assert!(
            a.len().is_power_of_two() && (out.len().max(BLOCK)..=1 << self.log_n).contains(&a.len()),
            "{} words are made of {}",
            out.len(),
            a.len()
        );
        assert!(offset.is_multiple_of(BLOCK), "the tile's offset {offset} is no multiple of {BLOCK}");
        let (out, rest) = out.as_chunks_mut::<BLOCK>();
        assert!(rest.is_empty(), "a tile is a multiple of {BLOCK} words");
        let blocks = &self.blocks[offset / BLOCK..][..out.len()];
        let (a, _) = a.as_chunks::<BLOCK>();
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a value `Isa::Avx512` exists only where the processor has AVX-512.
            Isa::Avx512 => unsafe { permute_avx512(out, blocks, &self.orders, a) },
            _ => {
                for (to, &block) in out.iter_mut().zip(blocks) {
                    let from = &a[(block as usize / BLOCK) & (a.len() - 1)];
                    let order = &self.orders[block as usize % BLOCK];
                    for (to, &place) in to.iter_mut().zip(order) {
                        *to = from[place as usize % BLOCK];
                    }
                }
            }
        }
    }

    /// `a(X^g)` in the coefficient domain, canonical in and out. The definition, for oracles and tests.
    pub fn apply_to_coefficients(&self, q: &Modulus, a: &[u32]) -> Vec<u32> {
        let n = a.len();
        let mut out = vec![0; n];
        for (i, &coefficient) in a.iter().enumerate() {
            let power = i * self.element as usize % (2 * n);
            out[power % n] = if power < n { coefficient } else { q.neg(coefficient) };
        }
        out
    }
}

/// The lowest `bits` bits of `x` in reversed order; `x` has no others.
fn reverse(x: u32, bits: u32) -> u32 {
    if bits == 0 { 0 } else { x.reverse_bits() >> (32 - bits) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn permute_avx512(
    out: &mut [[u32; BLOCK]],
    blocks: &[u32],
    orders: &[[u32; BLOCK]; BLOCK],
    a: &[[u32; BLOCK]],
) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_permutexvar_epi32, _mm512_storeu_si512};
    // A power of two.
    let mask = a.len() - 1;
    for (to, &block) in out.iter_mut().zip(blocks) {
        let (from, order) = (&a[(block as usize / BLOCK) & mask], &orders[block as usize % BLOCK]);
        // SAFETY: the three pointers come from references to arrays of 64 bytes.
        unsafe {
            let order = _mm512_loadu_si512(order.as_ptr().cast());
            let words = _mm512_loadu_si512(from.as_ptr().cast());
            _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_permutexvar_epi32(order, words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntt::NttTable;
    use crate::primes::ntt_primes_below;
    use crate::testing::{fresh_rng, random_words};
    use rand_core::RngCore;

    #[test]
    fn permuting_evaluations_is_the_automorphism_of_coefficients() {
        let mut rng = fresh_rng();
        for log_n in 4..=12 {
            let q = ntt_primes_below(log_n, Modulus::TOO_LARGE).next().unwrap();
            let table = NttTable::new(q, log_n).unwrap();
            let n = 1usize << log_n;
            let random = rng.next_u32() % (n as u32) * 2 + 1;
            for element in [1, random, galois_element(log_n, 1), conjugation_element(log_n)] {
                let sigma = Automorphism::new(log_n, element);
                let a = random_words(&mut rng, n, q.value());
                let mut expected = sigma.apply_to_coefficients(&q, &a);
                table.forward(Isa::Portable, &mut expected);
                let mut evaluations = a;
                table.forward(Isa::Portable, &mut evaluations);
                for isa in Isa::available() {
                    let mut out = vec![u32::MAX; n];
                    sigma.permute(isa, &mut out, 0, &evaluations);
                    assert_eq!(out, expected, "{isa}, degree 2^{log_n}, element {element}");
                    let tile = 16 * (rng.next_u32() as usize % (n / 16));
                    sigma.permute(isa, &mut out[..16], tile, &evaluations);
                    assert_eq!(out[..16], expected[tile..][..16], "{isa}, tile at {tile}");
                    for len in (4..=log_n).map(|k| 1 << k) {
                        let at = len * (rng.next_u32() as usize % (n / len));
                        let source = sigma.source(at, len);
                        sigma.permute(isa, &mut out[..len], at, &evaluations[source..][..len]);
                        assert_eq!(out[..len], expected[at..][..len], "{isa}, {len} words at {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn galois_elements_compose_as_rotations_do() {
        for log_n in [4, 11, 16] {
            let mask = (2u32 << log_n) - 1;
            assert_eq!(galois_element(log_n, 0), 1);
            assert_eq!(galois_element(log_n, 1 << (log_n - 1)), 1);
            let product = galois_element(log_n, 3).wrapping_mul(galois_element(log_n, -10)) & mask;
            assert_eq!(galois_element(log_n, -7), product);
        }
    }

    #[test]
    #[should_panic(expected = "not odd")]
    fn refuses_even_elements() {
        Automorphism::new(8, 6);
    }
}
