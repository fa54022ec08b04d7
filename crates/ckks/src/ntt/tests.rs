//! One suite for every implementation of the transform.

use super::*;
use crate::primes::{ntt_primes_above, ntt_primes_below};
use crate::testing::{fresh_rng, random_words};

/// The largest and the smallest usable primes: the ends of the lazy ranges.
fn tables(log_n: u32) -> [NttTable; 2] {
    let largest = ntt_primes_below(log_n, Modulus::TOO_LARGE).next().unwrap();
    let smallest = ntt_primes_above(log_n, Modulus::TOO_SMALL).next().unwrap();
    [largest, smallest].map(|q| NttTable::new(q, log_n).unwrap())
}

/// Random words, and inputs at the ends of the range.
fn inputs(len: usize, q: u32) -> [Vec<u32>; 4] {
    let mut rng = fresh_rng();
    let ends = random_words(&mut rng, len, 2).into_iter().map(|bit| bit * (q - 1)).collect();
    [random_words(&mut rng, len, q), vec![0; len], vec![q - 1; len], ends]
}

/// Against the definition, for the sizes where that is feasible.
fn agrees_with_naive(isa: Isa) {
    for log_n in 4..=9 {
        for table in tables(log_n) {
            let q = &table.q;
            let psi = primitive_root(q, log_n).unwrap();
            for coefficients in inputs(1 << log_n, q.value()) {
                let expected = naive::forward(q, psi, &coefficients);
                let mut limb = coefficients.clone();
                table.forward(isa, &mut limb);
                assert_eq!(limb, expected, "{isa} forward 2^{log_n} modulo {}", q.value());
                assert_eq!(naive::inverse(q, psi, &limb), coefficients);
                table.inverse(isa, &mut limb);
                assert_eq!(limb, coefficients, "{isa} inverse 2^{log_n} modulo {}", q.value());
            }
        }
    }
}

/// A few outputs of the definition at the size where a whole naive transform is too slow, then the
/// portable transform as oracle for all sizes.
fn agrees_with_portable(isa: Isa) {
    for log_n in 4..=17 {
        for table in tables(log_n) {
            let q = table.q.value();
            for coefficients in inputs(1 << log_n, q) {
                let mut expected = coefficients.clone();
                table.forward(Isa::Portable, &mut expected);
                let mut limb = coefficients.clone();
                table.forward(isa, &mut limb);
                assert!(limb == expected, "{isa} forward 2^{log_n} modulo {q}");
                table.inverse(isa, &mut limb);
                assert!(limb == coefficients, "{isa} inverse 2^{log_n} modulo {q}");
                table.inverse(isa, &mut expected);
                // Not only on images of the forward transform with nice inputs: any words are evaluations.
                let mut limb = coefficients.clone();
                table.inverse_scaled(isa, &mut limb, q - 2);
                let mut scaled = coefficients.clone();
                table.inverse_scaled(Isa::Portable, &mut scaled, q - 2);
                assert!(limb == scaled, "{isa} scaled inverse 2^{log_n} modulo {q}");
                let mut apart = vec![q - 1; limb.len()];
                table.inverse_scaled_from(isa, &mut apart, &coefficients, q - 2);
                assert!(apart == scaled, "{isa} scaled inverse of another limb 2^{log_n} modulo {q}");
            }
        }
    }
}

/// Transforms of every smaller degree from one table.
fn serves_smaller_rings(isa: Isa) {
    let [table, _] = tables(12);
    let q = &table.q;
    for log_len in 0..=9 {
        let psi = q.pow(primitive_root(q, 12).unwrap(), 1 << (12 - log_len));
        let coefficients = random_words(&mut fresh_rng(), 1 << log_len, q.value());
        let mut limb = coefficients.clone();
        table.forward_len(isa, &mut limb);
        assert_eq!(limb, naive::forward(q, psi, &coefficients), "{isa} 2^{log_len}");
        table.inverse_len(isa, &mut limb, 3);
        let tripled: Vec<u32> = coefficients.iter().map(|&x| q.mul(x, 3)).collect();
        assert_eq!(limb, tripled, "{isa} 2^{log_len}");
    }
}

macro_rules! suite {
    ($module:ident, $isa:pat) => {
        mod $module {
            use super::*;

            /// Runs `test` where this processor has the instruction set, and says so where it has not.
            fn on_isa(test: fn(Isa)) {
                match Isa::available().into_iter().find(|isa| matches!(isa, $isa)) {
                    Some(isa) => test(isa),
                    None => println!("skipped: not on this processor"),
                }
            }

            #[test]
            fn agrees_with_naive() {
                on_isa(super::agrees_with_naive);
            }

            #[test]
            fn agrees_with_portable() {
                on_isa(super::agrees_with_portable);
            }

            #[test]
            fn serves_smaller_rings() {
                on_isa(super::serves_smaller_rings);
            }
        }
    };
}

suite!(portable, Isa::Portable);
suite!(avx2, Isa::Avx2);
suite!(avx512, Isa::Avx512);

#[test]
fn multiplies_polynomials() {
    let [table, _] = tables(8);
    let q = &table.q;
    let mut rng = fresh_rng();
    let (a, b) = (random_words(&mut rng, 256, q.value()), random_words(&mut rng, 256, q.value()));
    let expected = naive::multiply(q, &a, &b);
    let (mut a, mut b) = (a, b);
    table.forward(Isa::Portable, &mut a);
    table.forward(Isa::Portable, &mut b);
    let mut product: Vec<u32> = a.iter().zip(&b).map(|(&x, &y)| q.mul(x, y)).collect();
    table.inverse(Isa::Portable, &mut product);
    assert_eq!(product, expected);
}

#[test]
fn a_large_transform_has_the_defined_values() {
    let [table, _] = tables(11);
    let q = &table.q;
    let coefficients = random_words(&mut fresh_rng(), 2048, q.value());
    let expected = naive::forward(q, primitive_root(q, 11).unwrap(), &coefficients);
    let mut limb = coefficients;
    table.forward(Isa::detect(), &mut limb);
    assert_eq!(limb, expected);
}

#[test]
fn says_why_there_is_no_transform() {
    let q = ntt_primes_below(8, Modulus::TOO_LARGE).find(|q| q.value() % (1 << 18) != 1).unwrap();
    assert_eq!(NttTable::new(q, 3).unwrap_err(), NttError::Degree(3));
    assert_eq!(NttTable::new(q, 18).unwrap_err(), NttError::Degree(18));
    assert_eq!(NttTable::new(q, 17).unwrap_err(), NttError::NoRoot { q: q.value(), log_n: 17 });
}
