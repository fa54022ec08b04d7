//! The definition of the transform, in `O(N^2)`: what every other implementation is tested against.

use crate::modulus::Modulus;

/// `out[j] = a(psi^(2 * bitrev(j) + 1))` for the primitive `2N`-th root `psi`; `N = a.len()` is a power of
/// two. Canonical in, canonical out.
pub fn forward(q: &Modulus, psi: u32, a: &[u32]) -> Vec<u32> {
    (0..a.len()).map(|j| evaluate(q, a, q.pow(psi, exponent(a.len(), j)))).collect()
}

/// The inverse of [`forward`]: the coefficients of the polynomial with the given evaluations.
pub fn inverse(q: &Modulus, psi: u32, evaluations: &[u32]) -> Vec<u32> {
    let n = evaluations.len() as u64;
    let n_inverse = q.pow(q.reduce_u64(n), u64::from(q.value() - 2));
    (0..n)
        .map(|i| {
            // The characters are orthogonal: sum_j psi^((2j + 1)(k - i)) is N for k = i and 0 otherwise.
            let sum = evaluations.iter().enumerate().fold(0, |sum, (j, &value)| {
                let power = exponent(evaluations.len(), j) * i % (2 * n);
                q.add(sum, q.mul(value, q.pow(psi, 2 * n - power)))
            });
            q.mul(sum, n_inverse)
        })
        .collect()
}

/// `a * b mod (X^N + 1, q)` by the schoolbook method. Coefficient domain, canonical in and out.
pub fn multiply(q: &Modulus, a: &[u32], b: &[u32]) -> Vec<u32> {
    let n = a.len();
    let mut product = vec![0; n];
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            let term = q.mul(x, y);
            let to = &mut product[(i + j) % n];
            *to = if i + j < n { q.add(*to, term) } else { q.sub(*to, term) };
        }
    }
    product
}

/// The polynomial with coefficients `a` at `point`, by Horner's rule.
fn evaluate(q: &Modulus, a: &[u32], point: u32) -> u32 {
    a.iter().rev().fold(0, |sum, &coefficient| q.add(q.mul(sum, point), coefficient))
}

/// The power of `psi` that stands at place `j`: `2 * bitrev(j) + 1`.
fn exponent(n: usize, j: usize) -> u64 {
    let reversed = if n == 1 { 0 } else { j.reverse_bits() >> (usize::BITS - n.ilog2()) };
    2 * reversed as u64 + 1
}
