//! The tables that all kernels of a parameter set share.

use cerium_ckks::modulus::Modulus;
use cerium_ckks::params::Params;
use cerium_ckks::primes::primitive_root;

use super::geometry::made_stages;

/// The `tables` argument of all functions emitted for `params`: the factors of its transforms, in Montgomery form.
///
/// For each prime of the pool, and of it for the forward transform, then for the inverse: with `w[i] = psi^bitrev(i)` (psi the
/// primitive 2N-th root of the transform, or its inverse) and `M` the number of stages whose factors are made on the fly,
///
/// ```text
/// w[0 .. N / 2^M]
/// w[N / 2 + i * 2^(M - 1)] for i in 0 .. N / 2^M
/// ```
///
/// # Panics
/// Unless every prime has transforms of degree N, which checked parameters do.
pub fn tables(params: &Params) -> Vec<u32> {
    let log_n = params.log_n();
    let mut words = Vec::with_capacity(params.moduli().len() * words_per_prime(log_n));
    for q in params.moduli() {
        let psi = primitive_root(q, log_n).expect("checked parameters have transforms");
        let inverse = q.inv(psi).expect("a root is not zero");
        for root in [psi, inverse] {
            push_factors(q, root, log_n, &mut words);
        }
    }
    words
}

/// Words of the table that belong to one prime.
fn words_per_prime(log_n: u32) -> usize {
    4 << (log_n - made_stages(log_n))
}

fn push_factors(q: &Modulus, root: u32, log_n: u32, words: &mut Vec<u32>) {
    let made = made_stages(log_n);
    // w[2^k], in Montgomery form: bit k of an index, reversed, is bit log_n - 1 - k of the exponent.
    let bit = |k: u32| q.to_mont(q.pow(root, 1 << (log_n - 1 - k)));
    let mut push = |first: u32, lowest: u32| {
        let start = words.len();
        words.push(first);
        for k in 0..log_n - made {
            let factor = bit(lowest + k);
            for i in 0..1 << k {
                words.push(q.mont_mul(words[start + i], factor));
            }
        }
    };
    push(q.montgomery_one(), 0);
    push(bit(log_n - 1), made - 1);
}

#[cfg(test)]
mod tests {
    use cerium_ckks::params::ParamsSpec;

    use super::*;

    #[test]
    fn factors_are_powers_of_the_root() {
        for log_n in [4, 6, 9, 13] {
            let params = Params::new(ParamsSpec::insecure(log_n, 30, 2, 2).unwrap()).unwrap();
            let log_n = u32::from(log_n);
            let words = tables(&params);
            assert_eq!(words.len(), params.moduli().len() * words_per_prime(log_n));
            let made = made_stages(log_n);
            let part = 1usize << (log_n - made);
            for (q, words) in params.moduli().iter().zip(words.chunks(4 * part)) {
                let psi = primitive_root(q, log_n).unwrap();
                for (root, words) in [psi, q.inv(psi).unwrap()].into_iter().zip(words.chunks(2 * part)) {
                    let power = |i: usize| {
                        let reversed = i.reverse_bits() >> (usize::BITS - log_n);
                        q.to_mont(q.pow(root, reversed as u64))
                    };
                    for i in 0..part {
                        assert_eq!(words[i], power(i));
                        assert_eq!(words[part + i], power((1 << (log_n - 1)) + (i << (made - 1))));
                    }
                }
            }
        }
    }
}
